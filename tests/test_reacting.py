"""Reacting: what a sign sets off, how it ends, how an address comes back, and that a hand which undid it is obeyed."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from policies.key import Key
from policies.reacting import (
    BLOCKED_FOR,
    BLOCKS,
    BLOCKS_WITHIN,
    FIRST_SHARE,
    LEASE,
    REMEMBERED,
    Do,
    Event,
    Reactions,
    Rule,
    Signal,
    Subject,
    Told,
    What,
)

LEAVE = Rule("out-when-listed", Signal.LISTED, Do.LEAVE_POOL)
BLOCKED = Rule("out-when-blocked", Signal.IP_BLOCKED, Do.LEAVE_POOL, return_hours=2.0)
ISOLATE = Rule("quarantine", Signal.REPUTATION, Do.ISOLATE, to="pool:doubtful")
PAUSE = Rule("broken", Signal.AUTHENTICATION, Do.PAUSE)
SLOW = Rule("complained", Signal.COMPLAINTS, Do.SLOW)
LISTED = Told(Signal.LISTED, Subject.TRANSPORT, "ip-2", "*", "192.0.2.7 is listed by zen")
BAD = Told(Signal.REPUTATION, Subject.DOMAIN, "shop.example", "google", "Gmail gives shop.example the reputation BAD")
BROKEN = Told(Signal.AUTHENTICATION, Subject.DOMAIN, "shop.example", "*", "s1._domainkey.shop.example: no key")
COMPLAINED = Told(Signal.COMPLAINTS, Subject.DOMAIN, "shop.example", "yahoo", "0.4 % of 9000")
HOUR = 3600.0


class Hands:
    """The engine of these tests: writes down what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def hold(self, key: Key, seconds: float, *, rule: str, line: str, by_whom: str, now: float) -> None:  # noqa: ARG002  # not of interest
        self.asked.append(("hold", str(key), seconds, rule))

    def open(self, key: Key, *, rule: str, line: str = "", by_whom: str, now: float) -> None:  # noqa: ARG002  # as above
        self.asked.append(("open", str(key), rule))

    def resume(self, key: Key, *, by_whom: str, now: float) -> bool:  # noqa: ARG002  # as above
        self.asked.append(("resume", str(key), by_whom))
        return True


def made(*rules: Rule, **settings: Any) -> tuple[Reactions, Hands]:
    hands = Hands()
    return Reactions(rules, hands, **settings), hands


def words(events: list[Event]) -> list[str]:
    return [f"{event.what} {event.reaction.object}@{event.reaction.provider}" for event in events]


def test_a_listed_address_takes_nothing_and_comes_back_by_a_growing_share() -> None:
    it, _ = made(LEAVE)
    assert it.refuses("ip-2", "google", 0.0, now=0.0) == ""
    assert words(it.told([LISTED], now=0.0)) == ["reacted ip-2@*"]
    assert it.told([LISTED], now=30.0) == []
    assert it.refuses("ip-2", "google", 0.0, now=HOUR) == "listed (out-when-listed)"
    assert it.refuses("ip-1", "google", 0.0, now=HOUR) == ""
    assert words(it.told([], now=HOUR)) == ["returning ip-2@*"]
    shares = [it.share(it.known()[0], now=HOUR + hours * HOUR) for hours in range(0, 25, 6)]
    assert shares[0] == pytest.approx(FIRST_SHARE)
    assert shares[-1] == 1.0
    grown = [later / sooner for sooner, later in itertools.pairwise(shares)]
    assert grown == pytest.approx([FIRST_SHARE**-0.25] * 4)
    assert it.refuses("ip-2", "google", 0.04, now=HOUR) == ""
    assert it.refuses("ip-2", "google", 0.06, now=HOUR) == "listed (out-when-listed), back with 5% of its mail"
    assert it.refuses("ip-2", "google", 0.99, now=25 * HOUR) == ""
    it.look(now=26 * HOUR)
    assert it.known() == []


def test_listed_again_on_the_way_back() -> None:
    it, _ = made(LEAVE)
    it.told([LISTED], now=0.0), it.told([], now=HOUR)
    assert words(it.told([LISTED], now=2 * HOUR)) == ["reacted ip-2@*"]
    assert it.refuses("ip-2", "google", 0.0, now=2 * HOUR) == "listed (out-when-listed)"


