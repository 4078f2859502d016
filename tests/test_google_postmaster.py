"""Google Postmaster against a Google of our own: pages, batches, tokens, and that no fault makes a figure."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from parsers.feeds import google_compliance, google_postmaster, google_postmaster_v1
from parsers.feeds.asking import Ask, HttpAsk, Poll, Reading, Trouble
from parsers.feeds.google_statistics import GROUPS
from parsers.feeds.oauth import Grant, refresh_grant
from parsers.observation import Observation, Outcome
from sidecar import mx
from sidecar.asking import Asking
from sidecar.config import Config, ConfigError, FeedsConfig, GooglePostmasterConfig, StoreConfig
from sidecar.credentials import google_grant
from sidecar.feeds import FEEDS
from sidecar.outside_store import RawAnswer
from sidecar.scope import Scope
from tests.google_world import NOW, TODAY, Google, figure, refusal, reply, without_sockets
from tests.outside_world import Request, Response, driven, http_server

SECRETS: dict[str, str] = {"client_id": "id", "secret": "se cret", "refresh_token": "r+1"}
GRANT = refresh_grant("http://google.example/token", **SECRETS)
FIGURES = {metric.measure: metric for group in GROUPS for metric in group.metrics}


def feed(grant: Grant = GRANT, **settings: Any) -> Poll:
    usual: dict[str, Any] = {
        "first": (),
        "wanted": (),
        "now": NOW,
        "days": 7,
        "domains_max": 1000,
        "base_url": "http://google.example",
        **settings,
    }
    return google_postmaster.poll(grant, **usual)


def polled(google: Google, **settings: Any) -> Reading:
    return driven(feed(**settings), without_sockets(google.answer))


def newest(reading: Reading, domain: str = "example.com") -> dict[str, Observation]:
    """The last of each measure, as the store keeps it."""
    return {seen.measure: seen for seen in reading.observations if seen.object == domain}


def true(seen: Observation) -> float:
    metric = FIGURES[seen.measure]
    day = datetime.fromtimestamp(seen.at, UTC).date()
    number = figure(seen.object, metric.standard, metric.filter, day, 1000)
    return float(number) if metric.standard.endswith("COUNT") else number / 1000


# What is told.


def test_a_poll() -> None:
    reading = polled(Google(), wanted=("example.com", "lost.example"))
    assert reading.trouble is None
    told = newest(reading)
    assert told["spam"].value == true(told["spam"])
    assert told["spam"].at == (datetime(2026, 11, 19, tzinfo=UTC)).timestamp()
    assert {seen.measure for seen in reading.observations} >= FIGURES.keys()
    assert told["fbl-ids"].value == 2
    assert told["fbl-spam.cust42"].value == 0.004
    assert told['fbl-spam.odd "one"\\'].value == 0.0
    assert told["data-age"].value == NOW - told["spam"].at
    assert (told["verified"].value, told["verified"].text, told["permission"].value) == (1.0, "VERIFIED", 1.0)
    assert newest(reading, "lost.example")["verified"].value == 0.0
    assert newest(reading, "account")["domains-left-out"].value == 0.0


def test_every_figure_of_every_day_is_the_true_one() -> None:
    seen = [
        each
        for each in polled(Google(page_max=7)).observations
        if each.measure in FIGURES and each.measure != "fbl-ids"
    ]
    assert {each.outcome for each in seen} == {Outcome.OK}
    assert all(each.value == true(each) for each in seen)
    assert Counter(each.measure for each in seen) == dict.fromkeys(set(FIGURES) - {"fbl-ids"}, 5)  # 7 days, 2 missing
    assert [each.at for each in seen if each.measure == "spam"] == sorted(
        each.at for each in seen if each.measure == "spam"
    )


@pytest.mark.parametrize(
    "settings",
    [{"float_value": True}, {"page_max": 1}, {"days_max": 3}, {"uses_of_a_token": 1}, {"token_seconds": 1}],
    ids=str,
)
def test_the_same_is_told_by_a_google_of_another_kind(settings: dict[str, Any]) -> None:
    assert set(polled(Google(**settings)).observations) == set(polled(Google()).observations)


def test_a_missing_day_is_no_zero() -> None:
    told = newest(polled(Google(days_missing=frozenset(range(30)))))
    assert {told[measure].outcome for measure in (*FIGURES, "data-age")} == {Outcome.NO_DATA}


def test_a_figure_is_as_old_as_its_day() -> None:
    told = newest(polled(Google(days_missing=frozenset({1, 2, 3, 4, 5}))))
    assert told["data-age"].value == 6 * 86400 + 10 * 3600
    assert told["data-age"].text == f"newest day: {TODAY - timedelta(days=6)}"


MANY = {f"d{number}.example": ("VERIFIED", "OWNER") for number in range(450)}


def test_pages_of_domains_and_batches_of_figures() -> None:
    google = Google(domains=MANY, days_missing=frozenset(range(2, 30)))
    reading = polled(google)
    assert len({seen.object for seen in reading.observations if seen.measure == "spam"}) == 450
    assert max(google.batches) == 100
    assert len(google.batches) == 450 * 7 // 100 + 1 + 5  # and a round for the feedback loops


def test_the_busiest_domains_come_first() -> None:
    google = Google(domains=MANY, days_missing=frozenset(range(30)))
    reading = polled(google, first=("d449.example", "D7.example"), domains_max=2)
    assert {seen.object for seen in reading.observations if seen.measure == "spam"} == {"d449.example", "d7.example"}
    assert newest(reading, "account")["domains-left-out"].value == 448


@pytest.mark.parametrize(
    ("state", "permission", "verified", "permitted", "asked"),
    [
        ("VERIFIED", "READER", 1.0, 1.0, True),
        ("UNVERIFIED", "OWNER", 0.0, 1.0, False),
        ("VERIFIED", "NONE", 1.0, 0.0, False),
        ("VERIFIED_BY_MAGIC", "OWNER", None, 1.0, True),
        ("VERIFICATION_STATE_UNSPECIFIED", "PERMISSION_UNSPECIFIED", None, None, True),
    ],
)
def test_domains(state: str, permission: str, verified: float | None, permitted: float | None, *, asked: bool) -> None:
    told = newest(polled(Google(domains={"example.com": (state, permission)})))
    assert (told["verified"].value, told["permission"].value, "spam" in told) == (verified, permitted, asked)


# Requirements.

COMPLIANCE = {
    "name": "domains/mail.example.com/complianceStatus",
    "complianceData": {
        "domainId": "example.com",
        "rowData": [
            {"requirement": "SPF", "status": {"status": "COMPLIANT"}},
            {"requirement": "USER_REPORTED_SPAM_RATE", "status": {"status": "NEEDS_WORK"}},
            {"requirement": "DKIM", "status": {"status": "STATE_UNSPECIFIED"}},
            {"requirement": "NEW_ONE", "status": {"status": "ALMOST"}},
        ],
        "oneClickUnsubscribeVerdict": {"status": {"status": "NEEDS_WORK"}, "reason": "NO_UNSUB_GENERAL"},
        "honorUnsubscribeVerdict": {"status": {"status": "COMPLIANT"}, "reason": "REASON_UNSPECIFIED"},
    },
    "subdomainComplianceData": {
        "domainId": "mail.example.com",
        "rowData": [{"requirement": "SPF", "status": {"status": "COMPLIANT"}}],
    },
}


def test_compliance() -> None:
    google = Google(domains={"mail.example.com": ("VERIFIED", "OWNER")}, compliance={"mail.example.com": COMPLIANCE})
    reading = polled(google)
    told = {name: (seen.outcome.value, seen.value, seen.text) for name, seen in newest(reading).items()}
    assert told == {
        "compliance.SPF": ("ok", 1.0, ""),
        "compliance.USER_REPORTED_SPAM_RATE": ("ok", 0.0, ""),
        "compliance.DKIM": ("no_data", None, "no verdict"),
        "compliance.NEW_ONE": ("unknown", None, "a status we do not know: ALMOST"),
        "compliance.ONE_CLICK_UNSUBSCRIBE": ("ok", 0.0, "NO_UNSUB_GENERAL"),
        "compliance.HONOR_UNSUBSCRIBE": ("ok", 1.0, ""),
        "compliance": ("ok", 0.0, "USER_REPORTED_SPAM_RATE, ONE_CLICK_UNSUBSCRIBE"),
    }
    assert newest(reading, "mail.example.com")["compliance"].value == 1.0


def _status(**parts: Any) -> dict[str, Any]:
    return {"name": "domains/example.com/complianceStatus", "complianceData": {"domainId": "example.com", **parts}}


ODD = [
    ({}, "no_data"),
    ({"name": "domains/other.example/complianceStatus"}, "unknown"),
    (_status(), "no_data"),
    (_status(rowData=[]), "no_data"),
    (_status(rowData="SPF"), "no_data"),
    (_status(rowData=[{"requirement": "SPF", "status": "COMPLIANT"}]), "no_data"),
    (_status(rowData=[{"requirement": "SPF", "status": {"status": "COMPLIANT"}}, None, {}]), "ok"),
    (_status(rowData=[{"requirement": "SPF", "status": {"status": "compliant"}}]), "unknown"),
    (_status(rowData=[{"requirement": "<b>", "status": {"status": "NEEDS_WORK"}}]), "no_data"),
    ({"complianceData": []}, "unknown"),
    ([], "unknown"),
    (None, "unknown"),
]


@pytest.mark.parametrize(("told", "outcome"), ODD, ids=str)
def test_odd_compliance(told: Any, outcome: str) -> None:
    seen = {each.measure: each for each in google_compliance.observations("example.com", told)}
    assert seen["compliance"].outcome.value == outcome


# Values.


VALUES = [
    ({"doubleValue": 0.25}, 0.25, None),
    ({"doubleValue": 0}, 0.0, None),
    ({"floatValue": 0.25}, 0.25, None),
    ({"intValue": "1"}, 1.0, None),
    ({"doubleValue": 1.0001}, None, "not a ratio of 0 to 1: 1.0001; has its unit changed?"),
    ({"doubleValue": 25}, None, "not a ratio of 0 to 1: 25; has its unit changed?"),
    ({"doubleValue": -0.1}, None, "not a number: {"),
    ({"doubleValue": "NaN"}, None, "not a number: {"),
    ({"doubleValue": "Infinity"}, None, "not a number: {"),
    ({"doubleValue": True}, None, "not a number: {"),
    ({"doubleValue": None}, None, "not a number: {"),
    ({"stringValue": "0.25"}, None, "not a number: {"),
    ({"stringList": {"values": ["a"]}}, None, "not a number: {"),
    ({}, None, "not a number: {}"),
    (0.25, None, "not a number: 0.25"),
    (None, None, "not a number: null"),
]


@pytest.mark.parametrize(("value", "number", "text"), VALUES, ids=str)
def test_values(value: Any, number: float | None, text: str | None) -> None:
    def fault(request: Request) -> Response | None:
        entry = {"metric": "m0", "date": {"year": 2026, "month": 11, "day": 18}, "value": value}
        return reply(200, {"domainStats": [entry]}) if "domainStats:query" in request.path else None

    told = newest(polled(Google(fault=fault)))
    assert told["spam"].value == number
    assert told["spam"].text.startswith(text or "")
    assert told["spam"].outcome is (Outcome.OK if text is None else Outcome.UNKNOWN)


@pytest.mark.parametrize(
    "day",
    [
        {"year": 2026, "month": 13, "day": 1},
        {"year": 2025, "month": 11, "day": 18},
        {},
        "2026-11-18",
        None,
        {"year": "x"},
    ],
    ids=str,
)
def test_a_value_of_no_day_that_was_asked_for_is_none(day: Any) -> None:
    def fault(request: Request) -> Response | None:
        entry = {"metric": "m0", "date": day, "value": {"doubleValue": 0.5}}
        return reply(200, {"domainStats": [entry]}) if "domainStats:query" in request.path else None

    assert newest(polled(Google(fault=fault)))["spam"].outcome is Outcome.UNKNOWN


def test_two_values_of_one_day_are_none() -> None:
    def fault(request: Request) -> Response | None:
        entry = {"metric": "m0", "date": {"year": 2026, "month": 11, "day": 18}}
        entries = [{**entry, "value": {"doubleValue": number}} for number in (0.1, 0.2)]
        return reply(200, {"domainStats": entries}) if "domainStats:query" in request.path else None

    assert newest(polled(Google(fault=fault)))["spam"].outcome is Outcome.UNKNOWN


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=9) | st.just("m0"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["metric", "date", "value", "doubleValue", "intValue", "stringList", "values", "year", "rowData"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(JSON, max_size=4), JSON)
def test_any_answer_is_read_or_refused(entries: list[Any], status: Any) -> None:
    def fault(request: Request) -> Response | None:
        if "domainStats:query" in request.path:
            return reply(200, {"domainStats": entries})
        return reply(200, status) if "complianceStatus" in request.path else None

    for seen in polled(Google(fault=fault)).observations:
        assert (seen.outcome is Outcome.OK) == (seen.value is not None)
        assert seen.measure not in FIGURES or seen.outcome is not Outcome.OK or seen.value >= 0  # type: ignore[operator]  # as above


def test_pages_are_full_ones() -> None:
    """Google's own size is 10, with which these figures would be many pages."""
    paths: list[str] = []
    google = Google(fault=lambda request: paths.append(request.path))
    polled(google)
    assert sum("domainStats:query" in path for path in paths) == len(GROUPS) + 1  # and the feedback loops


