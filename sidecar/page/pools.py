"""Pools, warm-ups, canaries and what is done about bad signs: which address takes whose mail now, and why.

Reads core's store and the configuration; what a member gets that comes back is the policy's to say.
"""

import json
from typing import Final, NamedTuple

from policies.canary import Arm, Phase
from policies.key import EVERYWHERE
from policies.reacting import Do
from policies.warm_up import DAY, day_of
from sidecar.page.scene import Scene
from sidecar.page.words import Mark, count, share

_STAGES: Final = {
    "paused": Mark("■", "paused", "bad"),
    "held": Mark("!", "held", "warn"),
    "warm": Mark("✓", "warm", "good"),
    "growing": Mark("▲", "growing", "calm"),
    "to begin": Mark("○", "to begin", "calm"),
}
_PHASES: Final = {
    Phase.RUNNING: Mark("▲", "running", "calm"),
    Phase.PROMOTED: Mark("✓", "promoted", "good"),
    Phase.STOPPED: Mark("■", "stopped", "bad"),
}


class Level(NamedTuple):
    """One warm-up at one provider."""

    transport: str
    provider: str
    """"" for all together."""
    stage: Mark
    day: int
    """Of its plan, from 1; 0: not yet begun."""
    used: str
    """Of today's budget."""
    figure: str
    part: str
    turned_away: int
    deferred: str
    refused: int


class Member(NamedTuple):
    transport: str
    weight: float
    out: list[str]
    """For whom it is out or coming back, and why."""


class Pool(NamedTuple):
    name: str
    members: list[Member]
    otherwise: str


class Trial(NamedTuple):
    name: str
    over: str
    share: float
    phase: Mark
    arms: list[tuple[str, int, int, int]]
    """Arm, delivered, bounced, complaints."""


class Reaction(NamedTuple):
    about: str
    provider: str
    does: str
    since: float
    ended: float
    evidence: str
    undone_by: str


class Pools(NamedTuple):
    pools: list[Pool]
    levels: list[Level]
    trials: list[Trial]
    reactions: list[Reaction]


def view(scene: Scene) -> Pools:
    reactions = _reactions(scene)
    return Pools(_pools(scene, reactions), _levels(scene), _trials(scene), reactions)


def _pools(scene: Scene, reactions: list[Reaction]) -> list[Pool]:
    out: dict[str, list[str]] = {}
    for each in reactions:
        if each.does == Do.LEAVE_POOL and not each.undone_by:
            way = "comes back" if each.ended else "out"
            where = "all providers" if each.provider == EVERYWHERE else each.provider
            out.setdefault(each.about, []).append(f"{way} for {where}")
    return [
        Pool(
            pool.name,
            [Member(each.transport, each.weight, out.get(each.transport, [])) for each in pool.transports],
            pool.otherwise,
        )
        for pool in scene.config.pool
    ]


def _levels(scene: Scene) -> list[Level]:
    """The whole of each first, then its largest providers."""
    plans = {plan.transport: plan for plan in scene.config.warm_up}
    paused = {transport for (transport,) in scene.stores.core.rows("SELECT transport FROM warm_up_pause")}
    today = int(scene.now // (DAY / scene.config.subqueues.scale))
    found = []
    for (
        transport,
        provider,
        day,
        figure,
        promised,
        away,
        attempts,
        deferred,
        refused,
        held,
        warm,
    ) in scene.stores.core.rows(_LEVELS):
        if transport not in plans:
            continue
        fresh = day == today
        stage = "paused" if transport in paused else "held" if fresh and held else "warm" if warm else "growing"
        used = promised if fresh else 0
        found.append(
            Level(
                transport,
                "" if provider == EVERYWHERE else provider,
                _STAGES[stage]._replace(why=held if stage == "held" else ""),
                today - day_of(plans[transport].started) + 1,
                count(used),
                count(round(figure)),
                share(used, figure),
                away if fresh else 0,
                share(deferred, attempts) if fresh else "–",
                refused if fresh else 0,
            )
        )
    known = {each.transport for each in found}
    for transport, plan in plans.items():
        if transport not in known:
            nothing = _STAGES["paused" if transport in paused else "to begin"]
            found.append(Level(transport, "", nothing, 0, "0", count(plan.start_per_day), "–", 0, "–", 0))
    return found


def _trials(scene: Scene) -> list[Trial]:
    kept = {name: (phase, why, json.loads(counts)) for name, phase, why, counts in scene.stores.core.rows(_TRIALS)}
    found = []
    for canary in scene.config.canary:
        phase, why, counts = kept.get(canary.name, (Phase.RUNNING, "", {}))
        arms = []
        for arm in Arm:
            of = counts.get(arm, {})
            arms.append((str(arm), of.get("sent", 0), of.get("bounced", 0), of.get("complaints", 0)))
        found.append(Trial(canary.name, canary.transport, canary.share, _PHASES[Phase(phase)]._replace(why=why), arms))
    return found


def _reactions(scene: Scene) -> list[Reaction]:
    does = {rule.name: rule.do for rule in scene.config.react}
    rows = scene.stores.core.rows(_REACTIONS)
    return [Reaction(about, at, str(does[rule]), *rest) for rule, about, at, *rest in rows if rule in does]


_LEVELS = (
    "SELECT transport, provider, day, figure, promised, turned_away, attempts, deferred, refused, held, warm FROM warm_up"
    " ORDER BY transport, provider != '*', figure DESC, provider LIMIT 200"
)
_TRIALS = "SELECT name, phase, why, counts FROM canary"
_REACTIONS = (
    "SELECT rule, object, provider, since, ended, evidence, undone_by FROM reaction ORDER BY since DESC LIMIT 200"
)
