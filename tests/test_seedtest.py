"""Seed tests against a real Dovecot: where mail landed, that only ours is taken away, and that no fault is a verdict."""

import asyncio
import json
import socket
import socketserver
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from parsers.feeds.dnsbl import Severity
from parsers.observation import Outcome
from parsers.seed_mailbox import HEADER, Folder, folders, seen, spam_folders
from policies import placement
from policies.conditions import CONDITIONS, Turn, begin, follow
from policies.figures import Kind, told
from policies.grades import State
from policies.placement import DECIDED, Place, SeedMail, observations, placements
from sidecar import outside, seed_imap, seed_mail, seed_tests, wiring_plan
from sidecar.cli import sidecar
from sidecar.config import (
    Config,
    ConfigError,
    ImapConfig,
    ImapTls,
    PostfixConfig,
    Route,
    SeedConfig,
    SeedTestConfig,
    StoreConfig,
)
from sidecar.control import serve_control
from sidecar.database import StoreUnavailable
from sidecar.lab.private_postfix import PrivatePostfix
from sidecar.metrics import Busiest, Figures, OutsideFigures, exposition
from sidecar.outside_store import OutsideStore
from sidecar.postfix import PostfixError
from sidecar.seed_schedule import SeedSchedule, late_of, read_mails
from sidecar.seed_store import SeedStore
from sidecar.seed_tests import SeedTest, check_transport, checked
from tests import dovecot_world
from tests.dovecot_world import Dovecot

real = pytest.mark.postfix  # it needs root, as Dovecot and Postfix change users
SOON = 0.02  # minutes
SENDER = "seedtest@example.com"


@pytest.fixture(name="dovecot", scope="module")
def _dovecot() -> Iterator[Dovecot]:
    with dovecot_world.dovecot() as server:
        yield server


FOLDERS = ("INBOX", "Junk", "Archive", "Werbung")


@pytest.fixture(name="box")
def _box(dovecot: Dovecot) -> Iterator[Dovecot]:
    with dovecot.client() as client:
        for name in FOLDERS[2:]:
            client.create(name)
    yield dovecot
    with dovecot.client() as client:
        for name in FOLDERS:
            client.select(name)
            if client.search(None, "ALL")[1][0]:
                client.store("1:*", "+FLAGS", r"(\Deleted)")
                client.expunge()


def mails_in(box: Dovecot, name: str) -> list[tuple[str, str]]:
    """(tag or subject, flags) of what is in a folder."""
    found = []
    with box.client() as client:
        client.select(name, readonly=True)
        for number in client.search(None, "ALL")[1][0].split():
            (first, *_) = client.fetch(number, "(FLAGS BODY.PEEK[HEADER])")[1]
            assert isinstance(first, tuple)
            header = message_from_bytes(first[1])
            flags = first[0].decode().partition("FLAGS (")[2].partition(")")[0].replace("\\Recent", "").strip()
            found.append((header["Subject"] or header[HEADER], flags))
    return found


@dataclass
class World:
    """Seeds that are one mailbox of Dovecot's, and what was written down."""

    box: Dovecot
    monkeypatch: pytest.MonkeyPatch
    seed: SeedConfig
    written: dict[str, SeedMail] = field(default_factory=dict)
    ended: list[list[SeedMail]] = field(default_factory=list)

    @property
    def config(self) -> Config:
        return Config(seed=(self.seed,), seedtest=SeedTestConfig(sender=SENDER, deadline_minutes=SOON))

    def put(self, mails: Any, ended: bool) -> None:  # noqa: FBT001  # as Put
        self.written |= {mail.tag: mail for mail in mails}
        if ended:
            self.ended.append(list(mails))

    def lands_in(self, *names: str) -> None:
        """Have what is sent lie there at once."""

        def delivered(config: Config, mails: list[SeedMail]) -> list[SeedMail]:
            assert [self.written[mail.tag].place for mail in mails] == [Place.WAITING] * len(mails)
            for mail in mails:
                for name in names:
                    message = seed_mail.template(config)
                    self.box.append(seed_mail.compose(message, mail, sender=SENDER), folder=name)
            return mails

        self.monkeypatch.setattr(seed_tests, "submit_all", delivered)
        self.monkeypatch.setattr(seed_tests, "in_our_queue", lambda _, __: {})

    def test(self, *late: SeedMail) -> SeedMail:
        (mail,) = asyncio.run(SeedTest(self.config, self.put, late=late, first_pause=0.01).run())
        assert self.ended[-1] == [mail]
        return mail


