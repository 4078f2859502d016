"""When our own authentication is believed to be broken: rows of looks, and a story from the DNS to what core holds."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.feeds.asking import Answer, Ask, DnsAnswer, DnsAsk
from parsers.observation import Observation, Outcome
from parsers.postfix import facts
from parsers.record import LogRecord
from policies.breakage import Breakages, HostRepairs, Look, Wanted
from policies.cadence import Standing
from policies.engine import Engine
from policies.fail_fast import HoldBroken
from policies.key import Key
from policies.site import Settings
from policies.subqueue import State
from sidecar import fail_fast, own_domains, own_log, postfix
from sidecar.answers import Answers
from sidecar.config import AuthenticationConfig as FeedConfig
from sidecar.config import Config, ConfigError, FeedsConfig, HoldConfig, OutsideConfig, StoreConfig
from sidecar.control import CoreUnreachable
from sidecar.core_parts import Lag, Parts
from sidecar.fail_fast import FailFastWatch
from sidecar.incident_store import IncidentStore
from sidecar.lookout import Lookout
from sidecar.outside_store import OutsideStore
from sidecar.reload import Reload
from sidecar.rows import gather
from sidecar.rules import organizational_domain
from sidecar.scope import Scope
from sidecar.store import Store
from tests.outside_world import driven
from tests.test_own_authentication import OURS, STRONG
from tests.world import RULES, World

D = "d.example"
SPF_KEY, DKIM_KEY = Key("spf-domain", D, "*"), Key("dkim-domain", D, "*")
W, B, U, N = "wbun"
_OUTCOMES = {W: (Outcome.OK, 1.0), B: (Outcome.OK, 0.0), U: (Outcome.UNKNOWN, None), N: (Outcome.NO_DATA, 1.0)}


def looked(row: str) -> Breakages:
    found = Breakages(["SPF", "DKIM"])
    for number, sign in enumerate(row):
        outcome, value = _OUTCOMES[sign]
        for _ in range(3):  # a look that is looked at again is one look
            found.seen([Look(D, "requirement.SPF", outcome, value, "gone", 100.0 * number)])
    return found


@pytest.mark.parametrize(
    ("row", "new", "when_held"),
    [
        ("wwb", False, True),
        ("wwbb", True, True),
        ("wwbub", False, True),
        ("wwbnb", False, True),
        ("wwbbu", True, True),
        ("wwbbw", False, False),
        ("wbwbwb", False, True),
        ("uuuuu", False, False),
        ("nnnnn", False, False),
        ("bb", True, True),
        ("b", False, True),
    ],
)
def test_two_answers_in_a_row(row: str, *, new: bool, when_held: bool) -> None:
    assert bool(looked(row).broken([], since=0.0)) is new
    assert bool(looked(row).broken([SPF_KEY], since=0.0)) is when_held


@pytest.mark.parametrize(
    ("row", "repaired"),
    [("bbw", False), ("bbww", True), ("bbwuw", False), ("bbwwu", True), ("bbuu", False), ("ww", True), ("w", False)],
)
def test_repaired_by_two_answers_in_a_row(row: str, *, repaired: bool) -> None:
    assert bool(looked(row).repaired([SPF_KEY], since=0.0)) is repaired
    assert looked(row).repaired([DKIM_KEY], since=0.0) == []


def test_old_looks_say_nothing() -> None:
    assert looked("bb").broken([], since=101.0) == []
    assert looked("ww").repaired([SPF_KEY], since=101.0) == []


@given(st.text("wun", max_size=40), st.text("wun", max_size=40))
def test_nothing_is_ever_broken_by_one_answer(before: str, after: str) -> None:
    found = Breakages(["SPF"])
    for number, sign in enumerate(f"{before}b{after}"):
        found.seen([Look(D, "requirement.SPF", *_OUTCOMES[sign], "", 100.0 * number)])
        assert found.broken([], since=0.0) == []


def test_one_key_of_several_keeps_all_of_it_broken() -> None:
    found = Breakages(["DKIM"])
    for at in (1.0, 2.0):
        found.seen([Look(D, f"dkim-key.{s}", Outcome.OK, float(s == "s2"), "gone", at) for s in ("s1", "s2")])
    (report,) = found.broken([], since=0.0)
    assert (report.key, report.what, report.looks, report.new) == (DKIM_KEY, "DKIM", 2, True)
    assert report.measures == ((D, "dkim-key.s1"),)
    assert found.repaired([DKIM_KEY], since=0.0) == []


def test_requirements_that_cannot_be_held_for() -> None:
    config = Config(authentication=HoldConfig(hold=True, requirements=("DMARC_ALIGNMENT",)))
    with pytest.raises(
        ConfigError, match=r"authentication\.requirements: found 'DMARC_ALIGNMENT', wanted of SPF, DKIM"
    ):
        FailFastWatch(config, cast("fail_fast.Ask", None))


def test_holding_without_looking_is_refused() -> None:
    config = Config(authentication=HoldConfig(hold=True), feeds=FeedsConfig(authentication=FeedConfig(enabled=False)))
    with pytest.raises(ConfigError, match=r"authentication\.hold: feeds\.authentication\.enabled is false"):
        FailFastWatch(config, cast("fail_fast.Ask", None))


# A story: a domain sends, its key is lost, its mail waits, the key is back, its mail leaves.

ZONE: dict[tuple[str, str], tuple[str, ...] | str] = {
    (".", "NS"): ("a.root.example.",),
    (D, "TXT"): (f"v=spf1 ip4:{OURS} -all",),
    (f"s1._domainkey.{D}", "TXT"): (STRONG,),
    (f"_dmarc.{D}", "TXT"): ("v=DMARC1; p=reject; rua=mailto:a@d.example",),
    (D, "MX"): ("10 mx.d.example.",),
    ("mx.d.example", "A"): ("192.0.2.25",),
    ("10.2.0.192.in-addr.arpa", "PTR"): ("out.d.example.",),
    ("out.d.example", "A"): (OURS,),
}


class Site:
    """Core's engine at a modelled queue, the stores, the feed and the watch, all by one clock."""

    def __init__(self, directory: Path, hold: HoldConfig) -> None:
        self.config = Config(
            store=StoreConfig(path=str(directory)), outside=OutsideConfig(addresses=(OURS,)), authentication=hold
        )
        self.zone = dict(ZONE)
        self.world = World(lambda *_: None)
        wanted = HoldBroken(hold.hold, frozenset(hold.domains))
        self.world.engine = Engine(RULES, organizational_domain, Settings(act=True, hold_broken=wanted))
        self.core = Store.open(self.config.core_database)
        self.outside = OutsideStore.open(self.config.outside_database)
        self.incidents = IncidentStore.open(self.config.outside_database)
        parts = SimpleNamespace(engine=self.world.engine)
        self.answers = Answers(cast("Parts", parts), Lag(), cast("Reload", None), lambda: None)
        self.away = False
        self.restart_outside()

    def restart_outside(self) -> None:
        self.watch = FailFastWatch(self.config, self.ask, clock=lambda: self.world.now)
        self.lookout = Lookout(self.config, self.incidents, [], ask_core=self.ask, clock=lambda: self.world.now)

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self.away:
            raise CoreUnreachable("core does not run here")
        if request["command"] == "authentication":
            return self.answers.authentication(request)
        return {"log_lag_s": 0.0}

    def poll(self) -> None:
        """One poll of the domains that send now."""
        now = self.world.now
        sends = any(fact.record.time > now - 3600 for fact in self.world.log if isinstance(fact, facts.DeliveryAttempt))
        signers, selectors = ((D, D),), ((D, "s1", now),)
        scope = Scope((OURS,), (D,), (D,) if sends else (), ((OURS, "out.d.example"),), signers, selectors)

        def answer(ask: Ask) -> Answer:
            assert isinstance(ask, DnsAsk)
            said = self.zone.get((ask.name, ask.type), "NXDOMAIN")
            return DnsAnswer(said) if isinstance(said, str) else DnsAnswer("NOERROR", said)

        reading = driven(own_domains.poll(self.config, scope, now, active=True), answer)
        standing = Standing(asked_at=now, told_at=now, since=now)
        self.outside.polled("authentication-active", standing, reading.observations, (), now=now)

    def minutes(self, number: int) -> None:
        """So many minutes of mail, of looks, and of a poll every five."""
        for minute in range(number):
            for half in range(2):
                queue_id = self.world.submit("news@d.example", [f"user{minute}-{half}@gmail.com"])
                if self.world.files[queue_id].queue != "hold":
                    self.world.say(lambda r, q=queue_id: facts.DkimSigned(r, q, D, "s1"), "opendkim")  # type: ignore[misc]
                if half == 0 and int(self.world.now // 60) % 5 == 0:
                    self.poll()
                asyncio.run(self.watch.look())
                asyncio.run(self.lookout.look())
                self.world.run(30)
                commit = gather(self.world.engine, None, now=self.world.now)
                if commit is not None:
                    self.core.commit(commit)

    @property
    def held(self) -> int:
        return sum(file.queue == "hold" for file in self.world.files.values())

    def close(self) -> None:
        for store in (self.core, self.outside, self.incidents):
            store.close()


@pytest.fixture(name="site")
def _site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    failed: list[object] = []
    monkeypatch.setattr(own_log, "look_failed", failed.append)
    site = Site(tmp_path, HoldConfig(hold=True))
    monkeypatch.setattr("time.time", lambda: site.world.now)
    site.world.engine.habits.saw("dkim-domain", D, (D,))
    site.minutes(30)
    assert site.held == 0
    yield site
    site.close()
    assert failed == []


LOST = {"DKIM": ((f"s1._domainkey.{D}", "TXT"), DKIM_KEY), "SPF": ((D, "TXT"), SPF_KEY)}


@pytest.mark.parametrize("what", LOST)
def test_a_record_is_lost_and_comes_back(site: Site, what: str) -> None:
    place, key = LOST[what]
    lost = site.world.now
    site.zone[place] = "NXDOMAIN"
    site.minutes(15)
    (incident,) = site.incidents.incidents(since=0.0)
    assert incident.opened_at - lost <= 900
    sub = site.world.engine.subqueues.get(key)
    assert sub is not None
    assert (sub.rule, sub.machine.state) == (f"authentication/{what.lower()}", State.PAUSED)
    assert D in sub.line
    site.minutes(90)  # nothing is sent any more, and it is looked at all the same
    delivered = sum(site.world.delivered.values())
    assert site.held > 150
    site.zone[place] = ZONE[place]
    site.minutes(15)
    assert sum(site.world.delivered.values()) > delivered
    site.minutes(60)
    assert site.held == 0
    assert site.world.duplicates == 0
    assert site.world.silently_lost == []
    kinds = [change.kind for _, change in site.core.changes(0, 5_000) if change.key == str(key)]
    assert kinds[0] == "opened"
    assert "ramping" in kinds
    assert site.core.broken() == []


NO_PTR = "550-5.7.25 [192.0.2.10] The IP address sending this message does not have a PTR record setup. - gsmtp"
NO_TLS = "530 5.7.0 Must issue a STARTTLS command first. - gsmtp"
HOST_KEY = Key("host", "this-host", "google")


def _told(site: Site) -> list[str]:
    return [change.kind for _, change in site.core.changes(0, 5_000) if change.key == str(HOST_KEY)]


@pytest.mark.parametrize("again", [False, True])
def test_the_name_of_an_address_is_lost_and_a_provider_refuses_until_it_is_back(site: Site, *, again: bool) -> None:
    """`again`: the outside process is started anew in between."""
    place = ("10.2.0.192.in-addr.arpa", "PTR")
    site.zone[place] = "NXDOMAIN"
    site.world.judge = lambda _, provider, __: (
        NO_PTR if provider == "google" and site.zone[place] == "NXDOMAIN" else None
    )
    site.minutes(10)
    sub = site.world.engine.subqueues.get(HOST_KEY)
    assert sub is not None
    assert (sub.rule, sub.machine.state) == ("google/ptr", State.PAUSED)
    assert NO_PTR in sub.line
    site.minutes(60)
    if again:
        site.restart_outside()
    site.minutes(30)
    assert (sub.machine.state, sub.let_out) == (State.PAUSED, 0)  # no probe, as long as we see it too
    delivered, held = sum(site.world.delivered.values()), site.held
    assert held > 150
    site.zone[place] = ZONE[place]
    site.minutes(16)
    assert sum(site.world.delivered.values()) > delivered
    site.minutes(60)
    assert site.held == 0
    assert site.world.duplicates == 0
    assert site.world.silently_lost == []
    kinds = _told(site)
    assert kinds.index("opened") < kinds.index("probing") < kinds.index("ramping")


def test_a_provider_that_alone_misses_the_name_is_asked_again_by_a_probe(site: Site) -> None:
    """What we never saw broken nobody can see repaired: half an hour, and a message is tried."""
    site.world.judge = lambda _, provider, __: NO_PTR if provider == "google" else None
    site.minutes(20)
    sub = site.world.engine.subqueues.get(HOST_KEY)
    assert sub is not None
    assert sub.let_out == 0
    site.world.judge = lambda *_: None
    site.minutes(45)
    assert site.held == 0
    assert "ramping" in _told(site)


class Postfix:
    """What postconf would tell; may fail."""

    def __init__(self, level: str) -> None:
        self.level = level
        self.fails = False
        self.asked = 0

    def instances(self, directory: Path) -> list[SimpleNamespace]:
        self.asked += 1
        if self.fails:
            raise postfix.PostfixError("postconf: exit status 1")
        return [SimpleNamespace(name=name, config_directory=directory / name) for name in ("-", "out")]

    def parameters(self, directory: Path, *_: str) -> dict[str, str]:
        return {"smtp_tls_security_level": self.level if directory.name == "out" else ""}


def test_tls_is_switched_off_and_a_provider_refuses_until_it_is_on(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Postfix("none")
    monkeypatch.setattr(postfix, "instances", ours.instances)
    monkeypatch.setattr(postfix, "parameters", ours.parameters)
    monkeypatch.setattr(postfix, "service_settings", lambda *_, **__: {"smtp/unix/smtp_bind_address": "192.0.2.10"})
    site.minutes(5)
    assert ours.asked == 0  # nobody waits for it
    site.world.judge = lambda _, provider, __: NO_TLS if provider == "google" and ours.level == "none" else None
    site.minutes(60)
    sub = site.world.engine.subqueues.get(HOST_KEY)
    assert sub is not None
    assert (sub.rule, sub.machine.state, sub.let_out) == ("google/starttls-first", State.PAUSED, 0)
    ours.fails = True
    site.minutes(20)
    assert (sub.machine.state, sub.let_out) == (State.PAUSED, 0)  # postconf fails: neither news is good news
    ours.fails = False
    site.minutes(5)
    ours.level = "may"
    site.minutes(1)
    assert sub.let_out == 0  # smtp(8) processes of before may live for a while
    site.minutes(4)
    assert sub.let_out > 0
    site.minutes(60)
    assert site.held == 0
    assert site.world.duplicates == 0
    assert site.world.silently_lost == []
    kinds = _told(site)
    assert kinds.index("opened") < kinds.index("probing") < kinds.index("ramping")
    asked = ours.asked
    site.minutes(5)
    assert ours.asked == asked


@pytest.mark.parametrize(
    ("values", "level"),
    [
        ({}, "none"),
        ({"smtp_tls_security_level": "", "smtp_use_tls": "no", "smtp_enforce_tls": "no"}, "none"),
        ({"smtp_tls_security_level": "none", "smtp_use_tls": "yes"}, "none"),
        ({"smtp_tls_security_level": "Dane"}, "dane"),
        ({"smtp_use_tls": "yes"}, "may"),
        ({"smtp_use_tls": "yes", "smtp_enforce_tls": "yes"}, "encrypt"),
    ],
)
def test_the_level_that_postfix_works_with(values: dict[str, str], level: str) -> None:
    assert fail_fast.tls_level(values) == level


@pytest.mark.parametrize(
    ("levels", "told"),
    [("bb", "still"), ("b", ""), ("bbw", ""), ("bbwwww", ""), ("bbwwwww", "well"), ("wwwwww", ""), ("bbu", "still")],
)
def test_when_tls_counts_as_broken_and_as_well_again(levels: str, told: str) -> None:
    found, waiting = HostRepairs(), {HOST_KEY: Wanted("infrastructure.tls", NO_TLS)}
    said: tuple[list[Key], list[Key]] = ([], [])
    for number, sign in enumerate(levels):
        outcome, value = _OUTCOMES[sign]
        found.seen([Look("postfix", "smtp-tls", outcome, value, "", 30.0 * number)])
        said = found.judged(waiting, since=0.0)
    assert said == ([HOST_KEY] if told == "still" else [], [HOST_KEY] if told == "well" else [])


@pytest.mark.parametrize(
    ("line", "still"),
    [
        ("[192.0.2.10] has no PTR", True),
        ("our 192.0.2.10.", True),
        ("[192.0.2.1] has no PTR", False),
        ("[192.0.2.11] has no PTR", False),
        ("[2001:db8::7] has no PTR", False),
        ("your address has no PTR", True),
        ("[198.51.100.9] has no PTR", True),
    ],
)
def test_only_the_address_that_a_provider_names_is_waited_for(line: str, *, still: bool) -> None:
    found, waiting = HostRepairs(), {HOST_KEY: Wanted("authentication.ptr", line)}
    for at in (1.0, 2.0):
        values = {"192.0.2.10": 0.0, "192.0.2.1": 1.0, "192.0.2.11": 1.0, "2001:db8::7": 1.0}
        found.seen([Look(each, "requirement.DNS_RECORDS", Outcome.OK, value, "", at) for each, value in values.items()])
    assert found.judged(waiting, since=0.0) == ([HOST_KEY] if still else [], [])


@pytest.mark.parametrize("rcode", ["SERVFAIL", "TIMEOUT", "REFUSED"])
def test_no_answer_holds_nothing(site: Site, rcode: str) -> None:
    for place in site.zone:
        site.zone[place] = rcode
    site.minutes(60)
    assert site.held == 0
    assert site.core.broken() == []


def test_a_resolver_that_answers_that_nothing_exists_is_not_believed(site: Site) -> None:
    site.zone.clear()
    site.minutes(60)
    assert site.held == 0


def test_the_outside_process_is_started_anew_while_mail_is_held(site: Site) -> None:
    site.zone[f"s1._domainkey.{D}", "TXT"] = "NXDOMAIN"
    site.minutes(15)
    held = site.held
    for _ in range(6):
        site.restart_outside()
        site.minutes(10)
    assert site.held == held + 120
    site.zone[f"s1._domainkey.{D}", "TXT"] = (STRONG,)
    site.restart_outside()
    site.minutes(60)
    assert site.held == 0


def test_the_outside_process_is_gone_and_mail_is_tried_after_half_an_hour(site: Site) -> None:
    site.zone[f"s1._domainkey.{D}", "TXT"] = "NXDOMAIN"
    site.minutes(15)
    assert site.held > 0
    site.away = True
    site.minutes(45)
    assert site.held == 0


def test_one_look_and_a_second_that_finds_it_well(site: Site) -> None:
    site.zone[f"s1._domainkey.{D}", "TXT"] = "NXDOMAIN"
    site.minutes(4)
    site.zone[f"s1._domainkey.{D}", "TXT"] = (STRONG,)
    site.minutes(30)
    assert site.held == 0
    assert not [change for _, change in site.core.changes(0, 5_000) if change.kind == "opened"]


def test_without_the_setting_it_is_an_incident_and_nothing_else(tmp_path: Path) -> None:
    site = Site(tmp_path, HoldConfig())
    site.minutes(30)
    site.zone[f"s1._domainkey.{D}", "TXT"] = "NXDOMAIN"
    site.minutes(15)
    assert not site.watch.wanted
    assert site.held == 0
    assert len(site.incidents.incidents(since=0.0)) == 1
    site.close()


def test_what_was_never_well_did_not_break(tmp_path: Path) -> None:
    site = Site(tmp_path, HoldConfig(hold=True))
    site.zone[D, "TXT"] = ("no SPF here",)
    site.minutes(60)
    assert site.held == 0
    site.close()


def test_where_nearly_all_breaks_at_once_it_is_our_view(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "sidecar")
    names = [f"d{number}.example" for number in range(5)]
    record = LogRecord(1e9, "mx", "postfix", "", "opendkim", 1, "")
    now, said = 1e9, dict[str, Any]()
    config = Config(store=StoreConfig(path=str(tmp_path)), authentication=HoldConfig(hold=True))
    engine = Engine(RULES, organizational_domain, Settings(act=True))
    for name in names:
        engine.observe(facts.DkimSigned(record, "4Q1z", name, "s1"), now=now)
    commit = gather(engine, None, now=now)
    assert commit is not None
    core, outside = Store.open(config.core_database), OutsideStore.open(config.outside_database)
    core.commit(commit)

    async def ask(request: dict[str, Any]) -> dict[str, Any]:
        said.update(request)
        return {"broken": [], "waiting": {}}

    watch = FailFastWatch(config, ask, clock=lambda: now)
    for broken, told in ((0, 0), (0, 0), (3, 0), (3, 3), (5, 3), (5, 0)):
        now += 300.0
        values = [float(number >= broken) for number in range(5)]
        seen = [
            Observation("authentication", n, "dkim-key.s1", Outcome.OK, v) for n, v in zip(names, values, strict=True)
        ]
        outside.polled("authentication-active", Standing(asked_at=now), seen, (), now=now)
        said.clear()
        asyncio.run(watch.look())
        assert len(said.get("broken", ())) == told
    assert "5 of our domains' records seem broken at once" in caplog.text
    core.close()
    outside.close()
