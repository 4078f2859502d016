"""Core's figures for Prometheus, as JSON: every name, its help and where its value comes from, in one place."""

import heapq
import resource
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

from policies.outcome_counts import OTHER
from policies.queue_depth import SAMPLE, Depth, depths
from policies.time_to_delivery import BOUNDS
from sidecar import pool_figures
from sidecar.config import Mode
from sidecar.core_parts import Lag, Parts
from sidecar.policyd import LATENCY_BOUNDS

Samples = Iterable[tuple[Mapping[str, str], float]]
Row = tuple[str, str, str, Samples]
"""Name, type, help, (labels, value) each."""
NAMED = 500
"""Sub-queues that are told one by one, those that hold the most: thousands would make the answers to Postfix wait."""
_STATM = Path("/proc/self/statm")
_DESCRIPTORS = Path("/proc/self/fd")
_POINTS = {"median": 1, "p95": 2, "oldest": 3}
"""Value of the label -> its place in Depth."""


def figures(parts: Parts, *, lag: Lag) -> dict[str, Any]:
    """Give the answer to the control command "metrics"."""
    rows = [
        *_log(parts, lag),
        *_pipeline(parts),
        *_queue(parts),
        *_subqueues(parts),
        *_policy(parts),
        *_suppression(parts),
        *_admission(parts),
        *pool_figures.rows(parts.steering, now=time.time()),
        *_fleet(parts),
        *_fleet_suppressions(parts),
        *_own(parts),
    ]
    policy = parts.policy.figures()
    times = parts.engine.telling.outcomes.times
    duration = (
        "sidecar_policy_request_duration_seconds",
        "From the read of a policy request to the write of its answer.",
    )
    delivery = "sidecar_delivery_duration_seconds", "Time from arrival to delivery, by provider."
    return {
        "figures": [_figure(*row) for row in rows],
        "histograms": [
            _histogram(*duration, {}, (LATENCY_BOUNDS, policy.latency, policy.latency_sum)),
            *(
                _histogram(*delivery, {"provider": provider}, (BOUNDS, each.within, each.seconds))
                for provider, each in times.items()
            ),
        ],
    }


def _log(parts: Parts, lag: Lag) -> list[Row]:
    reader = parts.reader
    return [
        ("sidecar_log_lines_total", "counter", "Log lines read.", [({}, reader.lines)]),
        ("sidecar_log_facts_total", "counter", "Facts read from the log, by type.", _by("fact", reader.known)),
        ("sidecar_log_unknown_total", "counter", "Lines of no known shape.", _by("daemon", reader.unknown)),
        (
            "sidecar_log_diagnostics_total",
            "counter",
            "Warnings and errors of Postfix's programs that no other fact takes.",
            [
                ({"daemon": daemon, "severity": severity}, n)
                for (daemon, severity), n in parts.watching.diagnostics.items()
            ],
        ),
        ("sidecar_log_lag_seconds", "gauge", "Age of the last line when it was read.", [({}, lag.seconds)]),
        (
            "sidecar_log_last_line_timestamp_seconds",
            "gauge",
            "What time the last line that was read says.",
            [({}, lag.log_time)] if lag.log_time else [],
        ),
    ]


def _pipeline(parts: Parts) -> list[Row]:
    outcomes = parts.engine.telling.outcomes
    return [
        (
            "sidecar_delivery_attempts_total",
            "counter",
            "Delivery attempts, by provider and status.",
            _pairs("provider", "status", outcomes.attempts),
        ),
        (
            "sidecar_transport_attempts_total",
            "counter",
            "Delivery attempts, by transport (a delivery agent's service) and status.",
            _pairs("transport", "status", outcomes.by_transport),
        ),
        (
            "sidecar_refused_attempts_total",
            "counter",
            "Attempts that were not accepted, by what the rules say of the reply.",
            [
                ({"provider": provider, "category": category, "bounce": bounce}, n)
                for (provider, category, bounce), n in outcomes.refused.items()
            ],
        ),
        (
            "sidecar_expired_recipients_total",
            "counter",
            "Recipients returned to the sender because their time in the queue was over.",
            _by("provider", outcomes.expired),
        ),
        (
            "sidecar_unheld_attempts_total",
            "counter",
            "Attempts during a pause that we did not let out.",
            [({}, parts.engine.telling.unheld_attempts)],
        ),
    ]


