"""A model of Postfix's queue manager, with the clock in the test's hand, for the engine to act on.

It knows the trap of rule 1: a file that comes back into the queue while qmgr still has its old entry in
memory is unlinked undelivered. What that trap, or anything else, loses or delivers twice is counted.
"""

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from parsers.postfix import facts
from parsers.record import LogRecord
from policies.access import Arrival, Slowed, hold_text
from policies.commands import Adopt, Command, Hold, Release, Reload, Requeue
from policies.engine import Engine
from policies.fail_fast import HoldBroken
from policies.listing import Listing, Queued
from policies.site import Settings
from sidecar import rules

GOOGLE_DKIM = (
    "421-4.7.28 Gmail has detected an unusual rate of mail originating from your DKIM "
    "421-4.7.28 domain [{domain}      35]. To protect our users from spam, mail sent "
    "421-4.7.28 from your domain has been temporarily rate limited. For more information, go to "
    "421 4.7.28  https://support.google.com/mail/answer/81126 d2e1a72fcca58-7f0 - gsmtp"
)
MX = {"google": "gmail-smtp-in.l.google.com", "comcast": "mx1a1.comcast.net", "yahoo": "mta5.am0.yahoodns.net"}
DOMAINS = {"google": "gmail.com", "comcast": "comcast.net", "yahoo": "yahoo.com"}
PROVIDERS = {domain: provider for provider, domain in DOMAINS.items()}

RULES = rules.load()

Judge = Callable[[str, str, float], str | None]
"""(envelope domain, provider, now) -> the refusing reply, None to accept."""


@dataclass
class File:
    queue_id: str
    sender: str
    recipients: list[str]
    queue: str
    arrival: float
    due: float = 0.0
    done: set[str] = field(default_factory=set)
    locked: int = 0
    reread: bool = False
    """A new queue manager waits for its lock."""
    by_admin: bool = False
    """An admin put it on hold."""


