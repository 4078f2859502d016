"""Pools, warm-ups, canaries and reactions of the configuration, as `policies.steering` wants them, with errors that name
their key.

Knows which transports stand for which address: Postfix's `smtp_bind_address`, unless the configuration says another.
"""

import ipaddress
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from parsers.expression import ExpressionError
from policies import canary, routing
from policies.canary import Canary
from policies.engine import Engine
from policies.pools import Member, Pool, checked
from policies.reacting import Reactions, Rule
from policies.routing import POOL, Route
from policies.steering import Settings, Steering
from policies.warm_up import Plan, WarmUps, day_of
from sidecar import postfix_configuration
from sidecar.config import CanaryConfig, Config, ConfigError, PoolConfig, ReactConfig, WarmUpConfig
from sidecar.postfix import Instance

_BOUND = ("smtp_bind_address", "smtp_bind_address6")


class Wanted(NamedTuple):
    """All that the configuration says, checked; it can be sent from one process to another."""

    pools: dict[str, Pool]
    canaries: tuple[tuple[Canary, Route], ...]
    plans: tuple[Plan, ...]
    rules: tuple[Rule, ...]
    transports: dict[str, tuple[str, ...]]
    """Address -> transports whose mail leaves from it."""

    @property
    def anything(self) -> bool:
        """Whether there is anything to steer by."""
        return bool(self.pools or self.canaries or self.plans or self.rules)

    def named(self) -> Iterator[tuple[str, str]]:
        """Name every transport that mail may be steered to, with the key that does: (key, transport)."""
        seen: set[str] = set()
        said = [("pool.transports", member.transport) for pool in self.pools.values() for member in pool.members]
        said += [("pool.otherwise", pool.otherwise) for pool in self.pools.values()]
        said += [("warm_up.transport", plan.transport) for plan in self.plans]
        said += [("canary.transport", canary.transport) for canary, _ in self.canaries]
        said += [("react.to", rule.to) for rule in self.rules]
        for key, name in said:
            if name and not name.startswith(POOL) and name not in seen:
                seen.add(name)
                yield key, name

    def settings(self) -> Settings:
        """Make it ready for use."""
        compiled = tuple((each, routing.compiled(route)) for each, route in self.canaries)
        return Settings(self.pools, compiled, self.transports)


def names(config: Config) -> frozenset[str]:
    """Tell which pools there are, for routes that lead to them."""
    return frozenset(pool.name for pool in config.pool)


def wanted(config: Config, instances: Sequence[Instance]) -> Wanted:
    """Read and check it all. Raises ConfigError, PostfixError."""
    pools = _pools(config.pool)
    found = Wanted(
        pools,
        tuple(_canaries(config.canary, pools)),
        tuple(_plan(plan, f"warm_up[{i}]") for i, plan in enumerate(config.warm_up)),
        tuple(_rule(rule, f"react[{i}]", pools) for i, rule in enumerate(config.react)),
        {},
    )
    led = next((i for i, rule in enumerate(config.react) if rule.requeue), None)
    if led is not None and not config.postfix.transport_table:
        raise ConfigError(
            f"react[{led}].requeue: found true, wanted with postfix.transport_table, which leads that mail"
        )
    try:
        WarmUps(found.plans)
        Reactions(found.rules, _NoHolder())
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return found._replace(transports=_transports(config, instances)) if found.anything else found


def steering_of(found: Wanted, engine: Engine, *, scale: float) -> Steering:
    """Make the steering of core."""
    steering = Steering(
        found.settings(),
        WarmUps(found.plans, scale=scale),
        Reactions(found.rules, engine.orders, scale=scale),
        tell=engine.telling.tell,
    )
    engine.ask_for_others(steering.has_other)
    return steering


def configure(steering: Steering, found: Wanted) -> None:
    """Take over what was read again."""
    steering.configure(found.settings())
    steering.warm_ups.configure(found.plans)
    steering.reactions.configure(found.rules)


