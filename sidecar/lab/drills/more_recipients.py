"""Rules 4 and 9: recipients that smtpd never named, for cleanup adds them: an automatic copy, a virtual alias.

The policy check sees one recipient where the queue file has two, at two providers of which one is paused.
"""

import asyncio
import smtplib
from collections import Counter
from collections.abc import Iterator

from sidecar.lab.drills.drill import Drill, until
from sidecar.lab.drills.levers import by_hand, campaign, on_hold
from sidecar.lab.drills.witness import delivered, delivered_to, let_go
from sidecar.lab.measure import Evidence, Figures
from sidecar.lab.run import Bench

_KEY = "dkim-domain:burst.example@google"
_OTHER = """
[[sender]]
domain = "burst.example"
burst = 20
at = 6
to = ["google"]
[[provider]]
name = "yahoo"
domains = ["yahoo.com"]
mx = ["mta5.am0.yahoodns.net"]
transaction_s = 0.05
"""
_ARCHIVE = "archive@yahoo.com"
_ALIASED = 10
_BCC = campaign("always-bcc", burst=40, main_cf=(f"always_bcc = {_ARCHIVE}",))
_ALIAS = campaign(
    "virtual-alias",
    burst=40,
    main_cf=(
        "virtual_alias_domains = alias.example",
        "virtual_alias_maps = inline:{ { team@alias.example = one@gmail.com two@yahoo.com } }",
    ),
)


async def act_bcc(bench: Bench) -> None:
    """Sent, held, let go: each message and its copy."""
    await on_hold(bench, 40)
    await let_go(bench, _KEY)
    await delivered(bench, lambda _: True, 40)
    copies = len(bench.fleet.submissions.accepted)
    await until(lambda: _taken(bench, _ARCHIVE) >= copies, "a copy of each message", 40)


async def act_alias(bench: Bench) -> None:
    """Mail to the alias while Google is paused for its sender: the other half of it is not to wait."""
    await on_hold(bench, 37)
    await by_hand(bench, "pause", _KEY, seconds=60)
    await asyncio.to_thread(_to_the_alias, bench)
    await until(lambda: _taken(bench, "two@yahoo.com") >= _ALIASED, "the other half of the alias, during the pause", 30)
    await by_hand(bench, "pause", _KEY, seconds=1)
    await let_go(bench, _KEY)
    await delivered(bench, lambda _: True, 40)
    await until(lambda: _taken(bench, "one@gmail.com") >= _ALIASED, "both halves of the alias", 40)


def _taken(bench: Bench, recipient: str) -> int:
    return sum(1 for it in bench.ledger.accepted if it.recipient == recipient)


def _to_the_alias(bench: Bench) -> None:
    with smtplib.SMTP("127.0.0.1", bench.postfix.port) as client:
        for number in range(_ALIASED):
            text = (
                f"DKIM-Signature: v=1; a=rsa-sha256; d=burst.example; s=lab; bh=bGFi; b=bGFi\r\n"
                f"From: news@burst.example\r\nMessage-ID: <alias-{number}@burst.example>\r\n\r\nhello\r\n"
            )
            client.sendmail(f"bounce-{number}@burst.example", ["team@alias.example"], text)


def expects_copies(evidence: Evidence, figures: Figures) -> Iterator[str]:
    """One copy of each message in the archive, no more and no less."""
    del figures
    sent = {it.message_id for it in evidence.submissions.accepted}
    yield from _not_once(delivered_to(evidence, "yahoo.com"), sent)


def expects_halves(evidence: Evidence, figures: Figures) -> Iterator[str]:
    """Each message to the alias once at either provider."""
    del figures
    sent = {f"alias-{number}@burst.example" for number in range(_ALIASED)}
    for domain in ("gmail.com", "yahoo.com"):
        yield from _not_once((it for it in delivered_to(evidence, domain) if it.startswith("alias-")), sent)


def _not_once(arrived: Iterator[str], sent: set[str]) -> Iterator[str]:
    copies = Counter(arrived)
    wrong = [message_id for message_id in sent | copies.keys() if copies[message_id] != (message_id in sent)]
    if wrong:
        yield f"{len(wrong)} messages did not arrive exactly once, as {wrong[0]}: {copies[wrong[0]]} times"


DRILLS = (
    Drill("always-bcc", "an automatic copy arrives once, also of held mail", _BCC + _OTHER, act_bcc, expects_copies),
    Drill(
        "virtual-alias",
        "of an alias to two providers one half does not wait for the other",
        _ALIAS + _OTHER,
        act_alias,
        expects_halves,
    ),
)
