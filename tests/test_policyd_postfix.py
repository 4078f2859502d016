"""The policy service under a real smtpd: what it asks, what it makes of our answers, and what it does without us."""

import asyncio
import contextlib
import signal
import smtplib
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path

import pytest

from parsers.log import LogReader
from parsers.policy_protocol import (
    DUNNO,
    Action,
    DeferIfPermit,
    Discard,
    Filter,
    Hold,
    Info,
    PolicyConnection,
    Reject,
    encode,
    read_request,
)
from parsers.postfix.facts import Filtered, Held
from policies import access as access_module
from policies.access import Access, Decision, held_key, hold_text
from policies.admission import Admission
from policies.buckets import Quotas
from policies.hygiene import Hygiene, Level, Levels
from policies.quota import Per
from sidecar.hygiene import packaged
from sidecar.lab.private_postfix import PrivatePostfix
from sidecar.policy_sockets import BACKLOG, Listener
from sidecar.policyd import PolicyServer, serve
from tests.policy_world import KEY, RULE, World, access_in
from tests.quota_world import quota
from tests.test_refusals import DEAD, OTHER, suppressing

pytestmark = pytest.mark.postfix

ROOT = Path(__file__).parent.parent
CHECK = "check_policy_service {{ unix:private/{}, timeout=3s, default_action=DUNNO }}"
WITH_US = CHECK.format("sidecar")
LATER = "check_recipient_access inline:{refused@yahoo.com=REJECT}"
SETTINGS = {
    "smtpd_recipient_restrictions": f"{WITH_US}, {LATER}",
    "smtpd_data_restrictions": WITH_US,
    "smtpd_end_of_data_restrictions": WITH_US,
    "smtpd_delay_open_until_valid_rcpt": "yes",
}
LANE = "lane-02 unix - - n - - discard -o syslog_name=postfix/lane-02\n"


@contextlib.contextmanager
def private_postfix(**more: str) -> Iterator[PrivatePostfix]:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)  # user postfix must get in
        with PrivatePostfix(Path(name), main_cf=SETTINGS | more, master_cf=LANE) as postfix:
            yield postfix


@pytest.fixture(scope="module")
def postfix() -> Iterator[PrivatePostfix]:
    with private_postfix() as started:
        yield started


