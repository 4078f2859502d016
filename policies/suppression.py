"""Who is to get no more mail, by what their providers answered: a dead mailbox at once, but on probation.

Knows the rules and counts; a list and its store are somebody else's (`Book`). An address stands here only as `who`, a
keyed digest, beside the text that is written down once.
"""

import re
from collections import Counter, OrderedDict
from collections.abc import Callable
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from policies.verdict import Bounce, Scope, Verdict

DAY: Final = 86_400.0
GLOBAL: Final = "global"


class Reason(StrEnum):
    """Why somebody gets no mail. The order of the words means nothing; a word is never reused for something else."""

    HARD_BOUNCE = "hard-bounce"
    DEAD_DOMAIN = "dead-domain"
    MAILBOX_FULL = "mailbox-full"
    SOFT_BOUNCES = "soft-bounces"
    COMPLAINT = "complaint"
    UNSUBSCRIBE = "unsubscribe"
    INACTIVE = "inactive"
    BY_HAND = "by-hand"
    IMPORTED = "imported"


UNDELIVERABLE: Final = frozenset({Reason.HARD_BOUNCE, Reason.DEAD_DOMAIN, Reason.MAILBOX_FULL, Reason.SOFT_BOUNCES})
"""What a delivery disproves: such an entry ends with the first mail that the mailbox takes."""
WISHES: Final = frozenset({Reason.COMPLAINT, Reason.UNSUBSCRIBE, Reason.INACTIVE})
"""What is about mail that somebody did not want; a password that was asked for is none of it."""


def read_list(text: str) -> str:
    """Read the name of a list: `global`, `tenant:LOGIN` (a SASL login) or `domain:EXAMPLE.COM` (of the sender).

    Raises ValueError.
    """
    kind, colon, name = text.partition(":")
    if text == GLOBAL:
        return text
    if colon and name and name.isprintable() and " " not in name and len(name) <= 255:
        if kind == "tenant":
            return text
        if kind == "domain":
            return f"domain:{name.lower().rstrip('.')}"
    raise ValueError(f"list {text[:80]!a}: wanted global, tenant:LOGIN or domain:EXAMPLE.COM")


class Listed(NamedTuple):
    """What a look-up says of an address: one of the lists it is on, and why."""

    list: str
    reason: Reason


class Add(NamedTuple):
    """Put an address on a list; nothing where it is there for that reason already, but a probation that ends."""

    who: bytes
    address: str
    listed: Listed
    evidence: str
    """The log line, or what stands for it: a report, an event, a file."""
    since: float
    by_whom: str
    """The rule, or the person."""
    provider: str = ""
    until: float = 0.0
    """When the entry ends by itself; 0: never."""
    provisional_until: float = 0.0
    """Until then it may be withdrawn; 0: it stands."""


class End(NamedTuple):
    """Take an address off a list; what stood there is kept as history."""

    who: bytes
    listed: Listed
    at: float
    by_whom: str
    why: str


class Confirm(NamedTuple):
    """The probation of an entry is over."""

    who: bytes
    listed: Listed


class Counted(NamedTuple):
    """How often a recipient could not take mail for the time being; `times` 0: it did again, forget it."""

    who: bytes
    reason: Reason
    first: float
    last: float
    times: int


class Heard(NamedTuple):
    """The events of another process have been taken in, up to this one."""

    source: str
    number: int


class Delivered(NamedTuple):
    """Somebody got a mail of this sending domain."""

    who: bytes
    domain: str
    at: float


class Engaged(NamedTuple):
    """Somebody opened one, or clicked in it."""

    who: bytes
    domain: str
    at: float


class Erase(NamedTuple):
    """Take a person out of all that is stored; their place on the lists stays unless `forget` is said."""

    who: bytes
    address: str
    forget: bool
    at: float
    by_whom: str


Change = Add | End | Erase


class Told(NamedTuple):
    """The other hosts of the fleet are to hear of this."""

    change: Change


Move = Add | End | Confirm | Counted | Heard | Delivered | Engaged | Told | Erase


class Book(Protocol):
    """The lists as they are now. Memory only, never a wait."""

    def digest(self, address: str) -> bytes:
        """Make of an address what it is known by."""
        ...

    def listed(self, who: bytes) -> tuple[Listed, ...]:
        """All lists that an address is on."""
        ...

    def apply(self, move: Add | End) -> None:
        """Change what `listed` says, at once; the store follows."""
        ...


class Repeated(NamedTuple):
    """A rule for what may pass: so often, over so long, and no delivery in between."""

    reason: Reason
    details: frozenset[str]
    """Of the verdict."""
    bounce: Bounce
    times: int
    """On different days: of the retries of one message only the first of a day counts."""
    over: float
    """Seconds at least from the first to the last."""
    keeps: float
    """Seconds for which the entry stands; 0: for good."""


