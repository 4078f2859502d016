"""Millions of mutated log lines: no exception, and each is a known line, an unknown one, or an empty one.

python benchmarks/soak_lines.py [LINES] [SEED]
"""

import itertools
import json
import random
import sys
import time
from datetime import UTC
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.mutation import log_lines, mutated
from parsers.fact_json import fact_json
from parsers.log import LogReader

BATCH = 2_000
"""Lines to a reader's block."""
SAMPLED = 50
"""Of so many facts one is printed as JSON."""


def soak(lines: int, seed: int) -> dict[str, int]:
    """Count what became of so many lines. Raises AssertionError where one is missing, and whatever a parser raises."""
    dice = random.Random(seed)
    originals = log_lines()
    reader = LogReader(zone=UTC, reference=1750000000.0)
    known = empty = facts = 0
    started = time.perf_counter()
    while reader.lines < lines:
        # An entry of the journal's export format is one line made of many: not counted here.
        block = b"\n".join(mutated(dice, originals) for _ in range(BATCH)).replace(b"__CURSOR=", b"__CURSOR_") + b"\n"
        found = reader.block_facts(block)
        # A repeated line is the same fact again and again.
        known += sum(fact is not before for before, fact in itertools.pairwise([None, *found]))
        empty += sum(not line.strip(b"\0\r \t") for line in block.split(b"\n")) - 1
        facts += len(found)
        for fact in found[::SAMPLED]:
            json.dumps(fact_json(fact))
        unknown = reader.unknown.total()
        assert known + unknown + empty == reader.lines, f"seed {seed}: {known=} {unknown=} {empty=} of {reader.lines}"
    seconds = time.perf_counter() - started
    return {
        "lines": reader.lines,
        "known": known,
        "unknown": unknown,
        "empty": empty,
        "facts": facts,
        "unknown_names": len(reader.unknown),
        "samples": len(reader.samples),
        "lines_per_second": round(reader.lines / seconds),
    }


if __name__ == "__main__":
    count, chosen = (int(word) for word in (sys.argv[1:3] + ["10000000", "1"][len(sys.argv) - 1 :]))
    print(json.dumps(soak(count, chosen)))
