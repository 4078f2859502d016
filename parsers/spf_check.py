"""Evaluates a domain's SPF record for many addresses at once, as receivers do (RFC 7208 section 4).

Asks through DnsAsk. A stranger walks along with our addresses: what befalls it is said of the record as a whole, and
where it may send, everybody may.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from parsers.feeds.asking import Asked, DnsAnswer, DnsAsk
from parsers.feeds.reversed_name import reversed_address
from parsers.spf import (
    LOOKUPS_MAX,
    VOIDS_MAX,
    Client,
    Record,
    Result,
    SpfError,
    Term,
    expand,
    has_macro,
    is_spf,
    matching,
    read_record,
)

STRANGER = "240.0.0.1"
"""In a network that nobody can have (RFC 1112 section 4): no record lists it that does not list all."""
HOSTS_MAX = 10
"""MX hosts, or names of an address, that one term may look at (section 4.6.4)."""
_COUNTED_MAX = 30
"""Look-ups that a record beyond the limit is still followed for, so as to say how many it wants."""
_ASKS = frozenset({"include", "a", "mx", "ptr", "exists"})


class SpfVerdict(NamedTuple):
    results: Mapping[str, Result]
    """By address."""
    record: str
    """"" where there is none."""
    faults: tuple[str, ...]
    """Why the record as a whole is invalid."""
    remarks: tuple[str, ...]
    lookups: int
    voids: int
    open_to_all: bool
    unanswered: str
    """The first look-up that failed; "" where all were answered: results and counts are then complete."""


@dataclass(slots=True)
class _Walk:
    """One evaluation under way."""

    sender_domain: str
    helos: Mapping[str, str]
    lookups: int = 0
    voids: dict[Client, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    unanswered: str = ""
    record: str = ""

    def name(self, spec: str, domain: str, client: Client) -> str:
        helo = self.helos.get(client.address, "")
        return expand(spec, client, domain=domain, sender_domain=self.sender_domain, helo=helo)

    def fault(self, words: str) -> None:
        if words not in self.faults:
            self.faults.append(words)

    def void(self, clients: Iterable[Client]) -> None:
        for client in clients:
            self.voids[client] = self.voids.get(client, 0) + 1


Results = dict[Client, Result]


def check(domain: str, addresses: Iterable[str], *, helos: Mapping[str, str] | None = None) -> Asked[SpfVerdict]:
    """Evaluate the record of `domain` for mail from postmaster@domain from each of these addresses.

    `helos`: address -> the name that it greets with. Raises ValueError for what is no address.
    """
    walk = _Walk(domain, helos or {})
    stranger = Client.of(STRANGER)
    ours = [Client.of(address) for address in addresses]
    results = yield from _host(walk, domain, {stranger, *ours}, ())
    return SpfVerdict(
        {each.address: results[each] for each in ours},
        walk.record,
        tuple(walk.faults),
        tuple(dict.fromkeys(walk.remarks)),
        walk.lookups,
        max(walk.voids.values(), default=0),
        results[stranger] is Result.PASS,
        walk.unanswered,
    )


def _host(walk: _Walk, domain: str, clients: set[Client], path: tuple[str, ...]) -> Asked[Results]:
    """check_host() of section 4."""
    record = yield from _record(walk, domain, path)
    if isinstance(record, Result):
        return dict.fromkeys(clients, record)
    results: Results = {}
    left = set(clients)
    for term in record.terms:
        if walk.lookups >= _COUNTED_MAX:
            break
        left -= _limited(walk, left, results, asks=term.mechanism in _ASKS)
        told = yield from _told(walk, term, domain, left, path)
        results |= told
        left -= told.keys()
        left -= _limited(walk, left, results, asks=False)
        if term.mechanism == "all":
            break
    if record.redirect and walk.lookups < _COUNTED_MAX:
        left -= _limited(walk, left, results, asks=True)
        told = yield from _elsewhere(walk, record.redirect, domain, left, path, what="redirect")
        results |= {each: _REDIRECTED.get(result, result) for each, result in told.items()}
        left -= told.keys()
    return dict.fromkeys(left, Result.NEUTRAL) | results


_REDIRECTED = {Result.NONE: Result.PERMERROR}


def _limited(walk: _Walk, left: set[Client], results: Results, *, asks: bool) -> set[Client]:
    """Count a term, and end the evaluation for whom a limit is passed (section 4.6.4)."""
    walk.lookups += asks
    many = {each for each, voids in walk.voids.items() if voids > VOIDS_MAX}
    over = set(left) if walk.lookups > LOOKUPS_MAX else left & many
    results |= dict.fromkeys(over, Result.PERMERROR)
    return over


def _record(walk: _Walk, domain: str, path: tuple[str, ...]) -> Asked[Record | Result]:
    if domain in path:
        walk.fault(f"{domain} includes itself by way of {', '.join(path[path.index(domain) :])}")
        return Result.PERMERROR
    answer = yield from _ask(walk, domain, "TXT")
    if _failed(answer):
        return Result.TEMPERROR
    records = [each for each in answer.records if is_spf(each)]
    if not records:
        return Result.NONE
    if len(records) > 1:
        walk.fault(f"{domain} has {len(records)} SPF records, wanted one")
        return Result.PERMERROR
    if not path:
        walk.record = records[0]
    try:
        record = read_record(records[0])
    except SpfError as error:
        walk.fault(f"{domain}: {error}")
        return Result.PERMERROR
    if not path:
        walk.remarks += record.remarks
    return record


def _told(walk: _Walk, term: Term, domain: str, left: set[Client], path: tuple[str, ...]) -> Asked[Results]:
    """Tell the results that one mechanism gives; whom it does not match it does not mention."""
    match term.mechanism:
        case "all":
            matched = set(left)
        case "ip4" | "ip6":
            assert term.net is not None
            matched = matching(term.net, left)
        case "include":
            told = yield from _elsewhere(walk, term.target, domain, left, path, what=term.text)
            return {each: _INCLUDED[told[each]] or term.result for each in told if told[each] in _INCLUDED}
        case _:
            return (yield from _looked_up(walk, term, domain, left))
    return dict.fromkeys(matched, term.result)


_INCLUDED: Mapping[Result, Result | None] = {
    Result.PASS: None,
    Result.TEMPERROR: Result.TEMPERROR,
    Result.PERMERROR: Result.PERMERROR,
    Result.NONE: Result.PERMERROR,
}
"""What an included record's result becomes (section 5.2); None: the mechanism's own."""


def _elsewhere(
    walk: _Walk, spec: str, domain: str, left: set[Client], path: tuple[str, ...], *, what: str
) -> Asked[Results]:
    """Another domain's record; with macros it may be another one for each address."""
    groups = _by_name(walk, spec, domain, left)
    results: Results = {}
    before = worst = walk.lookups
    for name, clients in groups.items():
        walk.lookups = before
        told = yield from _host(walk, name, clients, (*path, domain))
        results |= told
        worst = max(worst, walk.lookups)
        if clients and all(result is Result.NONE for result in told.values()):
            walk.fault(f"{what} leads to {name}, which has no SPF record")
    walk.lookups = worst
    return results


