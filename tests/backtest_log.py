"""A log written by hand, line by line: who sends, what became of it, and when."""

from datetime import UTC, datetime

from tests.world import GOOGLE_DKIM

BEGIN = datetime(2025, 11, 21, 10, tzinfo=UTC).timestamp()
RELAYS = {
    "gmail.com": "gmail-smtp-in.l.google.com",
    "yahoo.com": "mta5.am0.yahoodns.net",
    "comcast.net": "mx1a1.comcast.net",
}
THROTTLED = GOOGLE_DKIM.format(domain="burst.example")
RATE_LIMITED = f"host {RELAYS['gmail.com']}[192.0.2.1] said: {THROTTLED} (in reply to end of DATA command)"
ACCEPTED = "250 2.0.0 OK"
SUSPENDED = f"delivery temporarily suspended: {RATE_LIMITED}"


class LogText:
    """`at` is in seconds from BEGIN."""

    def __init__(self, host: str = "mx1", instance: str = "postfix") -> None:
        self._lines: list[tuple[float, int, str]] = []
        self._host = host
        self._instance = instance
        self._ids = 0

    def say(self, at: float, daemon: str, text: str) -> None:
        stamp = datetime.fromtimestamp(BEGIN + at, UTC).isoformat(timespec="milliseconds")
        line = f"{stamp} {self._host} {self._instance}/{daemon}[11]: {text}"
        self._lines.append((at, len(self._lines), line))

    def arrives(self, at: float, *, sender: str = "n@burst.example", nrcpt: int = 1, picked_up: bool = False) -> str:
        """A message is received and becomes active; gives its queue id."""
        self._ids += 1
        queue_id = f"4jX2kb{self._ids:05d}".translate(str.maketrans("0123456789", "BCDFGHJKLM")) + "zBrk"
        if picked_up:
            self.say(at, "pickup", f"{queue_id}: uid=0 from=<{sender}>")
        else:
            self.say(at, "smtpd", f"{queue_id}: client=c[192.0.2.9]")
        self.active(at, queue_id, sender=sender, nrcpt=nrcpt)
        return queue_id

    def active(self, at: float, queue_id: str, *, sender: str = "n@burst.example", nrcpt: int = 1) -> None:
        self.say(at, "qmgr", f"{queue_id}: from=<{sender}>, size=9, nrcpt={nrcpt} (queue active)")

    def outcome(
        self, at: float, queue_id: str, status: str, *, to: str = "u@gmail.com", reason: str = "", took: float = 0.5,
        waited: float = 0.0,
    ) -> None:  # fmt: skip
        """An attempt ends: it took so long, after its turn was waited for."""
        domain = to.rpartition("@")[2]
        reason = reason or (ACCEPTED if status == "sent" else RATE_LIMITED)
        relay = "none" if reason == SUSPENDED else f"{RELAYS[domain]}[192.0.2.1]:25"
        dsn = {"sent": "2.0.0", "bounced": "5.7.1"}.get(status, "4.7.28")
        self.say(
            at,
            "smtp",
            f"{queue_id}: to=<{to}>, relay={relay}, delay={took + waited}, delays=0/{waited}/0/{took}, dsn={dsn}, "
            f"status={status} ({reason})",
        )

    def removed(self, at: float, queue_id: str) -> None:
        self.say(at, "qmgr", f"{queue_id}: removed")

    def message(self, at: float, status: str, *, to: str = "u@gmail.com", sender: str = "n@burst.example", waited: float = 0.0) -> str:  # fmt: skip
        """One recipient, one attempt, half a second."""
        queue_id = self.arrives(at, sender=sender)
        self.outcome(at + 0.5 + waited, queue_id, status, to=to, waited=waited)
        if status != "deferred":
            self.removed(at + 0.6 + waited, queue_id)
        return queue_id

    @property
    def lines(self) -> list[str]:
        return [line for _, _, line in sorted(self._lines)]

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for line in self.lines)