# Batches that fail.

TEN = {f"d{number}.example": ("VERIFIED", "OWNER") for number in range(10)}


@pytest.mark.parametrize("whole", [True, False])
def test_one_forbidden_domain_costs_no_other_one(*, whole: bool) -> None:
    google = Google(domains=TEN, forbidden=frozenset({"d3.example"}), batch_refused_whole=whole)
    reading = polled(google)
    told = {seen.object: seen.outcome for seen in reading.observations if seen.measure == "spam"}
    assert told == {name: Outcome.UNKNOWN if name == "d3.example" else Outcome.OK for name in TEN}
    assert "permission" in newest(reading, "d3.example")["spam"].text
    assert newest(reading, "d3.example")["compliance"].outcome is Outcome.UNKNOWN
    assert newest(reading, "d3.example")["data-age"].outcome is Outcome.UNKNOWN


def in_batches(change: Callable[[list[Any]], Any]) -> Callable[[Google], Callable[[Request], Response | None]]:
    """A fault that changes the results of each batch."""

    def made(honest: Google) -> Callable[[Request], Response | None]:
        def fault(request: Request) -> Response | None:
            if not request.path.startswith("/v2/domainStats:batchQuery"):
                return None
            honest.tokens = {request.headers["authorization"].removeprefix("Bearer "): 1}
            got = honest.answer(request)
            assert got is not None
            return reply(200, {"results": change(json.loads(got.body)["results"])})

        return fault

    return made


