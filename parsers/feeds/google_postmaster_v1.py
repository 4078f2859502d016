"""Google Postmaster v1: the reputation of domains and addresses, which v2 does not tell any more.

Knows that v1 goes away: an answer that it is gone is news to be told once, and no fault of anybody.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from parsers.feeds.asking import Asked, HttpAnswer, HttpAsk, Poll, Reading, Trouble
from parsers.feeds.google_statistics import PAGE_SIZE, Window
from parsers.feeds.http_failure import Failure, failure, json_value
from parsers.feeds.oauth import Grant, Token, read_token, token_ask
from parsers.observation import Observation, Outcome

FEED = "google-postmaster-v1"
SCOPES = ("https://www.googleapis.com/auth/postmaster.readonly",)
GRADES = {"HIGH": 3.0, "MEDIUM": 2.0, "LOW": 1.0, "BAD": 0.0}
_GONE = frozenset({404, 410, 501})
_PAGES_MAX = 20
_DAY = re.compile(r"domains/[^/]+/trafficStats/(\d{8})")


def poll(grant: Grant, domains: Sequence[str], *, now: float, base_url: str, days: int) -> Poll:
    """Ask for the last days of each domain, after a question that tells whether v1 is still there."""
    (answer,) = yield (token_ask(grant),)
    assert isinstance(answer, HttpAnswer)
    token = read_token(answer, now=now)
    if isinstance(token, Failure):
        return _blind(token)
    there = yield from _ask(grant, token, f"{base_url.rstrip('/')}/v1/domains?pageSize=1", now=now)
    if isinstance(there, Failure) and there.status in _GONE:
        why = f"v1 is gone ({there.why}): set feeds.google_postmaster.v1 = false"
        return Reading((Observation(FEED, "account", "gone", Outcome.OK, 1.0, why),))
    if isinstance(there, Failure):
        return _blind(there)
    found = [Observation(FEED, "account", "gone", Outcome.OK, 0.0)]
    window = Window.before(now, days)
    wrong = None
    for domain in domains:
        stats = yield from _traffic(grant, token, base_url, domain, window, now=now)
        if isinstance(stats, Failure):
            wrong = stats
            found.append(Observation(FEED, domain, "domain-reputation", Outcome.UNKNOWN, text=stats.why))
            if stats.trouble in {Trouble.REFUSED, Trouble.NETWORK}:
                break
        else:
            found += _observations(domain, stats, window)
    if wrong and not any(seen.measure != "gone" and seen.outcome is not Outcome.UNKNOWN for seen in found):
        return _blind(wrong)._replace(observations=tuple(found))
    return Reading(tuple(found))


def _blind(wrong: Failure) -> Reading:
    return Reading((), wrong.trouble, wrong.why, wrong.retry_after)


def _ask(grant: Grant, token: Token, url: str, *, now: float) -> Asked[Any]:
    """A JSON object, or a Failure."""
    secrets = (token.access, *grant.secrets)
    (answer,) = yield (HttpAsk(url, headers=(("Authorization", f"Bearer {token.access}"),), secrets=secrets),)
    assert isinstance(answer, HttpAnswer)
    told = json_value(answer)
    if wrong := failure(answer, now=now):
        return wrong
    return told if isinstance(told, dict) else Failure(Trouble.FORMAT, "no JSON object in the answer", answer.status)


def _traffic(
    grant: Grant, token: Token, base_url: str, domain: str, window: Window, *, now: float
) -> Asked["list[Any] | Failure"]:
    found: list[Any] = []
    dates = {
        f"{end}Date.{part}": str(getattr(day, part))
        for end, day in (("start", window.first), ("end", window.last))
        for part in ("year", "month", "day")
    }
    page = ""
    for _ in range(_PAGES_MAX):
        query = urlencode(dates | {"pageSize": str(PAGE_SIZE)} | ({"pageToken": page} if page else {}))
        url = f"{base_url.rstrip('/')}/v1/domains/{quote(domain, safe='')}/trafficStats?{query}"
        told = yield from _ask(grant, token, url, now=now)
        if isinstance(told, Failure):
            return told
        stats = told.get("trafficStats", [])
        if not isinstance(stats, list):
            return Failure(Trouble.FORMAT, "traffic that we cannot read")
        found += stats
        page = str(told.get("nextPageToken") or "")
        if not page:
            return found
    return Failure(Trouble.FORMAT, f"more than {_PAGES_MAX} pages")


def _observations(domain: str, stats: Sequence[Any], window: Window) -> Iterator[Observation]:
    days = {at: each for each in stats if isinstance(each, dict) and (at := _begin(each.get("name"))) is not None}
    if not days:
        why = f"no day since {window.first}"
        yield Observation(FEED, domain, "domain-reputation", Outcome.NO_DATA, text=why)
    for at, each in sorted(days.items()):
        word = str(each.get("domainReputation", ""))
        if word in GRADES:
            yield Observation(FEED, domain, "domain-reputation", Outcome.OK, GRADES[word], word, at)
        else:
            outcome = Outcome.NO_DATA if word in {"", "REPUTATION_CATEGORY_UNSPECIFIED"} else Outcome.UNKNOWN
            yield Observation(FEED, domain, "domain-reputation", outcome, text=word[:100] or "none told")
        yield from _addresses(domain, each.get("ipReputations"), at)


def _addresses(domain: str, told: Any, at: float) -> Iterator[Observation]:
    """Number of addresses in each category; one that is not there has none (proto's JSON leaves out zeros)."""
    rows = {str(row.get("reputation")): row for row in told if isinstance(row, dict)} if isinstance(told, list) else {}
    for word in GRADES if rows else ():
        count = str(rows.get(word, {}).get("ipCount", "0"))
        measure = f"addresses.{word}"
        if count.isascii() and count.isdecimal():
            yield Observation(FEED, domain, measure, Outcome.OK, float(count[:12]), at=at)
        else:
            yield Observation(FEED, domain, measure, Outcome.UNKNOWN, text=f"not a number: {count[:50]}")


def _begin(name: Any) -> float | None:
    match = _DAY.fullmatch(str(name))
    try:
        return datetime.strptime(match[1], "%Y%m%d").replace(tzinfo=UTC).timestamp() if match else None
    except ValueError:
        return None
