"""The routes of the configuration: each [[route]] as `policies.routing` wants it, with errors that name its key."""

import asyncio
from collections.abc import Collection, Iterable

from parsers.expression import ExpressionError
from policies import routing
from policies.routing import Routing
from sidecar import rules
from sidecar.config import Config, ConfigError, Route


def routes_of(config: Config, pools: Collection[str] = ()) -> tuple[routing.Route, ...]:
    """Read what `when` says of each route, in order; `pools`: names that a route may lead to.

    Raises ConfigError.
    """
    return tuple(_read(route, f"route[{i}]", pools) for i, route in enumerate(config.route))


def routing_of(routes: Iterable[routing.Route]) -> Routing:
    """Make the routes ready for use."""
    return Routing(map(routing.compiled, routes), rules.organizational_domain)


async def routing_in_turns(routes: Iterable[routing.Route]) -> Routing:
    """As `routing_of`, with a turn for others after each route: their regular expressions are made one by one."""
    made = []
    for route in routes:
        made.append(routing.compiled(route))
        await asyncio.sleep(0)
    return Routing(made, rules.organizational_domain)


def _read(route: Route, key: str, pools: Collection[str]) -> routing.Route:
    if bool(route.provider) == bool(route.when):
        found = "both" if route.when else "neither"
        raise ConfigError(f"{key}: {found} of provider and when; wanted one: whose mail goes over {route.transport}")
    try:
        if route.provider:
            read = routing.to_provider(route.provider, route.transport, name=route.name)
        else:
            read = routing.read_route(route.transport, route.when, name=route.name)
    except ExpressionError as error:
        raise ConfigError(f"{key}.when: {error}") from error
    except ValueError as error:
        raise ConfigError(f"{key}.transport: {error}") from error
    if read.pool and read.pool not in pools:
        known = f"known: {', '.join(sorted(pools))}" if pools else "there is no [[pool]]"
        raise ConfigError(f"{key}.transport: no pool is called {read.pool}; {known}")
    return read
