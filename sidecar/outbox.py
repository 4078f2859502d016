"""The outbox: every note leaves over every channel that it is for, also after a restart, and none twice.

Knows that a message is `sending` in the store before its first byte goes out. What was `sending` when the process
died, or had no answer, may have arrived: it is sent again only where the other side knows it again (PagerDuty by its
dedup key, a webhook by its delivery id). Elsewhere another channel says it; where there is none, a message of its own
says some minutes later that the incident goes on, if it does.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from parsers.feeds.dnsbl import Severity
from policies.channels.receipt import Receipt, Result
from policies.incidents import Incident
from policies.note import Note, NoteKind
from sidecar import own_log
from sidecar.channels import Channel, Delivery, Taken, stand_ins
from sidecar.database import StoreUnavailable
from sidecar.incident_store import ChannelState, IncidentStore, Posted
from sidecar.threads import in_thread

BACKOFF_FIRST: Final = 5.0
BACKOFF_MAX: Final = 600.0
HAND_ON_AFTER: Final = 300.0
"""Seconds without success after which another channel says it as well."""
GIVE_UP: Final = 6 * 3600.0
TRY_BROKEN_EVERY: Final = 1800.0
"""Seconds until a broken channel is tried again, with the next note that it is for."""
UNSURE_AFTER: Final = 300.0
STORE_WAIT: Final = 5.0
RECORD_TRIES: Final = 5
RECORD_WAIT: Final = 1.0
REPEAT_ENDED: Final = 300.0
"""Seconds for which a channel that forgets is told that an incident is over."""
_REPEAT: Final = Note(NoteKind.AGAIN, 0, "", Severity.INFO, "", "", 0.0, 0.0, 0.0)


class Fleet(Protocol):
    """Which hosts may say what all of them see."""

    def may_send(self, posted: Posted) -> bool:
        """Whether no other host has begun to say it."""

    def has_heard(self, posted: Posted, channel: str) -> bool:
        """Whether people know it by that channel, from whichever host."""

    def happened(self) -> None:
        """Something became of a note."""


class Outbox:
    def __init__(
        self,
        store: IncidentStore,
        channels: Sequence[Channel],
        *,
        incidents: Callable[[], Sequence[Incident]],
        unsure: Callable[[int], Note | None],
        told: Callable[[str, Result], None] = lambda _, __: None,
        backoff: float = BACKOFF_FIRST,
        fleet: Fleet | None = None,
    ) -> None:
        """`incidents`: those of now; `unsure`: whether an incident is still worth a word; `told` counts what was sent;
        `fleet`: of what is said once for all hosts.
        """
        self._store = store
        self._channels = {channel.name: channel for channel in channels}
        self._incidents = incidents
        self._unsure = unsure
        self._told = told
        self._backoff = backoff
        self._fleet = fleet
        self._wake = {channel.name: asyncio.Event() for channel in channels}
        self._repeated: dict[str, float] = {}
        self._fails_since: dict[str, float] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def wake(self) -> None:
        """There may be something to send."""
        for event in self._wake.values():
            event.set()

    def wake_from_thread(self) -> None:
        """Do it from another thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.wake)

    def works(self, name: str) -> None:
        """Take a channel for sound again, because somebody tried it. Raises StoreUnavailable."""
        self._store.put_channel(name, ChannelState(0.0, time.time(), ""))
        self._store.hurry(name)
        self.wake_from_thread()

    def wanting(self, note: Note) -> list[str]:
        """List the channels that a note goes to."""
        return [channel.name for channel in self._channels.values() if channel.wants(note)]

    async def run(self) -> None:
        """Send for ever."""
        self._loop = asyncio.get_running_loop()
        await in_thread(self.recover)
        async with asyncio.TaskGroup() as tasks:
            for channel in self._channels.values():
                tasks.create_task(self._serve(channel))

    def recover(self) -> None:
        """Settle what was being sent when the last process ended."""
        for posted in self._store.posted(state="sending"):
            channel = self._channels.get(posted.channel)
            if channel is None:
                self._store.done(posted.id, "dropped", why="there is no such channel any more", now=time.time())
            elif channel.kind.repeatable:
                self._store.later(posted.id, why="the process ended while it was sent", at=0.0)
            else:
                self._unknown(channel, posted, "the process ended while it was sent")
        for posted in self._store.posted(state="queued"):
            if posted.channel not in self._channels:
                self._store.done(posted.id, "dropped", why="there is no such channel any more", now=time.time())

    async def _serve(self, channel: Channel) -> None:
        """One channel, one message at a time: a channel that hangs makes no other one wait."""
        wake = self._wake[channel.name]
        while True:
            wake.clear()
            try:
                wait = await in_thread(lambda: self.send_next(channel))
            except StoreUnavailable as error:  # what cannot be recorded is not sent
                own_log.outbox_waits(channel.name, str(error))
                wait = STORE_WAIT
            if wait is None:
                await asyncio.sleep(channel.kind.gap)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await wake.wait()

    def send_next(self, channel: Channel) -> float | None:
        """Send the oldest that waits for a channel. None when it did something; else seconds until it may have to.

        Runs in one piece in a thread, so that whoever stops us waits until it is recorded. Raises StoreUnavailable.
        """
        now = time.time()
        posted = self._store.due(channel.name, now=now)
        if posted is None or posted.next_at > now:
            wait = 3600.0 if posted is None else posted.next_at - now
            return min(wait, self._repeat(channel, now=now))
        state = self._store.channel(channel.name)
        if state.broken_since and now - state.tried_at < TRY_BROKEN_EVERY and self._hand_on(channel, posted, state.why):
            self._store.done(posted.id, "failed", why=state.why, now=now)
            return None
        note = posted.note
        if posted.kind is NoteKind.UNSURE:
            still = self._unsure(posted.incident)
            if still is None:
                self._store.done(posted.id, "dropped", why="it is no longer news", now=now)
                return None
            note = still
        if self._fleet is not None and not self._fleet.may_send(posted):
            self._store.withdraw(posted.id, why="another host of the fleet says it", now=now)
            return None
        if not self._store.sending(posted.id):
            return None
        delivery = Delivery(
            f"sidecar-{posted.note_number}-{channel.name}-{posted.made_at:.0f}",
            self._store.thread(channel.name, posted.incident),
            tuple(self._incidents()),
        )
        taken = channel.send(note, delivery)
        self._told(channel.name, taken.receipt.result)
        self._record(channel, posted, taken)
        if self._fleet is not None:
            self._fleet.happened()
        return None

    def _record(self, channel: Channel, posted: Posted, taken: Taken) -> None:
        """Write down what came of it; a store that is busy for a moment must not make us forget. Raises StoreUnavailable."""
        for left in reversed(range(RECORD_TRIES)):
            try:
                self._settle(channel, posted, taken)
            except StoreUnavailable:
                if not left:
                    raise
                time.sleep(RECORD_WAIT)
            else:
                return

    def _repeat(self, channel: Channel, *, now: float) -> float:
        """Tell a channel that forgets what is open; seconds until the next time."""
        every = channel.kind.repeat_every
        if not every:
            return 3600.0
        wait = self._repeated.get(channel.name, 0.0) + every - now
        if wait > 0:
            return wait
        self._repeated[channel.name] = now
        told = [each for each in self._incidents() if each.live or now - each.ended_at < REPEAT_ENDED]
        if not told:
            return every
        receipt = channel.send(_REPEAT._replace(at=now), Delivery("", incidents=tuple(told))).receipt
        self._told(channel.name, receipt.result)
        if receipt.result is Result.SENT:
            self._fails_since.pop(channel.name, None)
            self._mend(channel, now)
        elif now - self._fails_since.setdefault(channel.name, now) >= HAND_ON_AFTER:
            self._break(channel, receipt.why, now)
        return every

    def _settle(self, channel: Channel, posted: Posted, taken: Taken) -> None:
        now, receipt = time.time(), taken.receipt
        if receipt.result is Result.UNSURE and channel.kind.repeatable:
            receipt = receipt._replace(result=Result.LATER)
        if receipt.result is not Result.SENT:
            own_log.not_sent(channel.name, posted.incident, str(receipt.result), receipt.why)
        match receipt.result:
            case Result.SENT:
                self._sent(channel, posted, receipt, now=now)
            case Result.LATER:
                self._later(channel, posted, receipt, max(taken.wait, self._wait(posted)), now=now)
            case Result.BROKEN:
                self._broken(channel, posted, receipt, now=now)
            case Result.UNSURE:
                self._unknown(channel, posted, receipt.why)

    def _wait(self, posted: Posted) -> float:
        return float(min(self._backoff * 2.0 ** min(posted.attempts, 20), BACKOFF_MAX) * random.uniform(0.8, 1.2))

    def _sent(self, channel: Channel, posted: Posted, receipt: Receipt, *, now: float) -> None:
        if receipt.thread and posted.incident:
            self._store.put_thread(channel.name, posted.incident, receipt.thread)
        self._mend(channel, now)
        self._store.done(posted.id, "sent", now=now)

    def _mend(self, channel: Channel, now: float) -> None:
        if self._store.channel(channel.name).broken_since:
            self._store.put_channel(channel.name, ChannelState(0.0, now, ""))
            own_log.channel_works(channel.name)

    def _later(self, channel: Channel, posted: Posted, receipt: Receipt, wait: float, *, now: float) -> None:
        age = now - posted.made_at
        if age > HAND_ON_AFTER and not posted.handed:
            self._hand_on(channel, posted, receipt.why)
            self._break(channel, receipt.why, now)
        if age > GIVE_UP:
            self._store.done(posted.id, "failed", why=f"given up after 6 hours: {receipt.why}", now=now)
        else:
            self._store.later(posted.id, why=receipt.why, at=now + wait)

    def _broken(self, channel: Channel, posted: Posted, receipt: Receipt, *, now: float) -> None:
        self._break(channel, receipt.why, now)
        if posted.handed or self._hand_on(channel, posted, receipt.why) or now - posted.made_at > GIVE_UP:
            self._store.done(posted.id, "failed", why=receipt.why, now=now)
        else:  # nobody else can say it
            self._store.later(posted.id, why=receipt.why, at=now + TRY_BROKEN_EVERY)

    def _unknown(self, channel: Channel, posted: Posted, why: str) -> None:
        now = time.time()
        said = f"{why}; it may have arrived"
        if not posted.handed and not self._hand_on(channel, posted, said) and posted.note.is_open:
            self._store.post_later(
                posted.note._replace(kind=NoteKind.UNSURE), channel.name, now=now, at=now + UNSURE_AFTER
            )
        self._store.done(posted.id, "unsure", why=said, now=now)

    def _hand_on(self, channel: Channel, posted: Posted, why: str) -> bool:
        """Have the next channel say it that works and does not have it; whether there is one."""
        if posted.kind is NoteKind.UNSURE:
            return False
        has = {each.channel for each in self._store.posted(number=posted.note_number)}
        if self._fleet is not None:
            has |= {name for name in self._channels if self._fleet.has_heard(posted, name)}
        for other in stand_ins(self._channels.values(), channel, posted.note):
            able = posted.kind in other.kind.told and not self._store.channel(other.name).broken_since
            if other.name not in has and able:
                note = posted.note._replace(instead_of=f"channel {channel.name}: {why}"[:300])
                self._store.hand_on(posted, other.name, note, now=time.time())
                own_log.handed_on(channel.name, other.name, posted.incident)
                self._wake_soon(other.name)
                return True
        # Those that have it already, and work, say it.
        return any(each != channel.name and not self._store.channel(each).broken_since for each in has)

    def _break(self, channel: Channel, why: str, now: float) -> None:
        state = self._store.channel(channel.name)
        self._store.put_channel(channel.name, ChannelState(state.broken_since or now, now, why))
        if not state.broken_since:
            own_log.channel_broken(channel.name, why)

    def _wake_soon(self, name: str) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake[name].set)
