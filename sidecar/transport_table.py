"""A table of Postfix that maps recipient domains, and recipients of requeued mail, to transports, kept true in place:
where a policy answer does not reach.

Writes it through postmap alone, so that format and locks are Postfix's own; which domain goes where, `routing` says.
It is of type lmdb, for there a look-up sees the last change; with hash mail went by the old content after one.
"""

import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from sidecar import postfix
from sidecar.postfix import PostfixError

_KIND: Final = "lmdb:"
_WITHIN: Final = 60.0
"""Seconds for a postmap."""


class Changes(NamedTuple):
    put: int
    dropped: int


class TransportTable:
    def __init__(self, table: str, config_directory: Path) -> None:
        """`table`: TYPE:PATH, as Postfix names it."""
        self.table = table
        self._config_directory = config_directory
        self._written: dict[str, str] | None = None
        """What stands in it; None before we have looked."""
        self._turn = threading.Lock()

    def update(self, wanted: Mapping[str, str]) -> Changes:
        """Make it say exactly this of domains, domain -> transport; it is made where it is not there.

        What it says of addresses stays. Raises PostfixError.
        """
        return self._write(wanted, addresses=False)

    def lead(self, wanted: Mapping[str, str]) -> Changes:
        """The same for addresses, which Postfix looks up before their domains (transport(5)). Raises PostfixError."""
        return self._write(wanted, addresses=True)

    def led(self) -> dict[str, str]:
        """Tell what it says of addresses. Raises PostfixError."""
        with self._turn:
            return {key: transport for key, transport in self._known().items() if "@" in key}

    def _write(self, wanted: Mapping[str, str], *, addresses: bool) -> Changes:
        with self._turn:
            return self._change(wanted, {key: at for key, at in self._known().items() if ("@" in key) is addresses})

    def _known(self) -> dict[str, str]:
        if self._written is None:
            self._postmap("-i")  # makes an empty one
            self._written = self._read()
        return self._written

    def _change(self, wanted: Mapping[str, str], written: Mapping[str, str]) -> Changes:
        put = {domain: transport for domain, transport in wanted.items() if written.get(domain) != transport}
        gone = [domain for domain in written if domain not in wanted]
        others = {key: at for key, at in self._known().items() if key not in written}
        self._written = None  # of what fails half way nobody knows what came of it
        if put:
            self._postmap("-i", "-r", given="".join(f"{domain} {transport}:\n" for domain, transport in put.items()))
        if gone:
            self._postmap("-d", "-", given="".join(f"{domain}\n" for domain in gone))
        self._written = others | dict(wanted)
        return Changes(len(put), len(gone))

    def _read(self) -> dict[str, str]:
        lines = (line.partition("\t") for line in self._postmap("-s").splitlines())
        return {domain: transport.removesuffix(":") for domain, _, transport in lines}

    def _postmap(self, *options: str, given: str = "") -> str:
        command = ["postmap", "-c", str(self._config_directory), *options, self.table]
        try:
            done = subprocess.run(
                command, input=given, capture_output=True, encoding="utf-8", timeout=_WITHIN, check=False, umask=0o022
            )
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:  # ValueError: what is no UTF-8
            raise PostfixError(f"{' '.join(command)}: {error}") from error
        if done.returncode and not (options[0] == "-d" and not done.stderr.strip()):  # 1: none of the keys was there
            raise PostfixError(f"{' '.join(command)}: status {done.returncode}: {done.stderr.strip()}")
        return done.stdout


def file_of(table: str) -> Path | None:
    """Give the file of a table; None for one that we could not keep true."""
    path = table.removeprefix(_KIND)
    return Path(f"{path}.lmdb") if table.startswith(_KIND) and path.startswith("/") else None


def problem(table: str, config_directory: Path) -> str:
    """Say why a table cannot be named in transport_maps, "" where it can: a missing one would put off all mail."""
    file = file_of(table)
    if file is None:
        return f"postfix.transport_table = {table!r}: wanted lmdb and a path, as lmdb:/var/lib/sidecar/transport"
    if "lmdb" not in postfix.table_types(config_directory):
        return f"postfix.transport_table = {table!r}: this Postfix has no lmdb (apt-get install postfix-lmdb)"
    if not file.exists():
        return f"postfix.transport_table: {file} is not there yet: start sidecar-core, which makes it"
    return ""
