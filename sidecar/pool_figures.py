"""Figures of pools, warm-ups and canaries for Prometheus: today's budgets, who is out for whom, how a trial stands."""

from collections.abc import Iterable, Mapping
from typing import Final

from policies.canary import Arm
from policies.reacting import Do
from policies.steering import Steering
from policies.warm_up import Level

Row = tuple[str, str, str, Iterable[tuple[Mapping[str, str], float]]]
"""Name, type, help, (labels, value) each."""
_PROVIDERS: Final = 50
"""Of a transport that warms up, those with the largest figure; the whole, "*", is among them."""


def stage(steering: Steering, level: Level) -> str:
    """Say how far a warm-up is: paused, held (nothing grows out of today), warm or growing."""
    if level.transport in steering.warm_ups.paused:
        return "paused"
    if level.held or level.stepped:
        return "held"
    return "warm" if level.warm else "growing"


def rows(steering: Steering | None, *, now: float) -> list[Row]:
    if steering is None:
        return []
    levels = [
        each for plan in steering.warm_ups.plans for each in steering.warm_ups.levels(plan.transport)[:_PROVIDERS]
    ]
    of_level = [({"transport": each.transport, "provider": each.provider}, each) for each in levels]
    reactions = steering.reactions
    does = {rule.name: rule.do for rule in reactions.rules}
    out = [each for each in reactions.known() if does[each.rule] is Do.LEAVE_POOL and not each.undone_by]
    canaries = [({"canary": canary.name}, trial) for canary, trial in steering.canaries]
    return [
        (
            "sidecar_warm_up_budget_recipients",
            "gauge",
            "Recipients that an address may be sent for today, by provider; * for all.",
            [(labels, level.figure) for labels, level in of_level],
        ),
        (
            "sidecar_warm_up_used_recipients",
            "gauge",
            "Recipients of today that smtpd was told to send over it.",
            [(labels, level.promised) for labels, level in of_level],
        ),
        (
            "sidecar_warm_up_turned_away_recipients",
            "gauge",
            "Recipients of today that were too many for the budget and went another way.",
            [(labels, level.turned_away) for labels, level in of_level],
        ),
        (
            "sidecar_warm_up_stage",
            "gauge",
            "1 for the stage of a warm-up: growing, held, warm or paused.",
            [({**labels, "stage": stage(steering, level)}, 1) for labels, level in of_level],
        ),
        (
            "sidecar_pool_share",
            "gauge",
            "Share of its mail that an address gets that left its pools or comes back.",
            [
                (
                    {"transport": each.object, "provider": each.provider, "rule": each.rule},
                    reactions.share(each, now=now),
                )
                for each in out
            ],
        ),
        (
            "sidecar_canary_phase",
            "gauge",
            "1 for the phase of a canary: running, promoted or stopped.",
            [({**labels, "phase": str(trial.phase)}, 1) for labels, trial in canaries],
        ),
        (
            "sidecar_canary_delivered_messages",
            "gauge",
            "Deliveries that are compared, by arm.",
            [({**labels, "arm": str(arm)}, trial.counts[arm]["sent"]) for labels, trial in canaries for arm in Arm],
        ),
    ]
