"""Decisions about arriving mail: the join of smtpd's questions, hold before route, and what is never done."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.policy_protocol import DUNNO, Action, Dunno, Filter, Hold, PolicyRequest, encode, value_of
from policies import access as access_module
from policies.access import MAX_AGE, Access, Arrival, Decision, Parked, held_key, hold_text
from tests.policy_world import KEY, OPEN, PROVIDERS, RULE, WHY, World, access_in, routing_to

HELD = Hold(f"sidecar {KEY} ({RULE})")


def request(**attributes: Any) -> PolicyRequest:
    return PolicyRequest.of({name: str(value) for name, value in attributes.items()})


def rcpt(recipient: str, instance: str = "1", **attributes: Any) -> PolicyRequest:
    return request(protocol_state="RCPT", recipient=recipient, instance=instance, **attributes)


def end(count: int, instance: str = "1", **attributes: Any) -> PolicyRequest:
    given: dict[str, Any] = {"queue_id": f"4Q{instance}", "sender": "news@shop.example", "size": 9}
    return request(protocol_state="END-OF-MESSAGE", recipient_count=count, instance=instance, **(given | attributes))


def answers(access: Access, *requests: PolicyRequest, now: float = 1e9) -> list[Decision]:
    return [access.decide(each, "postfix", now=now) for each in requests]


def last(access: Access, *requests: PolicyRequest) -> Action:
    return answers(access, *requests)[-1].action


def test_a_message_of_a_paused_sub_queue_is_held_once_it_is_whole() -> None:
    arrivals = World()
    decisions = answers(
        access_in(arrivals),
        rcpt("a@gmail.com"),
        rcpt("b@Workspace.Example"),
        request(protocol_state="DATA", instance="1", recipient_count=2, queue_id="4Q1"),
        end(2, client_address="192.0.2.7", sasl_username="app"),
    )
    assert [decision.action for decision in decisions] == [DUNNO, DUNNO, DUNNO, HELD]
    assert decisions[-1][1:] == (KEY, RULE, WHY)
    recipients = ("a@gmail.com", "b@Workspace.Example")
    assert arrivals.arrivals == [
        Arrival("postfix", "4Q1", "news@shop.example", recipients, True, 9, "192.0.2.7", "app", True)
    ]


def test_one_recipient_comes_with_the_end_and_needs_no_memory() -> None:
    """Debian's submission sample asks nothing at RCPT."""
    assert last(access_in(), end(1, recipient="a@gmail.com")) == HELD


@pytest.mark.parametrize(
    ("recipients", "count", "action"),
    [
        (["a@gmail.com", "b@gmx.de"], 2, DUNNO),  # they disagree
        (["a@gmail.com", "b@gmail.com"], 3, DUNNO),  # one was never asked about
        (["a@gmail.com", "b@gmail.com", "c@gmail.com"], 2, HELD),  # one was refused, and all agree
        (["a@gmail.com", "b@gmx.de", "c@gmail.com"], 2, DUNNO),  # one was refused, which?
        (["a@gmail.com", "a@gmail.com"], 2, DUNNO),  # twice the same: only one is known
        ([], 2, DUNNO),
        ([], 0, DUNNO),
    ],
)
def test_recipients_that_are_not_all_known(recipients: list[str], count: int, action: Action) -> None:
    assert last(access_in(), *map(rcpt, recipients), end(count)) == action


def test_unknown_recipients_bind_nobody() -> None:
    arrivals = World()
    (*_, decision) = answers(access_in(arrivals), rcpt("a@gmail.com"), end(2))
    assert arrivals.arrivals[0].recipients == ()
    assert not arrivals.arrivals[0].binding
    assert not arrivals.arrivals[0].complete
    assert "unknown" in decision.why


def test_more_recipients_than_accepted_are_not_complete() -> None:
    arrivals = World()
    answers(access_in(arrivals), rcpt("a@gmail.com"), rcpt("b@gmail.com"), end(1))
    assert arrivals.arrivals[0].recipients == ("a@gmail.com", "b@gmail.com")
    assert not arrivals.arrivals[0].complete


def test_questions_asked_again_change_nothing() -> None:
    """Several lists ask about one recipient, and smtpd repeats a question whose connection broke."""
    arrivals = World()
    asked = [
        rcpt("a@gmail.com", policy_context="helo"),
        rcpt("a@gmail.com", policy_context="sender"),
        rcpt("b@gmail.com"),
        rcpt("b@gmail.com", queue_id="4Q1"),
        end(2),
        end(2),
    ]
    decisions = answers(access_in(arrivals), *asked)
    assert decisions[-1] == decisions[-2]
    assert decisions[-1].action == HELD
    assert len(arrivals.arrivals) == 1


