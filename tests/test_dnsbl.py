"""DNS blocklists: what each kind of answer means, which zones are believed, and that no fault lists or clears anything."""

import asyncio
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import dns.message
import dns.query
import pytest

from benchmarks import polls
from parsers.feeds import dnsbl
from parsers.feeds.asking import Ask, DnsAnswer, DnsAsk, Reading, Trouble
from parsers.feeds.dnsbl import Asked, BlockList, Kind, Meaning, Severity, classify
from parsers.feeds.reversed_name import reversed_address
from parsers.observation import Outcome
from sidecar import blocklists, mx
from sidecar.asking import Asking
from sidecar.config import BlocklistsConfig, Config, ConfigError, FeedsConfig
from tests.outside_world import driven, name_server

LISTS = {spec.id: spec for spec in blocklists.packaged()}
NXDOMAIN = DnsAnswer("NXDOMAIN")


def said(*records: str) -> DnsAnswer:
    return DnsAnswer("NOERROR", records)


# What an answer means: list, answer -> meaning, words, severity.
ANSWERS = [
    ("spamhaus_zen", said("127.0.0.2"), "listed", "SBL", "critical"),
    ("spamhaus_zen", said("127.0.0.2", "127.0.0.9"), "listed", "SBL DROP", "critical"),
    ("spamhaus_zen", said("127.0.0.10"), "listed", "PBL-ISP", "critical"),
    ("spamhaus_zen", said("127.255.255.254"), "refused", "127.255.255.254", ""),
    ("spamhaus_zen", said("127.255.255.255", "127.0.0.2"), "refused", "127.255.255.255", ""),
    ("spamhaus_zen", said("127.255.255.252"), "refused", "127.255.255.252", ""),
    ("spamhaus_zen", said("127.0.0.77"), "unknown", "127.0.0.77", ""),
    ("spamhaus_zen", said("203.0.113.9"), "unknown", "203.0.113.9", ""),
    ("spamhaus_zen", said("127.0.0.2", "203.0.113.9"), "unknown", "203.0.113.9", ""),
    ("spamhaus_zen", said("nonsense"), "unknown", "nonsense", ""),
    ("spamhaus_zen", said(), "clean", "", ""),
    ("spamhaus_zen", NXDOMAIN, "clean", "", ""),
    ("spamhaus_zen", DnsAnswer("SERVFAIL"), "unknown", "SERVFAIL", ""),
    ("spamhaus_zen", DnsAnswer("TIMEOUT"), "unknown", "TIMEOUT", ""),
    ("spamhaus_zen", DnsAnswer("REFUSED"), "refused", "REFUSED", ""),
    ("spamhaus_dbl", said("127.0.1.2"), "listed", "spam", "critical"),
    ("spamhaus_dbl", said("127.0.1.104"), "listed", "abused-phish", "error"),
    ("spamhaus_dbl", said("127.0.1.104", "127.0.1.4"), "listed", "abused-phish phish", "critical"),
    ("spamhaus_dbl", said("127.0.1.255"), "refused", "127.0.1.255", ""),
    ("spamhaus_zrd", said("127.0.2.4"), "listed", "first seen within hours", "info"),
    ("spamhaus_zrd", said("127.0.2.255"), "refused", "127.0.2.255", ""),
    ("surbl", said("127.0.0.72"), "listed", "phish abuse", "error"),
    ("surbl", said("127.0.0.1"), "refused", "127.0.0.1", ""),
    ("surbl", said("127.0.0.2"), "unknown", "127.0.0.2", ""),
    ("uribl", said("127.0.0.4"), "listed", "grey", "warning"),
    ("uribl", said("127.0.0.6"), "listed", "black grey", "error"),
    ("uribl", said("127.0.0.1"), "refused", "127.0.0.1", ""),
    ("mailspike_rep", said("127.0.0.18"), "allowed", "good", ""),
    ("mailspike_rep", said("127.0.0.14"), "clean", "", ""),
    ("mailspike_rep", said("127.0.0.11"), "listed", "very-bad", "warning"),
    ("mailspike_bl", said("127.0.0.13"), "listed", "suspicious", "warning"),
    ("hostkarma", said("127.0.0.1"), "allowed", "white", ""),
    ("hostkarma", said("127.0.0.2"), "listed", "black", "info"),
    ("hostkarma", said("127.0.0.3"), "clean", "", ""),
    ("hostkarma", said("127.0.2.3"), "clean", "", ""),
    ("abusix", said("127.0.0.200"), "listed", "black", "error"),
    ("abusix", said("127.0.2.1"), "allowed", "127.0.2.1", ""),
    ("senderscore_bl", said("127.0.0.20"), "listed", "pristine-trap score", "warning"),
    ("senderscore_bl", said("127.255.255.255"), "refused", "127.255.255.255", ""),
    ("dnswl", said("127.0.5.2"), "allowed", "127.0.5.2", ""),
    ("dnswl", said("127.0.10.3"), "refused", "127.0.10.3", ""),
    ("dnswl", said("127.0.0.255"), "refused", "127.0.0.255", ""),
    ("blocklistde", said("127.0.0.9"), "listed", "attacks", "warning"),
    ("spamcop", said("127.0.0.3"), "unknown", "127.0.0.3", ""),
]


