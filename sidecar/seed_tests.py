"""One test of where our mail lands: sends to the seeds, looks until all is found or the deadline, and tells.

Knows the order in which nothing is lost: a mail is written down before it is sent, and what was found before it is
taken away.
"""

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from policies.placement import Place, SeedMail
from sidecar import own_log, postfix, restrictions
from sidecar.config import Config, ConfigError, SeedConfig
from sidecar.seed_imap import LOOK_SECONDS, Landed, MailboxError, look
from sidecar.seed_mail import begin, submit_all, template
from sidecar.threads import in_thread
from sidecar.wiring_plan import SEED_MAP, chosen_transports, sender_on

Put = Callable[[Sequence[SeedMail], bool], None]
"""Writes mails down; True: they are a whole test. Called from threads."""

FIRST_PAUSE = 5.0
PAUSE_MAX = 60.0
AT_ONCE = 8
"""Mailboxes looked into at a time."""
_ADDRESS = re.compile(r"[A-Za-z0-9._=+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")


def checked(config: Config) -> None:
    """Find what is missing for tests, where there are seeds. Raises ConfigError."""
    ours = config.seedtest
    for number, seed in enumerate(config.seed):
        if not _ADDRESS.fullmatch(seed.address):
            raise ConfigError(f"seed[{number}].address: found {seed.address!r}, wanted an address, as seed@gmx.example")
    if (config.seed or ours.every_hours) and not _ADDRESS.fullmatch(ours.sender):
        raise ConfigError(f"seedtest.sender: found {ours.sender!r}, wanted an address, as seedtest@example.com")
    if ours.every_hours and not config.seed:
        raise ConfigError("seedtest.every_hours: there is no [[seed]] to send to; wanted at least one")
    if ours.smtp and not re.fullmatch(r"\S+:\d{1,5}", ours.smtp):
        raise ConfigError(f"seedtest.smtp: found {ours.smtp!r}, wanted HOST:PORT, as 127.0.0.1:25")


def check_transport(config: Config, transport: str) -> None:
    """Find out whether Postfix sends a test over it. Raises ConfigError, PostfixError."""
    if transport not in chosen_transports(config):
        known = ", ".join(chosen_transports(config)) or "none"
        raise ConfigError(f"transport {transport}: in no [[route]] and not in seedtest.transports; there is {known}")
    directory = Path(config.postfix.config_directory)
    key = sender_on(config.seedtest.sender, transport)
    tables = postfix.parameters(directory, SEED_MAP)[SEED_MAP]
    for table in restrictions.split(tables):
        if found := postfix.looked_up(directory, key, str(table)):
            if found.partition(":")[0] == transport:
                return
            break
    raise ConfigError(
        f"transport {transport}: Postfix does not send mail from {key} over it; "
        f"`sidecar postfix apply` writes {SEED_MAP}, or write {key} there yourself"
    )