@contextlib.contextmanager
def served(postfix: PrivatePostfix, access: Access) -> Iterator[PolicyServer]:
    """The policy service in a thread of its own."""
    loop, ready = asyncio.new_event_loop(), threading.Event()
    servers: list[PolicyServer] = []
    stop = asyncio.Event()

    async def run() -> None:
        servers.append(await serve(access, [Listener("unix:private/sidecar", postfix.queue_directory)]))
        ready.set()
        await stop.wait()
        await servers[0].close()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    assert ready.wait(60)
    try:
        yield servers[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


class Log:
    """What Postfix has logged since this was made."""

    def __init__(self, postfix: PrivatePostfix) -> None:
        self._file = postfix.maillog
        self._from = len(self._file.read_text())

    def lines(self) -> list[str]:
        return self._file.read_text()[self._from :].splitlines()

    def until(self, true: Callable[[str], bool], *, count: int = 1) -> list[str]:
        """Wait until so many lines are so."""
        end = time.monotonic() + 60
        while len(found := [line for line in self.lines() if true(line)]) < count:
            assert time.monotonic() < end, "\n".join(self.lines())
            time.sleep(0.02)
        return found

    def delivered(self, *, to: str) -> str:
        """Wait for a recipient's delivery; gives the transport."""
        (line,) = self.until(lambda line: f"to=<{to}>" in line and "status=sent" in line)
        return "lane-02" if "postfix/lane-02/" in line else "default"

    def troubles(self) -> list[str]:
        return [line for line in self.lines() if "warning:" in line or "fatal:" in line]


def send(postfix: PrivatePostfix, sender: str, *recipients: str) -> dict[str, tuple[int, bytes]]:
    """Send one message; gives the reply to each RCPT ("." for the reply to the message)."""
    replies: dict[str, tuple[int, bytes]] = {}
    with smtplib.SMTP("127.0.0.1", postfix.port) as client:
        client.ehlo()
        client.mail(sender)
        for recipient in recipients:
            replies[recipient] = client.rcpt(recipient)
        try:
            replies["."] = client.data("Subject: a\r\n\r\nb\r\n")
        except smtplib.SMTPDataError as error:
            replies["."] = (error.smtp_code, error.smtp_error if isinstance(error.smtp_error, bytes) else b"")
    return replies


def script(monkeypatch: pytest.MonkeyPatch, state: str, action: Action) -> None:
    """One thing is said at one state; nobody is asked what he thinks."""
    for each in ("RCPT", "DATA", "END-OF-MESSAGE"):
        said = Decision(action, "", "scripted", "") if each == state else Decision(DUNNO, "", "", "")
        monkeypatch.setitem(access_module._STATES, each, lambda *_, said=said: said)


# Every action that the encoder has, at every state where we may be asked; what becomes of the message.
OUTCOMES: list[tuple[Action, str, int]] = [
    (DUNNO, "sent", 250),
    (Info("sidecar would answer HOLD sidecar a:b@c (d/e)"), "sent", 250),
    (Hold(hold_text(KEY, RULE)), "held", 250),
    (Filter("lane-02"), "lane-02", 250),
    (Reject("5.7.1", "suppressed: see https://example.com/why?a=b"), "refused", 554),
    (Reject("5.1.1", "unzustellbar für " + "ü" * 180), "refused", 554),
    (Info("x" * 395), "sent", 250),
    (DeferIfPermit("4.7.1", "google is deferring our mail"), "refused", 450),
    (Discard("this person unsubscribed"), "thrown away", 250),
]


@pytest.mark.parametrize("state", ["RCPT", "DATA", "END-OF-MESSAGE"])
def test_every_action_is_understood_at_every_state(
    postfix: PrivatePostfix, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, (action, outcome, code) in enumerate(OUTCOMES):
        log, recipient = Log(postfix), f"{number}.{state.lower()}@gmx.de"
        script(monkeypatch, state, action)
        with served(postfix, access_in(World())) as server:
            replies = send(postfix, "x@else.example", recipient)
        worst = max(replies[recipient][0], replies["."][0]) if outcome == "refused" else replies["."][0]
        assert server.figures().fail_open == {}
        match outcome:
            case "sent":
                assert log.delivered(to=recipient) == "default"
            case "lane-02":
                assert log.delivered(to=recipient) == "lane-02"
            case "held":
                (held,) = [entry for entry in postfix.postqueue() if entry.recipients == (recipient,)]
                assert held.queue_name == "hold"
            case "thrown away":
                assert not [line for line in log.lines() if "status=sent" in line]
            case "refused" if state == "RCPT":
                assert replies[recipient][0] == code
                worst = code
        assert worst == code, replies
        if action != DUNNO:
            word = encode(action).decode().removeprefix("action=").split()[0].lower().removesuffix("_if_permit")
            assert log.until(lambda line, word=word: f" {'reject' if code > 400 else word}: {state} " in line)  # type: ignore[misc]  # noqa: B023
        assert not log.troubles()


def test_who_is_suppressed_is_refused_with_a_reason_and_the_others_get_the_message(postfix: PrivatePostfix) -> None:
    log = Log(postfix)
    with served(postfix, suppressing(DEAD, OTHER, discard=["nobody"])):
        replies = send(postfix, "x@else.example", "dead@gmail.com", "alive@gmx.de", "b@gmx.de")
        assert replies["dead@gmail.com"][0] == 554
        assert (
            b"5.1.1 <dead@gmail.com>: Recipient address rejected: Recipient is suppressed: "
            in replies["dead@gmail.com"][1]
        )
        assert (replies["alive@gmx.de"][0], replies["b@gmx.de"][0], replies["."][0]) == (250, 554, 250)
        assert log.delivered(to="alive@gmx.de") == "default"
        assert send(postfix, "", "dead@gmail.com")["dead@gmail.com"][0] == 250  # a bounce gets through
    assert not log.troubles()


def test_who_is_over_quota_is_told_to_come_back_and_others_are_not(postfix: PrivatePostfix) -> None:
    """The sender has room for two recipients; what is mistyped is refused, and takes none of it."""
    log = Log(postfix)
    quotas = Quotas((quota(per=Per.SENDER, limit=2, burst=2),), organizational=str, provider_of=lambda _: None)
    hygiene = Hygiene(Levels(typo=Level.REJECT), packaged())
    access = access_in(admitting=Admission(hygiene, quotas, provider_of=lambda _: None))
    queued = len(postfix.postqueue())
    with served(postfix, access) as server:
        with smtplib.SMTP("127.0.0.1", postfix.port) as client:
            client.ehlo()
            client.mail("a@else.example")
            assert client.rcpt("given-up@gmx.de")[0] == 250
            client.rset()
            client.mail("a@else.example")
            code, said = client.rcpt("quota@gmial.com")
            assert (code, b"5.1.2 <quota@gmial.com>: " in said, b"misspelling of gmail.com" in said) == (
                554,
                True,
                True,
            )
            replies = [client.rcpt(f"quota{number}@gmx.de") for number in range(4)]
            assert [code for code, _ in replies] == [250, 250, 450, 450]
            assert (
                b"4.7.1 <quota2@gmx.de>: Recipient address rejected: Quota reached: 2 recipients an hour"
                in replies[2][1]
            )
            assert client.data("Subject: a\r\n\r\nb\r\n")[0] == 250
        assert send(postfix, "b@else.example", "quota-b@gmx.de")["."][0] == 250
        assert server.figures().fail_open == {}
    for recipient in ("quota0@gmx.de", "quota1@gmx.de", "quota-b@gmx.de"):
        assert log.delivered(to=recipient) == "default"
    assert {bucket.key: round(bucket.taken) for bucket in quotas.buckets(now=time.time())} == {
        "a@else.example": 2,
        "b@else.example": 1,
    }
    assert len(postfix.postqueue()) == queued
    assert not log.troubles()


def test_postfix_verifies_a_recipient_when_it_is_told_to() -> None:
    """The restriction's name is an answer; here the transport says that nobody is there."""
    master = "asked unix - - n - - error\n"
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        more = {
            "address_verify_default_transport": "asked:no such user",
            "address_verify_map": "",
            "address_verify_poll_count": "3",
        }
        with PrivatePostfix(Path(name), main_cf=SETTINGS | more, master_cf=LANE + master) as postfix:
            hygiene = Hygiene(Levels(), packaged(), verify=frozenset({"gmx.de"}))
            access = access_in(admitting=Admission(hygiene, None, provider_of=lambda _: None))
            log = Log(postfix)
            with served(postfix, access):
                replies = send(postfix, "a@else.example", "nobody@gmx.de", "somebody@web.de")
            assert replies["nobody@gmx.de"][0] == 450
            assert b"unverified address" in replies["nobody@gmx.de"][1]
            assert (replies["somebody@web.de"][0], replies["."][0]) == (250, 250)
            assert not [line for line in log.troubles() if "restriction" in line]


def held(postfix: PrivatePostfix) -> list[tuple[str, ...]]:
    return [entry.recipients for entry in postfix.postqueue() if entry.queue_name == "hold"]


def test_a_message_of_a_paused_sub_queue_goes_to_hold_with_its_key_in_the_log(postfix: PrivatePostfix) -> None:
    log, world = Log(postfix), World()
    with served(postfix, access_in(world)) as server:
        replies = send(postfix, "news@shop.example", "held1@gmail.com", "held2@workspace.example")
    assert replies["."][0] == 250
    asked = server.figures().requests
    assert (asked["RCPT"], asked["DATA"], asked["END-OF-MESSAGE"]) == (2, 1, 1)
    assert ("held1@gmail.com", "held2@workspace.example") in held(postfix)
    (arrival,) = world.arrivals
    assert arrival.complete
    log.until(lambda line: " hold: " in line)
    reader = LogReader(zone=UTC, reference=time.time())
    facts = [fact for line in log.lines() for fact in reader.facts(line.encode()) if isinstance(fact, Held)]
    assert [(fact.queue_id, fact.by, held_key(fact.text)) for fact in facts] == [(arrival.queue_id, "policy", KEY)]
    assert not log.troubles()


def test_mixed_recipients_never_leave_by_a_wrong_transport(postfix: PrivatePostfix) -> None:
    log = Log(postfix)
    with served(postfix, access_in()):
        send(postfix, "x@else.example", "both1@yahoo.com", "both2@aol.com")
        assert log.delivered(to="both1@yahoo.com") == log.delivered(to="both2@aol.com") == "lane-02"
        send(postfix, "x@else.example", "mixed1@yahoo.com", "mixed2@gmx.de")
        assert log.delivered(to="mixed1@yahoo.com") == log.delivered(to="mixed2@gmx.de") == "default"
        send(postfix, "x@else.example", "mixed3@gmx.de", "mixed4@yahoo.com")
        assert log.delivered(to="mixed3@gmx.de") == log.delivered(to="mixed4@yahoo.com") == "default"
        send(postfix, "x@else.example", "own1@yahoo.com", "own2@home.example")
        assert log.delivered(to="own1@yahoo.com") == log.delivered(to="own2@home.example") == "default"
        send(postfix, "", "null@yahoo.com")
        assert log.delivered(to="null@yahoo.com") == "lane-02"
    reader = LogReader(zone=UTC, reference=time.time())
    facts = [fact for line in log.lines() for fact in reader.facts(line.encode())]
    assert {fact.destination for fact in facts if isinstance(fact, Filtered)} == {"lane-02:"}
    assert not log.troubles()


def test_a_routed_recipient_that_is_refused_later(postfix: PrivatePostfix) -> None:
    """Answered at RCPT, FILTER would have stuck to the message (seen)."""
    log = Log(postfix)
    with served(postfix, access_in()):
        replies = send(postfix, "x@else.example", "refused@yahoo.com", "later1@gmx.de")
        assert (replies["refused@yahoo.com"][0], replies["."][0]) == (554, 250)
        assert log.delivered(to="later1@gmx.de") == "default"
        replies = send(postfix, "x@else.example", "refused@yahoo.com", "later2@gmx.de", "later3@gmx.de")
        assert log.delivered(to="later2@gmx.de") == log.delivered(to="later3@gmx.de") == "default"
        replies = send(postfix, "news@shop.example", "refused@yahoo.com", "later4@gmail.com", "later5@gmail.com")
        assert replies["."][0] == 250
        assert log.delivered(to="later4@gmail.com") == "default", (
            "which was refused we cannot tell, and one was no google"
        )


def test_rset_between_two_messages(postfix: PrivatePostfix) -> None:
    log, access = Log(postfix), access_in()
    with served(postfix, access), smtplib.SMTP("127.0.0.1", postfix.port) as client:
        client.ehlo()
        client.mail("x@else.example")
        assert client.rcpt("aborted@yahoo.com")[0] == 250
        client.rset()
        client.mail("x@else.example")
        client.rcpt("rset@gmx.de")
        client.rcpt("rset2@gmx.de")
        client.data("Subject: a\r\n\r\nb\r\n")
        assert log.delivered(to="rset@gmx.de") == "default"
        client.mail("news@shop.example")
        client.rcpt("rset3@gmail.com")
        assert client.data("Subject: a\r\n\r\nb\r\n")[0] == 250
        assert access.remembered == 1
    assert ("rset3@gmail.com",) in held(postfix)


def test_what_this_postfix_sends_is_read_by_the_fast_expression(postfix: PrivatePostfix) -> None:
    """Else every request takes three times as long, and nothing but a benchmark would say so."""
    asked: list[bytes] = []

    def answer_all(listening: socket.socket) -> None:
        accepted, _ = listening.accept()
        with accepted:
            while data := accepted.recv(65_536):
                asked.append(data)
                accepted.send(b"action=DUNNO\n\n")

    path = postfix.queue_directory / "private/sidecar"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        path.chmod(0o666)
        listening.listen()
        thread = threading.Thread(target=answer_all, args=(listening,))
        thread.start()
        with smtplib.SMTP("127.0.0.1", postfix.port) as client:
            client.ehlo("a" * 200)
            for sender, recipient in (("x+a=b@else.example", '"a b=c"@gmx.de'), ("", "a@gmx.de")):
                client.mail(sender, ["SIZE=77"])
                client.rcpt(recipient)
                client.data("Subject: a\r\n\r\nb\r\n")
        postfix.reload()  # smtpd lets go of its connections
        thread.join(60)
        assert not thread.is_alive()
    path.unlink()
    requests = list(map(read_request, asked))
    assert [request.protocol_state for request in requests] == ["RCPT", "DATA", "END-OF-MESSAGE"] * 2
    assert requests[0].recipient == "a b=c@gmx.de"
    assert [request.size for request in requests[:3]] == [77, 77, requests[2].size]
    assert requests[2].queue_id
    connection = PolicyConnection()
    connection.receive_data(asked[0])
    assert [connection.receive_usual(data) for data in asked] == requests


def test_without_us_mail_is_accepted() -> None:
    """Nobody listens: each question costs smtpd a second, and default_action=DUNNO lets the message pass."""
    with private_postfix(smtpd_data_restrictions="") as postfix:
        log = Log(postfix)
        began = time.monotonic()
        replies = send(postfix, "news@shop.example", "a@gmail.com")
        assert {code for code, _ in replies.values()} == {250}
        assert time.monotonic() - began < 60
        assert log.delivered(to="a@gmail.com") == "default"
        assert any("problem talking to server private/sidecar" in line for line in log.troubles())


SERVER = """
import asyncio, os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
from sidecar.policy_sockets import Listener
from sidecar.systemd import inherited_sockets
from sidecar.policyd import serve
from tests.policy_world import access_in

async def main():
    await serve(access_in(), [Listener(f"unix:{sys.argv[2]}")], inherited=inherited_sockets(os.environ, pid=os.getpid()))
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@contextlib.contextmanager
def child_on(listening: socket.socket, path: Path) -> Iterator[subprocess.Popen[str]]:
    number = listening.fileno()
    command = [sys.executable, "-c", SERVER, str(number), str(path)]
    child = subprocess.Popen(command, pass_fds=[number], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert child.stdout
    with child:
        try:
            assert child.stdout.readline() == "ready\n"
            yield child
        finally:
            child.kill()


def test_a_restart_under_load_loses_no_question() -> None:
    """As systemd does it: the socket stays open. All mail is of a paused sub-queue, so that a lost question shows."""
    with private_postfix(smtpd_data_restrictions="") as postfix, socket.socket(socket.AF_UNIX) as kept:
        log = Log(postfix)
        path = postfix.queue_directory / "private/sidecar"
        kept.bind(str(path))
        path.chmod(0o666)
        kept.listen(BACKLOG)
        count = 400
        source = ["smtp-source", "-s", "4", "-m", str(count), "-f", "news@shop.example", "-t", "a@gmail.com"]
        with contextlib.ExitStack() as stack:
            child = stack.enter_context(child_on(kept, path))
            fleet = subprocess.Popen([*source, f"127.0.0.1:{postfix.port}"])
            for number in (signal.SIGKILL, signal.SIGTERM):
                log.until(lambda line: " hold: END-OF-MESSAGE " in line, count=40 if number == signal.SIGKILL else 120)
                assert fleet.poll() is None, "the load ended before the restart"
                child.send_signal(number)
                child.wait(60)
                child = stack.enter_context(child_on(kept, path))
            assert fleet.wait(60) == 0
        assert held(postfix) == [("a@gmail.com",)] * count
        assert not log.troubles()
        assert not [line for line in log.lines() if " reject: " in line or "status=" in line]


def test_the_socket_that_systemd_hands_over(tmp_path: Path) -> None:
    """systemd-socket-activate listens, and becomes us with the first connection: its question is answered, too."""
    path = tmp_path / "policy"
    main = SERVER.replace("os.dup2(int(sys.argv[1]), 3)\n", "").replace(
        'os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}\n', ""
    )
    command = ["systemd-socket-activate", "-l", str(path), sys.executable, "-c", main, "-", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stderr
            assert "Listening on" in process.stderr.readline()
            inode = path.stat().st_ino
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(60)
                client.connect(str(path))
                client.send(
                    b"request=smtpd_access_policy\nprotocol_state=END-OF-MESSAGE\nqueue_id=4SZv1\ninstance=1\n"
                    b"sender=news@shop.example\nrecipient=a@gmail.com\nrecipient_count=1\n\n"
                )
                assert client.recv(1000) == encode(Hold(hold_text(KEY, RULE)))
            assert path.stat().st_ino == inode, "the socket is systemd's, not one of our own in its place"
        finally:
            process.kill()
