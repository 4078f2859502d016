"""Google Postmaster v2: the account's domains, their daily figures, and which bulk sender requirements they meet.

Knows Google's pages, batches and tokens; what a figure or a verdict means stands beside, in google_statistics and
google_compliance.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from parsers.feeds import google_compliance, google_statistics
from parsers.feeds.asking import Asked, HttpAnswer, HttpAsk, Poll, Reading, Trouble
from parsers.feeds.google_statistics import GROUPS, PAGE_SIZE, Query, Told, Window
from parsers.feeds.http_failure import Failure, error_text, failure, json_value
from parsers.feeds.oauth import Grant, Token, read_token, token_ask
from parsers.observation import Observation, Outcome

FEED = google_statistics.FEED
ACCOUNT = "account"
"""The object of what is told of the whole account."""
BATCH_MAX = 100
LOOPS_MAX = 50
"""Feedback loops of one domain whose rates are asked for."""
_PAGES_MAX = 100
_AT_ONCE = 2
"""Requests under way: Google publishes no limit, so that we stay far below any."""
_FEW = 8
"""Requests of a refused batch from which on they are asked singly."""


class Domain(NamedTuple):
    """One of the account's."""

    name: str
    state: str
    permission: str

    @property
    def tells(self) -> bool:
        """Whether there is a point in asking about it; of a word that we do not know there is."""
        return self.state != "UNVERIFIED" and self.permission != "NONE"


def poll(
    grant: Grant,
    first: Sequence[str],
    *,
    now: float,
    base_url: str,
    wanted: Sequence[str],
    days: int,
    domains_max: int,
) -> Poll:
    """Ask all there is to know. `first`: domains that are asked about before others; `wanted`: that must be there.

    `days`: how many back, for late ones are filled in.
    """
    session = Session(grant, base_url, now)
    if wrong := (yield from session.renew()):
        return _blind(wrong)
    listed = yield from _domains(session)
    if isinstance(listed, Failure):
        if session.stopped or not wanted:
            return _blind(listed)
        found = [Observation(FEED, each, "verified", Outcome.UNKNOWN, text=listed.why) for each in wanted]
        asked = list(wanted)  # the scope of figures may be there without that of domains
    else:
        found = list(_verified(listed, wanted))
        if not listed:
            return Reading(tuple(found), Trouble.CONFIGURATION, _NO_DOMAINS)
        asked = _in_order([each.name for each in listed if each.tells], first)
        left_out = float(max(0, len(asked) - domains_max))
        found.append(Observation(FEED, ACCOUNT, "domains-left-out", Outcome.OK, left_out))
        asked = asked[:domains_max]
    window = Window.before(now, days)
    told = yield from _statistics(session, [Query(domain, group) for domain in asked for group in GROUPS], window)
    told |= yield from _statistics(session, list(_loops(told)), window)
    for query, each in told.items():
        found += google_statistics.observations(query, each, window)
    found += _ages(told, window, now=now)
    found += yield from _compliance(session, asked)
    return Reading(tuple(found), *_trouble(told))


_NO_DOMAINS = "the account has no domains; add its address as a user of them in Postmaster Tools"


def _blind(wrong: Failure) -> Reading:
    return Reading((), wrong.trouble, wrong.why, wrong.retry_after)


def _trouble(told: Mapping[Query, Told]) -> tuple[Trouble | None, str, float]:
    """The feed is blind where not one figure could be read."""
    wrongs = [each.wrong for each in told.values() if each.wrong]
    if not wrongs or len(wrongs) < len(told):
        return None, "", 0.0
    first = wrongs[0]
    return first.trouble, f"no figure could be read: {first.why}", max(each.retry_after for each in wrongs)


# Questions.


class _Question(NamedTuple):
    path: str
    body: Mapping[str, Any] | None = None


