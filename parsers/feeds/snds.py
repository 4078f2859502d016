"""Microsoft's SNDS: how Outlook.com judges our addresses' mail day by day, and which of them it blocks.

Knows two ways in, a login whose token changes with each use and links with a key, and that both expire; a table's
columns stand beside, in snds_rows.
"""

import ipaddress
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from parsers.feeds import snds_rows
from parsers.feeds.asking import Asked, HttpAnswer, HttpAsk, Keep, Kept, Poll, Reading, Trouble
from parsers.feeds.http_failure import Failure, failure
from parsers.feeds.oauth import Stored, Token, read_token, refresh_grant, token_ask, write_stored
from parsers.feeds.snds_rows import FormatError, LoginPage, Range, Row
from parsers.observation import Observation, Outcome

FEED = "snds"
ACCOUNT = "account"
"""The object of what is told of the whole account."""
LOOK_BACK = 3
"""Days: yesterday's data may appear today at any hour."""
OTHERS_MAX = 2000
"""Addresses of the account that are none of this host's: those with most mail are told about too."""
_SPARE = 120.0
"""Seconds that a token must still be good for."""


class Login(NamedTuple):
    """The way in of a person, and where it is kept."""

    stored: Stored
    path: str
    token_endpoint: str
    client_id: str
    scope: str
    base_url: str


class Links(NamedTuple):
    """The other way in: addresses with a key in them. "" where there is none."""

    data: str
    status: str


class Credential(NamedTuple):
    """What expires, and since when it counts."""

    name: str
    since: float
    needs: str
    """What a person has to do, and when."""


class Scope(NamedTuple):
    """Whose addresses, IPv4 alone; which of them the account surely sees; and when the poll began."""

    addresses: tuple[str, ...]
    networks: tuple[ipaddress.IPv4Network, ...]
    now: float

    @property
    def today(self) -> date:
        return datetime.fromtimestamp(self.now, UTC).date()


def poll(
    way: Login | Links,
    addresses: Sequence[str],
    credentials: Sequence[Credential] = (),
    *,
    now: float,
    networks: Sequence[ipaddress.IPv4Network] = (),
) -> Poll:
    """Ask for blocks and for the newest day; tell how old the credentials are, whatever becomes of the rest.

    `networks`: those that the account was granted. Of an address outside them that no answer mentions nothing is
    said: SNDS does not list as blocked what it does not show us.
    """
    scope = Scope(tuple(each for each in addresses if ipaddress.ip_address(each).version == 4), tuple(networks), now)
    ages = tuple(
        Observation(FEED, each.name, "credential-age", Outcome.OK, max(0.0, now - each.since), each.needs)
        for each in credentials
    )
    reading = yield from (_with_login(way, scope) if isinstance(way, Login) else _with_links(way, scope))
    return reading._replace(observations=(*reading.observations, *ages))


def _with_login(login: Login, scope: Scope) -> Poll:
    session = Session(login, scope.now)
    status = yield from session.ask(f"{login.base_url.rstrip('/')}/api/report/status/ip")
    if isinstance(status, Failure) and session.stopped:
        return _reading(scope, status, status)
    data = yield from _newest_day(session, login.base_url.rstrip("/"), scope, status)
    return _reading(scope, status, data)


def _newest_day(
    session: "Session", base_url: str, scope: Scope, status: "Failure | HttpAnswer"
) -> Asked["Failure | _Daily"]:
    """A day that is not yet published is 404; and some are there only with a slash at the end."""
    missing = Failure(Trouble.FORMAT, "no day")
    for back in range(1, LOOK_BACK + 1):
        day = scope.today - timedelta(days=back)
        for end in ("", "/"):
            answer = yield from session.ask(f"{base_url}/api/report/data/{day}{end}")
            if isinstance(answer, HttpAnswer):
                return _Daily(answer, day)
            if answer.status != 404:
                return answer
            missing = answer
    if isinstance(status, Failure):
        return missing  # nothing of it is there: it has moved
    return _Daily(None, scope.today - timedelta(days=1))


class _Daily(NamedTuple):
    answer: HttpAnswer | None
    """None where none of the days is published."""
    day: date | None
    """None where only the rows say."""


def _with_links(links: Links, scope: Scope) -> Poll:
    """A link that is not set is not asked, and nothing is said of it."""
    urls = [url for url in (links.status, links.data) if url]
    secrets = tuple(word for url in urls for word in _keys(url))
    got = yield tuple(HttpAsk(url, headers=_ACCEPT, secrets=secrets) for url in urls)
    answers = [_judged(answer, scope.now) for answer in got if isinstance(answer, HttpAnswer)]
    told = dict(zip(urls, answers, strict=True))
    data = told.get(links.data)
    daily = _Daily(data, None) if isinstance(data, HttpAnswer) else data
    return _reading(scope, told.get(links.status), daily)


def _keys(url: str) -> list[str]:
    query = urlsplit(url).query
    return [query, *(value for _, value in parse_qsl(query) if len(value) >= 8)]


_ACCEPT = (("Accept", "application/json, text/csv;q=0.9, */*;q=0.1"),)


