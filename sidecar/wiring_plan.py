"""What has to change in main.cf and master.cf so that Postfix asks us: computed for the site's own values.

Changes nothing; says each edit with the value before it, and refuses what must not be wired (and why).
"""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from sidecar import restrictions, transport_table, transports
from sidecar.config import Config
from sidecar.postfix_configuration import Configuration, Service
from sidecar.restrictions import Element
from sidecar.site import relays
from sidecar.transports import LANES

POLICY = "sidecar_policy"
"""Our parameter in main.cf; every list refers to it, so that smtpd keeps one connection for all of them."""

DIRECTORY = "sidecar"
"""Below the configuration directory: our tables and the undo."""

HEADER_CHECKS = "header_checks.regexp"
HEADER_TABLE = f"regexp:$config_directory/{DIRECTORY}/{HEADER_CHECKS}"

HEADER_CHECKS_TEXT = """\
# What a message says of itself, into the log: sub-queues learn from it which domains sign and send.
# INFO changes nothing about the message; the value is cut at 200 bytes.
/^From:/ INFO
/^DKIM-Signature:/ INFO
/^(List-Id|Feedback-ID|X-Campaign(-ID)?|X-Segment):/ INFO
/^(List-Unsubscribe|List-Unsubscribe-Post):/ INFO
"""

SEED_MAP = "sender_dependent_default_transport_maps"
"""Where Postfix learns over which transport a seed test goes: by its envelope sender."""

_RECIPIENT = "smtpd_recipient_restrictions"
_END_OF_DATA = "smtpd_end_of_data_restrictions"
_COPIES = ("always_bcc", "sender_bcc_maps", "recipient_bcc_maps")


class Place(StrEnum):
    """Where an edit is made."""

    MAIN = "main.cf"
    """A parameter."""
    SERVICE = "master.cf"
    """A whole entry, named service/type."""
    OVERRIDE = "master.cf -o"
    """A parameter of an entry, named service/type/parameter."""


class Edit(NamedTuple):
    """One change."""

    place: Place
    name: str
    before: str | None
    """None: main.cf or master.cf does not say it."""
    after: str | None
    """None: it is taken out."""


class Plan(NamedTuple):
    edits: tuple[Edit, ...]
    files: Mapping[str, str]
    """Name below DIRECTORY -> text."""
    notes: tuple[str, ...]
    """What the admin should know."""
    refused: tuple[str, ...]
    """Why nothing of this may be applied; empty where it may."""


def plan(
    site: Configuration,
    config: Config,
    *,
    mine: frozenset[str] = frozenset(),
    headers: bool = True,
    lanes: int = LANES,
) -> Plan:
    """What is missing. `mine`: entries of master.cf that we made before, which may be changed again."""
    notes: list[str] = []
    refused: list[str] = []
    policy = _policy(site, config, refused)
    smtpds = _attachable(site, notes, refused)
    edits = [
        *_settings(site, policy),
        *_lists(site, smtpds, policy),
        *(_headers(site) if headers else ()),
        *_transports(site, config, lanes=lanes, mine=mine, notes=notes, refused=refused),
        *_seeds(site, config, notes),
        *_table(site, config, refused),
    ]
    files = {HEADER_CHECKS: HEADER_CHECKS_TEXT} if headers else {}
    needed = tuple(edit for edit in edits if edit.after is not None and not _same(edit.after, edit.before))
    return Plan(needed, files, tuple(notes), tuple(refused))


def removal(site: Configuration, made: Sequence[Edit], *, transports: bool) -> tuple[list[Edit], list[str]]:
    """What takes our edits out again: back to the value before, or, where an admin changed it since, without ours.

    `made`: the edits that were applied; without them, what is recognisably ours goes. `transports`: entries
    of master.cf, too. Gives the edits and what is to be said.
    """
    notes: list[str] = []
    edits: list[Edit] = []
    known = {(edit.place, edit.name): edit for edit in made}
    for place, name, now in _present(site):
        edit = known.get((place, name))
        if place is Place.MAIN and (name == POLICY or name.startswith(f"{POLICY}_")):
            edits.append(Edit(place, name, now, None))
        elif place is Place.SERVICE:
            if edit is not None and transports:
                edits.append(Edit(place, name, now, edit.before))
        elif edit is not None and _same(now, edit.after):
            edits.append(Edit(place, name, now, edit.before))
        elif (rest := _without_ours(site, now)) != now:
            edits.append(Edit(place, name, now, rest or None))
        elif edit is not None:
            notes.append(f"{place}: {name} = {now}: changed since; was {edit.before!r} before, left as it is")
    return edits, notes


