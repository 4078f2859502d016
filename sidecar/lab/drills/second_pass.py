"""Rule 7: two smtpds in a row, with a filter between them; the sidecar belongs to the last one.

Behind an after-queue filter each message has two queue ids, and the first one's `relay=127.0.0.1 status=sent` says
nothing about the provider. Before a proxy filter there is no queue id, and nothing that we could answer.
"""

from collections import Counter
from collections.abc import Iterator

from sidecar.lab.drills.drill import Drill, DrillError
from sidecar.lab.drills.levers import campaign, changes, counted_once, on_hold
from sidecar.lab.drills.witness import (
    POLICY,
    delivered,
    let_go,
    log_text,
    pipe,
    told_sent_by,
    until_state,
)
from sidecar.lab.measure import Evidence, Figures
from sidecar.lab.run import Bench

_KEY = "dkim-domain:burst.example@google"
_FILTER, _BEHIND = 10025, 10026
_CHECKS = "-o smtpd_recipient_restrictions=$sidecar_policy,permit_mynetworks,reject -o smtpd_end_of_data_restrictions=$sidecar_policy"
_ONCE = "no_unknown_recipient_checks,no_header_body_checks,no_milters"
"""What the first pass has done already."""
_STEADY = """
[[sender]]
domain = "burst.example"
rate = 4
to = ["google"]
"""
"""Goes on while the key is paused and probing, so that first passes end in each of its states."""
_UNDER_WAY = 20
"""Messages whose delivery line may not be in the log yet: no more than there are slots."""

_CONTENT_FILTER = campaign(
    "content-filter",
    burst=60,
    scale=100,
    main_cf=(
        POLICY,
        f"content_filter = smtp:[127.0.0.1]:{_FILTER}",
        "smtpd_recipient_restrictions = permit_mynetworks, reject",
        "smtpd_end_of_data_restrictions =",
    ),
    master_cf=(
        f"127.0.0.1:{_BEHIND} inet n - n - - smtpd -o content_filter= {_CHECKS} -o receive_override_options={_ONCE}",
    ),
)
_PROXY_FILTER = campaign(
    "proxy-filter",
    burst=60,
    main_cf=(POLICY, f"smtpd_proxy_filter = 127.0.0.1:{_FILTER}"),
    master_cf=(f"127.0.0.1:{_BEHIND} inet n - n - - smtpd -o smtpd_proxy_filter= {_CHECKS}",),
)


async def act_content_filter(bench: Bench) -> None:
    """While the provider refuses, no first pass may pass for its acceptance."""
    async with pipe(_FILTER, _BEHIND):
        await on_hold(bench, 45)
        await until_state(bench, _KEY, {"probing"}, 40)
        await until_state(bench, _KEY, {"paused"}, 40)
        if await changes(bench, "ramping"):
            raise DrillError("the sub-queue ramps although the provider has refused everything since it opened")
        await let_go(bench, _KEY)
        await delivered(bench, lambda it: it.burst, 30)
        await counted_once(bench)
        told, took = told_sent_by(bench, "google"), len(bench.ledger.accepted)
        if not 0 <= took - told <= _UNDER_WAY:
            raise DrillError(f"core counts {told} messages that google took; it took {took}")


async def act_proxy_filter(bench: Bench) -> None:
    """Both passes ask; the first one has nothing to ask about."""
    async with pipe(_FILTER, _BEHIND):
        await on_hold(bench, 45)
        await let_go(bench, _KEY)
        await delivered(bench, lambda it: it.burst, 30)
        complaint = next((line for line in log_text(bench).splitlines() if " smtpd_proxy_filter " in line), "")
        if complaint:
            raise DrillError(f"smtpd cannot do before the proxy filter what it was told: {complaint}")


def expects_two_ids(evidence: Evidence, figures: Figures) -> Iterator[str]:
    """Each message really went round: two queue ids with one Message-ID."""
    del figures
    passes = Counter(evidence.log.message_ids.values())
    once = [it.message_id for it in evidence.submissions.accepted if it.burst and passes[it.message_id] != 2]
    if once:
        yield f"{len(once)} messages have not exactly two queue ids, as {once[0]}; the trap did not close"


def expects_one_id(evidence: Evidence, figures: Figures) -> Iterator[str]:
    """Each message is queued behind the proxy alone, and some were held there."""
    del figures
    if len(evidence.log.message_ids) != len(set(evidence.log.message_ids.values())):
        yield "a message has two queue ids: it was queued before the proxy filter as well"
    if len(evidence.log.held) < 45:
        yield f"only {len(evidence.log.held)} messages were held"


DRILLS = (
    Drill(
        "content-filter",
        "what the filter takes is not what the provider takes",
        _CONTENT_FILTER + _STEADY,
        act_content_filter,
        expects_two_ids,
    ),
    Drill(
        "proxy-filter",
        "a check before a proxy filter answers nothing and breaks nothing",
        _PROXY_FILTER + _STEADY,
        act_proxy_filter,
        expects_one_id,
    ),
)
