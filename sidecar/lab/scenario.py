"""Scenario files of the lab: TOML in, frozen values out, every mistake named with its file and key.

What a field means stands beside it; what a kind of limit needs stands in the table `NEEDS`.
"""

import dataclasses
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from sidecar.toml_table import ConfigError, read_table

SCENARIOS = Path(__file__).parent / "scenarios"


NULL_SENDER = "<>"


class Via(StrEnum):
    SMTP = "smtp"
    PICKUP = "pickup"
    """sendmail(1): no policy check sees it."""


class By(StrEnum):
    """Whom a limit counts."""

    DKIM = "dkim"
    SPF = "spf"
    ENVELOPE = "envelope"
    IP = "ip"
    RECIPIENT = "recipient"


class Kind(StrEnum):
    """How a limit behaves; the models are in `limits`."""

    WINDOW = "window"
    BUCKET = "bucket"
    PENALTY = "penalty"
    PENALTY_EXTENDED = "penalty-extended"
    REPUTATION = "reputation"
    CONNECTIONS = "connections"
    MOVING = "moving"
    RANDOM = "random"
    SHARED = "shared"


class Stage(StrEnum):
    """Where in the SMTP dialogue a limit or a fault speaks."""

    CONNECT = "connect"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    END_OF_DATA = "end-of-data"


class FaultKind(StrEnum):
    """What goes wrong; `target` is a provider, a part of the sidecar, or nothing."""

    GREETING_DELAY = "greeting-delay"
    """Provider: the 220 comes after `delay` seconds."""
    TARPIT = "tarpit"
    """Provider: the answer to DATA comes after `delay` seconds."""
    SLOW_DATA = "slow-data"
    """Provider: the answer to the end of DATA comes after `delay` seconds."""
    DROP = "drop"
    """Provider: the connection is cut at `stage`."""
    REFUSE = "refuse"
    """Provider: `reply` (4xx or 5xx) at `stage`, to everybody."""
    RELOAD = "reload"
    """Postfix: postfix reload."""
    RESTART = "restart"
    """Postfix: postfix stop, postfix start."""
    KILL = "kill"
    """Sidecar: kill -9 of all its processes, then a new start after `delay` seconds."""
    FREEZE = "freeze"
    """Sidecar: SIGSTOP of all its processes, SIGCONT after `delay` seconds."""
    ROTATE = "rotate"
    """Mail log: renamed, as logrotate does it, and Postfix told (postfix logrotate)."""


@dataclass(frozen=True, slots=True)
class Sender:
    domain: str
    """Header From and, unless `spf` and `dkim` say otherwise, envelope and signature. "{n}" in it (and in
    those two) stands for the number of the copy, see `count`."""
    to: tuple[str, ...]
    """Names of providers: each message goes to the next one; with `recipients` above 1, to several at once."""
    dkim: str = ""
    """d= of the signature; empty: `domain`."""
    spf: str = ""
    """Envelope domain; empty: `domain`; "<>": the null sender."""
    rate: float = 0.0
    """Messages a second, steady with jitter, for the whole run."""
    burst: int = 0
    """So many messages as fast as smtpd takes them, beginning `at` seconds after the start."""
    at: float = 0.0
    via: Via = Via.SMTP
    recipients: int = 1
    """Recipients of each message."""
    mailboxes: int = 1000
    """Optional: how many different mailboxes the recipients are drawn from."""
    count: int = 1
    """Optional: so many senders of this kind."""
    size: int = 600
    """Optional: bytes of the body."""
    retry_s: float = 0.0
    """Optional: what smtpd puts off (4xx) is handed over again after so many seconds; 0: never, it counts as rejected."""


@dataclass(frozen=True, slots=True)
class Limit:
    by: By
    kind: Kind
    n: int = 0
    """Window: accepted in each `per`. Connections: at the same time."""
    per: float = 0.0
    """Window: seconds. Shared and moving: seconds between changes. Scaled."""
    rate: float = 0.0
    """Accepted a second."""
    burst: int = 1
    """Depth of the bucket."""
    penalty: float = 0.0
    """Seconds for which the first refusal shuts the identity out. Scaled."""
    stage: Stage = Stage.END_OF_DATA
    reply: str = ""
    """What is said; empty: the documented reply of the provider of that name (see `replies`). {identity}, {ip},
    {recipient} and {sender} are filled in; a line break makes it a multi-line reply. 421 closes the connection."""
    share: float = 0.1
    """Optional: random: part refused. Shared: part of the rate that other traffic takes, on average."""
    factor: float = 3.0
    """Optional: moving: the rate is divided by it, then multiplied, then restored, a step each `per`."""


