"""Lines of pickup(8): local submission, and messages that `postsuper -r` sends through again (pickup.c)."""

import re
from typing import Final

from parsers.postfix.facts import PickedUp
from parsers.postfix.grammar import Grammar, queued
from parsers.postfix.notes import ANY_DAEMON
from parsers.postfix.tokens import QUEUE_ID
from parsers.record import LogRecord


def picked_up(record: LogRecord, queue_id: str, match: re.Match[str]) -> PickedUp:
    uid, sender, orig_id = match.groups()
    return PickedUp(record, queue_id, int(uid), sender, orig_id or "")


PICKUP: Final = Grammar(
    queued("uid", "uid=", rf"(-?\d{{1,12}}) from=<(.*)>(?: orig_id=({QUEUE_ID}))?", picked_up), *ANY_DAEMON
)
