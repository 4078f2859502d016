"""A coverage-guided fuzzer of what strangers can write: log lines, replies, policy requests, rule files.

    python benchmarks/fuzz.py [TARGET] [SECONDS] [SEED]

An input that reaches a new pair of lines of ours becomes an ancestor of others. An exception that is not the target's
own ends it, with the input. (By tracing, and not with an instrumenting fuzzer: no package to install, and most of the
work is done by regular expressions, into which neither sees.)
"""

import json
import random
import re
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

if __name__ == "__main__":
    import benchmarks.sources  # noqa: F401  # before any of ours: lines of compiled modules are not seen to run

from benchmarks.mutation import ROOT, log_lines, mutated
from parsers.fact_json import fact_json
from parsers.log import LogReader
from parsers.policy_protocol import PolicyConnection, ProtocolError
from parsers.smtp import fold, read_reply
from policies.lifecycle import Lifecycle
from policies.rules import RuleError, parse_provider

_OURS: Final = (str(ROOT / "parsers"), str(ROOT / "policies"))


class Target(NamedTuple):
    """What is fed, and with what it begins."""

    name: str
    feed: Callable[[bytes], None]
    seeds: Callable[[], Sequence[bytes]]


def log_line(data: bytes) -> None:
    """Facts that can be printed, or one unknown line; twice, as the second time the process is known."""
    reader = LogReader(zone=UTC, reference=1750000000.0)
    lifecycle = Lifecycle()
    for _ in range(2):
        for fact in reader.block_facts(data + b"\n"):
            json.dumps(fact_json(fact))
            lifecycle.see(fact)
    lifecycle.rest()
    for record in lifecycle.finished():
        assert record.queue_ids


def reply(data: bytes) -> None:
    """A reply has a code; folding leaves one line, and no more to fold in a reply of one line."""
    text = data.decode("utf-8", "surrogateescape")
    assert "\n" not in fold(text)
    for reason in (text, f"host h[1.2.3.4] said: {text} (in reply to RCPT TO command)"):
        found = read_reply(reason)
        assert found is None or re.fullmatch(r"[2-5]\d\d", found.code)
        assert found is None or reason == text or found.address == "1.2.3.4"


def policy_request(data: bytes) -> None:
    """Whole, and byte by byte: the same requests, or the same refusal."""
    whole, pieces = PolicyConnection(), PolicyConnection()
    at_once = _requests(whole, [data])
    assert _requests(pieces, [data[at : at + 1] for at in range(len(data))])[: len(at_once)] == at_once


def _requests(connection: PolicyConnection, pieces: Sequence[bytes]) -> list[Any]:
    found: list[Any] = []
    try:
        for piece in pieces:
            found += connection.receive_data(piece)
    except ProtocolError:
        return found
    return found


def rule_file(data: bytes) -> None:
    """A provider, or an error that names file, place, and remedy."""
    try:
        parse_provider("fuzz", data.decode("utf-8", "replace"))
    except RuleError as error:
        said = str(error)
    else:
        return
    assert said.startswith("fuzz"), said


def _requests_seeds() -> list[bytes]:
    request = (
        b"request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\nclient_address=192.0.2.9\nsender=a@shop.example\n"
        b"recipient=b@example.net\nrecipient_count=0\nqueue_id=\ninstance=1.2.3\nsize=0\nsasl_username=\n\n"
    )
    return [request, request + request, request.replace(b"RCPT", b"END-OF-MESSAGE"), b"\n", b"request=x\n\n", b"=\n\n"]


def _reply_seeds() -> list[bytes]:
    paths = sorted((ROOT / "policies" / "providers").glob("*.toml"))
    found = [
        text
        for path in paths
        for text in re.findall(r'^\s*["\'](\d{3}[ -].*?)["\'],?$', path.read_text(), re.MULTILINE)
    ]
    return [text.encode() for text in found] or [b"421-4.7.0 a\r\n421 4.7.0 b"]


def _rule_seeds() -> list[bytes]:
    folders = (ROOT / "policies" / "providers", ROOT / "tests" / "badrules")
    return [path.read_bytes()[:3000] for folder in folders for path in sorted(folder.glob("*.toml"))]


TARGETS: Final = (
    Target("log-line", log_line, log_lines),
    Target("reply", reply, _reply_seeds),
    Target("policy-request", policy_request, _requests_seeds),
    Target("rule-file", rule_file, _rule_seeds),
)


class Coverage:
    """Pairs of lines of ours that ran one after the other."""

    def __init__(self) -> None:
        self.seen: set[tuple[int, int, int]] = set()
        self.fresh = False

    def run(self, feed: Callable[[bytes], None], data: bytes) -> bool:
        """Feed it; True where it went a way that none went before."""
        self.fresh = False
        before = sys.gettrace()
        sys.settrace(self._called)
        try:
            feed(data)
        finally:
            sys.settrace(before)
        return self.fresh

    def _called(self, frame: FrameType, _event: str, _arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(_OURS):
            return None
        code, last = id(frame.f_code), 0

        def traced(frame: FrameType, _event: str, _arg: Any) -> Any:
            nonlocal last
            pair = (code, last, frame.f_lineno)
            last = frame.f_lineno
            if pair not in self.seen:
                self.seen.add(pair)
                self.fresh = True
            return traced

        return traced


class Found(Exception):  # noqa: N818  # it is what a fuzzer is for
    """An input that something of ours did not stand."""


def fuzz(target: Target, seconds: float, seed: int) -> dict[str, Any]:
    """Feed mutations for so long. Raises Found."""
    dice = random.Random(seed)
    coverage = Coverage()
    ancestors: list[bytes] = []
    seeds = list(target.seeds())
    runs = 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or runs < len(seeds):
        data = seeds[runs] if runs < len(seeds) else mutated(dice, ancestors)
        runs += 1
        try:
            if coverage.run(target.feed, data) or not ancestors:
                ancestors.append(data)
        except Exception as error:
            raise Found(f"{target.name}, seed {seed}: {type(error).__name__}: {error}: {data!r}") from error
    return {"target": target.name, "runs": runs, "ancestors": len(ancestors), "pairs": len(coverage.seen)}


if __name__ == "__main__":
    named, long, chosen = [*sys.argv[1:4], *("all", "60", "1")[len(sys.argv[1:4]) :]]
    for one in TARGETS:
        if named in {"all", one.name}:
            print(json.dumps(fuzz(one, float(long), int(chosen))), flush=True)
