"""Delisting: which procedure belongs to a listing, what a request says, and that it is written down and shown."""

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from parsers.feeds.delisting import Listing, listing, procedures_of
from parsers.feeds.dnsbl import Severity
from parsers.observation import Observation, Outcome
from policies.cadence import Standing
from policies.conditions import CONDITIONS, Alert, Turn
from policies.figures import Kind
from policies.incidents import Incidents, Surroundings
from policies.removal_request import Subject, concerning, request
from sidecar import blocklists, delist
from sidecar.cli import sidecar
from sidecar.config import Config
from sidecar.control import serve_control
from sidecar.delisting_store import Delisting, DelistingStore, asked_lately
from sidecar.incident_store import IncidentStore, Looked
from sidecar.lab.ports import free_port
from sidecar.outside_store import OutsideStore
from sidecar.scope import Scope
from tests.outside_world import name_server
from tests.test_outside import process, said

ADDRESS = "192.0.2.10"

TEXTS = [
    ("critical: SBL, DROP: see https://check.example/1: now", ("SBL", "DROP"), "see https://check.example/1: now"),
    ("error: listed", ("listed",), ""),
    ("", (), ""),
]


@pytest.mark.parametrize(("text", "sublists", "reason"), TEXTS)
def test_the_words_of_a_listing(text: str, sublists: tuple[str, ...], reason: str) -> None:
    found = listing("spamcop", text)
    assert (found.sublists, found.reason) == (sublists, reason)


WHO = [
    ("spamhaus_zen", ("SBL",), ["the owner of the network: your provider"]),
    ("spamhaus_zen", ("CSS",), ["you"]),
    ("spamhaus_zen", ("SBL", "CSS"), ["the owner of the network: your provider", "you"]),
    ("spamcop", ("listed",), ["you"]),
    ("uceprotect1", ("single address",), ["nobody"]),
    ("hostkarma", ("black",), []),
]


@pytest.mark.parametrize(("name", "sublists", "who"), WHO)
def test_who_must_ask(name: str, sublists: tuple[str, ...], who: list[str]) -> None:
    assert [each.who for each in procedures_of(delist.procedures(), Listing(name, sublists))] == who


def test_procedures_are_of_lists_and_sublists_that_there_are() -> None:
    specs = {spec.id: spec for spec in blocklists.packaged()}
    for each in delist.procedures():
        spec = specs[each.list]
        names = {*spec.codes.values(), *spec.milder.values(), *spec.bits.values(), *(one.name for one in spec.ranges)}
        assert set(each.sublists) <= names
    named = {name for each in delist.procedures() if each.list == "spamhaus_zen" for name in each.sublists}
    assert named == set(specs["spamhaus_zen"].codes.values())


def incidents_about(about: str) -> Incidents:
    known = Incidents()
    condition = next(each for each in CONDITIONS if each.name == "listed")
    alert = Alert(f"pf-rep:dnsbl:{about}:spamcop", "listed", "dnsbl-1h", about, Kind.ADDRESS, "listed.spamcop",
                  firing=True, severity=Severity.ERROR, since=1795255200.0, fired_at=1795255260.0,
                  said=f"{about} is listed by spamcop")  # fmt: skip
    around = Surroundings(("to=<secret@customer.example>",), (), ("paused domain:a.example at google",))
    known.turned(alert, Turn.FIRED, condition, now=1795255260.0, around=around)
    return known


def test_a_request_says_what_is_known_and_leaves_a_place_for_the_rest() -> None:
    incidents = concerning(incidents_about(ADDRESS).all(), ADDRESS)
    found = listing("spamcop", "error: listed: see https://list.example/why")
    subject = Subject(ADDRESS, ("mx7.example.com",), "mx7.example.com", "postmaster@example.com")
    full = request(subject, found, since=1795255200.0, note="sender closed", incidents=incidents)
    assert full.splitlines() == [
        "Subject: removal of 192.0.2.10 from spamcop",
        "",
        "Address:      192.0.2.10",
        "Reverse name: mx7.example.com",
        "Greets as:    mx7.example.com",
        "Listed as:    listed",
        "Listed since: 2026-11-21 10:00 UTC (first seen by us)",
        "Your reason:  see https://list.example/why",
        "Contact:      postmaster@example.com",
        "",
        "What was wrong, and what we changed:",
        "  sender closed",
        "",
        "From our records:",
        "  - 2026-11-21 10:00 UTC, still open: 192.0.2.10 is listed by spamcop",
        "    done: paused domain:a.example at google",
    ]
    bare = request(Subject("shop.example"), Listing("surbl"), since=0.0, note="", incidents=())
    assert "Domain:       shop.example" in bare
    assert "Greets as" not in bare
    assert "(say here what was wrong" in bare
    assert concerning(incidents_about("192.0.2.11").all(), ADDRESS) == []


