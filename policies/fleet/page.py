"""What a fleet tells people of one incident: which hosts see it, what each channel was told last, who is telling it now.

Of each part the later one holds, so that copies which were apart come together in any order. Only who speaks is decided by
the store, for a while, with a token that grows. Times are the store's clock, but for where it says otherwise.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Self

from parsers.feeds.dnsbl import Severity
from policies.conditions import worse
from policies.figures import Kind
from policies.fleet import reading
from policies.incidents import AGAIN, DAY, MESSAGES_A_DAY, SETTLE, Incident
from policies.note import MESSAGES, NoteKind, span

SEEN_FOR: Final = 600.0
"""Seconds for which a host that is not heard of counts as one that sees it."""
RENEWED: Final = 60.0
CLAIM: Final = 60.0
"""Seconds for which one host alone may speak over a channel; then another does, unless it was renewed or said."""
_AS_THEY_CAME: Final = 1e-3
"""Of the time between them, what lies ahead keeps so much, and so its order: a millisecond is left even of seconds since 1970."""
OWN_KINDS: Final = frozenset({Kind.HOST, Kind.CHANNEL})
"""Of what is about one host alone."""


class Sight(NamedTuple):
    """One host's view."""

    at: float
    severity: str = ""
    """ "" where it sees it no more."""
    since: float = 0.0
    number: int = 0
    """Of the incident there."""


class Told(NamedTuple):
    """What people know by a channel."""

    at: float
    severity: str = ""
    """ "" where they know that it is over."""
    hosts: int = 0
    scope: int = 0
    messages: tuple[float, ...] = ()
    acked: bool = False
    thread: str = ""
    by: str = ""
    """The host that said it."""

    def left(self, *, at: float) -> int:
        return MESSAGES_A_DAY - sum(at - each < DAY for each in self.messages)


class Claim(NamedTuple):
    host: str
    token: int
    until: float


class Hand(NamedTuple):
    """What somebody did."""

    at: float
    who: str = ""


class Way(NamedTuple):
    """A channel of this host."""

    name: str
    severities: frozenset[str]
    kinds: frozenset[NoteKind]
    able: bool = True


class Mine(NamedTuple):
    """This host's incident, while it lasts."""

    number: int
    severity: Severity
    scope: int


class Turn(NamedTuple):
    """It is on this host to say it."""

    channel: str
    kind: NoteKind
    token: int


class Page(NamedTuple):
    title: str = ""
    category: str = ""
    opened_at: float = 0.0
    """By the clock of the host that opened it last."""
    sights: Mapping[str, Sight] = {}
    told: Mapping[str, Told] = {}
    claims: Mapping[str, Claim] = {}
    token: int = 0
    acked: Hand = Hand(0.0)
    closed: Hand = Hand(0.0)

    @classmethod
    def read(cls, text: str) -> Self:
        """Take the fields that we know. Raises ValueError."""
        return reading.read(text, "page", cls._of)

    @classmethod
    def _of(cls, found: Mapping[str, Any]) -> Self:
        known: dict[str, Any] = {name: _parts(kind, found.get(name, {})) for name, kind in _PARTS.items()}
        known |= {name: _known(Hand, found[name]) for name in _HANDS if name in found}
        known |= {name: read(found[name]) for name, read in _PLAIN.items() if name in found}
        return cls(**known)

    def text(self) -> str:
        parts = {name: {key: each._asdict() for key, each in getattr(self, name).items()} for name in _PARTS}
        hands = {name: getattr(self, name)._asdict() for name in _HANDS}
        return json.dumps(self._asdict() | parts | hands, separators=(",", ":"), sort_keys=True)

    def by_clock(self, at: float) -> Self:
        """Take what lies far ahead of `at` as of now: the store's clock was ahead when it was written, and nobody need wait for it again.

        What is hardly ahead a host has written that only guessed the store's time.
        """
        times = [each.at for parts in (self.sights, self.told) for each in parts.values()]
        latest = max(*times, self.acked.at, self.closed.at)

        def taken(time: float) -> float:  # in the order in which it came: an acknowledgement stays behind what it is of
            return time if time <= at + CLAIM else at - max(0.0, latest - time) * _AS_THEY_CAME

        return self._replace(
            sights={
                host: each._replace(at=taken(each.at), since=taken(each.since)) for host, each in self.sights.items()
            },
            told={
                name: each._replace(at=taken(each.at), messages=tuple(map(taken, each.messages)))
                for name, each in self.told.items()
            },
            claims={name: each for name, each in self.claims.items() if each.until <= at + 2 * CLAIM},
            acked=self.acked._replace(at=taken(self.acked.at)),
            closed=self.closed._replace(at=taken(self.closed.at)),
        )

    def without_ahead(self, other: Self, at: float) -> Self:
        """Give it without what it has from a clock that was ahead of `at`, where `other` has what was said since."""
        since = {name for name, each in other.told.items() if each.at <= at}
        told = {name: each for name, each in self.told.items() if name not in since or each.at <= at + CLAIM}
        return self._replace(told=told)

    def seen(self, *, at: float) -> dict[str, Sight]:
        """By host, who sees it."""
        return {host: each for host, each in self.sights.items() if each.severity and at - each.at < SEEN_FOR}

    def others_since(self, me: str, *, at: float) -> float | None:
        """Tell since when another host could say what there is to say; None where there is none.

        While somebody sees it those that do can; its end all that have seen it and not fallen silent.
        """
        seen = self.seen(at=at)
        if seen:
            return min((each.since for host, each in seen.items() if host != me), default=None)
        over = [each.at for host, each in self.sights.items() if host != me and not each.severity]
        return max(each.at for each in self.sights.values()) if over else None

    def open_for(self, channel: str) -> bool:
        """Whether people believe, by a channel, that it goes on."""
        return bool(self.told.get(channel, Told(0.0)).severity)

    @property
    def is_acked(self) -> bool:
        over = max((each.at for each in self.told.values() if not each.severity), default=0.0)
        return self.acked.at > over

    def hosts(self, *, at: float) -> tuple[str, ...]:
        """Lines about who sees it, for people; those first that do."""
        lines = []
        for host, each in sorted(self.sights.items(), key=lambda item: (not item[1].severity, item[0])):
            number = f", incident {each.number} there" if each.number else ""
            if not each.severity:
                lines.append(f"{host}: over{number}")
            elif at - each.at < SEEN_FOR:
                lines.append(f"{host}: {each.severity}{number}")
            else:
                lines.append(f"{host}: {each.severity}, not heard of for {span(at - each.at)}{number}")
        return tuple(lines)


