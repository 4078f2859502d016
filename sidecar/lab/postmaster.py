"""Google Postmaster v2 as far as a poll meets it, with the figures that a drill wants Google to have.

An answer for a local HTTP server; tells a domain's spam rate and what is refused for its reputation, day by day.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from sidecar.lab.http_server import Request, Response

CREDENTIALS: Final = {"type": "authorized_user", "client_id": "lab", "client_secret": "lab", "refresh_token": "lab"}
_TOKEN: Final = "ya29.lab"  # noqa: S105  # of a server of ours
_JSON: Final = (("Content-Type", "application/json; charset=UTF-8"),)
_REFUSED: Final = 'error_type = "reject" AND error_reason = "low_domain_reputation"'


class Day(NamedTuple):
    """What Google knows of one day; ratios."""

    spam: float
    refused: float = 0.0
    """For the domain's reputation."""


@dataclass
class Postmaster:
    """`days` may change at any time: Google publishes one after the other."""

    domain: str
    days: dict[date, Day] = field(default_factory=dict)

    def __call__(self, request: Request) -> Response:
        path = unquote(urlsplit(request.path).path)
        if path == "/token":
            return _said({"access_token": _TOKEN, "expires_in": 3599, "token_type": "Bearer"})
        if request.headers.get("authorization") != f"Bearer {_TOKEN}":
            return _said({"error": {"code": 401, "message": "no token", "status": "UNAUTHENTICATED"}}, 401)
        if path == "/v2/domains":
            name = f"domains/{self.domain}"
            return _said({"domains": [{"name": name, "verificationState": "VERIFIED", "permission": "OWNER"}]})
        if path == "/v2/domainStats:batchQuery":
            asked = json.loads(request.body)["requests"]
            return _said({"results": [{"response": self._query(each)} for each in asked]})
        if found := re.fullmatch(r"/v2/(domains/[^/]+)/domainStats:query", path):
            return _said(self._query({"parent": found[1], **json.loads(request.body)}))
        if found := re.fullmatch(r"/v2/(domains/[^/]+/complianceStatus)", path):
            return _said({"name": found[1]})
        return _said({"error": {"code": 404, "message": "Method not found.", "status": "NOT_FOUND"}}, 404)

    def _query(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        (span,) = asked["timeQuery"]["dateRanges"]["dateRanges"]
        return {"domainStats": list(self._rows(asked, date(**span["start"]), date(**span["end"])))}

    def _rows(self, asked: Mapping[str, Any], first: date, last: date) -> Iterator[dict[str, Any]]:
        for number in range((last - first).days + 1):
            day = first + timedelta(days=number)
            known = self.days.get(day)
            for each in asked["metricDefinitions"] if known else ():
                value = _value(known, each["baseMetric"]["standardMetric"], each.get("filter", ""))
                if value is not None:
                    on = {"year": day.year, "month": day.month, "day": day.day}
                    name = f"{asked['parent']}/domainStats/lab"
                    yield {"name": name, "metric": each["name"], "date": on, "value": {"doubleValue": value}}


def _value(day: Day | None, metric: str, filter_: str) -> float | None:
    if day is None:
        return None
    if metric == "SPAM_RATE":
        return day.spam
    return day.refused if (metric, filter_) == ("DELIVERY_ERROR_RATE", _REFUSED) else None


def _said(told: Any, status: int = 200) -> Response:
    return Response(status, json.dumps(told).encode(), _JSON)
