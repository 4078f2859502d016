"""Memory while a log of any length is read from standard input: the largest resident size, each gigabyte.

    .venv/bin/python benchmarks/long_log.py [--gigabytes 10] [--lines 250000] [--seeds 4]

There is no file: some generated logs are written to the reader in turn, each later than the one before. So times go on,
all messages come to their end, and queue ids come again after hours, as short ones do.
"""

import argparse
import itertools
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.logs import hours_of, later
from benchmarks.mail_log import write_log

_HERE: Final = Path(__file__).resolve().parent
READERS: Final = {
    "whole messages": (
        sys.executable,
        "-m",
        "sidecar",
        "parse",
        "--messages",
        "--stats",
        "--year",
        "2025",
        "--tz",
        "UTC",
    ),
    "tracked, with metrics": (sys.executable, str(_HERE / "logs.py"), "--work", "tracked, with metrics", "1"),
}
_PIECE: Final = 1 << 20


def log(lines: int, seeds: int) -> Iterator[bytes]:
    """Lines without end, some megabytes at a time."""
    blocks = []
    for seed in range(seeds):
        out = StringIO()
        write_log(out, lines, seed=seed, to_the_end=True)
        blocks.append(out.getvalue().encode())
    at = 0
    for block in itertools.cycle(blocks):
        yield later(block, at)
        at += hours_of(block)


def peak(pid: int) -> float:
    """The largest resident size of a process until now, MB (proc(5))."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"process {pid} has no VmHWM: it has ended")


def pieces(whole: Iterator[bytes], size: int) -> Iterator[bytes]:
    """As many of these bytes, a piece at a time."""
    for block in whole:
        for begin in range(0, len(block), _PIECE):
            piece = block[begin : min(begin + _PIECE, begin + size)]
            yield piece
            size -= len(piece)
            if not size:
                return


def measure(name: str, gigabytes: float, lines: int, seeds: int) -> None:
    """Feed one reader, and print what it takes."""
    due = sorted({min(0.1, gigabytes), *map(float, range(1, int(gigabytes) + 1)), gigabytes})
    with subprocess.Popen(READERS[name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_HERE.parent) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        written = 0
        for piece in pieces(log(lines, seeds), round(gigabytes * 1e9)):
            reader.stdin.write(piece)
            written += len(piece)
            if written >= round(due[0] * 1e9):
                print(f"{name:24}{due.pop(0):7.2f} GB{peak(reader.pid):7.0f} MB")
        reader.stdin.close()
        print(f"{name:24}{' '.join(reader.stdout.read().decode().split())}")
    if reader.returncode:
        raise SystemExit(f"{name}: the reader ended with status {reader.returncode}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--gigabytes", type=float, default=10.0)
    arguments.add_argument("--lines", type=int, default=250_000, help="of each generated log")
    arguments.add_argument("--seeds", type=int, default=4, help="different logs")
    said = arguments.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # it is a file
    for name in READERS:
        measure(name, said.gigabytes, said.lines, said.seeds)


if __name__ == "__main__":
    main()
