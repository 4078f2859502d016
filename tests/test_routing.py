"""Routes: what their conditions may ask, that the first one wins, and that those not looked at could not have held."""

import asyncio
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parsers.expression import ExpressionError, parse
from parsers.policy_protocol import DUNNO, Action, Filter, PolicyRequest
from policies.access import Decision
from policies.routing import FIELDS, CompiledRoute, Mail, Route, Routing, compiled, necessary, read_route
from policies.steering import Steered
from sidecar import routes, rules
from sidecar.config import Config, ConfigError
from sidecar.config import Route as Written
from tests.policy_world import OPEN, access_in

MAIL = Mail(
    "google", "Ann@Gmail.com", "gmail.com", "news@mail.shop.example", "mail.shop.example", "shop.example", "newsletter",
    "192.0.2.7", "postfix", 20_000, 1,
)  # fmt: skip


def routing(*when: str) -> Routing:
    """The route number n is called n and leads to out-n."""
    read = (read_route(f"out-{i}", text, name=str(i)) for i, text in enumerate(when))
    return Routing(map(compiled, read), rules.organizational_domain)


def chosen(found: Routing, **differs: Any) -> str | None:
    route = found.transport_for(MAIL._replace(**differs))
    return route.name if route else None


@pytest.mark.parametrize(
    ("when", "holds", "differs"),
    [
        ("provider = google", True, {}),
        ("provider = google", False, {"provider": None}),
        ("provider != yahoo", False, {"provider": None}),
        ("provider in (yahoo, Google)", True, {}),
        ("recipient = ann@gmail.com", True, {}),
        ("recipient_domain = GMAIL.com", True, {}),
        ("sender = NEWS@mail.shop.example", True, {}),
        ('sender = ""', True, {"sender": ""}),
        ("sender_domain = shop.example", False, {}),
        ("sending_domain = shop.example", True, {}),
        ("tenant = newsletter", True, {}),
        ("sasl_username = Newsletter", True, {}),
        ('tenant = ""', True, {"tenant": ""}),
        ("client = 192.0.2.7", True, {}),
        (r"client ~ '^192\.0\.2\.'", True, {}),
        ("instance = postfix", True, {}),
        ("size > 10k and size < 1m", True, {}),
        ("recipients = 1", True, {}),
        ("not (tenant = newsletter)", False, {}),
    ],
)
def test_what_a_route_may_ask(when: str, holds: bool, differs: dict[str, Any]) -> None:  # noqa: FBT001
    assert (chosen(routing(when), **differs) == "0") is holds


def test_the_first_that_holds_wins() -> None:
    found = routing("size > 1m", "tenant = newsletter", "provider = google", "provider = yahoo or size < 1k")
    assert chosen(found) == "1"
    assert chosen(found, tenant="app") == "2"
    assert chosen(found, size=2**21) == "0"
    assert chosen(found, tenant="app", provider="yahoo") == "3"
    assert chosen(found, tenant="app", provider="gmx", size=5) == "3"
    assert chosen(found, tenant="app", provider="gmx") is None


def test_a_header_is_not_known_then() -> None:
    with pytest.raises(ExpressionError, match=r"column 1: unknown field header\.list-id"):
        parse("header.list-id = x", FIELDS)


def test_every_field_can_be_read() -> None:
    """A name that conditions may use and no message has would be an error of each policy answer."""
    for field in FIELDS:
        each = compiled(
            Route("a", "a", parse(f"{field} {'> 0' if field in {'size', 'recipients'} else '!= x'}", FIELDS))
        )
        assert each.holds(MAIL), field


# The index.

