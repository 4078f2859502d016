"""The simulated provider, its hidden limits, what it says, and the name server that leads to it."""

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any

import dns.message
import dns.query
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.lab.dns import NameServer, addresses, zone
from sidecar.lab.limits import Bucket, Connections, Model, Penalty, Window, model, optimum
from sidecar.lab.ports import free_port, free_ports
from sidecar.lab.provider import Covered, Ledger, SimulatedProvider, read_message
from sidecar.lab.replies import filled
from sidecar.lab.scenario import By, Fault, FaultKind, Kind, Limit, Provider, Stage

LIMITS = {
    Kind.WINDOW: Limit(By.DKIM, Kind.WINDOW, n=5, per=60),
    Kind.BUCKET: Limit(By.DKIM, Kind.BUCKET, rate=2, burst=5),
    Kind.PENALTY: Limit(By.DKIM, Kind.PENALTY, rate=2, burst=5, penalty=30),
    Kind.PENALTY_EXTENDED: Limit(By.DKIM, Kind.PENALTY_EXTENDED, rate=2, burst=5, penalty=30),
    Kind.REPUTATION: Limit(By.DKIM, Kind.REPUTATION, rate=2, burst=5),
    Kind.MOVING: Limit(By.DKIM, Kind.MOVING, rate=2, burst=5, per=40, factor=3),
    Kind.SHARED: Limit(By.DKIM, Kind.SHARED, rate=2, burst=5, per=40, share=0.3),
}
STEPS = st.lists(st.floats(0, 20), min_size=1, max_size=60)


@given(steps=STEPS, kind=st.sampled_from(sorted(LIMITS)))
def test_a_limit_opens_no_later_than_it_says(steps: list[float], kind: Kind) -> None:
    account, now = _account(kind), 0.0
    for step in steps:
        now += step
        account.offer(now)
    opens = account.opens_at(now)
    assert opens >= now
    # A moving limit may have turned slower meanwhile: then it says a later time once more.
    for _ in range(10):
        if account.offer(opens):
            return
        opens = account.opens_at(opens)
    raise AssertionError(f"{kind} stayed shut")


@given(steps=STEPS)
def test_a_window_accepts_no_more_than_its_number(steps: list[float]) -> None:
    window, now = Window(5, 60), 0.0
    accepted: dict[int, int] = {}
    start = steps[0]
    for step in steps:
        now += step
        if window.offer(now):
            accepted[int((now - start) // 60)] = accepted.get(int((now - start) // 60), 0) + 1
    assert max(accepted.values()) <= 5


@given(steps=STEPS)
def test_a_bucket_accepts_no_more_than_its_rate_and_burst(steps: list[float]) -> None:
    bucket, now, accepted = Bucket(2, 5), 0.0, 0
    for step in steps:
        now += step
        accepted += bucket.offer(now)
    assert accepted <= 5 + 2 * (now - steps[0]) + 1e-6


@pytest.mark.parametrize(("extended", "opens"), [(False, 40), (True, 65)])
def test_a_penalty_shuts_out_and_an_extended_one_counts_from_the_last_attempt(extended: bool, opens: float) -> None:  # noqa: FBT001  # a row
    account = Penalty(Bucket(1, 10), 30, extended=extended)
    assert [account.offer(10) for _ in range(11)] == [True] * 10 + [False]
    assert not account.offer(35)
    assert account.opens_at(36) == opens


def test_reputation_falls_with_each_episode_and_recovers() -> None:
    account = _account(Kind.REPUTATION)
    refusals = [account.offer(now / 10) for now in range(100)].count(False)
    assert refusals > 0
    lowered = [account.offer(1000 + now / 10) for now in range(600)].count(True)
    assert lowered < 2 * 60 + 5


def test_a_moving_limit_moves() -> None:
    account = _account(Kind.MOVING)
    counts = [sum(account.offer(quarter * 40 + i / 10) for i in range(400)) for quarter in range(4)]
    assert counts[1] < counts[0] < counts[3]


def test_scale_divides_times_and_leaves_rates_alone() -> None:
    window = model(LIMITS[Kind.WINDOW], 30, Random(1))
    assert isinstance(window, Window)
    assert (window.n, window.per) == (5, 2)
    bucket = model(LIMITS[Kind.BUCKET], 30, Random(1))
    assert isinstance(bucket, Bucket)
    assert (bucket.rate, bucket.burst) == (2, 5)


def test_random_refuses_its_share() -> None:
    account = model(Limit(By.DKIM, Kind.RANDOM, share=0.25), 1, Random(1))
    refused = [account.offer(0) for _ in range(4000)].count(False)
    assert 900 < refused < 1100


@pytest.mark.parametrize(
    ("account", "messages", "seconds"),
    [
        (Window(100, 60), 1000, 9 * 60 + 100 / 50),
        (Bucket(2, 50), 1000, (1000 - 50) / 2),
        (Bucket(1000, 10), 1000, 1000 / 50),
        (Connections(5), 100, 100 / 50),
    ],
    ids=["window", "bucket", "capacity", "connections"],
)
def test_the_optimum_is_what_arithmetic_says(account: Model, messages: int, seconds: float) -> None:
    assert optimum(account, messages, 50) == pytest.approx(seconds, rel=0.01)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (b"Message-ID: <1@x.example>\r\n\r\n", ("1@x.example", "")),
        (
            b"DKIM-Signature: v=1; a=rsa-sha256; d=A.example;\r\n\ts=x\r\nMessage-Id: <2@x>\r\n\r\n",
            ("2@x", "a.example"),
        ),
        (b"DKIM-Signature: v=1;\r\n\tc=relaxed;\r\n\td=b.example; s=y\r\n\r\n", ("", "b.example")),
        (b"DKIM-Signature: v=1;d=c.example\r\nDKIM-Signature: d=second.example\r\n\r\n", ("", "c.example")),
        (b"Subject: x\r\n\r\nDKIM-Signature: d=body.example\r\nMessage-ID: <body@x>\r\n", ("", "")),
        (b"DKIM-Signature: v=1; bh=d=zzz; b=x\r\n\r\n", ("", "")),
    ],
)
def test_what_a_provider_reads_of_a_message(text: bytes, wanted: tuple[str, str]) -> None:
    assert read_message(text) == wanted


