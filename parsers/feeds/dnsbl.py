"""DNS blocklists: what to ask them, and what their answers mean.

Knows that an answer may be a listing, good news, no news, or a word to the one who asks; and that a zone is believed
only after it has listed what it must and not listed what it must not (RFC 5782 section 5).
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from parsers.feeds.asking import Answer, DnsAnswer, DnsAsk, Poll, Reading, Trouble
from parsers.feeds.reversed_name import reversed_address
from parsers.observation import Observation, Outcome

FEED = "dnsbl"


class Kind(StrEnum):
    """What a list may be asked about."""

    IP4 = "ip4"
    IP6 = "ip6"
    DOMAIN = "domain"


class Severity(StrEnum):
    """Of a listing, for a sender."""

    CRITICAL = "critical"
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"

    @property
    def milder(self) -> "Severity":
        order = list(Severity)
        return order[min(order.index(self) + 1, len(order) - 1)]


@dataclass(frozen=True, slots=True)
class Range:
    """Answers from `first` to `last`, both included."""

    first: str
    last: str
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class BlockList:
    """One list, as data; equal to itself alone."""

    id: str
    kinds: tuple[Kind, ...]
    severity: Severity
    every: int
    """Minutes between two polls."""
    zone: str = ""
    """"" where only customers with a key may ask."""
    keyed: str = ""
    """The zone asked where there is a key, which stands for {key} in it."""
    key: str = ""
    """Name of the key: several lists share one."""
    codes: Mapping[str, str] = field(default_factory=dict)
    """Answer -> sublist."""
    milder: Mapping[str, str] = field(default_factory=dict)
    """The same, for listings one step less severe."""
    ranges: tuple[Range, ...] = ()
    bits: Mapping[str, str] = field(default_factory=dict)
    """Bit of the last octet of 127.0.0.x -> sublist; several may be set at once."""
    milder_bits: Mapping[str, str] = field(default_factory=dict)
    error_bits: int = 0
    """Bits that speak of the one who asks."""
    errors: tuple[str, ...] = ()
    error_networks: tuple[str, ...] = ()
    allow: Mapping[str, str] = field(default_factory=dict)
    """Answers that are good news."""
    allow_networks: tuple[str, ...] = ()
    neutral: tuple[str, ...] = ()
    """Answers that are no listing and no news."""
    neutral_networks: tuple[str, ...] = ()
    positive: str | None = None
    """What must be listed; None: as RFC 5782 section 5 has it. "": there is no such point."""
    negative: str | None = None
    """What must not be listed; None: as RFC 5782 section 5 has it. "": that one means something else here."""
    registrable: bool = False
    """It knows only the part of a domain that was registered."""
    enabled: bool = True
    quiet: bool = False
    """Shown, and never alerted."""
    needs: str = ""
    """What its operator wants before it answers."""
    delist: str = ""
    """Where a listing is disputed."""


class Meaning(StrEnum):
    CLEAN = "clean"
    LISTED = "listed"
    ALLOWED = "allowed"
    """Good news: a white list."""
    REFUSED = "refused"
    """The answer speaks of the one who asks."""
    UNKNOWN = "unknown"


class Verdict(NamedTuple):
    meaning: Meaning
    words: tuple[str, ...] = ()
    """Sublists; else the answers that say so."""
    severity: Severity | None = None
    """Of a listing: the worst of its sublists."""


class Asked(NamedTuple):
    """One list as it is asked at this site."""

    list: BlockList
    zone: str
    secret: str = ""
    """The key inside the zone's name."""


def zone_of(spec: BlockList, keys: Mapping[str, str]) -> Asked | None:
    """Tell where a list is asked, None where there is no key for one that wants it."""
    if spec.keyed and (key := keys.get(spec.key)):
        return Asked(spec, spec.keyed.replace("{key}", key), key)
    return Asked(spec, spec.zone) if spec.zone else None


# What an answer means.

_ERRORS = ipaddress.ip_network("127.255.255.0/24")
"""Spamhaus' way, and others', to answer somebody and not about something: never a listing."""
_LOOPBACK = ipaddress.ip_network("127.0.0.0/8")


def classify(spec: BlockList, answer: DnsAnswer) -> Verdict:
    """Read one answer about an object; whether the zone may be believed is another question."""
    if answer.rcode == "REFUSED":
        return Verdict(Meaning.REFUSED, ("REFUSED",))
    if answer.rcode not in {"NOERROR", "NXDOMAIN"}:
        return Verdict(Meaning.UNKNOWN, (answer.rcode,))
    if answer.rcode == "NXDOMAIN" or not answer.records:
        return Verdict(Meaning.CLEAN)
    try:
        addresses = [ipaddress.IPv4Address(record) for record in answer.records]
    except ValueError:
        return Verdict(Meaning.UNKNOWN, answer.records[:3])
    if strangers := [str(each) for each in addresses if each not in _LOOPBACK]:
        return Verdict(Meaning.UNKNOWN, tuple(strangers[:3]))  # a resolver that lies, or a dead zone for sale
    return _together([verdict for each in addresses for verdict in _one(spec, each)])


