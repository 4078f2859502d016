"""Quotas: what is let in, charged, given back and said; held against a model that counts by hand."""

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parsers.policy_protocol import DUNNO, DeferIfPermit, Info, encode
from policies import buckets as buckets_module
from policies.bucket import Taken
from policies.buckets import client_network
from policies.quota import Counted, Per, Within
from policies.quota_condition import read_condition
from tests.quota_world import NOW, access, admitted, end, quota, quotas, request

HOUR = 3_600.0


def test_a_burst_is_let_in_and_then_what_comes_back() -> None:
    made = quotas(quota(limit=60, within=Within.HOUR, burst=10))
    for count, later, let_in in ((12, 0, 10), (5, 59, 0), (5, 60, 1), (50, 60 + 24 * HOUR, 10)):
        assert admitted(made, count, now=NOW + later, message=str(later)) == let_in
        if let_in:
            end(made, let_in, now=NOW + later, message=str(later))


@pytest.mark.parametrize(("within", "seconds"), [("second", 1), ("minute", 60), ("hour", 3_600), ("day", 86_400)])
def test_each_span(within: str, seconds: float) -> None:
    made = quotas(quota(limit=4, within=Within(within), burst=4))
    assert admitted(made, 9) == 4
    end(made, 4)
    assert admitted(made, 9, now=NOW + seconds / 2, message="2") == 2


@pytest.mark.parametrize(
    ("per", "same", "other"),
    [
        (Per.TENANT, {"sender": "x@y.example"}, {"sasl_username": "app"}),
        (Per.SENDING_DOMAIN, {"sender": "b@shop.example"}, {"sender": "b@else.example"}),
        (Per.CLIENT, {"sasl_username": "app"}, {"client_address": "192.0.2.8"}),
        (Per.SENDER, {"sender": "NEWS@mail.shop.example"}, {"sender": "b@mail.shop.example"}),
        (Per.TENANT_PROVIDER, {"recipient": "b@workspace.example"}, {"recipient": "b@gmx.de"}),
    ],
)
def test_whose_bucket_it_is(per: Per, same: dict[str, str], other: dict[str, str]) -> None:
    made = quotas(quota(per=per, burst=1))
    assert made.take(request(), ("", "1"), acting=True, now=NOW) is None
    assert made.take(request(**same), ("", "2"), acting=True, now=NOW) is not None
    assert made.take(request(**other), ("", "3"), acting=True, now=NOW) is None


@pytest.mark.parametrize(
    ("per", "nobodys"),
    [
        (Per.TENANT, {"sasl_username": ""}),
        (Per.SENDING_DOMAIN, {"sender": ""}),
        (Per.SENDER, {"sender": ""}),
        (Per.TENANT_PROVIDER, {"recipient": "a@unknown.example"}),
        (Per.TENANT_PROVIDER, {"sasl_username": ""}),
    ],
)
def test_what_is_nobodys_is_let_in(per: Per, nobodys: dict[str, str]) -> None:
    made = quotas(quota(per=per, burst=1))
    asked = request(**nobodys)
    assert [made.take(asked, ("", str(i)), acting=True, now=NOW) for i in range(3)] == [None] * 3


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("unknown", "unknown"),
        ("no:address", "no:address"),
        ("", ""),
    ],
)
def test_a_client(address: str, network: str) -> None:
    assert client_network(address) == network


def test_marketing_does_not_slow_what_the_same_tenant_must_send() -> None:
    marketing = read_condition('sender_domain = news.shop.example or policy_context ~ "bulk"')
    made = quotas(quota("marketing", burst=3, where=marketing.holds), quota("all", burst=100))
    assert admitted(made, 5, sender="a@news.shop.example") == 3
    assert admitted(made, 5, message="2", sender="receipt@shop.example") == 5
    assert admitted(made, 5, message="3", sender="a@shop.example", policy_context="bulk") == 0
    assert not marketing.by_provider
    assert read_condition("provider = google").by_provider


def test_of_several_quotas_all_must_have_room_and_none_is_charged_for_nothing() -> None:
    made = quotas(quota("large", burst=100), quota("small", per=Per.CLIENT, burst=2))
    assert admitted(made, 5) == 2
    assert {bucket.quota.name: bucket.taken for bucket in made.buckets(now=NOW)} == {"large": 2, "small": 2}


def test_the_one_that_takes_longest_is_named() -> None:
    made = quotas(quota("hour", burst=1), quota("day", burst=1, within=Within.DAY))
    admitted(made, 1)
    limited = made.take(request(), ("", "2"), acting=True, now=NOW)
    assert limited is not None
    assert limited.quota == "day"
    assert limited.action == DeferIfPermit(
        "4.7.1", "Quota reached: 10 recipients a day for this login; there is room again in about 4 hours"
    )
    assert limited.why == "quota day, tenant 'shop': 1.0 of 1 in use, 10 recipients a day"


