"""What drills of incidents share: a chat and a pager that write down when they heard what, and what they must have heard.

The chat is a Slack with a bot's token, so an incident is one thread there; the pager is a PagerDuty.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sidecar.database import StoreError
from sidecar.lab.drills.drill import DrillError, until
from sidecar.lab.drills.levers import by_hand, changes, nothing_on_hold, sidecar_of, state_of
from sidecar.lab.http_server import http_server
from sidecar.lab.measure import percentile
from sidecar.lab.pagers import KEY, TOKEN, PagerDuty, Slack
from sidecar.lab.patience import longer
from sidecar.lab.run import Bench
from sidecar.outside_store import Known, OutsideStore

_CHAT, _PAGER = 8082, 8083
_AT_ONCE_S = 3.0
MESSAGES_MAX = 3
"""Of one incident, a day."""


@dataclass
class Heard:
    chat: Slack = field(default_factory=Slack)
    pager: PagerDuty = field(default_factory=PagerDuty)
    chat_at: list[float] = field(default_factory=list)
    """Time of each message."""
    pager_at: list[float] = field(default_factory=list)
    """Time of each event."""

    @property
    def paged(self) -> bool:
        return bool(self.pager.open)

    @property
    def over(self) -> bool:
        return bool(self.pager.pages) and not self.pager.open

    def complaints(self) -> Iterator[str]:
        """What was not as it must be, once the incident is over."""
        if self.pager.pages != 1:
            yield f"the pager opened {self.pager.pages} incidents, wanted 1"
        if not 2 <= len(self.chat.taken) <= MESSAGES_MAX:
            yield f"the chat heard {len(self.chat.taken)} messages, wanted 2 to {MESSAGES_MAX}"
        threads = {message.get("thread_ts") for message in self.chat.taken[1:]}
        if self.chat.taken and (self.chat.taken[0].get("thread_ts") or threads - {"1.1"}):
            yield f"the chat heard it in several threads: {[each.get('text') for each in self.chat.taken]}"


@contextlib.contextmanager
def listening(directory: Path) -> Iterator[tuple[Heard, tuple[str, ...]]]:
    """Chat and pager, as long as the context lasts; and the sidecar's settings for them."""
    heard = Heard()
    heard.chat.after = lambda: heard.chat_at.append(time.time())
    heard.pager.after = lambda: heard.pager_at.append(time.time())
    for name, text in (("chat.token", TOKEN), ("pager.key", KEY)):
        (directory / name).write_text(text)
    settings = (
        "[[channel]]",
        'name = "chat"',
        'kind = "slack"',
        f'token_file = "{directory}/chat.token"',
        'channel = "C0123456789"',
        f'url = "http://127.0.0.1:{_CHAT}/api"',
        "[[channel]]",
        'name = "pager"',
        'kind = "pagerduty"',
        f'routing_key_file = "{directory}/pager.key"',
        f'url = "http://127.0.0.1:{_PAGER}"',
    )
    with http_server(heard.chat, port=_CHAT), http_server(heard.pager, port=_PAGER):
        yield heard, settings


def told(bench: Bench, feed: str, object_: str, measure: str) -> Known | None:
    """What the outside process knows of one measure; None where it knows nothing yet."""
    with contextlib.suppress(StoreError):
        store = OutsideStore.open_read_only(sidecar_of(bench).directory / "store" / "outside.db")
        try:
            known = store.newest(feed, [measure])
        finally:
            store.close()
        return next((each for each in known if each.object == object_ and each.told_at), None)
    return None


async def until_told(
    bench: Bench, feed: str, about: tuple[str, str], true: Callable[[Known], bool], seconds: float = 40
) -> None:
    """Wait until a feed told something of (object, measure). Raises DrillError."""

    def there() -> bool:
        known = told(bench, feed, *about)
        return known is not None and true(known)

    await until(there, f"{feed} tells {' '.join(about)}", seconds)


async def rest_let_go(bench: Bench, key: str) -> None:
    """Mail ramps up again: let the rest go by hand, and see that nothing stays on hold. Raises DrillError."""
    if not await changes(bench, "ramping"):
        raise DrillError("no ramp in the audit log")
    if await state_of(bench, key):
        await by_hand(bench, "close", key)
    await nothing_on_hold(bench)


def others_wait(bench: Bench, domain: str, since: float) -> None:
    """Write down how long mail of another domain took since a time, and see that it went on at full speed.

    Not the figure of the whole run: at its begin the sidecar is started anew, and Postfix waits for it.
    Raises DrillError.
    """
    sent = {it.message_id: it.submitted for it in bench.fleet.submissions.accepted if it.sender.domain == domain}
    took = [it.time - sent[it.message_id] for it in bench.ledger.accepted if sent.get(it.message_id, 0.0) > since]
    p95 = percentile(took, 0.95)
    if p95 is None or p95 > longer(_AT_ONCE_S):
        raise DrillError(f"95 of 100 messages of {domain} took up to {p95} s, wanted at most {longer(_AT_ONCE_S):g} s")
    bench.times["others_p95_s"] = round(p95, 1)


async def over(bench: Bench, heard: Heard, began: float, repaired: float, seconds: float = 60) -> None:
    """Wait until all heard that it is over; write down the times, and see that they heard it as they should.

    Raises DrillError.
    """
    await until(lambda: heard.over, "the pager resolved", seconds)
    await until(lambda: len(heard.chat.taken) >= 2, "the chat told the end", seconds)
    bench.times |= {
        "detect_s": round(heard.pager_at[0] - began, 1),
        "recover_s": round(heard.pager_at[-1] - began, 1),
        "recover_after_repair_s": round(heard.pager_at[-1] - repaired, 1),
    }
    await asyncio.sleep(2)  # nothing more is said
    if complaint := next(heard.complaints(), ""):
        raise DrillError(complaint)
