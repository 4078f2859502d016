"""Google Postmaster v2's compliance status: which of the requirements for bulk senders a domain meets.

Knows that a status it has no word for is neither met nor failed.
"""

import re
from collections.abc import Iterator
from typing import Any

from parsers.feeds.google_statistics import FEED
from parsers.observation import Observation, Outcome

REQUIREMENTS = (
    *("SPF", "DKIM", "SPF_AND_DKIM", "DMARC_POLICY", "DMARC_ALIGNMENT", "MESSAGE_FORMATTING", "DNS_RECORDS"),
    *("ENCRYPTION", "USER_REPORTED_SPAM_RATE", "ONE_CLICK_UNSUBSCRIBE", "HONOR_UNSUBSCRIBE"),
)
_VERDICTS = {"oneClickUnsubscribeVerdict": "ONE_CLICK_UNSUBSCRIBE", "honorUnsubscribeVerdict": "HONOR_UNSUBSCRIBE"}
_PARTS = ("complianceData", "subdomainComplianceData")
_STATUS = {"COMPLIANT": 1.0, "NEEDS_WORK": 0.0}
_WORD = re.compile(r"[A-Z][A-Z0-9_]{0,59}")
_NOTHING_YET = frozenset({"", "STATE_UNSPECIFIED"})


def unread(domain: str, why: str) -> Iterator[Observation]:
    """Nobody could say, of anything."""
    for requirement in REQUIREMENTS:
        yield Observation(FEED, domain, f"compliance.{requirement}", Outcome.UNKNOWN, text=why)
    yield Observation(FEED, domain, "compliance", Outcome.UNKNOWN, text=why)


def observations(domain: str, told: Any) -> Iterator[Observation]:
    """Yield each requirement of a ComplianceStatus, of the registrable domain and, where told, of the subdomain."""
    name = f"domains/{domain}/complianceStatus"
    parts = [told.get(key, {}) for key in _PARTS] if isinstance(told, dict) and told.get("name", name) == name else []
    about = {str(part.get("domainId", "")).lower(): part for part in parts if isinstance(part, dict)}
    if not parts or not all(isinstance(part, dict) for part in parts):
        yield from unread(domain, "not a compliance status, or one of something else")
        return
    for each, part in about.items():
        if each:
            yield from _of_domain(each, part)
    if domain not in about:
        yield Observation(
            FEED, domain, "compliance", Outcome.NO_DATA, text="Google tells of its registrable domain alone"
        )


def _of_domain(domain: str, part: dict[str, Any]) -> Iterator[Observation]:
    rows = part.get("rowData")
    found = {}
    for row in rows if isinstance(rows, list) else ():
        requirement = str(row.get("requirement", "")) if isinstance(row, dict) else ""
        if _WORD.fullmatch(requirement) and not requirement.endswith("_UNSPECIFIED"):
            found[requirement] = _observation(domain, requirement, row, "")
    for key, requirement in _VERDICTS.items():
        verdict = part.get(key)
        if isinstance(verdict, dict):
            found[requirement] = _observation(domain, requirement, verdict, str(verdict.get("reason") or ""))
    yield from found.values()
    yield _together(domain, list(found.values()))


def _observation(domain: str, requirement: str, row: dict[str, Any], reason: str) -> Observation:
    state = row.get("status")
    said = str(state.get("status") or "") if isinstance(state, dict) else ""
    measure = f"compliance.{requirement}"
    if said in _STATUS:
        text = "" if reason == "REASON_UNSPECIFIED" else reason
        return Observation(FEED, domain, measure, Outcome.OK, _STATUS[said], text)
    if said in _NOTHING_YET:
        return Observation(FEED, domain, measure, Outcome.NO_DATA, text="no verdict")
    return Observation(FEED, domain, measure, Outcome.UNKNOWN, text=f"a status we do not know: {said[:100]}")


def _together(domain: str, found: list[Observation]) -> Observation:
    """1 where all that is judged is met; one that is not is enough for 0."""
    judged = [seen for seen in found if seen.outcome is Outcome.OK]
    failed = [seen.measure.removeprefix("compliance.") for seen in judged if seen.value == 0]
    if failed:
        return Observation(FEED, domain, "compliance", Outcome.OK, 0.0, ", ".join(failed))
    if strange := [seen for seen in found if seen.outcome is Outcome.UNKNOWN]:
        return Observation(FEED, domain, "compliance", Outcome.UNKNOWN, text=f"{strange[0].measure}: {strange[0].text}")
    if not judged:
        return Observation(FEED, domain, "compliance", Outcome.NO_DATA, text="no verdict")
    return Observation(FEED, domain, "compliance", Outcome.OK, 1.0)
