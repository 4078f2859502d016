"""Our own domains and addresses: which requirement is met, and that no failed look-up makes one met or unmet."""

import asyncio
import base64
import itertools
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from parsers.feeds.asking import Answer, Ask, DnsAnswer, DnsAsk, HttpAnswer, HttpAsk, Reading, Trouble
from parsers.feeds.own_authentication import FEED, MEASURES, Key, Sender, Site, poll
from parsers.feeds.own_mail import Presented, Sent
from parsers.feeds.together import together
from parsers.observation import Observation, Outcome
from policies.cadence import Cadence, Standing
from policies.conditions import CONDITIONS
from policies.figures import told
from policies.grades import State
from sidecar import own_domains
from sidecar.asking import Asking
from sidecar.config import AuthenticationConfig, Config, ConfigError, FeedsConfig, OutsideConfig, StoreConfig
from sidecar.feeds import FEEDS
from sidecar.outside_store import OutsideStore
from sidecar.rules import organizational_domain
from sidecar.scope import Scope
from tests.outside_world import Response, driven, http_server, name_server

NOW = 1_780_000_000.0
DAY = 86_400.0
OURS, OTHER = "192.0.2.10", "192.0.2.11"


def key_of(bits: int) -> str:
    public = rsa.generate_private_key(65537, bits).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return f"v=DKIM1; k=rsa; p={base64.b64encode(public.public_bytes(serialization.Encoding.DER, form)).decode()}"


STRONG, SHORT = key_of(2048), key_of(1024)
Zone = dict[tuple[str, str], list[str] | str]
POLICY = b"version: STSv1\nmode: enforce\nmx: mx.d.example\nmax_age: 86400\n"

WELL: Zone = {
    (".", "NS"): ["a.root-servers.example."],
    ("d.example", "TXT"): [f"v=spf1 ip4:{OURS} include:spf.d.example -all"],
    ("spf.d.example", "TXT"): [f"v=spf1 ip4:{OTHER} -all"],
    ("s1._domainkey.d.example", "TXT"): [STRONG],
    ("_dmarc.d.example", "TXT"): ["v=DMARC1; p=reject; rua=mailto:dmarc@d.example"],
    ("d.example", "MX"): ["10 mx.d.example."],
    ("mx.d.example", "A"): ["192.0.2.25"],
    ("10.2.0.192.in-addr.arpa", "PTR"): ["out.d.example."],
    ("11.2.0.192.in-addr.arpa", "PTR"): ["out.d.example."],
    ("out.d.example", "A"): [OURS, OTHER],
    ("_mta-sts.d.example", "TXT"): ["v=STSv1; id=1"],
    ("_smtp._tls.d.example", "TXT"): ["v=TLSRPTv1; rua=mailto:tls@d.example"],
}
SENDER = Sender("d.example", (Key("d.example", "s1"),))
SITE = Site(NOW, (OURS, OTHER), {OURS: "out.d.example", OTHER: "out.d.example"}, organizational_domain)


def answers(zone: Mapping[tuple[str, str], list[str] | str], http: HttpAnswer) -> Callable[[Ask], Answer]:
    def answer(ask: Ask) -> Answer:
        if isinstance(ask, HttpAsk):
            return http
        assert isinstance(ask, DnsAsk)
        said = zone.get((ask.name, ask.type), "NXDOMAIN")
        return DnsAnswer(said) if isinstance(said, str) else DnsAnswer("NOERROR", tuple(said))

    return answer


MAIL = Presented("d.example", (Sent("bounces.d.example", ("d.example",), 40),), mailings=40, one_click=40)
FETCHED = HttpAnswer(200, (("content-type", "text/plain"),), POLICY)


def polled(
    zone: Zone, site: Site = SITE, sender: Sender = SENDER, http: HttpAnswer = FETCHED
) -> dict[tuple[str, str], Observation]:
    reading = driven(poll(site, (sender,), inbound=(sender.domain,), mail=(MAIL,)), answers(zone, http))
    assert len({(seen.object, seen.measure) for seen in reading.observations}) == len(reading.observations)
    assert {seen.feed for seen in reading.observations} == {FEED}
    return {(seen.object, seen.measure): seen for seen in reading.observations}


