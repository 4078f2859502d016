"""Sender Score: each answer of the zone, and what it says of an address or of us."""

import pytest

from parsers.feeds import senderscore
from parsers.feeds.asking import Ask, DnsAnswer, DnsAsk, Reading, Trouble
from parsers.observation import Outcome
from tests.outside_world import driven

ZONE = "score.senderscore.com"


def reading(*answers: DnsAnswer) -> Reading:
    addresses = [f"192.0.2.{number}" for number in range(1, len(answers) + 1)]
    by_name = {f"{number}.2.0.192.{ZONE}": answer for number, answer in enumerate(answers, 1)}

    def answer(ask: Ask) -> DnsAnswer:
        assert isinstance(ask, DnsAsk)
        return by_name[ask.name]

    return driven(senderscore.poll([*addresses, "2001:db8::1"]), answer)


@pytest.mark.parametrize(
    ("answer", "outcome", "value"),
    [
        (DnsAnswer("NOERROR", ("127.0.4.97",)), Outcome.OK, 97),
        (DnsAnswer("NOERROR", ("127.0.4.0",)), Outcome.OK, 0),
        (DnsAnswer("NOERROR", ("127.0.4.101",)), Outcome.UNKNOWN, None),
        (DnsAnswer("NOERROR", ("127.0.0.2",)), Outcome.UNKNOWN, None),
        (DnsAnswer("NOERROR", ("198.51.100.7",)), Outcome.UNKNOWN, None),
        (DnsAnswer("NOERROR", ("127.0.4.97", "127.0.4.12")), Outcome.UNKNOWN, None),
        (DnsAnswer("NOERROR", ()), Outcome.NO_DATA, None),
        (DnsAnswer("NXDOMAIN"), Outcome.NO_DATA, None),
        (DnsAnswer("SERVFAIL"), Outcome.UNKNOWN, None),
        (DnsAnswer("TIMEOUT"), Outcome.UNKNOWN, None),
    ],
)
def test_answer(answer: DnsAnswer, outcome: Outcome, value: float | None) -> None:
    told = reading(answer, DnsAnswer("NXDOMAIN"))
    assert told.trouble is None
    assert (told.observations[0].outcome, told.observations[0].value) == (outcome, value)


@pytest.mark.parametrize(
    ("answer", "trouble"),
    [
        (DnsAnswer("NOERROR", ("127.255.255.255",)), Trouble.REFUSED),
        (DnsAnswer("REFUSED"), Trouble.REFUSED),
        (DnsAnswer("SERVFAIL"), Trouble.NETWORK),
        (DnsAnswer("TIMEOUT"), Trouble.NETWORK),
    ],
)
def test_what_speaks_of_the_resolver_says_nothing_of_an_address(answer: DnsAnswer, trouble: Trouble) -> None:
    told = reading(answer)
    assert (told.trouble, told.observations) == (trouble, ())


def test_nothing_to_ask_about_is_no_trouble() -> None:
    assert reading() == Reading()