def _error(code: int) -> dict[str, Any]:
    return {"error": {"code": code, "message": "so it is"}}


BATCH_FAULTS = {
    "one item internal": in_batches(lambda results: [_error(13), *results[1:]]),
    "one item unavailable": in_batches(lambda results: [*results[:-1], _error(14)]),
    "one item bad argument": in_batches(lambda results: [_error(3), *results[1:]]),
    "one item nonsense": in_batches(lambda results: ["what", *results[1:]]),
    "one item empty": in_batches(lambda results: [{}, *results[1:]]),
    "one short": in_batches(lambda results: results[1:]),
    "one more": in_batches(lambda results: [*results, results[0]]),
    "no list": in_batches(lambda _: {"a": 1}),
    "refused": lambda _: lambda request: refusal(400, "no", "INVALID_ARGUMENT") if "batch" in request.path else None,
    "not there": lambda _: lambda request: refusal(404, "no", "NOT_FOUND") if "batch" in request.path else None,
}


@pytest.mark.parametrize("fault", BATCH_FAULTS.values(), ids=list(BATCH_FAULTS))
def test_what_a_batch_does_not_tell_is_asked_singly(
    fault: Callable[[Google], Callable[[Request], Response | None]],
) -> None:
    google = Google(domains=TEN)
    reading = polled(Google(domains=TEN, fault=fault(google)))
    assert set(reading.observations) == set(polled(Google(domains=TEN)).observations)