def test_all_is_well() -> None:
    seen = polled(WELL)
    assert {key: each.value for key, each in seen.items()} == {
        (OURS, "requirement.DNS_RECORDS"): 1.0,
        (OURS, "helo"): 1.0,
        (OTHER, "requirement.DNS_RECORDS"): 1.0,
        (OTHER, "helo"): 1.0,
        ("d.example", "requirement.SPF"): 1.0,
        ("d.example", "spf-record"): 1.0,
        ("d.example", "spf-lookups"): 1.0,
        ("d.example", "spf-addresses"): 1.0,
        ("d.example", "requirement.DKIM"): 1.0,
        ("d.example", "dkim-key.s1"): 1.0,
        ("d.example", "dkim-key-bits.s1"): 2048.0,
        ("d.example", "dkim-key-age.s1"): 0.0,
        ("d.example", "requirement.SPF_AND_DKIM"): 1.0,
        ("d.example", "requirement.DMARC_POLICY"): 1.0,
        ("d.example", "dmarc-policy"): 2.0,
        ("d.example", "dmarc-reports"): 1.0,
        ("d.example", "requirement.DNS_RECORDS"): 1.0,
        ("d.example", "mta-sts"): 1.0,
        ("d.example", "tls-rpt"): 1.0,
        ("d.example", "requirement.DMARC_ALIGNMENT"): 1.0,
        ("d.example", "requirement.ONE_CLICK_UNSUBSCRIBE"): 1.0,
    }
    measures = {re.sub(r"\.s1$", ".SELECTOR", measure) for _, measure in seen}
    assert measures == set(MEASURES)


D, GONE = "d.example", "NXDOMAIN"
SPF, DKIM, DMARC, RECORDS = "requirement.SPF", "requirement.DKIM", "requirement.DMARC_POLICY", "requirement.DNS_RECORDS"

