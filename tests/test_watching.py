"""What core notices beside its work: MX hosts that do not answer, and senders that send the same again."""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.log import LogReader
from policies.figures import Kind
from policies.incidents import Phase
from policies.mx_hosts import HOSTS_MAX, Answered, MxHost, MxHosts
from policies.repeats import IDS_MAX, MESSAGES_MAX, Repeated, Repeats
from policies.watched import figures
from policies.watching import TOLD_MAX, Watching
from tests.lookout_world import World, sound_world

NOW = 1_800_000_000.0
Heard = Callable[..., None]


@pytest.fixture(name="watching")
def _watching() -> Watching:
    return Watching(since=NOW)


@pytest.fixture(name="hear")
def _hear(watching: Watching) -> Heard:
    reader = LogReader(zone=UTC, reference=NOW, syslog_names=())

    def hear(*lines: str, now: float = NOW) -> None:
        for line in lines:
            for fact in reader.block_facts(f"2027-01-15T08:00:00+00:00 mx {line}".encode()):
                watching.observe(fact, now=now)

    return hear


def sent(queue_id: str, recipient: str, *, relay: str = "mx.a.example[192.0.2.1]:25") -> str:
    return (
        f"postfix/smtp[7]: {queue_id}: to=<{recipient}>, relay={relay}, delay=1, delays=0/0/0/1, dsn=2.0.0,"
        " status=sent (250 2.0.0 OK)"
    )


def message(queue_id: str, message_id: str, *recipients: str, sender: str = "x@s.example") -> Iterator[str]:
    yield f"postfix/cleanup[5]: {queue_id}: message-id={message_id}"
    yield f"postfix/qmgr[6]: {queue_id}: from=<{sender}>, size=9, nrcpt={len(recipients)} (queue active)"
    yield from (sent(queue_id, recipient) for recipient in recipients)


def queue_id(number: int) -> str:
    return f"4Z{number:09d}z"


def test_the_same_message_to_one_recipient_twice(watching: Watching, hear: Heard) -> None:
    hear(*message(queue_id(1), "<1@s.example>", "a@r.example", "b@r.example"))
    hear(*message(queue_id(2), "<2@s.example>", "a@r.example"))
    assert watching.repeated(now=NOW) == [Repeated("s.example", 3, 0, "", 1, "<1@s.example>")]
    hear(*message(queue_id(3), "<1@s.example>", "A@r.example", "c@r.example"))
    (told,) = watching.repeated(now=NOW)
    assert (told.delivered, told.again, told.example) == (5, 1, f"<1@s.example> in {queue_id(3)}")
    assert (told.alike, told.alike_id) == (2, "<1@s.example>")


def test_what_passes_a_filter_or_comes_again_in_the_log_is_no_repetition(watching: Watching, hear: Heard) -> None:
    lines = list(message(queue_id(1), "<1@s.example>"))
    hear(*lines, sent(queue_id(1), "a@r.example", relay="127.0.0.1[127.0.0.1]:10024"))
    hear(*message(queue_id(2), "<1@s.example>", "a@r.example"))
    hear(sent(queue_id(2), "a@r.example"))
    (told,) = watching.repeated(now=NOW)
    assert (told.delivered, told.again) == (2, 0)


def test_a_message_without_an_id_is_like_no_other(watching: Watching, hear: Heard) -> None:
    for number in range(5):
        hear(*message(queue_id(number), "<>", "a@r.example"))
    assert watching.repeated(now=NOW) == []


def test_many_messages_with_one_id(watching: Watching, hear: Heard) -> None:
    for number in range(150):
        hear(*message(queue_id(number), "<same@s.example>", f"u{number}@r.example"))
    (told,) = watching.repeated(now=NOW)
    assert (told.alike, told.alike_id, told.again) == (150, "<same@s.example>", 0)
    assert watching.repeated(now=NOW + 2 * 3600) == []


def test_repeats_stay_small(hear: Heard, watching: Watching) -> None:
    for number in range(MESSAGES_MAX + 50):
        hear(f"postfix/cleanup[5]: {queue_id(number)}: message-id=<{number}@s.example>")
    repeats = watching._repeats
    assert len(repeats._ids) == MESSAGES_MAX
    for number in range(IDS_MAX + 50):
        repeats._messages(f"<{number}>", "Q", now=NOW)
    assert len(repeats._alike) == IDS_MAX


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 3)), max_size=60))
def test_no_repetition_is_invented_where_places_are_few(deliveries: list[tuple[int, int, int]]) -> None:
    """(queue id, Message-ID, recipient): a delivery may be forgotten, but none is called a repetition that is none."""
    repeats = Repeats(deliveries=8)
    had: dict[tuple[int, int], set[int]] = {}
    for number, message_id, recipient in deliveries:
        again = repeats._had_it(str(message_id), str(recipient), ("postfix", str(number)))
        assert not again or had[message_id, recipient] - {number}
        had.setdefault((message_id, recipient), set()).add(number)


# MX hosts.


def refused(host: str, reason: str = "Connection timed out") -> str:
    return f"postfix/smtp[7]: connect to {host}[192.0.2.1]:25: {reason}"