# Polls that fail.


def at(path: str, response: Response) -> Callable[[Request], Response | None]:
    return lambda request: response if path in request.path else None


SCOPE_LACKS = refusal(403, "Request had insufficient authentication scopes.", "PERMISSION_DENIED")
FAULTS = {
    "invalid_grant": (at("/token", reply(400, {"error": "invalid_grant"})), Trouble.AUTHENTICATION),
    "invalid_client": (at("/token", reply(401, {"error": "invalid_client"})), Trouble.AUTHENTICATION),
    "token endpoint down": (at("/token", reply(500, {"error": "internal_failure"})), Trouble.NETWORK),
    "token endpoint failing": (at("/token", reply(400, {"error": "internal_failure"})), Trouble.NETWORK),
    "token endpoint silent": (at("/token", Response(0)), Trouble.NETWORK),
    "token of nothing": (at("/token", reply(200, {})), Trouble.FORMAT),
    "token a list": (at("/token", reply(200, [])), Trouble.FORMAT),
    "token in two lines": (at("/token", reply(200, {"access_token": "a\r\nb: c"})), Trouble.FORMAT),
    "token page in HTML": (at("/token", Response(200, b"<html>")), Trouble.FORMAT),
    "every token refused": (at("/v2/", refusal(401, "expired", "UNAUTHENTICATED")), Trouble.AUTHENTICATION),
    "domains: scope lacks": (at("/v2/domains?", SCOPE_LACKS), Trouble.AUTHENTICATION),
    "all: scope lacks": (at("/v2/", SCOPE_LACKS), Trouble.AUTHENTICATION),
    "limit": (at("/v2/", refusal(429, "slow down", "RESOURCE_EXHAUSTED")), Trouble.REFUSED),
    "unavailable": (at("/v2/", refusal(503, "later", "UNAVAILABLE")), Trouble.NETWORK),
    "silent": (at("/v2/", Response(0)), Trouble.NETWORK),
    "HTML": (at("/v2/", Response(200, b"<html>log in", (("Content-Type", "text/html"),))), Trouble.FORMAT),
    "elsewhere": (at("/v2/", Response(302, b"", (("Location", "https://login.example"),))), Trouble.AUTHENTICATION),
    "no domains": (at("/v2/domains?", reply(200, {})), Trouble.CONFIGURATION),
    "domains no list": (at("/v2/domains?", reply(200, {"domains": {}})), Trouble.FORMAT),
    "domains without names": (at("/v2/domains?", reply(200, {"domains": [{}]})), Trouble.FORMAT),
    "domains without end": (at("/v2/domains?", reply(200, {"nextPageToken": "x"})), Trouble.FORMAT),
    "deep JSON": (at("/v2/", Response(200, b"[" * 100_000)), Trouble.FORMAT),
    "statistics: 403": (at("domainStats", refusal(403, "no", "PERMISSION_DENIED")), Trouble.AUTHENTICATION),
    "statistics: 429": (at("domainStats", refusal(429, "no", "RESOURCE_EXHAUSTED")), Trouble.REFUSED),
    "statistics: 503": (at("domainStats", refusal(503, "no", "UNAVAILABLE")), Trouble.NETWORK),
    "statistics: no JSON": (at("domainStats", Response(200, b"{")), Trouble.FORMAT),
    "statistics: an error with 200": (at("domainStats", reply(200, {"error": {"message": "no"}})), Trouble.FORMAT),
    "statistics: no list": (at("domainStats", reply(200, {"domainStats": "x"})), Trouble.FORMAT),
    "statistics without end": (at("domainStats", reply(200, {"nextPageToken": "x"})), Trouble.FORMAT),
    "statistics: every item forbidden": (
        at("batch", reply(200, {"results": [{"error": {"code": 7, "message": "no"}}] * 70})),
        Trouble.AUTHENTICATION,
    ),
    "400 for every filter": (at("domainStats", refusal(400, "bad filter", "INVALID_ARGUMENT")), Trouble.FORMAT),
}