def test_a_reply_of_several_lines_repeats_its_code() -> None:
    said = filled("421-4.7.28 one {identity}\n421 4.7.28 two", identity="d.example", ip="", recipient="", sender="")
    assert said == b"421-4.7.28 one d.example\r\n421 4.7.28 two\r\n"
    said = filled("451 4.7.1 one {ip}\ntwo", identity="", ip="192.0.2.1", recipient="", sender="")
    assert said == b"451-4.7.1 one 192.0.2.1\r\n451 two\r\n"


def test_accepted_mail_is_written_down_by_recipient() -> None:
    async def check(server: SimulatedProvider, port: int) -> None:
        replies = await _send(port, dkim="a.example", recipients=["u1@gmail.com", "u2@gmail.com"])
        assert replies[-1].startswith("250 ")
        assert [(it.message_id, it.recipient) for it in server.ledger.accepted] == [
            ("1@a.example", "u1@gmail.com"),
            ("1@a.example", "u2@gmail.com"),
        ]
        assert not server.ledger.fired()

    _with_provider(check)


def test_a_dkim_limit_speaks_at_the_end_of_data_names_the_domain_and_hangs_up() -> None:
    async def check(server: SimulatedProvider, port: int) -> None:
        await _send(port, dkim="d.example")
        replies = await _send(port, dkim="d.example")
        other = await _send(port, dkim="e.example")
        assert "421-4.7.28 [d.example      35]" in replies[-1]
        assert replies[-1].endswith("- gsmtp\r\n<closed>")
        assert other[-1].startswith("250 ")
        assert server.ledger.fired() == {Covered("google", By.DKIM, "d.example")}
        assert [(it.code, it.stage, it.message_id) for it in server.ledger.refused] == [
            ("421", Stage.END_OF_DATA, "1@d.example")
        ]

    _with_provider(check, Limit(By.DKIM, Kind.WINDOW, n=1, per=60))


@pytest.mark.parametrize(
    ("limit", "place"),
    [
        (Limit(By.IP, Kind.WINDOW, n=1, per=60, stage=Stage.CONNECT, reply="421 4.7.0 no"), 0),
        (Limit(By.SPF, Kind.WINDOW, n=1, per=60, stage=Stage.MAIL, reply="451 4.7.0 no"), 2),
        (Limit(By.RECIPIENT, Kind.WINDOW, n=1, per=60, stage=Stage.RCPT, reply="450 4.2.1 no"), 3),
        (Limit(By.ENVELOPE, Kind.WINDOW, n=1, per=60, stage=Stage.DATA, reply="451 4.7.0 no"), 4),
        (Limit(By.ENVELOPE, Kind.WINDOW, n=1, per=60, reply="451 4.7.0 no"), 5),
    ],
    ids=["connect", "mail", "rcpt", "data", "end-of-data"],
)
def test_a_limit_speaks_at_its_stage(limit: Limit, place: int) -> None:
    async def check(server: SimulatedProvider, port: int) -> None:
        del server
        first = await _send(port, dkim="d.example")
        second = await _send(port, dkim="d.example")
        assert [reply[0] for reply in first] == list("222232")
        assert second[place].startswith(limit.reply)

    _with_provider(check, limit)


