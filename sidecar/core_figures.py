"""Core's figures for Prometheus, as JSON: every name, its help and where its value comes from, in one place."""

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Any

from sidecar.core_parts import Parts
from sidecar.policyd import LATENCY_BOUNDS

Samples = Iterable[tuple[Mapping[str, str], float]]


def figures(parts: Parts, *, lag: float) -> dict[str, Any]:
    """Give the answer to the control command "metrics"."""
    engine, reader, ledger, hands = parts.engine, parts.reader, parts.ledger, parts.hands
    subs = engine.subqueues.all()
    policy = parts.policy.figures()
    states = Counter((sub.key.provider, str(sub.machine.state)) for sub in subs)
    rows: list[tuple[str, str, str, Samples]] = [
        ("sidecar_log_lines_total", "counter", "Log lines read.", [({}, reader.lines)]),
        ("sidecar_log_facts_total", "counter", "Facts read from the log, by type.", _by("fact", reader.known)),
        ("sidecar_log_unknown_total", "counter", "Lines of no known shape.", _by("daemon", reader.unknown)),
        ("sidecar_log_lag_seconds", "gauge", "Age of the last line when it was read.", [({}, lag)]),
        (
            "sidecar_delivery_attempts_total",
            "counter",
            "Delivery attempts, by provider and status.",
            [
                ({"provider": provider, "status": status}, n)
                for (provider, status), n in engine.telling.attempt_counts.items()
            ],
        ),
        (
            "sidecar_subqueues",
            "gauge",
            "Open sub-queues.",
            [({"provider": provider, "state": state}, n) for (provider, state), n in states.items()],
        ),
        ("sidecar_held_messages", "gauge", "Messages on hold by us.", [({}, len(engine.books.ours))]),
        ("sidecar_live_messages", "gauge", "Messages known to be in the queue.", [({}, len(engine.messages))]),
        (
            "sidecar_subqueue_held_messages",
            "gauge",
            "Messages that wait in a sub-queue.",
            [({"key": str(sub.key)}, sub.held) for sub in subs],
        ),
        (
            "sidecar_subqueue_budget_messages_per_second",
            "gauge",
            "Learned pace of a sub-queue.",
            [({"key": str(sub.key)}, sub.machine.budget_per_s) for sub in subs],
        ),
        (
            "sidecar_unheld_attempts_total",
            "counter",
            "Attempts during a pause that we did not let out.",
            [({}, engine.telling.unheld_attempts)],
        ),
        ("sidecar_changes_total", "counter", "What the engine did.", _by("kind", engine.telling.change_counts)),
        ("sidecar_policy_requests_total", "counter", "Policy requests.", _by("state", policy.requests)),
        ("sidecar_policy_actions_total", "counter", "Policy answers.", _by("action", policy.actions)),
        ("sidecar_policy_fail_open_total", "counter", "DUNNO for an error of ours.", _by("reason", policy.fail_open)),
        ("sidecar_policy_connections", "gauge", "Open policy connections.", [({}, policy.connections)]),
        ("sidecar_policy_closed_total", "counter", "Policy connections closed by us.", _by("reason", policy.closed)),
        ("sidecar_store_available", "gauge", "1 while the store takes writes.", [({}, float(not ledger.last_failure))]),
        ("sidecar_store_rows_dropped_total", "counter", "Rows given up.", [({}, ledger.rows_dropped)]),
        ("sidecar_helper_reachable", "gauge", "1 while the queue helper answers.", [({}, float(hands.reachable))]),
    ]
    if (suppressing := engine.suppressing) is not None:
        rows += [
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
                [
                    ({"change": change, "reason": reason}, n)
                    for (change, reason), n in suppressing.change_counts.items()
                ],
            ),
        ]
    return {
        "figures": [_figure(*row) for row in rows],
        "histograms": [
            {
                "name": "sidecar_policy_request_duration_seconds",
                "help": "Time from the read of a policy request to the write of its answer.",
                "buckets": list(zip(LATENCY_BOUNDS, accumulate(policy.latency[:-1]), strict=True)),
                "sum": policy.latency_sum,
                "count": sum(policy.latency),
            }
        ],
    }


def _by(label: str, counts: Mapping[str, int]) -> Samples:
    return [({label: name}, count) for name, count in counts.items()]


def _figure(name: str, kind: str, text: str, samples: Samples) -> dict[str, Any]:
    return {
        "name": name,
        "help": text,
        "type": kind,
        "samples": [{"labels": dict(labels), "value": value} for labels, value in samples],
    }
