"""A private Postfix: own configuration, queue, data and log below one directory, never the system's.

It uses the installed programs with `-c`; the log is written by Postfix's own postlogd, so no syslog daemon is needed.
"""

import contextlib
import json
import os
import pwd
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from sidecar.lab.ports import free_port

PROGRAMS = ("postfix", "postconf", "postsuper", "postqueue", "postkick")

LISTINGS_TRIED = 3

_BUILT_IN = ("command_directory", "daemon_directory", "shlib_directory", "meta_directory", "mail_owner", "setgid_group")
"""Settings of the installed package; asked of postconf -d."""

_MASTER_CF = """\
# service   type  private unpriv chroot wakeup maxproc command
{address}:{port} inet n   -      n      -      -       smtpd
pickup      unix  n       -      n      60     1       pickup
cleanup     unix  n       -      n      -      0       cleanup
qmgr        unix  n       -      n      300    1       qmgr
tlsmgr      unix  -       -      n      1000?  1       tlsmgr
rewrite     unix  -       -      n      -      -       trivial-rewrite
bounce      unix  -       -      n      -      0       bounce
defer       unix  -       -      n      -      0       bounce
trace       unix  -       -      n      -      0       bounce
verify      unix  -       -      n      -      1       verify
flush       unix  n       -      n      1000?  0       flush
proxymap    unix  -       -      n      -      -       proxymap
proxywrite  unix  -       -      n      -      1       proxymap
smtp        unix  -       -      n      -      -       smtp
relay       unix  -       -      n      -      -       smtp
showq       unix  n       -      n      -      -       showq
error       unix  -       -      n      -      -       error
retry       unix  -       -      n      -      -       error
discard     unix  -       -      n      -      -       discard
anvil       unix  -       -      n      -      1       anvil
scache      unix  -       -      n      -      1       scache
postlog     unix-dgram n  -      n      -      1       postlogd
"""

_COMPRESSOR = """\
#!/bin/sh
# Postfix gives postlogd a second to leave the old file. On a busy machine it takes longer, and gzip gives up on a file
# that grows. Something has to be said for a new file to be begun.
until [ -e {maillog} ]; do
    postlog -c {etc} -t lab/compressor "a new log is begun"
    sleep 0.1
done
exec gzip "$1"
"""


class PostfixError(Exception):
    """A Postfix command failed: says the command and what it printed."""


class Queued(NamedTuple):
    """One message of `postqueue -j`."""

    queue_name: str
    queue_id: str
    sender: str
    recipients: tuple[str, ...]