VALUES = {
    "provider": ["google", "yahoo"], "tenant": ["app", "shop", ""], "sasl_username": ["app"],
    "sender_domain": ["a.example", "b.example"], "recipient_domain": ["gmail.com"], "recipient": ["x@gmail.com"],
    "client": ["192.0.2.7"],
}  # fmt: skip
TERMS = st.sampled_from(sorted(VALUES)).flatmap(
    lambda field: st.tuples(
        st.just(field), st.sampled_from(["=", "!=", "~", "!~"]), st.sampled_from(VALUES[field])
    ).map(lambda term: f'{term[0]} {term[1]} "{term[2]}"')
) | st.sampled_from(
    ["size > 5", "provider in (google, gmx)", "tenant not in (app, shop)", "sender_domain in (A.example)"]
)
CONDITIONS = st.recursive(
    TERMS,
    lambda inner: (
        st.lists(inner, min_size=2, max_size=3).map(lambda terms: f"({' and '.join(terms)})")
        | st.lists(inner, min_size=2, max_size=3).map(lambda terms: f"({' or '.join(terms)})")
        | inner.map(lambda term: f"not ({term})")
    ),
    max_leaves=6,
)
MAILS = st.builds(
    lambda provider, tenant, domain, client, size: MAIL._replace(
        provider=provider, tenant=tenant, sender_domain=domain, client=client, size=size, recipient="X@gmail.com"
    ),
    st.sampled_from([None, "google", "yahoo", "gmx"]),
    st.sampled_from(["", "app", "APP", "shop"]),
    st.sampled_from(["", "a.example", "b.example"]),
    st.sampled_from(["192.0.2.7", "192.0.2.8"]),
    st.integers(0, 9),
)


def one_by_one(compiled_routes: list[CompiledRoute], mail: Mail) -> Route | None:
    return next((route for route, holds in compiled_routes if holds(mail)), None)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # pyparsing, on a busy machine
@given(st.lists(CONDITIONS, max_size=8), st.lists(MAILS, min_size=1, max_size=8))
def test_looking_at_those_alone_that_can_hold_finds_the_same(conditions: list[str], mails: list[Mail]) -> None:
    made = [compiled(read_route("out", when, name=str(i))) for i, when in enumerate(conditions)]
    found = Routing(made)
    for mail in mails:
        assert found.transport_for(mail) == one_by_one(made, mail)


def test_where_the_domain_decides_alone_nothing_else_is_asked() -> None:
    made = routing("provider = yahoo", "recipient_domain in (a.example, gmail.com) and provider != microsoft")
    assert made.by_domain_alone
    for provider, domain in (
        (None, "a.example"),
        ("yahoo", "aol.com"),
        ("google", "gmail.com"),
        ("microsoft", "a.example"),
    ):
        mail = MAIL._replace(provider=provider, recipient_domain=domain)
        assert made.for_domain(provider, domain) == made.transport_for(mail) == made.for_domain(provider, domain)
    assert not routing("provider = yahoo", "tenant = shop").by_domain_alone


def test_of_many_routes_few_are_looked_at() -> None:
    """What 500 routes cost is what the few cost that a message has a value in common with."""
    asked: list[str] = []

    def counted(route: Route) -> CompiledRoute:
        made = compiled(route)
        return CompiledRoute(route, lambda mail: asked.append(route.name) or made.holds(mail))  # type: ignore[func-returns-value]  # append gives None

    written = [f"tenant = shop{i} and provider in (google, yahoo)" for i in range(499)]
    found = Routing(counted(read_route(f"out-{i}", when)) for i, when in enumerate([*written, "size > 5g"]))
    assert chosen(found, tenant="shop400") == "out-400"
    assert asked == ["out-400"]
    assert chosen(found, tenant="nobody") is None
    assert asked == ["out-400", "out-499"]


@pytest.mark.parametrize(
    ("when", "terms"),
    [
        ("provider = Google", [("provider", {"google"})]),
        ("provider = google and tenant = a", [("tenant", {"a"})]),
        ("provider = google or tenant = a", [("provider", {"google"}), ("tenant", {"a"})]),
        ("provider = google or size > 5", None),
        ("provider != google", None),
        ("not provider = google", None),
        ("size = 5", None),
        ("(provider = google or size > 5) and client in (a, b)", [("client", {"a", "b"})]),
    ],
)
def test_by_what_a_route_is_found(when: str, terms: list[tuple[str, set[str]]] | None) -> None:
    found = necessary(parse(when, FIELDS))
    assert (None if found is None else [(field, set(values)) for field, values in found]) == terms


