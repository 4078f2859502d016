"""Rule 3: what somebody else holds is never released by us, also where it is of a key that we hold as well.

A header check and an access map hold some messages of the throttled campaign, in another drill a milter puts them
into quarantine. Hold is one flag: whoever lets go all that he believes to be his lets go theirs.
"""

import asyncio
from collections.abc import Iterator

from sidecar.lab.drills.drill import Drill, DrillError
from sidecar.lab.drills.levers import campaign, on_hold
from sidecar.lab.drills.milter import milter
from sidecar.lab.drills.witness import delivered, let_go, log_text, serial, submissions, submitted
from sidecar.lab.fleet import Message
from sidecar.lab.measure import Evidence, Figures, Pair
from sidecar.lab.run import Bench

_KEY = "dkim-domain:burst.example@google"
_MILTER_PORT = 10030
_SECOND_WAVE = """
[[sender]]
domain = "burst.example"
burst = 60
at = 6
to = ["google"]
"""
"""Arrives while the key is paused: our answer and theirs meet."""
_WAVES = 120
_LOOK_ON_S = 5.0
"""What is let go wrongly goes with the rest, or within two releases of it."""

_HELD = campaign(
    "held-by-others",
    burst=60,
    main_cf=(
        "header_checks = regexp:{{/^Message-ID: <[0-9]*7[.]/ HOLD}}, regexp:$config_directory/header_checks",
        "smtpd_sender_restrictions = check_sender_access regexp:{{/^bounce-[0-9]*3@/ HOLD}}",
    ),
)

_QUARANTINED = campaign(
    "milter-quarantine",
    burst=60,
    main_cf=(f"smtpd_milters = inet:127.0.0.1:{_MILTER_PORT}", "milter_default_action = tempfail"),
)


def _theirs(message: Message) -> bool:
    return serial(message) % 10 in {3, 7}


def _ours(message: Message) -> bool:
    return not _theirs(message)


async def act(bench: Bench) -> None:
    """Everything of ours must leave, and theirs stay while we look on."""
    await submissions(bench, lambda _: True, _WAVES)
    await on_hold(bench, 90)
    await let_go(bench, _KEY)
    await delivered(bench, _ours, 30)
    await asyncio.sleep(_LOOK_ON_S)


async def act_with_milter(bench: Bench) -> None:
    """The same; and while a milter may quarantine, no arriving message is answered HOLD."""
    async with milter(
        _MILTER_PORT, lambda sender: int(sender.partition("@")[0].partition("-")[2]) % 10 in {3, 7}
    ) as taken:
        await act(bench)
        if len(taken) != len(submitted(bench, _theirs)):
            raise DrillError(f"the milter took {len(taken)} messages of {len(submitted(bench, _theirs))}")
        if " hold: END-OF-MESSAGE" in log_text(bench):
            raise DrillError("an arriving message was answered HOLD although a milter may quarantine it")


def expects(evidence: Evidence, figures: Figures) -> Iterator[str]:
    """Theirs are all where they were put, and nobody else's."""
    del figures
    theirs = {Pair(it.message_id, to) for it in evidence.submissions.accepted if _theirs(it) for to in it.recipients}
    if len(theirs) < 20:
        yield f"only {len(theirs)} messages were held by others; the trap did not close"
    got = {Pair(it.message_id, it.recipient) for it in evidence.ledger.accepted} & theirs
    if got:
        yield f"{len(got)} of {len(theirs)} messages that others hold were delivered"
    if theirs - got != evidence.queued:
        yield f"{len(evidence.queued)} messages are in the queue, wanted the {len(theirs - got)} that others hold"


_HELD_BY_OTHERS = Drill(
    "held-by-others", "what a header check or an access map holds is never released", _HELD + _SECOND_WAVE, act, expects
)
_MILTER_QUARANTINE = Drill(
    "milter-quarantine",
    "what a milter puts into quarantine is never released",
    'sidecar = ["policy.milters_quarantine = true"]\n' + _QUARANTINED + _SECOND_WAVE,
    act_with_milter,
    expects,
)
DRILLS = (_HELD_BY_OTHERS, _MILTER_QUARANTINE)
