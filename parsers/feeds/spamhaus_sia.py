"""The Spamhaus Intelligence API: whether an address is listed now, and why, behind a login.

Knows that 404 is its word for "not listed", and that a page in HTML with the same status is not.
"""

import ipaddress
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from parsers.feeds.asking import Asked, HttpAnswer, HttpAsk, Poll, Reading, Trouble
from parsers.feeds.http_failure import Failure, failure, json_value
from parsers.observation import Observation, Outcome

FEED = "spamhaus-sia"
LIMIT = 20
"""Entries of one address that are wanted: enough to say why."""
_REASONS = ("detection", "heuristic", "botname")


def poll(
    username: str,
    password: str,
    addresses: Sequence[str],
    *,
    now: float,
    base_url: str,
    lists: Sequence[str],
) -> Poll:
    """Log in, and ask each list about each address. Stops where they want no more; the rest is unknown then.

    `lists`: parts of the path, how an object is looked up and the data set, as "cidr/ALL".
    """
    base = base_url.rstrip("/")
    token = yield from _log_in(base, username, password, now=now)
    if isinstance(token, Failure):
        return Reading((), token.trouble, token.why, token.retry_after)
    found: list[Observation] = []
    stopped: Failure | None = None
    wrong: Failure | None = None
    for address, part in ((address, part) for address in addresses for part in lists):
        if stopped is None:
            url = f"{base}/api/intel/v1/byobject/{part}/listed/live/{quote(address, safe=':')}?limit={LIMIT}"
            headers = (("Authorization", f"Bearer {token}"), ("Accept", "application/json"))
            (answer,) = yield (HttpAsk(url, headers=headers, secrets=(token, password)),)
            assert isinstance(answer, HttpAnswer)
            told = _read(answer, address, now=now)
        else:
            told = stopped._replace(why=f"not asked, after {stopped.why}")
        measure = f"listed.{part.rpartition('/')[2]}"
        if isinstance(told, Failure):
            wrong = told
            stopped = stopped or (told if told.trouble in _NO_USE else None)
            found.append(Observation(FEED, address, measure, Outcome.UNKNOWN, text=told.why))
        else:
            found.append(Observation(FEED, address, measure, Outcome.OK, float(bool(told)), told))
    if wrong and (stopped or all(seen.outcome is Outcome.UNKNOWN for seen in found)):
        first = stopped or wrong
        return Reading(tuple(found), first.trouble, first.why, first.retry_after)
    return Reading(tuple(found))


_NO_USE = frozenset({Trouble.AUTHENTICATION, Trouble.REFUSED, Trouble.NETWORK})


def _log_in(base: str, username: str, password: str, *, now: float) -> Asked[Failure | str]:
    body = json.dumps({"username": username, "password": password, "realm": "intel"}).encode()
    headers = (("Content-Type", "application/json"), ("Accept", "application/json"))
    (answer,) = yield (HttpAsk(f"{base}/api/v1/login", "POST", headers, body, (password,), private=True),)
    assert isinstance(answer, HttpAnswer)
    if wrong := failure(answer, now=now):
        return wrong._replace(why=f"login: {wrong.why}")
    told = json_value(answer)
    token = told.get("token") if isinstance(told, dict) else None
    if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
        return Failure(Trouble.FORMAT, "login: no token in the answer", answer.status)
    return token


def _read(answer: HttpAnswer, address: str, *, now: float) -> Failure | str:
    """Why an address is listed; "" where it is not."""
    told = json_value(answer)
    if answer.status == 404:
        if answer.media_type == "text/html" or answer.body.lstrip().startswith(b"<"):
            return Failure(Trouble.FORMAT, "404 with a page in HTML: the interface has moved", 404)
        return ""
    if wrong := failure(answer, now=now):
        return wrong
    results = told.get("results") if isinstance(told, dict) else None
    if not isinstance(results, list) or not results or not all(isinstance(each, dict) for each in results):
        return Failure(
            Trouble.FORMAT, "an answer without results, which is neither listed nor not listed", answer.status
        )
    if not all(_is_about(each.get("ipaddress"), address) for each in results):
        return Failure(Trouble.FORMAT, "results about another address", answer.status)
    return "; ".join(dict.fromkeys(_why(each) for each in results))[:300]


def _is_about(said: Any, address: str) -> bool:
    """An entry may be of the network around it."""
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(str(said), strict=False)
    except ValueError:
        return False


def _why(entry: dict[str, Any]) -> str:
    words = [str(entry.get("dataset") or "listed"), *(str(entry[name]) for name in _REASONS if entry.get(name))]
    until = entry.get("valid_until")
    if isinstance(until, int) and 0 < until < 1 << 33:
        words.append(f"until {datetime.fromtimestamp(until, UTC):%Y-%m-%d %H:%M} UTC")
    return " ".join(words)
