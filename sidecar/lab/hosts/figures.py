"""What a fleet's run came to, beyond the figures of one host: how soon all were paused, and whether one budget held.

Nothing here waits; it reads what was written down, each host's own changes among it.
"""

import bisect
import math
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple

from sidecar.lab.limits import model, optimum
from sidecar.lab.measure import Evidence, Figures, percentile
from sidecar.lab.scenario import By, Kind, Limit, Scenario

_FIRST_S = 10.0
"""Seconds from a domain's first refusal in which what was under way on all hosts comes back."""
_MINUTE = 60.0
_NO_CHANCE = Random(0)
"""A bucket draws none."""
_PAUSE_S = 600.0
"""First pause that Google asks for."""


@dataclass(frozen=True, slots=True)
class FleetFigures:
    """Times in seconds; None where nothing was there to measure."""

    hosts: int
    openings: int
    """Domains that were refused somewhere."""
    contained: int
    """... and paused on every host that lived."""
    containment_p50_s: float | None
    """From the provider's first refusal of a domain to the pause on a host; of each host and domain."""
    containment_p99_s: float | None
    told: int
    """Of these pauses, those that another host told of."""
    told_p50_s: float | None
    told_p99_s: float | None
    over_budget: float | None
    """Most messages that were tried of a domain in any minute after its first ten seconds, over what its limit allows."""
    later_deferrals_per_delivered: float | None
    """Beyond each domain's first episode; of the throttled domains' mail."""
    drain_over_optimum: float | None
    """Of the domain with the most mail; the optimum knows the limit and pauses once."""


class Paused(NamedTuple):
    time: float
    told: bool
    """Another host said so; no refusal of its own did."""


def paused_at(store: Path, *, ahead: float = 0.0) -> Mapping[str, Paused]:
    """When and how each key was first paused on a host, by its own changes; `ahead`: seconds, of its clock."""
    with closing(sqlite3.connect(f"file:{store / 'core.db'}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT key, min(time), by_whom FROM change WHERE state = 'paused' GROUP BY key")
        return {str(key): Paused(float(time) - ahead, by_whom.startswith("host ")) for key, time, by_whom in rows}


def fleet_figures(evidence: Evidence, whole: Figures, paused: Iterable[Mapping[str, Paused]]) -> FleetFigures:
    """Count one run. `paused`: of each host that lived to the end, as `paused_at` gives it."""
    hosts = list(paused)
    refused = _first_refusals(evidence)
    samples: list[Paused] = []
    """Seconds after the first refusal."""
    contained = 0
    for (provider, domain), first in refused.items():
        key = f"dkim-domain:{domain}@{provider}"
        found = [known[key]._replace(time=known[key].time - first) for known in hosts if key in known]
        samples += found
        contained += len(found) == len(hosts)
    return FleetFigures(
        hosts=evidence.scenario.hosts,
        openings=len(refused),
        contained=contained,
        containment_p50_s=_rounded(percentile((it.time for it in samples), 0.5)),
        containment_p99_s=_rounded(percentile((it.time for it in samples), 0.99)),
        told=sum(it.told for it in samples),
        told_p50_s=_rounded(percentile((it.time for it in samples if it.told), 0.5)),
        told_p99_s=_rounded(percentile((it.time for it in samples if it.told), 0.99)),
        over_budget=_over_budget(evidence, refused),
        later_deferrals_per_delivered=_later(whole),
        drain_over_optimum=_drain(evidence),
    )


def _first_refusals(evidence: Evidence) -> dict[tuple[str, str], float]:
    """(provider, domain) -> when a limit first refused it."""
    first: dict[tuple[str, str], float] = {}
    for refused in evidence.ledger.refused:
        if refused.by is By.DKIM:
            first.setdefault((refused.provider, refused.identity), refused.time)
    return first


def _signed(evidence: Evidence) -> dict[str, str]:
    """Message-ID -> signing domain."""
    return {message.message_id: message.sender.dkim for message in evidence.submissions.accepted}


def _tried(evidence: Evidence, provider: str, domain: str) -> list[float]:
    """When the provider was asked to take a message of a domain, in order."""
    signed = _signed(evidence)
    taken = {it.message_id: it.time for it in evidence.ledger.accepted if it.provider == provider}
    times = [time for message_id, time in taken.items() if signed.get(message_id) == domain]
    times += [it.time for it in evidence.ledger.refused if (it.provider, it.identity) == (provider, domain)]
    return sorted(times)


def _limit(scenario: Scenario, provider: str) -> Limit | None:
    """The bucket by which a provider counts signing domains."""
    limits = scenario.provider_named(provider).limit
    return next((limit for limit in limits if limit.by is By.DKIM and limit.kind is Kind.BUCKET), None)


def _over_budget(evidence: Evidence, refused: Mapping[tuple[str, str], float]) -> float | None:
    ratios = []
    for (provider, domain), first in refused.items():
        limit = _limit(evidence.scenario, provider)
        if limit is not None:
            tried = [time for time in _tried(evidence, provider, domain) if time > first + _FIRST_S]
            most = max((bisect.bisect_right(tried, time + _MINUTE) - i for i, time in enumerate(tried)), default=0)
            ratios.append(most / (_MINUTE * limit.rate + limit.burst))
    return _rounded(max(ratios, default=None))


def _later(whole: Figures) -> float | None:
    if not whole.throttled_delivered:
        return None
    return round((whole.deferrals - whole.deferrals_first_episode) / whole.throttled_delivered, 5)


def _drain(evidence: Evidence) -> float | None:
    """None while not all of it was delivered."""
    largest = max(evidence.scenario.senders(), key=lambda sender: sender.burst)
    backlog = [it for it in evidence.submissions.accepted if it.burst and it.sender.dkim == largest.dkim]
    delivered = {it.message_id: it.time for it in evidence.ledger.accepted}
    limit = _limit(evidence.scenario, largest.to[0])
    if limit is None or not backlog or any(message.message_id not in delivered for message in backlog):
        return None
    took = max(delivered[it.message_id] for it in backlog) - min(it.submitted for it in backlog)
    scale = evidence.scenario.scale
    best = optimum(model(limit, scale, _NO_CHANCE), len(backlog), math.inf)
    return _rounded(took / (best + _PAUSE_S / scale))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
