"""The same campaign by other ways: two providers at once, several of them in one message, sendmail(1), other scopes.

A sub-queue is (identity, provider): what one provider says moves no mail to another, a message waits as long as one
of its sub-queues does, and a reply about one mailbox moves nothing.
"""

import re
from collections.abc import Iterator
from functools import partial

from sidecar.lab.drills.drill import Drill, DrillError, until
from sidecar.lab.drills.levers import accept, changes, flushed, on_hold
from sidecar.lab.drills.witness import Chosen, delivered, let_go, submissions, submitted
from sidecar.lab.fleet import Message
from sidecar.lab.measure import Evidence, Figures
from sidecar.lab.run import Bench

_GOOGLE_KEY = "dkim-domain:burst.example@google"
_COMCAST_KEY = "sender-domain:burst.example@comcast"

_OUR_ADDRESS = re.compile(r"(ip|netblock|host):[^@]+@yahoo$")

_HEAD = """
name = "{name}"
seconds = 200
scale = 60
main_cf = ["initial_destination_concurrency = 20"]
"""
_GOOGLE = """
[[provider]]
name = "google"
domains = ["gmail.com"]
mx = ["gmail-smtp-in.l.google.com"]
transaction_s = 0.5
"""
_COMCAST = """
[[provider]]
name = "comcast"
domains = ["comcast.net"]
mx = ["mx1.comcast.net"]
transaction_s = 0.5
"""
_APPLE = """
[[provider]]
name = "apple"
domains = ["icloud.com"]
mx = ["mx01.mail.icloud.com"]
transaction_s = 0.1
"""
_YAHOO = """
[[provider]]
name = "yahoo"
domains = ["yahoo.com", "aol.com"]
mx = ["mta5.am0.yahoodns.net"]
transaction_s = 0.5
"""
_LIMIT = """
[[provider.limit]]
by = "{by}"
kind = "window"
n = {n}
per = 360000
stage = "{stage}"
"""

_TWO = (
    _HEAD.format(name="two-providers")
    + """
[[sender]]
domain = "burst.example"
burst = 90
at = 1
to = ["google", "comcast", "apple"]
[[sender]]
domain = "burst.example"
burst = 10
at = 7
to = ["google", "comcast"]
recipients = 2
"""
    + (_GOOGLE + _LIMIT.format(by="dkim", n=3, stage="end-of-data"))
    + (_COMCAST + _LIMIT.format(by="envelope", n=3, stage="end-of-data"))
    + _APPLE
)
"""Two of three providers throttle, each with its own words; later mail has a recipient at both."""

_IN_ONE = (
    _HEAD.format(name="two-providers-in-one-message")
    + """
[[sender]]
domain = "burst.example"
burst = 40
at = 1
to = ["google", "apple"]
recipients = 2
[[sender]]
domain = "burst.example"
burst = 40
at = 6
to = ["google", "apple"]
recipients = 2
"""
    + (_GOOGLE + _LIMIT.format(by="dkim", n=3, stage="end-of-data"))
    + _APPLE
)
_PICKUP = (
    _HEAD.format(name="from-pickup")
    + """
[[sender]]
domain = "burst.example"
burst = 60
at = 1
via = "pickup"
to = ["google"]
"""
    + (_GOOGLE + _LIMIT.format(by="dkim", n=3, stage="end-of-data"))
)
_ADDRESS = (
    _HEAD.format(name="about-our-address")
    + """
[[sender]]
domain = "burst.example"
burst = 60
at = 1
to = ["yahoo"]
[[sender]]
domain = "club-{n}.example"
count = 3
rate = 1
to = ["yahoo"]
[[sender]]
domain = "shop-{n}.example"
count = 3
rate = 2
to = ["google"]
"""
    + (_YAHOO + _LIMIT.format(by="ip", n=20, stage="mail"))
    + _GOOGLE
)
_RECIPIENT = (
    _HEAD.format(name="about-a-recipient")
    + """
[[sender]]
domain = "burst.example"
burst = 60
at = 1
mailboxes = 1
to = ["google"]
[[sender]]
domain = "reports.example"
burst = 40
at = 2
mailboxes = 1
to = ["yahoo"]
"""
    + (_GOOGLE + _LIMIT.format(by="recipient", n=5, stage="rcpt"))
    + (_YAHOO + _LIMIT.format(by="recipient", n=5, stage="rcpt"))
    + 'reply = "452 4.2.2 The email account that you tried to reach is over quota"\n'
)
"""A mailbox that gets too much, and one that is full."""


async def act_two(bench: Bench) -> None:
    """Each of the two has its own sub-queue; a message in both waits for the second of them."""
    await on_hold(bench, 50)
    await submissions(bench, _in_both, 10)
    await until(lambda: len(_held(bench, _in_both)) >= 10, "mail to both of them on hold", 20)
    await _opened(bench, {_GOOGLE_KEY, _COMCAST_KEY})
    await delivered(bench, lambda it: not _in_both(it) and it.recipients[0].endswith("@icloud.com"), 20)
    accept(bench)
    await let_go(bench, _COMCAST_KEY)
    await delivered(bench, lambda it: not _in_both(it) and it.recipients[0].endswith("@comcast.net"), 40)
    await let_go(bench, _GOOGLE_KEY)
    await delivered(bench, lambda _: True, 60)