@pytest.mark.parametrize(("name", "answer", "meaning", "words", "severity"), ANSWERS)
def test_meaning(name: str, answer: DnsAnswer, meaning: str, words: str, severity: str) -> None:
    verdict = classify(LISTS[name], answer)
    assert (verdict.meaning, " ".join(verdict.words), verdict.severity or "") == (meaning, words, severity)


@pytest.mark.parametrize("spec", LISTS.values(), ids=list(LISTS))
def test_what_speaks_of_the_asker_is_never_a_listing(spec: BlockList) -> None:
    for last in range(256):
        assert classify(spec, said(f"127.255.255.{last}", "127.0.0.2")).meaning is Meaning.REFUSED


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.10", "10.2.0.192"),
        ("::ffff:192.0.2.10", "10.2.0.192"),
        ("2001:db8::1", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"),
    ],
)
def test_reversed(address: str, name: str) -> None:
    assert reversed_address(address) == name


# Polls.

SPAMCOP = Asked(LISTS["spamcop"], "bl.spamcop.net")
DBL = Asked(LISTS["spamhaus_dbl"], "dbl.spamhaus.org")
GOOD = {
    "2.0.0.127.bl.spamcop.net": said("127.0.0.2"),
    "dbltest.com.dbl.spamhaus.org": said("127.0.1.2"),
    "10.2.0.192.bl.spamcop.net": said("127.0.0.2"),
    "bad.example.dbl.spamhaus.org": said("127.0.1.2"),
}
OBJECTS = ("192.0.2.10", "192.0.2.11", "2001:db8::1", "bad.example", "good.example")


def polled(*lists: Asked, says: dict[str, DnsAnswer]) -> tuple[Reading, list[DnsAsk]]:
    asks: list[DnsAsk] = []

    def answer(ask: Ask) -> DnsAnswer:
        assert isinstance(ask, DnsAsk)
        asks.append(ask)
        if ask.type == "TXT":
            return said("see https://list.example/why")
        return says.get(ask.name, NXDOMAIN)

    return driven(dnsbl.poll(lists, OBJECTS, {}), answer), asks


def values(reading: Reading) -> dict[tuple[str, str], tuple[str, float | None]]:
    return {(seen.object, seen.measure): (seen.outcome.value, seen.value) for seen in reading.observations}


def test_a_poll() -> None:
    reading, asks = polled(SPAMCOP, DBL, says=GOOD)
    assert reading.trouble is None
    assert values(reading) == {
        ("spamcop", "zone-healthy"): ("ok", 1.0),
        ("spamhaus_dbl", "zone-healthy"): ("ok", 1.0),
        ("192.0.2.10", "listed.spamcop"): ("ok", 1.0),
        ("192.0.2.11", "listed.spamcop"): ("ok", 0.0),
        ("bad.example", "listed.spamhaus_dbl"): ("ok", 1.0),
        ("good.example", "listed.spamhaus_dbl"): ("ok", 0.0),
    }
    (listed,) = (seen for seen in reading.observations if seen.object == "192.0.2.10")
    assert listed.text == "error: listed: see https://list.example/why"
    assert sorted(ask.name for ask in asks if ask.type == "TXT") == [
        "10.2.0.192.bl.spamcop.net",
        "bad.example.dbl.spamhaus.org",
    ]