def of_fleet(incident: Incident) -> bool:
    """Whether other hosts may see the same; else it is about one host, which its dedup key names."""
    return not any(member.key == incident.dedup_key and member.kind in OWN_KINDS for member in incident.members)


def merged(one: Page, other: Page) -> Page:
    """Bring two copies together; who speaks is as `one` says."""
    newer = max(one, other, key=lambda page: (page.opened_at, page.title))
    return one._replace(
        title=newer.title,
        category=newer.category,
        opened_at=newer.opened_at,
        sights=_later(one.sights, other.sights),
        told={name: _both(one.told.get(name), other.told.get(name)) for name in {**one.told, **other.told}},
        token=max(one.token, other.token),
        acked=max(one.acked, other.acked),
        closed=max(one.closed, other.closed),
    )


def _later(one: Mapping[str, Sight], other: Mapping[str, Sight]) -> dict[str, Sight]:
    return {host: max(each[host] for each in (one, other) if host in each) for host in {**one, **other}}


def _both(one: Told | None, other: Told | None) -> Told:
    if one is None or other is None:
        found = one or other
        assert found is not None  # of one of the two
        return found
    later, earlier = max(one, other), min(one, other)
    return later._replace(thread=later.thread or earlier.thread)


def look(page: Page, me: str, mine: Mine | None, *, at: float) -> Page:
    """Say what this host sees."""
    was = page.sights.get(me)
    if mine is None:
        if was is None or not was.severity:
            return page
        new = was._replace(at=at, severity="")
    elif was is not None and at - was.at < RENEWED and (was.severity, was.number) == (mine.severity, mine.number):
        return page
    else:
        since = was.since if was is not None and was.severity else at
        new = Sight(at, str(mine.severity), since, mine.number)
    kept = {host: each for host, each in page.sights.items() if at - each.at < DAY}
    return page._replace(sights={**kept, me: new})


