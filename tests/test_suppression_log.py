"""From lines of the mail log to the list: whose address counts, and whose word."""

from datetime import UTC

import pytest

from parsers.log import LogReader
from policies.engine import Engine
from policies.site import InstanceFacts, Settings
from policies.suppression import Add, Listed, Reason, Rules, Suppressing
from sidecar.rules import load, organizational_domain
from tests.suppression_world import Lists

RULES = load()
NOW = 1_795_000_000.0
HEAD = "Nov 18 11:06:40 mx1 postfix/"
GMAIL = "relay=gmail-smtp-in.l.google.com[192.0.2.9]:25"
GONE = (
    "550-5.1.1 The email account that you tried to reach does not exist. Please try 550 5.1.1 double-checking - gsmtp"
)


def listed_by(*lines: str, settings: Settings | None = None, stepped_at: float = NOW) -> tuple[Lists, Suppressing]:
    """`stepped_at`: what time core has it after each line."""
    lists = Lists()
    suppressing = Suppressing(Rules(), lists)
    engine = Engine(RULES, organizational_domain, settings or Settings(act=True), suppressing=suppressing)
    engine.recipients.learn("gmail.com", "google", now=NOW)
    reader = LogReader(zone=UTC, reference=NOW)
    for line in lines:
        for fact in reader.facts(f"{HEAD}{line}".encode()):
            engine.observe(fact, now=NOW)
            engine.step(now=stepped_at)
    return lists, suppressing


def attempt(
    to: str, reply: str, *, status: str = "bounced", relay: str = GMAIL, dsn: str = "5.1.1", daemon: str = "smtp[7]"
) -> str:
    said = (
        f"host {relay.partition('=')[2].rpartition(':')[0]} said: {reply} (in reply to RCPT TO command)"
        if reply
        else "250 2.0.0 OK"
    )
    return (
        f"{daemon}: 4dBLsL5kbQz1: to={to}, {relay}, delay=1, delays=0.1/0/0.5/0.4, dsn={dsn}, status={status} ({said})"
    )


QUEUED = "qmgr[3]: 4dBLsL5kbQz1: from=<news@shop.example>, size=900, nrcpt=1 (queue active)"


def test_a_bounce_in_the_log_puts_the_final_address_on_the_list() -> None:
    """Rule 9: `to=` was judged; who wrote to the alias may be right to do so."""
    lists, suppressing = listed_by(QUEUED, attempt("<gone@gmail.com>, orig_to=<sales@shop.example>", GONE))
    assert lists.find("gone@gmail.com") == (Listed("global", Reason.HARD_BOUNCE),)
    assert lists.find("sales@shop.example") == ()
    (add,) = suppressing.moves
    assert isinstance(add, Add)
    assert add.evidence.startswith("4dBLsL5kbQz1: to=<gone@gmail.com>, orig_to=")
    assert (add.by_whom, add.provider) == ("google/no-such-user", "google")


def test_a_delivery_in_the_log_takes_it_off() -> None:
    lists, _ = listed_by(
        QUEUED, attempt("<a@gmail.com>", GONE), QUEUED, attempt("<a@gmail.com>", "", status="sent", dsn="2.0.0")
    )
    assert lists.find("a@gmail.com") == ()


@pytest.mark.parametrize(
    "line",
    [
        attempt("<a@gmail.com>", GONE, relay="relay=127.0.0.1[127.0.0.1]:10025"),
        attempt("<a@gmail.com>", GONE, relay="relay=scanner.our.example[192.0.2.77]:25"),
        attempt("<a@gmail.com>", "550 5.7.1 blocked using Spamhaus"),
        attempt("<a@gmail.com>", "550-5.2.1 receiving mail at a rate that 550 5.2.1 prevents additional messages - gsmtp"),
        attempt("<a@gmail.com>", "450 4.2.1 receiving mail too quickly - gsmtp", status="deferred", dsn="4.2.1"),
        'local[9]: 4dBLsL5kbQz1: to=<a@gmail.com>, relay=local, delay=1, delays=0/0/0/1, dsn=5.1.1, status=bounced (unknown user: "a")',
        ("smtp[9]: 4dBLsL5kbQz1: to=<a@gone.example>, relay=none, delay=1, delays=0/0/0/1, dsn=5.4.4, status=bounced "
        "(Host or domain name not found. Name service error for name=gone.example type=MX: Host not found)"),
        ("smtp[9]: 4dBLsL5kbQz1: to=<a@null.example>, relay=none, delay=1, delays=0/0/0/1, dsn=5.1.0, status=bounced "
        "(Domain null.example does not accept mail (nullMX))"),
        ("smtp[9]: 4dBLsL5kbQz1: to=<a@gmail.com>, relay=none, delay=1, delays=0/0/0/1, dsn=4.4.1, status=deferred "
        "(connect to gmail-smtp-in.l.google.com[192.0.2.9]:25: Connection timed out)"),
        attempt("<a@gmail.com>", GONE, status="undeliverable"),
    ],
)  # fmt: skip
def test_what_is_no_word_of_the_recipients_provider_on_the_recipient(line: str) -> None:
    lists, _ = listed_by(QUEUED, line)
    assert not any(lists.entries.values())


def test_behind_a_relay_its_refusals_are_not_the_providers() -> None:
    settings = Settings(act=True, instances={"postfix": InstanceFacts(relayhost=True)})
    relay = "relay=smarthost.example[192.0.2.77]:25"
    lists, _ = listed_by(QUEUED, attempt("<a@gmail.com>", GONE, relay=relay), settings=settings)
    assert not any(lists.entries.values())


def test_while_old_lines_are_caught_up_no_probation_ends() -> None:
    """The outage that they may tell of comes further down."""
    _, suppressing = listed_by(QUEUED, attempt("<a@gmail.com>", GONE), stepped_at=NOW + 7_200)
    assert [type(move) for move in suppressing.moves] == [Add]
    assert suppressing.on_probation == 1
