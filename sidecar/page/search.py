"""The message search: a queue id, an address or a Message-ID, and the whole life of each message that it finds.

Knows the order in which things happen to a message; found they are by `sidecar.message_search`.
"""

from typing import NamedTuple

from policies.commands import Attempt, Change
from policies.stored_address import AddressForm
from sidecar import clickhouse, message_search
from sidecar.clickhouse import ServerError
from sidecar.config import ConfigError
from sidecar.message_search import Life
from sidecar.message_server import ServerEvents
from sidecar.own_log import printable
from sidecar.page.reading import DEADLINE
from sidecar.page.scene import Scene
from sidecar.page.subqueues import url_of
from sidecar.page.words import Mark

LIMIT = 20
"""Messages: a person who finds more asks for less."""

_STATUSES = {
    "sent": Mark("✓", "sent", "good"),
    "deferred": Mark("!", "deferred", "warn"),
    "bounced": Mark("✗", "bounced", "bad"),
    "expired": Mark("✗", "expired", "bad"),
}


class Event(NamedTuple):
    """One thing that happened to a message."""

    time: float
    mark: Mark
    about: str
    """To whom, or how many."""
    where: str
    """Relay and transport of an attempt."""
    text: str
    """What was said, or why it was done."""
    line: str
    rule: str
    key: str
    """Of the sub-queue that it concerns; "" for none."""
    next_id: str
    """Queue id under which the message goes on."""

    @property
    def url(self) -> str:
        return url_of(self.key)


class Told(NamedTuple):
    """One message under one queue id, told from its begin to its end."""

    life: Life
    ends: Mark
    waits: list[tuple[str, str]]
    """(key, address of its page) of the sub-queues that it waits in."""
    events: list[Event]


class Search(NamedTuple):
    text: str
    found: list[Told]
    most: int
    """0 where there may not be more."""
    addresses: AddressForm


def view(scene: Scene) -> Search:
    text = scene.query.get("q", "").strip()[:300]
    form = scene.config.store.addresses
    lives = (_fleet(scene, text, form) or _here(scene, text, form)) if text else []
    return Search(text, [told(life) for life in lives], LIMIT if len(lives) >= LIMIT else 0, form)


def _here(scene: Scene, text: str, form: AddressForm) -> list[Life]:
    return scene.stores.core.asked(
        lambda database: message_search.search(database, text, addresses=form, limit=LIMIT), []
    )


def _fleet(scene: Scene, text: str, form: AddressForm) -> list[Life]:
    """Messages of all hosts, this one's first, where they are sent to a server. Where that does not answer the page
    says so, and has this host's own.
    """
    try:
        with clickhouse.opened(scene.config) as server:
            if server is None:
                return []
            server.patience = DEADLINE
            lives = message_search.tell(ServerEvents(server), text, addresses=form, limit=LIMIT)
    except (ServerError, ConfigError) as error:
        scene.stores.core.trouble = str(error)
        return []
    own = _here(scene, text, form)  # with what is of the last seconds, and on hold now
    places = {life[:3] for life in own}
    return [*own, *(life for life in lives if life[:3] not in places)][:LIMIT]


def told(life: Life) -> Told:
    waits = [(printable(key), url_of(key)) for key in life.held_under]
    return Told(life, _ends(life), waits, sorted(_events(life), key=lambda event: event.time))


def _ends(life: Life) -> Mark:
    """How it stands, or ended."""
    if life.held_under:
        return Mark("■", "held by us", "warn")
    if life.removed:
        worst = {attempt.status for attempt in life.attempts if not attempt.passed_on} - {"deferred"}
        if worst & {"bounced", "expired"}:
            return Mark("✗", "ended, not for all recipients", "bad")
        return Mark("✓", "left the queue", "good")
    return Mark("…", "in the queue, as far as is known", "calm")


def _events(life: Life) -> list[Event]:
    found = []
    if life.received:
        recipients = f"{life.nrcpt} recipients" if life.nrcpt != 1 else "one recipient"
        found.append(_event(life.received, Mark("→", "received", "calm"), about=recipients, where=life.client))
    found += [_attempt(attempt) for attempt in life.attempts]
    found += [_change(change) for change in life.changes]
    if life.removed:
        found.append(_event(life.removed, Mark("○", "removed from the queue", "calm")))
    return found


def _event(time: float, mark: Mark, **more: str) -> Event:
    said = {name: printable(value) for name, value in more.items()}
    names = ("about", "where", "text", "line", "rule", "key", "next_id")
    return Event(time, mark, *(said.get(name, "") for name in names))


def _attempt(attempt: Attempt) -> Event:
    mark = _STATUSES.get(attempt.status, Mark("·", attempt.status, "calm"))
    goes_on = attempt.passed_on not in {"", "-"}
    return _event(
        attempt.time,
        Mark("→", "passed on", "calm") if attempt.passed_on else mark,
        about=attempt.recipient or f"somebody at {attempt.recipient_domain}",
        where=" by ".join(part for part in (attempt.relay, attempt.service) if part),
        text=attempt.reply or attempt.dsn,
        rule=attempt.rule,
        key=attempt.key,
        next_id=attempt.passed_on if goes_on else "",
    )


def _change(change: Change) -> Event:
    mark = Mark("■", change.kind, "warn")
    by = "" if change.by_whom == "engine" else f"by {change.by_whom}"
    return _event(change.time, mark, about=by, text=change.why, line=change.line, rule=change.rule, key=change.key)