@pytest.mark.parametrize(("fault", "trouble"), FAULTS.values(), ids=list(FAULTS))
def test_a_fault_tells_no_figure(fault: Callable[[Request], Response | None], trouble: Trouble) -> None:
    reading = polled(Google(domains=TEN, fault=fault))
    assert reading.trouble is trouble
    assert bool(reading.why) == (trouble is not None)
    assert [
        seen for seen in reading.observations if seen.measure in FIGURES and seen.outcome is not Outcome.UNKNOWN
    ] == []


def test_a_refusal_says_when_to_come_again_and_nothing_more_is_asked() -> None:
    paths: list[str] = []

    def fault(request: Request) -> Response | None:
        paths.append(request.path)
        if "domainStats" not in request.path:
            return None
        return Response(429, b"", (("Retry-After", "7200"),))

    reading = polled(Google(domains=TEN, fault=fault))
    assert (reading.trouble, reading.retry_after) == (Trouble.REFUSED, 7200)
    assert len(paths) == 3  # the token, the domains, and one batch


def test_without_the_scope_of_domains_the_configured_ones_are_asked_about() -> None:
    reading = polled(Google(fault=at("/v2/domains?", SCOPE_LACKS)), wanted=("example.com",))
    assert reading.trouble is None
    told = newest(reading)
    assert told["verified"].outcome is Outcome.UNKNOWN
    assert told["spam"].outcome is Outcome.OK