# The command.


@dataclass
class Site:
    directory: Path
    config: Path

    @property
    def database(self) -> Path:
        return self.directory / "outside.db"

    def told(self, value: float, text: str = "", *, about: str = ADDRESS, name: str = "spamcop", now: float) -> None:
        store = OutsideStore.open(self.database)
        seen = Observation("dnsbl-1h", about, f"listed.{name}", Outcome.OK, value, text)
        store.polled("dnsbl-1h", Standing(asked_at=now, told_at=now), (seen,), (), now=now)
        store.close()

    def run(self, *arguments: str, served: bool = True) -> Result:
        async def run() -> Result:
            zone = {("10.2.0.192.in-addr.arpa", "PTR"): ["mx7.example.com."]}
            store = DelistingStore.open(self.database)
            async with name_server(zone) as (_, resolver):
                (server,) = resolver().nameservers
                self.config.write_text(
                    f'runtime_directory = "{self.directory}"\n[store]\npath = "{self.directory}"\n'
                    f'[dns]\nresolvers = ["{server.address}:{server.port}"]\n'  # type: ignore[union-attr]  # one of ours
                    '[alerts]\nowner = "postmaster"\n'
                )
                control = await serve_control(self.directory / "outside", store.commands(time.time)) if served else None
                arguments_ = ["--config", str(self.config), *arguments]
                try:
                    return await asyncio.to_thread(CliRunner().invoke, sidecar, arguments_)
                finally:
                    store.close()
                    if control is not None:
                        control.close()

        return asyncio.run(run())


@pytest.fixture(name="site")
def _site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(delist, "find", lambda _: Scope((ADDRESS,), (), helos=((ADDRESS, "mail.example.com"),)))
    monkeypatch.setattr(delist, "who", lambda: "alice")
    return Site(tmp_path, tmp_path / "sidecar.toml")


def test_a_listing_is_asked_about_and_written_down(site: Site) -> None:
    now = time.time()
    for ago, value in ((5, 1.0), (4, 0.0), (3, 1.0), (2, 1.0), (1, 1.0)):
        site.told(value, "error: listed: see x" if value else "", now=now - ago * 3600)
    site.told(0.0, now=now, name="psbl")
    site.told(1.0, "critical: SBL", about="192.0.2.11", name="spamhaus_zen", now=now)
    ran = site.run("delist", ADDRESS, "--note", "sender closed", "--json")
    assert ran.exit_code == 0, ran.output
    told = json.loads(ran.output)
    assert (told["object"], told["recorded"]) == (ADDRESS, True)
    (row,) = told["lists"]
    assert (row["list"], row["sublists"], row["severity"]) == ("spamcop", ["listed"], "error")
    assert row["since"] == pytest.approx(now - 3 * 3600)
    assert row["url"] == "https://www.spamcop.net/bl.shtml"
    assert "Reverse name: mx7.example.com" in row["request"]
    assert "Greets as:    mail.example.com" in row["request"]
    assert "  sender closed" in row["request"]
    (asked,) = asked_lately(site.database, since=now - 60)
    assert asked[1:] == ("alice", ADDRESS, "spamcop", "sender closed")

    again = site.run("delist", ADDRESS, "--show")
    assert "asked before: " in again.output
    assert len(asked_lately(site.database, since=0.0)) == 1

    shown = json.loads(site.run("feeds", "--json").output)
    (delisting,) = next(row for row in shown if row["feed"] == "dnsbl-1h")["delistings"]
    assert (delisting["object"], delisting["list"], delisting["listed"]) == (ADDRESS, "spamcop", True)
    site.told(0.0, now=now + 1)
    assert (
        "removal of 192.0.2.10 from spamcop: asked for 0 min ago by alice, not listed any more"
        in site.run("feeds").output
    )