class Rules(NamedTuple):
    """When an answer becomes an entry."""

    probation: float = 1_800.0
    """Seconds in which a hard bounce may be withdrawn."""
    outage_recipients: int = 50
    outage_share: float = 0.2
    outage_within: float = 600.0
    """More than `outage_share` of at least so many recipients of a provider that bounce hard within so many seconds
    are its outage: nobody is suppressed, and who is on probation is let off."""
    repeated: tuple[Repeated, ...] = (
        # A domain without DNS may come back on Monday: registrars and name servers have outages, too.
        Repeated(Reason.DEAD_DOMAIN, frozenset({"recipient.bad-domain"}), Bounce.HARD, 3, 2 * DAY, 0.0),
        Repeated(Reason.MAILBOX_FULL, frozenset({"recipient.full"}), Bounce.SOFT, 4, 14 * DAY, 90 * DAY),
        Repeated(
            Reason.SOFT_BOUNCES,
            frozenset({"recipient.unknown", "recipient.inactive", "recipient.moved", "recipient.bad-address"}),
            Bounce.SOFT,
            5,
            7 * DAY,
            30 * DAY,
        ),
    )


class Outcome(NamedTuple):
    """How an attempt to deliver to one recipient ended."""

    who: bytes
    address: str
    """The final one (`to=`), which the provider judged."""
    provider: str
    """"" where none is known."""
    remote: bool
    """A server of that provider said it, and not our own Postfix."""
    verdict: Verdict | None
    """None: delivered."""
    line: str
    domain: str = ""
    """The sending domain."""