def ours(element: Element, *, endpoint: str = "") -> bool:
    """Whether an element of a list is ours: by our parameter, our table, or wired by hand to our socket."""
    if str(element) in {f"${POLICY}", f"${{{POLICY}}}", HEADER_TABLE}:
        return True
    asked = restrictions.policy_service(element)
    return asked is not None and asked.endpoint == endpoint


def endpoint_of(config: Config) -> str:
    """Where smtpd shall ask: the first unix socket of policy.listen, else its first address."""
    return next((one for one in config.policy.listen if one.startswith("unix:")), (*config.policy.listen, "")[0])


def passed_on(site: Configuration, service: Service) -> str:
    """Why an smtpd is not the last before the Internet: what it hands its mail to; "" where it is."""
    for name in ("smtpd_proxy_filter", "content_filter"):
        value = site.effective(service, name)
        if value:
            return f"{name} = {value}"
    return ""


def _policy(site: Configuration, config: Config, refused: list[str]) -> str:
    endpoint = endpoint_of(config)
    if not endpoint:
        refused.append("policy.listen: empty; wanted an address that smtpd can ask, as unix:private/sidecar")
    version = site.instance.parameters["mail_version"]
    if version and version.split(".")[0] in {"1", "2"}:
        refused.append(f"Postfix {version} knows no default_action of one policy service; wanted 3.0 or later")
    path = endpoint.removeprefix("unix:")
    if endpoint.startswith("unix:/"):
        caged = [service.id for service in site.smtpd() if service.chroot == "y"]
        if caged:
            refused.append(
                f"policy.listen: {endpoint}: {', '.join(caged)} are chrooted and cannot reach {path}; "
                "wanted a path below the queue directory, as unix:private/sidecar"
            )
    return f"check_policy_service {{ {endpoint}, timeout=3s, default_action=DUNNO }}"


def _attachable(site: Configuration, notes: list[str], refused: list[str]) -> list[Service]:
    """The smtpd services that are the last before the Internet."""
    found = []
    for service in site.smtpd():
        if reason := passed_on(site, service):
            notes.append(f"{service.id}: {reason}: its mail passes another smtpd, which is asked instead")
        else:
            found.append(service)
    if not found:
        refused.append(
            "every smtpd of master.cf hands its mail to a filter; where it comes back, the entry needs "
            "-o content_filter= and -o smtpd_proxy_filter= to be the last smtpd before the Internet"
            if site.smtpd()
            else "master.cf has no smtpd; wire the instance that receives the mail"
        )
    return found


def _settings(site: Configuration, policy: str) -> Iterator[Edit]:
    for name, after in ((POLICY, policy), ("enable_long_queue_ids", "yes")):
        yield Edit(Place.MAIN, name, site.own.get(name), after)


def _lists(site: Configuration, smtpds: Sequence[Service], policy: str) -> Iterator[Edit]:
    """The two checks, in main.cf where all that inherit from it may ask, else in the entries of master.cf."""
    attached = {service.id for service in smtpds}
    is_ours = functools.partial(ours, endpoint=_endpoint(policy))
    for name in (_RECIPIENT, _END_OF_DATA):

        def wired(text: str, name: str = name) -> str:
            if name == _END_OF_DATA:
                return restrictions.first(text, f"${POLICY}", is_ours)
            return restrictions.placed(text, f"${POLICY}", site.values, is_ours)

        heirs = [service for service in site.smtpd() if name not in service.overrides]
        in_main = all(service.id in attached for service in heirs) and bool(heirs)
        if in_main:
            yield Edit(Place.MAIN, name, site.own.get(name), wired(site.values.get(name, "")))
        for service in smtpds:
            if name in service.overrides or not in_main:
                yield from _override(site, service, name, wired(site.written(service, name)))


def _override(site: Configuration, service: Service, name: str, after: str) -> Iterator[Edit]:
    """Set a list of one entry. postconf -P takes no blanks, so a list with any goes to a parameter of its own."""
    before = service.overrides.get(name)
    key = f"{service.id}/{name}"
    tight = after.replace(", ", ",")
    own = f"{POLICY}_{re.sub('[^A-Za-z0-9]', '_', service.id)}_{name.removeprefix('smtpd_')}"
    if before == f"${own}":
        yield Edit(Place.MAIN, own, site.own.get(own), site.own.get(own))
    elif any(character.isspace() for character in tight):
        yield Edit(Place.MAIN, own, site.own.get(own), after)
        yield Edit(Place.OVERRIDE, key, before, f"${own}")
    elif before is None or not _same(before, after):
        yield Edit(Place.OVERRIDE, key, before, tight)


def _headers(site: Configuration) -> Iterator[Edit]:
    """Our table last, so that it hides none of the site's; and not for the headers of attached messages."""
    before = site.values.get("header_checks", "")
    yield Edit(Place.MAIN, "header_checks", site.own.get("header_checks"), restrictions.last(before, HEADER_TABLE))
    for name in ("nested_header_checks", "mime_header_checks"):
        if site.values.get(name) == "$header_checks" and HEADER_TABLE not in before:
            yield Edit(Place.MAIN, name, site.own.get(name), before)