@pytest.fixture(name="world")
def _world(box: Dovecot, monkeypatch: pytest.MonkeyPatch) -> World:
    seed = SeedConfig("reports@dovecot.example", "dovecot", box.config)
    world = World(box, monkeypatch, seed)
    world.lands_in("INBOX")
    return world


LANDINGS: list[tuple[tuple[str, ...], tuple[str, ...], Place, str]] = [
    # where it lies, folders configured for spam, place, folder
    (("INBOX",), (), Place.INBOX, "INBOX"),
    (("Junk",), (), Place.SPAM, "Junk"),
    (("Werbung",), ("Werbung",), Place.SPAM, "Werbung"),
    (("Junk",), ("Werbung",), Place.ELSEWHERE, "Junk"),
    (("Archive",), (), Place.ELSEWHERE, "Archive"),
    (("INBOX", "Archive"), (), Place.INBOX, "INBOX"),
    ((), (), Place.MISSING, ""),
]


@real
@pytest.mark.parametrize(("lies", "spam", "place", "folder"), LANDINGS)
def test_where_it_landed(world: World, lies: tuple[str, ...], spam: tuple[str, ...], place: Place, folder: str) -> None:
    world.seed = replace(world.seed, spam=spam)
    world.lands_in(*lies)
    mail = world.test()
    assert (mail.place, mail.folder, mail.why) == (place, folder, "")
    assert mail.removed == (place is not Place.MISSING)
    assert mail.latency < 30
    assert folder == "" or mails_in(world.box, folder) == []
    assert world.written[mail.tag] == mail


@real
def test_only_what_is_ours_is_taken_away(world: World) -> None:
    others = [b"Subject: a\r\n\r\n", b"Subject: b\r\nX-Sidecar-Seed: 0123456789abcdef\r\n\r\n", b"Subject: c\r\n\r\n"]
    world.box.append(*others)
    with world.box.client() as client:
        client.select("INBOX")
        client.store("3", "+FLAGS", r"(\Deleted)")
        client.unselect()
    assert world.test().place is Place.INBOX
    assert mails_in(world.box, "INBOX") == [("a", ""), ("b", ""), ("c", "\\Deleted")]  # and none of them is read


@real
def test_a_mail_that_came_late_is_taken_down_and_away_by_the_next_test(world: World) -> None:
    world.lands_in()
    missing = world.test()
    late = missing._replace(sent_at=missing.sent_at - 7200.0)
    message = seed_mail.template(world.config)
    world.box.append(seed_mail.compose(message, late, sender=SENDER), folder="Junk")
    world.lands_in("INBOX")
    world.test(late)
    found = world.written[late.tag]
    assert (found.place, found.folder, found.removed) == (Place.SPAM, "Junk", True)
    assert found.latency > 7000
    assert mails_in(world.box, "Junk") == []


