"""What core answers on its control socket: one function a command, and their table."""

import asyncio
import inspect
import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from parsers.policy_protocol import PolicyRequest, value_of
from policies.by_hand import STREAM, Requeueing
from policies.hygiene import NoHost
from policies.key import Key
from policies.limit import finite
from policies.parked import OpenSubQueue
from policies.queue_age import queue_age
from policies.routing import to_provider
from policies.subqueues import BY_HAND, DOMAIN_TYPES
from sidecar import mail_host
from sidecar.control import Handler
from sidecar.core_figures import figures
from sidecar.core_parts import Lag, Parts
from sidecar.pool_answers import PoolAnswers
from sidecar.queue_client import HelperUnavailable
from sidecar.reload import Reload, ReloadError
from sidecar.requeue_limits import objection
from sidecar.rerouting import REQUEUED, begin

Request = Mapping[str, Any]
Answer = dict[str, Any]


class Answers:
    """Reads core's parts and writes JSON; changes them only where an admin asks for it by hand."""

    def __init__(self, parts: Parts, lag: Lag, reload: Reload, wake: Callable[[], None]) -> None:
        self._parts = parts
        self._reload = reload
        self._engine = parts.engine
        self._lag = lag
        self._wake = wake
        self._started = time.time()

    def table(self) -> dict[str, Handler]:
        return {
            "health": self.health,
            "status": self.status,
            "queue": self.queue,
            "noticed": self.noticed,
            "subqueue": self._by_fleet("subqueue", self.subqueue),
            "requeue": self.requeue,
            "authentication": self.authentication,
            "changes": self.changes,
            "ask": self.ask,
            "metrics": self.metrics,
            "wanted-domains": self.wanted_domains,
            "learned-mx": self.learned_mx,
            "suppress": self.suppress,
            "fleet-forget": self.fleet_forget,
            "fleet-learned": self.fleet_learned,
            "quota": self._by_fleet("quota", self.quota),
            "reload": self.reload,
            **self._of_pools(),
        }

    def _of_pools(self) -> dict[str, Handler]:
        if self._parts.steering is None:
            return {}
        table = PoolAnswers(self._parts.steering, self._wake).table()
        return {**table, "warm-up": self._by_fleet("warm-up", table["warm-up"])}

    # Of all hosts.

    def _by_fleet(self, command: str, here: Handler) -> Handler:
        """Make an answer of one host that of all hosts, or of another one, where the request names them by "host"."""
        commands = self._parts.commands
        if commands is None:
            return here

        async def everywhere(request: Request) -> Answer:
            to = request.get("host")
            do = {name: value for name, value in request.items() if name != "host"}
            if to is None or not self._spreads(command, do, str(to)):
                return await _awaited(here(do))
            others = commands.others(str(to))
            hosts: dict[str, Mapping[str, Any]] = {}
            if to in {"", commands.host}:  # first of all, and whatever becomes of the others
                hosts[commands.host] = await _refused_or_done(here, do)
            told = await commands.tell(do, str(to)) if others else None
            hosts |= told.answers if told else {}
            if not any(answer["ok"] for answer in hosts.values()) and not (told and told.unheard):
                raise ValueError("; ".join(f"{host}: {answer['error']}" for host, answer in sorted(hosts.items())))
            return {**_summed(hosts), "hosts": hosts, "unheard": dict(told.unheard) if told else {}}

        return everywhere

    def _spreads(self, command: str, request: Request, to: str) -> bool:
        """Whether hosts are told of a command: what they share by itself needs nobody to tell. Raises ValueError."""
        do = str(request.get("do", ""))
        if do not in _SPREAD.get(command, ()):
            return False
        if command == "warm-up":
            return bool(to) or self._is_of_all(str(request.get("transport", "")))
        fleet, key = self._parts.fleet, str(request.get("key") or "")
        if fleet is None or command != "subqueue" or do == "release" or "where" in request:
            return True
        read = Key.read(key)
        sub = self._engine.subqueues.get(read)
        shared = read.type in DOMAIN_TYPES and (sub is None or self._engine.orders.concerns_others(sub))
        if shared and fleet.host.takes_part:
            if to not in {"", fleet.host.name}:
                raise ValueError(
                    f"{key}: all hosts share this sub-queue, so it has one state; wanted it without --host"
                )
            return False
        return bool(to) or shared or read.type in {*DOMAIN_TYPES, STREAM}

    def _is_of_all(self, transport: str) -> bool:
        """Whether all hosts warm up an address together."""
        steering = self._parts.steering
        plans = steering.warm_ups.plans if steering is not None else ()
        return any(plan.fleet for plan in plans if plan.transport == transport)

    async def from_fleet(self, request: Request) -> Answer:
        """Do what an admin asked another host for. Raises ValueError."""
        shared = self._parts.shared_suppressions
        table: dict[str, Handler] = {"subqueue": self.subqueue, "quota": self.quota}
        if shared is not None:
            table["suppress-copy"] = shared.page
        if self._parts.steering is not None:
            table["warm-up"] = PoolAnswers(self._parts.steering, self._wake).warm_up
        here = table.get(str(request.get("command")))
        if here is None or str(request.get("do")) not in _SPREAD[str(request["command"])]:
            raise ValueError(
                f"{request.get('command')} {request.get('do')}: nothing that is done for another host here"
            )
        return await _awaited(here(dict(request)))

    def health(self, _: Request) -> Answer:
        return {
            "pid": os.getpid(),
            "started": self._started,
            "log_lag_s": round(self._lag.seconds, 3),
            "lines": self._parts.reader.lines,
            "mode": str(self._parts.config.mode),
            "recovered": self._parts.store.recovered,
            "store": self._parts.ledger.last_failure,
            "helper": self._parts.hands.reachable,
        }

    def status(self, _: Request) -> Answer:
        subs = self._engine.subqueues.all()
        return {
            "mode": str(self._parts.config.mode),
            "subqueues": [self._said(sub) for sub in subs],
            "broken": [{**row._asdict(), "key": str(row.key)} for row in self._engine.fail_fast.known()],
            "held_total": len(self._engine.books.ours),
            "messages_live": len(self._engine.messages),
            "log": {
                "source": self._parts.config.log.source,
                "lag_s": round(self._lag.seconds, 3),
                "lines": self._parts.reader.lines,
                "followed": self._lag.followed,
                "unknown": dict(self._parts.reader.unknown),
            },
            "policy": self._parts.policy.figures()._asdict(),
            "helper": {"reachable": self._parts.hands.reachable, "over": self._parts.config.postfix.reach},
            "host": self._parts.config.log.host,
            "store": {"failure": self._parts.ledger.last_failure, "recovered": self._parts.store.recovered},
            "fleet": self._fleet(),
            "reload": {"at": self._reload.at, "error": self._reload.error, "restart_for": self._reload.waiting},
        }

    async def fleet_forget(self, request: Request) -> Answer:
        """Have a host that is gone for good be counted no more."""
        fleet, host = self._parts.fleet, str(request.get("host", ""))
        if fleet is None:
            raise ValueError("this host is none of a fleet: store.redis is not set")
        try:
            await fleet.forget(host)
        except ConnectionError as error:
            raise ValueError(f"{host} is not forgotten: {error}") from error
        said = f"{host} is gone for good and counted no more"
        self._engine.telling.tell(
            "host-forgotten", said, now=time.time(), by_whom=str(request.get("who") or "control socket")
        )
        return {"host": host, "hosts": [each["host"] for each in fleet.status()["hosts"] if each["host"] != host]}

    async def fleet_learned(self, request: Request) -> Answer:
        """What other hosts taught about names, who did, and what counts here."""
        maps = self._parts.shared_maps
        if maps is None:
            raise ValueError("this host is none of a fleet: store.redis is not set")
        name = str(request.get("name", "")).lower()
        return {"learned": await maps.about(name, limit=int(request.get("limit", 100)))}

    def _fleet(self) -> Answer | None:
        parts = self._parts
        if parts.fleet is None:
            return None
        shared = parts.shared_suppressions
        lent = parts.shared_quotas
        return {
            **parts.fleet.status(),
            "suppressions": shared.status() if shared else None,
            "quotas": lent.status() if lent else None,
            "maps": parts.shared_maps.status() if parts.shared_maps else None,
            "warm_ups": parts.shared_warm_ups.status() if parts.shared_warm_ups else None,
        }

    def queue(self, _: Request) -> Answer:
        engine = self._engine
        held = len(engine.books.ours)
        return queue_age(engine.messages, live=len(engine.messages), held=held, now=time.time())._asdict()

    def noticed(self, _: Request) -> Answer:
        watching, now = self._parts.watching, time.time()
        hosts = [(each.host, *each.lately, *each.before) for each in watching.hosts(now=now)]
        return {"since": watching.since, "hosts": hosts, "repeated": watching.repeated(now=now)}

    async def reload(self, _: Request) -> Answer:
        try:
            await self._reload.now()
        except ReloadError as error:
            raise ValueError(str(error)) from error
        return {"mode": str(self._parts.config.mode), "restart_for": self._reload.waiting}

    def _said(self, sub: OpenSubQueue) -> Answer:
        machine = sub.machine
        return {
            "key": str(sub.key),
            "state": str(machine.state),
            "strategy": str(sub.strategy),
            "since": machine.since,
            "held": sub.held,
            "let_out": sub.let_out,
            "probe": sub.probe.queue_id if sub.probe else "",
            "budget_per_s": round(machine.budget_per_s, 4),
            "next_step_at": finite(machine.next_step_at),
            "opened_by": {"line": sub.line, "rule": sub.rule},
            "fleet": self._parts.fleet.host.said(sub.key) if self._parts.fleet else None,
            "unheld_attempts": sub.unheld_attempts,
        }

    def subqueue(self, request: Request) -> Answer:
        do, now, who = str(request.get("do", "")), time.time(), str(request.get("who") or "control socket")
        if do == "release" and request.get("key") in {None, "", "all"}:
            count = self._engine.orders.release(None, by_whom=who, now=now)
            self._wake()
            return {"released": count}
        if do == "open" and "where" in request:
            return self._open_stream(request, by_whom=who, now=now)
        key = Key.read(str(request.get("key", "")))
        match do:
            case "show":
                pass
            case "open":
                self._engine.orders.open(key, rule=BY_HAND, by_whom=who, now=now)
            case "pause":
                self._engine.orders.pause(key, _seconds(request), by_whom=who, now=now)
            case "close":
                self._let_go(key, who, now)
                if not self._engine.orders.close(key, by_whom=who, now=now):
                    raise ValueError(f"{key}: no such sub-queue is open")
            case "release":
                self._let_go(key, who, now)
                count = self._engine.orders.release(key, by_whom=who, now=now)
                self._wake()
                return {"released": count, "key": str(key)}
            case _:
                raise ValueError(f"do={do!r}: wanted show, open, pause, close or release")
        self._wake()
        sub = self._engine.subqueues.get(key)
        if sub is None and do == "show":
            raise ValueError(f"{key}: no such sub-queue is open")
        return {"subqueue": self._said(sub)} if sub else {"key": str(key), "state": "closed"}

    def _open_stream(self, request: Request, *, by_whom: str, now: float) -> Answer:
        sub = self._engine.orders.open_stream(
            str(request["where"]),
            name=str(request.get("name", "")),
            rate=float(request.get("rate", 0.0)),
            seconds=_seconds(request),
            by_whom=by_whom,
            now=now,
        )
        self._wake()
        return {"subqueue": self._said(sub)}

    async def requeue(self, request: Request) -> Answer:
        """Have queued mail of a transport requeued, paced, so that it goes another way."""
        parts, steering = self._parts, self._parts.steering
        source, to = to_provider("any", str(request.get("transport", ""))).transport, str(request.get("to", ""))
        if parts.config.postfix.reach:
            refused = await self._far_objection(source, to)
        else:
            pools = sorted(steering.pools) if steering is not None else []
            table = parts.config.postfix.transport_table
            refused = await asyncio.to_thread(objection, parts.instances, table, source, to, pools)
        if refused:
            raise ValueError(refused)
        sub = begin(
            self._engine,
            Requeueing(source, to),
            where=str(request.get("where") or ""),
            rate=float(request.get("rate") or 0.0),
            seconds=_seconds(request) or 0.0,
            name=str(request.get("name") or ""),
            by_whom=str(request.get("who") or "control socket"),
        )
        self._wake()
        return {"subqueue": self._said(sub), "mode": str(parts.config.mode), "warnings": REQUEUED}

    async def _far_objection(self, source: str, to: str) -> str:
        """Say why mail of another host cannot be requeued: where it could be led is for that host's own core to say."""
        reach = self._parts.config.postfix.reach
        if not mail_host.is_far(self._parts.config):
            return f'postfix.reach: found "{reach}": nothing is done to a queue that is only observed'
        if to:
            return f"to: {reach} is another host, whose table of transports is not written from here; leave --to out"
        try:
            return await self._parts.hands.objection(source)
        except HelperUnavailable as error:
            raise ValueError(f"whether {reach} may requeue is not known: {error}") from None

    def _let_go(self, key: Key, who: str, now: float) -> None:
        """What an admin lets go, no rule holds again half a minute later."""
        if self._parts.steering is not None:
            self._parts.steering.let_go(key, by_whom=who, now=now)

    def authentication(self, request: Request) -> Answer:
        """Take what was found broken, or well again, in the DNS; tell what is held and why the rest is not."""
        now, fail_fast, said = time.time(), self._engine.fail_fast, {}
        for each in request.get("broken", ()):
            key, what, evidence = Key.read(str(each["key"])), str(each["what"]), str(each["evidence"])
            said[str(key)] = fail_fast.broken(key, what, evidence, looks=int(each["looks"]), now=now)
        for text in request.get("repaired", ()):
            fail_fast.repaired(Key.read(str(text)), now=now)
        for text in request.get("still", ()):
            self._engine.repairs.wait_on(Key.read(str(text)), now=now)
        waiting = {str(each.key): (each.detail, each.line) for each in self._engine.repairs.waiting()}
        for text in request.get("well", ()):
            if text in waiting:
                self._engine.orders.resume(Key.read(text), by_whom="authentication", now=now)
        self._wake()
        return {"said": said, "broken": list(map(str, fail_fast.held)), "waiting": waiting}

    def changes(self, request: Request) -> Answer:
        rows = self._parts.store.changes(int(request.get("after", 0)), min(int(request.get("limit", 500)), 5_000))
        return {"changes": [{"id": number, **change.told()} for number, change in rows]}

    def ask(self, request: Request) -> Answer:
        asked = request.get("request")
        if not isinstance(asked, dict):
            raise ValueError(  # noqa: TRY004  # the control socket's word for a request that is refused
                'wanted {"request": {"recipient": ..., "sender": ...}}'
            )
        decision = self._parts.access.explain(
            policy_request(asked), self._parts.instances[0].syslog_name, now=time.time()
        )
        return {"action": value_of(decision.action), "key": decision.key, "rule": decision.rule, "why": decision.why}

    def metrics(self, _: Request) -> Answer:
        return figures(self._parts, lag=self._lag)

    def wanted_domains(self, request: Request) -> Answer:
        return {"domains": self._engine.recipients.wanted(min(int(request.get("limit", 100)), 1_000))}

    async def suppress(self, request: Request) -> Answer:
        suppression = self._parts.suppression
        if suppression is None:
            raise ValueError(
                "suppression is off: suppression.enabled is false, or core's log says what is wrong with it"
            )
        return await suppression.answer(request)

    async def quota(self, request: Request) -> Answer:
        if self._parts.quotas is None:
            raise ValueError("there are no quotas: the configuration has no [[quota]]")
        return await self._parts.quotas.answer(request)

    def learned_mx(self, request: Request) -> Answer:
        now = time.time()
        for answer in request.get("answers", ()):
            if not answer.get("error"):
                hosts = tuple(str(host) for host in answer.get("hosts", ()))
                domain = str(answer["domain"])
                self._engine.recipients.learn_mx(domain, hosts, now=now)
                if self._parts.hygiene is not None:
                    why = None if hosts else NoHost.NULL_MX if answer.get("null_mx") else NoHost.NOTHING
                    self._parts.hygiene.no_hosts.learn(domain, why, ttl=float(answer["ttl"]), now=now)
        return {}