# What is changed in the world -> object, measure, value (None: unknown, -1: no data), words.
CHANGES: dict[str, tuple[Zone, str, str, float | None, str]] = {
    "no SPF": ({(D, "TXT"): ["x"]}, D, SPF, 0, "no SPF record: wanted TXT v=spf1"),
    "SPF without one of ours": ({("spf.d.example", "TXT"): ["v=spf1 -all"]}, D, SPF, 0, f"{OTHER} fail: wanted each"),
    "SPF, include gone": ({("spf.d.example", "TXT"): GONE}, D, SPF, 0, f"{OTHER} permerror: include:spf.d.example leads"),
    "SPF malformed": ({(D, "TXT"): ["v=spf1 ip:192.0.2.10 -all"]}, D, SPF, 0, "did you mean ip4"),
    "SPF +all": ({(D, "TXT"): ["v=spf1 +all"]}, D, SPF, 0, "lets everybody send"),
    "SPF broken DNS": ({(D, "TXT"): "SERVFAIL"}, D, SPF, None, "d.example TXT: SERVFAIL"),
    "SPF include broken DNS": ({("spf.d.example", "TXT"): "TIMEOUT"}, D, SPF, None, "spf.d.example TXT: TIMEOUT"),
    "SPF include broken DNS, counted": ({("spf.d.example", "TXT"): "TIMEOUT"}, D, "spf-lookups", None, "TIMEOUT"),
    "SPF share": ({("spf.d.example", "TXT"): ["v=spf1 -all"]}, D, "spf-addresses", 0.5, f"{OTHER} fail"),
    "SPF behind us broken": (
        {(D, "TXT"): [f"v=spf1 ip4:{OURS}/31 include:x.example -all"]}, D, "spf-record", 0, "no SPF record",
    ),
    "SPF passes though broken behind us": (
        {(D, "TXT"): [f"v=spf1 ip4:{OURS}/31 include:x.example -all"]}, D, SPF, 1, "no SPF record",
    ),
    "no key": ({("s1._domainkey.d.example", "TXT"): GONE}, D, DKIM, 0, "no key at s1._domainkey.d.example"),
    "key revoked": ({("s1._domainkey.d.example", "TXT"): ["v=DKIM1; p="]}, D, DKIM, 0, "revoked"),
    "key broken": ({("s1._domainkey.d.example", "TXT"): [STRONG[:99]]}, D, DKIM, 0, "cut off|not base64"),
    "two keys": ({("s1._domainkey.d.example", "TXT"): [STRONG, SHORT]}, D, DKIM, 0, "2 keys"),
    "key beside a word": ({("s1._domainkey.d.example", "TXT"): [STRONG, "hello"]}, D, DKIM, 1, ""),
    "key of 1024": ({("s1._domainkey.d.example", "TXT"): [SHORT]}, D, "dkim-key.s1", 1, "1024 bits, better 2048"),
    "key on trial": ({("s1._domainkey.d.example", "TXT"): [f"{STRONG}; t=y"]}, D, "dkim-key.s1", 1, "t=y"),
    "key, broken DNS": ({("s1._domainkey.d.example", "TXT"): "REFUSED"}, D, DKIM, None, "REFUSED"),
    "neither": ({(D, "TXT"): ["x"]}, D, "requirement.SPF_AND_DKIM", 0, "SPF: no SPF record"),
    "one unknown": ({(D, "TXT"): "SERVFAIL"}, D, "requirement.SPF_AND_DKIM", None, "SPF: .*SERVFAIL"),
    "no DMARC": ({("_dmarc.d.example", "TXT"): GONE}, D, DMARC, 0, "no DMARC record at _dmarc.d.example"),
    "DMARC beside another": ({("_dmarc.d.example", "TXT"): ["x", "v=DMARC1; p=none"]}, D, DMARC, 1, "nobody reports"),
    "two DMARC": ({("_dmarc.d.example", "TXT"): ["v=DMARC1; p=none"] * 2}, D, DMARC, 0, "2 DMARC records"),
    "DMARC in lower case": ({("_dmarc.d.example", "TXT"): ["v=dmarc1; p=none"]}, D, DMARC, 0, "at its begin"),
    "DMARC without p": ({("_dmarc.d.example", "TXT"): ["v=DMARC1;"]}, D, DMARC, 0, "p= is missing"),
    "DMARC broken DNS": ({("_dmarc.d.example", "TXT"): "SERVFAIL"}, D, DMARC, None, "SERVFAIL"),
    "no reports": ({("_dmarc.d.example", "TXT"): ["v=DMARC1; p=none"]}, D, "dmarc-reports", 0, "nobody reports"),
    "reports elsewhere": (
        {("_dmarc.d.example", "TXT"): ["v=DMARC1; p=none; rua=mailto:d@r.example.net"]},
        D, "dmarc-reports", 0, "wanted TXT v=DMARC1; at d.example._report._dmarc.r.example.net",
    ),
    "reports elsewhere, agreed": (
        {
            ("_dmarc.d.example", "TXT"): ["v=DMARC1; p=none; rua=mailto:d@r.example.net"],
            ("d.example._report._dmarc.r.example.net", "TXT"): ["v=DMARC1"],
        },
        D, "dmarc-reports", 1, "d@r.example.net",
    ),
    "no MX, an A": ({(D, "MX"): GONE, (D, "A"): ["192.0.2.9"]}, D, RECORDS, 1, ""),
    "no host": ({(D, "MX"): GONE}, D, RECORDS, 0, "neither MX nor A nor AAAA"),
    "null MX": ({(D, "MX"): ["0 ."]}, D, RECORDS, 0, "null MX"),
    "MX of nothing": ({("mx.d.example", "A"): GONE}, D, RECORDS, 0, "no address for the MX mx.d.example"),
    "MX of who knows": ({("mx.d.example", "A"): "SERVFAIL"}, D, RECORDS, None, "SERVFAIL"),
    "no PTR": ({("10.2.0.192.in-addr.arpa", "PTR"): GONE}, OURS, RECORDS, 0, f"{OURS} has no PTR"),
    "PTR to somewhere": ({("out.d.example", "A"): [OTHER]}, OURS, RECORDS, 0, "does not lead back"),
    "PTR broken DNS": ({("10.2.0.192.in-addr.arpa", "PTR"): "TIMEOUT"}, OURS, RECORDS, None, "TIMEOUT"),
    "PTR, forward broken DNS": ({("out.d.example", "A"): "SERVFAIL"}, OURS, RECORDS, None, "SERVFAIL"),
    "HELO elsewhere": ({("out.d.example", "A"): [OTHER]}, OURS, "helo", 0, f"out.d.example has {OTHER}, wanted {OURS}"),
    "HELO broken DNS": ({("out.d.example", "A"): "SERVFAIL"}, OURS, "helo", None, "SERVFAIL"),
    "no MTA-STS": ({("_mta-sts.d.example", "TXT"): GONE}, D, "mta-sts", -1, "no record"),
    "MTA-STS without id": ({("_mta-sts.d.example", "TXT"): ["v=STSv1;"]}, D, "mta-sts", 0, "wanted 1 to 32"),
    "MTA-STS leaves out an MX": ({(D, "MX"): ["1 b.example."]}, D, "mta-sts", 0, "leaves out the MX b.example"),
    "MTA-STS broken DNS": ({("_mta-sts.d.example", "TXT"): "SERVFAIL"}, D, "mta-sts", None, "SERVFAIL"),
    "no TLS-RPT": ({("_smtp._tls.d.example", "TXT"): GONE}, D, "tls-rpt", -1, "no record"),
    "TLS-RPT broken": ({("_smtp._tls.d.example", "TXT"): ["v=TLSRPTv1; rua=x"]}, D, "tls-rpt", 0, "wanted mailto"),
}  # fmt: skip