def test_an_incident_shows_who_asked(site: Site) -> None:
    known = incidents_about(ADDRESS)
    store = IncidentStore.open(site.database)
    store.looked(Looked(incidents=known.all()), now=1.0)
    store.close()
    asked = DelistingStore.open(site.database)
    asked.add([Delisting(1795255300.0, "alice", ADDRESS, "spamcop", "done"),
               Delisting(1795255100.0, "alice", ADDRESS, "psbl", "an older affair"),
               Delisting(1795255300.0, "bob", "192.0.2.11", "spamcop")], now=1795255300.0)  # fmt: skip
    asked.close()
    shown = json.loads(site.run("incident", "show", "1", "--json").output)
    assert [(each["by_whom"], each["list"], each["note"]) for each in shown["delistings"]] == [
        ("alice", "spamcop", "done")
    ]
    assert "removal asked for by alice: 192.0.2.10 from spamcop done" in site.run("incident", "show", "1").output


def test_what_is_not_listed(site: Site) -> None:
    nothing = site.run("delist", ADDRESS)
    assert nothing.exit_code == 1
    assert f"no list that is asked here lists {ADDRESS}" in nothing.output
    named = site.run("delist", ADDRESS, "--list", "hostkarma", "--show")
    assert named.exit_code == 0
    assert "hostkarma: not listed, as far as is known here" in named.output
    assert "no procedure is known here" in named.output
    assert asked_lately(site.database, since=0.0) == []


def test_what_ends_by_itself_is_not_asked_for(site: Site) -> None:
    site.told(1.0, "info: single address", name="uceprotect1", now=time.time())
    ran = site.run("delist", ADDRESS)
    assert ran.exit_code == 0
    assert "ends by itself: 7 days after the last event" in ran.output
    assert "Subject:" not in ran.output
    assert asked_lately(site.database, since=0.0) == []


def test_without_the_outside_process_it_is_printed_and_said_that_nobody_wrote_it_down(site: Site) -> None:
    site.told(1.0, "error: listed", now=time.time())
    ran = site.run("delist", ADDRESS, served=False)
    assert ran.exit_code == 3
    assert "Subject: removal of 192.0.2.10 from spamcop" in ran.output
    assert "not written down: " in ran.output
    assert "the outside process does not run here" in ran.output


def test_the_outside_process_writes_it_down(tmp_path: Path) -> None:
    arguments = ["--config", str(tmp_path / "sidecar.toml"), "delist", "shop.example", "--list", "surbl", "--json"]
    with process(tmp_path, free_port()) as started:
        said(started, "core does not answer")  # two seconds after the start
        ran = CliRunner().invoke(sidecar, arguments)
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.output)["recorded"] is True
    assert [each.list for each in asked_lately(tmp_path / "outside.db", since=0.0)] == ["surbl"]


@pytest.mark.parametrize(("arguments", "says"), [(("nonsense",), "wanted an address or a domain"),
                                                 ((ADDRESS, "--list", "nope"), "--list nope: there is no such list; known: abusix")])  # fmt: skip
def test_what_cannot_be_asked_for(site: Site, arguments: tuple[str, ...], says: str) -> None:
    ran = site.run("delist", *arguments)
    assert ran.exit_code == 2
    assert says in ran.output


@pytest.mark.parametrize(
    "wrong",
    [{}, {"who": "a", "object": "b", "note": "", "lists": [1]}, {"who": "", "object": "b", "note": "", "lists": ["c"]}],
)
def test_what_is_no_request_is_refused(site: Site, wrong: dict[str, Any]) -> None:
    store = DelistingStore.open(site.database)
    with pytest.raises(ValueError, match="wanted"):
        asyncio.run(_awaited(store, wrong))
    store.close()


async def _awaited(store: DelistingStore, request_: dict[str, Any]) -> None:
    await store.commands(time.time)["delisting"](request_)


def test_names_as_the_feeds_have_them() -> None:
    assert delist._named("2001:0DB8:0:0::1") == "2001:db8::1"
    assert delist._named("Shop.Example.") == "shop.example"
    assert Config().alerts.owner == ""
