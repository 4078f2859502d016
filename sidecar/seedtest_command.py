"""`sidecar seedtest`: test now where our mail lands, or show how it went lately.

Sends and looks by itself; what came of it is handed to the outside process, which alone writes it down.
"""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from policies.note import span
from policies.placement import DECIDED, Place, Placement, SeedMail, placements
from sidecar.config import Config, ConfigError
from sidecar.outside_socket import ask_outside
from sidecar.own_log import printable
from sidecar.seed_schedule import late_of
from sidecar.seed_store import SeedStore
from sidecar.seed_tests import SeedTest, check_transport, checked
from sidecar.status import as_json

_SPANS = {"24h": 86_400.0, "7d": 7 * 86_400.0, "30d": 30 * 86_400.0}


@click.command(epilog="Example: sidecar seedtest --transport lane-01 --json")
@click.option("--transport", default="", help="Send over this transport of master.cf, not over the usual one.")
@click.option("--provider", default="", help="Send to the seeds at this provider only.")
@click.option("--trend", is_flag=True, help="Send nothing: show the last day, week and month.")
@as_json
@click.pass_obj
def seedtest(config: Config, *, transport: str, provider: str, trend: bool, as_json: bool) -> None:
    """Send tagged mail to the seeds ([[seed]]) and look by IMAP where it lands: inbox, spam, missing.

    Exit status 1 when not all of it reached the inbox.
    """
    if trend:
        _trend(config, provider, as_json=as_json)
        return
    checked(config)
    seeds = [seed for seed in config.seed if provider in {"", seed.provider}]
    if not seeds:
        if not config.seed:
            raise ConfigError("seed: there is no mailbox to send to; add a [[seed]]")
        there = ", ".join(sorted({seed.provider for seed in config.seed}))
        raise ConfigError(f"--provider {provider}: no seed is there; there are seeds at {there}")
    if transport:
        check_transport(config, transport)

    def put(mails: Sequence[SeedMail], ended: bool) -> None:  # noqa: FBT001  # as Put
        ask_outside(config, {"command": "seed-mails", "mails": [list(mail) for mail in mails], "ended": ended})

    test = SeedTest(config, put, late=_late(config))
    if not as_json and sys.stderr.isatty():
        minutes = config.seedtest.deadline_minutes
        click.echo(f"sending to {len(seeds)} seeds; looking for at most {minutes:g} minutes", err=True)
    mails = asyncio.run(test.run(transport, seeds=seeds))
    if as_json:
        click.echo(json.dumps({"mails": [_mail(each) for each in mails], "providers": _providers(mails)}))
    else:
        _print(mails)
    sys.exit(any(mail.place is not Place.INBOX for mail in mails))


def _late(config: Config) -> list[SeedMail]:
    if not config.outside_database.exists():
        return []
    store = SeedStore.open_read_only(config.outside_database)
    try:
        return late_of(config, store, now=time.time())
    finally:
        store.close()


def _mail(mail: SeedMail) -> dict[str, Any]:
    return {
        "address": mail.address,
        "provider": mail.provider,
        "transport": mail.transport,
        "sent_at": mail.sent_at,
        "place": mail.place,
        "folder": mail.folder,
        "latency_s": round(mail.latency, 1) if mail.arrived_at else None,
        "removed": mail.removed,
        "why": mail.why,
    }


def _providers(mails: Sequence[SeedMail]) -> list[dict[str, Any]]:
    return [{**_placement(each), "provider": each.provider, "transport": each.transport} for each in placements(mails)]


def _placement(each: Placement) -> dict[str, Any]:
    return {
        "sent": each.sent,
        **{str(place): getattr(each, place) for place in Place if place in DECIDED},
        "inbox_share": each.share,
        "latency_s": each.latency,
    }


def _print(mails: Sequence[SeedMail]) -> None:
    table = Table("seed", "provider", "landed in", "after", "")
    for mail in mails:
        landed = f"{mail.place} ({mail.folder})" if mail.folder else str(mail.place)
        after = span(mail.latency) if mail.arrived_at else ""
        row = (mail.address, mail.provider, landed, after, mail.why)
        table.add_row(*(escape(printable(cell)) for cell in row))
    Console().print(table)


def _trend(config: Config, provider: str, *, as_json: bool) -> None:
    store = SeedStore.open_read_only(config.outside_database)
    now = time.time()
    try:
        mails = [mail for mail in store.since(now - _SPANS["30d"]) if provider in {"", mail.provider}]
    finally:
        store.close()
    rows: dict[tuple[str, str], dict[str, Placement]] = {}
    for name, seconds in _SPANS.items():
        for each in placements(mail for mail in mails if mail.sent_at >= now - seconds):
            rows.setdefault((each.provider, each.transport), {})[name] = each
    if as_json:
        told = [{"provider": who, "transport": way, **{name: _placement(each) for name, each in found.items()}}
                for (who, way), found in sorted(rows.items())]  # fmt: skip
        click.echo(json.dumps(told))
        return
    table = Table("provider", "transport", *_SPANS, "found after (30d)")
    for (who, way), found in sorted(rows.items()):
        cells = [_share(found.get(name)) for name in _SPANS]
        latency = found["30d"].latency
        table.add_row(
            escape(printable(who)), escape(printable(way)), *cells, span(latency) if latency is not None else "-"
        )
    Console().print(table)


def _share(each: Placement | None) -> str:
    return "-" if each is None or each.share is None else f"{each.share:.0%} of {each.decided}"