SICK = {
    "emptied": ({"2.0.0.127.bl.spamcop.net": NXDOMAIN}, Trouble.FORMAT),
    "lists all": ({"1.0.0.127.bl.spamcop.net": said("127.0.0.2")}, Trouble.FORMAT),
    "for sale": (
        {name: said("203.0.113.9") for name in ("2.0.0.127.bl.spamcop.net", "1.0.0.127.bl.spamcop.net")},
        Trouble.FORMAT,
    ),
    "open resolver": ({"2.0.0.127.bl.spamcop.net": said("127.255.255.254")}, Trouble.REFUSED),
    "over the limit": ({"2.0.0.127.bl.spamcop.net": said("127.255.255.255")}, Trouble.REFUSED),
    "refuses": ({"2.0.0.127.bl.spamcop.net": DnsAnswer("REFUSED")}, Trouble.REFUSED),
    "broken": ({"2.0.0.127.bl.spamcop.net": DnsAnswer("SERVFAIL")}, Trouble.NETWORK),
    "silent": ({"2.0.0.127.bl.spamcop.net": DnsAnswer("TIMEOUT")}, Trouble.NETWORK),
    "half silent": ({"1.0.0.127.bl.spamcop.net": DnsAnswer("TIMEOUT")}, Trouble.NETWORK),
}


@pytest.mark.parametrize(("fault", "trouble"), SICK.values(), ids=list(SICK))
def test_a_sick_zone_neither_lists_nor_clears_and_is_asked_no_more(
    fault: dict[str, DnsAnswer], trouble: Trouble
) -> None:
    reading, asks = polled(SPAMCOP, says=GOOD | fault)
    assert reading.trouble is trouble
    assert values(reading)["spamcop", "zone-healthy"] == ("ok", 0.0)
    assert {value for (_, measure), value in values(reading).items() if measure == "listed.spamcop"} == {
        ("unknown", None)
    }
    assert all("127.bl.spamcop.net" in ask.name for ask in asks)

    reading, _ = polled(SPAMCOP, DBL, says=GOOD | fault)
    assert reading.trouble is None  # one of two lists still tells something
    assert values(reading)["bad.example", "listed.spamhaus_dbl"] == ("ok", 1.0)


def test_no_fault_lists_or_clears_anything() -> None:
    """A thousand polls, each question of which may fail in any way: what is told is true, or nothing is told."""
    truth = {("192.0.2.10", "spamcop"): 1.0, ("192.0.2.11", "spamcop"): 0.0}
    faults = [
        DnsAnswer("SERVFAIL"),
        DnsAnswer("TIMEOUT"),
        DnsAnswer("REFUSED"),
        DnsAnswer("ERROR"),
        *(said(f"127.255.255.{last}") for last in (250, 252, 254, 255)),
        said("203.0.113.9"),
        said("127.0.0.99"),
        said("not an address"),
    ]
    dice = random.Random(7)
    told = 0
    for _ in range(1000):
        share = dice.random()

        def answer(ask: Ask, share: float = share) -> DnsAnswer:
            assert isinstance(ask, DnsAsk)
            return dice.choice(faults) if dice.random() < share else GOOD.get(ask.name, NXDOMAIN)

        for seen in driven(dnsbl.poll((SPAMCOP,), ("192.0.2.10", "192.0.2.11"), {}), answer).observations:
            if seen.measure.startswith("listed.") and seen.outcome is Outcome.OK:
                told += 1
                assert seen.value == truth[seen.object, "spamcop"]
    assert told > 200


@pytest.mark.parametrize("how", ["emptied", "lists all"])
def test_a_dead_zone_says_nothing_about_anybody(how: str) -> None:
    """The two faults that look like true answers to each question are seen by the test points alone."""
    reading = driven(dnsbl.poll((SPAMCOP,), OBJECTS, {}), lambda _: NXDOMAIN if how == "emptied" else said("127.0.0.2"))
    assert {seen.outcome for seen in reading.observations if seen.measure != "zone-healthy"} == {Outcome.UNKNOWN}


@pytest.mark.parametrize("spec", LISTS.values(), ids=list(LISTS))
def test_every_list_is_seen_through_when_it_lists_everything(spec: BlockList) -> None:
    """Also those for which 127.0.0.1 is an answer like others: two questions, and not one about us."""
    asked = Asked(spec, "list.example")
    names: list[str] = []

    def answer(ask: Ask) -> DnsAnswer:
        assert isinstance(ask, DnsAsk)
        names.append(ask.name)
        return listing_of(spec)

    reading = driven(dnsbl.poll((asked,), OBJECTS, {}), answer)
    assert reading.trouble is Trouble.FORMAT
    assert len(names) == 2
    told = [seen for seen in reading.observations if seen.measure != "zone-healthy"]
    assert told
    assert {seen.outcome for seen in told} == {Outcome.UNKNOWN}