def test_a_decision_stands_though_the_sub_queue_closes() -> None:
    class Fickle(World):
        def arriving(self, arrival: Arrival, *, now: float) -> Parked | None:
            return super().arriving(arrival, now=now) if not self.arrivals else None

    access = access_in(Fickle())
    assert [decision.action for decision in answers(access, end(1, recipient="a@gmail.com"), end(1))] == [HELD, HELD]


def test_messages_do_not_mix() -> None:
    access = access_in()
    answers(access, rcpt("a@gmail.com", "1"), rcpt("b@gmx.de", "2"), rcpt("c@gmail.com", "1"))
    assert last(access, end(2, "1")) == HELD
    assert last(access, end(1, "2", recipient="b@gmx.de")) == DUNNO


def test_instances_of_postfix_do_not_mix() -> None:
    access = access_in(wiring={"postfix": OPEN, "postfix-out": OPEN})
    access.decide(rcpt("a@gmail.com"), "postfix", now=1.0)
    access.decide(rcpt("b@gmx.de"), "postfix-out", now=1.0)
    access.decide(rcpt("b@gmail.com"), "postfix", now=1.0)
    assert access.decide(end(2), "postfix", now=1.0).action == HELD


def test_a_forgotten_message_has_no_recipients() -> None:
    """RSET: the next message on that connection has another `instance`."""
    access = access_in()
    answers(access, rcpt("a@gmx.de"), rcpt("b@gmail.com"))
    access.forget("postfix", "1")
    access.forget("postfix", "never seen")
    assert access.remembered == 0
    assert last(access, end(2)) == DUNNO
    assert last(access, rcpt("a@gmail.com", "2"), rcpt("b@gmail.com", "2"), end(2, "2")) == HELD


def test_without_an_instance_nothing_is_remembered() -> None:
    access = access_in()
    answers(access, rcpt("a@gmail.com", ""), end(1, "", recipient="a@gmail.com"))
    assert access.remembered == 0


def test_the_end_without_a_queue_id_is_not_decided() -> None:
    arrivals = World()
    (decision,) = answers(access_in(arrivals), end(1, queue_id="", recipient="a@gmail.com"))
    assert decision.action == DUNNO
    assert "smtpd_proxy_filter" in decision.why
    assert not arrivals.arrivals


@pytest.mark.parametrize("state", ["CONNECT", "EHLO", "HELO", "MAIL", "DATA", "VRFY", "ETRN", "", "LHLO"])
def test_other_states(state: str) -> None:
    arrivals = World()
    access = access_in(arrivals)
    asked = end(1, recipient="a@gmail.com")._replace(protocol_state=state)
    assert last(access, asked) == DUNNO
    assert not arrivals.arrivals
    assert access.remembered == 0


@pytest.mark.parametrize(
    ("recipients", "settings", "action"),
    [
        (["a@yahoo.com"], {}, Filter("lane-02")),
        (["a@yahoo.com", "b@AOL.com."], {}, Filter("lane-02")),
        (["a@yahoo.com", "b@gmx.de"], {}, DUNNO),
        (["b@gmx.de", "a@yahoo.com"], {}, DUNNO),
        (["a@yahoo.com", "b@nobody-knows.example"], {}, DUNNO),
        (["a@yahoo.com", "b@home.example"], {}, DUNNO),
        (["a@yahoo.com", "root"], {}, DUNNO),
        (["a@yahoo.com", "b@[192.0.2.1]"], {}, DUNNO),
        (["a@yahoo.com", "b@gmail.com"], {"routing": routing_to({"yahoo": "lane-02", "google": "lane-01"})}, DUNNO),
        (
            ["a@yahoo.com", "b@gmail.com"],
            {"routing": routing_to({"yahoo": "lane-02", "google": "lane-02"})},
            Filter("lane-02"),
        ),
        (["a@gmail.com"], {}, DUNNO),
        (["a@yahoo.com"], {"routing": routing_to({})}, DUNNO),
        (["a@yahoo.com"], {"wiring": {}}, DUNNO),
        (["a@yahoo.com"], {"wiring": {"postfix": OPEN._replace(filter_allowed=False)}}, DUNNO),
        (["a@yahoo.com"], {"wiring": {"postfix": OPEN._replace(own_domains=frozenset({"yahoo.com"}))}}, DUNNO),
        (["a@yahoo.com"], {"milters_quarantine": True}, Filter("lane-02")),
        (["a@yahoo.com"], {"act": False}, DUNNO),
    ],
)
def test_routes(recipients: list[str], settings: dict[str, Any], action: Action) -> None:
    sender = {"sender": "someone@else.example"}
    asked = [*map(rcpt, recipients), end(len(recipients), **sender)]
    assert last(access_in(**settings), *asked) == action


