"""The grammar of Postfix's log: which daemon's lines are read by which shapes. One module a family of daemons."""

from collections.abc import Mapping
from typing import Final

from parsers.postfix.agents import AGENTS
from parsers.postfix.bounce import BOUNCE
from parsers.postfix.cleanup import CLEANUP
from parsers.postfix.facts import Fact
from parsers.postfix.grammar import Grammar
from parsers.postfix.pickup import PICKUP
from parsers.postfix.postsuper import POSTSUPER
from parsers.postfix.process import MASTER, SCRIPT
from parsers.postfix.qmgr import QMGR
from parsers.postfix.screening import ANVIL, DNSBLOG, POSTSCREEN, SCACHE, TLSPROXY, VERIFY
from parsers.postfix.signing import OPENDKIM, OPENDMARC, RSPAMD
from parsers.postfix.smtpd import SMTPD
from parsers.record import LogRecord

DAEMONS: Final[Mapping[str, Grammar]] = {
    "smtp": AGENTS,
    "lmtp": AGENTS,
    "local": AGENTS,
    "virtual": AGENTS,
    "pipe": AGENTS,
    "error": AGENTS,
    "retry": AGENTS,
    "discard": AGENTS,
    "qmgr": QMGR,
    "oqmgr": QMGR,
    "nqmgr": QMGR,
    "cleanup": CLEANUP,
    "smtpd": SMTPD,
    "qmqpd": SMTPD,
    "bounce": BOUNCE,
    "defer": BOUNCE,
    "trace": BOUNCE,
    "pickup": PICKUP,
    "postsuper": POSTSUPER,
    "master": MASTER,
    "postfix-script": SCRIPT,
    "postfix": SCRIPT,
    "postscreen": POSTSCREEN,
    "dnsblog": DNSBLOG,
    "tlsproxy": TLSPROXY,
    "anvil": ANVIL,
    "scache": SCACHE,
    "verify": VERIFY,
}
"""Last element of the tag: its shapes. A daemon that is not here is read as a delivery agent."""

BESIDE: Final[Mapping[str, Grammar]] = {
    "opendkim": OPENDKIM,
    "opendmarc": OPENDMARC,
    "rspamd": RSPAMD,
}
"""Programs that are not Postfix's and speak of its messages."""

_FOREIGN: Final = Grammar(diagnostics=())


def grammar_of(instance: str, daemon: str) -> Grammar:
    """Whose shapes a line is read by; `instance` is "" for programs that are not Postfix's."""
    return DAEMONS.get(daemon, AGENTS) if instance else BESIDE.get(daemon, _FOREIGN)


def parse(record: LogRecord) -> Fact | None:
    """What a line states; None for a line that no shape takes. Never raises."""
    return grammar_of(record.instance, record.daemon).read(record)


def compile_all() -> None:
    """Make the expressions of all daemons now: core answers questions while it reads, and must not stop for them."""
    for shapes in {*DAEMONS.values(), *BESIDE.values()}:
        shapes.compile()
