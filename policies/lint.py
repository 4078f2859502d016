"""Whether a file of rules does what it says: each rule is proved by its own examples.

Knows what makes a rule dead, hidden by an earlier one, or too broad.
"""

from policies.matching import Table
from policies.rules import Provider, Rule, RuleError
from policies.said import Heard, Said, hear


def lint(provider: Provider) -> list[RuleError]:
    """Every fault of a file: no example, one that its rule does not match or an earlier rule takes, a counterexample
    that the rule takes. In the file's order."""
    table = Table(provider.rules)
    return [fault for rule in provider.rules for fault in _faults(provider, table, rule)]


def _faults(provider: Provider, table: Table, rule: Rule) -> list[RuleError]:
    if not rule.examples:
        return [
            _fault(provider, rule, "examples", "missing", "give a reply that the rule must match, as it was logged")
        ]
    faults = []
    for text in rule.examples:
        heard = _hear(provider, text)
        if not _alone(rule, heard):
            faults.append(
                _fault(provider, rule, "examples", f"does not match {text!r}", "correct the rule, or the example")
            )
        elif (first := table.find(heard)) is not rule:
            assert first is not None
            faults.append(
                _fault(
                    provider, rule, "examples", f"{first.label} takes {text!r} first", f"put it before {first.label}"
                )
            )
    faults += [
        _fault(provider, rule, "counterexamples", f"matches {text!r}", "narrow the rule, or add to `none`")
        for text in rule.counterexamples
        if table.find(_hear(provider, text)) is rule
    ]
    return faults


def _alone(rule: Rule, heard: Heard) -> bool:
    return Table((rule,)).find(heard) is rule


def _hear(provider: Provider, text: str) -> Heard:
    return hear(Said(text))._replace(remote=provider.said_by != "postfix")


def _fault(provider: Provider, rule: Rule, key: str, problem: str, remedy: str) -> RuleError:
    return RuleError(provider.file, rule.label, key, problem, remedy)
