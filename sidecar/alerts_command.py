"""`sidecar alert` and `sidecar incident`: what fires, what people were told, and taking an incident on.

Reads outside.db; what changes something asks the outside process, which alone writes there.
"""

import json
import sys
import time
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from parsers.feeds.dnsbl import Severity
from policies.channels.receipt import Receipt, Result
from policies.incidents import Incident, times
from policies.note import Note, NoteKind, span
from policies.timeliness import DETECT_GOAL, RECOVER_GOAL, WEEK, weeks
from sidecar import channels
from sidecar.channels import Channel, Delivery
from sidecar.config import ChannelKind, Config, ConfigError
from sidecar.control import CoreRefused, CoreUnreachable, ask_core
from sidecar.delisting_store import asked_lately
from sidecar.incident_store import IncidentStore
from sidecar.lookout import conditions_of, runbook
from sidecar.outside_socket import ask_outside
from sidecar.own_log import printable
from sidecar.status import as_json, who

_DAYS = 30.0
_WEEKS = 13


@click.group(epilog="Example: sidecar alert list --json")
def alert() -> None:
    """See what fires, and try the channels."""


@alert.command(epilog="Example: sidecar alert test ops")
@click.argument("channel", required=False)
@as_json
@click.pass_obj
def test(config: Config, channel: str | None, *, as_json: bool) -> None:
    """Send a test message over CHANNEL, or over each one, and say what it answers. Exit status 1 when one fails.

    A channel that was broken and takes the test is used again at once.
    """
    known = channels.configured(config)
    chosen = [each for each in known if channel in {None, each.name}]
    if not chosen:
        if not known:
            raise ConfigError("channel: nobody would be told, for there is none; add a [[channel]]")
        raise ConfigError(f"channel {channel}: no such channel; there is {', '.join(each.name for each in known)}")
    results = [(each, _tested(each)) for each in chosen]
    for each, receipt in results:
        if receipt.result is Result.SENT:
            _tell_that_it_works(config, each.name)
    if as_json:
        click.echo(json.dumps([{"channel": each.name, "result": r.result, "why": r.why} for each, r in results]))
    else:
        for each, receipt in results:
            click.echo(f"{each.name}: {receipt.result}{': ' if receipt.why else ''}{printable(receipt.why)}")
    sys.exit(any(receipt.result is not Result.SENT for _, receipt in results))


def _tested(channel: Channel) -> Receipt:
    now = time.time()
    key = f"pf-rep:sidecar:{channel.host}:test"
    note = Note(NoteKind.TEST, 0, key, Severity.INFO, f"a test of {channel.name} by {who()}", "test", now, now, 0.0)
    delivery = Delivery(f"sidecar-test-{now:.3f}")
    receipt = channel.send(note, delivery).receipt
    if receipt.result is Result.SENT and channel.config.kind is ChannelKind.PAGERDUTY:
        channel.send(note._replace(kind=NoteKind.RESOLVED), delivery)  # what the test opened
    return receipt


def _tell_that_it_works(config: Config, name: str) -> None:
    try:
        ask_core(config.outside_socket, {"command": "channel-works", "channel": name})
    except (CoreUnreachable, CoreRefused):
        return  # it does not run; it will find out


@alert.command("list", epilog="Example: sidecar alert list --conditions")
@click.option("--conditions", is_flag=True, help="List the conditions that are looked at, and not what fires.")
@as_json
@click.pass_obj
def list_alerts(config: Config, *, conditions: bool, as_json: bool) -> None:
    """List the alerts that fire, and the messages that wait or could not be sent."""
    if conditions:
        _list_conditions(config, as_json=as_json)
        return
    store = IncidentStore.open_read_only(config.outside_database)
    try:
        firing = [each for each in store.alerts() if each.firing]
        troubled = [each for state in ("queued", "sending", "unsure", "failed") for each in store.posted(state=state)]
    finally:
        store.close()
    if as_json:
        messages = [
            {"incident": each.incident, "channel": each.channel, "kind": each.kind, "state": each.state,
             "attempts": each.attempts, "made_at": each.made_at, "next_at": each.next_at or None, "why": each.why}
            for each in troubled
        ]  # fmt: skip
        click.echo(json.dumps({"alerts": [each._asdict() for each in firing], "messages": messages}))
        return
    now = time.time()
    for each in firing:
        click.echo(printable(f"{each.severity}: {each.said} (for {span(now - each.fired_at)}, {each.key})"))
    for message in troubled:
        why = f": {message.why}" if message.why else ""
        click.echo(printable(f"message of incident {message.incident} over {message.channel}: {message.state}{why}"))
    if not firing:
        click.echo("no alert fires")