def _queue(parts: Parts) -> list[Row]:
    messages, recipients, now = parts.engine.messages, parts.engine.recipients, time.time()

    def provider_of(domain: str) -> str | None:
        return recipients.of_domain(domain, now=now)

    found = depths(messages.sample(SAMPLE), provider_of, live=len(messages), now=now)
    queues = [({"queue": str(queue)}, depth) for queue, depth in found.queues.items()]
    destinations = [
        ({"provider": provider, "queue": str(queue)}, depth) for (provider, queue), depth in found.destinations.items()
    ]
    return [
        ("sidecar_live_messages", "gauge", "Messages known to be in the queue.", [({}, len(messages))]),
        ("sidecar_held_messages", "gauge", "Messages on hold by us.", [({}, len(parts.engine.books.ours))]),
        ("sidecar_queue_messages", "gauge", "Messages in each of Postfix's queues.", _messages(queues)),
        ("sidecar_queue_age_seconds", "gauge", "Age of the mail in each of Postfix's queues.", _ages(queues)),
        (
            "sidecar_destination_messages",
            "gauge",
            "Messages in the queue, by the provider that they are for.",
            _messages(destinations),
        ),
        (
            "sidecar_destination_age_seconds",
            "gauge",
            "Age of the mail in the queue, by the provider that it is for.",
            _ages(destinations),
        ),
    ]


def _subqueues(parts: Parts) -> list[Row]:
    subs, telling = parts.engine.subqueues.all(), parts.engine.telling
    states = Counter((sub.key.provider, str(sub.machine.state)) for sub in subs)
    waiting = [at for sub in subs if sub.held and (at := sub.oldest_arrival) is not None]
    named = heapq.nlargest(NAMED, subs, key=lambda sub: sub.held)
    rest = set(subs).difference(named)
    state_of: Counter[tuple[str, str]] = Counter((str(sub.key), str(sub.machine.state)) for sub in named)
    state_of.update((OTHER, str(sub.machine.state)) for sub in rest)
    held = {str(sub.key): sub.held for sub in named}
    budget = {str(sub.key): sub.machine.budget_per_s for sub in named}
    if rest:
        held[OTHER], budget[OTHER] = sum(sub.held for sub in rest), sum(sub.machine.budget_per_s for sub in rest)
    return [
        ("sidecar_subqueues", "gauge", "Open sub-queues.", _pairs("provider", "state", states)),
        (
            "sidecar_subqueue_steps_total",
            "counter",
            "Sub-queues that opened or changed their state by themselves; step=paused: a re-trigger.",
            _pairs("provider", "step", telling.outcomes.steps),
        ),
        (
            "sidecar_subqueue_state",
            "gauge",
            "1 for the state that an open sub-queue is in.",
            _pairs("key", "state", state_of),
        ),
        ("sidecar_subqueue_held_messages", "gauge", "Messages that wait in a sub-queue.", _by("key", held)),
        (
            "sidecar_subqueue_budget_messages_per_second",
            "gauge",
            "Learned pace of a sub-queue.",
            _by("key", budget),
        ),
        (
            "sidecar_held_oldest_timestamp_seconds",
            "gauge",
            "When the oldest message arrived that waits in a sub-queue.",
            [({}, min(waiting))] if waiting else [],
        ),
        ("sidecar_changes_total", "counter", "What the engine did.", _by("kind", telling.change_counts)),
    ]


def _policy(parts: Parts) -> list[Row]:
    policy = parts.policy.figures()
    return [
        ("sidecar_policy_requests_total", "counter", "Policy requests.", _by("state", policy.requests)),
        ("sidecar_policy_actions_total", "counter", "Policy answers.", _by("action", policy.actions)),
        (
            "sidecar_policy_observed_total",
            "counter",
            "DUNNO where something would have been done, did we not observe only.",
            [({}, policy.observed)],
        ),
        ("sidecar_policy_fail_open_total", "counter", "DUNNO for an error of ours.", _by("reason", policy.fail_open)),
        ("sidecar_policy_connections", "gauge", "Open policy connections.", [({}, policy.connections)]),
        ("sidecar_policy_accepted_total", "counter", "Policy connections taken.", [({}, policy.accepted)]),
        ("sidecar_policy_closed_total", "counter", "Policy connections closed by us.", _by("reason", policy.closed)),
    ]


