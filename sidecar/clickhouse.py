"""A ClickHouse server over its HTTP interface: statements, rows in RowBinary, and errors as words.

Knows what every server since 18.16 understands: no parameters of its own, so that values are written out here.
"""

import contextlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import Any, Final, Protocol

import requests

from sidecar.config import Config, ConfigError
from sidecar.credentials import secret

CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 20.0
"""Less than a service has to come to its end."""
_EPOCH: Final = date(1970, 1, 1).toordinal()
_SETTINGS: Final = {
    "wait_end_of_query": "1",  # so that an error comes as a status and not in the middle of an answer
    "output_format_json_quote_64bit_integers": "0",
    "max_query_size": str(16 << 20),  # a filter may name some thousand streams
}

_DATABASE: Final = "SELECT 1 FROM system.databases WHERE name = ? FORMAT JSONCompact"

Value = str | int | float | date | Sequence[str]


class ServerError(Exception):
    """The server did not do it, or nobody knows whether it did: says the address and what is wrong."""


class ClickHouse(Protocol):
    """What history needs of a server."""

    @property
    def name(self) -> str: ...

    def rows(self, statement: str, parameters: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """Ask; each `?` of the statement stands for a parameter. Raises ServerError."""

    def run(self, statement: str) -> None:
        """Raises ServerError, and then it may have been done all the same."""

    def insert(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Value]]) -> None:
        """Add rows, all of them in one partition: then a server that dies has all or none of them in `table`.

        Raises ServerError, and then they may be there all the same, or be there later, or not in every view.
        """


class HttpServer:
    """The server of `store.clickhouse`; for one thread at a time."""

    patience = ANSWER_SECONDS
    """Seconds until an answer must begin."""

    def __init__(self, url: str, database: str, *, user: str = "", password: str = "", ca_file: str = "") -> None:
        self.name = f"{url.rstrip('/')}/{database}"
        self.database = database
        self._url = f"{url.rstrip('/')}/"
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy of the environment is for the Internet
        self._session.verify = ca_file or True
        if user:
            self._session.headers.update({"X-ClickHouse-User": user, "X-ClickHouse-Key": password})

    def rows(self, statement: str, parameters: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        answer = self._post(f"{filled(statement, parameters)} FORMAT JSONCompact".encode())
        try:
            return [tuple(row) for row in answer.json()["data"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ServerError(f"{self.name}: what answers is no ClickHouse: {answer.text[:200]!r}") from error

    def run(self, statement: str) -> None:
        self._post(statement.encode())

    def insert(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Value]]) -> None:
        self._post(
            b"".join(map(row_binary, rows)), query=f"INSERT INTO {table} ({', '.join(columns)}) FORMAT RowBinary"
        )

    def create(self) -> None:
        """Make the database where there is none. Raises ServerError."""
        found = self._post(filled(_DATABASE, (self.database,)).encode(), database="system")
        if not found.json()["data"]:
            self._post(f"CREATE DATABASE IF NOT EXISTS {self.database}".encode(), database="system")

    def close(self) -> None:
        self._session.close()

    def _post(self, body: bytes, **more: str) -> requests.Response:
        settings = {**_SETTINGS, "database": self.database, **more}
        timeout = min(CONNECT_SECONDS, self.patience), self.patience
        try:
            answer = self._session.post(self._url, params=settings, data=body, timeout=timeout, allow_redirects=False)
        except (requests.RequestException, OSError, ValueError) as error:
            raise ServerError(f"{self.name}: no answer: {error}") from error
        if answer.status_code != 200:
            raise ServerError(f"{self.name}: {' '.join(answer.text.split())[:500] or answer.reason}")
        return answer


def configured(config: Config) -> HttpServer | None:
    """The server of the configuration, None where there is none. Raises ConfigError."""
    url = config.store.clickhouse
    if not url:
        return None
    if not url.startswith(("http://", "https://")) or "@" in url or "?" in url:
        raise ConfigError(
            f"store.clickhouse: {url!r}: wanted http://HOST:8123 or https://HOST:8443; user and password stand in [clickhouse]"
        )
    ours = config.clickhouse
    if not ours.database.isidentifier():
        raise ConfigError(f"clickhouse.database: {ours.database!r}: wanted letters, digits and _ alone")
    if "/" in ours.name:
        raise ConfigError(f"clickhouse.name: {ours.name!r}: wanted a name without /, as mx1.example.com")
    password = secret("clickhouse.password_file", ours.password_file) if ours.password_file else ""
    return HttpServer(url, ours.database, user=ours.user, password=password, ca_file=config.outside.ca_file)


@contextlib.contextmanager
def opened(config: Config) -> Iterator[HttpServer | None]:
    """As `configured`, closed at the end."""
    server = configured(config)
    try:
        yield server
    finally:
        if server is not None:
            server.close()


# Values.


def filled(statement: str, parameters: Sequence[Value]) -> str:
    """Write parameters in the place of `?`."""
    parts = statement.split("?")
    if len(parts) != len(parameters) + 1:
        raise ValueError(f"{len(parameters)} parameters for {len(parts) - 1} places: {statement}")
    return parts[0] + "".join(literal(value) + part for value, part in zip(parameters, parts[1:], strict=True))


def literal(value: Value) -> str:
    """Write a value as SQL of ClickHouse."""
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'").replace("\0", "\\0")
        return f"'{escaped}'"
    if isinstance(value, date):
        return f"toDate('{value.isoformat()}')"
    if isinstance(value, int | float):
        return repr(value)
    return f"[{', '.join(map(literal, value))}]"


def row_binary(row: Sequence[Value]) -> bytes:
    """Write a row in the format RowBinary: str as String, int as 64 bits, float as Float64, date as Date."""
    return b"".join(map(_binary, row))


def _binary(value: Value) -> bytes:
    if isinstance(value, str):
        data = value.encode(errors="backslashreplace")
        return _length(len(data)) + data
    if isinstance(value, float):
        return struct.pack("<d", value)
    if isinstance(value, int):
        return struct.pack("<q", value)
    if isinstance(value, date):
        return struct.pack("<H", value.toordinal() - _EPOCH)
    return _length(len(value)) + b"".join(map(_binary, value))


def _length(number: int) -> bytes:
    """LEB128."""
    data = bytearray()
    while number > 0x7F:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    data.append(number)
    return bytes(data)