class Session:
    """Asks with a token, renews it once where it is refused, and stops where asking on is of no use."""

    def __init__(self, grant: Grant, base_url: str, now: float) -> None:
        self._grant = grant
        self._base_url = base_url.rstrip("/")
        self.now = now
        self._token = ""
        self._silent = 0
        self.stopped: Failure | None = None
        """Why nothing more is asked."""

    def renew(self) -> Asked[Failure | None]:
        """Get an access token; what is wrong where there is none."""
        (answer,) = yield (token_ask(self._grant),)
        assert isinstance(answer, HttpAnswer)
        token = read_token(answer, now=self.now)
        if isinstance(token, Token):
            self._token = token.access
            return None
        self.stopped = token
        return token

    def ask(self, questions: Sequence[_Question]) -> Asked[list[Any]]:
        """Give for each question the JSON object that it was answered with, or a Failure."""
        told: list[Any] = []
        for start in range(0, len(questions), _AT_ONCE):
            some = questions[start : start + _AT_ONCE]
            if self.stopped is None:
                answers = yield from self._renewing(some)
                told += [self._read(answer) for answer in answers]
            else:
                told += [self.stopped._replace(why=f"not asked, after {self.stopped.why}")] * len(some)
        return told

    def _renewing(self, questions: Sequence[_Question]) -> Asked[list[HttpAnswer]]:
        answers = yield from self._once(questions)
        refused = [number for number, answer in enumerate(answers) if answer.status == 401]
        if refused and not (yield from self.renew()):
            again = yield from self._once([questions[number] for number in refused])
            for number, answer in zip(refused, again, strict=True):
                answers[number] = answer
        return answers

    def _once(self, questions: Sequence[_Question]) -> Asked[list[HttpAnswer]]:
        got = yield tuple(self._http(question) for question in questions)
        return [answer for answer in got if isinstance(answer, HttpAnswer)]

    def _http(self, question: _Question) -> HttpAsk:
        headers = (("Authorization", f"Bearer {self._token}"), ("Accept", "application/json"))
        url, secrets = f"{self._base_url}/{question.path}", (self._token, *self._grant.secrets)
        if question.body is None:
            return HttpAsk(url, headers=headers, secrets=secrets)
        body = json.dumps(question.body).encode()
        return HttpAsk(url, "POST", (*headers, ("Content-Type", "application/json")), body, secrets)

    def _read(self, answer: HttpAnswer) -> Any:
        wrong = failure(answer, now=self.now)
        if wrong is None:
            told = json_value(answer)
            self._silent = 0
            if isinstance(told, dict) and "error" not in told:
                return told
            words = error_text(answer) or "no JSON object in the answer"
            wrong = Failure(Trouble.FORMAT, words, answer.status)
        self._silent = self._silent + 1 if wrong.trouble is Trouble.NETWORK else 0
        if wrong.status in {401, 429} or self._silent >= 3 or (wrong.status == 403 and _lacks_scope(wrong)):
            self.stopped = wrong
        return wrong


def _lacks_scope(wrong: Failure) -> bool:
    return "authentication scope" in wrong.why.lower()


# The account's domains.


def _domains(session: Session) -> Asked["list[Domain] | Failure"]:
    """All pages; Google's order is not the same twice, so that a domain may come twice."""
    found: dict[str, Domain] = {}
    page = ""
    for _ in range(_PAGES_MAX):
        query = {"pageSize": str(PAGE_SIZE)} | ({"pageToken": page} if page else {})
        (told,) = yield from session.ask([_Question(f"v2/domains?{urlencode(query)}")])
        if isinstance(told, Failure):
            if _lacks_scope(told):
                session.stopped = None  # of this half alone
            return told
        listed = told.get("domains", [])
        if not isinstance(listed, list) or not all(_is_domain(each) for each in listed):
            return Failure(Trouble.FORMAT, "a list of domains that we cannot read")
        for each in listed:
            name = each["name"].removeprefix("domains/").lower()
            found[name] = Domain(name, str(each.get("verificationState", "")), str(each.get("permission", "")))
        page = str(told.get("nextPageToken") or "")
        if not page:
            return list(found.values())
    return Failure(Trouble.FORMAT, f"more than {_PAGES_MAX} pages of domains")


def _is_domain(told: Any) -> bool:
    name = told.get("name") if isinstance(told, dict) else None
    return isinstance(name, str) and name.startswith("domains/") and len(name) > len("domains/")


def _verified(listed: Sequence[Domain], wanted: Iterable[str]) -> Iterator[Observation]:
    for domain in listed:
        yield _judged(domain.name, "verified", domain.state, {"VERIFIED": 1.0, "UNVERIFIED": 0.0})
        yield _judged(domain.name, "permission", domain.permission, {"OWNER": 1.0, "READER": 1.0, "NONE": 0.0})
    for name in {each.lower() for each in wanted} - {domain.name for domain in listed}:
        yield Observation(FEED, name, "verified", Outcome.OK, 0.0, "not among the account's domains")


def _judged(domain: str, measure: str, word: str, known: Mapping[str, float]) -> Observation:
    if word in known:
        return Observation(FEED, domain, measure, Outcome.OK, known[word], word)
    return Observation(FEED, domain, measure, Outcome.UNKNOWN, text=f"a word we do not know: {word[:100]!r}")


def _in_order(domains: Iterable[str], first: Sequence[str]) -> list[str]:
    place = {domain.lower(): number for number, domain in enumerate(first)}
    return sorted(domains, key=lambda domain: (place.get(domain, len(place)), domain))


# Figures.


class _Page(NamedTuple):
    entries: tuple[Any, ...]
    next: str


class _Refused(NamedTuple):
    """One item of a batch; `code` is that of google.rpc."""

    code: int
    why: str


_INVALID_ARGUMENT = 3
_FINAL = {5: Trouble.CONFIGURATION, 7: Trouble.AUTHENTICATION}
"""NOT_FOUND and PERMISSION_DENIED: asking singly says the same."""