def _suppression(parts: Parts) -> list[Row]:
    suppressing = parts.engine.suppressing
    if suppressing is None:
        return []
    changes = suppressing.change_counts.items()
    return [
        (
            "sidecar_suppression_on_probation",
            "gauge",
            "Hard bounces that may still be withdrawn.",
            [({}, suppressing.on_probation)],
        ),
        (
            "sidecar_suppression_outage",
            "gauge",
            "1 while so many of a provider's recipients bounce hard that none is suppressed.",
            [({"provider": provider}, 1) for provider in suppressing.outages],
        ),
        (
            "sidecar_suppression_changes_total",
            "counter",
            "Entries added and ended, by reason.",
            [({"change": change, "reason": reason}, n) for (change, reason), n in changes],
        ),
    ]


def _own(parts: Parts) -> list[Row]:
    ledger = parts.ledger
    used = resource.getrusage(resource.RUSAGE_SELF)
    return [
        ("sidecar_core_acting", "gauge", "1 in mode act, 0 in observe.", [({}, float(parts.config.mode is Mode.ACT))]),
        ("sidecar_store_available", "gauge", "1 while the store takes writes.", [({}, float(not ledger.last_failure))]),
        ("sidecar_store_rows_dropped_total", "counter", "Rows given up.", [({}, ledger.rows_dropped)]),
        (
            "sidecar_helper_reachable",
            "gauge",
            "1 while the queue helper answers.",
            [({}, float(parts.hands.reachable))],
        ),
        ("sidecar_core_start_time_seconds", "gauge", "When core was started.", [({}, parts.watching.since)]),
        (
            "sidecar_core_process_cpu_seconds_total",
            "counter",
            "Processor time that core has used.",
            [({}, used.ru_utime + used.ru_stime)],
        ),
        ("sidecar_core_process_resident_memory_bytes", "gauge", "Memory of core.", [({}, _resident())]),
        (
            "sidecar_core_process_open_fds",
            "gauge",
            "Open files and sockets of core.",
            [({}, sum(1 for _ in _DESCRIPTORS.iterdir()))],
        ),
    ]


def _admission(parts: Parts) -> list[Row]:
    beyond = parts.quotas.quotas.beyond if parts.quotas else {}
    keys = parts.quotas.quotas.keys() if parts.quotas else {}
    found = parts.hygiene.found if parts.hygiene else {}
    return [
        (
            "sidecar_quota_beyond_total",
            "counter",
            "Recipients that a quota had no room for, deferred or only said.",
            _by("quota", beyond),
        ),
        ("sidecar_quota_keys", "gauge", "Buckets of a quota in memory.", _by("quota", keys)),
        (
            "sidecar_hygiene_found_total",
            "counter",
            "Recipients that hygiene refused or warned of.",
            _by("check", found),
        ),
    ]


class Shared(Protocol):
    """A part of core that talks with the other hosts."""

    silent: str
    bad: int


def _fleet_suppressions(parts: Parts) -> list[Row]:
    shared = parts.shared_suppressions
    if shared is None:
        return []
    return [
        (
            "sidecar_fleet_suppressions_waiting",
            "gauge",
            "Changes of the suppression list made here that the fleet has not read yet.",
            [({}, shared.waiting)],
        ),
        (
            "sidecar_fleet_suppressions_dropped_total",
            "counter",
            "Those that were dropped because too many waited: other hosts have to take a copy.",
            [({}, shared.dropped)],
        ),
        (
            "sidecar_fleet_suppressions_missed",
            "gauge",
            "Hosts of whose changes some were missed, until a copy is taken.",
            [({}, len(shared.hearing.missed))],
        ),
    ]