class Suppressing:
    """From outcomes to entries. `moves` are to be stored, together with how far the log was read."""

    def __init__(self, rules: Rules, book: Book, *, hashed: bool = False, engagement: bool = False) -> None:
        """`hashed`: no address is written down, only its digest. `engagement`: deliveries are counted as well."""
        self.rules = rules
        self._hashed = hashed
        self._engagement = engagement
        self.moves: list[Move] = []
        self.outages: dict[str, float] = {}
        """Provider -> since when its hard bounces are no verdict on its recipients."""
        self.change_counts: Counter[tuple[str, str]] = Counter()
        """By ("added" or "ended", reason)."""
        self.now = 0.0
        """When the last outcome was, 0 before the first."""
        self.told: Callable[[Change], None] | None = None
        """Called with what is changed here, for the fleet to hear; None: this host shares nothing."""
        self._book = book
        self._windows = Windows(rules.outage_within)
        self._provisional: OrderedDict[bytes, _Probation] = OrderedDict()
        """By end, for all have the same length; those restored come first."""
        self._counts: OrderedDict[tuple[bytes, Reason], Counted] = OrderedDict()

    @property
    def on_probation(self) -> int:
        return len(self._provisional)

    def restore_probation(self, who: bytes, provider: str, until: float) -> None:
        """Take back an entry from the store, in the order of their ends."""
        self._provisional[who] = _Probation(provider, until)

    def restore_count(self, counted: Counted) -> None:
        """Take back a count from the store, oldest first."""
        self._counts[counted.who, counted.reason] = counted

    def attempted(
        self,
        address: str,
        provider: str,
        verdict: Verdict | None,
        line: str,
        *,
        remote: bool,
        domain: str,
        now: float,
    ) -> None:
        """As `heard`, of a delivery line: the fields of an `Outcome`."""
        self.heard(Outcome(self._book.digest(address), address, provider, remote, verdict, line, domain), now=now)

    def heard(self, outcome: Outcome, *, now: float) -> None:
        """Take one outcome. What our own Postfix found counts only where it is about a dead domain."""
        self._let_pass(now)
        verdict = outcome.verdict
        hard = verdict is not None and _is_hard(verdict)
        if outcome.remote and outcome.provider:
            self._windows.attempted(outcome.provider, outcome.who, hard=hard, now=now)
            self._look_for_outage(outcome.provider, now=now)
        if verdict is None:
            if outcome.remote:
                self._delivered(outcome, now=now)
            return
        rule = next((rule for rule in self.rules.repeated if _fits(rule, verdict)), None)
        if rule is not None:
            self._count(rule, outcome, now=now)
        elif hard and outcome.remote and outcome.provider:
            self._hard(outcome, now=now)

    def _let_pass(self, now: float) -> None:
        """Let time pass as the log has it: probations end, and so do outages.

        By no other clock: when an hour of the log is caught up, the outage in it must be seen before what it put on
        probation stands.
        """
        self.now = now
        while self._provisional:
            who, probation = next(iter(self._provisional.items()))
            if probation.until > now:
                break
            del self._provisional[who]
            self.moves.append(Confirm(who, _HARD))
        for provider in list(self.outages):
            self._look_for_outage(provider, now=now)
        self._windows.forget_old(now=now)

    def forget(self, who: bytes) -> None:
        """Nothing is to be known of this person; their entry, if any, stands."""
        self._provisional.pop(who, None)
        for reason in Reason:
            self._counts.pop((who, reason), None)

    def _hard(self, outcome: Outcome, *, now: float) -> None:
        if outcome.provider in self.outages or _HARD in self._book.listed(outcome.who):
            return
        until = now + self.rules.probation
        self._provisional[outcome.who] = _Probation(outcome.provider, until)
        self.add(
            Add(
                outcome.who,
                outcome.address,
                _HARD,
                outcome.line,
                since=now,
                by_whom=outcome.verdict.rule if outcome.verdict else "",
                provider=outcome.provider,
                provisional_until=until,
            )
        )

    def add(self, add: Add) -> bool:
        """Put somebody on a list, by hand or by rule; False: that entry is there already."""
        if not add.provisional_until and add.listed == _HARD:
            self._provisional.pop(add.who, None)
        elif add.listed in self._book.listed(add.who):
            return False
        known = add.listed in self._book.listed(add.who)
        if self._hashed:
            add = add._replace(address="", evidence=without(add.address, add.evidence))
        self._book.apply(add)
        self.moves.append(add)
        self.tell(add)
        self.change_counts["added", add.listed.reason] += not known
        return not known

    def end(self, end: End) -> bool:
        """Take somebody off a list; False: no such entry."""
        if end.listed not in self._book.listed(end.who):
            return False
        if end.listed == _HARD:
            self._provisional.pop(end.who, None)
        self._book.apply(end)
        self.moves.append(end)
        self.tell(end)
        self.change_counts["ended", end.listed.reason] += 1
        return True

    def tell(self, change: Change) -> None:
        """Have the fleet hear of what was done here, where there is one."""
        if self.told is not None:
            self.moves.append(Told(change))
            self.told(change)

    def follow(self, change: Add | End) -> bool:
        """Do what is done on all hosts, as `add` and `end`, and tell none of them; whether it changed anything."""
        told, self.told = self.told, None
        try:
            return self._follow(change)
        finally:
            self.told = told

    def _follow(self, change: Add | End) -> bool:
        if isinstance(change, End):
            name = change.listed.list.removeprefix("domain:")
            if change.listed.reason is Reason.INACTIVE and change.why == _ENGAGED:  # or we would find them silent again
                self.moves.append(Engaged(change.who, name, change.at))
            return self.end(change)
        if change.provisional_until:
            if change.listed in self._book.listed(change.who):
                return False
            self._provisional[change.who] = _Probation(change.provider, change.provisional_until)
        return self.add(change)

    def engaged(self, engaged: Engaged) -> None:
        """An opened mail, or a click, ends what was said about silence."""
        self.moves.append(engaged)
        listed = Listed(f"domain:{engaged.domain}", Reason.INACTIVE)
        self.end(End(engaged.who, listed, engaged.at, "engagement", _ENGAGED))

    def _count(self, rule: Repeated, outcome: Outcome, *, now: float) -> None:
        key = outcome.who, rule.reason
        before = self._counts.get(key)
        if before is not None and now - before.last < _APART:
            return
        if before is None or now - before.last > _FORGOTTEN * max(rule.over, DAY):
            counted = Counted(*key, now, now, 1)
        else:
            counted = before._replace(last=now, times=before.times + 1)
        if counted.times < rule.times or counted.last - counted.first < rule.over:
            self._keep(counted)
            return
        self._forget_count(key)
        by = f"{counted.times} times in {(counted.last - counted.first) / DAY:.0f} days"
        until = now + rule.keeps if rule.keeps else 0.0
        listed = Listed(GLOBAL, rule.reason)
        self.add(Add(outcome.who, outcome.address, listed, outcome.line, now, by, outcome.provider, until))

    def _keep(self, counted: Counted) -> None:
        self._counts.pop((counted.who, counted.reason), None)
        while len(self._counts) >= MOST_COUNTED:
            self._forget_count(next(iter(self._counts)))
        self._counts[counted.who, counted.reason] = counted
        self.moves.append(counted)

    def _forget_count(self, key: tuple[bytes, Reason]) -> None:
        counted = self._counts.pop(key, None)
        if counted is not None:
            self.moves.append(counted._replace(times=0))

    def _delivered(self, outcome: Outcome, *, now: float) -> None:
        """The mailbox takes mail: whatever said that it does not is over."""
        if self._engagement and outcome.domain:
            self.moves.append(Delivered(outcome.who, outcome.domain, now))
        if self._counts:
            for reason in _COUNTED:
                self._forget_count((outcome.who, reason))
        for listed in self._book.listed(outcome.who):
            if listed.list == GLOBAL and listed.reason in UNDELIVERABLE:
                self.end(End(outcome.who, listed, now, "engine", f"delivered since: {outcome.line}"))

    def _look_for_outage(self, provider: str, *, now: float) -> None:
        counted = self._windows.lately(provider, now=now)
        rules = self.rules
        if counted.recipients < rules.outage_recipients or counted.hard <= rules.outage_share * counted.recipients:
            self.outages.pop(provider, None)
            return
        self.outages.setdefault(provider, now)
        why = (
            f"outage, not a list: {counted.hard} of {counted.recipients} recipients of {provider} "
            f"bounced hard within {rules.outage_within / 60:.0f} minutes"
        )
        for who in [who for who, probation in self._provisional.items() if probation.provider == provider]:
            self.end(End(who, _HARD, now, "engine", why))


