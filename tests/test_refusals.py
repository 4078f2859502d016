"""What smtpd is told about who is on a list: refused at RCPT, thrown away for some tenants, and for whom no list counts."""

from typing import Any

import pytest

from parsers.policy_protocol import DUNNO, Discard, Reject, encode
from policies.access import Access
from policies.refusals import SAID, Refusals
from policies.suppression import Add, Listed, Reason
from sidecar.rules import organizational_domain
from tests.policy_world import World, access_in
from tests.suppression_world import Lists
from tests.test_access import answers, end, last, rcpt

DEAD = ("dead@gmail.com", "global", Reason.HARD_BOUNCE)
REFUSED = Reject("5.1.1", "Recipient is suppressed: its provider says that this mailbox does not exist")


def suppressing(
    *entries: tuple[str, str, Reason], world: World | None = None, act: bool = True, **settings: Any
) -> Access:
    lists = Lists()
    for address, name, reason in entries:
        lists.apply(Add(lists.digest(address), address, Listed(name, reason), "", 0.0, "test"))
    refusing = Refusals(lists, organizational_domain, **settings)
    return access_in(world, act=act, refusing=refusing)


def test_a_dead_address_is_refused_and_the_others_of_the_message_are_not() -> None:
    world = World()
    access = suppressing(DEAD, world=world)
    decisions = answers(
        access,
        *(
            rcpt(each, sender="a@x.example")
            for each in ("a@gmail.com", "dead@gmail.com", "Dead@GMAIL.com", "b@gmail.com")
        ),
        end(2),
    )
    # Of the message hold is decided as ever: the one refused is none of its recipients.
    assert [decision.action for decision in decisions[:4]] == [DUNNO, REFUSED, REFUSED, DUNNO]
    assert world.arrivals[-1].recipients == ("a@gmail.com", "b@gmail.com")
    assert world.arrivals[-1].complete
    assert (decisions[1].rule, decisions[1].why) == ("suppress/hard-bounce", "suppressed on global for hard-bounce")


def test_observing_it_says_what_it_would_do_and_the_message_goes_on() -> None:
    world = World()
    access = suppressing(DEAD, world=world, act=False)
    (decision, _) = answers(access, rcpt("dead@gmail.com", sender="a@x.example"), end(1, recipient="dead@gmail.com"))
    assert decision.action is DUNNO
    assert decision.rule == "suppress/hard-bounce"
    assert decision.why.startswith("observing; would answer REJECT 5.1.1 Recipient is suppressed: ")
    assert world.arrivals[-1].recipients == ("dead@gmail.com",)


def test_the_null_sender_is_never_refused() -> None:
    access = suppressing(DEAD)
    assert last(access, rcpt("dead@gmail.com", sender="")) is DUNNO
    assert last(access, rcpt("dead@gmail.com", sender="news@shop.example")) == REFUSED


@pytest.mark.parametrize(
    ("name", "sender", "login", "counts"),
    [
        ("global", "a@x.example", "", True),
        ("tenant:shop", "a@x.example", "shop", True),
        ("tenant:shop", "a@x.example", "other", False),
        ("tenant:shop", "a@x.example", "", False),
        ("domain:shop.example", "a@shop.example", "", True),
        ("domain:shop.example", "a@News.Shop.Example.", "", True),
        ("domain:shop.example", "a@other.example", "", False),
    ],
)
def test_a_list_counts_for_whom_it_is(name: str, sender: str, login: str, *, counts: bool) -> None:
    access = suppressing(("a@gmail.com", name, Reason.UNSUBSCRIBE))
    answer = last(access, rcpt("a@gmail.com", sender=sender, sasl_username=login))
    assert isinstance(answer, Reject) is counts


@pytest.mark.parametrize("reason", Reason)
def test_wishes_do_not_stop_transactional_mail(reason: Reason) -> None:
    access = suppressing(("a@gmail.com", "global", reason), transactional=["shop"])
    stopped = isinstance(last(access, rcpt("a@gmail.com", sender="a@x.example", sasl_username="shop")), Reject)
    assert stopped is (reason not in {Reason.COMPLAINT, Reason.UNSUBSCRIBE, Reason.INACTIVE})


OTHER = ("b@gmx.de", "global", Reason.COMPLAINT)


def test_a_tenant_whose_mail_is_thrown_away_hears_of_no_refusal() -> None:
    access = suppressing(DEAD, OTHER, discard=["shop"])
    sent = {"sender": "a@x.example", "sasl_username": "shop"}
    first = answers(access, rcpt("dead@gmail.com", **sent), rcpt("b@gmx.de", **sent), end(2, **sent))
    assert [decision.action for decision in first[:2]] == [DUNNO, DUNNO]
    assert isinstance(first[2].action, Discard)
    assert encode(first[2].action).startswith(b"action=DISCARD its provider says")
    other = {"sender": "a@x.example", "sasl_username": "other"}
    assert last(access, rcpt("dead@gmail.com", "2", **other)) == REFUSED


def test_observing_a_message_that_would_be_thrown_away_arrives_as_any_other() -> None:
    world = World()
    access = suppressing(DEAD, world=world, act=False, discard=["shop"])
    sent = {"sender": "a@x.example", "sasl_username": "shop"}
    decision = answers(access, rcpt("dead@gmail.com", **sent), end(1, **sent))[-1]
    assert decision.action is DUNNO
    assert decision.why.startswith("observing; would answer DISCARD ")
    assert [arrival.recipients for arrival in world.arrivals] == [("dead@gmail.com",)]


def test_nothing_is_thrown_away_that_somebody_is_to_get() -> None:
    """DISCARD is for the whole message: one recipient on no list, or one that is not known, and all get it."""
    access = suppressing(DEAD, OTHER, discard=["shop"])
    sent = {"sender": "a@x.example", "sasl_username": "shop"}
    assert last(access, rcpt("dead@gmail.com", **sent), rcpt("c@gmx.de", **sent), end(2, **sent)) is DUNNO
    assert last(access, rcpt("dead@gmail.com", "2", **sent), end(2, "2", **sent)) is DUNNO
    # Three were asked about and two accepted: we cannot tell which.
    asked = [rcpt(each, "3", **sent) for each in ("dead@gmail.com", "b@gmx.de", "c@gmx.de")]
    assert last(access, *asked, end(2, "3", **sent)) is DUNNO


def test_asking_gives_the_same_answer_and_remembers_nothing() -> None:
    access = suppressing(DEAD)
    asked = rcpt("dead@gmail.com", "", sender="a@x.example")
    for state in ("", "RCPT"):
        assert access.explain(asked._replace(protocol_state=state), "postfix", now=1e9).action == REFUSED
    assert access.remembered == 0


def test_each_reason_has_a_text_that_postfix_takes() -> None:
    for reason in Reason:
        said = SAID[reason]
        assert encode(Reject(said.status, said.text))
        assert encode(Discard(said.text))
