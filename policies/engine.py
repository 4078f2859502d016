"""The sub-queue engine: facts and a time in, commands to the queue and changes to tell out.

It decides whose mail waits and whose goes (design, section 3). It knows no socket, file or clock;
replaying the same log at the same times gives the same states. The parts have one duty each; this one
reads the facts and joins them.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from sys import intern
from typing import Final
from zlib import crc32

from parsers.address import domain_of
from parsers.postfix import facts
from policies import listing as listings
from policies.access import Arrival, Parked, Slowed, held_key
from policies.books import Books
from policies.classify import RuleSet
from policies.commands import Adopt, Command, Hold, Removed
from policies.entries import Entries
from policies.fail_fast import LEASE
from policies.header import from_domain, signature_domain
from policies.key import Key
from policies.listing import Listing
from policies.messages import ENTERED, Message, Messages, Place, Recipient
from policies.orders import Orders
from policies.outcomes import Outcomes
from policies.parked import OpenSubQueue
from policies.recipients import RecipientProviders
from policies.redirects import Redirects
from policies.releasing import TICK, Releasing
from policies.repairs import Repairs
from policies.rule import Strategy
from policies.senders import SenderHabits
from policies.sent_as import SentMail, list_headers
from policies.site import Settings
from policies.stream import stream
from policies.subqueue import State
from policies.subqueues import SubQueues, Unsigned
from policies.suppression import Suppressing
from policies.taking import Taking
from policies.telling import Telling

IDLE: Final = 60.0
"""Seconds until `step` should be called again where nothing waits."""


class Engine:
    def __init__(
        self,
        rules: RuleSet,
        organizational: Callable[[str], str],
        settings: Settings,
        suppressing: Suppressing | None = None,
    ) -> None:
        self.settings = settings
        self.suppressing = suppressing
        """None: nobody is suppressed by what the log says."""
        self.behind = False
        """Whether the log is being caught up: until then nothing is released (rule 1 needs its lines)."""
        self.telling = Telling()
        self.messages = Messages()
        self.recipients = RecipientProviders(rules.providers)
        self.habits = SenderHabits()
        self.sent_mail = SentMail()
        self.redirects = Redirects()
        self.subqueues = SubQueues(
            rules,
            organizational,
            self.recipients,
            self.habits,
            self.telling,
            scale=settings.scale,
            strategies=settings.strategies,
        )
        self.books = Books(self.messages, self.subqueues, self.telling)
        self._entries = Entries(self.messages, self.telling, settings)
        self._taking = Taking(self.messages, self.subqueues, self.books, settings)
        self._releasing = Releasing(self.messages, self.subqueues, self.books, self.telling, settings)
        self._outcomes = Outcomes(
            rules,
            subqueues=self.subqueues,
            recipients=self.recipients,
            habits=self.habits,
            telling=self.telling,
            settings=settings,
            suppressing=suppressing,
        )
        self.orders = Orders(
            self.subqueues,
            self.books,
            self._taking,
            self.telling,
            self._outcomes,
            hold_broken=settings.hold_broken,
        )
        self.fail_fast = self.orders.fail_fast
        self.repairs = Repairs(self.orders, self.subqueues, self.recipients, self._outcomes, settings)
        self._storable = True
        self._to_adopt: dict[str, dict[str, str]] = {}
        """By instance: queue id -> key."""
        self._qmgr_pids: dict[str, int] = {}
        self._now = 0.0

    @property
    def parking(self) -> bool:
        """Whether new mail may be held: in act mode, while intent can be stored."""
        return self._taking.allowed

    def allow_parking(self, *, allowed: bool) -> None:
        """Stop or resume holding; what is held leaves as ever."""
        self._storable = allowed
        self._taking.allowed = allowed and self.settings.act

    def take_over(self, rules: RuleSet, settings: Settings) -> None:
        """Go on with other rules and settings, but the `scale` of the old ones.

        Open sub-queues keep the pauses that they were opened with, also where their rule is no more.
        """
        self.settings = settings._replace(scale=self.settings.scale)
        for part in (self._taking, self._releasing, self._outcomes, self._entries, self.repairs):
            part.settings = self.settings
        self.recipients.use(rules.providers)
        self.subqueues.rules = self._outcomes.rules = rules
        self.subqueues.strategies = settings.strategies
        self.allow_parking(allowed=self._storable)

    def ask_for_others(self, has_other: Callable[[str, str, float], bool]) -> None:
        """Have it asked, of a transport, a provider and a time, whether mail goes over another one when that provider
        refuses the address of this: such a refusal pauses nothing then.
        """
        self._outcomes.has_other = has_other

    # What the log says.

    def observe(self, fact: facts.Fact, *, now: float) -> None:
        """Take one fact of the log; `now` is when its line was written, as well as that is known."""
        self._now = now
        match fact:
            case facts.DeliveryAttempt():
                self._attempted(fact, now=now)
            case facts.RemoteReply():
                self._refused_early(fact, now=now)
            case facts.QueueActive():
                self._active(fact, now=now)
            case facts.QueueRemoved():
                self._removed(fact, now=now)
            case facts.ClientIdentified():
                self._entries.submitted(fact, now=now)
            case facts.MessageIdentified():
                self._entries.identified(fact, now=now)
            case facts.PickedUp():
                self._picked_up(fact, now=now)
            case facts.HeaderLogged():
                self._header(fact, now=now)
            case facts.DkimSigned():
                self.habits.signed(fact.domain.lower(), fact.selector.lower(), now=now)
                if message := self._live(fact):
                    message.signs_as(fact.domain.lower())
            case facts.Held():
                self._held(fact, now=now)
            case facts.Released():
                if message := self._live(fact):
                    self.books.released_line(message, now=now)
            case facts.Requeued():
                message = self._live(fact)
                if message is not None and message.place is not Place.RELEASING:  # else the helper's answer settles it
                    self.books.gone(message)
            case facts.Rejected():
                self._rejected(fact)
            case facts.Diagnostic():
                self._diagnostic(fact)
            case facts.TlsEstablished():
                self.repairs.encrypted(fact, now=now)
            case facts.MessageExpired():
                self._expired(fact, now=now)
            case facts.ProcessEvent():
                self._process_event(fact, now=now)

    def _expired(self, fact: facts.MessageExpired, *, now: float) -> None:
        """The queue manager's own line: recipients without a final outcome are returned to the sender."""
        message = self.messages.get(fact.record.instance, fact.queue_id)
        if message is not None and fact.record.daemon != "postsuper":  # that one only asks for it
            self._outcomes.expired(fact, message, now=now)

    def _process_event(self, fact: facts.ProcessEvent, *, now: float) -> None:
        """Take the lines of master(8) alone: postfix-script announces the same."""
        if fact.record.daemon == "master" and fact.text.startswith(_RESTARTS):
            self.telling.tell("postfix", fact.text, now=now, line=fact.record.text)

    def _picked_up(self, fact: facts.PickedUp, *, now: float) -> None:
        message = self.messages.obtain(fact.record.instance, fact.queue_id, now=now)
        self.messages.sent_by(message, fact.sender)
        message.entry = message.entry or ENTERED

    def _live(self, fact: facts.DkimSigned | facts.Released | facts.Requeued | facts.Diagnostic) -> Message | None:
        return self.messages.get(fact.record.instance, fact.queue_id) if fact.queue_id else None

    def _active(self, fact: facts.QueueActive, *, now: float) -> None:
        message = self.messages.obtain(fact.record.instance, fact.queue_id, now=now)
        self.messages.sent_by(message, fact.sender)
        self._queue_manager(fact.record.instance, fact.record.pid)
        if not message.activation and message.sender_domain:
            if message.dkim_domains:
                self.habits.saw("dkim-domain", message.sender_domain, message.dkim_domains)
            if message.from_domain:
                self.habits.saw("from-domain", message.sender_domain, (message.from_domain,))
            self.sent_mail.saw(
                message.sender_domain, message.from_domain, message.dkim_domains, message.list_headers, now=now
            )
        self._entries.activated(fact, message, now=now)
        message.activated(nrcpt=fact.nrcpt)
        if message.on_hold:  # it was taken in this moment
            self.books.note(message)
        self._taking.consider(message, now=now)

    def _queue_manager(self, instance: str, pid: int) -> None:
        """A new queue manager's first line: it knows nothing of what the old one had in memory."""
        if self._qmgr_pids.get(instance, pid) != pid:
            for message in self.messages.of_instance(instance):
                self.books.left_core(message)
        self._qmgr_pids[instance] = pid

    def _removed(self, fact: facts.QueueRemoved, *, now: float) -> None:
        message = self.messages.get(fact.record.instance, fact.queue_id)
        if message is None:
            return
        self.telling.removed.append(Removed(now, message.instance, message.queue_id))
        if fact.record.daemon == "qmgr" and message.activation and message.all_known and not message.finished:
            why = f"{message.queue_id} was removed although a recipient had no outcome"
            self.telling.tell("unaccounted", why, now=now, line=fact.record.text, messages=1)
        self.books.gone(message)

    def _header(self, fact: facts.HeaderLogged, *, now: float) -> None:
        name = fact.header.lower()
        self._entries.header(fact, name, now=now)
        if name not in _HEADERS:
            return
        message = self.messages.obtain(fact.record.instance, fact.queue_id, now=now)
        if fact.sender and message.sender is None:
            self.messages.sent_by(message, fact.sender)
        if name == "from":
            message.from_domain = from_domain(fact.value)
        elif name != "dkim-signature":
            message.list_headers |= list_headers(name, fact.value)
        elif domain := signature_domain(fact.value):
            message.signs_as(domain)

    def _held(self, fact: facts.Held, *, now: float) -> None:
        """Somebody's HOLD: ours where it carries our key (answered) or where we asked for it (taken)."""
        if not fact.queue_id:
            return
        message = self.messages.obtain(fact.record.instance, fact.queue_id, now=now)
        key = held_key(fact.text) if fact.by == "policy" else None
        if fact.by == "admin":
            if message.place is Place.QUEUED:
                self.books.held_by_other(message, now=now)
        elif key is None:
            self.books.held_by_other(message, now=now)
        else:
            if fact.sender and message.sender is None:
                self.messages.sent_by(message, fact.sender)
            if self.books.promised_line(message, Key.read(key), line=fact.record.text, now=now):
                self._to_adopt.setdefault(message.instance, {})[message.queue_id] = key

    def _rejected(self, fact: facts.Rejected) -> None:
        """A milter's, or a later restriction's, refusal of the whole message ends a promise."""
        message = self.messages.get(fact.record.instance, fact.queue_id) if fact.queue_id else None
        if message and fact.action in _ENDS and fact.stage == "END-OF-MESSAGE" and not message.activation:
            self.books.gone(message)

    def _diagnostic(self, fact: facts.Diagnostic) -> None:
        """`open active QID: No such file or directory`: the acknowledgement that rule 1 waits for."""
        message = self._live(fact)
        if message is not None and message.nrcpt == 1 and fact.text.startswith("open active "):
            self.books.left_core(message)

    def _attempted(self, fact: facts.DeliveryAttempt, *, now: float) -> None:
        if fact.status not in _OUTCOMES:
            return  # a probe of address verification: no mail
        message = self.messages.obtain(fact.record.instance, fact.queue_id, now=now)
        recipient = message.recipient(fact.recipient, fact.orig_to)
        message.outcome(recipient, final=fact.status in _FINAL)
        message.service = intern(fact.record.service or fact.record.daemon)
        if self.redirects and recipient.done:
            self.redirects.settled(recipient.address)
        message.attempts += 1
        if message.on_hold:  # an attempt from before it was taken; the next one is as free as it was to be
            self.books.note(message)
        else:
            message.paid = message.exempt = False
        passed_on = self._entries.passed_on(fact, message)
        opens, rule, concerned, accepted_by = self._outcomes.judge(
            fact, message, recipient, passed_on=passed_on, now=now
        )
        if accepted_by:
            self.fail_fast.accepted(accepted_by, lambda key: self.subqueues.falls_under(message, key), now=now)
        repair = opens is not None and self._outcomes.waits_for_repair(rule)
        if opens is not None and not (repair and self.fail_fast.passes(opens, now=now)):
            self._outcomes.opened_by(self.orders.open(opens, rule=rule, line=fact.record.text, now=now), fact, now=now)
            if repair:  # a probe would bounce, as what it is to prove
                self.orders.hold(opens, LEASE, rule=rule, line=fact.record.text, by_whom="engine", now=now)
        for sub in concerned:
            self.orders.tell_state(sub, rule=rule, line=fact.record.text if rule else "", now=now)
        if message.on_hold and message.finished:
            self.books.done[message] = None
        elif not message.finished:
            self._taking.consider(message, now=now)

    def _refused_early(self, fact: facts.RemoteReply, *, now: float) -> None:
        """The first MX refused and the next is being asked: no outcome yet, but reason enough to open (smtp_proto.c).

        With two MX hosts the outcome's own line comes a whole transaction later.
        """
        message = self.messages.get(fact.record.instance, fact.queue_id)
        if message is None or fact.reply is None or not message.all_known:
            return
        opens, rule, concerned, _ = self._outcomes.foresee(fact, message, now=now)
        if opens is not None:
            self.orders.open(opens, rule=rule, line=fact.record.text, now=now)
        for sub in concerned:
            self.orders.tell_state(sub, rule=rule, line=fact.record.text, now=now)

    # Mail that arrives.

    def provider_of(self, recipient_domain: str) -> str | None:
        """Give the mailbox provider behind a domain, from memory."""
        return self.recipients.of_domain(recipient_domain, now=self._now)

    @property
    def pushing_back(self) -> int:
        """How many sub-queues want their clients told to try again later."""
        return self.subqueues.pushing_back

    def pushed_back(
        self, sender: str, recipient: str, login: str, postfix_instance: str, *, now: float
    ) -> Parked | None:
        """Say because of which sub-queue a client is to try this recipient again later, if any. Changes nothing."""
        sender_domain = domain_of(sender)
        if sender.partition("@")[0] == self.settings.instance(postfix_instance).verify_sender:
            return None
        mail = Unsigned(sender_domain, sender, login, postfix_instance)
        for sub in self.subqueues.covering(mail, [domain_of(recipient)], now=now) or ():
            if sub.strategy is Strategy.PUSHBACK and not sub.machine.passes(now=now, held=sub.held):
                return self._parked([sub.key])
        return None

    def arriving(self, arrival: Arrival, *, now: float) -> Parked | Slowed | None:
        """Decide about a message at END-OF-MESSAGE; counted once, however often Postfix asks.

        Without a queue id somebody only asks: nothing is changed.
        """
        self._now = now
        instance, queue_id, sender, recipients, complete, _, _, _, _ = arrival  # "*_" would make a list
        if not queue_id:
            return self._would_park(arrival, now=now)
        known = self.messages.get(instance, queue_id)
        subs = None
        if known is None:
            subs = self._over(arrival, now=now)
            if subs is None:  # nearly all mail
                self.messages.announce(instance, queue_id, (sender, recipients if complete else (), now))
                return None
        elif known.place is Place.PROMISED:
            return self._parked(known.held_under) if known.held_under else None  # its sub-queue has closed
        message = known or self.messages.obtain(instance, queue_id, now=now)
        self.messages.sent_by(message, sender)
        if complete and not message.recipients:
            message.recipients = tuple(map(Recipient, recipients))
            message.nrcpt = len(message.recipients)
        if known is not None and self.subqueues and not known.let_out and known.place is Place.QUEUED:
            if arrival.sasl_username and not known.stream.tenant:
                known.stream = stream(arrival.sasl_username, *known.stream[1:])
            subs = self.subqueues.covering(known, map(domain_of, recipients), now=now)  # its lines say more
        if subs is None or self.settings.is_verification(message):
            return None
        return self._park_or_pass(message, subs, arrival, now=now)

    def _park_or_pass(
        self, message: Message, subs: list[OpenSubQueue], arrival: Arrival, *, now: float
    ) -> Parked | Slowed | None:
        full = [sub for sub in subs if not sub.machine.passes(now=now, held=sub.held)]
        slowed = self._slowed(full, arrival)
        if slowed is not None and arrival.binding:
            message.let_out = now
            message.paid = True  # by the lane, which has few connections: no budget is spent on it
        if slowed is not None:
            return slowed
        if not any(sub.parks for sub in full):
            message.let_out = now
            message.paid = True
            for sub in subs:
                if sub.machine.state is State.PROBING and not full:
                    sub.probes_with(message)
                sub.machine.spent(1, now=now)
                sub.dirty = True
                self.subqueues.schedule(sub, now=now)
            return None
        if self.settings.act and not self.parking:
            return None
        keys = [sub.key for sub in subs if sub.parks]
        parked = self._parked(keys)
        if arrival.binding and self.settings.act:
            self.books.park(message, keys, Place.PROMISED, now=now)
            place = (message.instance, message.queue_id)
            self.telling.answered(place, parked, state=str(subs[0].machine.state), now=now)
        return parked

    def _slowed(self, full: Sequence[OpenSubQueue], arrival: Arrival) -> Slowed | None:
        """Choose the lane for mail that may not leave now, and that nothing holds; None where there is no lane for it.

        Each key has one of the lanes, so that a few keys do not share one while others are idle, and comes back to it.
        """
        lanes = self.settings.instance(arrival.postfix_instance).lanes
        sub = next((sub for sub in full if sub.strategy is Strategy.LANE), None)
        if sub is None or not lanes or not arrival.complete or any(other.parks for other in full):
            return None
        lane = lanes[crc32(str(sub.key).encode()) % len(lanes)]
        return Slowed(str(sub.key), sub.rule, f"{sub.machine.state}", lane)

    def _over(self, arrival: Arrival, *, now: float) -> list[OpenSubQueue] | None:
        """List the sub-queues over a message of which nothing but its arrival is known."""
        mail = Unsigned(domain_of(arrival.sender), arrival.sender, arrival.sasl_username, arrival.postfix_instance)
        return self.subqueues.covering(mail, [domain_of(each) for each in arrival.recipients], now=now)

    def _would_park(self, arrival: Arrival, *, now: float) -> Parked | Slowed | None:
        full = [sub for sub in self._over(arrival, now=now) or () if not sub.machine.passes(now=now, held=sub.held)]
        if not any(sub.parks for sub in full):
            return self._slowed(full, arrival)
        return self._parked([sub.key for sub in full if sub.parks])

    def _parked(self, keys: Sequence[Key]) -> Parked:
        sub = self.subqueues.get(keys[0])
        if sub is None:
            return Parked(str(keys[0]), "closed", "held before; its sub-queue has closed")
        return Parked(str(sub.key), sub.rule, f"{sub.machine.state}, {sub.held} waiting")

    # What is to be done now.

    def step(self, *, now: float) -> list[Command]:
        """Tell what is to be done to the queue now. Call it after facts, after answers, and at `next_step`."""
        self._now = now
        for sub in self.subqueues.due(now=now):
            sub.machine.allowance(now=now, held=sub.held)
            self.orders.tell_state(sub, now=now)
            self._releasing.look_at(sub)
        commands = self._taking.commands(now=now)
        commands += [Adopt(instance, keys) for instance, keys in self._to_adopt.items()]
        self._to_adopt = {}
        if not self.behind:
            commands += self._releasing.commands(now=now)
        return commands

    def next_step(self, *, now: float) -> float:
        """Tell when `step` has something to do at the latest, if no fact comes before."""
        if self._taking.busy:
            return now
        times = (self.subqueues.next_due(), self._releasing.next_at(now=now), now + IDLE)
        return min(time for time in times if time is not None)

    def without_holds(self, commands: Sequence[Command]) -> list[Command]:
        """Take back the holds: intent cannot be stored, and nothing has changed in the queue yet."""
        for command in commands:
            if isinstance(command, Hold):
                self.books.not_taken(command.instance, command.keys)
        return [command for command in commands if not isinstance(command, Hold)]

    def hold_failed(self, hold: Hold, why: str, *, now: float) -> None:
        """The helper could not be asked; the next listing of the queue tells what it did all the same."""
        self.telling.tell("hold-failed", why, now=now, messages=len(hold.keys))

    def adopt_again(self, adopt: Adopt) -> None:
        """The helper did not take promises into its record: it is told again."""
        self._to_adopt.setdefault(adopt.instance, {}).update(adopt.keys)

    def releases_at(self, phase: float) -> None:
        """Release at this part of each second, 0 to 1, and not whenever there is something: other hosts have other parts."""
        self._releasing.phase = phase * TICK

    def reloaded(self, instance: str, *, began: float) -> None:
        """The queue manager of before `began` is gone: nothing that we held then is in core."""
        for message in self.books.ours:
            if message.instance == instance and message.held_since < began:
                self.books.left_core(message)

    # What a look at the queue shows.

    def listed(self, listing: Listing, *, now: float) -> None:
        """Compare a listing of the whole queue with what we believe; what it lacks is gone."""
        listings.learn(self.messages, listing, now=now)
        on_hold = {queued.queue_id for queued in listing.messages if queued.queue_name == "hold"}
        self.books.compare(
            listing.instance, on_hold, listing.ours, since=listing.since, listed_at=listing.time, now=now
        )
        self._record_again(listing.instance, on_hold, listing.ours)
        for message in listings.finished(self.messages, listing):
            self.books.done[message] = None
        for message in listings.absent(self.messages, listing):
            self.books.gone(message)

    def hold_queue(
        self,
        instance: str,
        there: Collection[str],
        ours: Mapping[str, str],
        *,
        since: Mapping[str, float],
        listed_at: float,
        now: float,
    ) -> bool:
        """Compare what is on hold with the books; tell whether mail of ours is there that we know nothing of."""
        strangers = self.books.compare(instance, there, ours, since=since, listed_at=listed_at, now=now)
        self._record_again(instance, there, ours)
        return strangers

    def _record_again(self, instance: str, there: Collection[str], ours: Mapping[str, str]) -> None:
        """Have the helper write down what we hold and its record lacks: somebody removed it, or cut it off."""
        for queue_id in there:
            message = self.messages.get(instance, queue_id) if queue_id not in ours else None
            if message is not None and message.place is Place.HELD and message.held_under:
                self._to_adopt.setdefault(instance, {})[queue_id] = str(message.held_under[0])

    def misread(self, fact: facts.Fact) -> None:
        """An error of ours kept a line from being taken: its message may be in core, on hold or not. A `gap` is to follow."""
        message = self.messages.get(fact.record.instance, fact.queue_id) if fact.queue_id else None
        if message is not None:
            message.pending = max(message.pending, 1)

    def gap(self, *, now: float) -> None:
        """Lines may be missing: whatever is not on hold may be in core until the log or a listing says more.

        A promise whose line may be among them is believed: nobody else would let go what we hold.
        """
        self.messages.forget_announced()
        for message in self.messages:
            if message.place is Place.QUEUED:
                message.pending = max(message.pending, 1)
            elif message.place is Place.PROMISED and not message.own_line:
                message.own_line = True
                self.books.note(message)
                for key in message.held_under[:1]:
                    self._to_adopt.setdefault(message.instance, {})[message.queue_id] = str(key)
        self.telling.tell("gap", "lines of the log may be missing", now=now)

    def forget_old(self, *, now: float) -> None:
        """Bound the memory: what no line has spoken of for longer than a queue lifetime is gone."""
        for message in list(self.messages):
            lifetime = self.settings.instance(message.instance).lifetime + 86_400
            only_begun = not message.activation and not message.attempts and message.place is Place.QUEUED
            if now - message.last_line > (3_600 if only_begun else lifetime):
                self.books.gone(message)


_HEADERS: Final = frozenset({"from", "dkim-signature", "list-id", "list-unsubscribe", "list-unsubscribe-post"})
_RESTARTS: Final = ("reload -- ", "daemon started -- ", "terminating on signal ")
_OUTCOMES: Final = frozenset({"sent", "deferred", "bounced", "SOFTBOUNCE", "expired"})
_FINAL: Final = frozenset({"sent", "bounced", "expired"})
_ENDS: Final = frozenset({"reject", "milter-reject", "discard", "milter-discard"})
