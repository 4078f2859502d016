"""Lists in memory, digests that one can read, and outcomes by a word: a world for suppression with the clock in hand."""

from parsers.address import domain_of
from policies.classify import Said
from policies.suppression import Add, End, Listed, Move, Outcome, Rules, Suppressing
from policies.verdict import Verdict
from sidecar.rules import load

RULES = load()
NO_SUCH_USER = "550 5.1.1 <{to}>: Recipient address rejected: User unknown in virtual mailbox table"
FULL = "452 4.2.2 The recipient's inbox is out of storage space and inactive. - gsmtp"
BLOCKED = "550 5.7.1 Service unavailable; Client host [192.0.2.7] blocked using Spamhaus"
THROTTLED = "421 4.7.28 Gmail has detected an unusual rate of mail originating from your IP address - gsmtp"
NO_DOMAIN = "Host or domain name not found. Name service error for name=gone.example type=MX: Host not found"
START = 1_800_000_000.0


class Lists:
    """The book of this world: the digest of an address is its text."""

    def __init__(self) -> None:
        self.entries: dict[bytes, list[Listed]] = {}

    def digest(self, address: str) -> bytes:
        return address.lower().encode()

    def find(self, address: str) -> tuple[Listed, ...]:
        return self.listed(self.digest(address))

    def listed(self, who: bytes) -> tuple[Listed, ...]:
        return tuple(self.entries.get(who, ()))

    def apply(self, move: Add | End) -> None:
        entries = self.entries.setdefault(move.who, [])
        if isinstance(move, End):
            entries.remove(move.listed)
        elif move.listed not in entries:
            entries.append(move.listed)


class Post:
    """Mail goes out, answers come back, time passes."""

    def __init__(self, rules: Rules = Rules(), *, hashed: bool = False) -> None:  # noqa: B008  # a frozen value
        self.lists = Lists()
        self.suppressing = Suppressing(rules, self.lists, hashed=hashed)
        self.now = START
        self.moves: list[Move] = []

    def answer(self, address: str, reply: str = "", *, provider: str = "google", remote: bool = True) -> None:
        """An attempt ended; "" is a delivery."""
        verdict = verdict_of(reply, address) if reply else None
        line = f"to=<{address}>, status=... ({reply})"
        who = self.lists.digest(address)
        outcome = Outcome(who, address, provider, remote, verdict, line, "shop.example")
        self.suppressing.heard(outcome, now=self.now)
        self._drain()

    def wait(self, seconds: float) -> None:
        """Time passes by the lines of others: mail that a provider nobody cares for has deferred."""
        self.now += seconds
        self.answer("other@else.example", THROTTLED, provider="else")

    def _drain(self) -> None:
        self.moves += self.suppressing.moves
        self.suppressing.moves.clear()

    @property
    def suppressed(self) -> list[str]:
        return sorted(who.decode() for who, listed in self.lists.entries.items() if listed)


def verdict_of(reply: str, address: str) -> Verdict:
    """Of a reply as a server gives it, or of what Postfix itself finds."""
    said = reply.replace("{to}", address)
    if reply[0].isdigit():
        said = f"host mx.example.net[192.0.2.9] said: {said} (in reply to RCPT TO command)"
    return RULES.classify(Said(said, "", domain_of(address)))
