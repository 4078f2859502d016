"""What a domain says about encrypted mail to it: MTA-STS (record, policy file, its MX hosts) and TLS reporting.

Both are offers: where there is none, that is no fault.
"""

from collections.abc import Callable

from parsers.feeds.asking import Asked, HttpAnswer, HttpAsk
from parsers.feeds.own_dns import hosts_of, look_up, unanswered
from parsers.mta_sts import StsError, is_sts, is_tls_report, left_out, read_id, read_policy, read_report_addresses
from parsers.observation import Observation, Outcome

_FEED = ""
"""Filled in by the poll."""


def _told(domain: str, measure: str, outcome: Outcome, text: str, *, met: bool = False) -> Observation:
    return Observation(_FEED, domain, measure, outcome, float(met) if outcome is Outcome.OK else None, text)


def mta_sts(domain: str, policy_base: str) -> Asked[Observation]:
    """Look at the record, then at the policy below `policy_base` (with {domain} in it), then at the MX hosts."""
    name = f"_mta-sts.{domain}"
    try:
        record = yield from _record(domain, "mta-sts", name, is_sts)
        if isinstance(record, Observation):
            return record
        read_id(record)
        return (yield from _policy(domain, f"{policy_base.replace('{domain}', domain)}/.well-known/mta-sts.txt"))
    except StsError as error:
        return _told(domain, "mta-sts", Outcome.OK, f"{name}: {error}")


def _record(domain: str, measure: str, name: str, is_ours: Callable[[str], bool]) -> Asked[str | Observation]:
    """Look up the one record of a kind; an observation where there is none, or nobody can say. Raises StsError."""
    answer = yield from look_up(name, "TXT", domain)
    if why := unanswered(answer, name):
        return _told(domain, measure, Outcome.UNKNOWN, why)
    records = [each for each in answer.records if is_ours(each)]
    if not records:
        return _told(domain, measure, Outcome.NO_DATA, "no record")
    if len(records) > 1:
        raise StsError(f"{len(records)} records, wanted one")
    return records[0]


def _policy(domain: str, url: str) -> Asked[Observation]:
    """Raises StsError."""
    (answer,) = yield (HttpAsk(url),)
    assert isinstance(answer, HttpAnswer)
    if answer.status in {0, 429} or answer.status >= 500:
        return _told(domain, "mta-sts", Outcome.UNKNOWN, f"{url}: {answer.error or answer.status}")
    if answer.status != 200:
        raise StsError(f"{url} answers {answer.status}, wanted 200 and the policy (redirects are not followed)")
    policy = read_policy(answer.body)
    hosts = yield from look_up(domain, "MX", domain)
    if why := unanswered(hosts, domain):
        return _told(domain, "mta-sts", Outcome.UNKNOWN, why)
    if policy.mode != "none" and (missing := left_out(policy, hosts_of(hosts))):
        raise StsError(f"the policy ({policy.mode}) leaves out the MX {', '.join(missing[:5])}")
    return _told(domain, "mta-sts", Outcome.OK, policy.mode, met=True)


def tls_reporting(domain: str) -> Asked[Observation]:
    name = f"_smtp._tls.{domain}"
    try:
        record = yield from _record(domain, "tls-rpt", name, is_tls_report)
        if isinstance(record, Observation):
            return record
        addresses = read_report_addresses(record)
    except StsError as error:
        return _told(domain, "tls-rpt", Outcome.OK, f"{name}: {error}")
    return _told(domain, "tls-rpt", Outcome.OK, ", ".join(addresses), met=True)