def _by_name(walk: _Walk, spec: str, domain: str, left: Collection[Client]) -> dict[str, set[Client]]:
    if not spec or not has_macro(spec):
        return {(spec or domain).rstrip(".").lower(): set(left)}
    groups: dict[str, set[Client]] = {}
    for client in left:
        groups.setdefault(walk.name(spec, domain, client).lower(), set()).add(client)
    return groups


def _looked_up(walk: _Walk, term: Term, domain: str, left: set[Client]) -> Asked[Results]:
    results: Results = {}
    for name, clients in _by_name(walk, term.target, domain, left).items():
        match term.mechanism:
            case "a":
                results |= yield from _addresses(walk, term, (name,), clients, voids=True)
            case "mx":
                results |= yield from _mail_hosts(walk, term, name, clients)
            case "exists":
                results |= yield from _existing(walk, term, name, clients)
            case _:
                results |= yield from _pointed(walk, term, name, clients)
    return results


def _addresses(walk: _Walk, term: Term, names: Collection[str], clients: set[Client], *, voids: bool) -> Asked[Results]:
    """Whose address is among those of these hosts."""
    results: Results = {}
    for version, kind in ((4, "A"), (6, "AAAA")):
        family = {each for each in clients if each.version == version}
        for name in names if family else ():
            answer = yield from _ask(walk, name, kind)
            if _failed(answer):
                results |= dict.fromkeys(family - results.keys(), Result.TEMPERROR)
                break
            if voids and not answer.records:
                walk.void(family)
            mask = term.masks[version]
            numbers = {each.number & mask for each in _clients(answer.records) if each.version == version}
            results |= {each: term.result for each in family - results.keys() if each.number & mask in numbers}
    return results


