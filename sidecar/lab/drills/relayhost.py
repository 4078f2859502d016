"""Rule 7 behind a relay: providers are known from MX look-ups alone, and no route is answered.

The relay throttles in Google's own words, which it may well pass on; they are the relay's all the same, and what
an empty FILTER next hop would do is send the mail past the relay.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

from sidecar.lab.drills.drill import Drill, DrillError
from sidecar.lab.drills.levers import by_hand, changes, forgive, sidecar_of
from sidecar.lab.drills.witness import delivered, log_text, submissions
from sidecar.lab.measure import Evidence, Figures
from sidecar.lab.run import Bench

_TOML = """
name = "relayhost"
seconds = 200
scale = 60
main_cf = ["relayhost = [relay.sender-side.example]"]
master_cf = ["out-google unix - - n - 5 smtp"]
sidecar = ['[[route]]', 'provider = "google"', 'transport = "out-google"']
[[sender]]
domain = "burst.example"
burst = 60
at = 1
to = ["google"]
[[provider]]
name = "google"
domains = ["gmail.com", "school.example"]
mx = ["gmail-smtp-in.l.google.com"]
[[provider]]
name = "relay"
domains = ["relay-customers.example"]
mx = ["relay.sender-side.example"]
transaction_s = 0.2
[[provider.limit]]
by = "dkim"
kind = "penalty"
rate = 2
burst = 20
penalty = 480
reply = '''
421-4.7.28 Gmail has detected an unusual rate of mail originating from your DKIM domain
421-4.7.28 [{identity}      35]. To protect our users from spam, mail sent
421 4.7.28 from your domain has been temporarily rate limited. a640c23a62f3a-ab4c1f2 - gsmtp'''
"""
_LOOK_ON_S = 5.0
_BY_HAND = "sender-domain:burst.example@google"


async def act(bench: Bench) -> None:
    """The relay refuses; nothing is held for it, and the providers are known all the same."""
    await submissions(bench, lambda _: True, 60)
    await asyncio.sleep(_LOOK_ON_S)
    if not bench.ledger.refused:
        raise DrillError("the relay refused nothing; the trap did not close")
    if opened := await changes(bench, "opened"):
        raise DrillError(f"{opened[0]['key']} opened on a reply of the relay")
    forgive(bench)
    await delivered(bench, lambda _: True, 40)
    if ": filter:" in log_text(bench):
        raise DrillError("a message was answered FILTER behind a relay")
    await by_hand(bench, "pause", _BY_HAND, seconds=60)
    answer = await _asked(bench)
    if not answer["action"].startswith("HOLD"):
        raise DrillError(f"the provider of school.example is not known from its MX: {answer}")
    await by_hand(bench, "close", _BY_HAND)


async def _asked(bench: Bench) -> dict[str, Any]:
    """What core would say about a message to a domain that Google hosts."""
    asked = {"recipient": "user1@school.example", "sender": "news@burst.example"}
    return await sidecar_of(bench).ask("ask", request=asked)


def expects(evidence: Evidence, figures: Figures) -> Iterator[str]:
    """Everything went over the relay, and nothing was held."""
    del figures
    past = [it for it in evidence.ledger.accepted if it.provider != "relay"]
    if past:
        yield f"{len(past)} messages went past the relay to {past[0].provider}"
    if evidence.log.held:
        yield f"{len(evidence.log.held)} messages were held for what the relay said"


DRILLS = (
    Drill("relayhost", "a relay's replies are not a provider's, and FILTER does not bypass it", _TOML, act, expects),
)
