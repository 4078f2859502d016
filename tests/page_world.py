"""A site on one bad morning, for the status page: stores and a core that say the same each time they are made."""

import asyncio
import contextlib
import dataclasses
import math
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from parsers.feeds.asking import Trouble
from parsers.feeds.dnsbl import Severity
from parsers.observation import Observation, Outcome
from policies.cadence import Standing
from policies.canary import Arm, Trial, nothing_counted
from policies.commands import Attempt, Change, Received, Removed
from policies.figures import Kind
from policies.incidents import Incident, Member, Phase, Surroundings
from policies.key import EVERYWHERE
from policies.note import Note, NoteKind
from policies.queue_age import QueueAge
from policies.reacting import Do, Reaction, Signal
from policies.warm_up import Level
from policies.windows import Counts
from sidecar import outside
from sidecar.config import (
    CanaryConfig,
    Config,
    FeedsConfig,
    GooglePostmasterConfig,
    PoolConfig,
    PoolMember,
    ReactConfig,
    SndsConfig,
    StoreConfig,
    WarmUpConfig,
    WebConfig,
)
from sidecar.control import Handler, serve_control
from sidecar.incident_store import IncidentStore, Looked
from sidecar.metrics import OutsideFigures
from sidecar.outside import application
from sidecar.outside_store import OutsideStore
from sidecar.page import access
from sidecar.page.app import StatusPage
from sidecar.pool_rows import PoolRows
from sidecar.report_store import EventRow, MailRow, ReportStore
from sidecar.store import Store
from sidecar.store_rows import Commit, HeldBy, HoldRow, SubQueueRow
from sidecar.web import serve_web

NOW = 1_800_000_000.0  # Friday, 15 January 2027, 08:00 UTC
HOUR, DAY = 3600.0, 86_400.0
GOOGLE = (
    "Jan 15 07:33:00 mx1 postfix/smtp[2213]: 4hXr5T1xZkz9qKd: to=<pat@gmail.example>, "
    "relay=gmail-smtp-in.l.google.com[192.0.2.26]:25, delay=1.9, delays=0.1/0/0.4/1.4, dsn=4.7.28, status=deferred "
    "(host gmail-smtp-in.l.google.com[192.0.2.26] said: 421-4.7.28 Gmail has detected an unusual rate of unsolicited "
    "mail originating from your DKIM domain [shop.example 35]. (in reply to end of DATA command))"
)
GOOGLE_TOO = (
    GOOGLE.replace("07:33:00", "07:44:15").replace("4hXr5T1xZkz9qKd", "4hXr6W3bYtz9qLe").replace("shop.", "news.")
)
COMCAST = (
    "Jan 15 07:34:50 mx1 postfix/smtp[2190]: 4hXr4Q0cPbz9qJf: to=<kim@comcast.example>, "
    "relay=mx1a1.comcast.net[192.0.2.44]:25, delay=3.2, dsn=4.2.0, status=deferred (host mx1a1.comcast.net[192.0.2.44] "
    "said: 451 4.2.0 Throttled - try again later RL000010 (in reply to MAIL FROM command))"
)
YAHOO = (
    "Jan 15 07:05:00 mx1 postfix/smtp[1877]: 4hXp2L5mNvz9qGs: to=<lee@yahoo.example>, "
    "relay=mta5.am0.yahoodns.net[192.0.2.77]:25, delay=2.2, dsn=4.7.0, status=deferred (host mta5.am0.yahoodns.net"
    "[192.0.2.77] said: 421 4.7.0 [TSS04] Messages from 192.0.2.7 temporarily deferred due to unexpected volume)"
)
CRAFTED = (
    "Jan 15 07:15:00 mx1 postfix/smtp[1612]: 4hXn0R2qWxz9qFb: to=<a@b.example>, dsn=4.7.1, status=deferred "
    '(host x said: 450 4.7.1 <script>alert("you")</script> &amp; \x1b[31mred\u202e)'
)
SUBQUEUES = (
    ("dkim-domain:shop.example@google", "paused", 720, 2847, 0.0, 480, GOOGLE, "google/rate-dkim-domain"),
    ("sender-domain:news.example@comcast", "ramping", 610, 312, 1.75, 40, COMCAST, "comcast/rl000010"),
    ("ip:192.0.2.7@yahoo", "ramping", 2400, 96, 4.2, 75, YAHOO, "yahoo/tss04"),
    ("dkim-domain:news.example@google", "probing", 45, 58, 0.0, 555, GOOGLE_TOO, "google/rate-dkim-domain"),
    ("sender-domain:clinic.example@microsoft", "closed", 200, 0, 50.0, -200, "", "by-hand"),
    ("spf-domain:crafted.example@b.example", "paused", 1800, 3, 0.0, 1800, CRAFTED, "generic/policy"),
)