@dataclass(frozen=True, slots=True)
class Provider:
    name: str
    domains: tuple[str, ...]
    mx: tuple[str, ...]
    """Host names; each gets an address of its own on loopback."""
    transaction_s: float = 0.3
    """What the end of DATA takes. Never scaled."""
    limit: tuple[Limit, ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    kind: FaultKind
    at: float = 0.0
    target: str = ""
    """A provider's name for what a provider does; empty for the rest."""
    seconds: float = 0.0
    """Optional: how long a provider's fault lasts; 0: to the end."""
    delay: float = 30.0
    """Optional: see the kinds."""
    stage: Stage = Stage.END_OF_DATA
    """Optional: see the kinds."""
    reply: str = "451 4.3.0 Temporary system problem, try again later"
    """Optional: see the kinds."""


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    seconds: float
    sender: tuple[Sender, ...]
    provider: tuple[Provider, ...]
    seed: int = 1
    scale: float = 1.0
    """Divides windows, penalties, pauses and Postfix's back-off times; never transaction or reaction time."""
    hosts: int = 0
    """Optional: so many hosts in networks of their own, which share their sub-queues through one Redis and the senders'
    mail among them; 0: one host, without."""
    fault: tuple[Fault, ...] = ()
    main_cf: tuple[str, ...] = ()
    """Optional: "name = value" settings of main.cf, over those of the lab."""
    master_cf: tuple[str, ...] = ()
    """Optional: lines that are added to master.cf."""
    sidecar: tuple[str, ...] = ()
    """Optional: lines of the sidecar's own configuration, after those of the lab."""

    def senders(self) -> tuple[Sender, ...]:
        """All senders, copies (`count`) written out."""
        return tuple(copy for sender in self.sender for copy in _copies(sender))

    def provider_named(self, name: str) -> Provider:
        return next(provider for provider in self.provider if provider.name == name)


def _copies(sender: Sender) -> Iterator[Sender]:
    for number in range(1, sender.count + 1):
        domain = sender.domain.replace("{n}", f"{number:03}")
        yield dataclasses.replace(
            sender,
            domain=domain,
            dkim=(sender.dkim or domain).replace("{n}", f"{number:03}"),
            spf=(sender.spf or domain).replace("{n}", f"{number:03}"),
            count=1,
        )


def without_bursts(scenario: Scenario) -> Scenario:
    """The quiet run: the same steady senders, nobody bursts."""
    steady = tuple(dataclasses.replace(sender, burst=0) for sender in scenario.sender if sender.rate > 0)
    return dataclasses.replace(scenario, sender=steady)


def names() -> list[str]:
    """Scenarios that ship with the lab."""
    return sorted(path.stem for path in SCENARIOS.glob("*.toml"))


def find(name_or_file: str) -> Path:
    """The file of a shipped scenario, or the file itself.

    Raises ConfigError when there is neither.
    """
    shipped = SCENARIOS / f"{name_or_file}.toml"
    if shipped.is_file():
        return shipped
    path = Path(name_or_file)
    if not path.is_file():
        raise ConfigError(f"{name_or_file}: no such scenario; wanted a TOML file or one of {', '.join(names())}")
    return path


def load(path: Path) -> Scenario:
    """Read and check one scenario file.

    Raises ConfigError.
    """
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}") from error
    return read(text, file=path)


