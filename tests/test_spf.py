"""SPF: which records are well-formed, and what they let our addresses do, as RFC 7208 has it."""

from collections.abc import Callable
from contextlib import suppress
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.feeds.asking import Answer, Ask, Asked, DnsAnswer, DnsAsk
from parsers.spf import Client, SpfError, expand, read_record
from parsers.spf_check import SpfVerdict, check

OURS = "192.0.2.10"
OURS6 = "2001:db8::10"

GOOD = [
    "v=spf1",
    "v=spf1 -all",
    "V=SPF1 ip4:192.0.2.0/24 ~ALL",
    "v=spf1  a  mx   -all ",
    "v=spf1 a/24 mx//64 a:h.example/24//64 -all",
    "v=spf1 ip4:192.0.2.7 ip6:2001:db8::/32 ip6:::1 ?all",
    "v=spf1 include:_spf.example.com include:%{d}.spf.example.net -all",
    "v=spf1 exists:%{ir}.%{v}._spf.%{d2} -all",
    "v=spf1 redirect=_spf.example.com exp=why.%{d}",
    "v=spf1 unknown=modifier.%{i} -all",
    "v=spf1 a:example.com. ptr ptr:example.com -all",
    "v=spf1 include:xn--bcher-kva.example -all",
]


@pytest.mark.parametrize("text", GOOD)
def test_well_formed(text: str) -> None:
    read_record(text)


BAD = {
    "v=spf10 -all": "wanted 'v=spf1 '",
    "v=spf1 ipv4:192.0.2.1 -all": "unknown mechanism; did you mean ip4",
    "v=spf1 ip:192.0.2.1": "did you mean ip4",
    "v=spf1 ip4:192.0.2.300": "wanted ip4:ADDRESS",
    "v=spf1 ip4:192.0.2.01": "wanted ip4:ADDRESS",
    "v=spf1 ip4:2001:db8::1": "with an IPv4 address",
    "v=spf1 ip4:192.0.2.1/33": "prefix length '33', wanted 0 to 32",
    "v=spf1 ip4:192.0.2.1/": "prefix length ''",
    "v=spf1 ip4:192.0.2.0/024": "prefix length '024'",
    "v=spf1 ip6:2001:db8::/129": "wanted 0 to 128",
    "v=spf1 ip6:fe80::1%eth0": "with an IPv6 address",
    "v=spf1 ip4 -all": "wanted ip4:ADDRESS",
    "v=spf1 192.0.2.1 -all": "no mechanism and no modifier",
    "v=spf1 a, mx -all": "wanted a, a:DOMAIN",
    "v=spf1 a mx; -all": "wanted mx",
    "v=spf1 all:example.com": "takes nothing after it",
    "v=spf1 include -all": "wanted include:DOMAIN",
    "v=spf1 include: -all": "wanted include:DOMAIN",
    "v=spf1 include:localhost": "is no domain",
    "v=spf1 include:192.0.2.1": "is no domain",
    "v=spf1 include:https://example.com/": "is no domain",
    "v=spf1 exists:%{q}.example.com": "a % that begins no macro",
    "v=spf1 exists:%{i.example.com": "a % that begins no macro",
    "v=spf1 exists:%{c}.example.com": "for explanations alone",
    "v=spf1 redirect=a.example redirect=b.example": "redirect= stands twice",
    "v=spf1 +redirect=a.example": "unknown mechanism",
    "v=spf1 --all": "no mechanism",
    "v=spf1 \tall": "not printable",
    "v=spf1 include:bücher.example": "not printable ASCII",
    "v=spf1 include=_spf.example.com x=%": "a % that begins no macro",
}


@pytest.mark.parametrize(("text", "says"), BAD.items())
def test_malformed(text: str, says: str) -> None:
    with pytest.raises(SpfError, match=says):
        read_record(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("v=spf1 include=_spf.example.com -all", "did you mean include:_spf.example.com?"),
        ("v=spf1 ip4=192.0.2.1 -all", "does nothing"),
        ("v=spf1 a", "ends without all"),
        ("v=spf1 ptr -all", "not to be used"),
    ],
)
def test_allowed_and_hardly_meant(text: str, says: str) -> None:
    assert says in " ".join(read_record(text).remarks)


# Macros: the examples of section 7.4 that a domain can hold, for <postmaster@...> where they have strong-bad.
MACROS = [
    ("%{o}", "email.example.com"),
    ("%{d}", "email.example.com"),
    ("%{d4}", "email.example.com"),
    ("%{d2}", "example.com"),
    ("%{d1}", "com"),
    ("%{dr}", "com.example.email"),
    ("%{d2r}", "example.email"),
    ("%{l}", "postmaster"),
    ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
    ("%{l-}.lp._spf.%{d2}", "postmaster.lp._spf.example.com"),
    ("%{i}._ip.%{h}", "192.0.2.3._ip.mx.example.org"),
    ("%{p}.%{d2}", "unknown.example.com"),
    ("%{S}.x", "postmaster%40email.example.com.x"),
    ("a%%b.example", "a%b.example"),
]