def _transports(
    site: Configuration,
    config: Config,
    *,
    lanes: int,
    mine: frozenset[str],
    notes: list[str],
    refused: list[str],
) -> Iterator[Edit]:
    if config.route:
        refused += [
            f"[[route]]: {name} = {site.expanded[name]}: an answer FILTER would bypass it; take out the routes or the relay"
            for name in relays(site.expanded)
        ]
        notes += [
            f"{name} = {site.expanded[name]}: routes are not answered while it is set"
            for name in (*_COPIES, "content_filter")
            if site.expanded.get(name)
        ]
    for transport in transports.wanted(config, lanes=lanes, refused=refused).values():
        present = site.service(transport.name, "unix")
        before = " ".join(present.line.split()) if present else None
        line = transport.line(site)
        if present is not None and f"{transport.name}/unix" not in mine and before != line:
            notes.append(f"{transport.name}/unix is in master.cf already; left as it is: {before}")
            continue
        yield Edit(Place.SERVICE, f"{transport.name}/unix", before, line)
        for name, value in transport.limits.items():
            yield Edit(Place.MAIN, name, site.own.get(name), value)


def chosen_transports(config: Config) -> list[str]:
    """Name the transports that a seed test may choose: those that we render, less the lanes, and seedtest.transports."""
    return sorted({*transports.wanted(config), *config.seedtest.transports})


def sender_on(sender: str, transport: str) -> str:
    """Give the envelope sender by which Postfix chooses a transport: seedtest+lane-01@example.com."""
    local, _, domain = sender.rpartition("@")
    return f"{local}+{transport}@{domain}" if transport else sender


def _seeds(site: Configuration, config: Config, notes: list[str]) -> Iterator[Edit]:
    """Our table first, so that no broader one of the site's hides it; it has nothing about any other sender."""
    names = chosen_transports(config)
    if not config.seed or not config.seedtest.sender or not names:
        return
    notes += [
        f"seedtest.transports: {name}: is no entry of master.cf; test mail over it would wait in the queue"
        for name in config.seedtest.transports
        if site.service(name, "unix") is None and name not in transports.wanted(config)
    ]
    ours_now = ", ".join(f"{sender_on(config.seedtest.sender, name)}={name}:" for name in names)
    table = f"inline:{{{ours_now}}}"
    others = [str(one) for one in restrictions.split(site.values.get(SEED_MAP, "")) if not _is_seed_map(str(one))]
    yield Edit(Place.MAIN, SEED_MAP, site.own.get(SEED_MAP), ", ".join((table, *others)))


def _table(site: Configuration, config: Config, refused: list[str]) -> Iterator[Edit]:
    """Our table of transports last: where one of the site's has a domain, the site's counts."""
    table = config.postfix.transport_table
    if not table:
        return
    if found := transport_table.problem(table, site.instance.config_directory):
        refused.append(found)
        return
    others = [str(one) for one in restrictions.split(site.values.get("transport_maps", "")) if str(one) != table]
    yield Edit(Place.MAIN, "transport_maps", site.own.get("transport_maps"), ", ".join((*others, table)))


def _is_seed_map(table: str) -> bool:
    """Whether a table is ours, of this configuration or of one before."""
    keys = re.findall(r"[{,\s]([^\s,={}]+)=([^\s,={}]+):", table) if table.startswith("inline:") else []
    return bool(keys) and all(f"+{transport}@" in key for key, transport in keys)


def _present(site: Configuration) -> Iterator[tuple[Place, str, str]]:
    """Everything that main.cf and master.cf say."""
    for service in site.services:
        for name, value in service.overrides.items():
            yield Place.OVERRIDE, f"{service.id}/{name}", value
        yield Place.SERVICE, service.id, " ".join(service.line.split())
    for name, value in site.own.items():
        yield Place.MAIN, name, value


def _without_ours(site: Configuration, text: str) -> str:
    """A list without our elements; another value, or a list without any, as it is."""
    if text.startswith(f"${POLICY}_"):  # a list with blanks, which stands in a parameter of its own
        text = site.values.get(text.removeprefix("$"), "")
    if not any(ours(element) for element in restrictions.split(text)):
        return text
    return restrictions.without(text, ours)


def _endpoint(policy: str) -> str:
    asked = restrictions.policy_service(restrictions.split(policy)[0])
    assert asked is not None
    return asked.endpoint


def _same(one: str, other: str | None) -> bool:
    """Whether two lists have the same elements, however they are parted."""
    return other is not None and restrictions.split(one) == restrictions.split(other)