@pytest.mark.parametrize(("zone", "about", "measure", "value", "says"), CHANGES.values(), ids=list(CHANGES))
def test_one_change(zone: Zone, about: str, measure: str, value: float | None, says: str) -> None:
    expect(polled(WELL | zone)[about, measure], value, says)


def expect(seen: Observation, value: float | None, says: str) -> None:
    outcome = Outcome.UNKNOWN if value is None else Outcome.NO_DATA if value < 0 else Outcome.OK
    assert (seen.outcome, seen.value) == (outcome, value if outcome is Outcome.OK else None)
    assert re.search(says, seen.text)


@pytest.mark.parametrize(
    ("http", "value", "says"),
    [
        (HttpAnswer(404), 0, "answers 404, wanted 200"),
        (HttpAnswer(301, (("location", "https://x.example/"),)), 0, "redirects are not followed"),
        (HttpAnswer(200, body=b"<html>"), 0, "wanted NAME: VALUE"),
        (HttpAnswer(503), None, "503"),
        (HttpAnswer(0, error="SSLError: expired"), None, "SSLError: expired"),
    ],
)
def test_policies_over_http(http: HttpAnswer, value: float | None, says: str) -> None:
    expect(polled(WELL, http=http)[D, "mta-sts"], value, says)


def test_each_domain_may_have_addresses_of_its_own() -> None:
    site = SITE._replace(any_address=True)
    half: Zone = {("spf.d.example", "TXT"): ["v=spf1 -all"]}
    assert polled(WELL | half, site)[D, SPF].value == 1.0
    none: Zone = {(D, "TXT"): ["v=spf1 -all"]}
    assert polled(WELL | none, site)[D, SPF].value == 0.0


def test_what_is_not_known_of_us_is_no_data() -> None:
    seen = polled(WELL, Site(NOW, ()), Sender(D))
    assert seen[D, "spf-addresses"].outcome is Outcome.NO_DATA
    assert seen[D, SPF].value == 1.0  # the record alone can be judged
    expect(seen[D, DKIM], -1, "name it in outside.selectors")
    expect(seen[D, "requirement.SPF_AND_DKIM"], -1, "no key that signs is known")
    expect(polled(WELL, SITE._replace(helos={}))[OURS, "helo"], -1, "not known")
    expect(polled(WELL, SITE._replace(helos={OURS: "localhost"}))[OURS, "helo"], 0, "wanted a full name")