def test_messages_are_counted_once_however_many_recipients() -> None:
    made = quotas(quota(counted=Counted.MESSAGES, burst=2))
    assert [admitted(made, 50, message=str(number)) for number in range(3)] == [50, 50, 0]


def test_the_same_question_again_is_charged_once() -> None:
    """Two lists ask, or smtpd lost a connection before it read our answer."""
    found, made = access(quota())
    for state in ("RCPT", "RCPT", "END-OF-MESSAGE", "END-OF-MESSAGE"):
        asked = request(
            protocol_state=state, recipient_count=int(state != "RCPT"), queue_id="4Q1" if state != "RCPT" else ""
        )
        found.decide(asked, "postfix", now=NOW)
    (bucket,) = made.buckets(now=NOW)
    assert (bucket.taken, bucket.unsettled) == (1, 0)


def test_without_a_queue_id_the_end_is_charged_once_as_well() -> None:
    found, made = access(quota())
    for _ in range(2):
        found.decide(request(protocol_state="END-OF-MESSAGE", recipient_count=2), "postfix", now=NOW)
    assert made.buckets(now=NOW)[0].taken == 2


def test_what_was_refused_by_others_is_given_back_at_the_end() -> None:
    made = quotas(quota())
    admitted(made, 5)
    end(made, 2)
    assert made.buckets(now=NOW)[0].taken == 2


def test_a_message_that_is_given_up_takes_nothing() -> None:
    found, made = access(quota(burst=3))
    for number in range(3):
        found.decide(request(recipient=f"{number}@gmx.de"), "postfix", now=NOW)
    found.forget("postfix", "1")
    assert found.decide(request(instance="2"), "postfix", now=NOW).action == DUNNO
    assert made.buckets(now=NOW)[0].taken == 1


def test_a_message_that_was_refused_altogether_leaves_nothing_behind() -> None:
    found, made = access(quota(burst=1))
    admitted(made, 1, message="0")
    for number in range(1, 50):
        found.decide(request(instance=str(number)), "postfix", now=NOW)
    assert len(made._open) == 1


def test_what_is_given_up_late_gives_back_less() -> None:
    """Ten of ten are taken; five come back and are taken by others; the ten must not all be room again."""
    made = quotas(quota(limit=36, burst=10))
    assert admitted(made, 10) == 10
    assert admitted(made, 9, now=NOW + 500, message="2") == 5
    made.forget(("postfix", "1"))
    assert admitted(made, 99, now=NOW + 500, message="3") == 5


def test_a_slow_message_has_its_room_come_back_while_it_lasts() -> None:
    """Ten a second, and a hundred recipients in ten seconds: none is beyond."""
    made = quotas(quota(limit=10, burst=10, within=Within.SECOND))
    assert sum(admitted(made, 1, now=NOW + number * 0.1) for number in range(100)) == 100
    end(made, 100, now=NOW + 10)


def test_recipients_that_nobody_asked_about_are_charged_at_the_end_and_fill_the_bucket_at_most() -> None:
    made = quotas(quota())
    end(made, 4)
    assert made.buckets(now=NOW)[0].taken == 4
    end(made, 1_000, message="2")
    assert made.buckets(now=NOW)[0].taken == 10


def test_a_restart_neither_forgets_nor_doubles() -> None:
    before = quotas(quota())
    admitted(before, 3)
    end(before, 3)
    admitted(before, 2, message="2")  # under way
    rows = before.changed()
    assert rows == [Taken("q", "shop", 3.0, NOW)]
    assert before.changed() == []

    after = quotas(quota())
    after.restore(rows[0], now=NOW + 360)
    after.restore(Taken("gone", "shop", 3.0, NOW), now=NOW)
    end(after, 2, now=NOW + 360, message="2")  # its end comes to the new process
    assert after.buckets(now=NOW + 360)[0].taken == pytest.approx(4)


def test_a_bucket_that_has_become_smaller_is_full_at_most() -> None:
    made = quotas(quota(burst=10, limit=10, within=Within.DAY))
    made.restore(Taken("q", "shop", 5_000.0, NOW), now=NOW)
    assert made.buckets(now=NOW)[0].taken == 10


def test_observing_takes_nothing_that_acting_would_not() -> None:
    found, made = access(quota(burst=2), act=False)
    told = [found.decide(request(recipient=f"{number}@gmx.de"), "postfix", now=NOW) for number in range(4)]
    assert [each.action for each in told] == [DUNNO] * 4
    assert [each.rule for each in told] == ["", "", "quota/q", "quota/q"]
    assert told[2].why.startswith("observing; would answer DEFER_IF_PERMIT 4.7.1 Quota reached: 10 recipients an hour")
    end_of = request(protocol_state="END-OF-MESSAGE", recipient="", recipient_count=4, queue_id="4Q1")
    found.decide(end_of, "postfix", now=NOW)
    assert made.buckets(now=NOW)[0].taken == 2
    assert made.beyond == {"q": 2}


