"""`sidecar delist`: how an address or a domain comes off the lists that list it, with a request filled in for each.

Reads what the poller and the lookout know; what was asked for is written down by the outside process.
"""

import asyncio
import ipaddress
import json
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import click

from parsers.feeds.asking import DnsAsk
from parsers.feeds.delisting import PREFIX, Listing, Procedure, listing, procedures_of
from parsers.feeds.dnsbl import BlockList
from policies.removal_request import Subject, concerning, request
from sidecar import blocklists
from sidecar.asking import look_up
from sidecar.config import Config, ConfigError
from sidecar.control import CoreRefused, CoreUnreachable
from sidecar.delisting_store import Delisting, asked_lately
from sidecar.incident_store import IncidentStore
from sidecar.mx import resolver_at
from sidecar.outside_socket import ask_outside
from sidecar.outside_store import HISTORY_SECONDS, Known
from sidecar.own_log import printable
from sidecar.scope import find
from sidecar.status import as_json, who
from sidecar.toml_table import read_table

_FILE = Path("delisting.toml")


class Case(NamedTuple):
    """One list that has it, and what is to be done."""

    found: Listing
    spec: BlockList | None
    seen_at: float
    """When the list last said so; 0: it does not, and was named by hand."""
    since: float
    procedures: Sequence[Procedure]
    asked: Sequence[Delisting]
    request: str

    @property
    def to_be_asked(self) -> bool:
        return not self.procedures or any(not each.by_itself for each in self.procedures)


@cache
def procedures() -> tuple[Procedure, ...]:
    """Read those that come with the package."""
    text = (resources.files("parsers") / "feeds" / _FILE).read_text(encoding="utf-8")
    return tuple(read_table(Procedure, dict(row), file=_FILE) for row in tomllib.loads(text)["procedure"])


@click.command(epilog='Example: sidecar delist 192.0.2.7 --note "sender closed"')
@click.argument("about", metavar="ADDRESS|DOMAIN")
@click.option(
    "--list", "lists", multiple=True, metavar="ID", help="Of this list, whatever the poller says; may be repeated."
)
@click.option("--note", default="", help="What was wrong and what you changed: a part of the request.")
@click.option("--show", is_flag=True, help="Only show it: write nothing down.")
@as_json
@click.pass_obj
def delist(config: Config, *, about: str, lists: tuple[str, ...], note: str, show: bool, as_json: bool) -> None:
    """Print how ADDRESS or DOMAIN comes off each list that lists it now, with a request filled in; and write it down.

    Sends nothing to anybody. Exit status 1 when no list that is asked here lists it.
    """
    about = _named(about)
    cases = _cases(config, about, lists, note)
    told = {"object": about, "lists": [_row(case) for case in cases], "recorded": False}
    asking = [case.found.list for case in cases if case.to_be_asked]
    error: Exception | None = None
    if asking and not show:
        try:
            ask_outside(config, {"command": "delisting", "who": who(), "object": about, "lists": asking, "note": note})
            told["recorded"] = True
        except (CoreUnreachable, CoreRefused) as wrong:
            error = wrong
    if as_json:
        click.echo(json.dumps(told))
    else:
        _print(about, cases)
    if error is not None:
        raise type(error)(f"not written down: {error}") from error
    sys.exit(not cases)


def _named(about: str) -> str:
    """Give it as the feeds do: an address in its short form, a domain in lower case. Raises ConfigError."""
    try:
        return str(ipaddress.ip_address(about))
    except ValueError:
        domain = about.rstrip(".").lower()
        if "." not in domain or not all(character.isalnum() or character in "-._" for character in domain):
            raise ConfigError(f"{about}: wanted an address or a domain, as 192.0.2.7 or example.com") from None
        return domain


def _cases(config: Config, about: str, lists: Sequence[str], note: str) -> list[Case]:
    """Raises ConfigError, StoreError."""
    specs = {spec.id: spec for spec in blocklists.known(config)}
    for name in lists:
        if name not in specs:
            raise ConfigError(f"--list {name}: there is no such list; known: {', '.join(sorted(specs))}")
    now = time.time()
    told, histories, incidents = _known(config, about, now=now)
    chosen = dict.fromkeys(lists or told)
    if not chosen:
        return []
    subject = _subject(config, about)
    asked = asked_lately(config.outside_database, since=now - HISTORY_SECONDS, objects=[about])
    cases = []
    for name in chosen:
        seen = told.get(name)
        found = listing(name, seen.text) if seen else Listing(name)
        since = _since(histories.get(name, ()))
        text = request(subject, found, since=since, note=note, incidents=incidents)
        before = [each for each in asked if each.list == name]
        known = procedures_of(procedures(), found)
        cases.append(Case(found, specs.get(name), seen.told_at if seen else 0.0, since, known, before, text))
    return cases


