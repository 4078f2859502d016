"""What the drills about an admin's own settings look at: which message went where, and when a sub-queue did what.

Messages are named by the number in their Message-ID, which the fleet also writes into the envelope sender.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator

from sidecar.lab.drills.drill import until
from sidecar.lab.drills.levers import by_hand, forgive, sidecar_of, state_of
from sidecar.lab.fleet import Message
from sidecar.lab.measure import Evidence
from sidecar.lab.patience import longer
from sidecar.lab.run import Bench

POLICY = "sidecar_policy = check_policy_service { unix:private/sidecar, timeout=3s, default_action=DUNNO }"
"""The check as a setting of main.cf, for lists that a drill writes itself: $sidecar_policy."""

Chosen = Callable[[Message], bool]


def serial(message: Message) -> int:
    """The number of a message in its run."""
    return int(message.message_id.partition(".")[0])


def submitted(bench: Bench, chosen: Chosen) -> list[Message]:
    return [message for message in bench.fleet.submissions.accepted if chosen(message)]


async def submissions(bench: Bench, chosen: Chosen, count: int, seconds: float = 40) -> None:
    """Wait until so many of the chosen were handed over."""
    await until(lambda: len(submitted(bench, chosen)) >= count, f"{count} messages handed over", seconds)


async def delivered(bench: Bench, chosen: Chosen, seconds: float) -> None:
    """Wait until each of the chosen that was handed over is accepted for all its recipients.

    Raises DrillError after `seconds`.
    """

    def there() -> bool:
        pairs = {(it.message_id, it.recipient) for it in bench.ledger.accepted}
        return all((it.message_id, to) in pairs for it in submitted(bench, chosen) for to in it.recipients)

    await until(there, "delivered what is ours", seconds)


async def let_go(bench: Bench, key: str, seconds: float = 60) -> None:
    """Let the provider be kind, wait until a probe has found that out, and close the sub-queue by hand."""
    forgive(bench)
    await until_state(bench, key, {"ramping", ""}, seconds)
    if await state_of(bench, key):
        await by_hand(bench, "close", key)


async def until_state(bench: Bench, key: str, states: set[str], seconds: float) -> None:
    """Wait until a sub-queue is in one of the states; "" is for one that is not open.

    Raises DrillError.
    """
    deadline = time.monotonic() + longer(seconds)
    state = await state_of(bench, key)
    while state not in states and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
        state = await state_of(bench, key)
    await until(lambda: state in states, f"{key} {' or '.join(sorted(states)) or 'closed'} (it is {state!r})", 0)


def log_text(bench: Bench) -> str:
    """The mail log so far; rotated away lines are not in it."""
    return bench.postfix.maillog.read_text(errors="replace")


def told_sent_by(bench: Bench, provider: str) -> int:
    """How many deliveries core has stored as accepted by a provider."""
    store = sidecar_of(bench).directory / "store" / "core.db"
    with contextlib.closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
        counted = "SELECT count(*) FROM attempt WHERE provider = ? AND status = 'sent'"
        return int(connection.execute(counted, (provider,)).fetchone()[0])


def message_ids(evidence: Evidence, queue_ids: set[str]) -> set[str]:
    """Message-IDs behind queue ids."""
    return {evidence.log.message_ids.get(queue_id, "") for queue_id in queue_ids}


def delivered_to(evidence: Evidence, domain: str) -> Iterator[str]:
    """Message-IDs accepted for recipients in a domain, once for each time."""
    return (it.message_id for it in evidence.ledger.accepted if it.recipient.endswith(f"@{domain}"))


@contextlib.asynccontextmanager
async def pipe(port: int, to: int) -> AsyncIterator[None]:
    """The smallest of filters: what comes in at one port of loopback goes out at another, and back."""
    under_way: set[asyncio.Task[None]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            onward, out = await asyncio.open_connection("127.0.0.1", to)
            with contextlib.closing(out):
                await asyncio.gather(copy(reader, out), copy(onward, writer))
        writer.close()

    def opened(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(connected(reader, writer))
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    server = await asyncio.start_server(opened, "127.0.0.1", port, backlog=100)
    try:
        yield
    finally:
        server.close()
        for task in list(under_way):
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