def _together(verdicts: Sequence[Verdict]) -> Verdict:
    """Several records: a word to the one who asks outranks all, a listing outranks good news."""
    for meaning in (Meaning.REFUSED, Meaning.LISTED, Meaning.UNKNOWN, Meaning.ALLOWED):
        found = [verdict for verdict in verdicts if verdict.meaning is meaning]
        if found:
            words = tuple(dict.fromkeys(word for verdict in found for word in verdict.words))
            grades = [verdict.severity for verdict in found if verdict.severity]
            return Verdict(meaning, words, min(grades, key=list(Severity).index) if grades else None)
    return Verdict(Meaning.CLEAN)


def _one(spec: BlockList, address: ipaddress.IPv4Address) -> Iterator[Verdict]:
    said = str(address)
    if address in _ERRORS or said in spec.errors or _within(address, spec.error_networks):
        yield Verdict(Meaning.REFUSED, (said,))
    elif (spec.bits or spec.milder_bits) and said.startswith("127.0.0."):
        yield from _bits(spec, int(address) & 0xFF, said)
    elif said in spec.codes:
        yield Verdict(Meaning.LISTED, (spec.codes[said],), spec.severity)
    elif said in spec.milder:
        yield Verdict(Meaning.LISTED, (spec.milder[said],), spec.severity.milder)
    elif names := [each.name for each in spec.ranges if _between(address, each)]:
        yield Verdict(Meaning.LISTED, tuple(names), spec.severity)
    elif said in spec.allow or _within(address, spec.allow_networks):
        yield Verdict(Meaning.ALLOWED, (spec.allow.get(said, said),))
    elif said not in spec.neutral and not _within(address, spec.neutral_networks):
        yield Verdict(Meaning.UNKNOWN, (said,))


def _bits(spec: BlockList, octet: int, said: str) -> Iterator[Verdict]:
    if octet & spec.error_bits:
        yield Verdict(Meaning.REFUSED, (said,))
        return
    listed = [Verdict(Meaning.LISTED, (name,), spec.severity) for bit, name in spec.bits.items() if octet & int(bit)]
    milder = spec.severity.milder
    listed += [Verdict(Meaning.LISTED, (name,), milder) for bit, name in spec.milder_bits.items() if octet & int(bit)]
    yield from listed or [Verdict(Meaning.UNKNOWN, (said,))]


def _within(address: ipaddress.IPv4Address, networks: Iterable[str]) -> bool:
    return any(address in ipaddress.ip_network(network) for network in networks)


def _between(address: ipaddress.IPv4Address, numbers: Range) -> bool:
    return ipaddress.IPv4Address(numbers.first) <= address <= ipaddress.IPv4Address(numbers.last)


# What is asked.


class Subject(NamedTuple):
    """An object, under the names by which lists know it."""

    object: str
    kind: Kind
    name: str
    registered: str
    """The same, of lists that know only what was registered."""


def subject(asked_about: str, registrable: Mapping[str, str]) -> Subject:
    """Give an address or a domain as it is asked for; `registrable`: domain -> the part of it that was registered."""
    kind = _kind(asked_about)
    if kind is Kind.DOMAIN:
        domain = asked_about.rstrip(".").lower()
        return Subject(asked_about, kind, domain, registrable.get(domain, domain))
    name = reversed_address(asked_about)
    return Subject(asked_about, kind, name, name)


@lru_cache(maxsize=65_536)
def _kind(asked_about: str) -> Kind:
    try:
        return Kind.IP4 if ipaddress.ip_address(asked_about).version == 4 else Kind.IP6
    except ValueError:
        return Kind.DOMAIN


def test_points(spec: BlockList) -> tuple[str, str]:
    """Give what must be listed and what must not, as names in front of the zone.

    The first is "" where there is no such point. There is always a second: where that of the RFC has a meaning of its
    own, something that nobody can send from, so that no list has a reason to list it, and one that lists all does.
    """
    if Kind.IP4 in spec.kinds:
        usual = reversed_address("127.0.0.2"), reversed_address("127.0.0.1")
        nobody = reversed_address("192.0.2.213")  # RFC 5737: for documents
    elif Kind.IP6 in spec.kinds:
        # RFC 5782 section 5: the mapped forms, here as the 32 nibbles that an IPv6 zone wants.
        usual = _nibbles("::ffff:127.0.0.2"), _nibbles("::ffff:127.0.0.1")
        nobody = _nibbles("2001:db8:7b1d:90c4::3a6e")  # RFC 3849
    else:
        usual = "test", "invalid"
        nobody = "k7q2x9vd.example"  # RFC 2606
    positive = usual[0] if spec.positive is None else spec.positive
    return positive, usual[1] if spec.negative is None else spec.negative or nobody


def _nibbles(address: str) -> str:
    return ipaddress.IPv6Address(address).reverse_pointer.removesuffix(".ip6.arpa")


class Health(NamedTuple):
    """Whether a zone may be believed."""

    well: bool
    why: str = ""
    trouble: Trouble | None = None