def test_a_subdomain_has_its_parents_policy() -> None:
    zone: Zone = {
        ("news.d.example", "TXT"): [f"v=spf1 ip4:{OURS}/31 -all"],
        ("_dmarc.d.example", "TXT"): ["v=DMARC1; p=reject; sp=none; rua=mailto:a@d.example"],
    }
    seen = polled(WELL | zone, sender=Sender("news.d.example"))
    expect(seen["news.d.example", DMARC], 1, "_dmarc.d.example: none")
    assert seen["news.d.example", "dmarc-policy"].value == 0.0


def test_the_age_of_a_key() -> None:
    (fingerprint,) = {seen.text for (_, measure), seen in polled(WELL).items() if measure == "dkim-key-bits.s1"}
    first = {(Key(D, "s1"), fingerprint): NOW - 200.5 * DAY, (Key(D, "s1"), "of before"): NOW - 900 * DAY}
    seen = polled(WELL, SITE._replace(first_seen=first))[D, "dkim-key-age.s1"]
    assert (seen.value, seen.text) == (200 * DAY, "older than 180 days: replace it")


@pytest.mark.parametrize(
    ("name", "zone", "site", "says"),
    [
        ("own-spf", {(D, "TXT"): ["x"]}, SITE, "d.example: SPF is not as receivers want it: no SPF record"),
        ("own-dkim", {("s1._domainkey.d.example", "TXT"): GONE}, SITE, "d.example: DKIM is not .*: no key at"),
        ("own-dmarc-policy", {("_dmarc.d.example", "TXT"): GONE}, SITE, "d.example: DMARC_POLICY is not .*: no DMARC"),
        ("own-dns-records", {("10.2.0.192.in-addr.arpa", "PTR"): GONE}, SITE, "192.0.2.10: DNS_RECORDS .* has no PTR"),
        ("own-helo", {}, SITE._replace(helos={OURS: "localhost"}), "192.0.2.10 greets with a name"),
        ("own-key-age", {}, SITE._replace(rotate_after=-1.0), "DKIM key s1 of d.example is older than"),
    ],
)
def test_what_alerts_come_of_it(name: str, zone: Zone, site: Site, says: str) -> None:
    (condition,) = (each for each in CONDITIONS if each.name == name)

    def bad(zone: Zone, site: Site) -> list[str]:
        figures = [told(seen, stamp=NOW) for seen in polled(zone, site).values()]
        mine = [figure for figure in figures if condition.looks_at(figure)]
        assert mine
        return [condition.say(figure) for figure in mine if condition.grade(figure).state is State.BAD]

    assert bad(WELL, SITE) == []
    (line,) = bad(WELL | zone, site)
    assert re.search(says, line)


# When nobody can say.


@pytest.mark.parametrize("said", ["NXDOMAIN", "SERVFAIL", "TIMEOUT", []])
def test_a_resolver_that_knows_nothing_is_not_believed(said: Any) -> None:
    reading = driven(poll(SITE, (SENDER,)), answers({(".", "NS"): said}, FETCHED))
    assert (reading.observations, reading.trouble) == ((), Trouble.NETWORK)


def test_without_any_answer_the_feed_is_blind() -> None:
    root = [("NS", ["a.root-servers.example."])]
    world = {(".", kind): said for kind, said in root}

    def answer(ask: Ask) -> Answer:
        assert isinstance(ask, DnsAsk)
        return DnsAnswer("NOERROR", tuple(world[ask.name, ask.type])) if ask.name == "." else DnsAnswer("SERVFAIL")

    reading = driven(poll(SITE, (SENDER,)), answer)
    assert reading.trouble is Trouble.NETWORK
    assert {seen.outcome for seen in reading.observations} == {Outcome.UNKNOWN}


BROKEN: Zone = {
    (D, "TXT"): [f"v=spf1 ip4:{OURS} include:spf.d.example -all"],
    ("spf.d.example", "TXT"): ["v=spf1 -all"],
    ("s1._domainkey.d.example", "TXT"): ["v=DKIM1; p="],
    ("_dmarc.d.example", "TXT"): GONE,
    (D, "MX"): GONE,
    ("out.d.example", "A"): [OTHER],
    ("_mta-sts.d.example", "TXT"): ["v=STSv1;"],
}


