"""docs/feeds.md against the feeds: conditions are written from its table, so that it names all that they tell."""

import re
from pathlib import Path

import pytest

from parsers.feeds import google_compliance, own_authentication, snds
from parsers.feeds.google_statistics import GROUPS
from sidecar.feeds import FEEDS

TEXT = (Path(__file__).parents[1] / "docs" / "feeds.md").read_text()
TABLE = [line for line in TEXT.splitlines() if line.startswith("| ")]
WORDS = {word for line in TABLE for word in re.findall(r"`([^`]+)`", line)}


def known(name: str) -> bool:
    """Written out; or its last part is, beside what stands before it: `auth-success.spf`, `.dkim`."""
    head, dot, last = name.rpartition(".")
    variable = {f"{head}.{word}" for word in ("REASON", "REQUIREMENT", "ID", "LIST")}
    return bool(WORDS & {name, f"{dot}{last}"}) or (bool(WORDS & variable) and last in WORDS)


@pytest.mark.parametrize(
    "measure",
    [
        *(metric.measure for group in GROUPS for metric in group.metrics),
        *(f"compliance.{requirement}" for requirement in google_compliance.REQUIREMENTS),
        *snds.MEASURES,
        *own_authentication.MEASURES,
        *("fbl-spam.ID", "data-age", "verified", "permission", "domains-left-out", "compliance"),
        *("domain-reputation", "addresses.BAD", "gone", "blocked", "blocked-addresses", "credential-age", "score"),
    ],
)
def test_every_measure_is_in_the_table(measure: str) -> None:
    assert known(measure)


def test_an_unknown_measure_is_seen() -> None:
    assert not known("delivery-error.reject.bad_mood")
    assert not known("reputation")


@pytest.mark.parametrize("feed", FEEDS)
def test_every_feed_is_in_the_table(feed: str) -> None:
    assert feed in WORDS or feed.removeprefix("dnsbl") in WORDS


@pytest.mark.parametrize("setting", re.findall(r"^(\w+) = ", TEXT, re.MULTILINE))
def test_every_setting_in_the_examples_exists(setting: str) -> None:
    assert f"    {setting}: " in (Path(__file__).parents[1] / "sidecar" / "config.py").read_text()
