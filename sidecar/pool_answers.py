"""What core answers about pools, warm-ups, canaries and reactions on its control socket, and does there by hand."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from policies.canary import Arm, Canary, Phase, Trial, compared, judged
from policies.figures import Kind
from policies.reacting import Reaction, Signal
from policies.signs import Sign
from policies.steering import Steering
from policies.warm_up import Level, Plan, WarmUps
from sidecar.control import Handler

Request = Mapping[str, Any]
Answer = dict[str, Any]

_PHASES = {"promote": Phase.PROMOTED, "stop": Phase.STOPPED, "start": Phase.RUNNING}


class PoolAnswers:
    def __init__(self, steering: Steering, wake: Callable[[], None]) -> None:
        self._steering = steering
        self._wake = wake

    def table(self) -> dict[str, Handler]:
        return {"pools": self.pools, "warm-up": self.warm_up, "canary": self.canary, "react": self.react}

    def pools(self, _: Request) -> Answer:
        steering, now = self._steering, time.time()
        return {
            "pools": [
                {
                    "name": pool.name,
                    "sticky": str(pool.sticky),
                    "otherwise": pool.otherwise,
                    "transports": [
                        {
                            "transport": member.transport,
                            "weight": member.weight,
                            "out": steering.out(member.transport, now=now),
                            "warm_up": self._spent(member.transport, now=now),
                        }
                        for member in pool.members
                    ],
                }
                for pool in steering.pools.values()
            ]
        }

    def _spent(self, transport: str, *, now: float) -> str:
        spent = self._steering.warm_ups.refuses(transport, {}, now=now)
        whole = next(iter(self._steering.warm_ups.levels(transport)), None)
        if spent is not None or whole is None or whole.warm:
            return spent.why if spent else ""
        return f"{whole.promised} of {whole.figure:.0f} today"

    def warm_up(self, request: Request) -> Answer:
        steering, now, who = self._steering, time.time(), _who(request)
        do, transport = str(request.get("do", "list")), str(request.get("transport", ""))
        plans = {plan.transport: plan for plan in steering.warm_ups.plans}
        if do != "list" and transport not in plans:
            raise ValueError(f"{transport}: nothing of this name warms up; known: {', '.join(plans) or 'nothing'}")
        match do:
            case "list":
                chosen = list(plans)
            case "show":
                chosen = [transport]
            case "pause":
                steering.pause(transport, by_whom=who, now=now)
                chosen = [transport]
            case "resume":
                if not steering.resume(transport, by_whom=who, now=now):
                    raise ValueError(f"{transport}: is not paused")
                chosen = [transport]
            case _:
                raise ValueError(f"do={do!r}: wanted list, show, pause or resume")
        steering.warm_ups.look(now=now)
        return {"warm_ups": [self._progress(plans[name], now=now) for name in chosen]}

    def _progress(self, plan: Plan, *, now: float) -> Answer:
        warm_ups = self._steering.warm_ups
        levels = warm_ups.levels(plan.transport)
        return {
            "transport": plan.transport,
            "day": warm_ups.day(now) - plan.started + 1,
            "start_per_day": plan.start_per_day,
            "growth": plan.growth,
            "until_per_day": plan.until_per_day,
            "paused_by": warm_ups.paused.get(plan.transport, ""),
            "out": self._steering.out(plan.transport, now=now),
            "providers": [
                _level(level) | (_of_fleet(warm_ups, level) if warm_ups.shares(plan) else {}) for level in levels
            ],
        }

    def canary(self, request: Request) -> Answer:
        steering, do, name = self._steering, str(request.get("do", "list")), str(request.get("name", ""))
        known = {canary.name: (canary, trial) for canary, trial in steering.canaries}
        if do != "list" and name not in known:
            raise ValueError(f"{name}: no canary is called so; known: {', '.join(known) or 'none'}")
        if do in _PHASES:
            steering.decide(name, _PHASES[do], by_whom=_who(request), now=time.time())
            known = {canary.name: (canary, trial) for canary, trial in steering.canaries}
        elif do not in {"list", "show"}:
            raise ValueError(f"do={do!r}: wanted list, show, promote, stop or start")
        return {"canaries": [_canary(*known[each]) for each in (known if do == "list" else [name])]}

    def react(self, request: Request) -> Answer:
        """List what is done about bad signs; undo it; or, from the outside process, hear which signs there are."""
        steering, now, do = self._steering, time.time(), str(request.get("do", "list"))
        undone: list[str] = []
        match do:
            case "list":
                pass
            case "undo":
                about, provider = str(request.get("object", "")), str(request.get("provider", ""))
                events = steering.undo(about, provider, by_whom=_who(request), now=now)
                if not events:
                    raise ValueError(f"{about}: nothing is done about it")
                undone = [f"{event.reaction.object}@{event.reaction.provider}" for event in events]
            case "signs":
                steering.signs([_sign(each) for each in request.get("signs", ())], now=now)
            case _:
                raise ValueError(f"do={do!r}: wanted list, undo or signs")
        self._wake()
        return {"reactions": [self._reaction(each, now=now) for each in steering.reactions.known()], "undone": undone}

    def _reaction(self, reaction: Reaction, *, now: float) -> Answer:
        rule = next(rule for rule in self._steering.reactions.rules if rule.name == reaction.rule)
        return {
            "rule": reaction.rule,
            "signal": str(rule.signal),
            "do": str(rule.do),
            "to": rule.to,
            "object": reaction.object,
            "provider": reaction.provider,
            "since": reaction.since,
            "until": reaction.until,
            "ended": reaction.ended,
            "share": round(self._steering.reactions.share(reaction, now=now), 4),
            "undone_by": reaction.undone_by,
            "evidence": reaction.evidence,
        }


def _sign(said: Mapping[str, Any]) -> Sign:
    signal, kind = Signal(str(said["signal"])), Kind(str(said["kind"]))
    return Sign(signal, kind, str(said["object"]), str(said["provider"]), str(said["evidence"]))


def _who(request: Request) -> str:
    return str(request.get("who") or "control socket")


def _level(level: Level) -> Answer:
    return {
        "provider": level.provider,
        "figure": round(level.figure),
        "promised": level.promised,
        "turned_away": level.turned_away,
        "attempts": level.attempts,
        "deferred": level.deferred,
        "accepted": level.accepted,
        "final": level.final,
        "refused": level.refused,
        "held": level.poor,
        "warm": level.warm,
    }


def _of_fleet(warm_ups: WarmUps, level: Level) -> Answer:
    """Tell what all hosts may send together, and have sent, as far as we have heard."""
    known = warm_ups.fleet.get((level.transport, level.provider))
    return {"fleet": {"figure": round(known.figure), "promised": known.promised, "held": known.poor} if known else None}


def _canary(canary: Canary, trial: Trial) -> Answer:
    return {
        "name": canary.name,
        "transport": canary.transport,
        "share": canary.share,
        "until": canary.until,
        "phase": str(trial.phase),
        "since": trial.since,
        "why": judged(canary, trial).why,
        "by_whom": trial.by_whom,
        "delivered": trial.counts[Arm.CANARY]["sent"],
        "compared": [
            {
                "rate": each.name,
                "canary": each.canary.share,
                "of": each.canary.of,
                "control": each.control.share,
                "of_control": each.control.of,
                "difference": list(each.difference),
                "worse": each.worse,
                "too_few": each.too_few,
            }
            for each in compared(trial)
        ],
    }