class SeedTest:
    """One test over one transport; `late`: mails of earlier tests that may have come by now."""

    def __init__(
        self, config: Config, put: Put, *, late: Iterable[SeedMail] = (), first_pause: float = FIRST_PAUSE
    ) -> None:
        self._config = config
        self._put = put
        self._pause = first_pause
        self._mails: dict[str, SeedMail] = {mail.tag: mail for mail in late}
        self._wrong: dict[str, str] = {}
        """Address -> why its mailbox could not be looked into the last time."""

    async def run(self, transport: str = "", *, seeds: Sequence[SeedConfig] | None = None) -> list[SeedMail]:
        """Test; give the mails as they ended. Raises what `put` raises, and ConfigError: then nothing was sent."""
        seeds = self._config.seed if seeds is None else seeds
        await in_thread(lambda: template(self._config))  # before anything is written down
        mails = begin(seeds, transport, now=time.time())
        await in_thread(lambda: self._put(mails, False))
        mails = await in_thread(lambda: submit_all(self._config, mails))
        self._mails |= {mail.tag: mail for mail in mails}
        await in_thread(lambda: self._put(mails, False))
        await self._wait(seeds, [mail.tag for mail in mails])
        ended = await in_thread(lambda: self._ended([self._mails[mail.tag] for mail in mails]))
        await in_thread(lambda: self._put(ended, True))
        return ended

    async def _wait(self, seeds: Sequence[SeedConfig], tags: Sequence[str]) -> None:
        """Look again and again, at the deadline everywhere."""
        deadline = time.monotonic() + self._config.seedtest.deadline_minutes * 60.0
        pause, places = self._pause, asyncio.Semaphore(AT_ONCE)

        async def looked_into(seed: SeedConfig, *, last: bool) -> None:
            async with places:
                await in_thread(lambda: self._look(seed, everywhere=last))

        while True:
            await asyncio.sleep(min(pause, max(deadline - time.monotonic(), 0.0)))
            pause = min(pause * 2, PAUSE_MAX)
            last = time.monotonic() >= deadline
            waiting = {self._mails[tag].address for tag in tags if self._mails[tag].place is Place.WAITING}
            # Not a task group: what `put` raises must come out as it is.
            await asyncio.gather(*(looked_into(seed, last=last) for seed in seeds if seed.address in waiting))
            if last or not any(self._mails[tag].place is Place.WAITING for tag in tags):
                return

    def _look(self, seed: SeedConfig, *, everywhere: bool) -> None:
        wanted = {
            mail.tag: mail
            for mail in self._mails.values()
            if mail.address == seed.address and not mail.removed and mail.place is not Place.UNSENT
        }
        landed: list[str] = []

        def found(those: Sequence[Landed]) -> None:
            landed.extend(each.tag for each in those)
            self._put([self._landed(each) for each in those], False)

        try:
            since = min(mail.sent_at for mail in wanted.values())
            look(seed, wanted, since=since, everywhere=everywhere, found=found, ca_file=self._config.outside.ca_file)
        except MailboxError as error:
            self._wrong[seed.address] = str(error)
            return
        self._wrong.pop(seed.address, None)
        if landed:
            for tag in landed:
                self._mails[tag] = self._mails[tag]._replace(removed=True)
            self._put([self._mails[tag] for tag in landed], False)

    def _landed(self, each: Landed) -> SeedMail:
        """Take down where a mail is; one that was found before, and is still there, stays as it was."""
        now, mail = time.time(), self._mails[each.tag]
        if not mail.arrived_at:
            mail = mail._replace(place=each.place, folder=each.folder, arrived_at=each.arrived_at or now, looked_at=now)
            self._mails[each.tag] = mail._replace(why="")
        return self._mails[each.tag]

    def _ended(self, mails: Sequence[SeedMail]) -> list[SeedMail]:
        now = time.time()
        waiting = [mail for mail in mails if mail.place is Place.WAITING]
        queued = in_our_queue(self._config, waiting) if waiting else {}
        return [self._end(mail, queued, now=now) if mail in waiting else mail for mail in mails]

    def _end(self, mail: SeedMail, queued: Mapping[str, str], *, now: float) -> SeedMail:
        if mail.address in queued:
            return mail._replace(place=Place.UNSENT, why=queued[mail.address], looked_at=now)
        if wrong := self._wrong.get(mail.address):
            return mail._replace(place=Place.UNSEEN, why=wrong, looked_at=now)
        return mail._replace(place=Place.MISSING, looked_at=now)


def in_our_queue(config: Config, mails: Iterable[SeedMail]) -> dict[str, str]:
    """Address -> why its mail has not left our Postfix. Nothing where the queue cannot be listed."""
    wanted = {(sender_on(config.seedtest.sender, mail.transport), mail.address): mail for mail in mails}
    found = {}
    try:
        for instance in postfix.instances(Path(config.postfix.config_directory)):
            for message in postfix.queued(instance):
                for address, reason in message.recipients:
                    mail = wanted.get((message.sender, address))
                    if mail is not None and message.arrival_time > mail.sent_at - 2.0:
                        found[address] = f"in our queue ({message.queue_name}): {reason or 'not tried yet'}"[:300]
    except postfix.PostfixError as error:
        own_log.seed_queue_unknown(str(error))
    return found


# The longest that a test takes after its deadline: the last looks, and the listing of the queue.
AFTERWARDS = 2 * LOOK_SECONDS + 60.0
