"""List hygiene: a row an address, and what must never be refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.address import domain_of
from parsers.policy_protocol import DUNNO, Info, Reject, RejectUnverified, encode, value_of
from policies.access import Wiring
from policies.audit import Acted
from policies.hygiene import CONFIRM_WITHIN, SAID, Check, Hygiene, Level, Levels, NoHost, NoHosts, is_possible
from policies.strangers import HOLDS, Wanted
from sidecar.config import ConfigError, HygieneConfig, HygieneScopeConfig
from sidecar.hygiene import open_hygiene, packaged
from tests.quota_world import NOW, access, quota, request

ALL = Levels(*[Level.REJECT] * 6)
WARN = Levels(*[Level.WARN] * 6)


def hygiene(levels: Levels = ALL, **settings: frozenset[str] | dict[str, Levels]) -> Hygiene:
    made = Hygiene(levels, packaged(), **settings)  # type: ignore[arg-type]  # as its tests name them
    for domain, why in (("null.example", NoHost.NULL_MX), ("gone.example", NoHost.NOTHING)):
        made.no_hosts.learn(domain, why, ttl=600, now=NOW - 601)
        made.no_hosts.learn(domain, why, ttl=600, now=NOW)
    return made


ROWS = [
    ("a@gmail.com", None),
    ("@gmail.com", Check.SYNTAX),
    ("a@gm ail.com", Check.SYNTAX),
    ("a@gmail..com", Check.SYNTAX),
    ("a@gmail.com,b@gmail.com", None),
    ("a\x01b@gmail.com", Check.SYNTAX),
    ("x" * 65 + "@gmail.com", Check.SYNTAX),
    ("x" * 64 + "@gmail.com", None),
    ("a@" + "x" * 64 + ".com", Check.SYNTAX),
    ("a b=c@gmail.com", None),
    ('q"uote d@gmail.com', None),
    ("a@bücher.example", None),
    ("a@[192.0.2.1]", None),
    ("a@gmail.com.", None),
    ("justuser", None),
    ("justuser@", None),
    ("a@NULL.example", Check.NULL_MX),
    ("a@gone.example", Check.NO_HOST),
    ("a@unknown.example", None),
    ("a@GMIAL.com", Check.TYPO),
    ("a@gmail.con", Check.TYPO),
    ("a@ymail.com", None),
    ("a@gmx.com", None),
    ("a@mailinator.com", Check.DISPOSABLE),
    ("a@sub.mailinator.com", Check.DISPOSABLE),
    ("a@notmailinator.com", None),
    ("Info+x@shop.example", Check.ROLE),
    ("information@shop.example", None),
    ("postmaster@shop.example", None),
    ("abuse@shop.example", None),
]


@pytest.mark.parametrize(("recipient", "check"), ROWS)
def test_what_is_found(recipient: str, check: Check | None) -> None:
    found = hygiene().look(request(recipient=recipient), now=NOW)
    assert (found and found.check) == check
    if found is not None and check is not None:
        assert isinstance(found.action, Reject)
        assert found.action.status == SAID[check].status
        assert encode(found.action)


PIECES = st.sampled_from(
    ["a", "Info", "+", "@", ".", "x" * 64, "\x01", "\xa0", "\xfc", "gmail.com", "GMIAL.com", "mailinator.com", ".con", "null.example",
     "gone.example", "verify.example", "[192.0.2.1]", " "]
)  # fmt: skip


@given(st.lists(PIECES, max_size=6).map("".join))
def test_what_is_passed_over_quickly_has_no_fault(recipient: str) -> None:
    made = hygiene(verify=frozenset({"verify.example"}))
    for _ in range(2):  # the second time from memory
        plain = made._is_plain(recipient)
        faults = made._faults(recipient, domain_of(recipient), ALL, NOW)
        assert not plain or (faults == [] and domain_of(recipient) != "verify.example")
    assert made._is_plain("ann.smith@gmail.com"), "nearly all are"


@pytest.mark.parametrize(("recipient", "check"), [row for row in ROWS if row[1]])
def test_off_is_off_and_a_warning_lets_it_in(recipient: str, check: Check) -> None:
    assert hygiene(Levels()).look(request(recipient=recipient), now=NOW) is None
    found = hygiene(WARN).look(request(recipient=recipient), now=NOW)
    assert found is not None
    assert isinstance(found.action, Info)
    assert found.check is check


def test_a_refusal_goes_before_a_warning() -> None:
    levels = Levels(typo=Level.WARN, role=Level.REJECT)
    found = hygiene(levels).look(request(recipient="info@gmial.com"), now=NOW)
    assert found is not None
    assert found.check is Check.ROLE


def test_a_bounce_is_let_in_wherever_it_goes() -> None:
    assert hygiene().look(request(sender="", recipient="info@gmial.com"), now=NOW) is None


def test_a_tenant_and_a_sending_domain_have_levels_of_their_own() -> None:
    made = hygiene(ALL, by_tenant={"shop": Levels()}, by_sending_domain={"mail.shop.example": WARN})
    assert made.look(request(recipient="info@a.example"), now=NOW) is None
    found = made.look(request(recipient="info@a.example", sasl_username="app"), now=NOW)
    assert found is not None
    assert isinstance(found.action, Info)
    found = made.look(request(recipient="info@a.example", sasl_username="app", sender="a@b.example"), now=NOW)
    assert found is not None
    assert isinstance(found.action, Reject)


def test_chosen_domains_are_verified_by_postfix_itself() -> None:
    found = hygiene(Levels(), verify=frozenset({"yahoo.com"})).look(request(recipient="a@Yahoo.com"), now=NOW)
    assert found is not None
    assert value_of(found.action) == "reject_unverified_recipient"
    access_, _ = access(hygiene=hygiene(Levels(), verify=frozenset({"yahoo.com"})))
    for _ in range(2):  # a lost connection must not let it through
        decision = access_.decide(request(recipient="a@yahoo.com"), "postfix", now=NOW)
        assert (decision.action, decision.rule) == (RejectUnverified(), "hygiene/verify")


def test_domains_of_this_postfix_are_not_judged_and_observing_refuses_nobody() -> None:
    asked = request(recipient="info@home.example")
    assert access(hygiene=hygiene())[0].decide(asked, "postfix", now=NOW).action == DUNNO
    refused = access(hygiene=hygiene())[0].decide(request(recipient="info@a.example"), "postfix", now=NOW)
    assert refused.rule == "hygiene/role"
    assert value_of(refused.action).startswith("REJECT 5.7.1 Recipient refused: ")
    watched = access(hygiene=hygiene(), act=False)[0].decide(request(recipient="info@a.example"), "postfix", now=NOW)
    assert watched.action == DUNNO
    assert watched.why.startswith("observing; would answer REJECT 5.7.1 ")


def test_where_own_domains_are_not_known_nothing_is_judged() -> None:
    found = access(hygiene=hygiene())[0]
    assert found.decide(request(recipient="info@a.example"), "postfix-2", now=NOW).action == DUNNO


def test_what_is_found_is_counted_once_a_recipient_and_not_by_an_admin_who_asks() -> None:
    made = hygiene(WARN)
    found, _ = access(hygiene=made)
    for _ in range(2):
        found.explain(request(recipient="info@a.example"), "postfix", now=NOW)
        found.decide(request(recipient="info@a.example"), "postfix", now=NOW)
    assert made.found["role"] == 1


def test_refusals_are_a_row_of_the_audit_for_each_rule_with_the_first_for_an_example() -> None:
    found, _ = access(quota(burst=1), hygiene=hygiene())
    for recipient in ("info@a.example", "sales@b.example", "x@c.example", "y@c.example", "z@c.example"):
        found.decide(request(recipient=recipient), "postfix", now=NOW)
    assert found.take_acted() == [
        (
            Acted(
                "rejected",
                "hygiene/role",
                "hygiene.role: this is a role, and no person asked for this mail: 'a.example'",
            ),
            2,
        ),
        (Acted("deferred", "quota/q", "quota q, tenant 'shop': 1.0 of 1 in use, 10 recipients an hour"), 2),
    ]
    assert found.take_acted() == []


# What the DNS said.


def test_that_there_is_nothing_counts_when_it_was_said_twice() -> None:
    known = NoHosts()
    known.learn("a.example", NoHost.NOTHING, ttl=600, now=NOW)
    known.learn("a.example", NoHost.NOTHING, ttl=300, now=NOW + 300)  # the same answer, told again
    assert known.of("a.example", now=NOW + 300) is None
    known.learn("a.example", NoHost.NOTHING, ttl=600, now=NOW + 601)
    assert known.of("a.example", now=NOW + 602) is NoHost.NOTHING
    assert known.of("a.example", now=NOW + 1_202) is None, "its time is over"
    known.learn("a.example", NoHost.NOTHING, ttl=600, now=NOW + 9_000)
    assert known.of("a.example", now=NOW + 9_001) is NoHost.NOTHING
    known.learn("a.example", None, ttl=600, now=NOW + 9_002)
    assert known.of("a.example", now=NOW + 9_003) is None
    known.learn("a.example", NoHost.NOTHING, ttl=600, now=NOW + 9_004)
    assert known.of("a.example", now=NOW + 9_005) is None


def test_what_was_said_long_ago_confirms_nothing() -> None:
    known = NoHosts()
    known.learn("a.example", NoHost.NOTHING, ttl=600, now=NOW)
    known.learn("a.example", NoHost.NOTHING, ttl=600, now=NOW + 601 + CONFIRM_WITHIN)
    assert known.of("a.example", now=NOW + 602 + CONFIRM_WITHIN) is None


def test_a_null_mx_counts_at_once() -> None:
    known = NoHosts()
    known.learn("a.example", NoHost.NULL_MX, ttl=600, now=NOW)
    assert known.of("a.example", now=NOW) is NoHost.NULL_MX
    known.learn("a.example", NoHost.NOTHING, ttl=600, now=NOW + 700)
    assert known.of("a.example", now=NOW + 700) is None


def test_an_address_literal_needs_no_dns() -> None:
    known = NoHosts()
    known.learn("[192.0.2.1]", NoHost.NOTHING, ttl=1, now=NOW)
    known.learn("[192.0.2.1]", NoHost.NOTHING, ttl=600, now=NOW + 2)
    assert known.of("[192.0.2.1]", now=NOW + 3) is None


def test_a_name_beyond_ascii_is_not_judged_by_what_the_dns_says() -> None:
    known = NoHosts()
    for later in (0, 601):
        known.learn("bücher.example", NoHost.NOTHING, ttl=600, now=NOW + later)
    assert known.of("bücher.example", now=NOW + 602) is None


def test_memory_of_domains_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policies.hygiene.MAX_DOMAINS", 10)
    known = NoHosts()
    for number in range(50):
        known.learn(f"{number}.example", NoHost.NULL_MX, ttl=600, now=NOW)
    assert len(known) == 10
    assert known.of("49.example", now=NOW) is NoHost.NULL_MX


def test_a_domain_that_nobody_knows_is_wanted() -> None:
    """Asked about by `provider_of`, from where it gets on the list of domains to look up."""
    assert hygiene(ALL).wants_dns
    assert not hygiene(Levels(role=Level.REJECT)).wants_dns
    assert hygiene(Levels(), by_tenant={"a": Levels(null_mx=Level.WARN)}).wants_dns


@given(st.text(max_size=80))
def test_any_text_is_judged(text: str) -> None:
    found = hygiene().look(request(recipient=text), now=NOW)
    assert found is None or encode(found.action)
    assert isinstance(is_possible(text), bool)


# Lists and settings.


def test_our_lists_are_sound() -> None:
    lists = packaged()
    assert not set(lists.typos) & set(lists.typos.values())
    names = {*lists.typos, *lists.typos.values(), *lists.disposable, *lists.roles}
    assert names == {name.lower() for name in names}
    assert not {"postmaster", "abuse"} & lists.roles
    assert len(lists.typos) > 20


def test_lists_of_the_site_take_the_place_of_ours(tmp_path: Path) -> None:
    (tmp_path / "typos").write_text("# ours\nshpo.example shop.example\n\n")
    (tmp_path / "words").write_text("Trash.example # all of it\n")
    made = open_hygiene(
        HygieneConfig(
            typo=Level.REJECT, disposable=Level.REJECT, role=Level.REJECT, typo_file=str(tmp_path / "typos"),
            disposable_file=str(tmp_path / "words"), role_file=str(tmp_path / "words"),
        ),
        file=Path("sidecar.toml"),
    )  # fmt: skip
    assert made is not None
    found = [
        made.look(request(recipient=f"a@{domain}"), now=NOW)
        for domain in ("shpo.example", "trash.example", "gmial.com")
    ]
    assert [each and each.check for each in found] == [Check.TYPO, Check.DISPOSABLE, None]
    assert found[0] is not None
    assert "misspelling of shop.example" in value_of(found[0].action)


def test_all_off_is_nothing_at_all() -> None:
    assert open_hygiene(HygieneConfig(), file=Path("sidecar.toml")) is None
    scoped = HygieneConfig(scope=(HygieneScopeConfig(tenant="a", role=Level.WARN),))
    assert open_hygiene(scoped, file=Path("sidecar.toml")) is not None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"scope": (HygieneScopeConfig(),)}, "x.toml: hygiene.scope[0]: wanted either tenant or sending_domain"),
        ({"scope": (HygieneScopeConfig(tenant="a", sending_domain="b"),)}, "x.toml: hygiene.scope[0]: wanted either"),
        ({"scope": (HygieneScopeConfig("a"), HygieneScopeConfig("a"))}, "x.toml: hygiene.scope[1]: a has a scope"),
        ({"role_file": "/nowhere"}, "x.toml: hygiene.role_file: /nowhere: cannot be read: No such file"),
        ({"typo_file": "{}/bad"}, "line 2: found 'one two three', wanted two domains, the wrong one first"),
        ({"disposable_file": "{}/binary"}, "binary: byte 0 is not UTF-8"),
    ],
)
def test_what_cannot_be_used_is_refused(settings: dict[str, object], says: str, tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("a b\none two three\n")
    (tmp_path / "binary").write_bytes(b"\xff")
    given = {name: value.format(tmp_path) if isinstance(value, str) else value for name, value in settings.items()}
    with pytest.raises(ConfigError) as refused:
        open_hygiene(HygieneConfig(**given), file=Path("x.toml"))  # type: ignore[arg-type]  # rows of settings
    assert says in str(refused.value)


def test_a_domain_is_judged_when_the_tables_of_own_domains_do_not_name_it() -> None:
    made = hygiene()
    found, _ = access(
        hygiene=made, wiring={"postfix": Wiring(True, frozenset(), own_tables=True)}
    )  # as a NamedTuple is made
    asked = request(recipient="info@a.example")
    assert found.decide(asked, "postfix", now=NOW).action == DUNNO, "not known yet"
    assert found.decide(asked._replace(instance="2"), "postfix", now=NOW).action == DUNNO
    assert made.strangers.take() == [Wanted("postfix", "a.example")]
    made.strangers.learn(Wanted("postfix", "a.example"), stranger=True, now=NOW)
    assert found.decide(asked._replace(instance="3"), "postfix", now=NOW).rule == "hygiene/role"
    late = NOW + HOLDS + 1
    assert found.decide(asked._replace(instance="4"), "postfix", now=late).rule == "hygiene/role", "looked for anew"
    assert made.strangers.take() == [Wanted("postfix", "a.example")]
    made.strangers.learn(Wanted("postfix", "a.example"), stranger=False, now=late)
    assert found.decide(asked._replace(instance="5"), "postfix", now=late).action == DUNNO
    made.strangers.learn(Wanted("postfix", "a.example"), stranger=None, now=late)
    assert found.decide(asked._replace(instance="6"), "postfix", now=late).action == DUNNO
    for i in range(2_000):
        made.strangers.is_stranger("postfix", f"d{i}.example", now=late)
    assert len(made.strangers.take()) == 1_000