def test_a_rule_may_be_for_some_providers_and_some_transports() -> None:
    it, _ = made(LEAVE._replace(providers=frozenset({"gmx", "orange"}), only=frozenset({"ip-2"})))
    assert words(it.told([LISTED, LISTED._replace(object="ip-9")], now=0.0)) == [
        "reacted ip-2@gmx",
        "reacted ip-2@orange",
    ]
    assert it.refuses("ip-2", "gmx", 0.0, now=1.0) != ""
    assert it.refuses("ip-2", "google", 0.0, now=1.0) == ""
    assert it.refuses("ip-9", "gmx", 0.0, now=1.0) == ""


def blocks(it: Reactions, number: int, now: float, every: float = 1.0) -> list[Event]:
    return [event for i in range(number) for event in it.blocked("ip-2", "yahoo", "421 TSS04", now=now + i * every)]


def test_a_blocked_address_leaves_at_that_provider_for_a_time_and_longer_each_time() -> None:
    it, _ = made(BLOCKED)
    assert blocks(it, BLOCKS - 1, 0.0) == []
    assert words(blocks(it, 1, 2.0)) == ["reacted ip-2@yahoo"]
    assert it.refuses("ip-2", "yahoo", 0.0, now=3.0) != ""
    assert it.refuses("ip-2", "google", 0.0, now=3.0) == ""
    assert it.told([], now=5.0) == []  # nothing that others tell ends it
    assert it.look(now=BLOCKED_FOR) == []
    assert words(it.look(now=BLOCKED_FOR + 2)) == ["returning ip-2@yahoo"]
    assert words(blocks(it, BLOCKS, 2 * HOUR)) == ["reacted ip-2@yahoo"]
    assert it.look(now=2 * HOUR + 1.9 * BLOCKED_FOR) == []
    assert words(it.look(now=2 * HOUR + 2 * BLOCKED_FOR + BLOCKS)) == ["returning ip-2@yahoo"]
    back = 2 * HOUR + 2 * BLOCKED_FOR + BLOCKS + 2 * HOUR
    it.look(now=back)
    assert it.refuses("ip-2", "yahoo", 0.99, now=back) == ""
    it.look(now=back + REMEMBERED)
    assert it.known() == []


def test_blocks_far_apart_are_slips() -> None:
    it, _ = made(BLOCKED)
    assert blocks(it, 20, 0.0, every=BLOCKS_WITHIN / (BLOCKS - 1) + 1) == []


def test_replies_count_only_where_a_rule_asks_for_it() -> None:
    it, _ = made(LEAVE)
    assert blocks(it, 10, 0.0) == []


def test_a_domain_is_isolated_where_its_reputation_fails() -> None:
    it, hands = made(ISOLATE)
    assert words(it.told([BAD], now=0.0)) == ["reacted shop.example@google"]
    assert it.isolated("shop.example", "google") == ("pool:doubtful", "quarantine")
    assert it.isolated("shop.example", "yahoo") == ("", "")
    assert it.isolated("steady.example", "google") == ("", "")
    assert words(it.told([], now=HOUR)) == ["restored shop.example@google"]
    assert it.isolated("shop.example", "google") == ("", "")
    assert (it.known(), hands.asked) == ([], [])


def test_a_pause_is_renewed_with_each_word_and_ends_by_a_probe() -> None:
    it, hands = made(PAUSE)
    assert len(it.told([BROKEN], now=0.0)) == 1
    assert it.told([BROKEN], now=30.0) == []
    held = ("hold", "sender-domain:shop.example@*", LEASE, "react/broken")
    assert hands.asked == [held, held]
    assert words(it.told([], now=60.0)) == ["restored shop.example@*"]
    assert hands.asked[2:] == [("resume", "sender-domain:shop.example@*", "react")]


def test_slow_opens_a_sub_queue_once() -> None:
    it, hands = made(SLOW)
    it.told([COMPLAINED], now=0.0), it.told([COMPLAINED], now=30.0), it.told([], now=60.0)
    assert hands.asked == [("open", "sender-domain:shop.example@yahoo", "react/complained")]