def said(row: tuple[str, str, float, int, float, float, str, str]) -> dict[str, Any]:
    key, state, since, held, pace, step, line, rule = row
    return {
        "key": key, "state": state, "since": NOW - since, "held": held, "let_out": 0, "probe": "",
        "budget_per_s": pace, "next_step_at": NOW + step, "opened_by": {"line": line, "rule": rule},
        "unheld_attempts": 4 if state == "paused" else 0,
    }  # fmt: skip


STATUS: dict[str, Any] = {
    "mode": "act",
    "subqueues": [said(each) for each in SUBQUEUES],
    "held_total": sum(each[3] for each in SUBQUEUES),
    "messages_live": 4180,
    "log": {"source": "/var/log/mail.log", "lag_s": 0.12, "lines": 18_442_107, "unknown": {}},
    "policy": {"requests": {"RCPT": 1_204_551, "END-OF-MESSAGE": 601_120}, "fail_open": {}},
    "helper": {"reachable": True},
    "store": {"failure": "", "recovered": ""},
}
COMMANDS: dict[str, Handler] = {"status": lambda _: STATUS, "health": lambda _: {"log_lag_s": 0.1}}


def config(directory: Path, **web: Any) -> Config:
    feeds = FeedsConfig(google_postmaster=GooglePostmasterConfig(enabled=True), snds=SndsConfig(enabled=True))
    return Config(
        runtime_directory=str(directory),
        store=StoreConfig(path=str(directory)),
        web=WebConfig(**web),
        feeds=feeds,
        pool=(PoolConfig("bulk", (PoolMember("ip-1", 2.0), PoolMember("ip-2"))),),
        warm_up=(WarmUpConfig("ip-2", "2027-01-04", 200, 50_000), WarmUpConfig("ip-3", "2027-02-01", 200, 50_000)),
        canary=(CanaryConfig("spring-template", "tenant = newsletter", "ip-2"),),
        react=(ReactConfig("listed-leaves", Signal.LISTED, Do.LEAVE_POOL),),
    )


# What the stores say.


def filled(directory: Path) -> None:
    """Both stores of the site."""
    core = Store.open(directory / "core.db")
    core.commit(Commit(changes=changes(), subqueues=_snapshots(), holds=holds(), pools=pool_rows(), **history()))
    core.close()
    store = IncidentStore.open(directory / "outside.db")
    _tallies(store)
    _feeds(store.polls)
    _reports(ReportStore(store.database))
    store.looked(Looked(incidents=incidents(), events=EVENTS, posts=_posts()), now=NOW - 1380)
    for posted in store.posted():
        store.done(posted.id, "sent", now=posted.made_at + 1)
    for step in range(48):
        store.queue_sample(QueueAge(int(560 + 300 * (step / 47) ** 3), step), now=NOW - DAY + step * 1800)
    store.close()