def test_no_route_where_a_recipient_was_refused_since() -> None:
    """FILTER is for all, and the one that stays may be another than we think."""
    asked = [rcpt("a@yahoo.com"), rcpt("b@yahoo.com"), end(1, sender="someone@else.example")]
    assert last(access_in(), *asked) == DUNNO


def test_mail_of_the_null_sender_is_routed() -> None:
    assert last(access_in(), end(1, sender="", recipient="a@yahoo.com")) == Filter("lane-02")


def test_hold_comes_before_route() -> None:
    assert last(access_in(routing=routing_to({"google": "lane-01"})), end(1, recipient="a@gmail.com")) == HELD


def test_where_a_milter_may_quarantine_nothing_is_held_on_arrival() -> None:
    arrivals = World()
    (decision,) = answers(access_in(arrivals, milters_quarantine=True), end(1, recipient="a@gmail.com"))
    assert decision.action == DUNNO
    assert decision.key == KEY
    assert "milter" in decision.why
    assert not arrivals.arrivals[0].binding, "the engine must not count on a hold that was not answered"
    routed = access_in(arrivals, milters_quarantine=True, routing=routing_to({"google": "lane-01"}))
    assert last(routed, end(1, recipient="a@gmail.com")) == Filter("lane-01")


def test_observing_says_what_would_be_done() -> None:
    arrivals = World()
    access = access_in(arrivals, act=False)
    held, routed = answers(
        access, end(1, "1", recipient="a@gmail.com"), end(1, "2", sender="x@else.example", recipient="a@yahoo.com")
    )
    assert held.action == routed.action == DUNNO
    assert f"would answer {value_of(HELD)}: {WHY}" in held.why
    assert held.key == KEY
    assert "would answer FILTER lane-02:" in routed.why
    assert not any(arrival.binding for arrival in arrivals.arrivals)


def test_explaining_changes_nothing() -> None:
    arrivals = World()
    access = access_in(arrivals)
    asked = request(recipient="a@gmail.com", sender="news@shop.example")
    assert access.explain(asked, "postfix", now=1.0) == (HELD, KEY, RULE, WHY)
    assert [arrival.binding for arrival in arrivals.arrivals] == [False]
    assert access.remembered == 0
    assert access.explain(request(recipient="a@yahoo.com"), "postfix", now=1.0).action == Filter("lane-02")
    assert access.explain(request(), "postfix", now=1.0).action == DUNNO


def test_explaining_a_message_under_way() -> None:
    access = access_in()
    answers(access, rcpt("a@gmail.com"), rcpt("b@gmail.com"))
    asked = end(2, queue_id="")
    assert access.explain(asked, "postfix", now=1.0).action == HELD
    answers(access, end(2, sender="someone@else.example"))
    assert access.explain(asked, "postfix", now=1.0).action == DUNNO, "it was decided, and that stands"


def test_explaining_other_states() -> None:
    access = access_in()
    assert "END-OF-MESSAGE" in access.explain(rcpt("a@gmail.com"), "postfix", now=1.0).why
    assert access.explain(request(protocol_state="DATA"), "postfix", now=1.0).action == DUNNO
    assert access.remembered == 0


def test_other_settings_and_the_same_memory() -> None:
    access = access_in(act=False)
    answers(access, rcpt("a@gmail.com"), rcpt("b@gmail.com"))
    access.configure(routing=routing_to({}), milters_quarantine=False, act=True, wiring={})
    assert last(access, end(2)) == HELD


def test_memory_ends() -> None:
    access = access_in()
    access.decide(rcpt("a@gmail.com", "old"), "postfix", now=1e9)
    access.decide(rcpt("b@gmail.com", "old"), "postfix", now=1e9 + MAX_AGE - 1)
    access.decide(rcpt("a@gmail.com", "other"), "postfix", now=1e9 + MAX_AGE + 1)
    access.decide(rcpt("c@gmail.com", "old"), "postfix", now=1e9 + MAX_AGE + 2)
    assert access.decide(end(3, "old"), "postfix", now=1e9 + MAX_AGE + 3).action == HELD, "asked about since"
    access.decide(rcpt("a@gmail.com", "third"), "postfix", now=1e9 + 3 * MAX_AGE)
    access.decide(rcpt("a@gmail.com", "third"), "postfix", now=1e9 + 5 * MAX_AGE)
    access.decide(rcpt("a@gmail.com", "fourth"), "postfix", now=1e9 + 5 * MAX_AGE)
    assert access.remembered == 2