def test_without_the_scope_of_figures_the_domains_are_told() -> None:
    reading = polled(Google(domains=TEN, fault=at("Stat", SCOPE_LACKS)))
    assert reading.trouble is Trouble.AUTHENTICATION
    assert newest(reading, "d3.example")["verified"].value == 1.0


WORSE = [
    *(refusal(status, "so it is", "WORD") for status in (400, 401, 403, 404, 429, 500, 503)),
    Response(0),
    Response(200, b""),
    Response(200, b"<html>Sign in"),
    Response(200, b'{"domainStats": [{"metric": "m0", "date": {"year": 2026,'),
    Response(302),
    reply(200, []),
    reply(200, {"error": {"code": 13, "message": "so it is"}}),
]


def test_no_fault_makes_a_figure() -> None:
    """A thousand polls, any request of which may fail in any way: what is told is true, or nothing is told.

    Neither is a day called missing that is there.
    """
    truth = {(s.object, s.measure, s.at): s for s in polled(Google(domains=TEN, page_max=9)).observations}
    dice = random.Random(11)
    told = 0
    for number in range(1000):
        domains = TEN if number % 10 == 0 else {"d1.example": ("VERIFIED", "OWNER")}
        share = dice.random() ** 2

        def fault(_: Request, share: float = share) -> Response | None:
            return dice.choice(WORSE) if dice.random() < share else None

        google = Google(domains=dict(domains), page_max=9, batch_refused_whole=number % 2 == 0, fault=fault)
        for seen in polled(google, wanted=("d1.example",)).observations:
            if seen.outcome is not Outcome.UNKNOWN and seen.measure != "domains-left-out":
                told += 1
                assert seen == truth[seen.object, seen.measure, seen.at]
    assert told > 20_000


