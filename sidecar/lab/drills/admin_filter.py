"""Rule 7: an admin's own FILTER goes before ours, and mail that we held goes where the admin sent it.

An access map gives the campaign a transport of its own. There is a route for its provider as well, and the last
FILTER that smtpd hears wins: ours would be the last.
"""

from collections.abc import Iterator

from sidecar.lab.drills.drill import Drill, DrillError
from sidecar.lab.drills.levers import campaign, on_hold
from sidecar.lab.drills.witness import delivered, let_go, log_text
from sidecar.lab.measure import Evidence, Figures
from sidecar.lab.run import Bench

_KEY = "dkim-domain:burst.example@google"
_CAMPAIGN = campaign(
    "admin-filter",
    burst=60,
    main_cf=(
        "smtpd_sender_restrictions = check_sender_access inline:{ { burst.example = FILTER out-admin: } }",
        "out-admin_destination_concurrency_limit = 20",
        "out-admin_initial_destination_concurrency = 20",
    ),
    master_cf=(
        "out-admin unix - - n - - smtp -o syslog_name=postfix/out-admin",
        "out-google unix - - n - - smtp -o syslog_name=postfix/out-google",
    ),
)
_ROUTE = """sidecar = ['[[route]]', 'provider = "google"', 'transport = "out-google"']"""
_LATER = """
[[sender]]
domain = "burst.example"
burst = 20
at = 6
to = ["google"]
"""
"""Arrives while the key is paused."""


async def act(bench: Bench) -> None:
    """Held and let go; then one more, when nothing is paused."""
    await on_hold(bench, 60)
    await let_go(bench, _KEY)
    await delivered(bench, lambda _: True, 30)
    lines = [line for line in log_text(bench).splitlines() if " status=" in line]
    astray = [line for line in lines if "/out-admin/smtp[" not in line]
    if astray:
        raise DrillError(f"{len(astray)} of {len(lines)} deliveries did not go where the admin sent them: {astray[0]}")


def expects(evidence: Evidence, figures: Figures) -> Iterator[str]:
    """The trap must have closed: mail was held, and on arrival, too."""
    del figures
    if len({moved.queue_id for moved in evidence.log.held} - evidence.log.active.keys()) > 0:
        yield "a held message never became active again"
    if len(evidence.log.held) < 60:
        yield f"only {len(evidence.log.held)} messages were held; the trap did not close"


DRILLS = (Drill("admin-filter", "an admin's FILTER is not overridden", f"{_ROUTE}\n{_CAMPAIGN}{_LATER}", act, expects),)