def read(text: str, *, file: Path) -> Scenario:
    """Read and check the text of a scenario; `file` is for the messages.

    Raises ConfigError.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from error
    scenario = read_table(Scenario, table, file=file)
    for fault in _mistakes(scenario):
        raise ConfigError(f"{file}: {fault.key}: {fault.said}")
    return scenario


class Mistake(NamedTuple):
    key: str
    said: str


NEEDS: dict[Kind, Sequence[str]] = {
    Kind.WINDOW: ("n", "per"),
    Kind.BUCKET: ("rate", "burst"),
    Kind.PENALTY: ("rate", "burst", "penalty"),
    Kind.PENALTY_EXTENDED: ("rate", "burst", "penalty"),
    Kind.REPUTATION: ("rate", "burst"),
    Kind.CONNECTIONS: ("n",),
    Kind.MOVING: ("rate", "burst", "per", "factor"),
    Kind.RANDOM: ("share",),
    Kind.SHARED: ("rate", "burst", "per", "share"),
}
"""Which keys of a limit its kind reads; each must be above 0."""

FIRST_STAGE: dict[By, Stage] = {
    By.IP: Stage.CONNECT,
    By.SPF: Stage.MAIL,
    By.ENVELOPE: Stage.MAIL,
    By.RECIPIENT: Stage.RCPT,
    By.DKIM: Stage.END_OF_DATA,
}
"""The earliest moment at which a provider can know whom it counts."""

_ORDER = list(Stage)
_PROVIDER_FAULTS = frozenset(
    {FaultKind.GREETING_DELAY, FaultKind.TARPIT, FaultKind.SLOW_DATA, FaultKind.DROP, FaultKind.REFUSE}
)


def _mistakes(scenario: Scenario) -> Iterator[Mistake]:
    known = [provider.name for provider in scenario.provider]
    for i, sender in enumerate(scenario.sender):
        yield from _sender_mistakes(sender, f"sender[{i}].", known)
    for i, provider in enumerate(scenario.provider):
        if provider.name in known[:i]:
            yield Mistake(f"provider[{i}].name", f"{provider.name!r} is there twice; wanted a name of its own")
        yield from _provider_mistakes(provider, f"provider[{i}].", scenario.provider[:i])
    for i, fault in enumerate(scenario.fault):
        if fault.kind in _PROVIDER_FAULTS and fault.target not in known:
            yield Mistake(f"fault[{i}].target", f"found {fault.target!r}, wanted a provider: {', '.join(known)}")
    for i, setting in enumerate(scenario.main_cf):
        if "=" not in setting:
            yield Mistake(f"main_cf[{i}]", f'found {setting!r}, wanted "name = value"')


def _sender_mistakes(sender: Sender, prefix: str, known: Sequence[str]) -> Iterator[Mistake]:
    if not sender.to:
        yield Mistake(f"{prefix}to", f"empty; wanted at least one provider of {', '.join(known)}")
    for name in sender.to:
        if name not in known:
            yield Mistake(f"{prefix}to", f"no provider is called {name!r}; there are {', '.join(known)}")
    if sender.rate == 0 and sender.burst == 0:
        yield Mistake(f"{prefix}rate", "sends nothing; wanted rate or burst above 0")
    if sender.count > 1 and "{n}" not in sender.domain:
        yield Mistake(f"{prefix}domain", f"found {sender.domain!r}, wanted {{n}} in it, as count is {sender.count}")


def _provider_mistakes(provider: Provider, prefix: str, before: Sequence[Provider]) -> Iterator[Mistake]:
    for key in ("domains", "mx"):
        if not getattr(provider, key):
            yield Mistake(f"{prefix}{key}", "empty; wanted at least one name")
    for other in before:
        for domain in sorted({*provider.domains} & {*other.domains}):
            yield Mistake(f"{prefix}domains", f"{domain!r} belongs to {other.name} already; wanted one of its own")
    for i, limit in enumerate(provider.limit):
        yield from _limit_mistakes(limit, f"{prefix}limit[{i}].")


def _limit_mistakes(limit: Limit, prefix: str) -> Iterator[Mistake]:
    for key in NEEDS[limit.kind]:
        if getattr(limit, key) <= 0:
            yield Mistake(f"{prefix}{key}", f"missing or not above 0; kind {limit.kind} wants it")
    first = FIRST_STAGE[limit.by]
    if _ORDER.index(limit.stage) < _ORDER.index(first):
        yield Mistake(
            f"{prefix}stage", f"found {limit.stage}, wanted {first} or later: by {limit.by} is unknown before"
        )
    if limit.reply and limit.reply[:1] not in {"4", "5"}:
        yield Mistake(f"{prefix}reply", f"found {limit.reply!r}, wanted a 4xx or 5xx reply")
    if not 0 <= limit.share < 1:
        yield Mistake(f"{prefix}share", f"found {limit.share}, wanted 0 to 1")