def missing_programs() -> list[str]:
    """Programs of Postfix that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


class PrivatePostfix:
    """One instance below `directory` (which user postfix must be able to enter).

    `main_cf` goes over the settings below; `master_cf` is appended. `port` 0 takes a free one. Without more it
    sends nothing anywhere: default_transport is discard. `within`: the command that starts another in its network.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int = 0,
        address: str = "127.0.0.1",
        within: Sequence[str] = (),
        main_cf: Mapping[str, str] | None = None,
        master_cf: str = "",
        header_checks: str = "",
    ) -> None:
        self.directory = directory
        self.address = address
        self.port = port or free_port()
        self._within = tuple(within)
        self.config_directory = directory / "etc"
        self.queue_directory = directory / "queue"
        self.data_directory = directory / "data"
        self.maillog = directory / "mail.log"
        self._write(dict(main_cf or {}), master_cf, header_checks)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start it; when this returns, its ports are open (postfix-script starts `master -w`).

        Raises PostfixError.
        """
        self._run(*self._within, "postfix", "-c", str(self.config_directory), "start")

    def stop(self) -> None:
        """Stop it, deliveries under way are finished first; harmless when it does not run."""
        if self.running():
            self._run("postfix", "-c", str(self.config_directory), "stop")

    def abort(self) -> None:
        """Stop it at once, deliveries under way are cut."""
        if self.running():
            self._run("postfix", "-c", str(self.config_directory), "abort")

    def running(self) -> bool:
        return self._status("postfix", "-c", str(self.config_directory), "status") == 0

    def reload(self) -> None:
        """New queue manager, new configuration."""
        self._run("postfix", "-c", str(self.config_directory), "reload")

    def rotate_log(self) -> None:
        """Rename the log with a time in its name, begin a new one, and compress the old one once nobody writes to it."""
        self._run("postfix", "-c", str(self.config_directory), "logrotate")

    def postconf(self, *arguments: str) -> str:
        """What `postconf -c … ARGUMENTS` prints; `-e` edits main.cf."""
        return self._run("postconf", "-c", str(self.config_directory), *arguments)

    def postsuper(self, action: str, queue_ids: Sequence[str], *queues: str) -> str:
        """Give postsuper an action ("-h", "-H", "-r", "-d") and queue ids, for `queues` or all; what it printed."""
        ids = "".join(f"{queue_id}\n" for queue_id in queue_ids)
        return self._run("postsuper", "-c", str(self.config_directory), action, "-", *queues, given=ids)

    def postkick(self, service: str, request: str, *, kind: str = "public") -> None:
        """Wake a service: "qmgr" with request "D" scans the deferred queue."""
        self._run("postkick", "-c", str(self.config_directory), kind, service, request)

    def postqueue(self) -> list[Queued]:
        """Everything in the queue, also while Postfix does not run."""
        printed = self._listing()
        return [
            Queued(
                entry["queue_name"],
                entry["queue_id"],
                entry["sender"],
                tuple(recipient["address"] for recipient in entry["recipients"]),
            )
            for entry in map(json.loads, printed.splitlines())
        ]

    def _listing(self) -> str:
        # Just after a stop a dying showq may still accept postqueue's connection, and then says nothing.
        for _ in range(LISTINGS_TRIED - 1):
            with contextlib.suppress(PostfixError):
                return self._run("postqueue", "-c", str(self.config_directory), "-j")
            time.sleep(0.5)
        return self._run("postqueue", "-c", str(self.config_directory), "-j")

    def message_id(self, queue_id: str) -> str | None:
        """Message-ID of a queued message, read from its file; None where it has none or is gone."""
        with contextlib.suppress(PostfixError):
            for line in self._run("postcat", "-c", str(self.config_directory), "-hq", queue_id).splitlines():
                name, _, value = line.partition(":")
                if name.lower() == "message-id":
                    return value.strip()
        return None

    def queue_files(self, queue: str) -> Iterator[Path]:
        """Files of one queue ("hold", "deferred"); works with hashed queues and while Postfix does not run."""
        for root, _, files in os.walk(self.queue_directory / queue):
            yield from (Path(root) / name for name in files)

    def master_pid(self) -> int:
        return int((self.queue_directory / "pid" / "master.pid").read_text())

    @property
    def _compressor(self) -> Path:
        return self.config_directory / "compressor"

    def _write(self, main_cf: dict[str, str], master_cf: str, header_checks: str) -> None:
        for directory in (self.directory, self.config_directory, self.queue_directory, self.data_directory):
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o755)
        settings = self._settings() | main_cf
        owner = pwd.getpwnam(settings["mail_owner"])
        os.chown(self.data_directory, owner.pw_uid, owner.pw_gid)
        if header_checks:
            checks = self.config_directory / "header_checks"
            checks.write_text(header_checks)
            settings.setdefault("header_checks", f"regexp:{checks}")
        lines = [f"{name} = {value}" for name, value in settings.items()]
        (self.config_directory / "main.cf").write_text("\n".join(lines) + "\n")
        (self.config_directory / "master.cf").write_text(
            _MASTER_CF.format(address=self.address, port=self.port) + master_cf
        )
        self._compressor.write_text(
            _COMPRESSOR.format(maillog=shlex.quote(str(self.maillog)), etc=shlex.quote(str(self.config_directory)))
        )
        self._compressor.chmod(0o755)

    def _settings(self) -> dict[str, str]:
        built_in = dict(zip(_BUILT_IN, self._run("postconf", "-dh", *_BUILT_IN).splitlines(), strict=True))
        return built_in | {
            "compatibility_level": "3.6",
            "queue_directory": str(self.queue_directory),
            "data_directory": str(self.data_directory),
            "maillog_file": str(self.maillog),
            "maillog_file_prefixes": str(self.directory),
            "maillog_file_compressor": str(self._compressor),
            "myhostname": "mta1.sender-side.example",
            "mydestination": "",
            "mynetworks": "127.0.0.0/8",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "alias_maps": "",
            "alias_database": "",
            "local_recipient_maps": "",
            "default_transport": "discard:default",
            "relay_transport": "discard:relay",
            "enable_long_queue_ids": "yes",
            "in_flow_delay": "0",
            "smtpd_relay_restrictions": "permit_mynetworks, reject",
            "smtputf8_enable": "no",
            "smtpd_tls_security_level": "none",
            "smtp_tls_security_level": "none",
        }

    def _run(self, *command: str, given: str = "") -> str:
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip() or self._last_lines()
            raise PostfixError(f"{' '.join(command)}: status {done.returncode}: {said}")
        return done.stdout + (done.stderr if command[0] == "postsuper" else "")

    def _status(self, *command: str) -> int:
        return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode

    def _last_lines(self) -> str:
        """Postfix's scripts write to the log when nobody is at a terminal."""
        if not self.maillog.exists():
            return "no output"
        return "\n".join(self.maillog.read_text(errors="replace").splitlines()[-5:])