@pytest.mark.parametrize(("spec", "name"), MACROS)
def test_macros(spec: str, name: str) -> None:
    domain = "email.example.com"
    made = expand(spec, Client.of("192.0.2.3"), domain=domain, sender_domain=domain, helo="mx.example.org")
    assert made == name


def test_macros_of_ipv6_and_of_names_too_long() -> None:
    client = Client.of("2001:db8::cb01")
    made = expand("%{ir}.%{v}.x.example", client, domain="d.example", sender_domain="d.example")
    assert made == "1.0.b.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.x.example"
    made = expand(
        "%{o}.%{o}.%{o}.x.example", client, domain="d.example", sender_domain=f"{'a' * 60}.{'b' * 60}.example"
    )
    assert len(made) <= 253
    assert made.endswith("b.example.x.example")


# Evaluation: zone -> result of 192.0.2.10, look-ups, void look-ups, faults.

Zone = dict[str, list[str] | str]
"""\"name TYPE\" -> records, or an rcode; what is not there does not exist."""


def driven(asking: Asked[SpfVerdict], zone: Zone) -> SpfVerdict:
    def answer(ask: Ask) -> Answer:
        assert isinstance(ask, DnsAsk)
        said = zone.get(f"{ask.name} {ask.type}", "NXDOMAIN")
        return DnsAnswer(said) if isinstance(said, str) else DnsAnswer("NOERROR", tuple(said))

    return answered(asking, answer)


def answered(asking: Asked[SpfVerdict], answer: Callable[[Ask], Answer]) -> SpfVerdict:
    asks = next(asking)
    while True:
        try:
            asks = asking.send(tuple(answer(ask) for ask in asks))
        except StopIteration as end:
            return cast("SpfVerdict", end.value)


def txt(record: str, **others: str) -> Zone:
    """Of d.example, and of others below it."""
    zone: Zone = {f"{name}.d.example TXT": [text] for name, text in others.items()}
    return {"d.example TXT": [record]} | zone


def chain(length: int) -> Zone:
    names = [f"n{n}.d.example" for n in range(length)]
    zone: Zone = {"d.example TXT": [f"v=spf1 include:{names[0]} ip4:{OURS} -all"]}
    for name, following in zip(names, [*names[1:], ""], strict=True):
        zone[f"{name} TXT"] = [f"v=spf1 include:{following} -all" if following else "v=spf1 -all"]
    return zone