def _judged(answer: HttpAnswer, now: float) -> Failure | HttpAnswer:
    return failure(answer, now=now) or answer


class Session:
    """Asks with an access token; renews it when it is old or refused, and keeps the new login before it is used."""

    def __init__(self, login: Login, now: float) -> None:
        self._login = login
        self._stored = login.stored
        self._now = now
        self._fresh = False
        self.stopped = False

    def ask(self, url: str) -> Asked[Failure | HttpAnswer]:
        old = not self._stored.access or self._stored.expires_at - self._now < _SPARE
        if old and not self._fresh and (wrong := (yield from self._renew())):
            return wrong
        answer = yield from self._once(url)
        if answer.status == 401 and not self._fresh:
            if wrong := (yield from self._renew()):
                return wrong
            answer = yield from self._once(url)
        told = _judged(answer, self._now)
        self.stopped = isinstance(told, Failure) and (told.status == 401 or told.trouble is Trouble.REFUSED)
        return told

    def _once(self, url: str) -> Asked[HttpAnswer]:
        headers = (("Authorization", f"Bearer {self._stored.access}"), *_ACCEPT)
        (answer,) = yield (HttpAsk(url, headers=headers, secrets=(self._stored.access, self._stored.refresh)),)
        assert isinstance(answer, HttpAnswer)
        return answer

    def _renew(self) -> Asked[Failure | None]:
        """The old refresh token ends with this: whether the file takes a new one is tried before."""
        wrong = yield from self._keep(self._stored)
        if wrong is None:
            grant = refresh_grant(
                self._login.token_endpoint,
                client_id=self._login.client_id,
                refresh_token=self._stored.refresh,
                scope=self._login.scope,
            )
            (answer,) = yield (token_ask(grant),)
            assert isinstance(answer, HttpAnswer)
            token = read_token(answer, now=self._now)
            if isinstance(token, Token):
                self._stored = self._stored.with_token(token, now=self._now)
                self._fresh = True
                wrong = yield from self._keep(self._stored)
            else:
                wrong = token._replace(why=f"{token.why}{_LOG_IN * (token.trouble is Trouble.AUTHENTICATION)}")
        self.stopped = wrong is not None
        return wrong

    def _keep(self, stored: Stored) -> Asked[Failure | None]:
        (kept,) = yield (Keep(self._login.path, write_stored(stored)),)
        assert isinstance(kept, Kept)
        return Failure(Trouble.CONFIGURATION, kept.error) if kept.error else None


_LOG_IN = "; a person must log in again: sidecar login snds"


# What it says.


def _reading(scope: Scope, status: Failure | HttpAnswer | None, daily: Failure | _Daily | None) -> Reading:
    """Put both parts together; where one told nothing the feed is in trouble, and the other one still tells."""
    blocks = _ranges(status) if status is not None else None
    days = _days(daily) if daily is not None else None
    found: list[Observation] = []
    if blocks is not None:
        found += _blocked(scope, blocks, days)
    if days is not None:
        found += _daily(scope, days)
    wrongs = [each for each in (blocks, days) if isinstance(each, Failure)]
    if not wrongs:
        return Reading(tuple(found))
    worst = max(wrongs, key=lambda each: each.trouble is Trouble.AUTHENTICATION)
    return Reading(tuple(found), worst.trouble, worst.why, max(each.retry_after for each in wrongs))


def _rows(answer: HttpAnswer, wanted: Sequence[str]) -> list[Row]:
    """Raises FormatError, LoginPage. Empty is "nothing" only of a table: else it is half an answer, and clears nobody."""
    if answer.media_type == "text/html":
        raise LoginPage
    if not answer.body.strip() and (answer.media_type.endswith("json") or not answer.media_type):
        raise FormatError(f"an empty answer where {'JSON' if answer.media_type else 'nothing'} was promised")
    return snds_rows.read(answer.body, wanted=wanted)


_EXPIRED = Failure(Trouble.AUTHENTICATION, "a page to log in came instead of data: the link or the login has expired")


def _ranges(status: Failure | HttpAnswer) -> Failure | list[Range]:
    if isinstance(status, Failure):
        return status
    try:
        return snds_rows.ranges(_rows(status, snds_rows.STATUS))
    except LoginPage:
        return _EXPIRED
    except FormatError as error:
        return Failure(Trouble.FORMAT, f"state of addresses: {error}")


def _blocked(scope: Scope, told: Failure | list[Range], days: "Failure | _Days | None") -> Iterator[Observation]:
    if isinstance(told, Failure):
        for each in scope.addresses:
            yield Observation(FEED, each, "blocked", Outcome.UNKNOWN, text=told.why)
        yield Observation(FEED, ACCOUNT, "blocked-addresses", Outcome.UNKNOWN, text=told.why)
        return
    seen = {address for _, address in days} if isinstance(days, Mapping) else set()
    for each in scope.addresses:
        address = ipaddress.IPv4Address(each)
        states = {entry.blocked: entry.reason for entry in told if entry.has(address)}
        if True in states:
            yield Observation(FEED, each, "blocked", Outcome.OK, 1.0, states[True])
        elif None in states:
            yield Observation(FEED, each, "blocked", Outcome.UNKNOWN, text="blocked or not: a word we do not know")
        elif states or each in seen or any(address in network for network in scope.networks):
            yield Observation(FEED, each, "blocked", Outcome.OK, 0.0)
        else:
            yield Observation(FEED, each, "blocked", Outcome.NO_DATA, text=_NOT_SEEN)
    if any(entry.blocked is None for entry in told):
        yield Observation(FEED, ACCOUNT, "blocked-addresses", Outcome.UNKNOWN, text="a word we do not know")
    else:
        number = sum(entry.last - entry.first + 1 for entry in told if entry.blocked)
        yield Observation(FEED, ACCOUNT, "blocked-addresses", Outcome.OK, float(number))


