"""A Google of our own: the token endpoint and Postmaster v2 and v1, as they are documented, with everything that may go wrong."""

import functools
import json
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

from google.auth import jwt

from parsers.feeds.asking import Answer, Ask, HttpAnswer, HttpAsk
from tests.outside_world import Request, Response

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC).timestamp()
TODAY = date(2026, 11, 21)

_REASONS = {
    "reject": (
        "bad_attachment|bad_or_missing_ptr_record|ip_in_rbls|low_domain_reputation|low_ip_reputation|spammy_content"
        "|stamp_policy_error|other"
    ),
    "temp_fail": "anomalous_traffic_pattern|other",
}
_ERRORS = "|".join(f'error_type = "{kind}"( AND error_reason = "({reasons})")?' for kind, reasons in _REASONS.items())
_FILTERS = {
    "SPAM_RATE": "",
    "AUTH_SUCCESS_RATE": 'auth_type = "(spf|dkim|dmarc)"',
    "TLS_ENCRYPTION_RATE": 'traffic_direction = "(inbound|outbound)"',
    "TLS_ENCRYPTION_MESSAGE_COUNT": 'traffic_direction = "(inbound|outbound)"',
    "DELIVERY_ERROR_RATE": f"({_ERRORS})?",
    "DELIVERY_ERROR_COUNT": f"({_ERRORS})?",
    "FEEDBACK_LOOP_ID": '(aggregation_key_type = "(FROM_HEADER|ALL_DKIM)")?',
    "FEEDBACK_LOOP_SPAM_RATE": r'feedback_loop_id = "(?P<id>(?:[^"\\]|\\.)+)"( AND aggregation_key_type = "\w+")?',
}
"""The filters that each metric takes."""

STATUSES = {3: (400, "INVALID_ARGUMENT"), 5: (404, "NOT_FOUND"), 7: (403, "PERMISSION_DENIED")}
LOOPS = {"cust42": 0.004, 'odd "one"\\': 0.0}


def reply(status: int, told: Any) -> Response:
    return Response(status, json.dumps(told).encode(), (("Content-Type", "application/json; charset=UTF-8"),))


def refusal(status: int, message: str, word: str) -> Response:
    return reply(status, {"error": {"code": status, "message": message, "status": word}})