@real
def test_what_was_found_and_could_not_be_removed_is_removed_later_and_stays_as_it_was(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(_: seed_imap.Mailbox) -> None:
        raise seed_imap.MailboxError("cut")

    with monkeypatch.context() as broken:
        broken.setattr(seed_imap.Mailbox, "remove", cut)
        first = world.test()
    assert (first.place, first.removed) == (Place.INBOX, False)
    world.test(first)
    assert world.written[first.tag] == first._replace(removed=True)
    assert mails_in(world.box, "INBOX") == []


@real
def test_encrypted(world: World) -> None:
    at_once = replace(world.seed.imap, port=world.box.tls_port, tls=ImapTls.TLS)
    for imap in (at_once, replace(world.seed.imap, tls=ImapTls.STARTTLS)):
        world.seed = replace(world.seed, imap=imap)
        mail = world.test()
        assert mail.place is Place.UNSEEN
        assert "certificate verify failed" in mail.why


FAULTS: dict[str, tuple[dict[str, Any], tuple[str, ...], str]] = {
    "a wrong password": ({"user": "reports", "password_file": "wrong"}, (), "uthentication failed"),
    "no such folder": ({"folder": "Nowhere"}, (), "the server says NO: Mailbox doesn't exist: Nowhere"),
    "no such folder for spam": ({}, ("Spamm",), "no folder Spamm; there is "),
    "nobody there": ({"port": 1}, (), "onnection refused"),
    "no password": ({"password_file": "/nowhere/password"}, (), "No such file"),
}


@real
@pytest.mark.parametrize(("imap", "spam", "why"), FAULTS.values(), ids=list(FAULTS))
def test_a_mailbox_that_cannot_be_looked_into_says_nothing(
    world: World, tmp_path: Path, imap: dict[str, Any], spam: tuple[str, ...], why: str
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("secre")
    given_: dict[str, Any] = {name: str(wrong) if value == "wrong" else value for name, value in imap.items()}
    world.seed = replace(world.seed, spam=spam, imap=replace(world.seed.imap, **given_))
    says_nothing(world.test(), why)


def says_nothing(mail: SeedMail, why: str) -> None:
    assert mail.place is Place.UNSEEN
    assert why in mail.why
    seen_ = {each.measure: each for each in observations([mail])}
    assert {seen_[f"placement.{name}"].outcome for name in ("inbox", "spam", "missing")} == {Outcome.UNKNOWN}
    assert seen_["seed-mailbox"].value == 0.0


def drip(client: socket.socket) -> None:
    client.sendall(b"* OK hello\r\n")
    with client.makefile("rb") as lines:
        lines.readline()
        try:
            while True:
                client.sendall(b"* ")
                time.sleep(0.02)
        except OSError:
            return


TALKS: dict[str, Callable[[socket.socket], None]] = {
    "hangs up": lambda client: client.sendall(b"* OK hello\r\n"),
    "says no IMAP": lambda client: client.sendall(b"SSH-2.0-x\r\n"),
    "drips": drip,
}


@pytest.mark.parametrize("talk", TALKS.values(), ids=list(TALKS))
def test_a_server_that_breaks_off_or_never_ends(tmp_path: Path, talk: Callable[[socket.socket], None]) -> None:
    with dovecot_world.imap_server(tmp_path / "password", talk) as imap:
        seed = SeedConfig("a@b.example", "b", imap)
        with pytest.raises(seed_imap.MailboxError, match=r"reports@127\.0\.0\.1: "), seed_imap.mailbox(seed, whole=0.5):
            pass


def scripted(says: Mapping[str, str], asked: list[str]) -> Callable[[socket.socket], None]:
    def talk(client: socket.socket) -> None:
        client.sendall(b"* OK hello\r\n")
        with client.makefile("r", newline="\r\n") as lines:
            for line in lines:
                tag, _, command = line.strip().partition(" ")
                asked.append(command)
                said = next((text + "\r\n" for name, text in says.items() if command.startswith(name)), "")
                client.sendall(f"{said}{tag} OK done\r\n".encode())

    return talk


def test_a_server_that_can_only_expunge_all_is_not_asked_to(tmp_path: Path) -> None:
    asked: list[str] = []
    header = f"{HEADER}: t1\r\n\r\n"
    says = {
        "CAPABILITY": "* CAPABILITY IMAP4rev1",
        "LIST": '* LIST (\\HasNoChildren) "/" INBOX\r\n* LIST () "/" {4}\r\nSpam',
        "SELECT": "* 1 EXISTS",
        "UID SEARCH": "* SEARCH 7",
        "UID FETCH": f'* 1 FETCH (BODY[HEADER.FIELDS (X-SIDECAR-SEED RECEIVED)] {{{len(header)}}}\r\n{header} UID 7 INTERNALDATE "21-Nov-2026 10:00:00 +0100")',
        "LOGOUT": "* BYE",
    }
    found: list[seed_imap.Landed] = []
    with dovecot_world.imap_server(tmp_path / "password", scripted(says, asked)) as imap:
        seed_imap.look(
            SeedConfig("a@b.example", "b", imap), {"t1"}, since=1795255200.0, everywhere=False, found=found.extend
        )
    assert found == [seed_imap.Landed("t1", Place.INBOX, "INBOX", 1795251600.0)]
    assert "UID STORE 7 +FLAGS.SILENT (\\Deleted)" in asked
    assert "UID SEARCH SINCE 19-Nov-2026" in asked
    assert not [command for command in asked if "EXPUNGE" in command or command.startswith("CLOSE")]


# What a server says.

LISTS: list[tuple[object, Folder | None]] = [
    (b'(\\HasNoChildren) "/" INBOX', Folder("INBOX", frozenset({"\\hasnochildren"}))),
    (b'(\\Junk) "." "Spam \\"x\\""', Folder('Spam "x"', frozenset({"\\junk"}))),
    (b'() NIL "A"', Folder("A", frozenset())),
    ((b'() "/" {4}', b"Spam"), Folder("Spam", frozenset())),
    (b"nonsense", None),
    (None, None),
]


@pytest.mark.parametrize(("line", "folder"), LISTS)
def test_a_line_of_list(line: object, folder: Folder | None) -> None:
    assert folders([line]) == ([folder] if folder else [])


@given(
    st.lists(st.one_of(st.none(), st.binary(max_size=80), st.tuples(st.binary(max_size=40), st.binary(max_size=80))))
)
def test_no_answer_of_a_server_is_an_error(lines: list[object]) -> None:
    assert all(folder.name is not None for folder in folders(lines))
    assert all(mail.uid.isdecimal() for mail in seen(lines))


def test_folders_for_spam() -> None:
    there = [Folder("INBOX", frozenset()), Folder("INBOX.Spam", frozenset()), Folder("Junk", frozenset())]
    marked = [*there, Folder("Unerwünscht", frozenset({"\\junk"}))]
    assert spam_folders(there, ()) == ["INBOX.Spam", "Junk"]
    assert spam_folders(marked, ()) == ["Unerwünscht"]
    assert spam_folders(marked, ("Junk", "Nowhere")) == ["Junk"]


def test_when_it_came_is_the_mailboxs_word_else_the_last_servers() -> None:
    header = (
        b"X-Sidecar-Seed: t\r\nReceived: from a\r\n\tby b; Sat, 21 Nov 2026 10:00:05 +0100\r\nReceived: old; x\r\n\r\n"
    )
    with_date = (b'1 (UID 7 INTERNALDATE " 1-Nov-2026 10:00:00 +0000" BODY[] {9}', header)
    without = (b"1 (UID 8 BODY[] {9}", header)
    assert [mail.arrived_at for mail in seen([with_date, b")", without, b")"])] == [1793527200.0, 1795251605.0]


# What a test says.

PLACES = {
    "all well": ("inbox inbox", 1.0, State.WELL),
    "one of three in spam": ("inbox inbox spam", 2 / 3, Severity.WARNING),
    "half missing": ("inbox missing", 0.5, Severity.ERROR),
    "sorted by a rule": ("elsewhere inbox inbox inbox inbox inbox inbox", 6 / 7, State.BETWEEN),
    "what says nothing does not count": ("inbox unsent unseen waiting", 1.0, State.WELL),
    "nothing says anything": ("unsent unseen", None, State.SILENT),
}
PLACEMENT = next(condition for condition in CONDITIONS if condition.name == "inbox-placement")


def mails_at(places: str) -> list[SeedMail]:
    return [
        SeedMail(f"t{number}", f"{number}@gmx.example", "gmx", "", 100.0, Place(place), arrived_at=107.0)
        for number, place in enumerate(places.split())
    ]


@pytest.mark.parametrize(("places", "share", "wanted"), PLACES.values(), ids=list(PLACES))
def test_what_a_test_says(places: str, share: float | None, wanted: State | Severity) -> None:
    (inbox,) = (each for each in observations(mails_at(places)) if each.measure == "placement.inbox")
    assert inbox.value == pytest.approx(share) if share is not None else inbox.value is None
    figure = told(inbox, stamp=1.0)
    assert figure.kind is Kind.PROVIDER
    assert PLACEMENT.looks_at(figure)
    grade = PLACEMENT.grade(figure)
    assert wanted in {grade.state, grade.severity}


@given(st.lists(st.sampled_from(sorted(set(Place) - DECIDED)), max_size=6), st.lists(st.sampled_from(sorted(DECIDED))))
def test_a_mailbox_that_nobody_saw_changes_no_share(unseen: list[Place], decided: list[Place]) -> None:
    some = placements(mails_at(" ".join(decided)))
    more = placements(mails_at(" ".join([*decided, *unseen])))
    assert [each.share for each in some if each.decided] == [each.share for each in more if each.decided]


def test_two_bad_tests_fire_and_silence_ends_nothing() -> None:
    alert = None
    turns = []
    for number, places in enumerate(("spam", "unseen", "spam", "unseen", "inbox", "unsent", "inbox")):
        (inbox,) = (each for each in observations(mails_at(places)) if each.measure == "placement.inbox")
        figure = told(inbox, stamp=float(number + 1))
        alert, turn = follow(alert or begin(PLACEMENT, figure), PLACEMENT, figure, now=float(number + 1))
        turns.append(turn)
    assert turns == [None, None, Turn.FIRED, None, None, None, Turn.RESOLVED]


def test_transports_are_told_apart() -> None:
    mails = [*mails_at("inbox"), *(mail._replace(transport="lane-01") for mail in mails_at("spam"))]
    keys = {PLACEMENT.dedup_key(told(each, stamp=1.0)) for each in observations(mails) if "inbox" in each.measure}
    assert len(keys) == 2


# A message.


def test_a_message_of_the_sites_own_keeps_its_headers(tmp_path: Path) -> None:
    text = tmp_path / "seed.eml"
    text.write_bytes(
        b"From: News <news@shop.example>\nTo: x@y.example\nList-Id: <a>\nMessage-ID: <1@x>\n\nBuy \xc3\xbc\n"
    )
    config = Config(seedtest=SeedTestConfig(sender=SENDER, message=str(text)))
    mail = SeedMail("t1", "seed@gmx.example", "gmx", "", 1795255200.0)
    made = seed_mail.compose(seed_mail.template(config), mail, sender=SENDER)
    read = message_from_bytes(made)
    assert read.items()[:2] == [("From", "News <news@shop.example>"), ("List-Id", "<a>")]
    assert (read["To"], read["Message-ID"], read[HEADER]) == ("seed@gmx.example", "<t1.seed@example.com>", "t1")
    assert made.endswith(b"Buy \xc3\xbc\r\n")


BAD: dict[str, tuple[Config, str]] = {
    "no sender": (
        Config(seed=(SeedConfig("a@b.example", "b", ImapConfig("h", "u", "p")),)),
        "seedtest.sender: found ''",
    ),
    "no seeds": (Config(seedtest=SeedTestConfig(sender=SENDER, every_hours=6)), "there is no .*seed.* to send to"),
    "no address": (Config(seed=(SeedConfig("a", "b", ImapConfig("h", "u", "p")),)), r"seed\[0\].address: found 'a'"),
    "no port": (
        Config(seedtest=SeedTestConfig(smtp="localhost")),
        "seedtest.smtp: found 'localhost', wanted HOST:PORT",
    ),
}


@pytest.mark.parametrize(("config", "says"), BAD.values(), ids=list(BAD))
def test_bad_settings_of_seeds(config: Config, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        checked(config)


def test_without_the_sites_message_nothing_is_begun() -> None:
    put: list[Any] = []
    seed = SeedConfig("a@b.example", "b", ImapConfig("h", "u", "p"))
    config = Config(seed=(seed,), seedtest=SeedTestConfig(sender=SENDER, message="/nowhere"))
    with pytest.raises(ConfigError, match=r"seedtest\.message: /nowhere: cannot be read"):
        asyncio.run(SeedTest(config, lambda *mails: put.append(mails)).run())
    assert put == []


def test_mail_that_our_postfix_does_not_take_is_unsent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    config = Config(seedtest=SeedTestConfig(sender=SENDER, smtp=f"127.0.0.1:{port}", sendmail="/nowhere/sendmail"))
    for transport in ("", "lane-01"):
        mail = seed_mail.submit(config, SeedMail("t", "a@b.example", "b", transport, 1.0), b"\r\n")
        assert mail.place is Place.UNSENT
        assert "our Postfix did not take it" in mail.why


# Through a real Postfix.


class Provider(socketserver.ThreadingTCPServer):
    """Takes mail by SMTP and files it by the name that the client greets with."""

    daemon_threads = True
    deliver: Callable[[str, bytes], None]


class Session(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Provider)
        self.wfile.write(b"220 provider ESMTP\r\n")
        helo = ""
        for line in self.rfile:
            verb = line.split()[0].upper()
            if verb in {b"HELO", b"EHLO"}:
                helo = line.split()[1].decode()
            if verb == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                data = b"".join(iter(self.rfile.readline, b".\r\n"))
                self.server.deliver(helo, data)
            if helo == "slow.example":
                self.wfile.write(b"451 4.7.1 later\r\n")
            else:
                self.wfile.write(b"250 2.0.0 queued as 1\r\n" if verb != b"QUIT" else b"221 bye\r\n")


@contextmanager
def site(box: Dovecot, *, main_cf: Mapping[str, str] = {}) -> Iterator[tuple[Config, PrivatePostfix]]:
    """A private Postfix with transports junk and slow, whose one provider files mail of junk in Junk."""

    def deliver(helo: str, data: bytes) -> None:
        box.append(data, folder="Junk" if helo == "junk.example" else "INBOX")

    with (
        Provider(("127.0.0.1", 0), Session) as provider,
        tempfile.TemporaryDirectory() as name,
    ):
        provider.deliver = deliver
        thread = threading.Thread(target=provider.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        Path(name).chmod(0o755)  # user postfix must get in
        options = (
            f"-o smtp_tls_security_level=none -o transport_maps= -o relayhost=[127.0.0.1]:{provider.server_address[1]}"
        )
        master = "".join(
            f"{one} unix - - n - - smtp -o smtp_helo_name={one}.example {options}\n" for one in ("junk", "slow")
        )
        relay = {"relayhost": f"[127.0.0.1]:{provider.server_address[1]}", "default_transport": "smtp"}
        sendmail = Path(name) / "sendmail"
        sendmail.write_text(f'#!/bin/sh\nMAIL_CONFIG={name}/etc exec /usr/sbin/sendmail "$@"\n')
        sendmail.chmod(0o755)
        with PrivatePostfix(
            Path(name), main_cf={**relay, "smtp_helo_name": "usual.example", **main_cf}, master_cf=master
        ) as private:
            seed = SeedConfig("reports@dovecot.example", "dovecot", box.config)
            yield (
                Config(
                    seed=(seed,),
                    postfix=PostfixConfig(str(private.config_directory)),
                    seedtest=SeedTestConfig(
                        sender=SENDER, transports=("junk", "slow"), smtp=f"127.0.0.1:{private.port}",
                        sendmail=str(sendmail), deadline_minutes=0.1,
                    ),
                ),
                private,
            )  # fmt: skip
        provider.shutdown()
        thread.join()


MAP = "inline:{seedtest+junk@example.com=junk:, seedtest+slow@example.com=slow:}"


@real
@pytest.mark.parametrize(
    ("transport", "place", "why"),
    [("", Place.INBOX, ""), ("junk", Place.SPAM, ""), ("slow", Place.UNSENT, "in our queue (deferred): ")],
)
def test_a_chosen_transport_through_a_real_postfix(box: Dovecot, transport: str, place: Place, why: str) -> None:
    with site(box, main_cf={wiring_plan.SEED_MAP: MAP}) as (config, _):
        if transport:
            check_transport(config, transport)
        (mail,) = asyncio.run(SeedTest(config, lambda _, __: None, first_pause=0.05).run(transport))
    assert (mail.place, mail.why.startswith(why)) == (place, True)
    assert "4.7.1 later" in mail.why or not why


@real
def test_a_transport_that_postfix_would_not_choose_is_refused(box: Dovecot) -> None:
    with site(box) as (config, private):
        with pytest.raises(ConfigError, match=r"transport nope: in no .* there is junk, slow"):
            check_transport(config, "nope")
        with pytest.raises(ConfigError, match=r"does not send mail from seedtest\+junk@example.com over it"):
            check_transport(config, "junk")
        private.postconf("-e", f"{wiring_plan.SEED_MAP}=nonsense:x")
        with pytest.raises(PostfixError):
            check_transport(config, "junk")


# Kept, shown, by the clock, by hand.


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Iterator[SeedStore]:
    store = SeedStore.open(tmp_path / "outside.db")
    yield store
    store.close()


def test_what_was_written_down_comes_back(store: SeedStore) -> None:
    mails = mails_at("inbox spam missing unsent unseen waiting")
    store.put(mails, now=200.0)
    assert store.since(0.0) == mails
    assert store.last_test() == 0.0
    store.put([mails[0]._replace(removed=True)], ended=True, now=300.0)
    assert store.last_test() == 300.0
    assert [mail.place for mail in store.to_be_found(until=101.0, now=300.0)] == [
        Place.SPAM, Place.MISSING, Place.UNSEEN, Place.WAITING,
    ]  # fmt: skip
    assert store.to_be_found(until=100.0, now=300.0) == []
    store.put([], now=100.0 + 401 * 86_400.0)
    assert store.since(0.0) == []


def test_no_test_takes_away_what_another_still_waits_for(store: SeedStore) -> None:
    store.put([SeedMail("t", "a@b.example", "b", "", 1000.0)], now=1000.0)
    assert late_of(Config(), store, now=1000.0 + 900.0) == []
    assert len(late_of(Config(), store, now=1000.0 + 900.0 + seed_tests.AFTERWARDS + 1)) == 1


def test_the_outside_process_tests_by_the_clock_and_shows_it(
    store: SeedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    class Quick:
        def __init__(self, _: Config, put: seed_tests.Put, *, late: list[SeedMail]) -> None:
            assert late == []
            self.put = put

        async def run(self, transport: str) -> None:
            made.append(transport)
            self.put([mail._replace(transport=transport, sent_at=time.time()) for mail in mails_at("inbox spam")], True)

    monkeypatch.setattr("sidecar.seed_schedule.SeedTest", Quick)
    own = OutsideFigures()
    shown = threading.Event()

    def told_(found: Any) -> None:
        outside._placed(own, found)
        if len(made) == 2:
            shown.set()

    config = Config(seedtest=SeedTestConfig(every_hours=6, transports=("lane-01", "lane-02")))

    async def run() -> None:
        running = asyncio.create_task(SeedSchedule(config, store, told=told_).run())
        assert await asyncio.to_thread(shown.wait, 60)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())
    assert made == ["lane-01", "lane-02"]
    page = exposition(own, Figures(), Busiest()).decode()
    assert 'sidecar_seed_placement_ratio{place="spam",provider="gmx",transport="lane-02"} 0.5' in page
    polls = OutsideStore.open_read_only(tmp_path / "outside.db")
    known = {each.measure: each.value for each in polls.known("seedtest")}
    polls.close()
    assert (known["placement.inbox.lane-01"], known["placement.latency.lane-02"]) == (0.5, 0.0)


@pytest.mark.parametrize("error", [StoreUnavailable("disk full"), IndexError("imaplib")])
def test_a_test_that_fails_ends_nothing_and_is_made_again_later(
    store: SeedStore, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    made: list[str] = []
    tried = asyncio.Event()

    async def fails(*_: object) -> None:
        made.append("")
        tried.set()
        raise error

    monkeypatch.setattr("sidecar.seed_schedule.SeedTest.run", fails)

    async def run() -> None:
        schedule = SeedSchedule(Config(seedtest=SeedTestConfig(every_hours=6)), store, told=lambda _: None)
        running = asyncio.create_task(schedule.run())
        await asyncio.wait_for(tried.wait(), 60)
        assert not (await asyncio.wait({running}, timeout=0.3))[0]
        running.cancel()

    asyncio.run(run())
    assert made == [""]


@real
def test_what_cannot_be_written_down_is_left_where_it_is(world: World) -> None:
    test = SeedTest(world.config, world.put, first_pause=0.01)
    puts: list[int] = []

    def put(mails: Any, ended: bool) -> None:  # noqa: FBT001  # as Put
        world.put(mails, ended)
        puts.append(len(mails))
        if len(puts) == 3:  # what was found
            raise StoreUnavailable("disk full")

    test._put = put
    with pytest.raises(StoreUnavailable, match="disk full"):
        asyncio.run(test.run())
    assert mails_in(world.box, "INBOX") == [("Inbox placement test", "")]


def test_without_a_pace_nothing_is_sent(store: SeedStore) -> None:
    asyncio.run(SeedSchedule(Config(), store, told=lambda _: None).run())


@pytest.mark.parametrize(
    "rows",
    [None, "x", [["a"]], [[*SeedMail("t", "a", "p", "", 1.0)[:5], "nowhere", *SeedMail("t", "a", "p", "", 1.0)[6:]]]],
)
def test_what_is_no_test_mail_is_refused(rows: Any) -> None:
    with pytest.raises(ValueError, match=r"test mail|is not a valid Place"):
        read_mails(rows)


@real
@pytest.mark.parametrize(("folder", "status"), [("INBOX", 0), ("Junk", 1)])
def test_by_hand(world: World, tmp_path: Path, folder: str, status: int) -> None:
    place = world.box.place
    config = tmp_path / "sidecar.toml"
    config.write_text(
        f'runtime_directory = "{tmp_path}"\n[store]\npath = "{tmp_path}"\n'
        f'[seedtest]\nsender = "{SENDER}"\ndeadline_minutes = {SOON}\n'
        f'[[seed]]\naddress = "reports@dovecot.example"\nprovider = "dovecot"\n'
        f'imap = {{ host = "127.0.0.1", user = "reports", password_file = "{place}/password", port = {world.seed.imap.port}, tls = "none" }}\n'
    )
    arguments = ["--config", str(config), "seedtest", "--json"]
    other = CliRunner().invoke(sidecar, [*arguments, "--provider", "gmx"])
    assert (other.exit_code, other.output) == (
        2,
        "sidecar: --provider gmx: no seed is there; there are seeds at dovecot\n",
    )
    away = CliRunner().invoke(sidecar, arguments)
    assert away.exit_code == 3
    assert "the outside process does not run here" in away.output

    def delivered(settings: Config, mails: list[SeedMail]) -> list[SeedMail]:
        for mail in mails:
            world.box.append(seed_mail.compose(seed_mail.template(settings), mail, sender=SENDER), folder=folder)
        return mails

    world.monkeypatch.setattr(seed_tests, "submit_all", delivered)
    world.monkeypatch.setattr(seed_tests, "FIRST_PAUSE", 0.01)

    async def run(*more: str) -> Any:
        store = SeedStore.open(tmp_path / "outside.db")
        server = await serve_control(
            tmp_path / "outside", SeedSchedule(Config(), store, told=lambda _: None).commands()
        )
        try:
            return await asyncio.to_thread(CliRunner().invoke, sidecar, [*arguments, *more])
        finally:
            server.close()
            store.close()

    ran = asyncio.run(run())
    assert ran.exit_code == status, ran.output
    shown = json.loads(ran.output)
    (mail,) = shown["mails"]
    assert (mail["folder"], mail["removed"]) == (folder, True)
    assert shown["providers"][0]["inbox_share"] == float(status == 0)
    assert mails_in(world.box, folder) == []

    (row,) = json.loads(CliRunner().invoke(sidecar, [*arguments, "--trend"]).output)
    assert (row["provider"], row["7d"]["sent"], row["30d"]["inbox_share"]) == ("dovecot", 1, float(status == 0))
    for shows in (["--trend"], ["--provider", "nobody"]):
        ended = CliRunner().invoke(sidecar, [*arguments[:-1], *shows])
        assert ended.exit_code == (2 if "nobody" in shows else 0)
        assert "dovecot" in ended.output


# The wiring.


def test_names_of_what_is_wired() -> None:
    config = Config(
        route=(Route("lane-01", "google"),), seedtest=SeedTestConfig(sender=SENDER, transports=("lane-02",))
    )
    assert wiring_plan.chosen_transports(config) == ["lane-01", "lane-02"]
    assert wiring_plan.sender_on(SENDER, "lane-01") == "seedtest+lane-01@example.com"
    assert wiring_plan.sender_on(SENDER, "") == SENDER
    assert placement.FEED == "seedtest"
    assert StoreConfig().path
