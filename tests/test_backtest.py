"""What a back-test counts: driven by the real engine, with a log written by hand."""

from collections.abc import Callable
from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.log import LogReader
from policies.backtest import Backtest, Report, kind_of
from policies.classify import RuleSet
from policies.comparison import Contest
from policies.rehearsal import OBSERVED
from policies.waiting import Counts
from sidecar import rules
from tests.backtest_log import BEGIN, SUSPENDED, LogText
from tests.world import RULES

PAUSE = 600.0
"""Seconds of google/rate-dkim-domain's first pause."""
DEAF = """
mx = [".google.com"]
[[rule]]
name = "rate-dkim-domain"
any = ["DKIM domain"]
all = ["unusual"]
detail = "throttling.domain"
scope = "sender-domain"
bounce = { 4xx = "transient", 5xx = "block" }
reaction = "nothing"
examples = ["421-4.7.28 Gmail has detected an unusual rate of mail originating from your DKIM domain [a.example 35]."]
"""
"""Google's rule without what it does."""


def replayed(*texts: str, set_of_rules: RuleSet = RULES) -> Report:
    backtest = Backtest(set_of_rules, rules.organizational_domain)
    for text in texts:
        for fact in LogReader(zone=UTC, only=OBSERVED).block_facts(text.encode()):
            backtest.take(fact)
    return backtest.report()


def counts(log: LogText) -> Counts:
    (opened,) = replayed(log.text).subqueues
    return opened.counts


def throttled(log: LogText) -> LogText:
    """A sub-queue opens 0.5 s after BEGIN."""
    log.message(0.0, "deferred")
    return log


def test_what_opens_is_told_with_its_line() -> None:
    log = throttled(LogText())
    log.say(3600.0, "qmgr", "4jX2kbBBBBzBrk: removed")
    (opened,) = replayed(log.text).subqueues
    assert (opened.key, opened.rule) == ("dkim-domain:burst.example@google", "google/rate-dkim-domain")
    assert opened.opened == BEGIN + 0.5
    assert opened.line in log.text
    assert opened.closed is None


def late(log: LogText) -> None:
    log.message(100.0, "sent")


def avoided(log: LogText) -> None:
    log.message(100.0, "deferred")


def put_off(log: LogText) -> None:
    log.message(100.0, "bounced")


def too_soon(log: LogText) -> None:
    """Begun before a sidecar can have acted."""
    log.message(1.0, "deferred")


def under_way(log: LogText) -> None:
    """Begun before the pause, and long."""
    queue_id = log.arrives(0.0)
    log.outcome(60.0, queue_id, "deferred", took=59.9)


def after_the_pause(log: LogText) -> None:
    """The probe: whatever comes of it, it would have been sent."""
    log.message(PAUSE + 60.0, "sent")


def elsewhere(log: LogText) -> None:
    """To another provider."""
    log.message(100.0, "sent", to="u@yahoo.com")


def suspended(log: LogText) -> None:
    """No attempt, but a deferral."""
    log.outcome(100.0, log.arrives(99.0), "deferred", reason=SUSPENDED, took=0.0)


def twice(log: LogText) -> None:
    """One message, two deferrals."""
    queue_id = log.message(100.0, "deferred")
    log.active(400.0, queue_id)
    log.outcome(400.5, queue_id, "deferred")


def picked_up(log: LogText) -> None:
    """No policy check sees it; its second attempt can be held."""
    queue_id = log.arrives(100.0, picked_up=True)
    log.outcome(100.5, queue_id, "deferred")
    log.active(400.0, queue_id)
    log.outcome(400.5, queue_id, "deferred")


def already_queued(log: LogText) -> None:
    """Where its first attempt began nobody knows."""
    log.active(100.0, "4jX2kbQQQQQzBrk")
    log.outcome(100.5, "4jX2kbQQQQQzBrk", "deferred")


def all_to_one(log: LogText) -> None:
    """Two recipients at the provider: held as it arrived."""
    queue_id = log.arrives(100.0, nrcpt=2)
    log.outcome(100.5, queue_id, "deferred")
    log.outcome(100.6, queue_id, "sent", to="v@gmail.com")


def mixed(log: LogText) -> None:
    """One recipient is somewhere else: it stays with Postfix."""
    queue_id = log.arrives(100.0, nrcpt=2)
    log.outcome(100.5, queue_id, "deferred")
    log.outcome(100.6, queue_id, "sent", to="v@yahoo.com")


def never_known(log: LogText) -> None:
    """Its other recipient never shows."""
    queue_id = log.arrives(100.0, nrcpt=2)
    log.outcome(100.5, queue_id, "deferred")
    log.removed(101.0, queue_id)