MANY = " ".join(f"include:n{n}.d.example" for n in range(11))
TEN_MX: Zone = {f"{n}.mx.example A": [f"198.51.100.{n}"] for n in range(10)}
CASES: dict[str, tuple[Zone, str, int, int, str]] = {
    "ip4": (txt(f"v=spf1 ip4:{OURS} -all"), "pass", 0, 0, ""),
    "ip4 network with host bits": (txt("v=spf1 ip4:192.0.2.77/24 -all"), "pass", 0, 0, ""),
    "not listed": (txt("v=spf1 ip4:192.0.2.11 -all"), "fail", 0, 0, ""),
    "soft": (txt("v=spf1 ip4:192.0.2.11 ~all"), "softfail", 0, 0, ""),
    "no all": (txt("v=spf1 ip4:192.0.2.11"), "neutral", 0, 0, ""),
    "question": (txt("v=spf1 ?ip4:192.0.2.10 -all"), "neutral", 0, 0, ""),
    "excluded first": (txt("v=spf1 -ip4:192.0.2.10 ip4:192.0.2.0/24 -all"), "fail", 0, 0, ""),
    "after all": (txt("v=spf1 -all ip4:192.0.2.10"), "fail", 0, 0, ""),
    "after all no look-up": (txt("v=spf1 -all a mx include:x.example"), "fail", 0, 0, ""),
    "none": ({"d.example TXT": ["google-site-verification=1"]}, "none", 0, 0, ""),
    "nothing at all": ({}, "none", 0, 0, ""),
    "empty": ({"d.example TXT": []}, "none", 0, 0, ""),
    "two records": ({"d.example TXT": ["v=spf1 -all", "v=spf1 +all"]}, "permerror", 0, 0, "has 2 SPF records"),
    "beside others": ({"d.example TXT": ["x", f"v=spf1 ip4:{OURS} -all", "v=spf10"]}, "pass", 0, 0, ""),
    "malformed": (txt(f"v=spf1 ip4:{OURS} ipv4:192.0.2.1 -all"), "permerror", 0, 0, "unknown mechanism"),
    "include": (txt("v=spf1 include:a.d.example -all", a=f"v=spf1 ip4:{OURS} -all"), "pass", 1, 0, ""),
    "include that fails goes on": (
        txt(f"v=spf1 include:a.d.example ip4:{OURS} -all", a="v=spf1 -all"), "pass", 1, 0, "",
    ),
    "include of nothing": (txt(f"v=spf1 include:a.d.example ip4:{OURS} -all"), "permerror", 1, 0, "no SPF record"),
    "include of nothing behind us": (
        txt(f"v=spf1 ip4:{OURS} include:a.d.example -all"), "pass", 1, 0, "no SPF record",
    ),
    "include of malformed": (
        txt(f"v=spf1 include:a.d.example ip4:{OURS}", a="v=spf1 foo"), "permerror", 1, 0, "a.d.example: 'foo'",
    ),
    "include of itself": (txt("v=spf1 include:d.example -all"), "permerror", 1, 0, "includes itself"),
    "include in a ring": (
        txt("v=spf1 include:a.d.example -all", a="v=spf1 include:b.d.example", b="v=spf1 include:a.d.example"),
        "permerror", 3, 0, "a.d.example includes itself by way of a.d.example, b.d.example",
    ),
    "redirect": (txt("v=spf1 redirect=a.d.example", a=f"v=spf1 ip4:{OURS} -all"), "pass", 1, 0, ""),
    "redirect to fail": (txt("v=spf1 redirect=a.d.example", a="v=spf1 -all"), "fail", 1, 0, ""),
    "redirect to nothing": (txt("v=spf1 redirect=a.d.example"), "permerror", 1, 0, "redirect leads to a.d.example"),
    "redirect beside all": (txt("v=spf1 redirect=a.d.example -all", a="v=spf1 +all"), "fail", 0, 0, ""),
    "redirect to itself": (txt("v=spf1 redirect=d.example"), "permerror", 1, 0, "includes itself"),
    "a": (txt("v=spf1 a -all") | {"d.example A": [OURS]}, "pass", 1, 0, ""),
    "a of a network": (txt("v=spf1 a:h.example/24 -all") | {"h.example A": ["192.0.2.200"]}, "pass", 1, 0, ""),
    "a of nothing": (txt("v=spf1 a:h.example -all"), "fail", 1, 1, ""),
    "mx": (
        txt("v=spf1 mx -all") | {"d.example MX": ["10 mx.d.example."], "mx.d.example A": [OURS]}, "pass", 1, 0, "",
    ),
    "null mx": (txt("v=spf1 mx -all") | {"d.example MX": ["0 ."]}, "fail", 1, 0, ""),
    "ten mx": (txt("v=spf1 mx -all") | TEN_MX | {"d.example MX": [f"1 {n}.mx.example." for n in range(10)]},
               "fail", 1, 0, ""),
    "eleven mx": (
        txt("v=spf1 mx -all") | {"d.example MX": [f"1 {n}.mx.example." for n in range(11)]},
        "permerror", 1, 0, "11 MX hosts",
    ),
    "exists": (
        txt("v=spf1 exists:%{ir}.x.example -all") | {"10.2.0.192.x.example A": ["127.0.0.2"]}, "pass", 1, 1, "",
    ),
    "exists not": (txt("v=spf1 exists:%{i}.x.example -all"), "fail", 1, 1, ""),
    "include with a macro": (
        txt("v=spf1 include:%{i}.x.example -all")
        | {"192.0.2.10.x.example TXT": ["v=spf1 +all"], "240.0.0.1.x.example TXT": ["v=spf1 -all"]},
        "pass", 1, 0, "",
    ),
    "ptr": (
        txt("v=spf1 ptr -all")
        | {"10.2.0.192.in-addr.arpa PTR": ["h.d.example."], "h.d.example A": [OURS]}, "pass", 1, 0, "",
    ),
    "ptr of somebody else": (txt("v=spf1 ptr -all") | {"10.2.0.192.in-addr.arpa PTR": ["x.example."]}, "fail", 1, 0, ""),
    "ten look-ups": (chain(10), "pass", 10, 0, ""),
    "eleven look-ups": (chain(11), "permerror", 11, 0, ""),
    "eleven look-ups, we before them": (
        txt(f"v=spf1 ip4:{OURS} {MANY} -all", **{f"n{n}": "v=spf1 -all" for n in range(11)}), "pass", 11, 0, "",
    ),
    "two void": (txt(f"v=spf1 a:x.example a:y.example ip4:{OURS} -all"), "pass", 2, 2, ""),
    "three void": (txt(f"v=spf1 a:x.example a:y.example a:z.example ip4:{OURS} -all"), "permerror", 3, 3, ""),
    "a label too long": (txt(f"v=spf1 a:{'x' * 64}.example -all"), "fail", 1, 1, ""),
    "broken DNS": ({"d.example TXT": "SERVFAIL"}, "temperror", 0, 0, ""),
    "broken include": (
        txt(f"v=spf1 include:a.d.example ip4:{OURS} -all") | {"a.d.example TXT": "TIMEOUT"}, "temperror", 1, 0, "",
    ),
    "broken include behind us": (
        txt(f"v=spf1 ip4:{OURS} include:a.d.example -all") | {"a.d.example TXT": "SERVFAIL"}, "pass", 1, 0, "",
    ),
    "broken a": (txt("v=spf1 a -all") | {"d.example A": "REFUSED"}, "temperror", 1, 0, ""),
    "broken mx host": (
        txt("v=spf1 mx -all") | {"d.example MX": ["1 h.example."], "h.example A": "TIMEOUT"}, "temperror", 1, 0, "",
    ),
    "broken ptr": (txt("v=spf1 ptr -all") | {"10.2.0.192.in-addr.arpa PTR": "SERVFAIL"}, "temperror", 1, 0, ""),
}  # fmt: skip


