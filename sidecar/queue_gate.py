"""What another host's core is let do with this host's queue: the forced command behind its SSH key.

Takes one JSON object a line on standard input. Looks at the queue and at Postfix's configuration by itself, notes that the
other core lives, and hands everything else to this host's queue helper, which checks it as it does its own core's.
"""

import contextlib
import json
import socket
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

import click

from sidecar import postfix
from sidecar.config import Config
from sidecar.mail_host import to_json
from sidecar.postfix import PostfixError
from sidecar.queue_helper import LINE_MAX
from sidecar.requeue_limits import objection

HELPER_WITHIN = 120.0
"""Seconds for a command of the helper: a reload waits up to half a minute, and it does one at a time."""

Answer = dict[str, Any]


class QueueGate:
    def __init__(self, config: Config) -> None:
        self._config = config
        self._helper: tuple[socket.socket, BinaryIO] | None = None
        self._own: Mapping[str, Callable[[Mapping[str, Any]], Answer]] = {
            "instances": self._instances,
            "queue": self._queue,
            "alive": self._alive,
            "may-requeue": self._may_requeue,
        }

    def answer(self, line: bytes) -> bytes:
        """Give the answer to one request, without its line end; what goes wrong is told, never raised."""
        try:
            request = json.loads(line)
            command = request.get("command") if isinstance(request, dict) else None
            if not isinstance(command, str) or command not in self._own:
                return self._of_helper(line)
            return json.dumps({"ok": True, **self._own[command](request)}).encode()
        except (ValueError, RecursionError) as error:
            return _refusal(f"bad request: {error}")
        except PostfixError as error:
            return _refusal(str(error))
        except OSError as error:
            return _refusal(f"{error.strerror or error}; does sidecar-queue-helper run on this host?")

    def close(self) -> None:
        if self._helper is not None:
            connection, answers = self._helper
            answers.close()
            connection.close()
            self._helper = None

    def _instances(self, _: Mapping[str, Any]) -> Answer:
        known = postfix.instances(Path(self._config.postfix.config_directory))
        return {"sidecar": _version(), "instances": [to_json(each) for each in known]}

    def _queue(self, request: Mapping[str, Any]) -> Answer:
        known = postfix.instances(Path(self._config.postfix.config_directory))
        instance = postfix.find(known, str(request.get("instance")))
        return {"messages": [each._asdict() for each in postfix.queued(instance)]}

    def _alive(self, _: Mapping[str, Any]) -> Answer:
        """The sign of life that this host's failsafe waits for."""
        (Path(self._config.runtime_directory) / "heartbeat").touch()
        return {}

    def _may_requeue(self, request: Mapping[str, Any]) -> Answer:
        """Look at this host's Postfix before mail is taken on hold for it; the helper looks again before each requeue."""
        known = postfix.instances(Path(self._config.postfix.config_directory))
        return {"objection": objection(known, "", str(request.get("transport", "")), "", ())}

    def _of_helper(self, line: bytes) -> bytes:
        try:
            return self._asked(line)
        except OSError:
            self.close()  # it was started anew, or did not answer: the next request finds another
            raise

    def _asked(self, line: bytes) -> bytes:
        if self._helper is None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(HELPER_WITHIN)
            try:
                connection.connect(str(self._config.helper_socket))
            except OSError:
                connection.close()
                raise
            self._helper = connection, connection.makefile("rb")
        connection, answers = self._helper
        connection.sendall(line.rstrip(b"\n") + b"\n")
        answer = answers.readline()
        if not answer.endswith(b"\n"):
            raise ConnectionResetError("the queue helper hung up")
        return answer.rstrip(b"\n")


def _refusal(why: str) -> bytes:
    return json.dumps({"ok": False, "error": why}).encode()


def _version() -> str:
    try:
        return version("postfix-sidecar")
    except PackageNotFoundError:  # run from its source, without being installed
        return ""


@click.command("queue-gate", epilog="Example: sidecar queue-gate")
@click.pass_obj
def queue_gate(config: Config) -> None:
    """Let the core of another host work on this host's queue: the forced command of its SSH key (docs/central-log.md).

    Requests come on standard input, one JSON object a line, and each is answered with one.
    """
    with contextlib.closing(QueueGate(config)) as gate:
        while line := sys.stdin.buffer.readline(LINE_MAX + 1):
            if len(line) > LINE_MAX:
                sys.stdout.buffer.write(_refusal(f"line longer than {LINE_MAX} bytes") + b"\n")
                sys.stdout.buffer.flush()
                return
            if line.endswith(b"\n"):  # else the connection ended in the middle of a request: not done
                sys.stdout.buffer.write(gate.answer(line) + b"\n")
                sys.stdout.buffer.flush()