def _fleet(parts: Parts) -> list[Row]:
    if parts.fleet is None:
        return []
    fleet = parts.fleet
    standing = fleet.host.standing()
    silent = sum(bool(host["silent"]) for host in standing["hosts"])
    shared = [part for part in fleet.host.parts.values() if part.shared]
    leads = sum(part.leads() for part in shared)
    hosts = {"heard": len(standing["hosts"]) - silent, "silent": silent}
    return [
        (
            "sidecar_fleet_hosts",
            "gauge",
            "Hosts of the fleet, by whether they were heard of lately.",
            _by("state", hosts),
        ),
        ("sidecar_fleet_store_answers", "gauge", "1 while the fleet's store answers.", [({}, float(not fleet.silent))]),
        (
            "sidecar_fleet_last_answer_timestamp_seconds",
            "gauge",
            "When the fleet's store answered last, 0 for never.",
            [({}, fleet.answered_at)],
        ),
        ("sidecar_fleet_rounds_total", "counter", "Rounds with the store that were answered.", [({}, fleet.rounds)]),
        ("sidecar_fleet_round_seconds", "gauge", "What the last round with the store took.", [({}, fleet.round_s)]),
        (
            "sidecar_fleet_part_answers",
            "gauge",
            "1 while the fleet's store answers to that part of core.",
            _by("part", {name: float(not part.silent) for name, part in _shared(parts).items()}),
        ),
        ("sidecar_fleet_alone", "gauge", "1 while this host goes on by itself.", [({}, float(standing["alone"]))]),
        ("sidecar_fleet_twin", "gauge", "1 while another host has this one's name.", [({}, float(fleet.has_twin()))]),
        (
            "sidecar_fleet_subqueues",
            "gauge",
            "Sub-queues that are shared, by whether this host has the lead.",
            _by("role", {"lead": leads, "follower": len(shared) - leads}),
        ),
        (
            "sidecar_fleet_changes_heard_total",
            "counter",
            "Changes of other hosts that were pushed to us.",
            [({}, fleet.rows_heard)],
        ),
        (
            "sidecar_fleet_changes_found_total",
            "counter",
            "Changes of other hosts that were found by looking: the push was lost, or came later.",
            [({}, fleet.rows_found)],
        ),
        (
            "sidecar_fleet_unreadable_total",
            "counter",
            "Texts in the fleet's store that we could not read.",
            [({}, _unreadable(parts))],
        ),
    ]


def _unreadable(parts: Parts) -> int:
    assert parts.fleet is not None  # who asks has looked
    bad = sum(part.bad for part in _shared(parts).values())
    return parts.fleet.bad_texts + parts.fleet.presences.unreadable + bad


def _shared(parts: Parts) -> dict[str, Shared]:
    """What this host shares with the others beside sub-queues."""
    found: dict[str, Shared | None] = {
        "suppressions": parts.shared_suppressions,
        "quotas": parts.shared_quotas,
        "names": parts.shared_maps,
        "warm-ups": parts.shared_warm_ups,
        "commands": parts.commands,
    }
    return {name: part for name, part in found.items() if part is not None}


def _resident() -> float:
    return float(_STATM.read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def _messages(depths_: Sequence[tuple[Mapping[str, str], Depth]]) -> Samples:
    return [(labels, depth.messages) for labels, depth in depths_]


def _ages(depths_: Sequence[tuple[Mapping[str, str], Depth]]) -> Samples:
    return [({**labels, "point": name}, depth[place]) for labels, depth in depths_ for name, place in _POINTS.items()]


def _pairs(first: str, second: str, counts: Mapping[tuple[str, str], int]) -> Samples:
    return [({first: one, second: other}, count) for (one, other), count in counts.items()]


def _by(label: str, counts: Mapping[str, float]) -> Samples:
    return [({label: name}, count) for name, count in counts.items()]


def _figure(name: str, kind: str, text: str, samples: Samples) -> dict[str, Any]:
    return {
        "name": name,
        "help": text,
        "type": kind,
        "samples": [{"labels": dict(labels), "value": value} for labels, value in samples],
    }


def _histogram(
    name: str, text: str, labels: Mapping[str, str], measured: tuple[Sequence[float], Sequence[int], float]
) -> dict[str, Any]:
    """`measured`: bounds; how many in each, not cumulated, the last one above all bounds; and the sum."""
    bounds, counts, total = measured
    buckets = list(zip(bounds, accumulate(counts[:-1]), strict=True))
    return {"name": name, "help": text, "labels": dict(labels), "buckets": buckets, "sum": total, "count": sum(counts)}