@pytest.mark.parametrize("step", [-3600.0, 3600.0, -1e7])
def test_a_clock_that_jumps_forgets_at_worst(step: float) -> None:
    access = access_in()
    now = 1e9
    for i in range(10):
        access.decide(rcpt("a@gmail.com", str(i)), "postfix", now=now)
        now += step
    assert 1 <= access.remembered <= 10
    assert access.decide(end(1, "9", recipient="a@gmail.com"), "postfix", now=now).action == HELD


@pytest.mark.parametrize("limit", ["MAX_MESSAGES", "MAX_RECIPIENTS"])
def test_memory_is_bounded(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_module, limit, 50)
    access = access_in()
    sizes = []
    for i in range(1000):
        answers(access, rcpt("a@gmail.com", str(i)))
        sizes.append(access.remembered)
    assert max(sizes) <= 100
    assert access.decide(end(1, "999"), "postfix", now=1e9).action == HELD, "the latest are remembered"


def test_messages_that_end_leave_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was decided or forgotten does not count: the one that takes long keeps its recipients."""
    monkeypatch.setattr(access_module, "MAX_RECIPIENTS", 20)
    access = access_in()
    answers(access, rcpt("a@gmail.com", "slow"), rcpt("b@gmail.com", "slow"))
    for i in range(200):
        answers(access, rcpt("a@gmx.de", str(i)), rcpt("b@gmx.de", str(i)), *[end(2, str(i))] * (i % 2))
        access.forget("postfix", str(i))
    assert last(access, end(2, "slow")) == HELD


@pytest.mark.parametrize(
    ("key", "rule"),
    [("a:b@c", ""), ("a:b@c", "a b"), ("a:b @c", "r"), ("", "r"), ("a:b@", "r"), ("a:b", "r"), ("a:b@c\n", "r")],
)
def test_a_key_that_could_not_be_read_back(key: str, rule: str) -> None:
    with pytest.raises(ValueError, match="wanted"):
        hold_text(key, rule)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("sidecar dkim-domain:example.com@google (google/rate-dkim-domain)", "dkim-domain:example.com@google"),
        ("End-of-data sidecar host:mta1@google (google/rate)", "host:mta1@google"),
        ("<END-OF-MESSAGE>: End-of-data sidecar host:mta1@google (google/rate)", "host:mta1@google"),
        ("sidecar netblock:192.0.2.0/24@gmx.de (by-hand)", "netblock:192.0.2.0/24@gmx.de"),
        ("sidecar dkim-domain:example.com@google", None),
        ("sidecar dkim-domain:example.com (google/rate)", None),
        ("not sidecar a:b@c (d)", None),
        ("triggers HOLD action", None),
        ("", None),
    ],
)
def test_reading_the_key_of_a_hold(text: str, key: str | None) -> None:
    assert held_key(text) == key


ASKED = st.builds(
    lambda build, recipient, instance, count, queue_id, sender: build(
        recipient_count=count, recipient=recipient, instance=instance, queue_id=queue_id, sender=sender
    ),
    st.sampled_from(
        [
            lambda **attributes: request(protocol_state="RCPT", **attributes),
            lambda **attributes: request(protocol_state="END-OF-MESSAGE", **attributes),
        ]
    ),
    st.one_of(st.sampled_from(["", "a@gmail.com", "b@gmail.com", "a@yahoo.com", "root", "a@home.example"]), st.text()),
    st.sampled_from(["", "1", "2"]),
    st.integers(0, 3),
    st.sampled_from(["", "4Q"]),
    st.sampled_from(["", "news@shop.example", "x@else.example"]),
)


@given(st.lists(ASKED, max_size=20), st.booleans(), st.booleans())
def test_whatever_is_asked_the_answer_can_be_sent(asked: list[PolicyRequest], act: bool, quarantine: bool) -> None:  # noqa: FBT001  # drawn
    access = access_in(act=act, milters_quarantine=quarantine)
    for each in asked:
        decision = access.decide(each, "postfix", now=1e9)
        encode(decision.action)
        assert act or isinstance(decision.action, Dunno)
        assert bool(decision.rule) or isinstance(decision.action, Dunno)
        assert access.explain(each, "postfix", now=1e9) is not None


@given(
    st.lists(
        st.sampled_from(["gmail.com", "yahoo.com", "gmx.de", "home.example", "else.example"]), min_size=1, max_size=4
    )
)
def test_a_message_is_never_acted_on_for_a_part_of_its_recipients(domains: list[str]) -> None:
    recipients = [f"{i}@{domain}" for i, domain in enumerate(domains)]
    action = last(access_in(), *map(rcpt, recipients), end(len(recipients)))
    providers = {PROVIDERS.get(domain) for domain in domains}
    wanted = {frozenset({"google"}): HELD, frozenset({"yahoo"}): Filter("lane-02")}
    assert action == wanted.get(frozenset(providers), DUNNO)  # type: ignore[arg-type]  # None is in neither