class World:
    """One Postfix, its providers, and an engine at its queue."""

    def __init__(
        self,
        judge: Judge,
        *,
        scale: float = 1.0,
        slots: int = 20,
        transaction: float = 0.3,
        hold_broken: HoldBroken = HoldBroken(),  # noqa: B008  # frozen
    ) -> None:
        self.now = 1_000_000.0
        campaigns = frozenset({"x-campaign"})
        settings = Settings(act=True, scale=scale, hold_broken=hold_broken, campaign_headers=campaigns)
        self.engine = Engine(RULES, rules.organizational_domain, settings)
        self.judge = judge
        self.slots = slots
        self.transaction = transaction
        self.backoff = 300.0 / scale
        self.files: dict[str, File] = {}
        self.core: dict[str, list[str]] = {}
        self.over: dict[str, str] = {}
        """Lane by queue id."""
        self.waiting: dict[str, list[tuple[str, str]]] = {}
        self.busy: Counter[str] = Counter()
        self.delivered: Counter[tuple[str, str]] = Counter()
        self.requeued: dict[str, str] = {}
        """New queue id -> the old one."""
        self.deferrals = 0
        self.silently_lost: list[str] = []
        self.delays: dict[str, list[float]] = {}
        self.log: list[facts.Fact] = []
        self.commands: list[Command] = []
        self.qmgr = 100
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._ids = itertools.count()

    # --- time ---

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), what))

    def run(self, seconds: float, *, step: float = 0.5) -> None:
        """Let time pass; the engine is asked at each step, as core asks it."""
        end = self.now + seconds
        while self.now < end:
            pause = min(self.now + step, end)
            while self._events and self._events[0][0] <= pause:
                self.now, _, what = heapq.heappop(self._events)
                what()
            self.now = pause
            self.step()

    def step(self) -> None:
        for command in self.engine.step(now=self.now):
            self.commands.append(command)
            self._obey(command)

    # --- the log ---

    def say(self, make: Callable[[LogRecord], facts.Fact], daemon: str, *, pid: int = 0, text: str = "") -> None:
        fact = make(LogRecord(self.now, "mx1", "postfix", "", daemon, pid, text))
        self.log.append(fact)
        self.engine.observe(fact, now=self.now)

    # --- mail ---

    def submit(
        self,
        sender: str,
        recipients: Iterable[str],
        *,
        policy: bool = True,
        line: bool = True,
        tenant: str = "",
        campaign: str = "",
        late: bool = False,
    ) -> str:
        """A message arrives; `line`: a HOLD of ours is logged; `late`: its header is read after we were asked."""
        queue_id = f"4Wz{next(self._ids):08d}".translate(str.maketrans("0123456789", "BCDFGHJKLM")) + "zB"
        file = File(queue_id, sender, list(recipients), "incoming", self.now)
        self.files[queue_id] = file
        if tenant:
            self.say(lambda r: facts.ClientIdentified(r, queue_id, "app", "192.0.2.9", "PLAIN", tenant, ""), "smtpd")
        if campaign and not late:
            self._say_campaign(file, campaign)
        parked = None
        if policy:
            arrival = Arrival(
                "postfix",
                queue_id,
                sender,
                tuple(file.recipients),
                complete=True,
                size=1000,
                client_address="192.0.2.9",
                sasl_username=tenant,
            )
            parked = self.engine.arriving(arrival, now=self.now)
        if campaign and late:
            self._say_campaign(file, campaign)
        if isinstance(parked, Slowed):
            self.over[queue_id] = parked.transport
            self._activate(file)
        elif parked:
            file.queue = "hold"
            text = f"<END-OF-MESSAGE>: End-of-data {hold_text(parked.key, parked.rule)}"
            if line:
                self.say(lambda r: facts.Held(r, queue_id, "policy", "END-OF-MESSAGE", text, sender, ""), "smtpd")
        else:
            self._activate(file)
        return queue_id

    def _say_campaign(self, file: File, campaign: str) -> None:
        header = facts.HeaderLogged
        self.say(lambda r: header(r, file.queue_id, "X-Campaign", campaign, "info", file.sender, ""), "cleanup")

    def _activate(self, file: File) -> None:
        """qmgr_active.c: the file comes into memory; an id that is there already swallows the new one."""
        if file.queue_id in self.core:
            self.silently_lost.append(file.queue_id)
            del self.files[file.queue_id]
            return
        file.queue = "active"
        nrcpt = len(file.recipients)
        left = [recipient for recipient in file.recipients if recipient not in file.done]
        self.core[file.queue_id] = left[:]
        self.say(lambda r: facts.QueueActive(r, file.queue_id, file.sender, 1000, nrcpt), "qmgr", pid=self.qmgr)
        for recipient in left:
            self.waiting.setdefault(_provider(recipient), []).append((file.queue_id, recipient))
        for provider in {_provider(recipient) for recipient in left}:
            self._serve(provider)

    def _serve(self, provider: str) -> None:
        queue = self.waiting.setdefault(provider, [])
        while queue and self.busy[provider] < self.slots:
            queue_id, recipient = queue.pop(0)
            file = self.files.get(queue_id)
            if file is None or file.queue != "active":
                self._missing(queue_id, recipient)
                continue
            self.busy[provider] += 1
            file.locked += 1
            self.at(self.now + self.transaction, lambda q=queue_id, r=recipient: self._outcome(q, r))  # type: ignore[misc]

    def _missing(self, queue_id: str, recipient: str) -> None:
        text = f"warning: open active {queue_id}: No such file or directory"
        said = text.removeprefix("warning: ")
        self.say(lambda r: facts.Diagnostic(r, queue_id, "warning", said), "smtp", text=text)
        self._left_core(queue_id, recipient)

    def _left_core(self, queue_id: str, recipient: str) -> None:
        if queue_id in self.core:
            self.core[queue_id].remove(recipient)
            if not self.core[queue_id]:
                del self.core[queue_id]

    def _outcome(self, queue_id: str, recipient: str) -> None:
        provider = _provider(recipient)
        file = self.files[queue_id]
        file.locked -= 1
        self.busy[provider] -= 1
        refusal = self.judge(file.sender.rpartition("@")[2], provider, self.now)
        if refusal is None:
            self.delivered[queue_id, recipient] += 1
            self.delays.setdefault(file.sender.rpartition("@")[2], []).append(self.now - file.arrival)
            file.done.add(recipient)
        else:
            self.deferrals += 1
        self._say_outcome(file, recipient, provider, refusal)
        self._left_core(queue_id, recipient)
        if queue_id not in self.core and file.queue == "active":
            if file.done >= set(file.recipients):
                del self.files[queue_id]
                self.say(lambda r: facts.QueueRemoved(r, queue_id, ""), "qmgr", pid=self.qmgr)
            elif not file.reread:
                file.queue = "deferred"
                self.due(file, self.now + self.backoff)
            elif not file.locked:
                file.reread = False
                self._activate(file)
        self._serve(provider)

    def _say_outcome(self, file: File, recipient: str, provider: str, refusal: str | None) -> None:
        host = MX[provider]
        status = "sent" if refusal is None else "deferred"
        reason = (
            "250 2.0.0 OK"
            if refusal is None
            else f"host {host}[192.0.2.1] said: {refusal} (in reply to end of DATA command)"
        )
        delays = facts.Delays(0.0, 0.0, 0.0, self.transaction)
        self.say(
            lambda r: facts.DeliveryAttempt(
                r,
                file.queue_id,
                recipient,
                "",
                host,
                "192.0.2.1",
                25,
                None,
                1.0,
                delays,
                "",
                "4.7.28",
                status,
                reason,
            ),
            "smtp",
            text=f"{file.queue_id}: to=<{recipient}>, status={status} ({reason})",
        )

    def due(self, file: File, when: float) -> None:
        file.due = when
        self.at(when, lambda: self._scan(file.queue_id))

    def _scan(self, queue_id: str) -> None:
        file = self.files.get(queue_id)
        if file is not None and file.queue == "deferred" and file.due <= self.now:
            self._activate(file)

    # --- the helper ---

    def _obey(self, command: Command) -> None:
        match command:
            case Hold(instance, keys):
                held = [queue_id for queue_id in keys if self._hold(queue_id)]
                missing = [queue_id for queue_id in keys if queue_id not in held]
                for queue_id in held:
                    self.say(lambda r, q=queue_id: facts.Held(r, q, "admin", "", "", "", ""), "postsuper")  # type: ignore[misc]
                self.engine.books.held(instance, held, missing, now=self.now)
            case Release(instance, ids, _, spread):
                self._release(instance, ids, spread)
            case Requeue():
                self._requeue(command)
            case Reload(instance):
                began = self.now
                self.reload()
                self.engine.reloaded(instance, began=began)
            case Adopt():
                pass

    def _hold(self, queue_id: str) -> bool:
        file = self.files.get(queue_id)
        if file is None or file.queue == "hold":
            return False
        file.queue = "hold"
        return True

    def _release(self, instance: str, ids: Iterable[str], spread: float) -> None:
        released, missing, busy = [], [], []
        for queue_id in ids:
            file = self.files.get(queue_id)
            if file is None or file.queue != "hold":
                missing.append(queue_id)
            elif file.locked:
                busy.append(queue_id)
            else:
                released.append(queue_id)
        for i, queue_id in enumerate(released):
            file = self.files[queue_id]
            file.queue = "deferred"
            self.say(lambda r, q=queue_id: facts.Released(r, q), "postsuper")  # type: ignore[misc]
            if file.done >= set(file.recipients):
                del self.files[queue_id]
                self.say(lambda r, q=queue_id: facts.QueueRemoved(r, q, ""), "qmgr", pid=self.qmgr)  # type: ignore[misc]
            else:
                self.due(file, self.now + 0.3 + i * spread / len(released))
        self.engine.books.released(instance, released, missing, busy, now=self.now)

    def _requeue(self, command: Requeue) -> None:
        """postsuper -r, pickup, cleanup: another id, and the policy service is not asked."""
        done, missing, busy = [], [], []
        for queue_id in command.ids:
            file = self.files.get(queue_id)
            if file is None or file.queue != "hold":
                missing.append(queue_id)
            elif file.locked:
                busy.append(queue_id)
            else:
                done.append(queue_id)
                del self.files[queue_id]
                self.say(lambda r, q=queue_id: facts.Requeued(r, q), "postsuper")  # type: ignore[misc]
                anew = self.submit(file.sender, [r for r in file.recipients if r not in file.done], policy=False)
                self.requeued[anew] = queue_id
        self.engine.books.requeued(command.instance, done, missing, busy, why="requeued", now=self.now)

    def reload(self) -> None:
        """A new queue manager: what was in memory and not in delivery is read again from the files."""
        self.qmgr += 1
        waiting, self.core = list(self.core), {}
        self.waiting.clear()
        for queue_id in waiting:
            file = self.files.get(queue_id)
            if file is not None and file.queue == "active":
                file.reread = bool(file.locked)
                if not file.locked:
                    self._activate(file)

    def listing(self, ours: dict[str, str] | None = None) -> Listing:
        """What `postqueue -j` would show."""
        queued = tuple(
            Queued(f.queue, f.queue_id, f.arrival, f.sender, tuple(r for r in f.recipients if r not in f.done))
            for f in self.files.values()
        )
        return Listing("postfix", self.now, queued, ours or {})

    @property
    def duplicates(self) -> int:
        return sum(count - 1 for count in self.delivered.values())


def _provider(recipient: str) -> str:
    return PROVIDERS[recipient.rpartition("@")[2]]