def test_hosts_that_cannot_be_reached(watching: Watching, hear: Heard) -> None:
    hear(*[refused("mx.a.example")] * 3, sent(queue_id(1), "a@r.example"))
    hear(refused("mx.a.example", "Network is unreachable"))  # ours
    hear("postfix/smtp[7]: SSL_connect error to mx.a.example[192.0.2.1]:25: -1")
    (host,) = watching.hosts(now=NOW)
    assert host == MxHost("mx.a.example", Answered(1, 3, 1), Answered())
    assert watching.hosts(now=NOW + 3 * 3600) == []


def test_what_is_older_than_an_hour_is_what_was_before(watching: Watching, hear: Heard) -> None:
    hear(*[sent(queue_id(1), "a@r.example")] * 10)
    hear(refused("mx.a.example"), now=NOW + 2 * 3600)
    (host,) = watching.hosts(now=NOW + 2 * 3600)
    assert (host.lately, host.before) == (Answered(0, 1, 0), Answered(10, 0, 0))


def test_hosts_stay_few() -> None:
    hosts = MxHosts(most=3)
    for name in ("a", "b", "c", "a", "d"):
        hosts._of(name)
    assert list(hosts._hosts) == ["c", "a", "d"]
    assert MxHosts()._most == HOSTS_MAX


def test_only_the_worst_are_told(watching: Watching, hear: Heard) -> None:
    hear(*(refused(f"mx{number}.example") for number in range(TOLD_MAX + 5)), refused("mx3.example"))
    told = watching.hosts(now=NOW)
    assert (len(told), told[0].host) == (TOLD_MAX, "mx3.example")


# Figures, and the incident.


def test_nothing_is_known_until_core_has_watched_for_an_hour() -> None:
    also = {(str(Kind.MX), "mx.a.example"), (str(Kind.DOMAIN), "s.example"), (str(Kind.PROVIDER), "google")}
    assert list(figures([], [], also, since=NOW - 60, now=NOW)) == []
    found = {(each.object, each.measure): each.value for each in figures([], [], also, since=NOW - 3700, now=NOW)}
    assert set(found.values()) == {0.0}
    assert len(found) == 4


@pytest.fixture(name="world")
def _world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    yield from sound_world(tmp_path, monkeypatch)


def minutes(world: World, number: int) -> None:
    for _ in range(number):
        world.now += 60
        world.look()


def test_an_mx_host_that_fails_as_it_never_did(world: World) -> None:
    usual = [("mx.well.example", 900, 4, 0, 9_000, 40, 0), ("mx.always.example", 100, 100, 0, 900, 900, 0),
             ("mx.new.example", 0, 300, 0, 0, 0, 0)]  # fmt: skip
    world.noticed = {"since": world.now - 9e5, "hosts": usual, "repeated": []}
    minutes(world, 5)
    assert world.incidents == []
    world.noticed["hosts"] = [("mx.well.example", 500, 400, 0, 9_000, 40, 0)]
    minutes(world, 4)
    (incident,) = world.incidents
    assert incident.title == "44.44% of 900 attempts at the MX host mx.well.example found no connection"
    world.noticed["hosts"] = []
    minutes(world, 5)
    assert world.incidents[0].phase is Phase.CALM


@pytest.mark.parametrize(
    ("row", "titles"),
    [
        (("s.example", 5_000, 4, "", 3, "<x>"), []),
        (("s.example", 100, 50, "", 3, "<x>"), []),
        (("s.example", 5_000, 400, "<1@s.example> in Q7", 3, "<x>"), [
            "8.00% of 5000 deliveries of s.example went to somebody who had the same message: <1@s.example> in Q7"]),
        (("s.example", 500, 0, "", 450, "<1@s.example>"), [
            "s.example sends one message after another with the same Message-ID, 450 so far: <1@s.example>"]),
    ],
    ids=["few", "small", "twice", "alike"],
)  # fmt: skip
def test_a_sender_that_repeats_itself(world: World, row: tuple[object, ...], titles: Iterable[str]) -> None:
    world.noticed = {"since": world.now, "hosts": [], "repeated": [row]}
    minutes(world, 3)
    assert [incident.title for incident in world.incidents] == titles


def test_what_core_of_another_version_noticed_keeps_back_nothing_else(world: World) -> None:
    world.noticed = {"since": world.now, "hosts": [["mx.a.example", 1, 2, 3, 4, 5, 6, 7]], "repeated": [["s.example"]]}
    world.health = {"log_lag_s": 119.0}
    minutes(world, 1)
    world.health = {"log_lag_s": 1000.0}
    minutes(world, 4)
    assert [incident.title for incident in world.incidents] == ["core is 1000 s behind its log"]


def test_errors_of_postfix_are_counted_by_program(watching: Watching, hear: Heard) -> None:
    assert watching.diagnostics["smtpd", "fatal"] == 0
    hear("postfix/smtpd[9]: fatal: no SASL authentication mechanisms", "postfix/smtpd[9]: warning: something odd")
    hear(*(f"postfix/forged{number}[9]: fatal: x" for number in range(1_000)))
    assert watching.diagnostics["smtpd", "fatal"] == 1
    assert watching.diagnostics["smtpd", "warning"] == 1
    assert len(watching.diagnostics) < 200
