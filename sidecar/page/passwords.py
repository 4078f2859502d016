"""Who may see the page: a file of names and hashes (scrypt, RFC 7914), and `sidecar password`, which makes its lines.

Knows the file and the hash; when somebody is asked, `access` decides.
"""

import base64
import binascii
import hashlib
import hmac
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Self

import click

from sidecar.config import ConfigError

_N, _R, _P = 1 << 14, 8, 1
"""16 MiB and some 50 ms a guess."""
_N_MAX, _R_MAX, _P_MAX = 1 << 20, 16, 8
"""Of a line that somebody else made: beyond it a request would cost too much."""


class Hash(NamedTuple):
    n: int
    r: int
    p: int
    salt: bytes
    digest: bytes

    @classmethod
    def make(cls, password: str) -> Self:
        salt = os.urandom(16)
        return cls(_N, _R, _P, salt, _scrypt(password, salt, _N, _R, _P))

    @classmethod
    def read(cls, text: str) -> Self:
        """Raises ValueError."""
        scheme, *numbers, salt, digest = text.split("$")
        if scheme != "scrypt" or len(numbers) != 3:
            raise ValueError(text)
        n, r, p = map(int, numbers)
        if not (1 < n <= _N_MAX and n & (n - 1) == 0 and 0 < r <= _R_MAX and 0 < p <= _P_MAX):
            raise ValueError(text)
        try:
            return cls(n, r, p, base64.b64decode(salt, validate=True), base64.b64decode(digest, validate=True))
        except binascii.Error as error:
            raise ValueError(text) from error

    def __str__(self) -> str:
        salt, digest = (base64.b64encode(each).decode() for each in (self.salt, self.digest))
        return f"scrypt${self.n}${self.r}${self.p}${salt}${digest}"

    def fits(self, password: str) -> bool:
        """Takes some 50 ms on purpose, without holding up other threads."""
        return hmac.compare_digest(self.digest, _scrypt(password, self.salt, self.n, self.r, self.p))


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    memory = 128 * r * (n + p + 2) + (1 << 20)
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=memory, dklen=32)


NOBODY = Hash(_N, _R, _P, b"no such user....", b"\0" * 32)
"""Fits nothing, and takes as long to say so."""


def read(path: Path, *, key: str = "web.password_file") -> Mapping[str, Hash]:
    """Name -> hash. Raises ConfigError; also where others may read the file."""
    try:
        text = path.read_text(encoding="utf-8")
        mode = path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{key}: {path}: cannot be read: {error}") from error
    if mode & 0o007:
        raise ConfigError(f"{key}: {path}: everybody may read it; wanted chmod 640, and the group sidecar")
    found = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, hashed = line.strip().partition(":")
        try:
            found[name] = Hash.read(hashed)
        except ValueError as error:
            raise ConfigError(
                f"{key}: {path}: line {number}: found no hash of ours, wanted NAME:scrypt$..., "
                f'as "sidecar password NAME" prints it'
            ) from error
    if not found:
        raise ConfigError(f'{key}: {path}: no line in it; wanted what "sidecar password NAME" prints')
    return found


@click.command(epilog="Example: sidecar password alice | tee -a /etc/sidecar/page.passwords")
@click.argument("name")
def password(name: str) -> None:
    """Print a line for web.password_file: somebody who may see the status page.

    Asks for the password on a terminal, else reads it from the first line of standard input.
    """
    if ":" in name or not name.strip():
        raise click.BadParameter(f"{name!r}: wanted a name without a colon")
    given = _asked() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    if not given:
        raise click.UsageError("found an empty password")
    click.echo(f"{name}:{Hash.make(given)}")


def _asked() -> str:
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