_ENGAGED: Final = "opened or clicked"


class _Probation(NamedTuple):
    provider: str
    until: float


class Lately(NamedTuple):
    """Recipients of one provider in the last minutes."""

    recipients: int
    hard: int


class Windows:
    """The recipients of each provider that were tried lately, each once, and which of them bounced hard."""

    def __init__(self, within: float) -> None:
        self._within = within
        self._windows: OrderedDict[str, _Window] = OrderedDict()
        self._looked = 0.0

    def attempted(self, provider: str, who: bytes, *, hard: bool, now: float) -> None:
        """One attempt. A recipient that bounced hard has done so until it is forgotten, whatever follows."""
        window = self._windows.get(provider)
        if window is None:
            window = self._windows[provider] = _Window()
            if len(self._windows) > _MOST_PROVIDERS:
                self._windows.popitem(last=False)
        self._windows.move_to_end(provider)
        window.add(who, hard=hard, now=now)

    def forget_old(self, *, now: float) -> None:
        """Bound the memory, now and then: providers that nothing was sent to for long."""
        if 0 <= now - self._looked < self._within:
            return
        self._looked = now
        for provider in list(self._windows):
            if not self.lately(provider, now=now).recipients:
                del self._windows[provider]

    def lately(self, provider: str, *, now: float) -> Lately:
        window = self._windows.get(provider)
        if window is None:
            return Lately(0, 0)
        window.expire(before=now - self._within)
        return Lately(len(window.seen), window.hard)


class _Window:
    __slots__ = ("hard", "seen")

    def __init__(self) -> None:
        self.seen: OrderedDict[bytes, tuple[float, bool]] = OrderedDict()
        """When last, and whether it bounced hard; the one tried longest ago first."""
        self.hard = 0

    def add(self, who: bytes, *, hard: bool, now: float) -> None:
        before = self.seen.pop(who, None)
        if before is not None:
            self.hard -= before[1]
            hard = hard or before[1]
        elif len(self.seen) >= _MOST_SEEN:
            self._drop()
        self.seen[who] = (now, hard)
        self.hard += hard

    def expire(self, *, before: float) -> None:
        while self.seen and next(iter(self.seen.values()))[0] < before:
            self._drop()

    def _drop(self) -> None:
        _, (_, hard) = self.seen.popitem(last=False)
        self.hard -= hard


def _is_hard(verdict: Verdict) -> bool:
    """A word on this one mailbox, for good; a `block` and whatever is not about the recipient never is."""
    return verdict.bounce is Bounce.HARD and verdict.scope is Scope.RECIPIENT


def _fits(rule: Repeated, verdict: Verdict) -> bool:
    return verdict.detail in rule.details and verdict.bounce is rule.bounce and verdict.scope is Scope.RECIPIENT


_HARD: Final = Listed(GLOBAL, Reason.HARD_BOUNCE)
_COUNTED: Final = (Reason.DEAD_DOMAIN, Reason.MAILBOX_FULL, Reason.SOFT_BOUNCES)
_APART: Final = 20 * 3_600.0
"""Seconds between two that count: a message that is tried again for five days is one bounce a day."""
_FORGOTTEN: Final = 3
"""A count that did not grow for so many times the rule's length begins anew."""
MOST_COUNTED: Final = 100_000
"""Recipients counted at a time, some 40 MB; the one quiet for longest is forgotten first."""
_MOST_SEEN: Final = 2_000
"""Recipients of a provider that are looked at: in a larger stream the last so many, which tell it sooner."""
_MOST_PROVIDERS: Final = 500


def without(address: str, text: str) -> str:
    """Write a text without that address, however its letters are written."""
    return re.sub(re.escape(address), "[address]", text, flags=re.IGNORECASE) if address else text