def test_acting_the_recipient_is_not_among_those_of_the_message() -> None:
    found, _ = access(quota(burst=1))
    told = [found.decide(request(recipient=f"{number}@gmail.com"), "postfix", now=NOW) for number in range(2)]
    assert [type(each.action) for each in told] == [type(DUNNO), DeferIfPermit]
    assert encode(told[1].action).startswith(b"action=DEFER_IF_PERMIT 4.7.1 Quota reached: ")
    arrival = request(
        protocol_state="END-OF-MESSAGE", sender="a@shop.example", recipient="", recipient_count=1, queue_id="4Q1"
    )
    assert found.decide(arrival, "postfix", now=NOW).action != DUNNO, "held, for it is known who gets it"


def test_a_warning_comes_once_and_again_after_a_quiet_time() -> None:
    made = quotas(quota(warn=0.5, burst=10))

    def said(count: int, message: str, now: float) -> list[str]:
        told = [made.take(request(recipient=f"{n}@a.de"), ("", message), acting=True, now=now) for n in range(count)]
        made.settle(request(recipient_count=count), ("", message), now)
        return [each.action.text for each in told if each is not None and isinstance(each.action, Info)]

    assert said(9, "1", NOW) == ["quota q: 50 % of 10 recipients an hour in use for this login"]
    assert said(1, "2", NOW) == []
    assert len(said(9, "3", NOW + HOUR)) == 1


def test_a_quota_that_only_warns_defers_nobody() -> None:
    made = quotas(quota(defers=False, burst=2))
    told = [made.take(request(recipient=f"{n}@a.de"), ("", "1"), acting=True, now=NOW) for n in range(5)]
    assert [each and type(each.action) for each in told] == [None, None, Info, None, None]
    assert made.beyond == {"q": 3}
    made.settle(request(recipient_count=5), ("", "1"), NOW)
    assert made.buckets(now=NOW)[0].taken == 2


def test_asking_changes_nothing() -> None:
    found, made = access(quota(burst=1))
    for _ in range(3):
        assert found.explain(request(), "postfix", now=NOW).action == DUNNO
    assert made.keys() == {"q": 0}
    admitted(made, 1)
    told = found.explain(request(protocol_state=""), "postfix", now=NOW)
    assert isinstance(told.action, DeferIfPermit)
    assert told.rule == "quota/q"
    assert made.beyond == {"q": 0}


def test_random_senders_push_out_only_those_of_their_own_quota() -> None:
    made = quotas(quota("sender", per=Per.SENDER, keys=100, burst=5), quota("tenant", burst=5_000))
    for number in range(1_000):
        asked = request(sender=f"{number}@shop.example", instance=str(number))
        made.take(asked, ("postfix", str(number)), acting=True, now=NOW)
        end(made, 1, message=str(number), sender=asked.sender)
    assert made.keys() == {"sender": 100, "tenant": 1}
    rows = made.changed()
    assert len([row for row in rows if row.taken]) == 101
    assert {(row.quota, row.at) for row in rows if not row.taken} == {("sender", 0.0)}, (
        "and those are taken out of the store"
    )
    assert made.buckets("tenant", now=NOW)[0].taken == pytest.approx(1_000)


def test_who_sends_all_the_time_is_not_pushed_out_by_those_who_come_once() -> None:
    made = quotas(quota("sender", per=Per.SENDER, keys=50, burst=5, limit=1, within=Within.DAY))
    admitted(made, 5, sender="known@shop.example")
    end(made, 5, sender="known@shop.example")
    for number in range(1_000):
        now = NOW + number
        admitted(made, 1, now=now, message=f"{number}", sender=f"{number}@shop.example")
        end(made, 1, now=now, message=f"{number}", sender=f"{number}@shop.example")
        if not number % 10:
            assert admitted(made, 1, now=now, message=f"k{number}", sender="known@shop.example") == 0


def test_a_message_under_way_whose_bucket_is_pushed_out_ends_as_any_other() -> None:
    made = quotas(quota("sender", per=Per.SENDER, keys=1, burst=5))
    assert admitted(made, 2, sender="a@shop.example") == 2
    assert admitted(made, 1, message="2", sender="b@shop.example") == 1
    assert admitted(made, 4, sender="a@shop.example") == 3
    end(made, 5, sender="a@shop.example")
    end(made, 1, message="2", sender="b@shop.example")
    assert [(bucket.key, bucket.taken) for bucket in made.buckets(now=NOW)] == [("b@shop.example", 1)]
    assert [row.key for row in made.changed() if row.taken] == ["b@shop.example"]


