"""What is wrong: a table of conditions, each with what it looks at, when it fires and when it is over.

Knows that only an `ok` value fires or resolves, and that one look may be a slip. A new condition is a row.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from parsers import expression
from parsers.condition import by_attribute, compile_expression
from parsers.expression import Field, FieldType
from parsers.feeds.dnsbl import Severity
from parsers.observation import Outcome
from policies.figures import Figure, Kind
from policies.grades import BETWEEN, SILENT, WELL, Grade, Grader, State, at_least, at_most, listing, reminder
from policies.windows import MANY, STEADY_MIN, STOPPED

DEDUP_MAX: Final = 255
"""Characters that PagerDuty takes."""


class Category(StrEnum):
    """What sort of trouble it is; of incidents."""

    THROTTLING = "throttling"
    LIST_QUALITY = "list-quality"
    REPUTATION = "reputation"
    COMPLAINTS = "complaints"
    AUTHENTICATION = "authentication"
    INFRASTRUCTURE = "infrastructure"
    QUEUE = "queue"
    DUPLICATES = "duplicates"
    """A sender that sends the same again."""
    SIDECAR = "sidecar"
    """Ours: we are blind, behind or cannot tell anybody."""


@dataclass(frozen=True, slots=True)
class Condition:
    name: str
    about: str
    """For people: what is the matter with the object; {value}, {share}, {text}, {volume}, {hours} may stand in it."""
    feed: str
    """Whose figures; with * at its end, all that begin so."""
    measure: str
    """The same of measures; what stands in the place of * is part of the dedup key."""
    grade: Grader
    category: Category
    confirm: int = 1
    """Bad looks in a row until it fires."""
    clear: int = 1
    """Good looks in a row until it is over."""
    daily: bool = False
    """Figures of days: two looks at one day are one."""
    kind: Kind | None = None
    """Only figures about this kind of object."""
    objects: tuple[str, ...] = ()
    """Only these; empty: all."""
    runbook: str = ""
    """File in docs/runbooks, without .md; or a whole URL."""
    owner: str = ""
    bare: bool = False
    """The part of the measure alone tells it in the dedup key."""

    def looks_at(self, figure: Figure) -> bool:
        return self.may_look_at(figure) and (not self.objects or figure.object in self.objects)

    def may_look_at(self, figure: Figure) -> bool:
        """Whether it looks at such figures, of whatever object."""
        kind = self.kind is None or self.kind is figure.kind
        return kind and _fits(self.feed, figure.feed) and _fits(self.measure, figure.measure)

    def _part(self, figure: Figure) -> str:
        """What stands in the place of the measure's *."""
        return figure.measure[len(self.measure) - 1 :] if self.measure.endswith("*") else ""

    def dedup_key(self, figure: Figure) -> str:
        """`pf-rep:<feed>:<object>:<condition>`, in ASCII, of at most 255 characters."""
        part = self._part(figure)
        name = part if self.bare else f"{self.name}.{part}" if part else self.name
        feed = self.feed.rstrip("*") or figure.feed
        whole = f"pf-rep:{feed}:{figure.object}:{name}".encode("ascii", "backslashreplace").decode()
        if len(whole) <= DEDUP_MAX:
            return whole
        return f"{whole[: DEDUP_MAX - 17]}-{hashlib.sha256(whole.encode()).hexdigest()[:16]}"

    def say(self, figure: Figure) -> str:
        """One line about the object, for people."""
        value = figure.value if figure.value is not None else 0.0
        volume = "" if figure.volume == float("inf") else f"{figure.volume:.0f}"
        words = {"share": f"{value:.2%}", "value": f"{value:g}", "hours": f"{value / 3600:.1f}"}
        part = self._part(figure) or figure.measure.rpartition(".")[2]
        return self.about.format(object=figure.object, text=figure.text, volume=volume, part=part, **words)[:400]