def test_places_under_a_connection_limit_are_given_back() -> None:
    async def check(_: SimulatedProvider, port: int) -> None:
        for _one_after_the_other in range(3):
            assert (await _send(port, dkim="d.example"))[-1].startswith("250 ")
        open_now = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        greetings = [(await reader.readline())[:3] for reader, _ in open_now]
        assert sorted(greetings) == [b"220", b"220", b"421"]
        for connection in open_now:
            await _hang_up(*connection)
        assert (await _send(port, dkim="d.example"))[-1].startswith("250 ")

    _with_provider(check, Limit(By.IP, Kind.CONNECTIONS, n=2, stage=Stage.CONNECT))


@pytest.mark.parametrize(
    ("fault", "place", "wanted"),
    [
        (Fault(FaultKind.REFUSE, stage=Stage.RCPT, reply="550 5.1.1 nobody here"), 3, "550 5.1.1 nobody here\r\n"),
        (Fault(FaultKind.DROP, stage=Stage.END_OF_DATA), 5, "<closed>"),
        (Fault(FaultKind.DROP, stage=Stage.CONNECT), 0, "<closed>"),
    ],
    ids=["refuse", "drop", "drop-at-once"],
)
def test_a_fault_happens_at_its_stage_and_counts_for_nobody(fault: Fault, place: int, wanted: str) -> None:
    async def check(server: SimulatedProvider, port: int) -> None:
        server.faults.append(fault)
        assert (await _send(port, dkim="d.example"))[place] == wanted
        assert not server.ledger.accepted
        assert not server.ledger.fired()
        server.faults.remove(fault)
        assert (await _send(port, dkim="d.example"))[-1].startswith("250 ")

    _with_provider(check)


@pytest.mark.parametrize(
    ("kind", "place"), [(FaultKind.GREETING_DELAY, 0), (FaultKind.TARPIT, 4), (FaultKind.SLOW_DATA, 5)]
)
def test_a_slow_provider_is_slow_at_its_stage(kind: FaultKind, place: int) -> None:
    async def check(server: SimulatedProvider, port: int) -> None:
        loop = asyncio.get_running_loop()
        server.faults.append(Fault(kind, delay=1.0))
        times = [loop.time()]
        replies = await _send(port, dkim="d.example", heard=lambda: times.append(loop.time()))
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert len(replies) == 6
        assert gaps[place] >= 0.99
        assert gaps[place] == max(gaps)

    _with_provider(check)


def test_a_shut_provider_answers_when_it_is_opened_and_as_was_settled_before() -> None:
    async def check(server: SimulatedProvider, port: int) -> None:
        server.shut(after=1)
        assert (await _send(port, dkim="d.example"))[-1].startswith("250 ")
        late = [asyncio.create_task(_send(port, dkim="d.example")) for _ in range(2)]
        while server.waiting < len(late):  # noqa: ASYNC110  # a count, and nobody else waits for it
            await asyncio.sleep(0)
        assert len(server.ledger.accepted) == 1
        server.open()
        assert sorted(replies[-1][:3] for replies in await asyncio.gather(*late)) == ["250", "421"]
        assert (await _send(port, dkim="other.example"))[-1].startswith("250 ")

    _with_provider(check, Limit(By.DKIM, Kind.WINDOW, n=2, per=60, reply="421 4.7.28 no"))


def test_the_name_server_leads_to_the_provider() -> None:
    providers = [
        Provider("google", ("gmail.com", "school.example"), ("gmail-smtp-in.l.google.com", "alt1.l.google.com")),
        Provider("yahoo", ("yahoo.com",), ("mta5.am0.yahoodns.net",)),
    ]
    names = NameServer(zone(providers, ["shop.example"]))
    assert list(addresses(providers).values()) == ["127.0.0.11", "127.0.0.12", "127.0.0.13"]
    assert _answers(names, "school.example", "MX") == ["10 alt1.l.google.com.", "5 gmail-smtp-in.l.google.com."]
    assert _answers(names, "mta5.am0.yahoodns.net", "A") == ["127.0.0.13"]
    assert _answers(names, "13.0.0.127.in-addr.arpa", "PTR") == ["mta5.am0.yahoodns.net."]
    assert _answers(names, "shop.example", "MX") == ["10 mx.sender-side.example."]
    assert _answers(names, "gmail.com", "A") == []
    assert _answers(names, "gmail.com.", "AAAA") == []
    assert _rcode(names, "gmail.com", "A") == dns.rcode.NOERROR
    assert _rcode(names, "nowhere.example", "A") == dns.rcode.NXDOMAIN
    names.broken = True
    assert _rcode(names, "gmail.com", "MX") == dns.rcode.SERVFAIL


