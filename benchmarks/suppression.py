"""Ten million suppressed addresses: bytes an entry, how soon core serves with them, and what a look-up costs.

The file of digests is written as core writes it, the entries that are looked up among others that nobody asks for;
then it is opened as at core's start, asked about who is on it and who is not, and folded anew with 20,000 changes
while another thread takes the time of the longest wait, as an answer to Postfix would.

    python benchmarks/suppression.py [--entries 10000000] [--json]
"""

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from heapq import merge
from pathlib import Path
from typing import Self

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from policies.suppression import GLOBAL, Listed, Reason  # noqa: E402  # after the path
from sidecar.suppression_book import OVERLAY_MAX, SuppressionBook, SuppressionKey  # noqa: E402  # as above
from sidecar.suppression_index import IndexFile, Stamp, build, fold  # noqa: E402  # as above

KNOWN = 100_000
"""Addresses whose digests are real; the others are random and in order, for sorting ten million would take its time."""
LOOKUPS = 300_000
STAMP = Stamp(b"benchmark-------", 0)


def strangers(entries: int, rng: random.Random) -> Iterator[tuple[bytes, int]]:
    step = (1 << 128) // entries
    for number in range(entries):
        yield (number * step + rng.randrange(step)).to_bytes(16, "big"), 1


def resident(of: str = "VmRSS") -> float:
    """MB."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(of)).split()[1]) / 1024


def ns_each(find: Callable[[str], object], addresses: list[str], rng: random.Random) -> float:
    """CPU time of a look-up, the least of three rounds."""
    asked = rng.choices(addresses, k=LOOKUPS)
    took = []
    for _ in range(3):
        began = time.process_time_ns()
        for address in asked:
            find(address)
        took.append((time.process_time_ns() - began) / len(asked))
    return min(took)


class Waits:
    """The longest that a thread waited for its turn, while it did next to nothing."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            time.sleep(0.001)
            self.longest = max(self.longest, time.monotonic() - began - 0.001)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def run(entries: int) -> dict[str, float]:
    rng = random.Random(1)
    key = SuppressionKey(b"0123456789abcdef")
    known = [f"subscriber{number}@mail{number % 977}.example" for number in range(KNOWN)]
    others = [f"reader{number}@mail{number % 977}.example" for number in range(KNOWN)]
    real = sorted((key.digest(address), 1) for address in known)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "suppressed.index"
        began = time.monotonic()
        build(merge(real, strangers(entries - KNOWN, rng)), path, STAMP)
        built = time.monotonic() - began
        before, anonymous = resident(), resident("RssAnon")
        began = time.monotonic()
        book = SuppressionBook(key)
        book.use(IndexFile(path), {1: Listed(GLOBAL, Reason.HARD_BOUNCE)})
        assert book.find(known[0])
        opened = time.monotonic() - began
        hit, miss = ns_each(book.find, known, rng), ns_each(book.find, others, rng)
        mapped, heap = resident() - before, resident("RssAnon") - anonymous
        assert all(book.find(address) for address in known)
        assert not any(book.find(address) for address in others)
        with Waits() as quiet:
            time.sleep(2.0)
        changed = {key.digest(f"new{number}@x.example"): (1,) for number in range(OVERLAY_MAX)}
        began = time.monotonic()
        with Waits() as waits:
            folding = threading.Thread(target=fold, args=(IndexFile(path), changed, path, STAMP))
            folding.start()
            folding.join()
        folded = time.monotonic() - began
        size = path.stat().st_size
    return {
        "entries": entries,
        "file_mb": round(size / 1e6, 1),
        "bytes_an_entry": round(size / entries, 2),
        "build_s": round(built, 1),
        "open_ms": round(opened * 1e3, 2),
        "heap_mb": round(heap, 1),
        "mapped_mb": round(mapped, 1),
        "hit_ns": round(hit),
        "miss_ns": round(miss),
        "fold_s": round(folded, 2),
        "longest_wait_ms": round(waits.longest * 1e3, 1),
        "longest_wait_without_ms": round(quiet.longest * 1e3, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Ten million suppressed addresses.")
    parser.add_argument("--entries", type=int, default=10_000_000)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    given = parser.parse_args()
    found = run(given.entries)
    if given.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name}: {value:g}" if name != "entries" else f"{name}: {value:,}")


if __name__ == "__main__":
    main()