def test_no_fault_meets_or_breaks_a_requirement() -> None:
    """A thousand polls, each answer of which may fail: what is told is what is so without faults, or nothing is."""
    dice = random.Random(11)
    faults = [DnsAnswer(rcode) for rcode in ("SERVFAIL", "TIMEOUT", "REFUSED", "ERROR", "FORMERR")]
    sure = 0
    for number in range(1000):
        zone = WELL | BROKEN if number % 2 else WELL
        truth = {key: (seen.outcome, seen.value) for key, seen in polled(zone).items()}
        share, usual = dice.random(), answers(zone, FETCHED)

        def answer(ask: Ask, share: float = share, usual: Callable[[Ask], Answer] = usual) -> Answer:
            if dice.random() >= share:
                return usual(ask)
            return dice.choice(faults) if isinstance(ask, DnsAsk) else HttpAnswer(dice.choice((0, 429, 503)))

        for seen in driven(poll(SITE, (SENDER,), inbound=(D,)), answer).observations:
            sure += seen.outcome is Outcome.OK
            outcome, value = truth.get((seen.object, seen.measure), (Outcome.OK, None))
            if seen.outcome is Outcome.OK:
                assert (seen.outcome, seen.value) == (outcome, value)
            elif seen.outcome is Outcome.NO_DATA:
                assert outcome is Outcome.NO_DATA
    assert sure > 2000


def test_nothing_is_asked_twice_in_one_poll() -> None:
    asked: list[str] = []
    usual = answers(WELL, FETCHED)

    def answer(ask: Ask) -> Answer:
        assert isinstance(ask, DnsAsk)
        asked.append(f"{ask.name} {ask.type}")
        return usual(ask)

    senders = [Sender(f"d{number}.example") for number in range(100)]
    include = {(sender.domain, "TXT"): ["v=spf1 include:spf.d.example -all"] for sender in senders}
    usual = answers(WELL | include, FETCHED)
    driven(poll(SITE, senders), answer)
    assert asked.count("spf.d.example TXT") == 1


def test_side_by_side_in_any_number() -> None:
    def part(rounds: int) -> Any:
        for number in range(rounds):
            yield (DnsAsk(f"n{number}.example", zone=str(rounds)),)
        return rounds

    asking = together([part(rounds) for rounds in (2, 0, 3)])
    asked: list[Ask] = []
    asks = next(asking)
    for _ in itertools.count():
        asked += asks
        try:
            asks = asking.send(tuple(DnsAnswer("NXDOMAIN") for _ in asks))
        except StopIteration as end:
            assert [*map(int, end.value)] == [2, 0, 3]  # noqa: PT017  # it is how a generator ends
            break
    assert [ask.name for ask in asked if isinstance(ask, DnsAsk)] == ["n0.example", "n1.example", "n2.example"]


# The site's.


SELECTORS = ("s1._domainkey.D.example.",)


def configured(directory: Path, **settings: Any) -> Config:
    return Config(
        store=StoreConfig(path=str(directory)),
        outside=OutsideConfig(selectors=SELECTORS),
        feeds=FeedsConfig(authentication=AuthenticationConfig(**settings)),
    )


def test_both_feeds_with_real_servers_and_a_key_seen_before(tmp_path: Path) -> None:
    scope = Scope((OURS, OTHER), (D, "idle.d.example"), (D,), ((OURS, "out.d.example"),), (("d.example", D),))
    texts: Zone = {key: _quoted(said) if key[1] == "TXT" else said for key, said in WELL.items()}
    with http_server(lambda request: Response(200, POLICY) if "/d.example/" in request.path else None) as server:
        config = configured(tmp_path, policy_base=f"{server.url}/{{domain}}")

        async def ask(feed: str, now: float) -> Reading:
            async with name_server(texts) as (_, resolver):
                reading, _ = await Asking(resolver, backoff=0.01).poll(FEEDS[feed].poll(config, scope, now))
                return reading

        store = OutsideStore.open(tmp_path / "outside.db")
        first = asyncio.run(ask("authentication-active", NOW))
        standing = Standing().after(first, Cadence(300.0), now=NOW, dice=0.5)
        store.polled("authentication-active", standing, first.observations, (), now=NOW)
        store.close()
        later = asyncio.run(ask("authentication-active", NOW + 3 * DAY))
        others = asyncio.run(ask("authentication", NOW))
    values = {(seen.object, seen.measure): seen.value for seen in later.observations}
    assert values[D, "requirement.SPF_AND_DKIM"] == 1.0
    assert values[D, "dkim-key-age.s1"] == 3 * DAY
    assert values[OURS, "helo"] == 1.0
    assert not any(name in {"mta-sts", "idle.d.example"} for pair in values for name in pair)
    rest = {(seen.object, seen.measure): seen.value for seen in others.observations}
    assert rest[D, "mta-sts"] == 1.0
    assert rest["idle.d.example", "requirement.SPF"] == 0.0
    assert (D, "requirement.SPF") not in rest