@pytest.mark.parametrize(
    ("when", "names"),
    [
        ("provider = google", True),
        ("tenant = a", False),
        ("tenant = a and recipient_domain in (gmail.com)", True),
        ("tenant = a or provider = google", False),
        ("provider = google or recipient ~ '@x'", True),
        ("provider != google", False),
        ("recipient_domain !~ x", False),
        ("not provider = google", False),
    ],
)
def test_which_routes_say_whom_they_lead_to(when: str, names: bool) -> None:  # noqa: FBT001
    assert read_route("out", when).names_recipients is names


# In the policy service.


def answer(
    written: Routing, recipients: list[str], *, steering: Any = None, wiring: Any = OPEN, **more: Any
) -> Decision:
    access = access_in(routing=written, wiring={"postfix": wiring}, steering=steering)
    given = {"instance": "1", "sender": "x@else.example", "sasl_username": "newsletter", **more}

    def asked(**attributes: Any) -> PolicyRequest:
        return PolicyRequest.of({name: str(value) for name, value in (given | attributes).items()})

    for recipient in recipients:
        access.decide(asked(protocol_state="RCPT", recipient=recipient), "postfix", now=1e9)
    end = asked(protocol_state="END-OF-MESSAGE", recipient_count=len(recipients), queue_id="4Q1", size=9)
    return access.decide(end, "postfix", now=1e9)


@pytest.mark.parametrize(
    ("when", "recipients", "action"),
    [
        (["tenant = newsletter"], ["a@gmail.com", "b@yahoo.com", "c@nowhere.example"], Filter("out-0")),
        (["tenant = app", "recipients > 1"], ["a@gmail.com", "b@yahoo.com"], Filter("out-1")),
        (["tenant = newsletter and provider = google"], ["a@gmail.com", "b@yahoo.com"], DUNNO),
        (["provider = google", "provider = yahoo"], ["a@gmail.com", "b@yahoo.com"], DUNNO),
        (["recipient = a@gmail.com"], ["a@gmail.com", "b@gmail.com"], DUNNO),
        (["recipient ~ '^[ab]@'"], ["a@gmail.com", "b@gmail.com"], Filter("out-0")),
        (["sender = x@else.example"], ["a@home.example"], DUNNO),
        (["sender = x@else.example"], ["root"], DUNNO),
        (["sender = x@else.example"], ["root@[192.0.2.1]"], DUNNO),
    ],
)
def test_one_answer_for_all_recipients(when: list[str], recipients: list[str], action: Action) -> None:
    assert answer(routing(*when), recipients).action == action


def test_two_routes_to_one_transport_agree() -> None:
    both = [read_route("out", "provider = google", name="g"), read_route("out", "provider = yahoo", name="y")]
    decision = answer(Routing(map(compiled, both)), ["a@gmail.com", "b@yahoo.com"])
    assert (decision.action, decision.rule) == (Filter("out"), "route/g")


@pytest.mark.parametrize(
    ("when", "action"), [("tenant = newsletter", DUNNO), ("tenant = newsletter and provider = google", Filter("out-0"))]
)
def test_where_tables_lead_mail_only_a_route_that_names_recipients_is_answered(when: str, action: Action) -> None:
    """FILTER goes before transport_maps, and past virtual_mailbox_domains: mail would leave that belongs in the house."""
    assert answer(routing(when), ["a@gmail.com"], wiring=OPEN._replace(tables=True)).action == action


