"""Mutations of log lines, replies, requests and rules, cheap enough for millions: bytes in, bytes out, by a seed."""

import random
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]

WORDS: Final = (
    b"status=sent (", b", dsn=2.0.0", b">, relay=", b"[6.6.6.6]:25", b", delays=0/0/0/0", b"to=<", b"from=<", b"<>", b'"', b"\\",
    b": ", b"; ", b", ", b"(", b")", b"]: ", b" from ", b"; from=<a@b> to=<c@d> proto=SMTP helo=<h>", b"NOQUEUE", b"3F2A81C0B7: ",
    b"removed", b"warning: ", b"message repeated 3 times: [ ", b"421-4.7.28 ", b" 550 5.1.1 ", b"\xff", b"\xc3", b"\0", b"\r",
    b"Feb 29 23:59:60", b"2025-02-30T25:61:61+99:99", b"<22>1 ", b'{"log":"', b"__CURSOR=", b"\n", b"-", b"0" * 30, b"[", b"]",
)  # fmt: skip


def log_lines() -> list[bytes]:
    """The lines of all cases of tests/maillog and tests/lifecycle, in several envelopes."""
    lines = []
    for path in sorted((ROOT / "tests" / "maillog").glob("*/*.toml")):
        case = tomllib.loads(path.read_text())
        text = f"{case['tag']}: {case['text']}".encode()
        lines += [b"Jun  1 12:00:00 mx1 " + text, b"2025-06-01T12:00:00.250000+02:00 mx1 " + text]
    for path in sorted((ROOT / "tests" / "lifecycle").glob("*.toml")):
        lines += tomllib.loads(path.read_text())["log"].strip().encode().splitlines()
    return lines


def _cut(dice: random.Random, data: bytes, _others: Sequence[bytes]) -> bytes:
    return data[: dice.randrange(len(data) + 1)]


def _flip(dice: random.Random, data: bytes, _others: Sequence[bytes]) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + bytes((dice.randrange(256),)) + data[at + 1 :]


def _insert(dice: random.Random, data: bytes, _others: Sequence[bytes]) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + dice.choice(WORDS) + data[at:]


def _remove(dice: random.Random, data: bytes, _others: Sequence[bytes]) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + data[at + dice.randrange(1, 12) :]


def _double(dice: random.Random, data: bytes, _others: Sequence[bytes]) -> bytes:
    at = dice.randrange(len(data) + 1)
    part = data[at : at + dice.randrange(1, 40)]
    return data[:at] + part * dice.randrange(2, 4) + data[at:]


def _splice(dice: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    other = dice.choice(others)
    return data[: dice.randrange(len(data) + 1)] + other[dice.randrange(len(other) + 1) :]


_WAYS: Final[Sequence[Callable[[random.Random, bytes, Sequence[bytes]], bytes]]] = (
    _cut, _flip, _flip, _insert, _insert, _remove, _double, _splice,
)  # fmt: skip


def mutated(dice: random.Random, others: Sequence[bytes]) -> bytes:
    """One of them, changed once or a few times."""
    data = dice.choice(others)
    for _ in range(1 + (dice.random() < 0.3)):
        data = dice.choice(_WAYS)(dice, data, others)
    return data