def _statistics(session: Session, queries: Sequence[Query], window: Window) -> Asked[dict[Query, Told]]:
    told: dict[Query, Told] = {}
    for start in range(0, len(queries), BATCH_MAX):
        some = queries[start : start + BATCH_MAX]
        firsts = yield from _batch(session, some, window)
        for query in some:
            told[query] = yield from _complete(session, query, window, firsts.get(query))
    return told


def _batch(session: Session, queries: Sequence[Query], window: Window) -> Asked[dict[Query, "_Page | _Refused"]]:
    """Ask for many at once; what is not in the result is to be asked singly.

    One domain that is not ours may refuse them all: then by halves, so that the rest is still asked together.
    """
    if len(queries) <= _FEW:
        return {}
    items = [{"parent": f"domains/{each.domain}", **google_statistics.body(each, window)} for each in queries]
    (told,) = yield from session.ask([_Question("v2/domainStats:batchQuery", {"requests": items})])
    if isinstance(told, Failure):
        if told.status not in {400, 403} or session.stopped:
            return {}
        half = len(queries) // 2
        found = yield from _batch(session, queries[:half], window)
        return found | (yield from _batch(session, queries[half:], window))
    results = told.get("results")
    if not isinstance(results, list) or len(results) != len(queries):
        return {}  # whose answer is whose is not to be guessed
    pairs = zip(queries, results, strict=True)
    return {query: read for query, result in pairs if (read := _item(result)) is not None}


def _item(result: Any) -> _Page | _Refused | None:
    if not isinstance(result, dict):
        return None
    error = result.get("error")
    if isinstance(error, dict):
        return _Refused(error.get("code", 0), f"rpc code {error.get('code')}: {str(error.get('message', ''))[:200]}")
    return _page(result.get("response"))


def _page(told: Any) -> _Page | None:
    entries = told.get("domainStats", []) if isinstance(told, dict) and "error" not in told else None
    return _Page(tuple(entries), str(told.get("nextPageToken") or "")) if isinstance(entries, list) else None


def _complete(session: Session, query: Query, window: Window, first: _Page | _Refused | None) -> Asked[Told]:
    """Follow an answer to its last page; ask singly where the batch gave none."""
    if isinstance(first, _Refused) and first.code in _FINAL:
        return Told({}, Failure(_FINAL[first.code], first.why))
    listed = isinstance(first, _Refused) and first.code == _INVALID_ARGUMENT
    page: _Page | Failure
    if isinstance(first, _Page):
        page = first
    else:
        page = yield from _single(session, query, window, listed=listed)
        if isinstance(page, Failure) and page.status == 400 and not listed:
            listed = True
            page = yield from _single(session, query, window, listed=True)
    entries: list[Any] = []
    pages: set[str] = set()
    while isinstance(page, _Page):
        entries += page.entries
        if not page.next:
            return Told(google_statistics.values(query, entries, window))
        if page.next in pages or len(pages) == _PAGES_MAX:
            page = Failure(Trouble.FORMAT, "pages without end")
        else:
            pages.add(page.next)
            page = yield from _single(session, query, window, listed=listed, token=page.next)
    return Told(google_statistics.values(query, entries, window), page)


def _single(
    session: Session, query: Query, window: Window, *, listed: bool, token: str = ""
) -> Asked["_Page | Failure"]:
    body = google_statistics.body(query, window, listed=listed, page=token)
    path = f"v2/domains/{quote(query.domain, safe='')}/domainStats:query"
    (told,) = yield from session.ask([_Question(path, body)])
    if isinstance(told, Failure):
        return told
    return _page(told) or Failure(Trouble.FORMAT, "statistics that we cannot read")


def _loops(told: Mapping[Query, Told]) -> Iterator[Query]:
    """What to ask next: the rates of the feedback loops that were named."""
    for query, each in told.items():
        if names := google_statistics.loop_names(each)[:LOOPS_MAX]:
            yield Query(query.domain, google_statistics.loops(names))


def _ages(told: Mapping[Query, Told], window: Window, *, now: float) -> Iterator[Observation]:
    by_domain: dict[str, dict[Query, Told]] = {}
    for query, each in told.items():
        by_domain.setdefault(query.domain, {})[query] = each
    for domain, theirs in by_domain.items():
        yield google_statistics.data_age(domain, theirs, window, now=now)


# Requirements.


def _compliance(session: Session, domains: Sequence[str]) -> Asked[list[Observation]]:
    """Of a subdomain Google also tells about the registrable domain, which has its own answer if it is asked about."""
    answers = yield from session.ask([_Question(f"v2/domains/{quote(d, safe='')}/complianceStatus") for d in domains])
    asked = frozenset(domains)
    found: dict[tuple[str, str], Observation] = {}
    for domain, told in zip(domains, answers, strict=True):
        if isinstance(told, Failure):
            seen = google_compliance.unread(domain, told.why)
        else:
            seen = google_compliance.observations(domain, told)
        found |= {
            (each.object, each.measure): each for each in seen if each.object == domain or each.object not in asked
        }
    return list(found.values())
