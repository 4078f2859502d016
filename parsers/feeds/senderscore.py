"""Validity's Sender Score, over DNS: 0 to 100 for an IPv4 address.

Knows that 127.255.255.255 speaks of the asking resolver and never of the address.
"""

import ipaddress
from collections.abc import Iterable

from parsers.feeds.asking import DnsAnswer, DnsAsk, Poll, Reading, Trouble
from parsers.feeds.reversed_name import reversed_address
from parsers.observation import Observation, Outcome

FEED = "senderscore"
ZONE = "score.senderscore.com"

_SCORES = ipaddress.ip_network("127.0.4.0/24")
_NOT_REGISTERED = "127.255.255.255"
_NO_ANSWER = frozenset({"SERVFAIL", "TIMEOUT", "ERROR"})


def poll(addresses: Iterable[str], *, zone: str = ZONE) -> Poll:
    """Ask for the score of each IPv4 address; the list knows no others."""
    asked = [address for address in addresses if ipaddress.ip_address(address).version == 4]
    answers = yield tuple(DnsAsk(f"{reversed_address(address)}.{zone}", zone=zone) for address in asked)
    told = [(address, answer) for address, answer in zip(asked, answers, strict=True) if isinstance(answer, DnsAnswer)]
    if any(_NOT_REGISTERED in answer.records for _, answer in told):
        return Reading((), Trouble.REFUSED, "the asking resolver is not registered with MyValidity (127.255.255.255)")
    if told and all(answer.rcode in _NO_ANSWER for _, answer in told):
        return Reading((), Trouble.NETWORK, f"{zone}: {told[0][1].rcode}")
    if any(answer.rcode == "REFUSED" for _, answer in told):
        return Reading((), Trouble.REFUSED, f"{zone} refuses the asking resolver")
    return Reading(tuple(_read(address, answer) for address, answer in told))


def _read(address: str, answer: DnsAnswer) -> Observation:
    if answer.rcode == "NXDOMAIN" or (answer.rcode == "NOERROR" and not answer.records):
        return Observation(FEED, address, "score", Outcome.NO_DATA, text="no score: too little mail, or none seen")
    scores = [int(ipaddress.ip_address(each)) & 0xFF for each in answer.records if _is_score(each)]
    if answer.rcode != "NOERROR" or len(scores) != 1 or scores[0] > 100:
        said = ", ".join(answer.records)[:100] or answer.rcode
        return Observation(FEED, address, "score", Outcome.UNKNOWN, text=f"not a score: {said}")
    return Observation(FEED, address, "score", Outcome.OK, float(scores[0]))


def _is_score(record: str) -> bool:
    try:
        return ipaddress.ip_address(record) in _SCORES
    except ValueError:
        return False
