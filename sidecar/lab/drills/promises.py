"""Rule 3: a HOLD answer is a promise. A milter refuses the message after we have answered; it never comes to hold.

Whoever counts what he answered, and not what is there, waits for mail that does not exist.
"""

import asyncio
import re
from collections.abc import Iterator

from sidecar.lab.drills.drill import Drill, DrillError, until
from sidecar.lab.drills.levers import campaign, held_by_us, nothing_on_hold, on_hold
from sidecar.lab.drills.milter import milter
from sidecar.lab.drills.witness import delivered, let_go, log_text, serial
from sidecar.lab.measure import Evidence, Figures
from sidecar.lab.run import Bench

_KEY = "dkim-domain:burst.example@google"
_MILTER_PORT = 10030
_WAVE = 60
_REFUSED = 2 * _WAVE * 4 // 10
_SECOND_WAVE = f"""
[[sender]]
domain = "burst.example"
burst = {_WAVE}
at = 8
to = ["google"]
"""
"""Arrives while the key is paused, so each of it is answered HOLD."""
_REFUSAL = re.compile(r"/cleanup\[\d+\]: (?P<id>\w+): milter-reject: END-OF-MESSAGE ")


def _concerns(sender: str) -> bool:
    """Four of ten, by the number that the fleet writes into the envelope sender."""
    return _chosen(int(sender.partition("@")[0].partition("-")[2]))


def _chosen(number: int) -> bool:
    return number % 10 in {1, 3, 5, 7}


async def act(bench: Bench) -> None:
    """The books agree with the queue as soon as the refusals are read, and in the end there is nothing in them."""
    rejected = bench.fleet.submissions.rejected
    async with milter(_MILTER_PORT, _concerns, refuses=True) as taken:
        accepted = bench.fleet.submissions.accepted
        await until(lambda: len(accepted) + len(rejected) >= 2 * _WAVE, "both waves handed over", 30)
        if len(taken) != len(rejected) or any(not reply.startswith("550 5.7.1") for _, reply in rejected):
            raise DrillError(f"the milter refused {len(taken)} messages, smtpd {len(rejected)}")
        broken = {found["id"] for found in _REFUSAL.finditer(log_text(bench))} & bench.follower.log.answered
        if len(broken) < _WAVE // 5:
            raise DrillError(f"only {len(broken)} messages were refused after our HOLD; the trap did not close")
        await on_hold(bench, len(accepted) - 3)
        await _books_say(bench, len(bench.follower.log.on_hold))
        await let_go(bench, _KEY)
        await delivered(bench, lambda it: not _chosen(serial(it)), 40)
        await nothing_on_hold(bench)
        await _books_say(bench, 0)
    rejected.clear()  # the milter's refusals, and nobody else's


async def _books_say(bench: Bench, held: int) -> None:
    """Wait until core believes to hold so many."""
    for _ in range(100):
        if (found := await held_by_us(bench)) == held:
            return
        await asyncio.sleep(0.1)
    raise DrillError(f"core believes to hold {found} messages, {held} are on hold")


def expects(evidence: Evidence, figures: Figures) -> Iterator[str]:
    """Everything that the milter let through was delivered."""
    del evidence
    if figures.delivered != 2 * _WAVE - _REFUSED:
        yield f"{figures.delivered} messages were delivered, wanted {2 * _WAVE - _REFUSED}"


DRILLS = (
    Drill(
        "promise-broken",
        "a message that is refused after our HOLD leaves the books",
        campaign(
            "promise-broken",
            burst=_WAVE,
            main_cf=(f"smtpd_milters = inet:127.0.0.1:{_MILTER_PORT}", "milter_default_action = tempfail"),
        )
        + _SECOND_WAVE,
        act,
        expects,
    ),
)
