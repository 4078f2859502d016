"""Replies that strangers published, labelled before we read them: how often we agree, and who must not be suppressed.

Unlike those in `heard` they need not all be right: a text of this kind that nobody has typed in yet is not either.
"""

from collections import Counter

import pytest

from policies.classify import Said
from policies.verdict import Reaction, Verdict
from sidecar.rules import load
from tests.labelled import MISREAD_ROWS, PUBLISHED_REPLIES, PUBLISHED_ROWS, Labelled, identity, labels

RULES = load()
KINDS = sorted({row.place.partition(":")[0] for row in PUBLISHED_ROWS})


def _asked(row: Labelled, verdict: Verdict) -> dict[str, bool]:
    """What a person was asked about a reply, and whether we say the same."""
    detail, scope, bounce, reaction = row.label
    return {
        "category": verdict.category == detail.partition(".")[0],
        "detail": verdict.detail == detail,
        "scope": verdict.scope == scope,
        "bounce": verdict.bounce == bounce,
        "reaction": verdict.reaction == reaction,
        "provider": row.provider in {"", verdict.provider},
        "identity": row.identity in {"", identity(verdict)},
        "blocklists": set(row.blocklists) <= set(verdict.blocklists),
    }


def test_each_label_is_agreed_on() -> None:
    agreed: Counter[str] = Counter()
    for row in PUBLISHED_ROWS:
        agreed.update(_asked(row, RULES.classify(row.said())))
    assert len(PUBLISHED_ROWS) > 500
    assert {label: count for label, count in agreed.items() if count < 0.98 * len(PUBLISHED_ROWS)} == {}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_source_is_agreed_on(kind: str) -> None:
    rows = [row for row in PUBLISHED_ROWS if row.place.startswith(f"{kind}:")]
    differ = [(row.text, row.label) for row in rows if labels(RULES.classify(row.said())) != row.label]
    assert len(differ) <= 0.03 * len(rows), differ


@pytest.mark.parametrize(
    "host", ["", "mx.somewhere.example", "gmail-smtp-in.l.google.com", "mx1.qq.com", "mx.naver.com"]
)
def test_whoever_says_it_nobody_is_suppressed_wrongly(host: str) -> None:
    for row in PUBLISHED_REPLIES + MISREAD_ROWS:
        verdict = RULES.classify(Said(row.text, host, "", row.command))
        assert verdict.reaction is not Reaction.SUPPRESS or row.label[3] == "suppress", (row.text, verdict.rule)


@pytest.mark.parametrize("row", MISREAD_ROWS, ids=lambda row: row.place)
def test_what_is_called_misread_still_is(row: Labelled) -> None:
    assert labels(RULES.classify(row.said())) != row.label, "read right now: move it to tests/replies/published"