def in_memory(log: LogText) -> None:
    """Two recipients, active before the pause began: not to be taken."""
    queue_id = log.arrives(0.1, nrcpt=2)
    log.outcome(100.5, queue_id, "deferred", waited=99.0)
    log.outcome(100.6, queue_id, "deferred", to="v@gmail.com", waited=99.0)


def others(log: LogText) -> None:
    log.message(100.0, "sent", sender="n@calm.example", waited=7.0)
    log.message(110.0, "sent", sender="n@calm.example", waited=3.0)


CASES: list[tuple[Callable[[LogText], None], dict[str, float]]] = [
    (late, {"parked": 1, "delivered_late": 1}),
    (avoided, {"parked": 1, "deferrals_avoided": 1}),
    (put_off, {"parked": 1, "bounces_put_off": 1}),
    (too_soon, {}),
    (under_way, {}),
    (after_the_pause, {}),
    (elsewhere, {}),
    (suspended, {"parked": 1, "deferrals_avoided": 1}),
    (twice, {"parked": 1, "deferrals_avoided": 2}),
    (picked_up, {"parked": 1, "deferrals_avoided": 1, "not_held": 1}),
    (already_queued, {"not_held": 1}),
    (all_to_one, {"parked": 1, "deferrals_avoided": 1, "delivered_late": 1}),
    (mixed, {"not_held": 1}),
    (never_known, {"not_held": 1}),
    (in_memory, {}),
    (others, {"others_sent": 2, "others_waited_s": 10.0, "others_longest_s": 7.0}),
]
_STATES = {"pauses", "retriggers", "failed_probes", "stopped_s", "delivered_late_s"}


@pytest.mark.parametrize(("case", "wanted"), CASES, ids=lambda it: getattr(it, "__name__", ""))
def test_what_is_counted(case: Callable[[LogText], None], wanted: dict[str, float]) -> None:
    log = throttled(LogText())
    case(log)
    found = counts(log)
    assert {
        name: getattr(found, name) for name in Counts.__slots__ if name not in _STATES and getattr(found, name)
    } == wanted


def test_how_long_it_stops_and_what_waits_meanwhile() -> None:
    log = throttled(LogText())
    log.message(100.5, "sent")
    log.message(PAUSE + 100.0, "sent")  # the probe
    found = counts(log)
    assert found.stopped_s == pytest.approx(PAUSE + 100.0)
    assert found.delivered_late_s == pytest.approx(PAUSE - 0.5, abs=1.0)
    assert (found.pauses, found.failed_probes, found.retriggers) == (1, 0, 0)


def test_a_failed_probe_and_a_retrigger() -> None:
    log = throttled(LogText())
    log.message(PAUSE + 100.0, "deferred")
    log.message(3 * PAUSE + 300.0, "sent")
    log.message(3 * PAUSE + 400.0, "deferred")
    found = counts(log)
    assert (found.pauses, found.failed_probes, found.retriggers) == (3, 1, 1)


def test_it_closes_between_two_lines() -> None:
    """For want of mail to probe with, a day after its pause."""
    log = throttled(LogText())
    log.message(200_000.0, "sent", sender="n@calm.example")
    (opened,) = replayed(log.text).subqueues
    assert opened.closed == pytest.approx(BEGIN + PAUSE + 86_400.0, abs=60.0)
    assert opened.counts.others_sent == 0


@pytest.mark.parametrize("state", ["before", "paused", "ramping"])
def test_a_damaged_stamp_costs_neither_time_nor_the_rest(state: str) -> None:
    """A line from two months later, and the log goes on as before."""
    log = LogText()
    damaged = ["2026-01-31T23:00:00+00:00 mx1 postfix/qmgr[11]: 4jX2kbQQQQQzBrk: removed"]
    lines = damaged if state == "before" else []
    log.message(0.0, "deferred")
    if state == "ramping":
        log.message(PAUSE + 10.0, "sent")
    lines += log.lines + damaged
    later = LogText()
    for at, status in ((1000.0, "deferred"), (1000.0 + PAUSE, "sent"), (1700.0, "sent")):
        later.message(at, status)
    report = replayed("".join(f"{line}\n" for line in lines + later.lines))
    assert report.outcomes == (("deferred", 2), ("sent", 3 if state == "ramping" else 2))
    assert report.opened >= 1


def test_each_host_is_taken_by_itself() -> None:
    """The same queue ids on both, and one of them is throttled."""
    first, second = throttled(LogText("mx1")), LogText("mx2")
    first.message(100.0, "deferred")
    second.message(50.0, "sent")
    second.message(100.0, "sent")
    report = replayed(first.text, second.text)
    assert report.hosts == ("mx1", "mx2")
    assert [(opened.host, opened.counts.parked) for opened in report.subqueues] == [("mx1", 1)]


