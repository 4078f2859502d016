"""Makes the journal files of test_journal.py, with systemd-journal-remote: python tests/journal/make.py [DIRECTORY].

Three files of one host: before a reboot, after it, and a little later. They are kept, compressed, so that
the tests need nothing but journalctl.
"""

import lzma
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

REMOTE = "/lib/systemd/systemd-journal-remote"
MACHINE = "3d1219c7c4c5404aaa1f6d2a48adfda4"
SUPPRESSED = "a596d6fe7bfa4994828e72309e95d61e"

Fields = list[tuple[str, str | bytes]]


def mail(message: str | bytes) -> Fields:
    return [
        ("PRIORITY", "6"),
        ("SYSLOG_FACILITY", "2"),
        ("SYSLOG_IDENTIFIER", "postfix/smtp"),
        ("SYSLOG_PID", "4711"),
        ("_PID", "4711"),
        ("_HOSTNAME", "mx1"),
        ("_SYSTEMD_UNIT", "postfix@-.service"),
        ("MESSAGE", message),
    ]


def cron(message: str) -> Fields:
    return [("PRIORITY", "6"), ("SYSLOG_FACILITY", "9"), ("SYSLOG_IDENTIFIER", "CRON"), ("MESSAGE", message)]


def suppressed(unit: str) -> Fields:
    return [
        ("PRIORITY", "4"),
        ("SYSLOG_FACILITY", "3"),
        ("SYSLOG_IDENTIFIER", "systemd-journald"),
        ("MESSAGE_ID", SUPPRESSED),
        ("MESSAGE", f"Suppressed 7 messages from {unit}"),
        ("N_DROPPED", "7"),
    ]


def before_the_reboot() -> Iterator[Fields]:
    for number in range(25):
        yield mail(f"line {number}")
        yield cron(f"(root) CMD ({number})")
    yield mail(b"caf\xe9")
    yield [*mail("first of two"), ("MESSAGE", "second of two")]
    yield mail("x" * 6000)


def after_it() -> Iterator[Fields]:
    yield mail("line 25")
    yield mail("line 26")
    yield suppressed("postfix@-.service")
    yield mail("line 27")
    yield suppressed("apache2.service")
    yield mail("line 28")


def a_little_later() -> Iterator[Fields]:
    yield mail("line 29")


FILES = {
    "first": (before_the_reboot, "a" * 32, 1_763_750_000_000_000, 900_000_000),
    "second": (after_it, "b" * 32, 1_763_760_000_000_000, 1_000_000),
    "third": (a_little_later, "b" * 32, 1_763_770_000_000_000, 10_001_000_000),
}
"""What, in which boot, at which time and how long after the boot (microseconds)."""


def export(entries: Iterator[Fields], boot: str, time: int, since_boot: int) -> bytes:
    """The journal export format: a field a line, with its length before it where the value is not plain text."""
    made = []
    for number, fields in enumerate(entries):
        stamps: Fields = [
            ("__REALTIME_TIMESTAMP", str(time + number)),
            ("__MONOTONIC_TIMESTAMP", str(since_boot + number)),
            ("_BOOT_ID", boot),
            ("_MACHINE_ID", MACHINE),
        ]
        for name, value in stamps + fields:
            if isinstance(value, bytes):
                made.append(name.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n")
            else:
                made.append(f"{name}={value}\n".encode())
        made.append(b"\n")
    return b"".join(made)


def make(directory: Path) -> None:
    for name, (entries, boot, time, since_boot) in FILES.items():
        with tempfile.TemporaryDirectory() as scratch:
            journal = Path(scratch) / "made.journal"
            subprocess.run([REMOTE, "-o", journal, "-"], input=export(entries(), boot, time, since_boot), check=True)
            (directory / f"{name}.journal.xz").write_bytes(lzma.compress(journal.read_bytes(), preset=9))


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