# Credentials, and a poll over real HTTP.


@pytest.fixture(name="key", scope="module")
def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def private(key: rsa.RSAPrivateKey) -> str:
    kind = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption()).decode()


def public(key: rsa.RSAPrivateKey) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def files(kind: str, key: rsa.RSAPrivateKey, token_uri: str) -> dict[str, str]:
    if kind == "authorized_user":
        return {
            "type": kind,
            "client_id": "id",
            "client_secret": "se cret",
            "refresh_token": "r+1",
            "token_uri": token_uri,
        }
    return {
        "type": kind,
        "client_email": "sidecar@x.example",
        "private_key_id": "k1",
        "private_key": private(key),
        "token_uri": token_uri,
    }


def configured(path: Path, **settings: Any) -> Config:
    return Config(feeds=FeedsConfig(google_postmaster=GooglePostmasterConfig(credentials=str(path), **settings)))


@pytest.mark.parametrize("kind", ["authorized_user", "service_account"])
def test_over_http_with_both_kinds_of_credentials(tmp_path: Path, key: rsa.RSAPrivateKey, kind: str) -> None:
    path = tmp_path / "google.json"
    google = Google(domains=TEN, public_key=public(key), uses_of_a_token=3)
    asking = Asking(mx.system_resolver, backoff=0.01)

    async def run(poll: Poll) -> tuple[Reading, list[RawAnswer]]:
        return await asking.poll(poll)

    with http_server(google.answer) as server:
        path.write_text(json.dumps(files(kind, key, f"{server.url}/token")))
        config = configured(path, base_url=server.url, subject="postmaster@x.example")
        poll = FEEDS["google-postmaster"].poll(config, Scope((), ("d4.example",)), NOW_OF_JWT())
        reading, raw = asyncio.run(run(poll))
    assert reading.trouble is None
    assert {seen.object for seen in reading.observations if seen.measure == "spam"} == set(TEN)
    assert not any(secret in repr(raw) for secret in ("r+1", "se cret", "ya29.", "BEGIN", "eyJ"))
    if kind == "service_account":
        assert google.granted[0]["scope"].count("https://") == 2
        assert (google.granted[0]["sub"], google.granted[0]["aud"]) == ("postmaster@x.example", f"{server.url}/token")


def NOW_OF_JWT() -> float:  # noqa: N802  # a constant, were it not for the clock
    """The library that checks the signature also checks the time."""
    return time.time()


BAD_FILES: Mapping[str, tuple[str | None, str]] = {
    "absent": (None, "cannot be read: No such file"),
    "no JSON": ("{", "not JSON"),
    "a list": ("[]", "found list, wanted a JSON object"),
    "no type": ("{}", "type: found None, wanted 'service_account' or 'authorized_user'"),
    "no token": ('{"type": "authorized_user", "client_id": "a", "client_secret": "b"}', "refresh_token: missing"),
    "no key": ('{"type": "service_account", "client_email": "a@x.example"}', "private_key: missing"),
    "no PEM": (
        '{"type": "service_account", "client_email": "a@x.example", "private_key": "x", "private_key_id": "y"}',
        "found no RSA key in PEM",
    ),
}


@pytest.mark.parametrize(("text", "says"), BAD_FILES.values(), ids=list(BAD_FILES))
def test_bad_credentials(tmp_path: Path, text: str | None, says: str) -> None:
    path = tmp_path / "google.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=f"^feeds.google_postmaster.credentials: .*{says}"):
        google_grant(configured(path), scopes=(), now=NOW)


