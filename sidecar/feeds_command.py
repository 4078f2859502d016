"""`sidecar feeds` and `sidecar poll`: where each feed stands, and one poll by hand.

Knows how to show it; the outside process alone writes down what polls tell.
"""

import asyncio
import json
import sys
import time
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from parsers.feeds.asking import Reading
from parsers.feeds.delisting import PREFIX
from parsers.observation import Observation
from policies.cadence import Standing
from sidecar.asking import Asking
from sidecar.blocklists import CADENCES
from sidecar.config import Config, ConfigError
from sidecar.delisting_store import asked_lately
from sidecar.feeds import FEEDS, Watched, watched
from sidecar.mx import resolver_at
from sidecar.outside_store import OutsideStore, RawAnswer
from sidecar.own_log import printable
from sidecar.scope import find

_MONTH = 30 * 86_400.0


def asking(config: Config) -> Asking:
    """As configured. Raises ConfigError."""
    try:
        return Asking(resolver_at(config.dns.resolvers), ca_file=config.outside.ca_file)
    except ValueError as error:
        raise ConfigError(f"dns.resolvers: {error}") from error


@click.command(epilog="Example: sidecar feeds --json")
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")
@click.pass_obj
def feeds(config: Config, *, as_json: bool) -> None:
    """List the feeds: what each is for, how often it is asked, when it last told something, and what is wrong."""
    standings = _standings(config)
    now = time.time()
    asked = _asked(config, now=now)
    rows = [
        _row(each, standings.get(each.name, Standing()), now=now) | {"delistings": asked.get(each.name, [])}
        for each in watched(config)
    ]
    if as_json:
        click.echo(json.dumps(rows))
        return
    table = Table(Column("feed", no_wrap=True), "state", "every", "last told", "next", "why")
    for row in rows:
        times = (_ago(row["told_at"], now), _ago(row["next_at"], now))
        table.add_row(row["feed"], row["state"], f"{row['every_s'] / 3600:g} h", *times, printable(row["why"]))
    Console().print(table)
    for each in (each for row in rows for each in row["delistings"]):
        state = "still listed" if each["listed"] else "not listed any more"
        by = f"asked for {_ago(each['at'], now)} by {each['by_whom']}"
        click.echo(printable(f"removal of {each['object']} from {each['list']}: {by}, {state}"))


def _asked(config: Config, *, now: float) -> dict[str, list[dict[str, Any]]]:
    """Feed -> what was asked to be taken off its lists in the last month, and whether it is listed."""
    requests = asked_lately(config.outside_database, since=now - _MONTH)
    if not requests:
        return {}
    store = OutsideStore.open_read_only(config.outside_database)
    try:
        known = {(each.object, each.measure): each for each in store.known() if each.feed.startswith("dnsbl")}
    finally:
        store.close()
    found: dict[str, list[dict[str, Any]]] = {}
    for each in requests:
        seen = known.get((each.object, f"{PREFIX}{each.list}"))
        feed = seen.feed if seen else next(iter(CADENCES))
        found.setdefault(feed, []).append({**each._asdict(), "listed": bool(seen and seen.value)})
    return found


def _standings(config: Config) -> dict[str, Standing]:
    """Where they stand as the outside process last wrote; nothing where it never ran."""
    if not config.outside_database.exists():
        return {}
    store = OutsideStore.open_read_only(config.outside_database)
    try:
        return {each.name: store.standing(each.name) for each in watched(config)}
    finally:
        store.close()


def _row(each: Watched, standing: Standing, *, now: float) -> dict[str, Any]:
    return {
        "feed": each.name,
        "about": each.about,
        "state": _state(each, standing, blind=standing.blind(each.cadence, now=now)),
        "every_s": each.cadence.every,
        "told_at": standing.told_at or None,
        "next_at": standing.next_at or None,
        "failures": standing.failures,
        "trouble": standing.trouble,
        "why": standing.why,
    }


def _state(each: Watched, standing: Standing, *, blind: bool) -> str:
    if not each.wanted:
        return "off"
    if blind:
        return "blind"
    if standing.trouble:
        return "troubled"
    return "well" if standing.told_at else "not yet asked"


def _ago(moment: float | None, now: float) -> str:
    if not moment:
        return "-"
    minutes = abs(now - moment) / 60
    span = f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"
    return f"{span} ago" if moment <= now else f"in {span}"


@click.command(epilog="Example: sidecar poll senderscore --json")
@click.argument("feed", type=click.Choice(list(FEEDS)))
@click.option(
    "--kept", type=click.IntRange(1), metavar="N", help="Ask nobody: print the N newest answers over HTTP as they came."
)
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")
@click.pass_obj
def poll(config: Config, *, feed: str, kept: int | None, as_json: bool) -> None:
    """Ask FEED once, now, and print what it tells; nothing is stored, and no alert comes of it.

    Exit status 1 when the feed as a whole told nothing, or no answer of it is kept.
    """
    if kept is not None:
        sys.exit(_print_kept(config, feed, kept, as_json=as_json))
    scope = find(config)
    reading, _ = asyncio.run(asking(config).poll(FEEDS[feed].poll(config, scope, time.time())))
    if as_json:
        click.echo(json.dumps(_told(feed, reading)))
    else:
        _print(feed, reading)
    sys.exit(1 if reading.trouble else 0)


def _print_kept(config: Config, feed: str, most: int, *, as_json: bool) -> int:
    """Newest first. Bodies are the bytes that came, but for secrets; shown as text, what is none in them replaced."""
    answers: list[RawAnswer] = []
    if config.outside_database.exists():
        store = OutsideStore.open_read_only(config.outside_database)
        try:
            answers = store.answers(feed, most)
        finally:
            store.close()
    for each in answers:
        stamp = datetime.fromtimestamp(each.at, UTC).isoformat(timespec="seconds")
        body = each.body.decode(errors="replace")
        if as_json:
            click.echo(json.dumps({"at": stamp, "asked": each.asked, "body": body}))
        else:
            click.echo(f"{stamp} {printable(each.asked)}")
            click.echo("".join(f"  {printable(line)}\n" for line in body.splitlines()))
    if not answers:
        click.echo(f"{feed}: no answer is kept; lists and other look-ups in the DNS leave none", err=True)
    return 0 if answers else 1


def _told(feed: str, reading: Reading) -> dict[str, Any]:
    return {
        "feed": feed,
        "trouble": reading.trouble,
        "why": reading.why,
        "observations": [_observation(each) for each in reading.observations],
    }


def _observation(seen: Observation) -> dict[str, Any]:
    return {name: value for name, value in seen._asdict().items() if value not in {None, ""}}


def _print(feed: str, reading: Reading) -> None:
    if reading.trouble:
        click.echo(f"{feed}: {reading.trouble}: {printable(reading.why)}", err=True)
    table = Table("object", "measure", "day", "outcome", "value", "")
    for seen in reading.observations:
        value = "" if seen.value is None else f"{seen.value:.10g}"
        day = f"{datetime.fromtimestamp(seen.at, UTC):%Y-%m-%d}" if seen.at else ""
        row = (printable(seen.object), printable(seen.measure), day, seen.outcome, value, printable(seen.text))
        table.add_row(*(escape(cell) for cell in row))
    Console().print(table)
