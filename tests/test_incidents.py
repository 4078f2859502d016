"""Incidents, as stories with a clock of ours: what belongs together, what people hear, and how rarely."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parsers.feeds.dnsbl import Severity
from policies import incidents
from policies.conditions import CONDITIONS, Alert, Turn
from policies.figures import Kind
from policies.incidents import AGAIN, CALM, DAY, MESSAGES_A_DAY, Incident, Incidents, Phase, Surroundings
from policies.note import MESSAGES, Note, NoteKind, headline, paragraphs, span

CRITICAL, ERROR, WARNING, INFO = Severity
BY_NAME = {condition.name: condition for condition in CONDITIONS}
MINUTE = 60.0


@dataclass
class Story:
    """Time that passes in looks of 15 s, and alerts that fire and are resolved."""

    now: float = 1_000_000.0
    made: Incidents = field(default_factory=Incidents)
    notes: list[Note] = field(default_factory=list)
    alerts: dict[str, Alert] = field(default_factory=dict)

    def fire(
        self,
        about: str,
        severity: Severity = ERROR,
        name: str = "hard-bounces",
        kind: Kind = Kind.DOMAIN,
        key: str = "",
    ) -> Incident:
        key = key or f"pf-rep:{BY_NAME[name].feed}:{about}:{name}"
        firing = key in self.alerts and self.alerts[key].firing
        alert = Alert(key, name, "log", about, kind, "m", True, severity, since=self.now - 30, fired_at=self.now,
                      said=f"{about} is unwell")  # fmt: skip
        self.alerts[key] = alert
        turn = Turn.WORSE if firing else Turn.FIRED
        incident = self.made.turned(alert, turn, BY_NAME[name], now=self.now)
        assert incident is not None
        self._heard()
        return incident

    def resolve(self, about: str, name: str = "hard-bounces", key: str = "") -> None:
        key = key or f"pf-rep:{BY_NAME[name].feed}:{about}:{name}"
        self.alerts[key] = self.alerts[key]._replace(firing=False, resolved_at=self.now)
        self.made.turned(self.alerts[key], Turn.RESOLVED, BY_NAME[name], now=self.now)
        self._heard()

    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now = min(self.now + max(15.0, seconds / 200), until)
            self.made.tick(now=self.now)
            self._heard()

    def _heard(self) -> None:
        self.notes += self.made.take()[1]

    @property
    def said(self) -> list[str]:
        """Messages, in order."""
        return [str(note.kind) for note in self.notes if note.kind in MESSAGES]


def test_a_spike_comes_gets_worse_and_goes() -> None:
    story = Story()
    story.fire("a.example", WARNING)
    story.wait(5 * MINUTE)
    story.fire("a.example", ERROR)
    story.wait(20 * MINUTE)
    story.resolve("a.example")
    story.wait(CALM)
    assert story.said == ["opened", "worse", "resolved"]
    (incident,) = story.made.all()
    assert incident.phase is Phase.RESOLVED
    assert (incident.detect_seconds, incident.recover_seconds) == (30.0, 25 * MINUTE + 30)
    assert len({note.dedup_key for note in story.notes}) == 1


def test_a_complaint_spike_with_a_reputation_dip_is_one_incident() -> None:
    story = Story()
    story.fire("a.example", ERROR, "deferrals", Kind.DOMAIN)
    story.wait(MINUTE)
    story.fire("dkim-domain:a.example@google", WARNING, "subqueue-stuck", Kind.SUBQUEUE)
    story.wait(MINUTE)
    story.fire("a.example", CRITICAL, "spam-rate")
    story.wait(MINUTE)
    (incident,) = story.made.all()
    assert len(incident.members) == 3
    assert story.said == ["opened", "worse"]
    for about, name in (
        ("a.example", "deferrals"),
        ("dkim-domain:a.example@google", "subqueue-stuck"),
        ("a.example", "spam-rate"),
    ):
        story.resolve(about, name)
    story.wait(CALM)
    assert story.said == ["opened", "worse", "resolved"]


RELATED = [
    # kind, object and condition of two alerts; whether they are one incident
    (Kind.DOMAIN, "a.example", "hard-bounces", Kind.DOMAIN, "a.example", "tls", True),
    (Kind.DOMAIN, "a.example", "hard-bounces", Kind.DOMAIN, "b.example", "hard-bounces", False),
    (Kind.PROVIDER, "google", "deferrals", Kind.SUBQUEUE, "dkim-domain:a.example@google", "subqueue-stuck", True),
    (Kind.PROVIDER, "yahoo", "deferrals", Kind.SUBQUEUE, "dkim-domain:a.example@google", "subqueue-stuck", False),
    (Kind.SUBQUEUE, "dkim-domain:a.example@google", "subqueue-stuck",
     Kind.SUBQUEUE, "dkim-domain:b.example@google", "subqueue-stuck", False),
    (Kind.SUBQUEUE, "dkim-domain:a.example@google", "subqueue-stuck",
     Kind.SUBQUEUE, "spf-domain:a.example@yahoo", "subqueue-stuck", True),
    (Kind.SUBQUEUE, "ip:192.0.2.1@google", "subqueue-stuck", Kind.ADDRESS, "192.0.2.1", "snds-blocked", True),
    (Kind.FEED, "snds", "feed-blind", Kind.LIST, "spamcop", "list-sick", True),
    (Kind.ADDRESS, "192.0.2.1", "snds-blocked", Kind.ADDRESS, "192.0.2.2", "snds-blocked", False),
    (Kind.HOST, "mx7", "log-lag", Kind.HOST, "mx7", "core-away", True),
]  # fmt: skip


@pytest.mark.parametrize("row", RELATED, ids=lambda row: f"{row[1]} {row[2]} and {row[4]} {row[5]}")
def test_what_belongs_together(row: tuple[Kind, str, str, Kind, str, str, bool]) -> None:
    story = Story()
    kind, about, name, other_kind, other, other_name, together = row
    story.fire(about, name=name, kind=kind)
    story.fire(other, name=other_name, kind=other_kind)
    assert len(story.made.all()) == (1 if together else 2)


def test_a_whole_network_on_one_list_is_one_page() -> None:
    story = Story()
    for number in range(200):
        address = f"192.0.2.{number}"
        story.fire(address, CRITICAL, "listed", Kind.ADDRESS, key=f"pf-rep:dnsbl:{address}:spamhaus_zen")
    assert story.said == ["opened"]
    assert len(story.made.all()[0].members) == 200


def test_that_it_concerns_more_is_told_when_it_is_plain_how_much() -> None:
    story = Story()
    for number in range(20):
        address = f"192.0.2.{number}"
        story.fire(address, CRITICAL, "listed", Kind.ADDRESS, key=f"pf-rep:dnsbl:{address}:spamhaus_zen")
    story.wait(2 * incidents.SETTLE)
    assert story.said == ["opened", "wider"]
    assert len(story.notes[-1].scope) > 1


def test_one_senders_bounces_are_one_page_however_they_are_counted() -> None:
    story = Story()
    story.fire("google", WARNING, "hard-bounces", Kind.PROVIDER)
    story.fire("a.example", WARNING, "hard-bounces", Kind.DOMAIN)
    story.fire("all mail", WARNING, "acceptance", Kind.HOST)
    assert len(story.made.all()) == 1
    story.wait(2 * incidents.ALIKE)
    story.fire("b.example", WARNING, "hard-bounces", Kind.DOMAIN)
    assert len(story.made.all()) == 2


def test_flapping_is_one_incident_and_ever_longer_calms() -> None:
    story = Story()
    for _ in range(100):
        story.fire("a.example")
        story.wait(2 * MINUTE)
        story.resolve("a.example")
        story.wait(5 * MINUTE)
    assert story.said == ["opened"]
    (incident,) = story.made.all()
    assert incident.flaps == 99
    story.wait(incidents.calm_needed(99))
    assert story.said == ["opened", "resolved"]


def test_what_comes_back_after_it_was_over_is_the_same_incident() -> None:
    story = Story()
    first = story.fire("a.example")
    story.resolve("a.example")
    story.wait(CALM)
    assert story.fire("a.example").id == first.id
    assert story.said == ["opened", "resolved", "reopened"]
    story.resolve("a.example")
    story.wait(2 * CALM + MINUTE)  # it would be over, but there is no message left to say so
    assert story.said == ["opened", "resolved", "reopened"]
    assert story.made.all()[0].live
    story.wait(DAY)
    assert story.said == ["opened", "resolved", "reopened", "resolved"]


def test_nobody_believes_that_it_is_over_while_it_is_not() -> None:
    story = Story()
    first = story.fire("a.example", WARNING)
    story.fire("a.example", ERROR)
    story.resolve("a.example")
    story.wait(CALM)
    assert story.said == ["opened", "worse", "resolved"]
    second = story.fire("a.example")
    assert second.id != first.id
    assert second.again_of == first.id
    assert story.said[-1] == "opened"


def test_the_worst_is_told_with_the_last_message() -> None:
    story = Story()
    for severity in (INFO, WARNING, ERROR, CRITICAL):
        story.fire("a.example", severity)
    assert [(str(note.kind), str(note.severity)) for note in story.notes] == [
        ("opened", "info"), ("worse", "warning"), ("worse", "critical"),
    ]  # fmt: skip


def test_a_pager_hears_again_until_somebody_takes_it_on() -> None:
    story = Story()
    incident = story.fire("a.example")
    story.wait(2.5 * AGAIN)
    assert [note.kind for note in story.notes] == [NoteKind.OPENED, NoteKind.AGAIN, NoteKind.AGAIN]
    story.made.ack(incident.id, who="postmaster", now=story.now)
    story.wait(3 * AGAIN)
    assert [note.kind for note in story.notes][3:] == [NoteKind.ACKED]
    assert story.said == ["opened"]


def test_closing_by_hand() -> None:
    story = Story()
    incident = story.fire("a.example")
    story.made.close(incident.id, who="postmaster", now=story.now)
    story.wait(3 * AGAIN)
    assert story.said == ["opened", "resolved"]
    assert story.notes[-1].by_whom == "closed by postmaster"
    story.resolve("a.example")
    story.wait(MINUTE)
    assert story.said == ["opened", "resolved"]
    assert story.fire("a.example").id == incident.id
    with pytest.raises(ValueError, match="incident 99 is not open"):
        story.made.close(99, who="x", now=story.now)


def test_closing_without_a_message_left_still_quiets_the_pager() -> None:
    story = Story()
    incident = story.fire("a.example", WARNING)
    story.fire("a.example", ERROR)
    story.fire("a.example", CRITICAL)
    assert len(story.said) == 3
    story.made.close(incident.id, who="x", now=story.now)
    story.wait(15)
    assert story.notes[-1].kind is NoteKind.CLOSED


def test_unsure_only_while_it_is_open_and_within_its_messages() -> None:
    story = Story()
    incident = story.fire("a.example", WARNING)
    assert story.made.unsure(incident.id, now=story.now) is not None
    assert story.made.unsure(incident.id, now=story.now) is not None
    assert story.made.unsure(incident.id, now=story.now) is None
    other = story.fire("b.example")
    story.resolve("b.example")
    assert story.made.unsure(other.id, now=story.now) is None


def test_surroundings_come_with_the_note() -> None:
    made = Incidents()
    alert = Alert(
        "k", "deferrals", "log", "google", Kind.PROVIDER, "m", True, ERROR, fired_at=5.0, said="google defers"
    )
    around = Surroundings(("421 4.7.28",), ("a.example: 9 of 10",), ("opened dkim-domain:a.example@google",))
    made.turned(alert, Turn.FIRED, BY_NAME["deferrals"], now=5.0, around=around)
    (note,) = made.take()[1]
    assert (note.evidence, note.victims, note.actions) == around
    assert headline(note) == "[FIRING] error: google defers"
    assert [heading for heading, _ in paragraphs(note)] == [
        "What", "When", "Who waits", "Evidence", "Done by the sidecar", "What to do",
    ]  # fmt: skip


@pytest.mark.parametrize(("seconds", "said"), [(-1, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2.0 h")])
def test_spans(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_times_of_those_that_ended() -> None:
    story = Story()
    assert incidents.times(story.made.all()) is None
    for name in ("a.example", "b.example"):
        story.fire(name)
        story.wait(10 * MINUTE)
        story.resolve(name)
    story.wait(CALM)
    taken = incidents.times(story.made.all())
    assert taken is not None
    assert (taken.incidents, taken.detect_median) == (2, 30.0)
    assert incidents.severities(story.made.all())[ERROR] == 0


# Anything at all.

steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("fire"), st.sampled_from(["a.example", "b.example", "google"]), st.sampled_from(list(Severity))
        ),
        st.tuples(st.just("resolve"), st.sampled_from(["a.example", "b.example", "google"]), st.none()),
        st.tuples(st.just("wait"), st.sampled_from(["60", "700", "5000", "40000"]), st.none()),
        st.tuples(st.just("ack"), st.integers(1, 4).map(str), st.none()),
        st.tuples(st.just("close"), st.integers(1, 4).map(str), st.none()),
        st.tuples(st.just("unsure"), st.integers(1, 4).map(str), st.none()),
    ),
    max_size=40,
)


@settings(max_examples=150)
@given(steps)
def test_whatever_happens(row: Iterable[tuple[str, str, Severity | None]]) -> None:
    story = Story()
    for what, about, severity in row:
        if what == "fire" and severity is not None:
            story.fire(about, severity, kind=Kind.PROVIDER if about == "google" else Kind.DOMAIN)
        elif (
            what == "resolve"
            and (key := f"pf-rep:log:{about}:hard-bounces") in story.alerts
            and story.alerts[key].firing
        ):
            story.resolve(about)
        elif what == "wait":
            story.wait(float(about))
        elif what in {"ack", "close", "unsure"}:
            incident = story.made.get(int(about))
            if incident is not None and incident.live:
                if what == "unsure":
                    note = story.made.unsure(incident.id, now=story.now)
                    story.notes += [note] if note else []
                elif what == "ack":
                    story.made.ack(incident.id, who="x", now=story.now)
                else:
                    story.made.close(incident.id, who="x", now=story.now)
                story._heard()
        _check(story)


def _check(story: Story) -> None:
    told: defaultdict[int, list[Note]] = defaultdict(list)
    for note in story.notes:
        if note.kind in MESSAGES:
            told[note.incident].append(note)
    for messages in told.values():
        times = [note.at for note in messages]
        assert all(len([t for t in times if end - DAY < t <= end]) <= MESSAGES_A_DAY for end in times)
        assert messages[0].kind is NoteKind.OPENED
    for incident in story.made.all():
        last = told[incident.id][-1]
        if incident.phase in {Phase.OPEN, Phase.CALM}:
            assert last.is_open  # nobody believes that it is over
        if incident.phase is Phase.RESOLVED:
            assert not any(member.firing for member in incident.members)
            assert not last.is_open
    firing = {alert.key for alert in story.alerts.values() if alert.firing}
    live = {member.key for each in story.made.all() if each.phase is not Phase.RESOLVED for member in each.members}
    assert firing <= live