def _known(config: Config, about: str, *, now: float) -> tuple[dict[str, Known], dict[str, Any], Any]:
    """Give who lists it, the history of that, and the incidents about it; nothing where there is no store yet."""
    if not config.outside_database.exists():
        return {}, {}, []
    store = IncidentStore.open_read_only(config.outside_database)
    try:
        told = {
            each.measure.removeprefix(PREFIX): each
            for each in store.polls.known()
            if each.object == about and each.measure.startswith(PREFIX) and each.value and each.feed.startswith("dnsbl")
        }
        start = now - HISTORY_SECONDS
        histories = {
            name: store.polls.history(each.feed, about, each.measure, since=start) for name, each in told.items()
        }
        return told, histories, concerning(store.incidents(since=start), about)
    finally:
        store.close()


def _since(history: Sequence[tuple[float, float | None, str]]) -> float:
    """Begin of the run of listings that still goes on."""
    since = 0.0
    for at, value, _ in reversed(history):
        if not value:
            break
        since = at
    return since


def _subject(config: Config, about: str) -> Subject:
    """Look up what a request says of an address. Raises ConfigError."""
    contact = config.alerts.owner
    try:
        name = ipaddress.ip_address(about).reverse_pointer
    except ValueError:
        return Subject(about, contact=contact)
    try:
        resolver = resolver_at(config.dns.resolvers)
    except ValueError as error:
        raise ConfigError(f"dns.resolvers: {error}") from error

    async def names() -> tuple[str, ...]:
        return (await look_up(DnsAsk(name, "PTR"), resolver())).records

    found = tuple(each.rstrip(".") for each in asyncio.run(names()))
    return Subject(about, found, dict(find(config).helos).get(about, ""), contact)


def _row(case: Case) -> Mapping[str, Any]:
    return {
        "list": case.found.list,
        "sublists": case.found.sublists,
        "severity": case.found.severity,
        "reason": case.found.reason,
        "since": case.since or None,
        "seen_at": case.seen_at or None,
        "url": case.spec.delist if case.spec else "",
        "procedures": [
            {"who": each.who, "how": each.how, "takes": each.takes, "expires": each.expires, "by_itself": each.by_itself,
             "sublists": each.sublists}
            for each in case.procedures
        ],
        "asked_before": [{"at": each.at, "by": each.by_whom, "note": each.note} for each in case.asked],
        "request": case.request,
    }  # fmt: skip


def _print(about: str, cases: Sequence[Case]) -> None:
    if not cases:
        click.echo(f"no list that is asked here lists {about}; `sidecar poll dnsbl-15min` asks the critical ones now")
    for case in cases:
        for line in _lines(case):
            click.echo(printable(line))
        click.echo("")


def _lines(case: Case) -> list[str]:
    lines = [
        f"{case.found.list}: {', '.join(case.found.sublists) or ('listed' if case.seen_at else 'not listed, as far as is known here')}"
    ]
    lines += [f"  page: {case.spec.delist}"] if case.spec and case.spec.delist else []
    for each in case.procedures:
        of = f" ({', '.join(each.sublists)})" if each.sublists else ""
        lines += [f"  who asks{of}: {each.who}", f"  how: {each.how}"]
        lines += [f"  takes: {each.takes}"] if each.takes else []
        lines += [f"  ends by itself: {each.expires}"] if each.expires else []
    if not case.procedures and not (case.spec and case.spec.delist):
        lines += ["  no procedure is known here: look for it at the list's operator"]
    for before in case.asked:
        lines += [f"  asked before: {said(before)}"]
    return [*lines, *(["", *(f"  | {line}" for line in case.request.split("\n"))] if case.to_be_asked else [])]


def said(asked: Delisting) -> str:
    """One line about a request, for people."""
    note = f": {asked.note}" if asked.note else ""
    return f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime(asked.at))} UTC by {asked.by_whom}, {asked.object} from {asked.list}{note}"
