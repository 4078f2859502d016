"""Core's figures out of a short log: what /metrics shows when everything has happened once."""

from datetime import UTC
from types import SimpleNamespace
from typing import Any, cast

from parsers.log import LogReader
from parsers.policy_protocol import Hold
from policies.engine import Engine
from policies.figures import Kind
from policies.fleet.host import Host
from policies.hygiene import Hygiene, Levels
from policies.key import EVERYWHERE
from policies.reacting import Signal
from policies.signs import Sign
from policies.site import Settings
from policies.steering import Steering
from policies.watching import Watching
from sidecar import rules
from sidecar.config import Config
from sidecar.core_figures import figures
from sidecar.core_parts import Lag, Parts
from sidecar.fleet.exchange import Exchange
from sidecar.fleet.redis_store import RedisStore
from sidecar.hygiene import packaged
from sidecar.policy_tally import Tally
from tests.quota_world import admitted, quota, quotas
from tests.steering_world import BEGIN, PLAN
from tests.steering_world import World as Steered
from tests.world import RULES

NOW = 1_800_000_000.0
GOOGLE = "relay=gmail-smtp-in.l.google.com[192.0.2.1]:25"
THROTTLED = (
    f"postfix/lane-01/smtp[7]: Q2: to=<b@gmail.com>, {GOOGLE}, delay=3, delays=1/0/1/1, dsn=4.7.28, status=deferred"
    " (host gmail-smtp-in.l.google.com[192.0.2.1] said: 421-4.7.28 Gmail has detected an unusual rate of unsolicited"
    " mail originating from your DKIM domain [s.example 35]. 421 4.7.28 gsmtp (in reply to end of DATA command))"
)
LINES = (
    "postfix/qmgr[6]: Q1: from=<x@s.example>, size=9, nrcpt=1 (queue active)",
    (
        f"postfix/lane-01/smtp[7]: Q1: to=<a@gmail.com>, {GOOGLE}, delay=1.5, delays=1/0/0/0.5, dsn=2.0.0, status=sent"
        " (250 2.0.0 OK)"
    ),
    "postfix/qmgr[6]: Q1: removed",
    "postfix/qmgr[6]: Q2: from=<x@s.example>, size=9, nrcpt=1 (queue active)",
    THROTTLED,
    "postfix/qmgr[6]: Q3: from=<x@s.example>, size=9, nrcpt=1 (queue active)",
    (
        f"postfix/smtp[7]: Q3: to=<c@gmail.com>, {GOOGLE}, delay=9, delays=1/0/1/7, dsn=4.2.2, status=deferred"
        " (host gmail-smtp-in.l.google.com[192.0.2.1] said: 452 4.2.2 The recipient's inbox is out of storage space."
        " (in reply to RCPT TO command))"
    ),
    "postfix/qmgr[6]: Q3: from=<x@s.example>, status=expired, returned to sender",
    "postfix/cleanup[5]: Q4: message-id=<4@s.example>",
    "postfix/smtpd[9]: fatal: no SASL authentication mechanisms",
    "postfix/smtpd[9]: a line of no known shape",
)


def core_parts(*lines: str) -> tuple[Parts, Lag]:
    """Core after these lines, with a policy service that was asked and a store that takes writes."""
    reader = LogReader(zone=UTC, reference=NOW, syslog_names=())
    engine = Engine(RULES, rules.organizational_domain, Settings(act=True))
    watching, tally, lag = Watching(since=NOW - 100.0), Tally(), Lag(NOW, NOW + 3.0)
    for line in lines:
        for fact in reader.block_facts(f"2027-01-15T08:00:00+00:00 mx {line}".encode()):
            engine.observe(fact, now=NOW)
            watching.observe(fact, now=NOW)
    tally.requests["RCPT"] += 3
    tally.took(0.0002, 3)
    tally.acted("Q9", Hold(""), b"action=HOLD\n\n", "")
    tally.failed_open(KeyError("x"))
    tally.closed("protocol", "bytes")
    made = quotas(quota())
    admitted(made, 11)
    parts = Parts(
        config=Config(),
        instances=(),
        engine=engine,
        reader=reader,
        store=cast("Any", None),
        store_thread=cast("Any", None),
        ledger=cast("Any", SimpleNamespace(last_failure="", rows_dropped=0)),
        hands=cast("Any", SimpleNamespace(reachable=True)),
        access=cast("Any", None),
        policy=cast("Any", SimpleNamespace(figures=lambda: tally.figures(connections=2))),
        watching=watching,
        quotas=cast("Any", SimpleNamespace(quotas=made)),
        steering=steering(),
        hygiene=Hygiene(Levels(), packaged()),
        fleet=Exchange(Host("mx1", engine, steady=lambda: NOW), RedisStore("unix:///nonexistent")),
        shared_suppressions=cast(
            "Any", SimpleNamespace(waiting=3, dropped=1, bad=0, silent="", hearing=SimpleNamespace(missed={"mx2"}))
        ),
    )
    return parts, lag


def steering() -> Steering:
    """A warm-up, an address that is listed, a canary."""
    at = Steered(plans=(PLAN,), canary="tenant = shop")
    for number in range(20):
        at.send(f"4cG{number:06d}")
    at.steering.signs([Sign(Signal.LISTED, Kind.ADDRESS, "192.0.2.1", EVERYWHERE, "listed by zen")], now=BEGIN)
    return at.steering


def answer(*lines: str) -> dict[str, Any]:
    """Core's answer to the control command "metrics"."""
    parts, lag = core_parts(*(lines or LINES))
    return figures(parts, lag=lag)
