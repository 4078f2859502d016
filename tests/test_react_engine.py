"""A reaction at the engine: a domain's mail waits while its sign is there, and leaves by a probe when it has passed."""

from policies.key import Key
from policies.reacting import LEASE, Do, Reactions, Rule, Signal, Subject, Told
from policies.subqueue import State
from tests.world import World

BROKEN = Told(Signal.AUTHENTICATION, Subject.DOMAIN, "shop.example", "*", "s1._domainkey.shop.example: no key")
COMPLAINED = Told(Signal.COMPLAINTS, Subject.DOMAIN, "shop.example", "google", "0.4 % of 9000")
PAUSE = Rule("broken", Signal.AUTHENTICATION, Do.PAUSE)
SLOW = Rule("complained", Signal.COMPLAINTS, Do.SLOW)


def world() -> World:
    return World(lambda *_: None)


def send(made: World, number: int, sender: str = "news@shop.example", to: str = "gmail.com") -> None:
    for i in range(number):
        made.submit(sender, [f"user{i}@{to}"])


def test_a_paused_domain_waits_at_every_provider_until_its_sign_has_passed() -> None:
    made = world()
    reactions = Reactions([PAUSE], made.engine.orders)
    reactions.told([BROKEN], now=made.now)
    send(made, 10)
    send(made, 10, to="comcast.net")
    send(made, 10, sender="shop@steady.example")
    for _ in range(4):
        made.run(LEASE - 60)
        reactions.told([BROKEN], now=made.now)
    assert sum(made.delivered.values()) == 10
    sub = made.engine.subqueues.get(Key("sender-domain", "shop.example", "*"))
    assert sub is not None
    assert (sub.held, sub.machine.state, sub.rule, sub.line) == (20, State.PAUSED, "react/broken", BROKEN.evidence)
    reactions.told([], now=made.now)
    made.run(1_800)
    assert sum(made.delivered.values()) == 30
    assert made.silently_lost == []
    assert made.duplicates == 0


def test_without_another_word_mail_is_tried_again() -> None:
    made = world()
    Reactions([PAUSE], made.engine.orders).told([BROKEN], now=made.now)
    send(made, 10)
    made.run(LEASE - 60)
    assert sum(made.delivered.values()) == 0
    made.run(1_800)
    assert sum(made.delivered.values()) == 10


def test_a_slowed_domain_leaves_by_a_ramp_there_and_at_once_elsewhere() -> None:
    made = world()
    Reactions([SLOW], made.engine.orders).told([COMPLAINED], now=made.now)
    send(made, 20)
    send(made, 20, to="comcast.net")
    made.run(60)
    assert sum(made.delivered.values()) == 20
    made.run(3_600)
    assert sum(made.delivered.values()) == 40
    assert made.silently_lost == []


TSS04 = (
    "host mta5.am0.yahoodns.net[67.195.228.110] said: 421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to"
    " unexpected volume or user complaints - 4.16.55.1 (in reply to MAIL FROM command)"
)


def test_an_address_that_is_refused_pauses_the_host_unless_its_mail_goes_over_another() -> None:
    def opened(*, other: bool) -> list[str]:
        made = World(lambda _, provider, now: TSS04 if provider == "yahoo" else None)  # noqa: ARG005  # at any time
        made.engine.ask_for_others(lambda *_: other)
        send(made, 10, to="yahoo.com")
        made.run(30)
        return [str(key) for key in made.engine.orders.open_keys()]

    assert opened(other=False) == ["ip:192.0.2.1@yahoo"]
    assert opened(other=True) == []