def test_instances_of_one_host_share_a_subqueue() -> None:
    first, second = throttled(LogText()), LogText(instance="postfix-out")
    second.message(100.0, "deferred")
    (opened,) = replayed(first.text, second.text).subqueues
    assert opened.counts.parked == 1


def test_replies_are_ranked() -> None:
    log = throttled(LogText())
    for at in (10.0, 20.0):
        queue_id = log.arrives(at)
        said = f"host x.comcast.net[192.0.2.1] said: 451 zork {at} of the moon (in reply to RCPT TO command)"
        log.outcome(at + 1.0, queue_id, "deferred", to="u@comcast.net", reason=said)
    log.outcome(30.0, log.arrives(29.0), "deferred", reason=SUSPENDED, took=0.0)
    report = replayed(log.text)
    assert [(row.rule, row.count, row.category) for row in report.replies] == [
        ("unknown", 2, "unknown"),
        ("google/rate-dkim-domain", 1, "throttling"),
    ]
    (unknown,) = report.unknown
    assert (unknown.provider, unknown.count) == ("comcast", 2)
    assert "zork 10.0 of" in unknown.sample
    assert report.suspended == 1
    assert report.outcomes == (("deferred", 4),)


def test_an_empty_log() -> None:
    report = replayed("")
    assert (report.began, report.ended, report.hosts, report.opened, report.totals) == (None, None, (), 0, Counts())


def test_a_log_of_a_sidecar_at_work() -> None:
    """Its holds stand in the log; they come to an end there."""
    log = throttled(LogText())
    held = "hold: END-OF-MESSAGE from c[192.0.2.9]: <END-OF-MESSAGE>: End-of-data sidecar dkim-domain:burst.example@google "
    log.say(10.0, "smtpd", "4jX2kbQQQQQzBrk: client=c[192.0.2.9]")
    log.say(
        10.0,
        "smtpd",
        f"4jX2kbQQQQQzBrk: {held}(google/rate-dkim-domain); from=<n@burst.example> to=<u@gmail.com> proto=ESMTP helo=<c>",
    )
    log.say(PAUSE + 10.0, "postsuper", "4jX2kbQQQQQzBrk: released from hold")
    log.active(PAUSE + 11.0, "4jX2kbQQQQQzBrk")
    log.outcome(PAUSE + 12.0, "4jX2kbQQQQQzBrk", "sent")
    log.removed(PAUSE + 12.1, "4jX2kbQQQQQzBrk")
    log.message(PAUSE + 100.0, "sent")
    found = counts(log)
    assert found.parked == 0
    assert found.stopped_s == pytest.approx(PAUSE + 12.0, abs=1.0)


def admins(text: str) -> RuleSet:
    files = [("google.toml", text), *rules.packaged_files()]
    return RuleSet.read(files, organizational=rules.organizational_domain)


def compared(log: LogText, a: RuleSet, b: RuleSet) -> Contest:
    contest = Contest(a, b, rules.organizational_domain)
    for fact in LogReader(zone=UTC, only=OBSERVED).block_facts(log.text.encode()):
        contest.take(fact)
    return contest


def test_the_same_rules_do_not_differ() -> None:
    log = throttled(LogText())
    avoided(log)
    assert not compared(log, RULES, RULES).comparison().differ


@given(
    st.lists(
        st.tuples(st.floats(0, 5000), st.sampled_from(["sent", "deferred", "bounced"]), st.booleans()), max_size=25
    )
)
def test_counts_hold_together(messages: list[tuple[float, str, bool]]) -> None:
    log = throttled(LogText())
    for at, status, calm in messages:
        log.message(at, status, sender="n@calm.example" if calm else "n@burst.example")
    report = replayed(log.text)
    assert report == replayed(log.text)
    totals, outcomes = report.totals, dict(report.outcomes)
    assert totals.deferrals_avoided <= outcomes.get("deferred", 0)
    assert totals.bounces_put_off <= outcomes.get("bounced", 0)
    assert totals.delivered_late <= outcomes.get("sent", 0)
    assert (
        totals.parked == totals.deferrals_avoided + totals.bounces_put_off + totals.delivered_late
    )  # one attempt each
    assert totals.not_held == 0
    assert sum(outcomes.values()) == len(messages) + 1
    assert totals.pauses == report.opened + totals.retriggers + totals.failed_probes


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("451 zork 1 flurb [192.0.2.1] a@b.c", "451 zork 22 flurb [2001:db8::1] d@e.f", True),
        ("451 Zork  1", '451 "zork" 2', True),
        ("451 zork flurb", "451 zork flarb", False),
    ],
)
def test_kinds_of_replies(one: str, other: str, *, same: bool) -> None:
    assert (kind_of(one) == kind_of(other)) is same