NOBODY = {"ip4": "213.2.0.192", "ip6": reversed_address("2001:db8:7b1d:90c4::3a6e"), "domain": "k7q2x9vd.example"}


@pytest.mark.parametrize("kind", Kind)
def test_without_a_point_of_its_own_a_list_is_asked_about_nobody(kind: Kind) -> None:
    """Names that documents use (RFC 5737, 3849, 2606), and no site can have."""
    spec = BlockList("ours", (kind,), Severity.ERROR, 60, "bl.our.example", codes={"127.0.0.2": "listed"}, negative="")
    assert dnsbl.test_points(spec)[1] == NOBODY[kind]
    assert dnsbl.test_points(replace(spec, negative="nothing"))[1] == "nothing"
    assert dnsbl.test_points(replace(spec, negative=None))[1] not in NOBODY.values()


def test_a_name_server_that_answers_everything_lists_and_clears_nobody() -> None:
    """Over UDP, as a zone that was sold and parked inside 127/8 does; 127.0.0.1 is not asked where it means something."""
    lists = [Asked(spec, spec.zone) for spec in LISTS.values() if spec.negative == ""]
    assert {each.list.id for each in lists} == {"mailspike_rep", "senderscore_bl", "hostkarma", "dnswl"}

    async def run(said: str) -> tuple[Reading, list[str]]:
        async with name_server({("*", "A"): [said], ("*", "TXT"): ["listed"]}) as (server, resolver):
            reading, _ = await Asking(resolver).poll(dnsbl.poll(lists, OBJECTS, {}))
            return reading, server.asked

    for record in ("127.0.0.2", "127.0.0.10", "127.0.0.16", "127.0.5.2", "127.0.0.99", "203.0.113.9"):
        reading, asked = asyncio.run(run(record))
        assert reading.trouble is Trouble.FORMAT
        about = [seen for seen in reading.observations if seen.measure != "zone-healthy"]
        assert {seen.outcome for seen in about} == {Outcome.UNKNOWN}
        assert sorted(asked) == sorted(
            f"{name}.{each.zone} A" for each in lists for name in ("2.0.0.127", "213.2.0.192")
        )


def test_domains_that_share_what_was_registered_are_asked_about_once() -> None:
    surbl = Asked(LISTS["surbl"], "multi.surbl.org")
    names: list[str] = []

    def answer(ask: Ask) -> DnsAnswer:
        assert isinstance(ask, DnsAsk)
        names.append(ask.name)
        return said("127.0.0.64") if ask.name.startswith(("test.surbl", "shop.example")) else NXDOMAIN

    registrable = dict.fromkeys(("a.shop.example", "b.shop.example"), "shop.example")
    reading = driven(dnsbl.poll((surbl,), tuple(registrable), registrable), answer)
    assert names.count("shop.example.multi.surbl.org") == 2  # A, and TXT
    listed = [seen.object for seen in reading.observations if seen.value == 1.0 and seen.measure == "listed.surbl"]
    assert listed == ["a.shop.example", "b.shop.example"]


# The site's lists.


def config(**settings: object) -> Config:
    return Config(feeds=FeedsConfig(blocklists=BlocklistsConfig(**settings)))  # type: ignore[arg-type]  # by name


