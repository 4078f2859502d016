"""The outside store: what is known outlives a poll that told nothing, and nothing grows for ever."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from parsers.feeds.asking import Trouble
from parsers.observation import Observation, Outcome
from policies.cadence import Standing
from sidecar import outside_store
from sidecar.outside_store import OutsideStore, RawAnswer

DAY = 86_400.0


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Iterator[OutsideStore]:
    store = OutsideStore.open(tmp_path / "outside.db")
    yield store
    store.close()


def score(value: float | None, outcome: Outcome = Outcome.OK, text: str = "", at: float = 0.0) -> Observation:
    return Observation("senderscore", "192.0.2.1", "score", outcome, value, text, at)


def polled(store: OutsideStore, *observations: Observation, now: float) -> None:
    store.polled("senderscore", Standing(asked_at=now), observations, (), now=now)


def test_a_standing_comes_back_as_it_was(store: OutsideStore) -> None:
    standing = Standing(1.0, 2.0, 3.0, 4, Trouble.REFUSED, "why", 5.0)
    store.polled("snds", standing, (), (), now=1.0)
    assert store.standing("snds") == standing
    assert store.standing("other") == Standing()


@pytest.mark.parametrize("outcome", [Outcome.UNKNOWN, Outcome.NO_DATA])
def test_a_poll_that_told_nothing_leaves_what_is_known(store: OutsideStore, outcome: Outcome) -> None:
    polled(store, score(90.0), now=100.0)
    polled(store, score(None, outcome, "SERVFAIL"), now=200.0)
    (known,) = store.known("senderscore")
    assert (known.outcome, known.why, known.polled_at) == (outcome, "SERVFAIL", 200.0)
    assert (known.value, known.at, known.told_at) == (90.0, 100.0, 100.0)


def test_what_was_never_told_has_no_value(store: OutsideStore) -> None:
    polled(store, score(None, Outcome.UNKNOWN, "TIMEOUT"), now=100.0)
    (known,) = store.known()
    assert (known.value, known.told_at) == (None, 0.0)


def test_a_late_day_of_a_daily_figure_is_history_and_not_news(store: OutsideStore) -> None:
    polled(store, score(90.0, at=5 * DAY), now=6 * DAY)
    polled(store, score(70.0, at=4 * DAY), now=6.5 * DAY)
    (known,) = store.known()
    assert (known.value, known.at) == (90.0, 5 * DAY)
    assert store.history("senderscore", "192.0.2.1", "score", since=0) == [(4 * DAY, 70.0, ""), (5 * DAY, 90.0, "")]


def test_a_day_that_is_corrected_is_corrected(store: OutsideStore) -> None:
    for value in (90.0, 91.0):
        polled(store, score(value, at=5 * DAY), now=6 * DAY)
    assert store.history("senderscore", "192.0.2.1", "score", since=0) == [(5 * DAY, 91.0, "")]


def test_history_has_changes_and_one_row_a_day(store: OutsideStore) -> None:
    for hour in range(72):
        polled(store, score(90.0 if hour < 30 else 80.0), now=DAY + hour * 3600.0)
    history = store.history("senderscore", "192.0.2.1", "score", since=0)
    assert [((at - DAY) / 3600, value) for at, value, _ in history] == [(0, 90.0), (24, 90.0), (30, 80.0), (48, 80.0)]


def test_answers_are_kept_as_they_came_and_the_oldest_go(store: OutsideStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside_store, "ANSWERS_KEPT", 3)
    for number in range(5):
        store.polled("snds", Standing(), (), [RawAnswer(f"ask {number}", b"\x00\xff" * number)], now=float(number))
    store.polled("other", Standing(), (), [RawAnswer("another", b"x")], now=9.0)
    kept = [RawAnswer(f"ask {number}", b"\x00\xff" * number, float(number)) for number in (4, 3, 2)]
    assert store.answers("snds", 10) == kept


def test_pruning(store: OutsideStore) -> None:
    polled(store, score(90.0), now=100.0)
    store.polled("snds", Standing(), (), [RawAnswer("ask", b"")], now=100.0)
    assert store.prune(now=100.0 + outside_store.ANSWERS_SECONDS) == 0
    assert store.prune(now=101.0 + outside_store.ANSWERS_SECONDS) == 1
    assert store.prune(now=101.0 + outside_store.HISTORY_SECONDS) == 1
    assert len(store.known()) == 1