@pytest.mark.parametrize(("zone", "result", "lookups", "voids", "fault"), CASES.values(), ids=list(CASES))
def test_evaluation(zone: Zone, result: str, lookups: int, voids: int, fault: str) -> None:
    verdict = driven(check("d.example", (OURS,)), zone)
    assert verdict.results[OURS].value == result
    assert (verdict.lookups, verdict.voids) == (lookups, voids)
    assert fault in "; ".join(verdict.faults)
    assert bool(verdict.faults) == bool(fault)
    assert bool(verdict.unanswered) == any(isinstance(said, str) for said in zone.values())
    assert not verdict.open_to_all


@pytest.mark.parametrize(
    "record", ["v=spf1 +all", "v=spf1 all", "v=spf1 ip4:0.0.0.0/0 -all", "v=spf1 include:a.d.example -all"]
)
def test_a_record_that_lets_everybody_send(record: str) -> None:
    assert driven(check("d.example", (OURS,)), txt(record, a="v=spf1 +all")).open_to_all


def test_both_families_and_many_addresses_in_one_walk() -> None:
    zone = txt("v=spf1 a mx -all") | {
        "d.example A": [OURS],
        "d.example AAAA": ["2001:db8::11"],
        "d.example MX": ["1 mx.example."],
        "mx.example A": ["192.0.2.11"],
        "mx.example AAAA": [OURS6],
    }
    verdict = driven(check("d.example", (OURS, "192.0.2.11", "192.0.2.12", OURS6, "::ffff:192.0.2.10")), zone)
    assert {address: result.value for address, result in verdict.results.items()} == {
        OURS: "pass",
        "192.0.2.11": "pass",
        "192.0.2.12": "fail",
        OURS6: "pass",
        "::ffff:192.0.2.10": "pass",
    }


def test_a_tree_without_end_ends() -> None:
    """Each record includes two fresh ones: what is asked stays bounded."""
    asked = 0

    def answer(ask: Ask) -> Answer:
        nonlocal asked
        assert isinstance(ask, DnsAsk)
        asked += 1
        return DnsAnswer("NOERROR", (f"v=spf1 include:a{asked}.example include:b{asked}.example -all",))

    assert answered(check("d.example", (OURS,)), answer).results[OURS].value == "permerror"
    assert asked < 60


TERMS = st.sampled_from(
    [f"ip4:{OURS}", "-ip4:192.0.2.0/24", "a", "mx", "a:x.example", "include:a.d.example", "include:b.d.example", "ptr"]
)
RCODES = st.sampled_from(["SERVFAIL", "TIMEOUT", "REFUSED", "ERROR"])


@given(terms=st.lists(TERMS, max_size=6), inner=st.lists(TERMS, max_size=4), broken=st.data())
def test_a_failed_look_up_never_changes_a_verdict_only_takes_it_away(
    terms: list[str], inner: list[str], broken: st.DataObject
) -> None:
    whole = txt(f"v=spf1 {' '.join(terms)} -all", a=f"v=spf1 {' '.join(inner)} -all", b=f"v=spf1 ip4:{OURS} ~all") | {
        "d.example A": ["192.0.2.77"],
        "d.example MX": ["1 mx.example."],
        "mx.example A": [OURS],
    }
    truth = driven(check("d.example", (OURS,)), whole).results[OURS].value
    faults: Zone = {**broken.draw(st.dictionaries(st.sampled_from(list(whole)), RCODES))}
    told = driven(check("d.example", (OURS,)), whole | faults).results[OURS].value
    assert told in {truth, "temperror"}


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(SpfError):
        read_record(f"v=spf1 {text}")