async def act_in_one(bench: Bench) -> None:
    """A recipient whom nobody throttles does not wait; only what is left of a message then is held."""
    await submissions(bench, lambda _: True, 80)
    taken, refused = bench.ledger.accepted, bench.ledger.refused
    await until(lambda: sum(it.provider == "apple" for it in taken) >= 80, "the half that nobody throttles", 40)
    await until(lambda: len(refused) >= 77, "the other half of each message refused", 40)
    if bench.follower.log.answered:
        raise DrillError(f"{len(bench.follower.log.answered)} messages were held as they arrived")
    await _opened(bench, {_GOOGLE_KEY})
    await let_go(bench, _GOOGLE_KEY)
    await flushed(bench)


async def act_pickup(bench: Bench) -> None:
    """No policy check saw it, so each message has its first attempt, and is taken after that or before."""
    await on_hold(bench, 57, 40)
    if bench.follower.log.answered:
        raise DrillError("a message was held as it arrived, though none went through smtpd; the trap did not close")
    await let_go(bench, _GOOGLE_KEY)
    await delivered(bench, lambda _: True, 60)


async def act_address(bench: Bench) -> None:
    """Everything to that provider waits, whoever sends it, and nothing to another."""
    await on_hold(bench, 50)
    opened = {change["key"] for change in await changes(bench, "opened")}
    if len(opened) != 1 or not all(_OUR_ADDRESS.match(key) for key in opened):
        raise DrillError(f"opened: {', '.join(sorted(opened))}; wanted one sub-queue of our address at yahoo")
    await until(lambda: len(_held(bench, lambda it: it.sender.domain.startswith("club-"))) >= 3, "clubs on hold", 20)
    await let_go(bench, opened.pop())
    await delivered(bench, lambda it: it.burst, 60)


async def act_recipient(bench: Bench) -> None:
    """Refusals by the dozen, and everything stays with Postfix's own back-off."""
    await until(lambda: len(bench.ledger.refused) >= 80, "80 refusals", 40)
    await _opened(bench, set())
    await flushed(bench, 80)
    await _opened(bench, set())


async def _opened(bench: Bench, keys: set[str]) -> None:
    opened = {change["key"] for change in await changes(bench, "opened")}
    if opened != keys:
        raise DrillError(f"opened: {', '.join(sorted(opened)) or 'none'}; wanted {', '.join(sorted(keys)) or 'none'}")


def _in_both(message: Message) -> bool:
    return len(message.recipients) == len({"google", "comcast"})


def _held(bench: Bench, chosen: Chosen) -> set[str]:
    """Message-IDs of the chosen that are on hold."""
    known = bench.follower.log.message_ids
    held = {known.get(queue_id, "") for queue_id in bench.follower.log.on_hold}
    return held & {message.message_id for message in submitted(bench, chosen)}


def expects_held(least: int, evidence: Evidence, figures: Figures) -> Iterator[str]:
    del figures
    held = {moved.queue_id for moved in evidence.log.held}
    if len(held) < least:
        yield f"only {len(held)} messages were held; the trap did not close"


def expects_halves(evidence: Evidence, figures: Figures) -> Iterator[str]:
    """What went on hold had been delivered to the other recipient by then."""
    del figures
    at = {it.message_id: it.time for it in evidence.ledger.accepted if it.provider == "apple"}
    known = evidence.log.message_ids
    early = [it for it in evidence.log.held if it.time < at.get(known.get(it.queue_id, ""), it.time + 1)]
    if early:
        yield f"{len(early)} messages were held while a recipient waited whom nobody throttles"


def expects_nothing_held(evidence: Evidence, figures: Figures) -> Iterator[str]:
    del figures
    if evidence.log.held:
        yield f"{len(evidence.log.held)} messages were held"


DRILLS = (
    Drill(
        "two-providers",
        "one campaign has a sub-queue at each provider that throttles it, and waits for both where it goes to both",
        _TWO,
        act_two,
        partial(expects_held, 64),
    ),
    Drill(
        "two-providers-in-one-message",
        "a recipient whom nobody throttles does not wait for one who is",
        _IN_ONE,
        act_in_one,
        expects_halves,
    ),
    Drill(
        "from-pickup",
        "mail that no policy check saw is taken from the queue",
        _PICKUP,
        act_pickup,
        partial(expects_held, 57),
    ),
    Drill(
        "about-our-address",
        "a refusal of our address pauses everybody's mail to that provider, and to no other",
        _ADDRESS,
        act_address,
        partial(expects_held, 50),
    ),
    Drill(
        "about-a-recipient",
        "a refusal for one mailbox changes nothing for anybody",
        _RECIPIENT,
        act_recipient,
        expects_nothing_held,
    ),
)