@given(st.binary(max_size=60))
def test_the_name_server_survives_any_datagram(query: bytes) -> None:
    NameServer([]).answer(query)


@pytest.mark.parametrize("tcp", [False, True])
def test_the_name_server_answers_over_both_transports(tcp: bool) -> None:  # noqa: FBT001  # a row
    async def check() -> None:
        port = free_port()
        query = dns.message.make_query("yahoo.com", "MX")
        names = NameServer(zone([Provider("yahoo", ("yahoo.com",), ("mta5.am0.yahoodns.net",))], []))
        for _leg in range(2):  # the address must be free again at once
            async with names.serve(["127.0.0.1"], port):
                answer = await asyncio.to_thread(_ask, query, port, tcp=tcp)
            assert str(answer.answer[0][0]) == "5 mta5.am0.yahoodns.net."

    asyncio.run(check())


def _ask(query: dns.message.Message, port: int, *, tcp: bool) -> dns.message.Message:
    ask = dns.query.tcp if tcp else dns.query.udp
    return ask(query, "127.0.0.1", port=port, timeout=5)


def _account(kind: Kind) -> Model:
    return model(LIMITS[kind], 1, Random(1))


def _answers(names: NameServer, name: str, kind: str) -> list[str]:
    return sorted(str(data) for rrset in _answer(names, name, kind).answer for data in rrset)


def _rcode(names: NameServer, name: str, kind: str) -> dns.rcode.Rcode:
    return _answer(names, name, kind).rcode()


def _answer(names: NameServer, name: str, kind: str) -> dns.message.Message:
    query = dns.message.make_query(name, kind)
    wire = names.answer(query.to_wire())
    assert wire is not None
    answer = dns.message.from_wire(wire)
    assert answer.id == query.id
    return answer


Check = Callable[[SimulatedProvider, int], Coroutine[Any, Any, None]]


def _with_provider(check: Check, *limits: Limit) -> None:
    """Run `check` beside a provider "google" with these limits."""

    async def run() -> None:
        async with _provider(*limits) as (server, port):
            await asyncio.wait_for(check(server, port), 60)

    asyncio.run(run())


@contextlib.asynccontextmanager
async def _provider(*limits: Limit) -> AsyncIterator[tuple[SimulatedProvider, int]]:
    provider = Provider("google", ("gmail.com",), ("mx.google.example",), transaction_s=0.0, limit=limits)
    server, port = SimulatedProvider(provider, Ledger(), scale=1.0, random=Random(1)), free_port()
    async with server.serve([("mx.google.example", "127.0.0.1")], port):
        yield server, port


async def _send(
    port: int, *, dkim: str, recipients: list[str] | None = None, heard: Callable[[], object] = lambda: None
) -> list[str]:
    """One message in one connection: the reply to each step, "<closed>" appended where the server hung up."""
    recipients = recipients or ["u@gmail.com"]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    message = f"DKIM-Signature: v=1; d={dkim}; s=x\r\nMessage-ID: <1@{dkim}>\r\n\r\nhi\r\n.\r\n"
    rcpts = [f"RCPT TO:<{to}>\r\n" for to in recipients]
    replies = []
    for step in ["", "EHLO c.example\r\n", f"MAIL FROM:<b@{dkim}>\r\n", *rcpts, "DATA\r\n", message]:
        writer.write(step.encode())
        replies.append(await _reply(reader))
        heard()
        if replies[-1].endswith("<closed>") or replies[-1][0] in "45":
            break
    await _hang_up(reader, writer)
    return replies


async def _hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close our end, and wait until the server has closed its own."""
    with contextlib.suppress(OSError):
        writer.write_eof()
        await reader.read()
    writer.close()


async def _reply(reader: asyncio.StreamReader) -> str:
    lines = ""
    try:
        while line := (await reader.readline()).decode():
            lines += line
            if line[3] == " ":
                break
        if not lines or lines.startswith("421"):
            assert await reader.read() == b""
            lines += "<closed>"
    except ConnectionError:
        lines += "<closed>"
    return lines


def test_a_port_is_one_that_the_kernel_gives_nobody() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = free_ports(50)
    assert len(set(ports)) == 50
    assert max(ports) < first
    with socket.create_server(("127.0.0.1", ports[0])), pytest.raises(OSError, match="no 12000 ports free"):
        free_ports(12_000)