def test_credentials_lie_with_the_stores_unless_said_otherwise(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{tmp_path}/google-postmaster.json: cannot be read"):
        google_grant(Config(store=StoreConfig(path=str(tmp_path))), scopes=(), now=NOW)


# The old interface.


def v1(google: Google) -> Reading:
    poll = google_postmaster_v1.poll(GRANT, ("example.com",), now=NOW, base_url="http://google.example", days=7)
    return driven(poll, without_sockets(google.answer))


def test_v1_tells_reputations() -> None:
    told = newest(v1(Google(v1=True)))
    assert (told["domain-reputation"].value, told["domain-reputation"].text) == (1.0, "LOW")
    assert (told["addresses.BAD"].value, told["addresses.HIGH"].value) == (3.0, 0.0)


@pytest.mark.parametrize("status", [404, 410, 501])
def test_v1_that_is_gone_is_no_trouble(status: int) -> None:
    reading = v1(Google(fault=at("/v1/", refusal(status, "gone", "NOT_FOUND"))))
    assert reading.trouble is None
    assert [(seen.measure, seen.value) for seen in reading.observations] == [("gone", 1.0)]


@pytest.mark.parametrize(
    ("fault", "trouble"),
    [
        (at("/token", reply(400, {"error": "invalid_grant"})), Trouble.AUTHENTICATION),
        (at("/v1/domains?", SCOPE_LACKS), Trouble.AUTHENTICATION),
        (at("trafficStats", refusal(403, "no", "PERMISSION_DENIED")), Trouble.AUTHENTICATION),
        (at("trafficStats", refusal(503, "no", "UNAVAILABLE")), Trouble.NETWORK),
        (at("trafficStats", Response(200, b"<html>")), Trouble.FORMAT),
        (at("trafficStats", reply(200, {"trafficStats": 1})), Trouble.FORMAT),
        (at("trafficStats", reply(200, {"nextPageToken": "x"})), Trouble.FORMAT),
    ],
)
def test_v1_faults_tell_nothing(fault: Callable[[Request], Response | None], trouble: Trouble) -> None:
    reading = v1(Google(v1=True, fault=fault))
    assert reading.trouble is trouble
    assert all(seen.outcome is Outcome.UNKNOWN for seen in reading.observations if seen.object == "example.com")


@pytest.mark.parametrize(
    ("stats", "outcome"),
    [
        ([], "no_data"),
        ([{"name": "domains/example.com/trafficStats/2026x"}], "no_data"),
        ([{"name": "domains/example.com/trafficStats/20261399"}], "no_data"),
        ([{"name": "domains/example.com/trafficStats/20261118"}], "no_data"),
        ([{"name": "domains/example.com/trafficStats/20261118", "domainReputation": "SPLENDID"}], "unknown"),
        (["x"], "no_data"),
    ],
)
def test_v1_days(stats: Any, outcome: str) -> None:
    reading = v1(Google(v1=True, fault=at("trafficStats", reply(200, {"trafficStats": stats}))))
    assert newest(reading)["domain-reputation"].outcome.value == outcome


def test_the_old_interface_is_off() -> None:
    assert not FEEDS["google-postmaster-v1"].wanted(Config())
    assert not FEEDS["google-postmaster"].wanted(Config())


def test_a_thousand_domains_cost_a_day_what_google_bears() -> None:
    """Requests of one daily poll."""
    domains = {f"d{number}.example": ("VERIFIED", "OWNER") for number in range(1000)}
    google = Google(domains=domains, days_missing=frozenset(range(2, 30)))
    asked: list[Ask] = []

    def answer(ask: Ask) -> Any:
        asked.append(ask)
        return without_sockets(google.answer)(ask)

    driven(feed(), answer)
    kinds = Counter(_kind(ask) for ask in asked)
    assert kinds == {"token": 1, "domains": 5, "batch": 70 + 10, "compliance": 1000}


def _kind(ask: Ask) -> str:
    assert isinstance(ask, HttpAsk)
    names: Iterator[str] = (name for name in ("token", "batch", "compliance", "query") if name in ask.url)
    return next(names, "domains")