def _fits(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


CRITICAL, ERROR, WARNING, INFO = Severity
_YES: Final = 1.0
_HOUR: Final = 3600.0
_DAY: Final = 86_400.0

CONDITIONS: Final = (
    # The log: shares of messages in a window, by provider, sender domain, or all together.
    Condition(
        "hard-bounces", "{object}: {share} of {volume} messages bounced for good", "log", "hard-bounces.1h",
        at_least((CRITICAL, 0.30), (ERROR, 0.10), (WARNING, 0.05), over=0.03, volume=200, times=2.0, sure=True),
        Category.LIST_QUALITY, confirm=2, clear=4, runbook="complaint-spike",
    ),
    Condition(
        "deferrals", "{object} puts off {share} of {volume} attempts", "log", "deferrals.15m",
        at_least((ERROR, 0.60), (WARNING, 0.25), over=0.10, volume=200, times=2.0, sure=True),
        Category.THROTTLING, confirm=2, clear=4, kind=Kind.PROVIDER, runbook="domain-throttled",
    ),
    Condition(
        "acceptance", "{object}: {share} of {volume} messages were accepted", "log", "acceptance.24h",
        at_most((ERROR, 0.90), (WARNING, 0.98), over=0.985, volume=1_000, sure=True),
        Category.REPUTATION, runbook="domain-throttled",
    ),
    Condition(
        "connections", "{share} of {volume} attempts at {object} found no connection", "log", "connections.1h",
        at_least((ERROR, 0.50), (WARNING, 0.10), over=0.05, volume=100, times=2.0, sure=True),
        Category.INFRASTRUCTURE, confirm=2, clear=4, kind=Kind.PROVIDER, runbook="queue-growth",
    ),
    Condition(
        "mx-connections", "{share} of {volume} attempts at the MX host {object} found no connection", "log",
        "mx-connections.1h",
        at_least((ERROR, 0.80), (WARNING, 0.30), over=0.15, volume=100, times=2.0, sure=True, known=True),
        Category.INFRASTRUCTURE, confirm=3, clear=4, runbook="queue-growth",
    ),
    Condition(
        "mx-tls", "{share} of {volume} attempts at the MX host {object} failed for TLS", "log", "mx-tls.1h",
        at_least((ERROR, 0.50), (WARNING, 0.10), over=0.05, volume=100, times=2.0, sure=True, known=True),
        Category.INFRASTRUCTURE, confirm=3, clear=4, runbook="queue-growth",
    ),
    Condition(
        "repeated", "{share} of {volume} deliveries of {object} went to somebody who had the same message: {text}",
        "log", "repeated", at_least((ERROR, 0.20), (WARNING, 0.01), over=0.002, volume=200, sure=True),
        Category.DUPLICATES, confirm=2, clear=8, runbook="repeated-messages",
    ),
    Condition(
        "message-id-alike", "{object} sends one message after another with the same Message-ID, {value} so far: {text}",
        "log", "alike", at_least((INFO, 100.0), over=10.0),
        Category.DUPLICATES, confirm=2, clear=8, runbook="repeated-messages",
    ),
    Condition(
        "tls", "{share} of {volume} attempts at {object} failed for TLS", "log", "tls.1h",
        at_least((ERROR, 0.20), (WARNING, 0.02), over=0.01, volume=100, sure=True),
        Category.INFRASTRUCTURE, confirm=2, clear=4, runbook="queue-growth",
    ),
    Condition(
        "authentication-refused", "{object}: {share} of {volume} attempts were refused for want of authentication",
        "log", "authentication.1h",
        at_least((CRITICAL, 0.20), (ERROR, 0.02), over=0.005, volume=50, sure=True),
        Category.AUTHENTICATION, confirm=2, clear=4, runbook="authentication-broken",
    ),
    Condition(
        "stream-stopped", "{object} sent {share} of the {volume} messages that it sends in such an hour",
        "log", "of-expected.1h",
        at_most((WARNING, STOPPED), over=0.20, volume=STEADY_MIN),
        Category.QUEUE, confirm=8, clear=2, runbook="queue-growth",
    ),
    Condition(
        "streams-stopped", "{share} of {volume} domains that send steadily have stopped", "log", "stopped.1h",
        at_least((ERROR, 0.8), (WARNING, MANY[1]), over=0.05, volume=MANY[0]),
        Category.QUEUE, confirm=8, clear=2, runbook="queue-growth",
    ),
    Condition(
        "surge", "{object} sent {volume} messages in an hour, {value} times the most that it ever did", "log",
        "surge.1h", at_least((ERROR, 20.0), (WARNING, 5.0), over=2.0, volume=5_000),
        Category.REPUTATION, confirm=2, clear=4, kind=Kind.DOMAIN, runbook="complaint-spike",
    ),
    Condition(
        "unusual", "{object}: {text} (of {volume}, at this hour of the week)", "log", "unusual.*",
        at_least((WARNING, 15.0), over=5.0, volume=500),
        Category.REPUTATION, confirm=8, clear=8, runbook="domain-throttled",
    ),
    # Report mail: what people and receivers write to us about our mail.
    Condition(
        "complaints", "{share} of {volume} messages of {object} were called spam by those who got them", "report-mail",
        "complaints.24h", at_least((ERROR, 0.003), (WARNING, 0.001), over=0.0006, volume=500, sure=True),
        Category.COMPLAINTS, confirm=2, clear=4, runbook="complaint-spike",
    ),
    Condition(
        "complaints-raised", "{object} has far more complaints than it used to: {share} of {volume} messages",
        "report-mail", "complaints.24h",
        at_least((WARNING, 0.0003), over=0.0001, volume=2_000, times=2.0, sure=True, known=True),
        Category.COMPLAINTS, confirm=2, clear=4, runbook="complaint-spike",
    ),
    Condition(
        "opt-outs", "{share} of {volume} messages of {object} made people leave the list", "report-mail",
        "opt-outs.24h", at_least((ERROR, 0.02), (WARNING, 0.005), over=0.003, volume=500, times=2.0, sure=True),
        Category.LIST_QUALITY, confirm=2, clear=4, runbook="complaint-spike",
    ),
    Condition(
        "unsubscribe-latency", "it took {hours} hours until we heard that people had left lists of {object}"
        " ({volume} in a day)", "report-mail", "unsubscribe-latency",
        at_least((ERROR, 2 * _DAY), (WARNING, _DAY), over=0.5 * _DAY, volume=20),
        Category.LIST_QUALITY, confirm=2, clear=4, runbook="complaint-spike",
    ),
    Condition(
        "dmarc-failures", "{share} of {volume} messages that we sent as {object} fail DMARC, receivers report",
        "report-mail", "dmarc-failures",
        at_least((ERROR, 0.10), (WARNING, 0.01), over=0.005, volume=100, sure=True),
        Category.AUTHENTICATION, runbook="authentication-broken",
    ),
    Condition(
        "dkim-failures", "{share} of {volume} messages that we sent as {object} have no aligned signature that passes,"
        " receivers report", "report-mail", "dkim-failures",
        at_least((ERROR, 0.50), (WARNING, 0.05), over=0.02, volume=100, sure=True),
        Category.AUTHENTICATION, runbook="authentication-broken",
    ),
    Condition(
        "dmarc-strangers", "{share} of {volume} messages as {object} came from elsewhere, failed DMARC and were let in,"
        " {text}", "report-mail", "dmarc-strangers",
        at_least((WARNING, 0.20), over=0.10, volume=1_000, sure=True),
        Category.AUTHENTICATION, runbook="authentication-broken",
    ),
    Condition(
        "tls-reports", "{share} of {volume} TLS sessions with the MX hosts of {object} failed: {text}", "report-mail",
        "tls-failures", at_least((ERROR, 0.05), (WARNING, 0.01), over=0.005, volume=100, sure=True),
        Category.INFRASTRUCTURE, runbook="authentication-broken",
    ),
    Condition(
        "tls-reports-several", "several reporters see TLS sessions with the MX hosts of {object} fail: {text}",
        "report-mail", "tls-failures.several", at_least((ERROR, 0.01), over=0.002, volume=100),
        Category.INFRASTRUCTURE, runbook="authentication-broken",
    ),
    # Core and what it holds.
    Condition(
        "subqueue-stuck", "{object} has held mail for {hours} hours without getting on", "core", "without-progress",
        at_least((ERROR, 6 * _HOUR), (WARNING, 2 * _HOUR), over=_HOUR),
        Category.THROTTLING, runbook="domain-throttled",
    ),
    Condition(
        "queue-growth", "the queue has grown {value}-fold in an hour, to {volume} messages", "core", "queue-growth.1h",
        at_least((ERROR, 4.0), (WARNING, 2.0), over=1.2, volume=1_000, times=2.0, known=True),
        Category.QUEUE, confirm=8, clear=8, runbook="queue-growth",
    ),
    Condition(
        "queue-age", "{share} of the {volume} messages in the queue are older than an hour", "core", "queue-old",
        at_least((ERROR, 0.80), (WARNING, 0.50), over=0.30, volume=1_000, times=1.5, known=True),
        Category.QUEUE, confirm=6, clear=6, runbook="queue-growth",
    ),
    Condition(
        "log-lag", "core is {value} s behind its log", "core", "log-lag",
        at_least((CRITICAL, 900.0), (ERROR, 120.0), over=60.0), Category.SIDECAR, confirm=4, clear=4,
        runbook="queue-growth",
    ),
    Condition(
        "core-away", "core does not answer: {text}", "core", "away",
        at_least((ERROR, _YES), over=0.0), Category.SIDECAR, confirm=8, clear=2, runbook="queue-growth",
    ),
    # What we ourselves do not see, or cannot say.
    Condition(
        "feed-blind", "feed {object} tells nothing: {text}", "feeds", "blind",
        at_least((WARNING, _YES), over=0.0), Category.SIDECAR, confirm=40, runbook="feed-blind",
    ),
    Condition(
        "feed-refused", "feed {object} does not let us in: {text}", "feeds", "refused",
        at_least((WARNING, _YES), over=0.0), Category.SIDECAR, runbook="feed-blind",
    ),
    Condition(
        "list-sick", "list {object} cannot be believed: {text}", "dnsbl*", "zone-healthy",
        at_most((WARNING, 0.0), over=_YES), Category.SIDECAR, confirm=2, clear=2, kind=Kind.LIST, runbook="feed-blind",
    ),
    Condition(
        "channel-broken", "channel {object} takes no messages: {text}", "channels", "broken",
        at_least((WARNING, _YES), over=0.0), Category.SIDECAR, runbook="feed-blind",
    ),
    # Blocklists: two looks in a row, both ways.
    Condition(
        "listed", "{object} is listed by {part}: {text}", "dnsbl*", "listed.*", listing,
        Category.REPUTATION, confirm=2, clear=2, runbook="ip-listed", bare=True,
    ),
    Condition(
        "senderscore", "{object} has a Sender Score of {value}", "senderscore", "score",
        at_most((ERROR, 69.0), (WARNING, 79.0), over=82.0), Category.REPUTATION, runbook="ip-listed",
    ),
    # Seed tests: two tests in a row.
    Condition(
        "inbox-placement", "{share} of test mail reached the inbox at {object}: {text}", "seedtest",
        "placement.inbox*", at_most((ERROR, 0.50), (WARNING, 0.80), over=0.90), Category.REPUTATION, confirm=2, clear=2,
        kind=Kind.PROVIDER, runbook="spam-folder",
    ),
    Condition(
        "seed-mailbox", "test mail cannot be looked for in {object}: {text}", "seedtest", "seed-mailbox",
        at_most((WARNING, 0.0), over=_YES), Category.SIDECAR, confirm=2, kind=Kind.FEED, runbook="feed-blind",
    ),
    # Our own authentication: two looks in a row, which are ten minutes for a domain that sends.
    *(
        Condition(
            f"own-{requirement.lower().replace('_', '-')}", "{object}: {part} is not as receivers want it: {text}",
            "authentication", f"requirement.{requirement}", at_most((ERROR, 0.0), over=_YES),
            Category.AUTHENTICATION, confirm=2, clear=2, runbook="authentication-broken",
        )
        for requirement in ("SPF", "DKIM", "DMARC_POLICY", "DMARC_ALIGNMENT", "DNS_RECORDS")
    ),
    Condition(
        "own-one-click", "mailings of {object} cannot be left in one click: {text}", "authentication",
        "requirement.ONE_CLICK_UNSUBSCRIBE", at_most((WARNING, 0.0), over=_YES),
        Category.AUTHENTICATION, confirm=2, clear=2, runbook="authentication-broken",
    ),
    Condition(
        "own-helo", "{object} greets with a name that is not its own: {text}", "authentication", "helo",
        at_most((WARNING, 0.0), over=_YES), Category.AUTHENTICATION, confirm=2, clear=2, runbook="authentication-broken",
    ),
    Condition(
        "own-key-age", "DKIM key {part} of {object} is {text}", "authentication", "dkim-key-age.*", reminder,
        Category.AUTHENTICATION, runbook="authentication-broken",
    ),
    # Google Postmaster: daily ratios.
    Condition(
        "spam-rate", "Gmail's users call {share} of {object}'s mail spam", "google-postmaster", "spam",
        at_least((CRITICAL, 0.003), over=0.002),
        Category.COMPLAINTS, clear=2, daily=True, runbook="complaint-spike",
    ),
    Condition(
        "spam-rate-raised", "Gmail's users call {share} of {object}'s mail spam", "google-postmaster", "spam",
        at_least((WARNING, 0.001), over=0.0008),
        Category.COMPLAINTS, confirm=2, clear=2, daily=True, runbook="complaint-spike",
    ),
    Condition(
        "loop-spam-rate", "{share} of feedback loop {part} at {object} is called spam", "google-postmaster",
        "fbl-spam.*", at_least((WARNING, 0.003), over=0.001),
        Category.COMPLAINTS, daily=True, runbook="complaint-spike",
    ),
    Condition(
        "auth-success", "Gmail finds {share} of {object}'s mail well authenticated ({part})", "google-postmaster",
        "auth-success.*", at_most((ERROR, 0.90), (WARNING, 0.98), over=0.985),
        Category.AUTHENTICATION, daily=True, runbook="authentication-broken",
    ),
    Condition(
        "tls-rate", "{share} of {object}'s mail to Gmail is encrypted", "google-postmaster", "tls.inbound",
        at_most((ERROR, 0.90), (WARNING, 0.98), over=0.985), Category.INFRASTRUCTURE, daily=True, runbook="queue-growth",
    ),
    *(
        Condition(
            f"gmail-{reason.replace('_', '-')}", "Gmail refuses {share} of {object}'s mail ({part})",
            "google-postmaster", f"delivery-error.reject.{reason}",
            at_least((ERROR, 0.01), over=0.005), Category.REPUTATION, daily=True, runbook="ip-listed",
        )
        for reason in ("low_ip_reputation", "low_domain_reputation", "ip_in_rbls", "bad_or_missing_ptr_record")
    ),
    Condition(
        "compliance-spam-rate", "Google: {object} needs work: its spam rate", "google-postmaster",
        "compliance.USER_REPORTED_SPAM_RATE", at_most((CRITICAL, 0.0), over=_YES),
        Category.COMPLAINTS, daily=True, runbook="complaint-spike",
    ),
    *(
        Condition(
            f"compliance-{requirement.lower().replace('_', '-')}", "Google: {object} needs work: {part}",
            "google-postmaster", f"compliance.{requirement}", at_most((ERROR, 0.0), over=_YES),
            Category.AUTHENTICATION, daily=True, runbook="authentication-broken",
        )
        for requirement in (
            "SPF", "DKIM", "SPF_AND_DKIM", "DMARC_POLICY", "DMARC_ALIGNMENT", "MESSAGE_FORMATTING", "DNS_RECORDS",
            "ENCRYPTION", "ONE_CLICK_UNSUBSCRIBE", "HONOR_UNSUBSCRIBE",
        )
    ),
    Condition(
        "gmail-unverified", "{object} is not, or no longer, verified at Google Postmaster", "google-postmaster",
        "verified", at_most((WARNING, 0.0), over=_YES), Category.SIDECAR, confirm=2, runbook="feed-blind",
    ),
    Condition(
        "gmail-reputation", "Gmail gives {object} the reputation {text}", "google-postmaster-v1", "domain-reputation",
        at_most((ERROR, 0.0), (WARNING, 1.0), over=2.0), Category.REPUTATION, daily=True, runbook="ip-listed",
    ),
    # Microsoft SNDS: 0 GREEN, 1 YELLOW, 2 RED.
    Condition(
        "snds-red", "Outlook.com takes most of {object}'s mail for spam: {text}", "snds", "filter-result",
        at_least((ERROR, 2.0), over=1.0), Category.REPUTATION, daily=True, runbook="ip-listed",
    ),
    Condition(
        "snds-yellow", "Outlook.com takes some of {object}'s mail for spam: {text}", "snds", "filter-result",
        at_least((WARNING, 1.0), over=0.0), Category.REPUTATION, confirm=2, daily=True, runbook="ip-listed",
    ),
    Condition(
        "snds-complaints", "Outlook.com's users complain of {share} of {object}'s mail", "snds", "complaints",
        at_least((ERROR, 0.003), (WARNING, 0.001), over=0.0008),
        Category.COMPLAINTS, daily=True, runbook="complaint-spike",
    ),
    Condition(
        "snds-traps", "{object} hit {value} spam traps of Outlook.com", "snds", "trap-hits",
        at_least((ERROR, 5.0), (WARNING, 1.0), over=0.0), Category.LIST_QUALITY, daily=True,
        runbook="complaint-spike",
    ),
    Condition(
        "snds-blocked", "Outlook.com blocks {object}: {text}", "snds", "blocked",
        at_least((CRITICAL, _YES), over=0.0), Category.REPUTATION, clear=2, runbook="ip-listed",
    ),
    *(
        Condition(
            f"snds-{what}-age", f"SNDS: {{object}} is {{hours}} hours old; {remedy}", "snds", "credential-age",
            at_least((ERROR, end * _DAY), (WARNING, soon * _DAY), over=(soon - 1.0) * _DAY), Category.SIDECAR,
            kind=Kind.FEED, objects=objects, runbook="feed-blind",
        )
        for what, objects, soon, end, remedy in (
            ("link", ("data-link", "status-link"), 25.0, 29.0, "renew the link in the portal: it ends after 30 days"),
            ("attestation", ("attestation",), 273.0, 300.0, "attest in the portal: access ends after ten months"),
        )
    ),
)  # fmt: skip
"""Every condition of ours; the thresholds of Google, Microsoft and Validity are those that they publish."""


# Conditions of the site's own, in the expression language.

FIELDS: Final[Mapping[str, Field]] = {
    "feed": Field(FieldType.TEXT),
    "object": Field(FieldType.TEXT),
    "kind": Field(FieldType.TEXT, tuple(Kind)),
    "measure": Field(FieldType.TEXT),
    "value": Field(FieldType.NUMBER),
    "share": Field(FieldType.SHARE),
    "text": Field(FieldType.TEXT),
    "volume": Field(FieldType.NUMBER),
    "baseline": Field(FieldType.NUMBER),
}


class _Asked(NamedTuple):
    """A figure as an expression sees it."""

    feed: str
    object: str
    kind: str
    measure: str
    value: float | None
    share: float | None
    text: str
    volume: float
    baseline: float | None


def own(name: str, when: str, *, until: str = "", severity: Severity = WARNING, confirm: int = 1, clear: int = 1,
        runbook: str = "", owner: str = "") -> Condition:  # fmt: skip
    """Make a condition of a site's own: bad where `when` holds, over where `until` holds (else: where `when` does not).

    Raises ExpressionError.
    """
    bad = compile_expression(expression.parse(when, FIELDS), by_attribute)
    over = compile_expression(expression.parse(until, FIELDS), by_attribute) if until else None

    def grade(figure: Figure) -> Grade:
        if figure.outcome is not Outcome.OK:
            return SILENT
        asked = _Asked(
            *figure[:2], str(figure.kind), figure.measure, figure.value, figure.value, figure.text, *figure[9:]
        )
        if bad(asked):
            return Grade(State.BAD, severity)
        return WELL if over is None or over(asked) else BETWEEN

    said = "{object}: {part} is {value} {text}"
    return Condition(name, said, "*", "*", grade, Category.REPUTATION, confirm, clear, runbook=runbook, owner=owner)


# From looks to alerts.


class Turn(StrEnum):
    FIRED = "fired"
    WORSE = "worse"
    RESOLVED = "resolved"


class Alert(NamedTuple):
    """One condition on one object; kept while anything is known of it that is not plain well."""

    key: str
    """The dedup key."""
    condition: str
    feed: str
    object: str
    kind: Kind
    measure: str
    firing: bool = False
    severity: Severity = INFO
    """The worst since it fired."""
    bad: int = 0
    """Bad looks in a row."""
    well: int = 0
    last: Severity | None = None
    """Of the last bad look."""
    since: float = 0.0
    """The first bad look of this run, by the time that it describes."""
    fired_at: float = 0.0
    resolved_at: float = 0.0
    stamp: float = 0.0
    """Of the last look that counted."""
    value: float | None = None
    said: str = ""

    @property
    def idle(self) -> bool:
        """Nothing is left to remember."""
        return not self.firing and self.bad == 0


def begin(condition: Condition, figure: Figure) -> Alert:
    return Alert(condition.dedup_key(figure), condition.name, figure.feed, figure.object, figure.kind, figure.measure)


def follow(alert: Alert, condition: Condition, figure: Figure, *, now: float) -> tuple[Alert, Turn | None]:
    """Take one look into account. A silent look, or one that was seen before, changes nothing."""
    stamp = figure.at if condition.daily else figure.stamp
    grade = condition.grade(figure)
    if grade.state is State.SILENT or stamp <= alert.stamp:
        return alert, None
    seen = alert._replace(stamp=stamp, value=figure.value)
    if grade.state is State.BAD and grade.severity is not None:
        return _bad(seen, condition, figure, grade.severity, now=now)
    if grade.state is State.BETWEEN:
        return seen._replace(well=0, bad=0 if not seen.firing else seen.bad, last=None), None
    calmer = seen._replace(well=seen.well + 1, bad=0, last=None)
    if seen.firing and calmer.well >= condition.clear:
        return calmer._replace(firing=False, resolved_at=now), Turn.RESOLVED
    return calmer, None


def _bad(
    seen: Alert, condition: Condition, figure: Figure, severity: Severity, *, now: float
) -> tuple[Alert, Turn | None]:
    # Where one look does not count, neither does one look that is worse.
    sure = severity if condition.confirm == 1 or seen.last is None else milder(severity, seen.last)
    began = seen.since if seen.bad or seen.firing else min(figure.at, now)
    seen = seen._replace(bad=seen.bad + 1, well=0, last=severity, since=began, said=condition.say(figure))
    if not seen.firing:
        if seen.bad < condition.confirm:
            return seen, None
        return seen._replace(firing=True, severity=sure, fired_at=now, resolved_at=0.0), Turn.FIRED
    if worse(sure, seen.severity) and (condition.confirm == 1 or seen.bad > 1):
        return seen._replace(severity=sure), Turn.WORSE
    return seen, None


_ORDER: Final = {severity: number for number, severity in enumerate(Severity)}


def worse(one: Severity, other: Severity) -> bool:
    """Whether `one` is more severe."""
    return _ORDER[one] < _ORDER[other]


def milder(one: Severity, other: Severity) -> Severity:
    return other if worse(one, other) else one


def worst(severities: Iterable[Severity]) -> Severity:
    """Give the most severe; INFO of none."""
    return min(severities, key=_ORDER.__getitem__, default=INFO)