def attend(
    page: Page,
    me: str,
    mine: Mine | None,
    ways: Sequence[Way],
    holding: Mapping[str, int],
    *,
    at: float,
    may_speak: bool,
) -> tuple[Page, list[Turn]]:
    """Say what this host sees, and take on what it is to say. `holding`: by channel, the token of what it is saying."""
    page = look(page, me, mine, at=at)
    turns: list[Turn] = []
    for way in ways:
        claim = page.claims.get(way.name)
        if claim is not None and (claim.host == me or at >= claim.until):
            held = holding.get(way.name) == claim.token and claim.host == me
            if held and at < claim.until:
                if claim.until - at < CLAIM / 2:
                    page = _claimed(page, way.name, claim._replace(until=at + CLAIM))
                continue
            page = page._replace(claims={name: each for name, each in page.claims.items() if name != way.name})
            claim = None
        if claim is not None or way.name in holding or not may_speak or not way.able:
            continue
        kind = due(page, way, mine, at=at)
        if kind is not None:
            token = page.token + 1
            page = _claimed(page, way.name, Claim(me, token, at + CLAIM))._replace(token=token)
            turns.append(Turn(way.name, kind, token))
    return page, turns


def _claimed(page: Page, channel: str, claim: Claim) -> Page:
    return page._replace(claims={**page.claims, channel: claim})


def due(page: Page, way: Way, mine: Mine | None, *, at: float) -> NoteKind | None:
    """Give what people ought to be told over a channel and were not, if this host can."""
    told, seen = page.told.get(way.name), page.seen(at=at)
    known = told is not None and bool(told.severity)
    if not seen:
        by_hand = told is not None and page.closed.at > told.at
        return NoteKind.RESOLVED if told is not None and known and (told.left(at=at) >= 1 or by_hand) else None
    if mine is None or str(mine.severity) not in way.severities:
        return None
    if told is None or not known:
        today = told is not None and told.left(at=at) < MESSAGES_A_DAY
        return NoteKind.REOPENED if today else NoteKind.OPENED
    return next((kind for kind, wanted in _more(page, told, mine, seen, at=at) if wanted and kind in way.kinds), None)


def _more(
    page: Page, told: Told, mine: Mine, seen: Mapping[str, Sight], *, at: float
) -> Iterable[tuple[NoteKind, bool]]:
    """What there may be to say of what people know to go on. One message is kept for the end."""
    left, ago = told.left(at=at), at - told.at
    grown = worse(mine.severity, Severity(told.severity))
    yield NoteKind.WORSE, grown and left >= (1 if mine.severity is Severity.CRITICAL else 2)
    yield NoteKind.ACKED, page.is_acked and not told.acked
    yield NoteKind.WIDER, left >= 2 and ago >= SETTLE and (len(seen) > told.hosts or mine.scope > told.scope)
    yield NoteKind.AGAIN, not page.is_acked and ago >= AGAIN


def said(page: Page, channel: str, kind: NoteKind, new: Told) -> Page:
    """Have it known that people were told; `new` without what goes on from before."""
    was, at = page.told.get(channel, Told(0.0)), new.at
    over = kind in {NoteKind.RESOLVED, NoteKind.CLOSED}
    # A host that sees it as less bad may be the one that says that it goes on.
    graver = was.severity and not worse(Severity(new.severity), Severity(was.severity))
    told = new._replace(
        severity="" if over else was.severity if graver else new.severity,
        hosts=0 if over else max(was.hosts, len(page.seen(at=at))),
        scope=0 if over else max(was.scope, new.scope),
        messages=(*(each for each in was.messages if at - each < DAY), *((at,) if kind in MESSAGES else ())),
        acked=not over and (was.acked or kind is NoteKind.ACKED),
        thread=new.thread or was.thread,
    )
    return page._replace(told={**page.told, channel: told})


def _parts(kind: Any, found: Mapping[str, Any]) -> dict[str, Any]:
    return {reading.plain(name): _known(kind, each) for name, each in found.items()}


def _known(kind: Any, found: Mapping[str, Any]) -> Any:
    return kind(**{name: _READS[name](found[name]) for name in kind._fields if name in found})


def _severity(value: object) -> str:
    return str(Severity(reading.text(value))) if value else ""


def _numbers(values: Iterable[object]) -> tuple[float, ...]:
    return tuple(map(reading.number, values))


_READS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "severity": _severity,
    "messages": _numbers,
    "acked": reading.flag,
    **dict.fromkeys(("at", "since", "until"), reading.number),
    **dict.fromkeys(("number", "hosts", "scope", "token"), reading.whole),
    **dict.fromkeys(("host", "thread", "by", "who"), reading.plain),
}
_HANDS: Final = ("acked", "closed")
_PARTS: Final[Mapping[str, Any]] = {"sights": Sight, "told": Told, "claims": Claim}
_PLAIN: Final[Mapping[str, Any]] = {
    "title": reading.plain,
    "category": reading.plain,
    "opened_at": reading.number,
    "token": reading.whole,
}
