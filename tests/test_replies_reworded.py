"""The same reply said otherwise keeps its label: other case, lines, ids, addresses, quotes and small words."""

import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from parsers.smtp import read_reply
from policies.classify import Said
from sidecar.rules import load
from tests.labelled import PUBLISHED_REPLIES, REPLIES, ROWS, Labelled, identity, labels

RULES = load()
SAID = [*REPLIES, *PUBLISHED_REPLIES]
SOAK = int(os.environ.get("SOAK", "1"))
HERE = Path(__file__).parent
Reword = Callable[[str, random.Random], str]


def _wrapped(text: str, rng: random.Random) -> str:
    """As a multi-line reply, each line with the codes, joined as Postfix joins it or with its line ends."""
    reply = read_reply(text)
    if reply is None:
        return text
    width, lines = rng.randrange(20, 100), [""]
    for word in reply.text.split(" "):
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    status = f"{reply.enhanced} " if reply.enhanced else ""
    return rng.choice([" ", "  ", "\r\n", "\n"]).join(
        f"{reply.code}{' ' if number == len(lines) else '-'}{status}{line}" for number, line in enumerate(lines, 1)
    )


def _cased(text: str, rng: random.Random) -> str:
    return rng.choice([str.upper, str.lower, str.title, str.swapcase])(text)


def _other_words(text: str, rng: random.Random) -> str:
    word = rng.choice(["mail", "email", "e-mail", "message", "Email", "E-Mail"])
    return re.sub(r"(?i)(?<![\w.@/=-])(?:e-?mail|message|mail)(?![\w.@/-])(?! from\b)", word, text)


def _other_ids(text: str, rng: random.Random) -> str:
    """Queue ids, session ids, build names and times."""
    text = re.sub(
        r"\b(?=\w*\d)(?=\w*[a-f])[0-9a-f]{8,}\b",
        lambda found: "".join(rng.choice("0123456789abcdef") for _ in found[0]),
        text,
    )
    return re.sub(r"\b1[67]\d{8}\b", lambda _: str(rng.randrange(1_600_000_000, 1_799_999_999)), text)


def _other_recipient(text: str, rng: random.Random) -> str:
    return re.sub(r"\bnobody@", f"{rng.choice(['a.b', 'jane-doe', 'x1', 'info.desk', 'o_neil'])}@", text)


def _other_quotes(text: str, rng: random.Random) -> str:
    single, double = rng.choice([("\u2019", "\u201c"), ("", ""), ("`", "'"), ("'", "")])
    return text.replace("'", single).replace('"', double)


def _other_dashes(text: str, rng: random.Random) -> str:
    return text.replace(" - ", rng.choice([" \u2013 ", " \u2014 ", " -- ", " - "]))


def _other_ends(text: str, rng: random.Random) -> str:
    return text.rstrip(".!") + rng.choice(["", ".", "!", " .", " ", "..."])


def _other_blanks(text: str, rng: random.Random) -> str:
    return re.sub(" ", lambda _: rng.choice([" ", " ", "  ", "\t"]), text)


def _other_scheme(text: str, rng: random.Random) -> str:
    return re.sub("https?://", rng.choice(["http://", "https://"]), text)


REWORDINGS: tuple[Reword, ...] = (
    _cased, _other_words, _other_ids, _other_recipient, _other_quotes, _other_dashes, _other_ends, _other_blanks, _other_scheme,
)  # fmt: skip
OURS = "192.0.2.7"


def _reworded(row: Labelled, rng: random.Random) -> tuple[Said, str]:
    """A reply with one to four things changed, perhaps wrapped, and the identity that it then names."""
    text = row.text
    for reword in rng.sample(REWORDINGS, rng.randrange(1, 5)):
        text = reword(text, rng)
    before = identity(RULES.classify(row.said()))
    address = f"{rng.choice(['198.51.100', '203.0.113'])}.{rng.randrange(1, 255)}"
    domain = rng.choice(["example.com", "news.shop-24.example", "a1.example.co.uk", "mail.example.org"])
    if rng.random() < 0.5 and not before.startswith("netblock"):
        text, before = re.sub(rf"\b{re.escape(OURS)}\b", address, text), before.replace(OURS, address)
    if rng.random() < 0.5 and (":" not in before or before.endswith(":example.com") or before.startswith("ip:")):
        text = re.sub(r"(?i)(?<![\w.-])example\.com(?=s?\b)", domain, text)
        before = re.sub(r":example\.com$", f":{domain}", before)
    if rng.random() < 0.5:
        text = _wrapped(text, rng)
    if rng.random() < 0.3:  # bare, without Postfix's words around it
        return Said(text, row.host or "mx.example.net", "", row.command), before
    return Said(row.logged(text), row.host), before


@pytest.mark.parametrize("seed", range(10))
def test_labels_are_stable(seed: int) -> None:
    """1,000 replies a seed, 10,000 in all; the long form has SOAK times as many."""
    rng, changed = random.Random(seed), []
    for _ in range(1_000 * SOAK):
        row = rng.choice(SAID)
        said, names = _reworded(row, rng)
        verdict = RULES.classify_anew(said)
        if (labels(verdict), identity(verdict)) != (labels(RULES.classify(row.said())), names):
            changed.append((row.place, verdict.rule, labels(verdict), identity(verdict), names, said.reason))
    assert changed == []


def test_two_runs_give_the_same_bytes() -> None:
    """Whatever order sets and tables of strings come in."""
    lines = "".join(f"{row.logged()}\n" for row in ROWS) + "".join(f"{row.text}\n" for row in ROWS)
    runs = {
        subprocess.run(
            [sys.executable, "-c", "from sidecar.cli import main; main()", "classify"],
            cwd=HERE.parent,
            env={**os.environ, "PYTHONHASHSEED": seed},
            input=lines,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "4242")
    }
    assert len(runs) == 1
    assert runs.pop().count("\n") == 2 * len(ROWS)
