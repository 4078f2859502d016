"""Where mail that was requeued is to go: recipient by recipient, for Postfix keeps no transport of it.

Knows when an entry has done its work: after as many final outcomes as messages were led by it, or when it is old.
"""

from collections.abc import Iterable, Mapping
from typing import Final

LIFETIME: Final = 5 * 86_400.0
"""Seconds after which an entry goes, whatever became of its mail: Postfix's own limit for a message (postconf(5))."""
MOST: Final = 20_000
"""Recipients at most: Postfix looks each of them up in a table that somebody has to keep."""


class _Led:
    __slots__ = ("messages", "since", "transport")

    def __init__(self, transport: str, since: float) -> None:
        self.transport = transport
        self.since = since
        self.messages = 0


class Redirects:
    def __init__(self) -> None:
        self._led: dict[str, _Led] = {}
        self.settled_any = False
        """Whether an entry has gone since the table was last written."""

    def __bool__(self) -> bool:
        return bool(self._led)

    def __len__(self) -> int:
        return len(self._led)

    def lead(self, recipients: Iterable[str], transport: str, *, now: float) -> None:
        """One more message for each of them goes over a transport; the last word counts for all of a recipient's."""
        for recipient in recipients:
            address = recipient.lower()
            led = self._led.setdefault(address, _Led(transport, now))
            led.transport, led.since = transport, now
            led.messages += 1

    def settled(self, recipient: str) -> None:
        """A message to this recipient is delivered, or returned."""
        address = recipient.lower()
        led = self._led.get(address)
        if led is None:
            return
        led.messages -= 1
        if led.messages <= 0:
            del self._led[address]
            self.settled_any = True

    def forget_old(self, *, now: float) -> None:
        for address in [address for address, led in self._led.items() if now - led.since > LIFETIME]:
            del self._led[address]
            self.settled_any = True

    def restore(self, table: Mapping[str, str], *, now: float) -> None:
        """Take back what the table says after a restart; how many messages are under way nobody knows: one each."""
        for address, transport in table.items():
            if address not in self._led:
                self.lead([address], transport, now=now)

    def table(self) -> dict[str, str]:
        """Give transports by address in small letters, as Postfix looks them up (transport(5))."""
        return {address: led.transport for address, led in self._led.items()}


def can_lead(recipient: str) -> bool:
    """Whether a table can name this recipient: postmap reads a key up to the first blank, and takes # for a remark.

    What is no text (bytes that are no UTF-8, control characters) is not given to it at all.
    """
    named = "@" in recipient and recipient.isprintable() and not recipient.startswith("#")
    return named and not any(c.isspace() or c in '"\\' for c in recipient)
