"""Where routed mail really goes now: pools, less the members that are out; isolated domains, canaries, daily budgets.

Joins policies/pools.py, warm_up.py, canary.py and reacting.py: each says why a transport does not take a message, and
what becomes of mail is told back to them. Saying where a message would go changes nothing; what was answered counts.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from parsers.expression import Comparison, Expression, FieldType, Operator
from policies import canary as canaries
from policies.canary import Arm, Canary, Phase, Trial
from policies.commands import Attempt
from policies.figures import Kind
from policies.key import Key
from policies.pools import PassedOver, Pool, Sticky, choose
from policies.reacting import Do, Event, Reaction, Reactions, Subject, Told, What
from policies.routing import CompiledRoute, Mail, Route
from policies.signs import Sign
from policies.stored_address import hash_of
from policies.warm_up import Outcome, Spent, WarmUps

MOST_IN_TRIAL: Final = 50_000
"""Messages of a canary and its control that are known until they are delivered; of more the oldest are not counted."""
_GREYLISTED: Final = "throttling.greylist"
_LOOK_EVERY: Final = 10.0
_LEFT: Final = "mail leaves it"
_LAST: Final = 0.999_999
"""Luck of mail that comes back last."""


class Steered(NamedTuple):
    route: Route
    transport: str
    """"" where it goes as ever."""
    why: str


@dataclass(slots=True)
class _Draft:
    """What is to be counted if the answer about a message is given."""

    queue_id: str
    arm: tuple[str, Arm] | None = None
    """In which arm of which canary it is."""
    spent: dict[str, Spent] = field(default_factory=dict)
    """Transports whose figure it was too much for."""


_NO_DRAFT: Final = _Draft("")
"""Of no message; nothing is ever written on it."""


class Away(NamedTuple):
    """Queued mail of an address that has left its pools, or that may go over it again."""

    transport: str
    pool: str
    """Which other members it is led to."""
    provider: str
    """"*": all of it."""
    rule: str
    over: bool
    """It may go over the address again: what is not led away yet stays."""


class InArm(NamedTuple):
    """A message of a canary that was delivered."""

    canary: str
    queue_id: str
    recipient: str
    """SHA-256 of the address, "" where the site keeps none."""
    sender_domain: str
    arm: Arm
    at: float
    complained: bool = False


class Tell(Protocol):
    """`Telling.tell`, as far as it is needed here."""

    def __call__(self, kind: str, why: str, *, now: float, line: str = "", rule: str = "", by_whom: str) -> None: ...


class Settings(NamedTuple):
    """What the configuration says, checked."""

    pools: Mapping[str, Pool] = {}
    canaries: tuple[tuple[Canary, CompiledRoute], ...] = ()
    """In order; the route's transport is the canary's."""
    transports: Mapping[str, tuple[str, ...]] = {}
    """Address -> transports whose mail leaves from it."""


class Steering:
    def __init__(
        self,
        settings: Settings,
        warm_ups: WarmUps,
        reactions: Reactions,
        *,
        tell: Tell,
    ) -> None:
        self.warm_ups = warm_ups
        self.reactions = reactions
        self._tell = tell
        self._trials: dict[str, Trial] = {}
        self.changed_trials: dict[str, Trial | None] = {}
        """To store since the last look; None for those whose canary is gone."""
        self.delivered: list[InArm] = []
        """To store since the last look: complaints are matched with them; and those complained of."""
        self.away: list[Away] = []
        """To be requeued, or no more, since the last look."""
        self.restarted: list[str] = []
        """Canaries that began anew, or are gone: what was delivered of them is to be forgotten."""
        self._draft = _NO_DRAFT
        """Of the message that was steered last."""
        self._arms: dict[tuple[str, str], tuple[str, Arm]] = {}
        """(instance, queue id) -> canary and arm."""
        self._looked = 0.0
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Take other settings; what is known of transports, trials and signs stays."""
        self._pools = settings.pools
        self._canaries = settings.canaries
        self._transports = settings.transports
        wanted = {canary.name for canary, _ in settings.canaries}
        for name in [name for name in self._trials if name not in wanted]:
            del self._trials[name]
            self.changed_trials[name] = None
            self.restarted.append(name)
        for name in wanted:
            self._trials.setdefault(name, Trial(name))

    def __bool__(self) -> bool:
        """Whether it may steer anything that no route names."""
        return bool(self._canaries) or self.reactions.isolates

    # Mail.

    def steer(
        self, route: Route | None, mail: Mail, counts: Mapping[str, int], queue_id: str, *, now: float
    ) -> Steered | None:
        """Say where a message goes for which a route was found, or none; None where it goes as ever.

        `counts`: recipients of the whole message by provider, "" for those that are not known: whatever takes it must
        take it for all of them.
        """
        if queue_id != self._draft.queue_id or self._draft is _NO_DRAFT:
            self._draft = _Draft(queue_id)
        route = self._isolated(mail) or self._canary(mail, queue_id) or route
        if route is None:
            return None
        if not route.pool:
            why = self._spent(route.transport, counts, now=now)
            return Steered(route, "", f"{route.transport}: {why}") if why else Steered(route, route.transport, "")
        pool = self._pools[route.pool]
        key = queue_id or f"{mail.sender} {mail.recipient}"
        if pool.sticky is Sticky.SENDING_DOMAIN:
            key = mail.sending_domain or key
        found = choose(pool, key, lambda transport, luck: self._refuses(transport, luck, counts, now=now))
        if not found.passed:
            return Steered(route, found.transport, "")
        return Steered(route, found.transport, _passed(route.pool, found.passed))

    def over(self, pool: str, key: tuple[str, str], provider: str, *, instead_of: str, now: float) -> str:
        """Say over which member of a pool one recipient of requeued mail goes, "" for none; it counts as sent.

        `key`: queue id and sending domain.
        """
        found = self._pools.get(pool)
        if found is None:
            return ""
        self._draft, counts = _Draft(""), {provider: 1}
        sticky = key[1] if found.sticky is Sticky.SENDING_DOMAIN else ""

        def refuses(transport: str, luck: float) -> str:
            return _LEFT if transport == instead_of else self._refuses(transport, luck, counts, now=now)

        transport = choose(found, sticky or key[0], refuses).transport
        if transport:
            self.warm_ups.promise(transport, counts, now=now)
        return "" if transport == instead_of else transport

    def answered(self, transport: str, counts: Mapping[str, int], place: tuple[str, str], *, now: float) -> None:
        """Count a message that Postfix was told to send over a transport ("": as ever); `place`: (instance, queue id)."""
        if transport:
            self.warm_ups.promise(transport, counts, now=now)
        draft, self._draft = self._draft, _NO_DRAFT
        if draft.queue_id != place[1]:
            return
        for full, spent in draft.spent.items():
            self.warm_ups.turned_away(full, spent, sum(counts.values()))
        if draft.arm is None or (draft.arm[1] is Arm.CANARY and not transport):
            return  # a canary whose message could not go its way is in neither arm
        while len(self._arms) >= MOST_IN_TRIAL:
            del self._arms[next(iter(self._arms))]
        self._arms[place] = draft.arm

    def _isolated(self, mail: Mail) -> Route | None:
        if not mail.sending_domain:
            return None
        to, name = self.reactions.isolated(mail.sending_domain, mail.provider or "")
        return Route(f"react-{name}", to, _sent_by(mail.sending_domain)) if to else None

    def _canary(self, mail: Mail, queue_id: str) -> Route | None:
        """The first canary whose condition holds has the message, in one of its arms."""
        for canary, (route, holds) in self._canaries:
            if holds(mail):
                trial = self._trials[canary.name]
                mine = canaries.chosen(canary, trial, queue_id) if queue_id else trial.phase is Phase.PROMOTED
                if queue_id and trial.phase is Phase.RUNNING:
                    self._draft.arm = canary.name, Arm.CANARY if mine else Arm.CONTROL
                return route if mine else None
        return None

    def _refuses(self, transport: str, luck: float, counts: Mapping[str, int], *, now: float) -> str:
        for provider in counts:
            why = self.reactions.refuses(transport, provider, luck, now=now)
            if why:
                return why
        return self._spent(transport, counts, now=now)

    def _spent(self, transport: str, counts: Mapping[str, int], *, now: float) -> str:
        spent = self.warm_ups.refuses(transport, counts, now=now)
        if spent is None:
            return ""
        self._draft.spent[transport] = spent
        return spent.why

    # What becomes of it.

    def attempted(self, attempt: Attempt, *, now: float) -> None:
        """Hear of an attempt as it was judged."""
        if attempt.passed_on:
            return
        mine = self._arms.get((attempt.instance, attempt.queue_id)) if self._arms else None
        if mine is not None and mine[0] in self._trials:
            name, arm = mine
            self._trials[name].count(arm, **canaries.outcome(attempt.status, attempt.bounce))
            self.changed_trials[name] = self._trials[name]
            if attempt.status == "sent":
                who = hash_of(attempt.recipient) if "@" in attempt.recipient else attempt.recipient
                self.delivered.append(InArm(name, attempt.queue_id, who, attempt.sender_domain, arm, now))
        if not attempt.provider:
            return
        against_us = attempt.scope == "ip"
        outcome = Outcome(
            accepted=attempt.status == "sent",
            deferred=attempt.status == "deferred" and attempt.detail != _GREYLISTED,
            final=attempt.status in {"sent", "bounced", "expired"},
            against_us=against_us,
        )
        said = self.warm_ups.attempted(attempt.service, attempt.provider, outcome, now=now)
        if said:
            self._tell("warm-up", said, line=attempt.reply, rule=attempt.rule, by_whom="warm-up", now=now)
        if against_us:
            self._told(self.reactions.blocked(attempt.service, attempt.provider, attempt.reply, now=now), now=now)

    def complained(self, about: InArm) -> None:
        """Hear that somebody complained of a message of a canary; once a message and recipient."""
        trial = self._trials.get(about.canary)
        if trial is not None:
            trial.count(about.arm, complaints=1)
            self.changed_trials[trial.name] = trial
            self.delivered.append(about._replace(complained=True))

    def has_other(self, transport: str, provider: str, now: float) -> bool:
        """Whether mail goes over another member of a pool when a provider refuses the address of this one.

        A rule must say that it leaves then, and one that is beside it must be wholly in there.
        """
        return self.reactions.leaves(transport, provider) and any(
            member.transport != transport and not self.reactions.refuses(member.transport, provider, _LAST, now=now)
            for pool in self._pools.values()
            if any(member.transport == transport for member in pool.members)
            for member in pool.members
        )

    # Signs, and time.

    def signs(self, signs: Iterable[Sign], *, now: float) -> None:
        """Hear of all signs that others see now.

        An address stands for the transports whose mail leaves from it; what is listed does not grow either.
        """
        told: list[Told] = []
        for signal, kind, object_, provider, evidence in signs:
            if kind is Kind.DOMAIN:
                told.append(Told(signal, Subject.DOMAIN, object_, provider, evidence))
                continue
            for transport in self._transports.get(object_, ()):
                told.append(Told(signal, Subject.TRANSPORT, transport, provider, evidence))
                self.warm_ups.signal(transport, provider, f"{signal}: {evidence}", now=now)
        self._told(self.reactions.told(told, now=now), now=now)

    def look(self, *, now: float) -> None:
        """End what is over by the clock, begin days, judge canaries. Costs nothing more often than every ten seconds."""
        if 0.0 <= now - self._looked < _LOOK_EVERY:
            return
        self._looked = now
        self.warm_ups.look(now=now)
        self._told(self.reactions.look(now=now), now=now)
        for canary, _ in self._canaries:
            trial = self._trials[canary.name]
            found = canaries.judged(canary, trial)
            if found.phase is not trial.phase:
                self._decide(trial, found.phase, found.why, by_whom=canaries.BY_ITSELF, now=now)

    # By hand.

    def decide(self, name: str, phase: Phase, *, by_whom: str, now: float) -> Trial:
        """Promote, stop or begin a canary anew by hand. Raises KeyError for one that the configuration has not."""
        trial = self._trials[name]
        if phase is Phase.RUNNING:
            trial = self._trials[name] = Trial(name)
            self.restarted.append(name)
            self.delivered = [each for each in self.delivered if each.canary != name]
            self._arms = {place: mine for place, mine in self._arms.items() if mine[0] != name}
        self._decide(trial, phase, "by hand", by_whom=by_whom, now=now)
        return trial

    def undo(self, object_: str, provider: str = "", *, by_whom: str, now: float) -> Sequence[Event]:
        """Take back what is done about a transport or a domain; an address stands for its transports."""
        events = [
            event
            for each in self._transports.get(object_, (object_,))
            for event in self.reactions.undo(each, provider, by_whom=by_whom, now=now)
        ]
        self._told(events, now=now)
        return events

    def let_go(self, key: Key, *, by_whom: str, now: float) -> None:
        """Pause a domain's mail no more, where somebody closed or released its sub-queue by hand."""
        if key.type == "sender-domain":
            self._told(self.reactions.undo(key.value, key.provider, do=Do.PAUSE, by_whom=by_whom, now=now), now=now)

    def pause(self, transport: str, *, by_whom: str, now: float) -> None:
        """Raises KeyError where nothing of this name warms up."""
        self.warm_ups.pause(transport, by_whom=by_whom)
        self._tell("warm-up", f"{transport} is paused", by_whom=by_whom, now=now)

    def resume(self, transport: str, *, by_whom: str, now: float) -> bool:
        """Whether it was paused. Raises KeyError as `pause`."""
        paused = self.warm_ups.resume(transport)
        if paused:
            self._tell("warm-up", f"{transport} goes on", by_whom=by_whom, now=now)
        return paused

    # What there is to show, and to store.

    @property
    def canaries(self) -> tuple[tuple[Canary, Trial], ...]:
        return tuple((canary, self._trials[canary.name]) for canary, _ in self._canaries)

    @property
    def pools(self) -> Mapping[str, Pool]:
        return self._pools

    def restore_trial(self, trial: Trial) -> None:
        if trial.name in self._trials:
            self._trials[trial.name] = trial
        else:
            self.changed_trials[trial.name] = None

    def out(self, transport: str, *, now: float) -> list[str]:
        """Say in words for whom a transport is out, or on its way back."""
        return [
            f"{reaction.provider}: {self.reactions.share(reaction, now=now):.0%} ({reaction.rule}: {reaction.evidence})"
            for reaction in self.reactions.known()
            if reaction.object == transport and not reaction.undone_by and self.reactions.share(reaction, now=now) < 1.0
        ]

    def _led_away(self, what: What, reaction: Reaction) -> Iterator[Away]:
        """Say what becomes of the mail that is queued for an address, where its rule cares for that."""
        rule = next((rule for rule in self.reactions.rules if rule.name == reaction.rule), None)
        if rule is None or not rule.requeue or (what is not What.BEGAN and what not in _ENDS):
            return
        for pool in self._pools.values():
            members = [member.transport for member in pool.members]
            if reaction.object in members and len(members) > 1:
                yield Away(reaction.object, pool.name, reaction.provider, rule.name, what in _ENDS)
                return

    def _decide(self, trial: Trial, phase: Phase, why: str, *, by_whom: str, now: float) -> None:
        trial.phase, trial.why, trial.by_whom, trial.since = phase, why, by_whom, now
        self.changed_trials[trial.name] = trial
        self._tell("canary", f"{trial.name} is {phase}: {why}", by_whom=by_whom, now=now)

    def _told(self, events: Iterable[Event], *, now: float) -> None:
        for what, reaction, why, by_whom in events:
            about = f"{reaction.object} at {reaction.provider}"
            said: dict[str, Any] = {"line": reaction.evidence, "rule": f"react/{reaction.rule}", "by_whom": by_whom}
            self._tell(what, f"{about}: {why}", now=now, **said)
            self.away += self._led_away(what, reaction)


_ENDS: Final = frozenset({What.UNDONE, What.RETURNS, What.OVER})


def _passed(pool: str, passed: Sequence[PassedOver]) -> str:
    return f"pool {pool} without " + "; ".join(f"{each.transport}: {each.why}" for each in passed)


def _sent_by(domain: str) -> Expression:
    return Comparison("sending_domain", FieldType.TEXT, Operator.EQUAL, domain)
