"""The sidecar as the lab runs it: its configuration, its processes, and questions to its control socket."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sidecar.control import CoreUnreachable, ask_core_async
from sidecar.lab.patience import longer
from sidecar.lab.private_postfix import PrivatePostfix

_READY_S = 15.0
_READY_TOGETHER_S = 90.0
"""Where several hosts begin at once, on the processors of one."""


class AttachmentError(Exception):
    """The sidecar did not become ready: says what it printed."""


class Attachment:
    """`sidecar run` on a private Postfix, in act mode; everything of its below `directory`."""

    def __init__(
        self,
        directory: Path,
        postfix: PrivatePostfix,
        scale: float,
        more: Sequence[str] = (),
        *,
        within: Sequence[str] = (),
    ) -> None:
        """`more`: lines of its configuration; `within`: the command that starts another in its network."""
        self.directory = directory
        self.config_file = directory / "sidecar.toml"
        self.control_socket = directory / "run" / "control"
        self.output = directory / "output"
        self._within = tuple(within)
        self._process: asyncio.subprocess.Process | None = None
        for each in (directory, directory / "run", directory / "store"):
            each.mkdir(mode=0o755)
        self.config_file.write_text(lab_config(directory, postfix, scale) + "".join(f"{line}\n" for line in more))

    async def start(self) -> None:
        """Start it and wait until it answers, and sees what is logged from now on.

        Raises AttachmentError.
        """
        with self.output.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *(*self._within, sys.executable, "-m", "sidecar", "--config", str(self.config_file), "run"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + longer(_READY_TOGETHER_S if self._within else _READY_S)
        while True:
            with contextlib.suppress(CoreUnreachable):
                if (await self.ask("status"))["log"]["followed"]:  # else what is sent now may not be seen
                    return
            if self._process.returncode is not None or time.monotonic() > deadline:
                raise AttachmentError(f"sidecar run is not ready; it printed:\n{self.printed()}")
            await asyncio.sleep(0.05)

    async def configured_anew(self, *lines: str, without: str = "") -> None:
        """Start it again with more settings; `without`: begin of the lab's own lines that these take the place of.

        Raises AttachmentError.
        """
        await self.stop()
        self.config_file.write_text(with_settings(self.config_file.read_text(), lines, without=without))
        await self.start()

    async def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """One command to core, its answer.

        Raises CoreUnreachable or CoreRefused.
        """
        return await ask_core_async(self.control_socket, {"command": command, **arguments})

    async def stop(self) -> None:
        """Ask it to end; what does not within ten seconds is killed."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), 10)
        await self.kill()

    async def kill(self) -> None:
        """All its processes at once, with SIGKILL."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            await self._process.wait()

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def printed(self) -> str:
        """The end of what it wrote to its standard output and error."""
        return self.output.read_text(errors="replace")[-4000:] if self.output.exists() else ""

    def _signal(self, number: signal.Signals) -> None:
        """To its whole process group."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


def with_settings(config: str, lines: Sequence[str], *, without: str = "") -> str:
    """Add settings to the text of a configuration, after those that begin with `without` are gone."""
    kept = [line for line in config.splitlines() if not (without and line.startswith(without))]
    return "".join(f"{line}\n" for line in (*kept, *lines))


def lab_config(directory: Path, postfix: PrivatePostfix, scale: float) -> str:
    """Settings with the lab's places; dotted keys, so that more of the same tables may follow."""
    return f"""\
mode = "act"
runtime_directory = "{directory}/run"
log.source = "{postfix.maillog}"
policy.listen = ["unix:private/sidecar"]
store.path = "{directory}/store"
postfix.config_directory = "{postfix.config_directory}"
web.listen = "127.0.0.1:8025"
subqueues.scale = {scale}
feeds.blocklists.enabled = false
feeds.authentication.enabled = false
"""
