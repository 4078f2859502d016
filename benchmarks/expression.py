"""What a compiled expression costs on a typical event, in CPU, beside the same condition written as plain Python."""

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from parsers.condition import by_key, compile_expression
from parsers.expression import Field, FieldType, parse

FIELDS = {
    "provider": Field(FieldType.TEXT),
    "sasl_username": Field(FieldType.TEXT),
    "sender": Field(FieldType.TEXT),
    "header.*": Field(FieldType.TEXT),
    "status": Field(FieldType.TEXT),
    "delay": Field(FieldType.DURATION),
    "size": Field(FieldType.SIZE),
}
EVENT = {
    "time": 1_790_000_000.0,
    "provider": "google",
    "sasl_username": "newsletter",
    "sender": "bounce-1234567@news.shop.example.com",
    "header.list-id": "<offers.shop.example.com>",
    "header.subject": "Our offers of this week, for you alone",
    "recipient": "somebody@gmail.com",
    "status": "deferred",
    "delay": 331.5,
    "size": 48_213,
}
"""Each term of the expressions below must be looked at: the dear case."""


def plainly(event: Mapping[str, Any]) -> bool:
    return event["provider"] in {"google", "yahoo"} and event["sasl_username"] == "newsletter"


EXPRESSIONS = {
    "one comparison": "provider = google",
    "the design's": 'provider in (google, yahoo) and sasl_username = "newsletter" and not header.list-id ~ "alerts"',
    "five terms": "provider in (google, yahoo) and status = deferred and delay > 5m and size < 1m and sender ~ '@news\\.'",
    "alternatives": "provider = yahoo or (provider = google and delay > 5m) or not header.x-campaign = summer",
}


def cpu_us(condition: Callable[[Mapping[str, Any]], bool], *, count: int, rounds: int) -> float:
    """Microseconds of CPU a call: the least of the rounds, for other load on the machine only ever adds."""
    gc.disable()
    least = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(count):
            condition(EVENT)
        least = min(least, time.process_time() - began)
    gc.enable()
    return least / count * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = {
        name: cpu_us(compile_expression(parse(text, FIELDS), by_key), count=options.count, rounds=options.rounds)
        for name, text in EXPRESSIONS.items()
    }
    figures["two terms in plain Python"] = cpu_us(plainly, count=options.count, rounds=options.rounds)
    began = time.process_time()
    for _ in range(100):
        parse(EXPRESSIONS["the design's"], FIELDS)
    figures["reading the design's, once"] = (time.process_time() - began) / 100 * 1e6
    if options.json:
        print(json.dumps({name: round(figure, 3) for name, figure in figures.items()}))
        return
    for name, figure in figures.items():
        print(f"{name:28}{figure:>9.3f} us")


if __name__ == "__main__":
    main()
