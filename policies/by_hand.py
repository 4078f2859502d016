"""Mail that an admin chose by a condition (a campaign, a tenant, a segment), and the pace that the admin gave it.

Knows what such a condition may ask and when such mail may leave; whatever servers reply changes nothing here.
"""

import math
import re
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Final, NamedTuple, Self

from parsers.condition import Condition, compile_expression
from parsers.expression import Field, Fields, FieldType, parse
from policies.key import EVERYWHERE, Key
from policies.limit import finite, or_infinite
from policies.subqueue import State

STREAM: Final = "stream"
"""Type of the key of such a sub-queue: `stream:summer-sale@*`."""

FIELDS: Final[Fields] = {
    name: Field(FieldType.TEXT)
    for name in (
        "provider", "recipient_domain", "sender", "sender_domain", "sending_domain", "tenant", "sasl_username",
        "campaign", "segment", "instance", "transport",
    )
}  # fmt: skip

_NAME: Final = re.compile("[a-z0-9][a-z0-9._-]{0,59}")
_CATCH_UP: Final = 3.0
"""Seconds' worth of unspent budget that is kept, as in other sub-queues."""
_EVEN: Final = 1e-9


class ChosenMail(NamedTuple):
    """What is known of a message, for one recipient's domain; None where it is not."""

    provider: str | None
    recipient_domain: str
    sender: str
    sender_domain: str
    sending_domain: str
    tenant: str
    campaign: str | None
    """From the log, so moments after the message arrived."""
    segment: str | None
    instance: str
    transport: str | None
    """Of its last attempt."""


class Requeueing(NamedTuple):
    """Queued mail of a transport is taken in anew by Postfix, and goes another way."""

    source: str
    """The transport that it was tried over."""
    to: str
    """Transport or pool:NAME; "": as Postfix sends such mail."""


def read_condition(where: str) -> Condition[ChosenMail]:
    """Raises ExpressionError."""
    return compile_expression(parse(where, FIELDS), _reader)


def _reader(field: str) -> Callable[[ChosenMail], object]:
    return attrgetter("tenant" if field == "sasl_username" else field)


def stream_key(where: str, name: str = "") -> Key:
    """Give the key for a condition: by its name, else by its words (`tenant = news` is stream:tenant-news@*).

    Raises ValueError for a name that a key cannot have.
    """
    made = name or re.sub("[^a-z0-9.]+", "-", where.lower())[:60].strip(".-")
    if not _NAME.fullmatch(made):
        raise ValueError(f"name {made!a}: wanted small letters, digits, dots and hyphens, at most 60, as summer-sale")
    return Key(STREAM, made, EVERYWHERE)


class ByHand:
    """Stands in a sub-queue for the machine that learns: paused, or at a pace, until somebody says otherwise."""

    def __init__(
        self, where: str, *, rate: float, until: float, now: float, requeueing: Requeueing | None = None
    ) -> None:
        """`rate`: messages a second, 0 for none; `until`: when it closes by itself, infinite: never.

        `requeueing`: its mail is not released but requeued; only mail that is there already.
        """
        self.where = where
        self.requeueing = requeueing
        self.since = now
        self._rate = rate
        self._until = until
        self._budget = 0.0
        self._budget_at = now
        self._closed = False

    @property
    def state(self) -> State:
        if self._closed:
            return State.CLOSED
        return State.RAMPING if self._rate else State.PAUSED

    @property
    def budget_per_s(self) -> float:
        return self._rate

    @property
    def next_step_at(self) -> float:
        return self._until

    def set_pace(self, rate: float, *, until: float, now: float) -> None:
        """Go on at another pace; as in __init__."""
        if bool(rate) is not bool(self._rate):
            self.since = now
        self._rate, self._until, self._budget, self._budget_at = rate, until, 0.0, now

    # What may leave, in the words of SubQueue.

    def allowance(self, *, now: float, held: int) -> int:
        if now >= self._until and not self._closed:
            self.close(now=now)
        if self._closed:
            return max(1, held)
        most = max(1 + self._rate, self._rate * _CATCH_UP)
        self._budget = min(most, self._budget + self._rate * max(0.0, now - self._budget_at))
        self._budget_at = max(self._budget_at, now)
        return max(0, math.floor(self._budget + _EVEN)) if self._rate else 0

    def passes(self, *, now: float, held: int) -> bool:
        return self.allowance(now=now, held=held) > 0 and (held == 0 or self._closed)

    def spent(self, count: int, *, now: float) -> None:  # noqa: ARG002  # a budget is spent whenever it is
        self._budget -= count

    def next_at(self, *, now: float, held: int) -> float:
        if self._closed:
            return now if held else math.inf
        whole = self._budget_at + max(0.0, 1 - self._budget) / self._rate + _EVEN if held and self._rate else math.inf
        return max(now, min(whole, self._until))

    # By hand.

    def pause(self, *, now: float, seconds: float | None = None) -> None:
        self.set_pace(0.0, until=math.inf if seconds is None else now + seconds, now=now)

    def hold(self, *, now: float, seconds: float) -> None:
        self.pause(now=now, seconds=seconds)

    def resume(self, *, now: float) -> None:
        """What ends a pause that waits for a repair does not end this one."""

    def close(self, *, now: float) -> None:
        self._closed, self.since = True, now

    # What became of attempts: nobody's word changes an admin's pace.

    def accepted(self, *, began: float, now: float) -> None: ...

    def refused(self, *, began: float, now: float) -> None: ...

    def talked(self, *, began: float, now: float) -> None: ...

    def void(self, *, now: float) -> None: ...

    # The store's side.

    def snapshot(self) -> dict[str, Any]:
        """Everything, in JSON's types."""
        return {"where": self.where, "rate": self._rate, "until": finite(self._until), "since": self.since,
                "budget": self._budget, "budget_at": self._budget_at, "closed": self._closed,
                "requeueing": self.requeueing}  # fmt: skip

    @classmethod
    def restore(cls, snapshot: Mapping[str, Any]) -> Self:
        """Take up where a snapshot was made."""
        until = or_infinite(snapshot["until"])
        led = snapshot.get("requeueing")
        requeueing = Requeueing(*led) if led else None
        restored = cls(
            snapshot["where"], rate=snapshot["rate"], until=until, now=snapshot["since"], requeueing=requeueing
        )
        restored._budget, restored._budget_at = snapshot["budget"], snapshot["budget_at"]
        restored._closed = snapshot["closed"]
        return restored