def test_messages_that_never_end_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets_module, "MAX_MESSAGES", 10)
    made = quotas(quota(burst=1_000))
    for number in range(50):
        admitted(made, 1, message=str(number))
        assert len(made._open) <= 10
    assert made.buckets(now=NOW)[0].taken == len(made._open)


def test_messages_that_have_not_ended_for_long_are_given_up() -> None:
    made = quotas(quota(limit=1, burst=1_000, within=Within.DAY))
    for later, message, taken in ((0, "1", 1), (0.5, "2", 2), (1, "3", 2)):
        now = NOW + later * buckets_module.MAX_AGE
        admitted(made, 1, now=now, message=message)
        assert made.buckets(now=now)[0].taken == pytest.approx(taken, abs=0.1)
    end(made, 1, now=now, message="1")
    assert made.buckets(now=now)[0].taken == pytest.approx(3, abs=0.1), "it ended all the same"


def test_a_clock_set_back_neither_gives_nor_takes() -> None:
    made = quotas(quota(limit=10, burst=10))
    assert admitted(made, 10) == 10
    end(made, 10)
    assert admitted(made, 10, now=NOW - HOUR, message="2") == 0
    assert admitted(made, 10, now=NOW - HOUR / 2, message="3") == 5


steps = st.lists(
    st.tuples(st.floats(0, 500), st.integers(1, 8), st.sampled_from(["end", "part", "given up", "late"])), max_size=60
)


@settings(deadline=None)
@given(steps, st.integers(1, 50), st.integers(1, 30), st.sampled_from(["second", "minute", "hour"]))
def test_never_more_than_the_limit_in_any_window(
    steps: list[tuple[float, int, str]], limit: int, burst: int, within: str
) -> None:
    """Counted is what Postfix took; messages may end part refused, not at all, or long after they began."""
    row = quota(limit=limit, burst=burst, within=Within(within))
    made, now, taken = quotas(row), NOW, list[tuple[float, int]]()
    given_up, late = list[str](), list[tuple[str, int]]()
    for number, (pause, count, ends) in enumerate(steps):
        now += pause
        message = str(number)
        let_in = admitted(made, count, now=now, message=message)
        for ended, accepted in late:
            end(made, accepted, now=now, message=ended)
        late.clear()
        if not let_in:
            continue
        accepted = let_in // 2 or 1 if ends == "part" else let_in
        if ends == "given up":
            given_up.append(message)
        else:
            taken.append((now, accepted))
        if ends == "late":
            late.append((message, accepted))
        elif ends != "given up":
            end(made, accepted, now=now, message=message)
        if len(given_up) > 2:
            made.forget(("postfix", given_up.pop(0)))
    for first, last in itertools.combinations_with_replacement(range(len(taken)), 2):
        window = taken[last][0] - taken[first][0]
        assert sum(count for _, count in taken[first : last + 1]) <= burst + window * row.rate + 1e-3


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 500), st.integers(1, 8)), max_size=60), st.integers(1, 50), st.integers(1, 30))
def test_never_deferred_below_the_limit(steps: list[tuple[float, int]], limit: int, burst: int) -> None:
    """Where every message ends as it began, exactly those are deferred for whom a bucket counted by hand has no room."""
    row = quota(limit=limit, burst=burst, within=Within.MINUTE)
    made, now, level, before = quotas(row), NOW, 0.0, NOW
    for number, (pause, count) in enumerate(steps):
        now += pause
        level, before = max(0.0, level - (now - before) * row.rate), now
        room = int(burst - level + 1e-4)
        let_in = admitted(made, count, now=now, message=str(number))
        surely = int(burst - level - 1e-4)
        assert min(count, surely) <= let_in <= min(count, room)
        level += let_in
        if let_in:
            end(made, let_in, now=now, message=str(number))


@settings(deadline=None)
@given(st.data())
def test_whatever_is_asked_nothing_is_below_nothing_and_what_is_under_way_is_counted(data: Any) -> None:
    made = quotas(quota(burst=5, warn=0.5), quota("m", per=Per.CLIENT, counted=Counted.MESSAGES, burst=3))
    now = NOW
    for _ in range(data.draw(st.integers(0, 40))):
        now += data.draw(st.floats(-100, 2_000))
        message = str(data.draw(st.integers(0, 4)))
        match data.draw(st.sampled_from(["take", "end", "forget"])):
            case "take":
                admitted(made, data.draw(st.integers(1, 3)), now=now, message=message)
            case "end":
                end(made, data.draw(st.integers(0, 9)), now=now, message=message)
            case "forget":
                made.forget(("postfix", message))
        for bucket in made.buckets(now=now):
            assert 0 <= bucket.taken <= bucket.quota.burst + 1e-6
            assert bucket.unsettled >= 0
        assert all(0 <= row.taken <= 5 for row in made.changed())