def test_a_key_is_asked_with_and_never_told(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("k3yk3yk3y\n")
    asked = {each.list.id: each for each in blocklists.in_force(config(spamhaus_key=str(key)))}
    assert asked["spamhaus_zen"].zone == "k3yk3yk3y.zen.dq.spamhaus.net"
    assert "spamhaus_authbl" in asked
    assert "abusix" not in asked
    asks: list[DnsAsk] = []

    def answer(ask: Ask) -> DnsAnswer:
        assert isinstance(ask, DnsAsk)
        asks.append(ask)
        return said("127.0.0.2") if ask.name.startswith("2.0.0.127.") else NXDOMAIN

    reading = driven(dnsbl.poll((asked["spamhaus_zen"],), ("192.0.2.1",), {}), answer)
    assert all(ask.secrets == ("k3yk3yk3y",) for ask in asks)
    assert "k3yk3yk3y" not in repr(reading)


def test_lists_are_chosen_by_id() -> None:
    ids = {each.list.id for each in blocklists.in_force(config(without=("dronebl",), also=("senderscore_bl",)))}
    assert "dronebl" not in ids
    assert "senderscore_bl" in ids
    assert len(ids) >= 28


BAD = {
    "unknown id": (config(without=("spamhouse",)), "no list 'spamhouse'; known: abusix"),
    "no key file": (config(spamhaus_key="/nowhere/key"), "/nowhere/key: the key cannot be read"),
    "no file of lists": (config(lists="/nowhere/lists"), "feeds.blocklists.lists: /nowhere/lists: cannot be read"),
}


@pytest.mark.parametrize(("bad", "says"), BAD.values(), ids=list(BAD))
def test_bad_settings(bad: Config, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        blocklists.in_force(bad)


ROW = 'id = "ours"\nzone = "bl.our.example"\nkinds = ["ip4"]\nseverity = "error"\nevery = 60\n'
BAD_FILES = {
    'x = "': "not valid TOML",
    ROW.replace("ip4", "ipv4"): r"list ours: kinds\[0\]: found 'ipv4', wanted one of ip4, ip6, domain",
    ROW.replace("60", "61"): "list ours: every: found 61, wanted one of 15, 60, 240 minutes",
    ROW.replace("bl.our.example", "dnsbl.sorbs.net"): "list ours: dnsbl.sorbs.net: emptied in June 2024",
    ROW + "codes = { a = 1 }\n": "list ours: codes: found .*, wanted a table of strings",
    ROW + 'allow_networks = ["127.0.0"]\n': "list ours: allow_networks: found '127.0.0', wanted a network",
    ROW + 'bits = { two = "listed" }\n': "list ours: bits: found 'two', wanted a number",
    ROW + 'colour = "red"\n': "list ours: colour: unknown key",
    ROW.replace('zone = "bl.our.example"\n', ""): "list ours: zone: missing",
}


@pytest.mark.parametrize(("text", "says"), BAD_FILES.items())
def test_a_bad_file_of_lists(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        blocklists.read(text if text.startswith("x") else f"[[list]]\n{text}", file=Path("lists.toml"))


def test_an_admins_own_list(tmp_path: Path) -> None:
    path = tmp_path / "lists.toml"
    path.write_text(f'[[list]]\n{ROW}codes = {{ "127.0.0.2" = "listed" }}\n')
    (own,) = (each for each in blocklists.in_force(config(lists=str(path))) if each.list.id == "ours")
    assert own.list.kinds == (Kind.IP4,)
    assert own.list.severity is Severity.ERROR
    assert classify(own.list, said("127.0.0.2")).words == ("listed",)


# A real server of lists.


@contextmanager
def rbldnsd(directory: Path, zones: dict[str, str]) -> Iterator[int]:
    """Serve zones (name -> lines of an ip4set or dnset) on a port of loopback."""
    program = shutil.which("rbldnsd") or "/usr/sbin/rbldnsd"
    directory.chmod(0o755)
    arguments = []
    for number, (zone, lines) in enumerate(zones.items()):
        kind = "dnset" if zone.startswith("d") else "ip4set"
        (directory / f"zone{number}").write_text(lines)
        arguments.append(f"{zone}:{kind}:zone{number}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "-n", "-b", f"127.0.0.1/{port}", "-r", str(directory), *arguments]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _await_answer(port, next(iter(zones)))
        yield port
    finally:
        server.terminate()
        server.wait()


def _await_answer(port: int, zone: str) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            dns.query.udp(dns.message.make_query(f"2.0.0.127.{zone}", "A"), "127.0.0.1", port=port, timeout=0.2)
        except (dns.exception.Timeout, OSError):
            assert time.monotonic() < until, "rbldnsd does not answer"
        else:
            return


def test_a_real_rbldnsd(tmp_path: Path) -> None:
    zones = {
        "bl.spamcop.net": ":127.0.0.2:Blocked - see https://list.example/$\n127.0.0.2\n192.0.2.10\n",
        "dbl.spamhaus.org": ":127.0.1.2:spam\ndbltest.com\n:127.0.1.104:phish\n.bad.example\n",
        "b.barracudacentral.org": ":127.0.0.2:empty\n203.0.113.1\n",
    }
    barracuda = Asked(LISTS["barracuda"], "b.barracudacentral.org")

    async def run(port: int) -> Reading:
        asking = Asking(mx.resolver_at((f"127.0.0.1:{port}",)))
        reading, _ = await asking.poll(dnsbl.poll((SPAMCOP, DBL, barracuda), OBJECTS, {}))
        return reading

    with rbldnsd(tmp_path, zones) as port:
        reading = asyncio.run(run(port))
    assert values(reading) == {
        ("spamcop", "zone-healthy"): ("ok", 1.0),
        ("spamhaus_dbl", "zone-healthy"): ("ok", 1.0),
        ("barracuda", "zone-healthy"): ("ok", 0.0),
        ("192.0.2.10", "listed.spamcop"): ("ok", 1.0),
        ("192.0.2.11", "listed.spamcop"): ("ok", 0.0),
        ("bad.example", "listed.spamhaus_dbl"): ("ok", 1.0),
        ("good.example", "listed.spamhaus_dbl"): ("ok", 0.0),
        ("192.0.2.10", "listed.barracuda"): ("unknown", None),
        ("192.0.2.11", "listed.barracuda"): ("unknown", None),
    }
    texts = {seen.object: seen.text for seen in reading.observations if seen.value == 1.0}
    assert texts["192.0.2.10"] == "error: listed: Blocked - see https://list.example/192.0.2.10"
    assert texts["bad.example"] == "error: abused-phish: phish"


# Load.


def test_a_real_rbldnsd_that_lists_the_whole_internet(tmp_path: Path) -> None:
    dnswl = Asked(LISTS["dnswl"], "list.dnswl.org")
    karma = Asked(LISTS["hostkarma"], "hostkarma.junkemailfilter.com")
    zones = {
        "list.dnswl.org": ":127.0.5.2:all are good\n0.0.0.0/1\n128.0.0.0/1\n",
        "hostkarma.junkemailfilter.com": ":127.0.0.2:black\n127.0.0.2\n192.0.2.10\n:127.0.0.1:white\n127.0.0.1\n",
    }

    async def run(port: int) -> Reading:
        asking = Asking(mx.resolver_at((f"127.0.0.1:{port}",)))
        reading, _ = await asking.poll(dnsbl.poll((dnswl, karma), OBJECTS[:2], {}))
        return reading

    with rbldnsd(tmp_path, zones) as port:
        reading = asyncio.run(run(port))
    assert values(reading) == {
        ("dnswl", "zone-healthy"): ("ok", 0.0),
        ("hostkarma", "zone-healthy"): ("ok", 1.0),  # 127.0.0.1 is white there, and that is no fault
        ("192.0.2.10", "listed.dnswl"): ("unknown", None),
        ("192.0.2.11", "listed.dnswl"): ("unknown", None),
        ("192.0.2.10", "listed.hostkarma"): ("ok", 1.0),
        ("192.0.2.11", "listed.hostkarma"): ("ok", 0.0),
    }
    (sick,) = (seen for seen in reading.observations if seen.object == "dnswl")
    assert sick.text == "lists what no list may: 127.0.5.2"


def test_a_year_of_polls_stays_inside_free_limits() -> None:
    """Questions a day for 200 addresses and 2,000 domains, by operator; Spamhaus' free mirrors allow 300,000."""
    objects = [f"192.0.2.{n}" for n in range(200)] + [f"d{n}.example" for n in range(2000)] + ["2001:db8::1"]
    a_day: dict[str, int] = {}
    for asked in blocklists.in_force(config()):
        questions = 0

        def answer(ask: Ask, spec: BlockList = asked.list) -> DnsAnswer:
            nonlocal questions
            assert isinstance(ask, DnsAsk)
            questions += 1
            first = dnsbl.test_points(spec)[0]
            return listing_of(spec) if first and ask.name.startswith(f"{first}.") else NXDOMAIN

        driven(dnsbl.poll((asked,), objects, {}), answer)
        operator = asked.zone.split(".", 1)[1]
        a_day[operator] = a_day.get(operator, 0) + questions * 24 * 60 // asked.list.every
    for operator, questions in sorted(a_day.items(), key=lambda pair: -pair[1]):
        print(f"{operator:<32}{questions:>8} a day, limit {polls.LIMITS.get(operator, 'none published')}")  # noqa: T201  # -s
    assert all(a_day[operator] < limit / 2 for operator, limit in polls.LIMITS.items())
    assert a_day["spamhaus.org"] < 100_000
    assert max(a_day.values()) < 100_000
    assert min(a_day.values()) > 6 * 2  # they are all asked, beside their test points


def listing_of(spec: BlockList) -> DnsAnswer:
    return said(polls.listing(spec))