def health(spec: BlockList, positive: DnsAnswer | None, negative: DnsAnswer) -> Health:
    """Judge a zone by its test points; None where it has none that must be listed."""
    if positive is not None:
        verdict = classify(spec, positive)
        if verdict.meaning is Meaning.REFUSED:
            return Health(False, f"refuses the asking resolver or key: {', '.join(verdict.words)}", Trouble.REFUSED)
        if verdict.meaning not in {Meaning.LISTED, Meaning.ALLOWED}:
            if positive.rcode in _SILENT:
                return Health(False, f"does not answer: {positive.rcode}", Trouble.NETWORK)
            said = ", ".join(verdict.words) or positive.rcode
            return Health(False, f"its test point is not listed: {said}", Trouble.FORMAT)
    if negative.rcode in _SILENT:
        return Health(False, f"does not answer: {negative.rcode}", Trouble.NETWORK)
    verdict = classify(spec, negative)
    if verdict.meaning is not Meaning.CLEAN:
        return Health(False, f"lists what no list may: {', '.join(verdict.words)}", Trouble.FORMAT)
    return Health(True)


_SILENT = frozenset({"SERVFAIL", "TIMEOUT", "ERROR"})


def poll(lists: Sequence[Asked], objects: Sequence[str], registrable: Mapping[str, str], *, feed: str = FEED) -> Poll:
    """Ask every list about every object it knows: first whether the list is to be believed, last why it lists."""
    points = {asked: test_points(asked.list) for asked in lists}
    asks = [_Question(asked, name) for asked in lists for name in points[asked] if name]
    told = _by_question(asks, (yield _asks(asks)))
    judged = {
        asked: health(asked.list, told.get(_Question(asked, positive)), told[_Question(asked, negative)])
        for asked, (positive, negative) in points.items()
    }
    found = [_healthy(feed, asked, each) for asked, each in judged.items()]
    subjects = [subject(each, registrable) for each in objects]
    about = [
        _About(_Question(asked, each.registered if asked.list.registrable else each.name), each.object)
        for asked in lists
        for each in subjects
        if each.kind in asked.list.kinds
    ]
    sound = [each for each in about if judged[each.question.asked].well]
    questions = list(dict.fromkeys(each.question for each in sound))
    told = _by_question(questions, (yield _asks(questions)))
    verdicts = {question: classify(question.asked.list, answer) for question, answer in told.items()}
    listed = [question for question, verdict in verdicts.items() if verdict.meaning is Meaning.LISTED]
    reasons = _by_question(listed, (yield _asks(listed, "TXT")))
    for each in about:
        if judged[each.question.asked].well:
            found.append(_observed(feed, each, verdicts[each.question], reasons.get(each.question)))
        else:
            why = f"the list is sick: {judged[each.question.asked].why}"
            found.append(_observation(feed, each, Outcome.UNKNOWN, None, why))
    sick = [each for each in judged.values() if not each.well]
    if sick and len(sick) == len(judged):
        return Reading(tuple(found), sick[0].trouble, f"no list is well; the first: {sick[0].why}")
    return Reading(tuple(found))


class _Question(NamedTuple):
    asked: Asked
    name: str
    """In front of the zone."""


class _About(NamedTuple):
    question: _Question
    object: str


def _asks(questions: Sequence[_Question], kind: str = "A") -> tuple[DnsAsk, ...]:
    return tuple(
        DnsAsk(f"{name}.{asked.zone}", kind, asked.zone, (asked.secret,) if asked.secret else ())
        for asked, name in questions
    )


def _by_question(questions: Sequence[_Question], answers: tuple[Answer, ...]) -> dict[_Question, DnsAnswer]:
    pairs = zip(questions, answers, strict=True)
    return {question: answer for question, answer in pairs if isinstance(answer, DnsAnswer)}


def _healthy(feed: str, asked: Asked, judged: Health) -> Observation:
    return Observation(feed, asked.list.id, "zone-healthy", Outcome.OK, float(judged.well), judged.why)


def _observed(feed: str, about: _About, verdict: Verdict, reason: DnsAnswer | None) -> Observation:
    words = ", ".join(verdict.words)
    match verdict.meaning:
        case Meaning.LISTED:
            said = " ".join(reason.records)[:300] if reason is not None else ""
            return _observation(feed, about, Outcome.OK, 1.0, f"{verdict.severity}: {words}{said and f': {said}'}")
        case Meaning.CLEAN | Meaning.ALLOWED:
            return _observation(feed, about, Outcome.OK, 0.0, words)
        case Meaning.REFUSED:
            return _observation(feed, about, Outcome.UNKNOWN, None, f"refused: {words}")
        case Meaning.UNKNOWN:
            return _observation(feed, about, Outcome.UNKNOWN, None, f"unknown answer: {words}")


def _observation(feed: str, about: _About, outcome: Outcome, value: float | None, text: str) -> Observation:
    return Observation(feed, about.object, f"listed.{about.question.asked.list.id}", outcome, value, text)
