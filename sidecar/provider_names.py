"""Finds providers in the configuration that do not exist: such a condition never holds, and nothing else says so."""

from collections.abc import Iterator

from parsers.expression import Expression, ExpressionError, Fields, parse
from policies import provider_names, quota_condition, routing
from policies.key import EVERYWHERE
from sidecar import rules
from sidecar.config import Config


def misspelt(config: Config) -> Iterator[tuple[str, str, str]]:
    """Give (key, what was found, the nearest name or "") of each. A condition that cannot be read is another finding's.

    Raises RuleError.
    """
    named = [(key, name) for key, name in _named(config) if name not in {"", EVERYWHERE}]
    known = rules.load(config.rules.directory).providers.names() if named else frozenset()
    for key, name in named:
        near = provider_names.nobody(name, known)
        if near is not None:
            yield key, name, near


def _named(config: Config) -> Iterator[tuple[str, str]]:
    for i, route in enumerate(config.route):
        yield f"route[{i}].provider", route.provider.lower()
        yield from _in_condition(f"route[{i}].when", route.when, routing.FIELDS)
    for i, canary in enumerate(config.canary):
        yield from _in_condition(f"canary[{i}].when", canary.when, routing.FIELDS)
    for i, quota in enumerate(config.quota):
        yield from _in_condition(f"quota[{i}].where", quota.where, quota_condition.FIELDS)
    for i, plan in enumerate(config.warm_up):
        yield from ((f"warm_up[{i}].caps", cap.provider.lower()) for cap in plan.caps)
    for i, rule in enumerate(config.react):
        yield from ((f"react[{i}].providers", provider.lower()) for provider in rule.providers)


def _in_condition(key: str, text: str, fields: Fields) -> Iterator[tuple[str, str]]:
    if not text:
        return
    try:
        read: Expression = parse(text, fields)
    except ExpressionError:
        return
    yield from ((key, name) for name in provider_names.named(read))