def _pools(configured: Iterable[PoolConfig]) -> dict[str, Pool]:
    made = []
    for i, pool in enumerate(configured):
        members = tuple(
            Member(_transport(each.transport, f"pool[{i}].transports"), each.weight) for each in pool.transports
        )
        otherwise = pool.otherwise and _transport(pool.otherwise, f"pool[{i}].otherwise")
        made.append(Pool(pool.name, members, pool.sticky, otherwise))
    try:
        return checked(made)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _canaries(configured: Iterable[CanaryConfig], pools: Collection[str]) -> Iterator[tuple[Canary, Route]]:
    seen: set[str] = set()
    for i, each in enumerate(configured):
        key = f"canary[{i}]"
        if each.name in seen:
            raise ConfigError(f"{key}.name: {each.name}: there are two of this name; wanted one")
        seen.add(each.name)
        made = Canary(each.name, each.share, each.transport, each.until, each.loss)
        _leads_to(each.transport, f"{key}.transport", pools)
        try:
            canary.check(made)
            yield made, routing.read_route(each.transport, each.when, name=f"canary-{each.name}")
        except ExpressionError as error:
            raise ConfigError(f"{key}.when: {error}") from error
        except ValueError as error:
            raise ConfigError(f"{key}: {error}") from error


def _plan(plan: WarmUpConfig, key: str) -> Plan:
    try:
        started = day_of(plan.started)
    except ValueError:
        raise ConfigError(f"{key}.started: found {plan.started!r}, wanted a day, as 2026-11-22") from None
    caps = {cap.provider: cap.per_day for cap in plan.caps}
    transport = _transport(plan.transport, f"{key}.transport")
    return Plan(transport, started, plan.start_per_day, plan.growth, plan.until_per_day, caps, plan.fleet)


def _rule(rule: ReactConfig, key: str, pools: Collection[str]) -> Rule:
    if rule.to:
        _leads_to(rule.to, f"{key}.to", pools)
    only = frozenset({*rule.only, *map(str.lower, rule.only)})  # transports are as they are, domains in small letters
    return Rule(
        rule.name, rule.signal, rule.do, rule.to, frozenset(rule.providers), only, rule.return_hours, rule.requeue
    )


def _leads_to(text: str, key: str, pools: Collection[str]) -> None:
    if not text.startswith(POOL):
        _transport(text, key)
    elif text.removeprefix(POOL) not in pools:
        known = f"known: {', '.join(sorted(pools))}" if pools else "there is no [[pool]]"
        raise ConfigError(f"{key}: no pool is called {text.removeprefix(POOL)}; {known}")


def _transport(name: str, key: str) -> str:
    """Check a name as FILTER can carry it."""
    try:
        return routing.to_provider("any", name).transport
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from error


def _transports(config: Config, instances: Sequence[Instance]) -> dict[str, tuple[str, ...]]:
    """Tell which transports leave from which address."""
    found: dict[str, list[str]] = {}
    said = {each.transport: each.address for pool in config.pool for each in pool.transports if each.address}
    for transport, address in said.items():
        found.setdefault(_address(address), []).append(transport)
    steered = {each.transport for pool in config.pool for each in pool.transports} | {
        plan.transport for plan in config.warm_up
    }
    for instance in instances:
        configuration = postfix_configuration.read(instance)
        for name in sorted(steered - said.keys()):
            service = configuration.service(name, "unix")
            bound = [configuration.effective(service, each) for each in _BOUND] if service else []
            for address in filter(None, bound):
                of = found.setdefault(str(_parsed(address) or address), [])
                if name not in of:
                    of.append(name)
    return {address: tuple(transports) for address, transports in found.items()}


def _address(text: str) -> str:
    parsed = _parsed(text)
    if parsed is None:
        raise ConfigError(f"pool.transports.address: found {text!r}, wanted an address, as 192.0.2.7")
    return str(parsed)


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None


class _NoHolder:
    """Stands for the engine where rules are only checked."""

    def hold(self, *_: object, **__: object) -> None: ...

    def open(self, *_: object, **__: object) -> None: ...

    def resume(self, *_: object, **__: object) -> bool:
        return False