def pool_rows() -> PoolRows:
    """Pools on that morning: one address is listed, another in its second week, and a template is tried."""
    today = int(NOW // DAY)
    whole = Level("ip-2", EVERYWHERE, today, 8_140.0, 5_217, attempts=5_300, deferred=61, accepted=5_190, final=5_217)
    google = Level("ip-2", "google", today, 2_960.0, 2_960, 412, 3_000, 48, 2_944, 2_960, held="reputation: low")
    arms = {Arm.CANARY: (412, 3, 1), Arm.CONTROL: (7_930, 44, 9)}
    counts = {
        arm: nothing_counted()
        | {"attempts": sent + bounced, "sent": sent, "bounced": bounced, "complaints": complaints}
        for arm, (sent, bounced, complaints) in arms.items()
    }
    evidence = "zen.spamhaus.org lists 192.0.2.7: 127.0.0.3 (SBL CSS)"
    listed = Reaction("listed-leaves", "ip-1", EVERYWHERE, evidence, NOW - 4 * HOUR)
    return PoolRows(
        {(each.transport, each.provider): each for each in (whole, google)},
        {},
        {listed.place: listed},
        {"spring-template": Trial("spring-template", since=NOW - DAY, counts=counts)},
    )


def changes() -> list[Change]:
    made = []
    for key, state, since, held, _, _, line, rule in SUBQUEUES:
        opened = NOW - since - 900
        by = "ann" if rule == "by-hand" else "engine"
        made.append(Change(opened, key, "opened", "paused", f"by {rule}", line, rule, by, 0))
        made.append(Change(opened + 1, key, "held", "paused", "pause of 300 s", "", rule, "engine", held))
        if state in {"ramping", "closed"}:
            made.append(Change(opened + 300, key, "probing", "probing", "the pause is over", "", rule, "engine", 1))
            made.append(Change(NOW - since, key, "ramping", "ramping", "the probe was accepted", "", rule, "engine", 0))
        if state == "closed":
            made.append(Change(NOW - since, key, "closed", "closed", "asked to", "", "", "ann", 12))
    why = f"pause of 600 s: {QUEUE_ID}"
    made.append(Change(NOW - 1619, SUBQUEUES[0][0], "held", "paused", why, "", "google/rate-dkim-domain", "engine", 1))
    return sorted(made)


def _snapshots() -> list[SubQueueRow]:
    return [
        SubQueueRow(
            key, f'{{"state": "{state}", "since": {NOW - since}, "until": {NOW + step}}}', rule, line, NOW - since - 900, NOW - 5
        )
        for key, state, since, _, _, step, line, rule in SUBQUEUES
    ]  # fmt: skip


def holds() -> list[HoldRow]:
    return [
        HoldRow("postfix", f"4hXr{number:03d}xZkz9q", (SUBQUEUES[0][0],), NOW - 600, HeldBy.TAKEN, confirmed=True,
                in_core=False, sender="orders@shop.example", recipients=("pat@gmail.example",),
                arrival=NOW - 700 + number)
        for number in range(40)
    ]  # fmt: skip


MESSAGE_ID = "<20270115.4711@shop.example>"
QUEUE_ID = "4hXr5T1xZkz9qKd"


def history() -> dict[str, Any]:
    """A message that was put off, held and let go again, and one that waits."""
    about = ("mx1", "postfix", QUEUE_ID)
    first = Attempt(
        NOW - 1620, *about, "shop.example", "gmail.example", "google", "gmail-smtp-in.l.google.com", "4.7.28", "deferred",
        "google/rate-dkim-domain", "throttling.domain", "transient", "sender-domain", 1.9, SUBQUEUES[0][0], "pat@gmail.example",
        "smtp", "shop", "winter-sale", reply="421-4.7.28 Gmail has detected an unusual rate of unsolicited mail", first=1,
    )  # fmt: skip
    second = first._replace(
        time=NOW - 310, dsn="2.0.0", status="sent", rule="", detail="", bounce="", scope="", key="", delay=1311.9,
        reply="250 2.0.0 OK 1800000000 a1si2 - gsmtp", first=0, service="lane-01",
    )  # fmt: skip
    received = [
        Received(NOW - 1622, *about, MESSAGE_ID, "orders@shop.example", 18_311, 1, "app3.shop.example[198.51.100.3]", "shop"),
        Received(NOW - 700, "mx1", "postfix", "4hXr000xZkz9q", "<2@shop.example>", "orders@shop.example", 900, 1, "", ""),
    ]  # fmt: skip
    return {"attempts": [first, second], "received": received, "removed": [Removed(NOW - 309, "postfix", QUEUE_ID)]}


FLOWS = (
    (Kind.PROVIDER, "google", 21_400, 0.62), (Kind.PROVIDER, "microsoft", 15_100, 0.98),
    (Kind.PROVIDER, "yahoo", 7_900, 0.81), (Kind.PROVIDER, "comcast", 3_300, 0.7), (Kind.PROVIDER, "apple", 2_750, 0.993),
    (Kind.PROVIDER, "gmx", 1_240, 0.997), (Kind.PROVIDER, "b.example", 14, 0.5),
    (Kind.DOMAIN, "shop.example", 24_600, 0.66), (Kind.DOMAIN, "news.example", 18_000, 0.87),
    (Kind.DOMAIN, "clinic.example", 6_900, 0.995), (Kind.DOMAIN, "bank.example", 2_180, 0.999),
    (Kind.DOMAIN, "crafted.example", 24, 0.5),
)  # fmt: skip


def _tallies(store: IncidentStore) -> None:
    rows = []
    newest = int(NOW) // 3600 * 3600
    for kind, name, attempts, worst in FLOWS:
        for hour in range(24):
            if name == "b.example" and hour % 5:
                continue
            share = worst + (1 - worst) * min(1.0, abs(hour - 3) / 9)
            wave = int(attempts * (1 + 0.5 * math.sin(hour / 4)))
            rows.append((3600, newest - hour * 3600, kind, name, *_counts(wave, share)))
            if not hour:
                rows.append((300, newest, kind, name, *_counts(wave // 12, share)))
    with store.database.transaction():
        marks = ", ".join("?" * len(rows[0]))
        store.database.connection.executemany(f"INSERT INTO tally VALUES ({marks})", rows)  # noqa: S608  # marks alone


def _counts(attempts: int, share: float) -> Counts:
    sent = round(attempts * share)
    bounced = (attempts - sent) // 20
    return Counts(attempts, sent, attempts - sent - bounced, bounced, bounced // 2)


def _feeds(store: OutsideStore) -> None:
    def yes(object_: str, measure: str, value: float = 1.0, text: str = "") -> Observation:
        return Observation("authentication", object_, measure, Outcome.OK, value, text)

    told: list[Observation] = []
    for _, domain, *_ in (flow for flow in FLOWS if flow[0] is Kind.DOMAIN):
        broken = domain == "crafted.example"
        policy = "reject" if domain == "bank.example" else "none"
        told += [
            yes(
                domain,
                "requirement.SPF",
                float(not broken),
                "192.0.2.7: softfail; wanted ip4:192.0.2.7" if broken else "",
            ),
            yes(domain, "requirement.DKIM"),
            yes(domain, "dkim-key-bits.s1", 2048.0, "3f9a"),
            yes(domain, "requirement.DMARC_POLICY", 1.0, f"_dmarc.{domain}: {policy}"),
            yes(domain, "dmarc-policy", float(policy == "reject") * 2, policy),
            yes(domain, "requirement.DNS_RECORDS"),
            Observation("authentication", domain, "mta-sts", Outcome.NO_DATA, text="no record"),
        ]
    told += [yes("192.0.2.7", "requirement.DNS_RECORDS"), yes("192.0.2.7", "helo", 1.0, "mx1.site.example")]
    _polled(store, "authentication", told)
    lists: list[Observation] = []
    for name in ("spamhaus_zen", "barracuda", "spamcop", "uceprotect1", "abusix"):
        lists.append(
            Observation(
                "dnsbl-1h",
                name,
                "zone-healthy",
                Outcome.OK,
                float(name != "abusix"),
                "" if name != "abusix" else "refused",
            )
        )
        for address in ("192.0.2.7", "192.0.2.8", "2001:db8::25"):
            here = name == "spamcop" and address == "192.0.2.7"
            outcome = Outcome.UNKNOWN if name == "abusix" else Outcome.OK
            text = "error: bl.spamcop.net: see https://lists.example/192.0.2.7" if here else "refused"
            lists.append(Observation("dnsbl-1h", address, f"listed.{name}", outcome, float(here), text if here else ""))
    _polled(store, "dnsbl-1h", lists)
    days = [
        Observation("google-postmaster", "shop.example", "spam", Outcome.OK, value, "", NOW - DAY * (14 - number))
        for number, value in enumerate((0.0006, 0.0007, 0.0006, 0.0009, 0.001, 0.0012, 0.0018, 0.0024, 0.0031))
    ]
    _polled(store, "google-postmaster", days)
    standing = Standing(
        NOW - 600, NOW - 3 * DAY, NOW + 3000, 9, Trouble.AUTHENTICATION, "HTTP 401: log in anew", NOW - 90 * DAY
    )
    snds = [Observation("snds", "192.0.2.7", "filter-result", Outcome.OK, 1.0, "YELLOW", NOW - 3 * DAY)]
    store.polled("snds", standing, snds, [], now=NOW - 3 * DAY)


def _polled(store: OutsideStore, feed: str, told: list[Observation]) -> None:
    standing = Standing(NOW - 420, NOW - 420, NOW + 480, 0, None, "", NOW - 90 * DAY)
    store.polled(feed, standing, told, [], now=NOW - 420)


def _reports(store: ReportStore) -> None:
    for number in range(41):
        mail = MailRow(
            f"c{number}", NOW - number * HOUR, "maildir:/var/mail/fbl", "complaint", "yahoo.example", True, ""
        )
        event = EventRow(f"e{number}", mail.time, mail.time, mail.source, "complaint", "abuse", True, "yahoo.example", "yahoo",
                         "", "", "news.example" if number % 3 else "shop.example", "192.0.2.7", "", "", "", "", "", "", 1)  # fmt: skip
        store.add(mail, [event])


def _member(condition: str, object_: str, kind: Kind, text: str, *, firing: bool, at: float) -> Member:
    key = f"pf-rep:log:{object_}:{condition}"
    return Member(
        key, condition, object_, kind, Severity.ERROR, firing, at, at + 60, 0.0 if firing else at + 3000, text
    )


def _incident(number: int, title: str, severity: Severity, category: str, began: float, **more: Any) -> Incident:
    key = f"pf-rep:log:{number}"
    return Incident(number, key, more.pop("phase", Phase.RESOLVED), title, category, severity, "mail team", "domain-throttled",
                    began, began + 120, **more)  # fmt: skip


def incidents() -> list[Incident]:
    around = Surroundings(
        ("214 x deferred, dsn=4.7.28, throttling.domain (google/rate-dkim-domain), as 4hXr5T1xZkz9qKd", GOOGLE),
        ("google: 1 204 of 2 911 attempts put off or refused", "2847 messages on hold"),
        ("07:33:00 UTC opened dkim-domain:shop.example@google: by google/rate-dkim-domain",
         "07:33:01 UTC held dkim-domain:shop.example@google, 2847 messages: pause of 600 s"),
    )  # fmt: skip
    spike = _member(
        "deferrals", "google", Kind.PROVIDER, "google puts off 38.00% of 2911 attempts", firing=True, at=NOW - 1500
    )
    spam = _member(
        "google-spam",
        "shop.example",
        Kind.DOMAIN,
        "0.31% of shop.example's mail at Gmail is called spam",
        firing=True,
        at=NOW - 1200,
    )
    old = _member("listed", "192.0.2.7", Kind.ADDRESS, "192.0.2.7 is on spamcop", firing=False, at=NOW - 4 * DAY)
    return [
        _incident(1, "apple refuses mail of bank.example", Severity.INFO, "throttling", NOW - 30 * DAY, ended_at=NOW - 30 * DAY + 900),
        _incident(2, "192.0.2.7 is on spamcop", Severity.WARNING, "reputation", NOW - 4 * DAY, ended_at=NOW - 3.2 * DAY,
                  calm_since=NOW - 3.3 * DAY, members=(old,), acked_by="bea", acked_at=NOW - 3.9 * DAY),
        _incident(3, "snds has told nothing for 2 days", Severity.WARNING, "sidecar", NOW - 1.5 * DAY, phase=Phase.OPEN),
        _incident(4, "news.example: 5.20% of 3100 messages bounced for good", Severity.ERROR, "list-quality", NOW - 2 * DAY,
                  ended_at=NOW - 1.7 * DAY, calm_since=NOW - 1.72 * DAY),
        _incident(5, "google puts off 38.00% of 2911 attempts", Severity.CRITICAL, "throttling", NOW - 1500, phase=Phase.OPEN,
                  members=(spike, spam), around=around, acked_by="ann", acked_at=NOW - 400),
    ]  # fmt: skip


EVENTS = (
    (5, NOW - 1380, "opened: google puts off 38.00% of 2911 attempts"),
    (5, NOW - 1100, "joined: 0.31% of shop.example's mail at Gmail is called spam"),
    (5, NOW - 400, "taken on by ann"),
)


def _posts() -> list[tuple[Note, list[str]]]:
    note = Note(NoteKind.OPENED, 5, "pf-rep:log:5", Severity.CRITICAL, "google puts off 38 %", "throttling", NOW - 1380,
                NOW - 1500, NOW - 1380)  # fmt: skip
    return [(note, ["slack", "pagerduty"])]


# The server.


class Served:
    def __init__(self, url: str, figures: OutsideFigures) -> None:
        self.url = url
        self.figures = figures


@contextlib.contextmanager
def served(configuration: Config, commands: dict[str, Handler] | None = COMMANDS, *, clock: Callable[[], float] = lambda: NOW,
           every: float = 0.05) -> Iterator[Served]:  # fmt: skip
    """The page of a site at some port, in a thread; a core that answers `commands`, None: is away."""
    ready: threading.Event = threading.Event()
    told: list[Any] = []
    directory = tempfile.TemporaryDirectory(prefix="page-")
    configuration = dataclasses.replace(configuration, runtime_directory=directory.name)

    async def serve() -> None:
        async with contextlib.AsyncExitStack() as undo:
            if commands is not None:
                undo.callback((await serve_control(configuration.control_socket, commands)).close)
            page = StatusPage(configuration, clock=clock, every=every)
            undo.callback(page.close)
            own = OutsideFigures()
            core = outside.Core(configuration.control_socket, seen=own.core_up.set)
            app = application(core, own, page, access.rules(configuration))
            port = await undo.enter_async_context(serve_web(configuration.web.listen, app))
            stop = asyncio.Event()
            told.extend([f"http://127.0.0.1:{port}", own, asyncio.get_running_loop(), stop])
            ready.set()
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    assert told, "the page was not served"
    url, own, loop, stop = told
    try:
        yield Served(url, own)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        directory.cleanup()


def at_some_port(configuration: Config, **web: Any) -> Config:
    return dataclasses.replace(configuration, web=dataclasses.replace(configuration.web, listen="127.0.0.1:0", **web))
