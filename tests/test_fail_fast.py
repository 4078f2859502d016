"""Mail whose authentication is broken waits until it is repaired: stories at a modelled queue, and the store between."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from parsers.log import LogReader
from parsers.postfix import facts
from policies.engine import Engine
from policies.fail_fast import LEASE, HoldBroken
from policies.key import Key
from policies.site import Settings
from policies.subqueue import State
from sidecar import rules
from sidecar.rows import gather, restore
from sidecar.store import Store
from tests.world import RULES, World

KEY = Key("dkim-domain", "shop.example", "*")
HOLD = HoldBroken(domains=frozenset({"shop.example"}))
EVIDENCE = "s1._domainkey.shop.example: no key"


def world(judge: Callable[[str, str, float], str | None] = lambda *_: None, hold: HoldBroken = HOLD) -> World:
    made = World(judge, hold_broken=hold)
    for domain in ("shop.example", "steady.example"):
        made.engine.habits.saw("dkim-domain", domain, (domain,))
    return made


def broken(made: World, **other: Any) -> str:
    said = {"looks": 2, "now": made.now} | other
    return made.engine.fail_fast.broken(said.pop("key", KEY), "DKIM", EVIDENCE, **said)


def send(made: World, number: int, sender: str = "news@shop.example", to: str = "gmail.com") -> None:
    for i in range(number):
        made.submit(sender, [f"user{i}@{to}"])


def test_held_at_every_provider_until_it_is_repaired_then_by_the_ramp() -> None:
    made = world()
    assert broken(made) == ""
    send(made, 20)
    send(made, 20, to="comcast.net")
    send(made, 20, sender="shop@steady.example")
    for _ in range(6):  # three hours: each look says it again
        made.run(1_700)
        assert broken(made) == ""
    assert sum(made.delivered.values()) == 20
    sub = made.engine.subqueues.get(KEY)
    assert sub is not None
    assert (sub.held, sub.machine.state, sub.let_out) == (40, State.PAUSED, 0)
    assert made.engine.fail_fast.repaired(KEY, now=made.now)
    made.run(3)
    assert 0 < sub.let_out < 5  # one message first
    made.run(1_800)
    assert sum(made.delivered.values()) == 60
    assert made.silently_lost == []
    assert made.duplicates == 0
    told = [(change.kind, change.by_whom) for change in made.engine.telling.changes if change.key == str(KEY)]
    kinds = [kind for kind, _ in told]
    assert kinds.index("opened") < kinds.index("probing") < kinds.index("ramping")
    assert ("opened", "authentication") in told
    opened = next(change for change in made.engine.telling.changes if change.kind == "opened")
    assert (opened.rule, opened.line) == ("authentication/dkim", EVIDENCE)


def test_the_ramp_begins_near_the_pace_of_before() -> None:
    made = world()
    for second in range(60):
        for to in ("gmail.com", "comcast.net", "yahoo.com"):
            made.at(made.now + second, lambda to=to: send(made, 2, to=to))  # type: ignore[misc]
    made.run(62)
    broken(made)
    send(made, 100)
    made.engine.fail_fast.repaired(KEY, now=made.now)
    made.run(10)
    sub = made.engine.subqueues.get(KEY)
    assert sub is not None
    assert 3.0 < sub.machine.budget_per_s < 8.0  # it was 6 messages a second


def test_a_message_for_an_unknown_provider_waits_as_well() -> None:
    made = world()
    broken(made)
    queue_id = made.submit("news@shop.example", ["a@gmail.com", "b@comcast.net"])
    assert made.files[queue_id].queue == "hold"
    assert made.engine.recipients.of_domain("unheard-of.example", now=made.now) is None
    assert made.files[made.submit("news@shop.example", ["x@unheard-of.example"])].queue == "hold"


def test_what_waits_in_the_queue_is_taken_too() -> None:
    made = world(lambda *_: "451 4.3.0 try again later")
    send(made, 10)
    made.run(60)
    broken(made)
    made.run(60)
    assert {file.queue for file in made.files.values()} == {"hold"}


def test_nobody_says_it_any_more_and_mail_is_tried() -> None:
    made = world()
    broken(made)
    send(made, 10)
    made.run(LEASE - 60)
    assert not made.delivered
    made.run(1_800)
    assert sum(made.delivered.values()) == 10


REFUSED: dict[str, tuple[dict[str, Any], HoldBroken, str]] = {
    "one look": ({"looks": 1}, HOLD, "found 1 time(s), wanted 2 looks in a row"),
    "off": ({}, HoldBroken(), "not held: authentication.hold is off for it"),
    "another domain": (
        {"key": Key("dkim-domain", "x.example", "*")},
        HOLD,
        "not held: authentication.hold is off for it",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_not_held(name: str) -> None:
    said, hold, why = REFUSED[name]
    made = world(hold=hold)
    assert broken(made, **said) == why
    send(made, 5)
    made.run(60)
    assert sum(made.delivered.values()) == 5
    assert not made.engine.telling.changes


@pytest.mark.parametrize("key", [Key("dkim-domain", "shop.example", "google"), Key("host", "mx1", "*")])
def test_nobody_may_ask_for_another_key(key: Key) -> None:
    with pytest.raises(ValueError, match="wanted"):
        broken(world(), key=key)


@pytest.mark.parametrize(
    ("domain", "wanted"),
    [("shop.example", True), ("news.shop.example", True), ("workshop.example", False), ("example", False)],
)
def test_domains_and_what_is_below_them(domain: str, *, wanted: bool) -> None:
    assert HOLD.wants(domain) is wanted
    assert HoldBroken(everybody=True).wants(domain)


@pytest.mark.parametrize("by_hand", ["release", "release all", "close"])
def test_an_admin_wants_it_sent_all_the_same(by_hand: str) -> None:
    made = world()
    broken(made)
    send(made, 20)
    made.run(60)
    if by_hand == "close":
        assert made.engine.orders.close(KEY, by_whom="anna", now=made.now)
    else:
        assert made.engine.orders.release(KEY if by_hand == "release" else None, by_whom="anna", now=made.now) == 20
    made.run(60)
    assert broken(made) == "let go by anna until it is repaired"
    send(made, 20)
    made.run(60)
    assert sum(made.delivered.values()) == 40
    assert not made.engine.fail_fast.repaired(KEY, now=made.now)  # nothing was held
    assert broken(made) == ""  # and broken anew
    send(made, 1)
    made.run(60)
    assert sum(made.delivered.values()) == 40


def test_an_admins_own_pause_does_not_end_with_the_repair() -> None:
    made = world()
    made.engine.orders.pause(KEY, 50_000, by_whom="anna", now=made.now)
    broken(made)
    assert not made.engine.fail_fast.repaired(KEY, now=made.now)
    sub = made.engine.subqueues.get(KEY)
    assert sub is not None
    assert sub.machine.state is State.PAUSED
    assert sub.machine.next_step_at == made.now + 50_000


def test_what_is_broken_and_who_let_it_go_outlives_a_restart(tmp_path: Path) -> None:
    other = Key("spf-domain", "news.shop.example", "*")
    made = world()
    broken(made)
    broken(made, key=other)
    made.engine.orders.release(other, by_whom="anna", now=made.now)
    store = Store.open(tmp_path / "core.db")
    commit = gather(made.engine, None, now=made.now)
    assert commit is not None
    store.commit(commit)
    again = Engine(RULES, rules.organizational_domain, Settings(act=True, hold_broken=HOLD))
    restore(again, store)
    assert {row.key: row.let_go_by for row in again.fail_fast.known()} == {KEY: "", other: "anna"}
    sub = again.subqueues.get(KEY)
    assert sub is not None
    assert sub.machine.state is State.PAUSED
    off = Engine(RULES, rules.organizational_domain, Settings(act=True))  # the setting is off now
    restore(off, store)
    assert off.fail_fast.known() == []
    assert set(off.fail_fast.changed) == {KEY, other}
    again.fail_fast.repaired(KEY, now=made.now)
    again.fail_fast.repaired(other, now=made.now)
    commit = gather(again, None, now=made.now)
    assert commit is not None
    store.commit(commit)
    assert store.broken() == []
    store.close()


# A reply that wants a repair.

NO_DKIM = (
    "550-5.7.30 This mail has been blocked because DKIM authentication didn't pass. The sender domain [shop.example] "
    "550 5.7.30 must pass. https://support.google.com/mail/answer/81126 - gsmtp"
)


def _refuses(fixed: list[bool]) -> Callable[[str, str, float], str | None]:
    return lambda domain, provider, _: (
        NO_DKIM if domain == "shop.example" and provider == "google" and not fixed else None
    )


def test_a_reply_that_wants_a_repair_holds_at_that_provider() -> None:
    fixed: list[bool] = []
    made = world(_refuses(fixed))
    send(made, 40)
    send(made, 5, to="comcast.net")
    made.run(LEASE - 60)
    (sub,) = made.engine.subqueues.all()
    assert sub.key.provider == "google"
    assert sub.machine.state is State.PAUSED
    assert sub.let_out == 0
    assert sub.held > 0
    assert sum(made.delivered.values()) == 5
    fixed.append(True)
    made.run(3_600)
    assert sum(made.delivered.values()) == 45
    assert made.silently_lost == []


def test_it_only_alerts_where_nothing_is_configured() -> None:
    made = world(_refuses([]), hold=HoldBroken())
    send(made, 40)
    made.run(60)
    assert not made.engine.subqueues
    assert not [file for file in made.files.values() if file.queue == "hold"]


def test_one_odd_reply_is_not_believed() -> None:
    made = world(_refuses([]))
    send(made, 2)
    made.run(60)
    assert not made.engine.subqueues


def test_our_own_look_finds_it_repaired_and_the_provider_is_asked_at_once() -> None:
    fixed: list[bool] = []
    made = world(_refuses(fixed))
    send(made, 40)
    made.run(60)
    (sub,) = made.engine.subqueues.all()
    broken(made, key=Key(*sub.key[:2], "*"))
    fixed.append(True)
    assert made.engine.fail_fast.repaired(Key(*sub.key[:2], "*"), now=made.now)
    made.run(1_200)
    assert sum(made.delivered.values()) == 40


def test_what_an_admin_lets_go_is_not_held_again_by_the_next_refusals() -> None:
    """Not before the provider takes such mail again, and an hour without such a refusal has passed."""
    for by_hand in ("release", "release all", "close"):
        fixed: list[bool] = []
        made = world(_refuses(fixed))
        send(made, 40)
        made.run(60)
        (sub,) = made.engine.subqueues.all()
        key, held = sub.key, sub.held
        assert held > 0
        if by_hand == "close":
            assert made.engine.orders.close(key, by_whom="anna", now=made.now)
        else:
            assert (
                made.engine.orders.release(key if by_hand == "release" else None, by_whom="anna", now=made.now) == held
            )
        for _ in range(12):  # an hour and more: what was held, and new mail, is refused as often as Postfix tries
            send(made, 3)
            made.run(330)
            assert not made.engine.subqueues
        assert not [file for file in made.files.values() if file.queue == "hold"]
        (row,) = made.engine.fail_fast.known()
        assert (row.key, row.let_go_by, row.rule) == (key, "anna", "google/dkim-failed")
        assert made.engine.fail_fast.held == []  # nobody's look found it
        fixed.append(True)
        made.run(600)
        send(made, 1)
        made.run(60)
        assert made.engine.fail_fast.known()  # ten minutes may be chance
        made.run(3_600)
        send(made, 1)
        made.run(60)
        assert made.engine.fail_fast.known() == []
        fixed.clear()
        send(made, 5)
        made.run(60)
        assert made.engine.subqueues.get(key) is not None  # broken anew
        assert made.silently_lost == []


def test_mail_of_others_does_not_end_it() -> None:
    made = world(_refuses([]))
    send(made, 5)
    made.run(60)
    made.engine.orders.release(None, by_whom="anna", now=made.now)
    for _ in range(3):
        made.run(3_000)
        send(made, 2, sender="shop@steady.example")
        send(made, 2, to="comcast.net")
    assert [row.let_go_by for row in made.engine.fail_fast.known()] == ["anna"]


def test_what_was_let_go_at_every_provider_is_not_held_by_one_of_them() -> None:
    made = world(_refuses([]))
    broken(made)
    made.engine.orders.release(KEY, by_whom="anna", now=made.now)
    send(made, 20)
    made.run(300)
    assert not made.engine.subqueues
    assert made.engine.fail_fast.repaired(KEY, now=made.now) is False  # it was not held
    send(made, 5)
    made.run(60)
    assert [str(sub.key) for sub in made.engine.subqueues.all()] == ["spf-domain:shop.example@google"]


def test_what_our_own_look_finds_repaired_is_let_go_by_nobody_any_more() -> None:
    made = world(_refuses([]))
    send(made, 5)
    made.run(60)
    broken(made)
    made.engine.orders.release(None, by_whom="anna", now=made.now)
    assert {row.let_go_by for row in made.engine.fail_fast.known()} == {"anna"}
    assert len(made.engine.fail_fast.known()) == 2
    made.engine.fail_fast.repaired(KEY, now=made.now)
    assert made.engine.fail_fast.known() == []


def test_who_let_it_go_at_a_provider_outlives_a_restart(tmp_path: Path) -> None:
    made = world(_refuses([]))
    send(made, 5)
    made.run(60)
    made.engine.orders.release(None, by_whom="anna", now=made.now)
    store = Store.open(tmp_path / "core.db")
    commit = gather(made.engine, None, now=made.now)
    assert commit is not None
    store.commit(commit)
    again = Engine(RULES, rules.organizational_domain, Settings(act=True, hold_broken=HOLD))
    restore(again, store)
    store.close()
    again.fail_fast.accepted("google", lambda _: True, now=made.now + 7_000)
    assert again.fail_fast.known()  # who knows when it was refused last: an hour from here
    assert again.fail_fast.passes(Key("spf-domain", "shop.example", "google"), now=made.now + 8_000)
    assert not again.fail_fast.passes(Key("spf-domain", "shop.example", "yahoo"), now=made.now + 8_000)
    again.fail_fast.accepted("google", lambda _: True, now=made.now + 11_000)
    assert again.fail_fast.known()
    again.fail_fast.accepted("yahoo", lambda _: True, now=made.now + 11_700)
    assert again.fail_fast.known()
    again.fail_fast.accepted("google", lambda _: True, now=made.now + 11_700)
    assert again.fail_fast.known() == []


# A reply that wants a repair of this host's own: its name in the DNS, or TLS.

HOST = Key("host", "this-host", "google")
EVERYBODY = HoldBroken(everybody=True)
NO_PTR = (
    "550-5.7.25 [192.0.2.10] The IP address sending this message does not have a PTR record setup. 550 5.7.25 - gsmtp"
)
NO_TLS = "421 4.7.29 Your email has been rate limited because you're not using a TLS connection. - gsmtp"
OF_THE_HOST = {
    "no PTR": (NO_PTR, EVERYBODY, "authentication.ptr"),
    "no PTR, for now": (NO_PTR.replace("550", "421").replace("5.7.25", "4.7.25"), EVERYBODY, "authentication.ptr"),
    "no TLS": (NO_TLS, EVERYBODY, "infrastructure.tls"),
    "no TLS, for good": (
        "550 5.7.29 This message was blocked because it wasn't sent over a TLS connection. - gsmtp",
        EVERYBODY,
        "infrastructure.tls",
    ),
    "STARTTLS first": ("530 5.7.0 Must issue a STARTTLS command first. - gsmtp", EVERYBODY, "infrastructure.tls"),
    "PTR, but only some domains are held for": (NO_PTR, HOLD, ""),
    "TLS, but only some domains are held for": (NO_TLS, HOLD, ""),
    "TLS, but nobody is held for": (NO_TLS, HoldBroken(), ""),
    "STARTTLS first, as Postfix says it": (
        "530 5.7.0 Must issue a STARTTLS command first",
        EVERYBODY,
        "infrastructure.tls",
    ),
    "AUTH wants TLS": ("538 5.7.11 Encryption required for requested authentication mechanism", EVERYBODY, ""),
    "one recipient's domain wants TLS": (
        "421 4.7.0 TLS required for RCPT domain, closing connection. - gsmtp",
        EVERYBODY,
        "",
    ),
    "their TLS is broken": ("450 4.7.5 Remote certificate failed MTA-STS validation", EVERYBODY, ""),
}


@pytest.mark.parametrize("name", OF_THE_HOST)
def test_which_replies_hold_all_mail_to_a_provider(name: str) -> None:
    reply, hold, leaf = OF_THE_HOST[name]
    made = world(lambda _, provider, __: reply if provider == "google" else None, hold=hold)
    send(made, 5)
    send(made, 5, to="comcast.net")
    made.run(60)
    assert [(each.key, each.detail) for each in made.engine.repairs.waiting()] == ([(HOST, leaf)] if leaf else [])
    assert bool(made.engine.subqueues) is bool(leaf)
    send(made, 5, sender="shop@steady.example")
    send(made, 5, sender="shop@steady.example", to="comcast.net")
    made.run(60)
    on_hold = [file for file in made.files.values() if file.queue == "hold"]
    assert bool(on_hold) is bool(leaf)
    assert sum(made.delivered.values()) == 10


def test_tls_that_lacks_now_and_then_holds_nothing() -> None:
    """Most of our mail goes over TLS: what is refused has another reason than a setting of ours."""
    number = iter(range(10_000))
    made = world(
        lambda _, provider, __: NO_TLS if provider == "google" and next(number) % 5 == 4 else None, hold=EVERYBODY
    )
    for _ in range(40):
        send(made, 5)
        made.run(5)
    assert not made.engine.subqueues
    assert made.deferrals > 30


def _seen(made: World, role: str, host: str) -> None:
    made.say(lambda r: facts.TlsEstablished(r, "", role, "Trusted", "TLSv1.3", "x", 256, host, "192.0.2.1", 25), "smtp")


def test_held_without_a_probe_while_somebody_sees_it_broken_then_by_the_ramp() -> None:
    fixed: list[bool] = []
    made = world(lambda _, provider, __: None if fixed or provider != "google" else NO_TLS, hold=EVERYBODY)
    send(made, 20)
    made.run(60)
    (sub,) = made.engine.subqueues.all()
    for _ in range(6):  # three hours
        assert made.engine.repairs.wait_on(HOST, now=made.now)
        made.run(1_700)
    assert sub.let_out == 0
    _seen(made, "client", "mx1a1.comcast.net")
    _seen(made, "server", "gmail-smtp-in.l.google.com")
    assert [each.key for each in made.engine.repairs.waiting()] == [HOST]
    fixed.append(True)
    _seen(made, "client", "gmail-smtp-in.l.google.com")  # as of mail that is not ours to hold
    assert sub.machine.state is State.PROBING
    assert not made.engine.repairs.wait_on(HOST, now=made.now)
    made.run(1_800)
    assert sum(made.delivered.values()) == 20
    assert made.duplicates == 0
    assert made.silently_lost == []
    kinds = [change.kind for change in made.engine.telling.changes if change.key == str(HOST)]
    assert kinds.index("opened") < kinds.index("probing") < kinds.index("ramping")


def test_the_lines_of_a_log_open_hold_and_end_it() -> None:
    """As Postfix writes them, with smtp_tls_loglevel = 1."""
    engine = Engine(RULES, rules.organizational_domain, Settings(act=True, host="mx1", hold_broken=EVERYBODY))
    reader, base = LogReader(zone=UTC), datetime(2026, 11, 22, tzinfo=UTC).timestamp()

    def observe(second: int, daemon: str, text: str) -> None:
        stamp = datetime.fromtimestamp(base + second, UTC).isoformat()
        for fact in reader.facts(f"{stamp} mx1 postfix/{daemon}[77]: {text}".encode()):
            engine.observe(fact, now=fact.record.time)

    for number in range(4):
        queue_id = f"4WzBBBBBBBB{number}zB"
        observe(number, "qmgr", f"{queue_id}: from=<news@shop.example>, size=900, nrcpt=1 (queue active)")
        observe(
            number,
            "smtp",
            f"{queue_id}: to=<u{number}@gmail.com>, relay=gmail-smtp-in.l.google.com[192.0.2.1]:25, delay=0.4, "
            f"delays=0.1/0/0.2/0.1, dsn=4.7.29, status=deferred (host gmail-smtp-in.l.google.com[192.0.2.1] said: "
            f"{NO_TLS} (in reply to end of DATA command))",
        )
    key = Key("host", "mx1", "google")
    assert [(each.key, each.detail) for each in engine.repairs.waiting()] == [(key, "infrastructure.tls")]
    established = (
        "TLS connection established {}[192.0.2.1]:25: TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)"
    )
    observe(60, "smtpd", f"Anonymous {established.format('from gmail-smtp-in.l.google.com')}")
    observe(61, "smtp", f"Trusted {established.format('to mx1a1.comcast.net')}")
    assert engine.repairs.waiting()
    observe(62, "smtp", f"Trusted {established.format('to gmail-smtp-in.l.google.com')}")
    sub = engine.subqueues.get(key)
    assert sub is not None
    assert sub.machine.state is State.PROBING


def test_tls_with_a_provider_says_nothing_of_a_missing_ptr() -> None:
    made = world(lambda _, provider, __: NO_PTR if provider == "google" else None, hold=EVERYBODY)
    send(made, 5)
    made.run(60)
    _seen(made, "client", "gmail-smtp-in.l.google.com")
    (sub,) = made.engine.subqueues.all()
    assert sub.machine.state is State.PAUSED


def test_only_what_waits_for_the_host_can_be_waited_on() -> None:
    made = world(_refuses([]))
    send(made, 5)
    made.run(60)
    (sub,) = made.engine.subqueues.all()
    assert made.engine.repairs.waiting() == []
    assert not made.engine.repairs.wait_on(sub.key, now=made.now)
    assert not made.engine.repairs.wait_on(HOST, now=made.now)
    assert made.engine.subqueues.get(HOST) is None