class OnePool:
    def __bool__(self) -> bool:
        return False

    def steer(
        self, route: Route | None, mail: Mail, counts: Mapping[str, int], queue_id: str, *, now: float
    ) -> Steered | None:
        if route is None or "gmx" in counts:
            return route and Steered(route, "", "the pool has none for gmx")
        return Steered(route, f"{route.pool}-{mail.sending_domain}-{now:.0f}".replace("000000", ""), f"for {queue_id}")

    def answered(self, transport: str, counts: Mapping[str, int], place: tuple[str, str], *, now: float) -> None:
        pass


def test_a_pool_gives_the_transport() -> None:
    found = Routing([compiled(read_route("pool:bulk", "tenant = newsletter"))], rules.organizational_domain)
    decision = answer(found, ["a@gmail.com", "b@yahoo.com"], steering=OnePool(), sender="x@mail.else.example")
    assert (decision.action, decision.rule) == (Filter("bulk-else.example-1000"), "route/pool:bulk")
    assert decision.why.startswith("all its recipients go over bulk-else.example-1000, for ")
    none = answer(found, ["b@gmx.de"], steering=OnePool())
    assert (none.action, none.why) == (DUNNO, "no route: the pool has none for gmx")
    assert answer(found, ["b@gmail.com"]).action == DUNNO


# From the configuration.


def test_both_forms_of_a_route() -> None:
    config = Config(
        route=(Written("out-google", "google"), Written("out-news", when="tenant = newsletter", name="news"))
    )
    google, news = routes.routes_of(config)
    assert (google.name, google.transport) == ("out-google", "out-google")
    assert (news.name, news.transport) == ("news", "out-news")
    made = asyncio.run(routes.routing_in_turns((google, news)))
    assert made.routes == routes.routing_of((google, news)).routes == (google, news)
    assert chosen(made, provider="yahoo") == "news"
    assert chosen(made) == "out-google"


@pytest.mark.parametrize(
    ("written", "says"),
    [
        (Written("out"), "route[1]: neither of provider and when; wanted one: whose mail goes over out"),
        (Written("out", "google", when="size > 5"), "route[1]: both of provider and when; wanted one"),
        (
            Written("a:b", "google"),
            "route[1].transport: 'a:b'; wanted the name of a transport, as lane-01, or of a pool",
        ),
        (Written("pool:bulk", "google"), "route[1].transport: no pool is called bulk; there is no [[pool]]"),
        (Written("out", when="provder = x"), "route[1].when: column 1: unknown field provder; did you mean provider?"),
    ],
)
def test_bad_routes_are_refused(written: Written, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        routes.routes_of(Config(route=(Written("lane-01", "yahoo"), written)))


def test_pools_that_there_are() -> None:
    (one,) = routes.routes_of(Config(route=(Written("pool:bulk", "google"),)), {"bulk"})
    assert one.pool == "bulk"
    with pytest.raises(ConfigError, match=re.escape("no pool is called bulk; known: a, b")):
        routes.routes_of(Config(route=(Written("pool:bulk", "google"),)), {"a", "b"})


def test_the_document_names_every_field() -> None:
    text = (Path(__file__).parents[1] / "docs" / "routes.md").read_text()
    assert [field for field in FIELDS if f"`{field}`" not in text] == []


@pytest.mark.parametrize(
    ("header", "answer"),
    [
        ("X-Campaign: summer-sale", b"FILTER out-bulk:\n"),
        ("x-campaign-id: Summer-Sale/3", b"FILTER out-bulk:\n"),
        ("X-Campaign: winter", b""),
    ],
)
def test_the_documented_header_check_is_read_by_postfix_as_meant(tmp_path: Path, header: str, answer: bytes) -> None:
    text = (Path(__file__).parents[1] / "docs" / "routes.md").read_text()
    (block,) = re.findall(r"```header_checks\n(.*?)```", text, re.DOTALL)
    table = tmp_path / "header_checks"
    table.write_text(block)
    command = ["postmap", "-c", str(tmp_path), "-q", header, f"regexp:{table}"]
    (tmp_path / "main.cf").touch()
    os.utime(tmp_path / "main.cf", (1, 1))  # Postfix waits for one that was just written
    found = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    assert found.stdout == answer
