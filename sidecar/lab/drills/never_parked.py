"""Rule 4: the null sender is never parked by domain, and probes of address verification are not parked at all."""

from collections.abc import Iterator

from sidecar.lab.drills.drill import Drill, DrillError, until
from sidecar.lab.drills.levers import campaign, changes, on_hold
from sidecar.lab.drills.witness import POLICY, delivered, let_go, log_text, message_ids, submissions
from sidecar.lab.fleet import Message
from sidecar.lab.measure import Evidence, Figures
from sidecar.lab.run import Bench
from sidecar.lab.scenario import NULL_SENDER

_NULL = (
    campaign("null-sender", burst=40)
    + """
[[sender]]
domain = "replies.burst.example"
dkim = "burst.example"
spf = "<>"
burst = 20
at = 5
to = ["google"]
"""
)
"""Automatic replies, signed by the domain that is paused."""

_VERIFY = f"""
name = "address-verification"
seconds = 200
scale = 60
main_cf = [
  "initial_destination_concurrency = 20",
  "{POLICY}",
  "smtpd_recipient_restrictions = reject_unverified_recipient, $sidecar_policy, permit_mynetworks, reject",
  "address_verify_map =",
  "address_verify_poll_delay = 1s",
  "address_verify_poll_count = 5",
]
[[sender]]
domain = "burst.example"
burst = 30
at = 1
to = ["google"]
[[sender]]
domain = "shop.example"
rate = 3
to = ["google"]
[[provider]]
name = "google"
domains = ["gmail.com"]
mx = ["gmail-smtp-in.l.google.com"]
transaction_s = 0.5
[[provider.limit]]
by = "ip"
kind = "window"
n = 10
per = 360000
stage = "end-of-data"
"""
"""All mail to Google is paused, for its reply names our address; each new recipient is asked for first."""


def _null(message: Message) -> bool:
    return message.sender.spf == NULL_SENDER


async def act_null(bench: Bench) -> None:
    """The replies go out to be refused, and come again by Postfix's own clock."""
    await on_hold(bench, 37)
    await submissions(bench, _null, 20)
    await until(lambda: len(_refused(bench)) >= 20, "each reply attempted although the domain is paused", 40)
    await let_go(bench, "dkim-domain:burst.example@google")
    await delivered(bench, lambda _: True, 60)


def _refused(bench: Bench) -> set[str]:
    sent = {it.message_id for it in bench.fleet.submissions.accepted if _null(it)}
    return {it.message_id for it in bench.ledger.refused} & sent


def expects_null(evidence: Evidence, figures: Figures) -> Iterator[str]:
    """None of them was ever held."""
    del figures
    sent = {it.message_id for it in evidence.submissions.accepted if _null(it)}
    held = message_ids(evidence, {moved.queue_id for moved in evidence.log.held}) & sent
    if held:
        yield f"{len(held)} of {len(sent)} messages of the null sender were held"


async def act_verify(bench: Bench) -> None:
    """Probes come through while everything else to the provider waits, and are no sign that it accepts again."""
    await on_hold(bench, 20, 40)
    before = _verified(bench)
    await until(lambda: _verified(bench) >= before + 10, "ten probes during the pause", 40)
    if await changes(bench, "ramping"):
        raise DrillError("a probe of address verification counted as an acceptance")
    (opened, *_) = await changes(bench, "opened")
    await let_go(bench, opened["key"])
    await delivered(bench, lambda it: it.burst, 40)


def _verified(bench: Bench) -> int:
    return log_text(bench).count(" status=deliverable ")


DRILLS = (
    Drill("null-sender", "the null sender is never parked by domain", _NULL, act_null, expects_null),
    Drill(
        "address-verification",
        "a probe of address verification is never parked, and is no acceptance",
        _VERIFY,
        act_verify,
    ),
)