class RefusedError(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Google:
    """What it knows, and how it behaves."""

    domains: dict[str, tuple[str, str]] = field(default_factory=lambda: {"example.com": ("VERIFIED", "OWNER")})
    """Name -> state, permission."""
    forbidden: frozenset[str] = frozenset()
    """Domains whose figures are refused."""
    batch_refused_whole: bool = False
    """A domain that is not permitted refuses the batch; else its own item alone."""
    days_missing: frozenset[int] = frozenset({1, 4})
    """Days back that have no figures."""
    days_max: int = 120
    page_max: int = 200
    float_value: bool = False
    public_key: str = ""
    token_seconds: int = 3599
    uses_of_a_token: int = 10**9
    """Requests after which a token is refused with 401."""
    fault: Callable[[Request], Response | None] = lambda _: None
    compliance: Mapping[str, Any] = field(default_factory=dict)
    v1: bool = False
    tokens: dict[str, int] = field(default_factory=dict)
    granted: list[dict[str, str]] = field(default_factory=list)
    dice: random.Random = field(default_factory=lambda: random.Random(4))
    orders: dict[str, list[str]] = field(default_factory=dict)
    batches: list[int] = field(default_factory=list)

    def answer(self, request: Request) -> Response | None:
        if (wrong := self.fault(request)) is not None:
            return None if wrong.status == 0 else wrong
        path = unquote(urlsplit(request.path).path)
        if path == "/token":
            return self._token(dict(parse_qsl(request.body.decode())))
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.tokens.get(token, 0) <= 0:
            return refusal(401, "Request had invalid authentication credentials.", "UNAUTHENTICATED")
        self.tokens[token] -= 1
        try:
            return self._method(path, request)
        except RefusedError as error:
            status, word = STATUSES[error.code]
            return refusal(status, str(error), word)

    def _token(self, form: dict[str, str]) -> Response:
        if form["grant_type"] == "refresh_token":
            good = (form.get("client_id"), form.get("client_secret"), form.get("refresh_token")) == (
                "id",
                "se cret",
                "r+1",
            )
        else:
            claims = dict(jwt.decode(form["assertion"], certs=self.public_key, verify=True, audience=None))
            good = form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer" and claims["iss"].endswith(
                "@x.example"
            )
            form |= {name: str(value) for name, value in claims.items()}
        if not good:
            return reply(400, {"error": "invalid_grant", "error_description": "Token has been expired or revoked."})
        self.granted.append(form)
        token = f"ya29.{len(self.granted)}"
        self.tokens[token] = self.uses_of_a_token
        return reply(200, {"access_token": token, "expires_in": self.token_seconds, "token_type": "Bearer"})

    def _method(self, path: str, request: Request) -> Response:
        if path == "/v2/domains":
            return self._list(parse_qs(urlsplit(request.path).query))
        if path == "/v2/domainStats:batchQuery":
            return self._batch(json.loads(request.body)["requests"])
        if match := re.fullmatch(r"/v2/(domains/[^/]+)/domainStats:query", path):
            return reply(200, self._query({"parent": match[1], **json.loads(request.body)}))
        if match := re.fullmatch(r"/v2/domains/([^/]+)/complianceStatus", path):
            self._permitted(match[1])
            return reply(200, self.compliance.get(match[1], {"name": f"domains/{match[1]}/complianceStatus"}))
        if self.v1 and path == "/v1/domains":
            return reply(200, {})
        if self.v1 and (match := re.fullmatch(r"/v1/domains/([^/]+)/trafficStats", path)):
            return reply(200, {"trafficStats": [dict(self._v1_day(match[1], back)) for back in (2, 3)]})
        return refusal(404, "Method not found.", "NOT_FOUND")

    def _v1_day(self, domain: str, back: int) -> dict[str, Any]:
        day = TODAY - timedelta(days=back)
        return {
            "name": f"domains/{domain}/trafficStats/{day:%Y%m%d}",
            "domainReputation": "LOW" if back == 2 else "HIGH",
            "ipReputations": [{"reputation": "BAD", "ipCount": "3", "sampleIps": ["192.0.2.1"]}],
        }

    def _list(self, query: dict[str, list[str]]) -> Response:
        """Pages of one listing hang together; two listings have different orders."""
        token = query.get("pageToken", [f"{len(self.orders)}/0"])[0]
        listing, _, start = token.partition("/")
        order = self.orders.setdefault(listing, self.dice.sample(sorted(self.domains), len(self.domains)))
        size = min(int(query.get("pageSize", ["10"])[0]), 200)
        names = order[int(start) : int(start) + size]
        told: dict[str, Any] = {}
        if names:
            told["domains"] = [
                {
                    "name": f"domains/{name}",
                    "verificationState": self.domains[name][0],
                    "permission": self.domains[name][1],
                }
                for name in names
            ]
        if int(start) + size < len(order):
            told["nextPageToken"] = f"{listing}/{int(start) + size}"
        return reply(200, told)

    def _permitted(self, domain: str) -> None:
        if domain not in self.domains or domain in self.forbidden:
            raise RefusedError(7, "The caller does not have permission")

    def _batch(self, requests: list[dict[str, Any]]) -> Response:
        self.batches.append(len(requests))
        if len(requests) > 100:
            raise RefusedError(3, "at most 100 requests")
        results = []
        for each in requests:
            try:
                results.append({"response": self._query(each)})
            except RefusedError as error:
                if error.code == 7 and self.batch_refused_whole:
                    raise
                results.append({"error": {"code": error.code, "message": str(error), "details": []}})
        return reply(200, {"results": results})

    def _query(self, asked: dict[str, Any]) -> dict[str, Any]:
        domain = asked["parent"].removeprefix("domains/")
        self._permitted(domain)
        rows = [
            {"name": f"{asked['parent']}/domainStats/x", "metric": each["name"], "date": _date(day), "value": value}
            for day in self._days(asked["timeQuery"])
            for each in asked["metricDefinitions"]
            if (value := self._value(domain, each, day)) is not None
        ]
        start = int(asked.get("pageToken", "0"))
        size = min(asked.get("pageSize", 10), self.page_max)
        told: dict[str, Any] = {"domainStats": rows[start : start + size]} if rows else {}
        if start + size < len(rows):
            told["nextPageToken"] = str(start + size)
        return told

    def _days(self, asked: dict[str, Any]) -> list[date]:
        """Those that have figures."""
        if "dateList" in asked:
            days = [date(**each) for each in asked["dateList"]["dates"]]
        else:
            (span,) = asked["dateRanges"]["dateRanges"]
            first, last = date(**span["start"]), date(**span["end"])
            days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
            if len(days) > self.days_max:
                raise RefusedError(3, "the range is too long")
        return [day for day in days if (TODAY - day).days not in self.days_missing]

    def _value(self, domain: str, definition: dict[str, Any], day: date) -> dict[str, Any] | None:
        metric, filter_ = definition["baseMetric"]["standardMetric"], definition.get("filter", "")
        match = re.fullmatch(_FILTERS[metric], filter_)
        if match is None:
            raise RefusedError(3, f"{metric} takes no filter {filter_!r}")
        if metric == "FEEDBACK_LOOP_ID":
            return {"stringList": {"values": list(LOOPS)}}
        if metric == "FEEDBACK_LOOP_SPAM_RATE":
            return {"doubleValue": LOOPS[re.sub(r"\\(.)", r"\1", match["id"])]}
        if metric.endswith("COUNT"):
            return {"intValue": str(figure(domain, metric, filter_, day, 1000))}
        return {"floatValue" if self.float_value else "doubleValue": figure(domain, metric, filter_, day, 1000) / 1000}


@functools.cache
def figure(domain: str, metric: str, filter_: str, day: date, most: int) -> int:
    """The truth: always the same for the same question."""
    return random.Random(f"{domain}{metric}{filter_}{day}").randrange(most)


def _date(day: date) -> dict[str, int]:
    return {"year": day.year, "month": day.month, "day": day.day}


def without_sockets(answer: Callable[[Request], Response | None]) -> Callable[[Ask], Answer]:
    """For `driven`: the same server."""

    def give(ask: Ask) -> Answer:
        assert isinstance(ask, HttpAsk)
        url = urlsplit(ask.url)
        headers = {name.lower(): value for name, value in ask.headers}
        got = answer(Request(ask.method, f"{url.path}?{url.query}", headers, ask.body))
        if got is None:
            return HttpAnswer(0, error="ConnectionError: closed")
        return HttpAnswer(got.status, tuple((name.lower(), value) for name, value in got.headers), got.body)

    return give
