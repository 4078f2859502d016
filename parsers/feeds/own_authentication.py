"""How our own sending domains and addresses are set up in the DNS, named like Google's compliance items.

Asks as receivers do. Knows that a look-up which fails says nothing: only an answer makes a requirement unmet.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from parsers import dkim_key, dmarc_record
from parsers.dkim_key import DkimKeyError
from parsers.dmarc_record import POLICIES, DmarcError
from parsers.feeds import own_mail
from parsers.feeds.asking import Answer, Ask, Asked, DnsAnswer, DnsAsk, Poll, Reading, Trouble
from parsers.feeds.inbound_records import mta_sts, tls_reporting
from parsers.feeds.own_dns import addresses_of, hosts_of, look_up, points_back, unanswered
from parsers.feeds.own_mail import Presented
from parsers.feeds.together import together
from parsers.observation import Observation, Outcome
from parsers.spf import LOOKUPS_MAX, VOIDS_MAX, Result
from parsers.spf_check import SpfVerdict, check, is_name

FEED = "authentication"
MEASURES = (
    *("requirement.SPF", "requirement.DKIM", "requirement.SPF_AND_DKIM", "requirement.DMARC_POLICY"),
    *("requirement.DNS_RECORDS", "spf-record", "spf-lookups", "spf-addresses", "dkim-key.SELECTOR"),
    *("dkim-key-bits.SELECTOR", "dkim-key-age.SELECTOR", "dmarc-policy", "dmarc-reports", "helo", "mta-sts", "tls-rpt"),
    *(own_mail.ALIGNMENT, own_mail.ONE_CLICK),
)
_BATCH = 40
"""Domains that are asked about side by side: what is computed between two rounds must not keep others waiting."""
_SHOWN = 5
"""Addresses that a text names."""


class Key(NamedTuple):
    """Where a DKIM key is."""

    domain: str
    selector: str


class Sender(NamedTuple):
    domain: str
    keys: tuple[Key, ...] = ()
    """What its mail is signed with, as far as known."""


class Site(NamedTuple):
    """What is known of ourselves."""

    now: float
    addresses: tuple[str, ...]
    helos: Mapping[str, str] = {}
    """Address -> the name that it greets with."""
    organizational: Callable[[str], str] = str
    first_seen: Mapping[tuple[Key, str], float] = {}
    """(where, fingerprint) of keys seen before -> when first."""
    any_address: bool = False
    """Each domain leaves from some of our addresses only: its SPF record need not name all."""
    rotate_after: float = 180 * 86_400.0
    """Seconds after which a key should be replaced."""
    policy_base: str = "https://mta-sts.{domain}"
    test_name: str = "."
    """Has NS records in any DNS that works; "": not asked."""


def poll(
    site: Site,
    senders: Sequence[Sender],
    *,
    inbound: Iterable[str] = (),
    mail: Iterable[Presented] = (),
    with_addresses: bool = True,
) -> Poll:
    """Look at each sender, at our addresses, and at `mail` as it was sent.

    Of the domains `inbound` at what they say about mail to them.
    """
    if site.test_name:
        (answer,) = yield (DnsAsk(site.test_name, "NS"),)
        if not isinstance(answer, DnsAnswer) or answer.rcode != "NOERROR" or not answer.records:
            said = answer.rcode if isinstance(answer, DnsAnswer) else ""
            return Reading(
                (), Trouble.NETWORK, f"the resolver knows no NS of {site.test_name!r} ({said}): not believed"
            )
    parts = [_address(site, address) for address in site.addresses if with_addresses]
    parts += [_sender(site, sender) for sender in senders]
    parts += [_inbound(site, domain) for domain in inbound]
    parts += [own_mail.judge(FEED, presented, site.organizational) for presented in mail]
    found: dict[tuple[str, str], Observation] = {}
    known: dict[Ask, Answer] = {}
    for first in range(0, len(parts), _BATCH):
        told = yield from together(parts[first : first + _BATCH], known)
        known = {ask: answer for ask, answer in known.items() if isinstance(ask, DnsAsk)}  # policy files may be large
        found |= {(each.object, each.measure): each for part in told for each in part}
    seen = tuple(found.values())
    if seen and all(each.outcome is Outcome.UNKNOWN for each in seen):
        return Reading(seen, Trouble.NETWORK, seen[0].text)
    return Reading(seen)


Told = Asked[list[Observation]]


def judged(object_: str, measure: str, met: bool | None, text: str) -> Observation:  # noqa: FBT001  # the verdict itself
    """None: nobody could say."""
    if met is None:
        return Observation(FEED, object_, measure, Outcome.UNKNOWN, text=text)
    return Observation(FEED, object_, measure, Outcome.OK, float(met), text)


def _no_data(object_: str, measure: str, text: str) -> Observation:
    return Observation(FEED, object_, measure, Outcome.NO_DATA, text=text)


def _sender(site: Site, sender: Sender) -> Told:
    parts = [_spf(site, sender.domain), _dkim(site, sender), _dmarc(site, sender.domain), _domain(sender.domain)]
    told = [each for part in (yield from together(parts)) for each in part]
    by_name = {each.measure: each for each in told if each.object == sender.domain}
    return [*told, _both(sender.domain, by_name["requirement.SPF"], by_name["requirement.DKIM"])]


def _both(domain: str, *halves: Observation) -> Observation:
    measure = "requirement.SPF_AND_DKIM"
    text = "; ".join(f"{each.measure.partition('.')[2]}: {each.text}" for each in halves if each.value != 1.0)
    if any(each.value == 0.0 for each in halves):
        return judged(domain, measure, met=False, text=text)
    if any(each.outcome is Outcome.UNKNOWN for each in halves):
        return judged(domain, measure, None, text)
    if any(each.outcome is Outcome.NO_DATA for each in halves):
        return _no_data(domain, measure, text)
    return judged(domain, measure, met=True, text="")


# SPF.


def _spf(site: Site, domain: str) -> Told:
    verdict = yield from check(domain, site.addresses, helos=site.helos)
    record = _spf_record(domain, verdict)
    told = [record, _spf_lookups(domain, verdict), *_spf_addresses(domain, verdict)]
    return [*told, judged(domain, "requirement.SPF", *_spf_met(site, verdict, record))]


def _spf_record(domain: str, verdict: SpfVerdict) -> Observation:
    faults = list(verdict.faults)
    if verdict.lookups > LOOKUPS_MAX:
        faults.append(f"{verdict.lookups} look-ups, at most {LOOKUPS_MAX} are made: name networks (ip4:, ip6:) instead")
    if verdict.voids > VOIDS_MAX:
        faults.append(f"{verdict.voids} look-ups that find nothing, at most {VOIDS_MAX} are borne: take them out")
    if verdict.open_to_all:
        faults.append("it lets everybody send: wanted our addresses and ~all or -all")
    if not faults and verdict.unanswered:
        return judged(domain, "spf-record", None, verdict.unanswered)
    if not faults and not verdict.record:
        return judged(domain, "spf-record", met=False, text="no SPF record: wanted TXT v=spf1 ... ~all")
    return judged(domain, "spf-record", met=not faults, text="; ".join(faults or verdict.remarks))


def _spf_lookups(domain: str, verdict: SpfVerdict) -> Observation:
    if verdict.unanswered:
        return judged(domain, "spf-lookups", None, verdict.unanswered)
    return Observation(FEED, domain, "spf-lookups", Outcome.OK, float(verdict.lookups))


def _spf_addresses(domain: str, verdict: SpfVerdict) -> list[Observation]:
    results = verdict.results
    if not results:
        return [_no_data(domain, "spf-addresses", "no public address of ours is known: name them in outside.addresses")]
    if Result.TEMPERROR in results.values():
        return [judged(domain, "spf-addresses", None, verdict.unanswered)]
    share = sum(result is Result.PASS for result in results.values()) / len(results)
    return [Observation(FEED, domain, "spf-addresses", Outcome.OK, share, _not_passing(results))]


def _not_passing(results: Mapping[str, Result]) -> str:
    others = [f"{address} {result}" for address, result in results.items() if result is not Result.PASS]
    more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
    return ", ".join(others[:_SHOWN]) + more


def _spf_met(site: Site, verdict: SpfVerdict, record: Observation) -> tuple[bool | None, str]:
    """Whether our mail passes; a record that is invalid only beyond the term that lets us send does no harm yet."""
    results = set(verdict.results.values())
    wrong = record.text if record.value == 0.0 else ""
    if not results or verdict.open_to_all or (record.value == 0.0 and not verdict.record):
        return None if record.value is None else record.value == 1.0, record.text
    unsure, passed = Result.TEMPERROR in results, Result.PASS in results
    if (site.any_address and passed) or results == {Result.PASS}:
        return True, wrong
    if unsure and (site.any_address or results <= {Result.PASS, Result.TEMPERROR}):
        return None, verdict.unanswered
    said = _not_passing(verdict.results)
    return False, f"{said}: {wrong or 'wanted each of our addresses in the record, as ip4:ADDRESS or ip6:ADDRESS'}"


# DKIM.


def _dkim(site: Site, sender: Sender) -> Told:
    if not sender.keys:
        text = "no key that signs is known: name it in outside.selectors, as s1._domainkey.example.com"
        return [_no_data(sender.domain, "requirement.DKIM", text)]
    told = [each for part in (yield from together([_key(site, key) for key in sender.keys])) for each in part]
    keys = [each for each in told if each.measure.startswith("dkim-key.")]
    bad = [each for each in keys if each.value == 0.0]
    unknown = [each for each in keys if each.outcome is Outcome.UNKNOWN]
    met = False if bad else None if unknown else True
    return [*told, judged(sender.domain, "requirement.DKIM", met, "; ".join(each.text for each in (*bad, *unknown)))]


def _key(site: Site, key: Key) -> Told:
    name, measure = f"{key.selector}._domainkey.{key.domain}", f"dkim-key.{key.selector}"
    answer = yield from look_up(name, "TXT", key.domain)
    if why := unanswered(answer, name):
        return [judged(key.domain, measure, None, why)]
    records = [each for each in answer.records if dkim_key.is_key(each)] or list(answer.records)
    if len(records) != 1:
        found = f"{len(records)} keys at {name}, wanted one" if records else f"no key at {name}, wanted v=DKIM1; p=..."
        return [judged(key.domain, measure, met=False, text=found)]
    try:
        read = dkim_key.read_key(records[0])
    except DkimKeyError as error:
        return [judged(key.domain, measure, met=False, text=f"{name}: {error}")]
    if read.revoked:
        return [judged(key.domain, measure, met=False, text=f"{name}: the key is revoked (p= is empty)")]
    return [_usable(key, measure, name, read), *_life(site, key, read)]


def _usable(key: Key, measure: str, name: str, read: dkim_key.DkimKey) -> Observation:
    said = f"{name}: {read.algorithm}, {read.bits} bits"
    if read.algorithm == "rsa" and read.bits < dkim_key.BITS_MIN:
        return judged(key.domain, measure, met=False, text=f"{said}: not verified, wanted {dkim_key.BITS_GOOD}")
    if read.algorithm == "rsa" and read.bits < dkim_key.BITS_GOOD:
        said += f", better {dkim_key.BITS_GOOD}"
    if read.testing:
        said += "; marked as a test (t=y): take that out, it makes signatures worthless to some"
    return judged(key.domain, measure, met=True, text=said)


def _life(site: Site, key: Key, read: dkim_key.DkimKey) -> list[Observation]:
    age = max(0.0, site.now - site.first_seen.get((key, read.fingerprint), site.now))
    age -= age % 86_400.0  # whole days: a value that changes with each poll fills the history
    text = f"older than {site.rotate_after / 86_400:.0f} days: replace it" if age > site.rotate_after else ""
    return [
        Observation(FEED, key.domain, f"dkim-key-bits.{key.selector}", Outcome.OK, float(read.bits), read.fingerprint),
        Observation(FEED, key.domain, f"dkim-key-age.{key.selector}", Outcome.OK, age, text),
    ]


# DMARC.


def _dmarc(site: Site, domain: str) -> Told:
    measure = "requirement.DMARC_POLICY"
    for owner in dict.fromkeys((domain, site.organizational(domain))):
        name = f"_dmarc.{owner}"
        answer = yield from look_up(name, "TXT", domain)
        if why := unanswered(answer, name):
            return [judged(domain, measure, None, why)]
        records = [each for each in answer.records if dmarc_record.is_dmarc(each)]
        if len(records) > 1:
            text = f"{len(records)} DMARC records at {name}, wanted one: none of them counts"
            return [judged(domain, measure, met=False, text=text)]
        if records:
            return (yield from _dmarc_record(site, domain, owner, records[0]))
        if near := [each for each in answer.records if "dmarc1" in each.lower()]:
            text = f"{name}: found {near[0][:40]!r}, wanted v=DMARC1; at its begin"
            return [judged(domain, measure, met=False, text=text)]
    text = f"no DMARC record at _dmarc.{domain}, wanted at least v=DMARC1; p=none; rua=mailto:ADDRESS"
    return [judged(domain, measure, met=False, text=text)]


def _dmarc_record(site: Site, domain: str, owner: str, record: str) -> Told:
    measure, name = "requirement.DMARC_POLICY", f"_dmarc.{owner}"
    try:
        read = dmarc_record.read_record(record)
    except DmarcError as error:
        return [judged(domain, measure, met=False, text=f"{name}: {error}")]
    policy = read.policy if owner == domain else read.subdomain_policy
    return [
        judged(domain, measure, met=True, text="; ".join((f"{name}: {policy}", *read.remarks))),
        Observation(FEED, domain, "dmarc-policy", Outcome.OK, float(POLICIES.index(policy)), policy),
        (yield from _dmarc_reports(site, domain, owner, read.aggregate)),
    ]


def _dmarc_reports(site: Site, domain: str, owner: str, mailboxes: tuple[str, ...]) -> Asked[Observation]:
    """A mailbox of somebody else must have agreed (RFC 7489 section 7.1)."""
    if not mailboxes:
        return judged(domain, "dmarc-reports", met=False, text="no rua=: nobody reports")
    refused: list[str] = []
    for host in dict.fromkeys(mailbox.rpartition("@")[2].lower() for mailbox in mailboxes):
        if site.organizational(host) == site.organizational(owner):
            continue
        name = f"{owner}._report._dmarc.{host}"
        answer = yield from look_up(name, "TXT", domain)
        if why := unanswered(answer, name):
            return judged(domain, "dmarc-reports", None, why)
        if not any(each.replace(" ", "").startswith("v=DMARC1") for each in answer.records):
            refused.append(f"{host} takes no reports for {owner}: wanted TXT v=DMARC1; at {name}")
    return judged(domain, "dmarc-reports", met=not refused, text="; ".join(refused) or ", ".join(mailboxes))


# Hosts and addresses.


def _domain(domain: str) -> Told:
    """Bounces and replies must find a host (RFC 5321 section 5.1)."""
    measure = "requirement.DNS_RECORDS"
    answer = yield from look_up(domain, "MX", domain)
    if why := unanswered(answer, domain):
        return [judged(domain, measure, None, why)]
    hosts = hosts_of(answer)
    if answer.records and not hosts:
        return [
            judged(domain, measure, met=False, text="null MX (0 .): it takes no bounces, so that mail of it is refused")
        ]
    found, why = yield from addresses_of(hosts or (domain,), domain)
    if found:
        return [judged(domain, measure, met=True, text="")]
    missing = f"no address for the MX {', '.join(hosts)}" if hosts else "neither MX nor A nor AAAA"
    return [judged(domain, measure, None if why else False, why or f"{missing}: bounces find no host")]


def _address(site: Site, address: str) -> Told:
    names, met, text = yield from points_back(address)
    told = [judged(address, "requirement.DNS_RECORDS", met, text)]
    helo = site.helos.get(address, "").rstrip(".").lower()
    if not helo:
        return [*told, _no_data(address, "helo", "the name that it greets with is not known")]
    if "." not in helo or not is_name(helo):
        text = f"it greets as {helo}, wanted a full name (myhostname, smtp_helo_name)"
        return [*told, judged(address, "helo", met=False, text=text)]
    found, why = yield from addresses_of((helo,), helo)
    if address in found:
        aside = "" if helo in names or not names else f"; its PTR is {names[0]}"
        return [*told, judged(address, "helo", met=True, text=helo + aside)]
    text = f"{helo} has {', '.join(sorted(found)) or 'no address'}, wanted {address}"
    return [*told, judged(address, "helo", None if why else False, why or text)]


def _inbound(site: Site, domain: str) -> Told:
    told = [(yield from mta_sts(domain, site.policy_base)), (yield from tls_reporting(domain))]
    return [each._replace(feed=FEED) for each in told]