_SPREAD: Final[Mapping[str, frozenset[str]]] = {
    "subqueue": frozenset({"open", "pause", "close", "release"}),
    "quota": frozenset({"reset"}),
    "suppress-copy": frozenset({"page"}),
    "warm-up": frozenset({"pause", "resume"}),
}
"""What hosts do for each other, by command."""


def _seconds(request: Request) -> float | None:
    """For how long, where that is said: by an admin, or by another host. Raises ValueError.

    NaN is no time that ever comes, so mail held for so long would stay for ever.
    """
    if request.get("seconds") is None:
        return None
    seconds = float(request["seconds"])
    if not 0.0 < seconds < math.inf:
        raise ValueError(f"seconds: found {seconds:g}, wanted a number above 0, or none")
    return seconds


async def _awaited(answer: Any) -> Answer:
    return dict(await answer if inspect.isawaitable(answer) else answer)


async def _refused_or_done(here: Handler, request: dict[str, Any]) -> Answer:
    try:
        return {"ok": True, **await _awaited(here(request))}
    except ValueError as error:
        return {"ok": False, "error": str(error)}


def _summed(hosts: Mapping[str, Mapping[str, Any]]) -> Answer:
    """Give what a single host would answer: what was let go is added up, else the first that did it."""
    done = [dict(answer) for _, answer in sorted(hosts.items()) if answer["ok"]]
    if not done:
        return {}
    first = {name: value for name, value in done[0].items() if name != "ok"}
    if "released" in first:
        first["released"] = sum(answer.get("released", 0) for answer in done)
    return first


def policy_request(asked: Mapping[str, Any]) -> PolicyRequest:
    """Make a policy request of an admin's `name=value` words; unknown names are an error."""
    known = set(PolicyRequest._fields)
    for name in asked:
        if name not in known:
            raise ValueError(f"{name}: no attribute of the policy protocol; known: {', '.join(sorted(known))}")
    read: dict[str, Any] = dict.fromkeys(PolicyRequest._fields, "") | {"recipient_count": 0, "size": 0}
    for name, value in asked.items():
        read[name] = int(value) if isinstance(read[name], int) else str(value)
    return PolicyRequest(**read)
