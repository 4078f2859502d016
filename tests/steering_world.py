"""A steering in a world that one can keep in mind: a pool of three addresses, a plan for the new one, rules for signs."""

from typing import Any

from policies.canary import Canary
from policies.commands import Attempt
from policies.key import Key
from policies.pools import Member, Pool, checked
from policies.reacting import Do, Reactions, Rule, Signal
from policies.routing import Mail, Route, compiled, read_route
from policies.steering import Settings, Steered, Steering
from policies.warm_up import DAY, Plan, WarmUps

FIRST = 20_000
BEGIN = FIRST * DAY
POOL = Pool("bulk", (Member("ip-1"), Member("ip-2"), Member("ip-3")), otherwise="last")
TO_POOL = read_route("pool:bulk", "tenant = newsletter")
PLAN = Plan("ip-3", FIRST, 100, 1.5, 10_000)
RULES = (
    Rule("listed", Signal.LISTED, Do.LEAVE_POOL),
    Rule("blocked", Signal.IP_BLOCKED, Do.LEAVE_POOL),
    Rule("doubtful", Signal.REPUTATION, Do.ISOLATE, to="pool:doubtful"),
    Rule("broken", Signal.AUTHENTICATION, Do.PAUSE),
)
DOUBTFUL = Pool("doubtful", (Member("ip-9"),))
CANARY = Canary("new-template", 0.1, "ip-8", 500)
ADDRESSES = {"192.0.2.1": ("ip-1",), "192.0.2.2": ("ip-2",), "192.0.2.3": ("ip-3",)}
MAIL = Mail(
    "google", "ann@gmail.com", "gmail.com", "news@shop.example", "shop.example", "shop.example", "newsletter",
    "198.51.100.7", "postfix", 20_000, 1,
)  # fmt: skip


class Hands:
    def hold(self, key: Key, seconds: float, *, rule: str, line: str, by_whom: str, now: float) -> None: ...

    def open(self, key: Key, *, rule: str, line: str = "", by_whom: str, now: float) -> None: ...

    def resume(self, key: Key, *, by_whom: str, now: float) -> bool:  # noqa: ARG002  # nothing is held here
        return False


class World:
    """Asks a steering, and remembers what it told."""

    def __init__(
        self,
        *,
        plans: tuple[Plan, ...] = (),
        rules: tuple[Rule, ...] = RULES,
        canary: str = "",
        pools: tuple[Pool, ...] = (POOL, DOUBTFUL),
        **settings: Any,
    ) -> None:
        self.said: list[str] = []
        self.lines: list[str] = []
        canaries = ((CANARY, compiled(read_route("ip-8", canary, name="canary-new-template"))),) if canary else ()
        self.settings = Settings(checked(pools), canaries, ADDRESSES, **settings)
        self.steering = Steering(self.settings, WarmUps(plans), Reactions(rules, Hands()), tell=self.tell)

    def tell(self, kind: str, why: str, *, now: float, line: str = "", rule: str = "", by_whom: str) -> None:  # noqa: ARG002  # not of interest
        self.said.append(f"{kind} {why} by {by_whom}")
        self.lines.append(line)

    def ask(
        self, queue_id: str, *, mail: Mail = MAIL, route: Route | None = TO_POOL, now: float = BEGIN, **counts: int
    ) -> Steered | None:
        return self.steering.steer(route, mail, counts or {mail.provider or "": 1}, queue_id, now=now)

    def send(self, queue_id: str, **more: Any) -> str:
        """Where a message went."""
        found = self.ask(queue_id, **more)
        transport = found.transport if found else ""
        mail = more.get("mail", MAIL)
        counts = {name: more[name] for name in more if name not in {"mail", "route", "now"}} or {mail.provider or "": 1}
        self.steering.answered(transport, counts, ("postfix", queue_id), now=more.get("now", BEGIN))
        return transport

    def delivered(self, queue_id: str, service: str, *, now: float = BEGIN, **differs: Any) -> None:
        """The log says what became of it."""
        self.steering.attempted(attempt(queue_id, service, now=now)._replace(**differs), now=now)


def attempt(queue_id: str, service: str, *, now: float = BEGIN) -> Attempt:
    """One that google accepted."""
    return Attempt(
        now, "mx", "postfix", queue_id, "shop.example", "gmail.com", "google", "mx.google.com[192.0.2.9]:25", "2.0.0", "sent",
        "", "", "", "", 1.0, "", service=service,
    )  # fmt: skip
