"""What a feed told, in a word and a sign: a table by measure of what is good and what is bad.

Knows nothing of thresholds: those of numbers are the conditions' of the alerts.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from parsers.observation import Outcome
from sidecar.outside_store import Known
from sidecar.page.words import Mark, count, percent, span

Say = Callable[[float, str], Mark]
"""Value and text to a mark."""


class Told(NamedTuple):
    """One measure of one object."""

    known: Known
    mark: Mark

    @property
    def stale(self) -> bool:
        """The newest poll told nothing; what is shown was told before."""
        return self.known.outcome is not Outcome.OK and self.known.told_at > 0


def _yes_no(yes: Mark, no: Mark) -> Say:
    return lambda value, text: (yes if value else no)._replace(why=text)


def _levels(*marks: Mark) -> Say:
    """What is only the value's own word in other letters is not said twice."""

    def say(value: float, text: str) -> Mark:
        mark = marks[min(max(int(value), 0), len(marks) - 1)]
        return mark if text.lower() == mark.word else mark._replace(why=text)

    return say


def _number(form: Callable[[float], str]) -> Say:
    return lambda value, text: Mark("", form(value), "calm", text)


def _listing(value: float, text: str) -> Mark:
    if not value:
        return Mark("✓", "not listed", "good", text)
    severity = text.partition(":")[0].strip().lower()
    return Mark("✗", "listed", "warn" if severity in {"warning", "info"} else "bad", text)


_MET = _yes_no(Mark("✓", "met", "good"), Mark("✗", "not met", "bad"))
_WELL = _yes_no(Mark("✓", "well", "good"), Mark("✗", "not well", "bad"))

SAID: Mapping[str, Say] = {
    "listed.": _listing,
    "requirement.": _MET,
    "compliance": _MET,
    "spf-record": _WELL,
    "dkim-key.": _WELL,
    "dmarc-reports": _yes_no(Mark("✓", "asked for", "good"), Mark("!", "not asked for", "warn")),
    "dmarc-policy": _levels(Mark("!", "none", "warn"), Mark("✓", "quarantine", "good"), Mark("✓", "reject", "good")),
    "helo": _WELL,
    "mta-sts": _WELL,
    "tls-rpt": _WELL,
    "zone-healthy": _yes_no(Mark("✓", "believed", "good"), Mark("✗", "not believed", "bad")),
    "verified": _yes_no(Mark("✓", "verified", "good"), Mark("✗", "not verified", "bad")),
    "permission": _yes_no(Mark("✓", "granted", "good"), Mark("✗", "not granted", "bad")),
    "gone": _yes_no(Mark("✗", "switched off", "bad"), Mark("✓", "there", "good")),
    "blocked": _yes_no(Mark("✗", "blocked", "bad"), Mark("✓", "not blocked", "good")),
    "blocked-addresses": _number(count),
    "filter-result": _levels(Mark("✓", "green", "good"), Mark("!", "yellow", "warn"), Mark("✗", "red", "bad")),
    "domain-reputation": _levels(
        Mark("✗", "bad", "bad"), Mark("✗", "low", "bad"), Mark("!", "medium", "warn"), Mark("✓", "high", "good")
    ),
    "score": _number(lambda value: f"{value:.0f} of 100"),
    "spf-addresses": _number(percent),
    "spam": _number(percent),
    "complaints": _number(percent),
    "auth-success.": _number(percent),
    "tls.": _number(percent),
    "delivery-error": _number(percent),
    "delivery-errors": _number(count),
    "fbl-spam.": _number(percent),
    "data-age": _number(span),
    "dkim-key-age.": _number(span),
    "credential-age": _number(span),
}
"""By the measure, by what stands before its first dot, dot and all, or by that alone."""


def _plain(value: float) -> str:
    return count(value) if value.is_integer() and abs(value) < 1e15 else f"{value:.6g}"


def mark(known: Known) -> Mark:
    """Say what is known of a measure; of one that never was told, why."""
    if not known.told_at or known.value is None:
        word = {Outcome.NO_DATA: "no data", Outcome.UNKNOWN: "unknown"}.get(known.outcome, known.text or "–")
        return Mark("?" if known.outcome is Outcome.UNKNOWN else "–", word, "calm", known.why)
    name, dot, _ = known.measure.partition(".")
    say = SAID.get(known.measure) or SAID.get(name + dot) or SAID.get(name) or _number(_plain)
    return say(known.value, known.text)


def told(known: Known) -> Told:
    return Told(known, mark(known))