def _mail_hosts(walk: _Walk, term: Term, name: str, clients: set[Client]) -> Asked[Results]:
    answer = yield from _ask(walk, name, "MX")
    if _failed(answer):
        return dict.fromkeys(clients, Result.TEMPERROR)
    hosts = sorted({record.split()[-1].rstrip(".").lower() for record in answer.records if record.split()} - {""})
    if not answer.records:
        walk.void(clients)
    if len(hosts) > HOSTS_MAX:
        walk.fault(f"{term.text}: {name} has {len(hosts)} MX hosts, at most {HOSTS_MAX} are looked at")
        return dict.fromkeys(clients, Result.PERMERROR)
    return (yield from _addresses(walk, term, hosts, clients, voids=False))


def _existing(walk: _Walk, term: Term, name: str, clients: set[Client]) -> Asked[Results]:
    """Asks for A, whatever the version of the address (section 5.7)."""
    answer = yield from _ask(walk, name, "A")
    if _failed(answer):
        return dict.fromkeys(clients, Result.TEMPERROR)
    if not answer.records:
        walk.void(clients)
        return {}
    return dict.fromkeys(clients, term.result)


def _pointed(walk: _Walk, term: Term, name: str, clients: set[Client]) -> Asked[Results]:
    """Section 5.5: a name of the address that leads back to it and lies below the target.

    There a failed look-up is no match; here it is one that nobody knows.
    """
    results: Results = {}
    for client in sorted(clients):
        if client.address == STRANGER:
            continue
        zone = "in-addr.arpa" if client.version == 4 else "ip6.arpa"
        answer = yield from _ask(walk, f"{reversed_address(client.address)}.{zone}", "PTR")
        if _failed(answer):
            results[client] = Result.TEMPERROR
        for host in [record.rstrip(".").lower() for record in answer.records][:HOSTS_MAX]:
            if host == name or host.endswith(f".{name}"):
                back = yield from _ask(walk, host, "A" if client.version == 4 else "AAAA")
                if client[1:] in {each[1:] for each in _clients(back.records)}:
                    results[client] = term.result
                elif _failed(back):
                    results.setdefault(client, Result.TEMPERROR)
    return results


def _clients(records: Iterable[str]) -> list[Client]:
    """Addresses of an answer; what is none is left out."""
    found = []
    for record in records:
        try:
            found.append(Client.of(record))
        except ValueError:
            continue
    return found


def _ask(walk: _Walk, name: str, kind: str) -> Asked[DnsAnswer]:
    """Ask for a name; one that cannot be (an empty or long label) does not exist (section 4.3)."""
    if not is_name(name):
        return DnsAnswer("NXDOMAIN")
    (answer,) = yield (DnsAsk(name, kind, walk.sender_domain),)
    assert isinstance(answer, DnsAnswer)
    if _failed(answer):
        walk.unanswered = walk.unanswered or f"{name} {kind}: {answer.rcode}"
    return answer


def is_name(name: str) -> bool:
    """Whether a name can be asked for at all (RFC 1035 section 2.3.4)."""
    return name.isascii() and len(name) <= 253 and all(0 < len(label) <= 63 for label in name.split("."))


def _failed(answer: DnsAnswer) -> bool:
    return answer.rcode not in {"NOERROR", "NXDOMAIN"}