def _list_conditions(config: Config, *, as_json: bool) -> None:
    found = conditions_of(config)
    if as_json:
        keys = ("name", "feed", "measure", "category", "confirm", "clear", "owner")
        rows = [
            {key: getattr(each, key) for key in keys} | {"runbook": runbook(config.alerts.runbooks, each.runbook)}
            for each in found
        ]
        click.echo(json.dumps(rows))
        return
    table = Table("condition", "looks at", "looks until it fires / is over", "runbook")
    for each in found:
        table.add_row(each.name, f"{each.feed} {each.measure}", f"{each.confirm} / {each.clear}", each.runbook)
    Console().print(table)


@click.group(epilog="Example: sidecar incident show 17")
def incident() -> None:
    """Look at incidents, take one on, close one."""


@incident.command("list", epilog="Example: sidecar incident list --all --json")
@click.option("--all", "everything", is_flag=True, help="Also those that are over, of the last 30 days.")
@click.option("--stats", is_flag=True, help="How fast they were noticed and over, by week, for a quarter of a year.")
@as_json
@click.pass_obj
def list_(config: Config, *, everything: bool, stats: bool, as_json: bool) -> None:
    """List the incidents that are open; and how fast those of the last 30 days were noticed and over."""
    now = time.time()
    if stats:
        _list_weeks(config, now=now, as_json=as_json)
        return
    store = IncidentStore.open_read_only(config.outside_database)
    try:
        lately = store.incidents(since=now - _DAYS * 86_400)
    finally:
        store.close()
    shown = [each for each in reversed(lately) if everything or each.live]
    if as_json:
        click.echo(json.dumps([_row(each) for each in shown]))
        return
    table = Table("id", "state", "severity", "opened", "what", "by", box=None, pad_edge=False)
    for each in shown:
        state = f"{each.phase}{', acknowledged' if each.acked_by and each.live else ''}"
        opened = f"{span(now - each.opened_at)} ago"
        cells = (str(each.id), state, str(each.severity), opened, printable(each.title), each.acked_by)
        table.add_row(*map(Text, cells))
    console = Console()
    console = console if console.is_terminal else Console(width=1000)
    if shown:
        console.print(table)
    else:
        click.echo("no incident is open" if not everything else "no incident in the last 30 days")
    if taken := times(lately):
        click.echo(
            f"{taken.incidents} over in 30 days: noticed after {span(taken.detect_median)} (median; at worst"
            f" {span(taken.detect_worst)}), over after {span(taken.recover_median)} (at worst {span(taken.recover_worst)})"
        )


def _list_weeks(config: Config, *, now: float, as_json: bool) -> None:
    store = IncidentStore.open_read_only(config.outside_database)
    try:
        known = store.incidents(since=now - (_WEEKS + 1) * WEEK)
    finally:
        store.close()
    found = weeks(known, now=now, number=_WEEKS)
    if as_json:
        rows = [{**each._asdict(), "categories": dict(each.categories)} for each in found]
        click.echo(json.dumps({"detect_goal_s": DETECT_GOAL, "recover_goal_s": RECOVER_GOAL, "weeks": rows}))
        return
    goals = f"noticed (goal {span(DETECT_GOAL)})", f"over (goal {span(RECOVER_GOAL)})"
    table = Table("week from", "incidents", *goals, "of what kind", box=None, pad_edge=False)
    for each in found:
        over = each.incidents - each.open
        table.add_row(
            _stamp(each.begin)[:10],
            f"{each.incidents}{f' ({each.open} open)' if each.open else ''}",
            _took(each.detect_median, each.detect_worst, each.detect_in_time, each.incidents),
            _took(each.recover_median, each.recover_worst, each.recover_in_time, over),
            ", ".join(f"{number} {category}" for category, number in each.categories),
        )
    console = Console()
    (console if console.is_terminal else Console(width=1000)).print(table)


def _took(middle: float | None, worst: float | None, in_time: int, of: int) -> str:
    if middle is None or worst is None:
        return "-"
    return f"median {span(middle)}, at worst {span(worst)}; {in_time} of {of} in time"