def _quoted(said: list[str] | str) -> list[str] | str:
    """As TXT: in strings of 255 characters at most."""
    if isinstance(said, str):
        return said
    return [" ".join(f'"{text[at : at + 255]}"' for at in range(0, len(text), 255)) for text in said]


def test_nobody_sends_and_nothing_is_asked(tmp_path: Path) -> None:
    reading = driven(
        own_domains.poll(configured(tmp_path), Scope((OURS,), (D,)), NOW, active=True), answers(WELL, FETCHED)
    )
    assert reading == Reading(())


def test_keys_belong_to_those_that_sign_with_them(tmp_path: Path) -> None:
    asked: list[str] = []
    usual = answers(WELL, FETCHED)

    def answer(ask: Ask) -> Answer:
        assert isinstance(ask, DnsAsk)
        asked.append(ask.name)
        return usual(ask)

    scope = Scope((), (), ("news.d.example", "other.example"), (), (("other.example", D),))
    config = replace(configured(tmp_path), outside=OutsideConfig(("192.0.2.1",), ("other.example",), SELECTORS))
    driven(own_domains.poll(config, scope, NOW, active=True), answer)
    assert asked.count("s1._domainkey.d.example") == 1
    reading = driven(own_domains.poll(config, scope, NOW, active=True), usual)
    met = {seen.object: seen.value for seen in reading.observations if seen.measure == DKIM}
    assert met == {"news.d.example": 1.0, "other.example": 1.0}


def test_keys_that_our_signer_uses_need_no_setting(tmp_path: Path) -> None:
    scope = Scope((), (), ("news.d.example",), selectors=((D, "s1", NOW - DAY), (D, "old", NOW - 9 * DAY)))
    config = Config(store=StoreConfig(path=str(tmp_path)))
    reading = driven(own_domains.poll(config, scope, NOW, active=True), answers(WELL, FETCHED))
    assert {seen.object: seen.value for seen in reading.observations if seen.measure == DKIM} == {"news.d.example": 1.0}


@pytest.mark.parametrize(
    ("domains", "selectors", "found"),
    [
        ((), (), {D, "news.d.example", "gmail.example", "co.uk.example"}),
        (("d.example",), (), {D, "news.d.example"}),
        ((), ((D, "s1", 0.0),), {D, "news.d.example"}),
        (("gmail.example",), ((D, "s1", NOW),), {D, "news.d.example", "gmail.example"}),
    ],
)
def test_forwarded_mail_makes_no_domain_ours(
    domains: tuple[str, ...], selectors: tuple[tuple[str, str, float], ...], found: set[str]
) -> None:
    scope = Scope((), (*domains, D, "gmail.example", "co.uk.example"), ("news.d.example",), selectors=selectors)
    assert set(own_domains.own(Config(outside=OutsideConfig(domains=domains)), scope, ())) == found


@pytest.mark.parametrize("selector", ["s1", "s1.d.example", "._domainkey.d.example", "s1._domainkey.localhost"])
def test_bad_selectors(selector: str) -> None:
    with pytest.raises(ConfigError, match=r"outside\.selectors: found .*, wanted where the key is"):
        own_domains.configured_keys(Config(outside=OutsideConfig(selectors=(selector,))))