@pytest.mark.parametrize(("rule", "sign"), [(LEAVE, LISTED), (ISOLATE, BAD), (PAUSE, BROKEN)])
def test_what_a_hand_undid_is_not_done_again_until_the_sign_has_passed(rule: Rule, sign: Told) -> None:
    it, hands = made(rule)
    it.told([sign], now=0.0)
    undone = it.undo(sign.object, by_whom="jo", now=1.0)
    assert [(event.what, event.by_whom) for event in undone] == [(What.UNDONE, "jo")]
    assert it.undo(sign.object, by_whom="jo", now=1.0) == []
    if rule is PAUSE:
        assert hands.asked[-1] == ("resume", "sender-domain:shop.example@*", "jo")
    hands.asked.clear()
    assert it.told([sign], now=30.0) == []
    assert hands.asked == []
    assert it.refuses(sign.object, "google", 0.9, now=30.0) == ""
    assert it.isolated(sign.object, "google") == ("", "")
    assert it.told([], now=60.0) == []
    assert len(it.told([sign], now=90.0)) == 1


def test_a_block_that_was_undone_counts_again_with_the_next() -> None:
    it, _ = made(BLOCKED)
    blocks(it, BLOCKS, 0.0)
    assert words(it.undo("ip-2", "google", by_whom="jo", now=9.0)) == []
    assert words(it.undo("ip-2", "yahoo", by_whom="jo", now=9.0)) == ["undone ip-2@yahoo"]
    assert it.refuses("ip-2", "yahoo", 0.9, now=9.0) == ""
    assert words(blocks(it, BLOCKS, 10.0)) == ["reacted ip-2@yahoo"]


def test_the_way_back_is_cut_short_by_hand() -> None:
    it, _ = made(LEAVE)
    it.told([LISTED], now=0.0), it.told([], now=HOUR)
    it.undo("ip-2", by_whom="jo", now=HOUR)
    assert it.refuses("ip-2", "google", 0.99, now=HOUR) == ""


def test_a_restart_goes_on_as_it_was() -> None:
    it, _ = made(LEAVE, BLOCKED, ISOLATE)
    it.told([LISTED, BAD], now=0.0), it.told([BAD], now=HOUR)
    blocks(it, BLOCKS, HOUR)
    again, _ = made(LEAVE, BLOCKED, ISOLATE)
    for reaction in it.known():
        again.restore(replace(reaction))
    for moment in (HOUR + 5, 2 * HOUR + 5, 9 * HOUR, 30 * HOUR):
        for luck in (0.0, 0.3, 0.9):
            assert again.refuses("ip-2", "yahoo", luck, now=moment) == it.refuses("ip-2", "yahoo", luck, now=moment)
        assert words(again.look(now=moment)) == words(it.look(now=moment))
    assert again.isolated("shop.example", "google") == ("pool:doubtful", "quarantine")


def test_what_no_rule_asks_for_any_more_is_forgotten() -> None:
    it, _ = made(LEAVE, ISOLATE)
    it.told([LISTED, BAD], now=0.0)
    rows = it.known()
    it.configure([ISOLATE])
    assert [reaction.rule for reaction in it.known()] == ["quarantine"]
    again, _ = made(ISOLATE)
    for reaction in rows:
        again.restore(reaction)
    assert [reaction.rule for reaction in again.known()] == ["quarantine"]
    assert again.changed == {("out-when-listed", "ip-2", "*"): None}


def test_only_what_changed_is_stored() -> None:
    it, _ = made(LEAVE)
    it.told([LISTED], now=0.0)
    assert list(it.changed) == [("out-when-listed", "ip-2", "*")]
    it.changed.clear()
    it.told([LISTED], now=30.0), it.look(now=31.0)
    assert it.changed == {}
    it.told([], now=60.0)
    assert it.changed["out-when-listed", "ip-2", "*"] is not None


def test_labs_have_short_days() -> None:
    it, hands = made(BLOCKED, PAUSE, scale=60.0)
    it.told([BROKEN], now=0.0)
    assert hands.asked[0][2] == LEASE / 60
    blocks(it, BLOCKS, 0.0)
    assert words(it.look(now=BLOCKED_FOR / 60 + 3)) == ["returning ip-2@yahoo"]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (
            LEAVE._replace(signal=Signal.COMPLAINTS),
            "react out-when-listed: do = leave-pool is about a transport, complaints is not; wanted ip-blocked, listed,",
        ),
        (
            ISOLATE._replace(to=""),
            "react quarantine: to: missing; wanted the transport or pool:NAME that isolated mail go",
        ),
        (PAUSE._replace(to="ip-1"), "react broken: to: ip-1; wanted with do = isolate alone"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(rule: Rule, said: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011  # its words are what is looked at
        made(rule)
    assert str(refused.value).startswith(said)


def test_two_rules_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="there are two of this name"):
        made(LEAVE, LEAVE)
