"""A client that takes half a minute for its DATA, while the sub-queue opens, closes and is released around it.

The answer is given at the end of the message and is then true at once; a release never finds it half done.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Iterator

from sidecar.lab import fleet
from sidecar.lab.drills import levers
from sidecar.lab.drills.drill import Drill, DrillError, all_delivered
from sidecar.lab.measure import Evidence, Figures
from sidecar.lab.run import Bench

_KEY = "dkim-domain:burst.example@google"
_CLIENTS = 60
_FIRST_S, _LAST_S = 5.0, 30.0


async def _submit_slowly(bench: Bench, message: fleet.Message, seconds: float) -> None:
    """One message over SMTP, its text sent in pieces over so many seconds; written down as the fleet does."""
    message = message._replace(submitted=time.time())
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.postfix.port)

    async def said(expected: str) -> None:
        line = await reader.readline()
        while line[3:4] == b"-":
            line = await reader.readline()
        if not line.startswith(expected.encode()):
            raise DrillError(f"smtpd said {line.decode().strip()!r}, wanted {expected}")

    await said("220")
    commands = ("EHLO slow.sender-side.example", f"MAIL FROM:<{fleet.envelope_sender(message)}>")
    for command in (*commands, *(f"RCPT TO:<{to}>" for to in message.recipients)):
        writer.write(f"{command}\r\n".encode())
        await said("250")
    writer.write(b"DATA\r\n")
    await said("354")
    pieces = fleet.text(message).splitlines(keepends=True)
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(seconds / len(pieces))
    writer.write(b".\r\n")
    await said("250")
    bench.fleet.submissions.accepted.append(message)
    writer.write(b"QUIT\r\n")
    writer.close()


async def _act(bench: Bench) -> None:
    """Clients begin before anything is refused and end one after the other until half a minute has passed."""
    dice = random.Random(bench.scenario.seed)
    (sender,) = bench.scenario.senders()
    step = (_LAST_S - _FIRST_S) / _CLIENTS
    async with asyncio.TaskGroup() as group:
        for number in range(_CLIENTS):
            group.create_task(_submit_slowly(bench, bench.fleet.compose(sender, dice), _FIRST_S + number * step))
        group.create_task(_meanwhile(bench))
    await levers.drained(bench)


async def _meanwhile(bench: Bench) -> None:
    """Opened by a refusal at about 8 s; then by hand, until the last client is done."""
    await levers.on_hold(bench, 30)
    ends = bench.started + _LAST_S + 2
    for seconds, do in itertools.cycle(((2.0, "close"), (2.0, "pause"), (1.0, "release"))):
        if time.time() > ends:
            return
        await levers.by_hand(
            bench, do, "all" if do == "release" else _KEY, **({"seconds": 60} if do == "pause" else {})
        )
        await asyncio.sleep(seconds)


async def _storm(bench: Bench) -> None:
    """The key stays paused and all is released every 20 ms, while messages arrive as fast as they are taken."""
    (sender,) = bench.scenario.senders()
    await levers.on_hold(bench, 30)
    await levers.by_hand(bench, "pause", _KEY, seconds=120)
    levers.accept(bench)
    arriving = asyncio.create_task(bench.fleet.burst(sender))
    try:
        while not arriving.done():
            await levers.by_hand(bench, "release")
            await asyncio.sleep(0.02)
        await arriving
    finally:
        arriving.cancel()
    await levers.by_hand(bench, "release")
    levers.forgive(bench)
    await all_delivered(bench, 40)


def _expects(evidence: Evidence, figures: Figures) -> Iterator[str]:
    del figures
    if len(evidence.log.answered) < 15:
        yield f"only {len(evidence.log.answered)} messages were held as they arrived; the trap did not close"


DRILLS = (
    Drill(
        "slow-client",
        "a message whose DATA lasts from before the opening until after the release is delivered once",
        levers.campaign("slow-client", burst=60, at=6),
        _act,
        _expects,
    ),
    Drill(
        "release-storm",
        "a HOLD answer and a release in the same moment leave nothing on hold",
        levers.campaign("release-storm", burst=400),
        _storm,
        _expects,
    ),
)