_NOT_SEEN = "nothing says that the account sees it; if it does, name its network in feeds.snds.networks"

_Days = Mapping[tuple[date, str], list[Row]]


def _days(daily: Failure | _Daily) -> Failure | _Days:
    if isinstance(daily, Failure):
        return daily
    found: defaultdict[tuple[date, str], list[Row]] = defaultdict(list)
    try:
        rows = _rows(daily.answer, snds_rows.DATA) if daily.answer is not None else []
        for address, row in snds_rows.by_address(rows):
            found[daily.day or snds_rows.day(row.get("start")), address].append(row)
    except LoginPage:
        return _EXPIRED
    except FormatError as error:
        return Failure(Trouble.FORMAT, f"daily data: {error}")
    return found


def _daily(scope: Scope, told: Failure | _Days) -> Iterator[Observation]:
    if isinstance(told, Failure):
        for address in scope.addresses:
            for measure in MEASURES:
                yield Observation(FEED, address, measure, Outcome.UNKNOWN, text=told.why)
        return
    shown = {*scope.addresses, *_busiest(scope, told)}
    for day, address in sorted(told):
        if address in shown:
            yield from _of_a_day(address, told[day, address], at=_begin(day))
    for address in sorted(set(scope.addresses) - {address for _, address in told}):
        for measure in MEASURES:
            yield Observation(
                FEED, address, measure, Outcome.NO_DATA, text="too little mail to Outlook.com, or no day yet"
            )


def _busiest(scope: Scope, told: _Days) -> list[str]:
    mail: defaultdict[str, int] = defaultdict(int)
    for (_, address), rows in told.items():
        if address not in scope.addresses:
            mail[address] += sum(snds_rows.count(row.get("recipients")) or 0 for row in rows)
    return sorted(mail, key=lambda address: (-mail[address], address))[:OTHERS_MAX]


COLOURS = {"GREEN": 0.0, "YELLOW": 1.0, "RED": 2.0}
_COUNTS = {"trap-hits": "traps", "recipients": "recipients", "rcpt-commands": "rcpt", "data-commands": "data"}
MEASURES = ("filter-result", "complaints", *_COUNTS)
_BOUND_MAX = 0.001
"""Of "less than": beyond it the bound could hide what is worth an alarm."""


def _of_a_day(address: str, rows: Sequence[Row], *, at: float) -> Iterator[Observation]:
    """Several rows of one day: the worst colour, the highest share, the sum of counts."""
    yield _colour(address, rows, at)
    yield _complaints(address, rows, at)
    for measure, column in _COUNTS.items():
        if all(column in row for row in rows):
            counts = [snds_rows.count(row[column]) for row in rows]
            known = [each for each in counts if each is not None]
            if len(known) == len(counts):
                yield Observation(FEED, address, measure, Outcome.OK, float(sum(known)), at=at)
            else:
                yield _unknown(address, measure, column, rows, at)


def _colour(address: str, rows: Sequence[Row], at: float) -> Observation:
    """A row whose colour we do not know may be the worst one."""
    words = [str(row["result"]).strip().upper() for row in rows]
    if not set(words) <= COLOURS.keys():
        return _unknown(address, "filter-result", "result", rows, at)
    worst = max(words, key=lambda word: COLOURS[word])
    return Observation(FEED, address, "filter-result", Outcome.OK, COLOURS[worst], worst, at)


def _complaints(address: str, rows: Sequence[Row], at: float) -> Observation:
    """Below a bound is 0 with the bound as text: it is no measured ratio."""
    told = [snds_rows.complaints(row["complaints"]) for row in rows]
    known = [each for each in told if each is not None and not (each.below and each.ratio > _BOUND_MAX)]
    if len(known) < len(told):
        return _unknown(address, "complaints", "complaints", rows, at)
    measured = [each.ratio for each in known if not each.below]
    if measured:
        return Observation(FEED, address, "complaints", Outcome.OK, max(measured), at=at)
    bound = max(each.ratio for each in known)
    return Observation(FEED, address, "complaints", Outcome.OK, 0.0, f"below {bound:.4g}", at)


def _unknown(address: str, measure: str, column: str, rows: Sequence[Row], at: float) -> Observation:
    said = ", ".join(str(row.get(column)) for row in rows)[:100]
    return Observation(FEED, address, measure, Outcome.UNKNOWN, text=f"a word we do not know: {said}", at=at)


def _begin(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