@incident.command(epilog="Example: sidecar incident show 17 --json")
@click.argument("number", type=int)
@as_json
@click.pass_obj
def show(config: Config, number: int, *, as_json: bool) -> None:
    """Show one incident: cause, scope, evidence, who waits, what the sidecar did, who was told. Exit status 1: no such."""
    store = IncidentStore.open_read_only(config.outside_database)
    try:
        found, events, sent = store.incident(number), store.events(number), store.of_incident(number)
        page = store.pages_of().get(number)
    finally:
        store.close()
    if found is None:
        click.echo(f"sidecar: there is no incident {number}", err=True)
        sys.exit(1)
    objects = {member.object for member in found.members}
    asked = asked_lately(config.outside_database, since=found.began_at, objects=objects)
    told = [{"at": each.done_at or None, "channel": each.channel, "kind": each.kind, "state": each.state, "why": each.why}
            for each in sent]  # fmt: skip
    if as_json:
        history = [{"time": moment, "what": what} for moment, what in events]
        click.echo(
            json.dumps(
                _row(found)
                | _details(config, found)
                | {"page": page, "history": history, "messages": told, "delistings": [each._asdict() for each in asked]}
            )
        )
        return
    for line in _lines(config, found):
        click.echo(printable(line))
    for one in asked:
        click.echo(
            printable(
                f"  {_stamp(one.at)} removal asked for by {one.by_whom}: {one.object} from {one.list} {one.note}".rstrip()
            )
        )
    for moment, what in events:
        click.echo(printable(f"  {_stamp(moment)} {what}"))
    for each in told:
        when = _stamp(each["at"]) if each["at"] else "not yet"
        click.echo(printable(f"  {when} {each['kind']} over {each['channel']}: {each['state']} {each['why']}".rstrip()))


def _row(found: Incident) -> dict[str, Any]:
    return {
        "id": found.id,
        "state": found.phase,
        "severity": found.severity,
        "category": found.category,
        "title": found.title,
        "dedup_key": found.dedup_key,
        "scope": found.about,
        "began_at": found.began_at,
        "opened_at": found.opened_at,
        "ended_at": found.ended_at or None,
        "detect_s": round(found.detect_seconds, 1),
        "recover_s": None if found.recover_seconds is None else round(found.recover_seconds, 1),
        "acked_by": found.acked_by,
        "closed_by": found.closed_by,
        "flaps": found.flaps,
        "again_of": found.again_of or None,
    }


def _details(config: Config, found: Incident) -> dict[str, Any]:
    return {
        "alerts": [member._asdict() for member in found.members],
        "evidence": found.around.evidence,
        "victims": found.around.victims,
        "actions": found.around.actions,
        "owner": found.owner or config.alerts.owner,
        "runbook": runbook(config.alerts.runbooks, found.runbook),
    }


def _lines(config: Config, found: Incident) -> list[str]:
    details = _details(config, found)
    lines = [f"incident {found.id}: {found.phase}, {found.severity}, {found.category}: {found.title}"]
    for name in ("owner", "runbook"):
        lines += [f"{name}: {details[name]}"] if details[name] else []
    lines += [f"  {'fires' if member.firing else 'over'}: {member.severity}: {member.said}" for member in found.members]
    for name in ("evidence", "victims", "actions"):
        lines += [f"{name}:", *(f"  {line}" for line in details[name])] if details[name] else []
    return [*lines, "history (UTC):"]


def _stamp(moment: Any) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(float(moment)))


@incident.command(epilog="Example: sidecar incident ack 17")
@click.argument("number", type=int)
@as_json
@click.pass_obj
def ack(config: Config, number: int, *, as_json: bool) -> None:
    """Take an incident on: pagers are told, and are quiet about it from now on."""
    _do(config, "incident-ack", number, as_json=as_json)


@incident.command(epilog="Example: sidecar incident close 17")
@click.argument("number", type=int)
@as_json
@click.pass_obj
def close(config: Config, number: int, *, as_json: bool) -> None:
    """End an incident by hand, whatever its alerts say; one that fires anew opens it again."""
    _do(config, "incident-close", number, as_json=as_json)


def _do(config: Config, command: str, number: int, *, as_json: bool) -> None:
    """Raises CoreUnreachable, CoreRefused."""
    answer = ask_outside(config, {"command": command, "incident": number, "who": who()})
    if as_json:
        click.echo(json.dumps({key: value for key, value in answer.items() if key != "ok"}))
    else:
        by = f", acknowledged by {answer['acked_by']}" if answer["acked_by"] else ""
        on = f", on {', '.join(map(printable, answer['hosts']))}" if answer.get("hosts") else ""
        click.echo(f"incident {answer['incident']}: {answer['phase']}{by}{on}")
