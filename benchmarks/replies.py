"""How many distinct replies a second the rules read on one core, and how that compares with a plain loop over `re`.

Distinct replies are made from the labelled rows of tests/replies with new addresses, names and ids, as a busy queue logs
them; nothing is remembered from one to the next. The site's rules are filled up to --rules with phrases nobody says.
"""

import argparse
import gc
import json
import random
import re
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from policies.classify import RuleSet, Said
from policies.rules import Rule
from policies.said import hear
from sidecar.rules import organizational_domain, packaged_files

_ROWS = Path(__file__).resolve().parent.parent / "tests" / "replies"
_IP = re.compile(r"192\.0\.2\.7\b")
_ID = re.compile(r"\b[0-9a-f]{6,}(?:-[0-9a-f]+)+\b")
_NAME = re.compile(r"\b(nobody|info)@")
_WORDS = (
    "amber",
    "basalt",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "glade",
    "heron",
    "iris",
    "kelp",
    "lotus",
    "maple",
    "onyx",
)


def distinct_replies(count: int, *, seed: int = 1) -> list[Said]:
    """Different replies in the mixture of the labelled rows."""
    rng = random.Random(seed)
    rows = [row for file in sorted(_ROWS.glob("*.toml")) for row in tomllib.loads(file.read_text())["row"]]
    replies: dict[Said, None] = {}
    while len(replies) < count:
        replies[_vary(rng.choice(rows), rng)] = None
    return list(replies)


def _vary(row: dict[str, str], rng: random.Random) -> Said:
    address = f"198.51.{rng.randrange(256)}.{rng.randrange(256)}"
    if "reason" in row:
        return Said(
            _new_names(row["reason"], rng).replace("198.51.100.25", address), "", f"d{rng.randrange(10**6)}.net"
        )
    reply = _new_names(row["reply"], rng)
    if row["command"] == "greeting":
        reason = f"host {row['host']}[{address}] refused to talk to me: {reply}"
    else:
        reason = f"host {row['host']}[{address}] said: {reply} (in reply to {row['command']} command)"
    return Said(reason, row["host"], f"d{rng.randrange(10**6)}.net")


def _new_names(text: str, rng: random.Random) -> str:
    text = _IP.sub(f"203.0.{rng.randrange(256)}.{rng.randrange(256)}", text)
    text = _ID.sub(lambda _: f"{rng.randrange(16**12):x}-{rng.randrange(16**4):x}", text)
    return _NAME.sub(lambda _: f"user{rng.randrange(10**6)}@", text)


def filled_up(rules: int, *, seed: int = 2) -> RuleSet:
    """The packaged rules and as many free phrases for any server as make up the number."""
    rng = random.Random(seed)
    files = list(packaged_files())
    missing = max(0, rules - len(RuleSet.read(files).rules))
    code = ('"550"', '"554"', '"5xx"', '"4xx"', '"421"')
    text = 'said_by = "any"\n' + "".join(
        f"""[[rule]]
name = "free-{number}"
code = [{rng.choice(code)}]
any = ["{" ".join(rng.sample(_WORDS, 3))}", "{" ".join(rng.sample(_WORDS, 2))} refused"]
detail = "content.spam"
scope = "message"
bounce = "block"
reaction = "alert-content"
"""
        for number in range(missing)
    )
    at = next(place for place, (name, _) in enumerate(files) if name == "generic/status.toml")
    return RuleSet.read([*files[:at], ("free.toml", text), *files[at:]], organizational=organizational_domain)


def plain_loop(rules: RuleSet) -> Callable[[Said], object]:
    """What one would write first: a list of expressions, one for each rule, tried in order from the reply's code on."""
    patterns = [re.compile(_as_expression(rule), re.IGNORECASE) for rule in rules.rules]

    def classify(said: Said) -> object:
        reply = said.reason.partition("said: ")[2] or said.reason.partition("talk to me: ")[2] or said.reason
        for number, pattern in enumerate(patterns):
            if pattern.match(reply):
                return number
        return None

    return classify


def _as_expression(rule: Rule) -> str:
    codes = "|".join(code.replace("x", r"\d") for code in sorted(rule.codes)) or r"\d\d\d"
    phrases = "|".join(re.escape(phrase).replace(r"\ ", r"\s+") for phrase in rule.any_of or rule.all_of[:1])
    pattern = rule.pattern.pattern if rule.pattern and "(?P<" not in rule.pattern.pattern else ""
    return rf"(?:{codes})[ -].*(?:{phrases or pattern or '|'.join(map(re.escape, sorted(rule.statuses)[:5]))})"


def cpu_per_reply(classify: Callable[[Said], object], replies: list[Said], *, rounds: int) -> float:
    """CPU seconds a reply: of each 500 the least over the rounds, for other load on the machine only ever adds."""
    total = 0.0
    gc.disable()
    for start in range(0, len(replies), 500):
        batch = replies[start : start + 500]
        total += min(_cpu(classify, batch) for _ in range(rounds))
    gc.enable()
    return total / len(replies)


def _cpu(classify: Callable[[Said], object], replies: list[Said]) -> float:
    began = time.process_time()
    for said in replies:
        classify(said)
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replies", type=int, default=20_000)
    parser.add_argument("--rules", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rules, replies = filled_up(options.rules), distinct_replies(options.replies)
    ours = cpu_per_reply(rules.classify_anew, replies, rounds=options.rounds)
    reading = cpu_per_reply(hear, replies, rounds=options.rounds)
    plain = cpu_per_reply(plain_loop(rules), replies[: max(200, len(replies) // 20)], rounds=1)
    figures = {
        "rules": len(rules.rules),
        "replies": len(replies),
        "mean_bytes": round(sum(len(said.reason) for said in replies) / len(replies)),
        "us_per_reply": round(ours * 1e6, 2),
        "of_it_reading_us": round(reading * 1e6, 2),
        "replies_per_s": round(1 / ours),
        "plain_re_loop_per_s": round(1 / plain),
        "ratio": round(plain / ours, 1),
    }
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:24}{value:>12}")


if __name__ == "__main__":
    main()
