"""Rules of other mail servers as values: KumoMTA's shaping and bounce files, PowerMTA's lists in its configuration.

Knows where in these files a rule stands, whose replies it is for, and what its action or class means in our words; where
we have no such thing, why it is not carried over. Their patterns are `foreign_pattern`'s business.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from policies.verdict import Bounce, Reaction, Scope


class FormatError(Exception):
    """A text that is none of the formats: says what is wrong."""


class Meaning(NamedTuple):
    """What a rule would be here, or why it is none."""

    detail: str = ""
    scope: Scope = Scope.MESSAGE
    reaction: Reaction = Reaction.NOTHING
    hard: bool = False
    """A permanent code means that this recipient is gone for good."""
    bounce: Bounce | None = None
    """Whatever the code; None: transient for 4xx, block for 5xx."""
    why_not: str = ""


class Home(NamedTuple):
    """Whose replies a rule is for; all empty: any server's."""

    name: str = ""
    mx: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()


class Foreign(NamedTuple):
    """One pattern and what it is for."""

    line: int
    group: str
    """The list or block it stands in; the first of a group that matches decides, where `first_decides`."""
    first_decides: bool
    begins_with: str
    """"code" or "status": what the text that patterns are tried on begins with."""
    ignore_case: bool
    pattern: str
    action: str
    """As it is called there."""
    home: Home
    meaning: Meaning
    recipients: int = 0
    """Matches that it takes; 0: not said."""
    within: str = ""
    pause: float = 0.0
    """Seconds; 0: not said."""
    remarks: tuple[str, ...] = ()
    dead: str = ""
    """Why it is never asked there."""


def read(text: str, matches: Mapping[str, Any] | None = None) -> tuple[str, list[Foreign]]:
    """Read a file of any of the formats, which is found by looking; its name and its rules. Raises FormatError.

    `matches`: what other files say of KumoMTA's providers, for the files of a site are laid over each other.
    """
    if _TAG.search(text):
        return "PowerMTA lists", list(_powermta(text))
    table = _table(text)
    if _is_classes(table):
        return "KumoMTA bounce classes", list(_bounce_classes(text, table["rules"]))
    found = list(_shaping(text, table, {**(matches or {}), **_matches(table)}))
    if not found and not _matches(table):
        raise FormatError(
            "no rules found; wanted KumoMTA's [[provider.\"name\".automation]] or [rules], or PowerMTA's "
            "<smtp-pattern-list> or <bounce-category-patterns>"
        )
    return "KumoMTA shaping", found


def _is_classes(table: Mapping[str, Any]) -> bool:
    return isinstance(table.get("rules"), dict) and not any(key in table for key in ("provider", "default"))


def provider_matches(text: str) -> dict[str, Any]:
    """Provider -> how KumoMTA's file matches hosts to it; nothing for other formats. Raises FormatError."""
    return {} if _TAG.search(text) else _matches(_table(text))


def _matches(table: Mapping[str, Any]) -> dict[str, Any]:
    providers = table.get("provider", {})
    return {
        name: block["match"]
        for name, block in (providers.items() if isinstance(providers, dict) else ())
        if isinstance(block, dict) and "match" in block
    }


def _table(text: str) -> dict[str, Any]:
    try:
        table = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"neither PowerMTA's lists nor valid TOML or JSON: {error}") from error
    if not isinstance(table, dict):
        raise FormatError("a list at the top; wanted tables")
    return table


# --- classes ------------------------------------------------------------------------------------------------------

_NO_REFUSAL: Final = Meaning(why_not="it is about mail that came in, not about a refusal")
_RECIPIENT: Final = Scope.RECIPIENT

CLASSES: Final[Mapping[str, Meaning]] = {
    "bad-mailbox": Meaning("recipient.unknown", _RECIPIENT, hard=True),
    "invalid-recipient": Meaning("recipient.unknown", _RECIPIENT, hard=True),
    "bad-domain": Meaning("recipient.bad-domain", Scope.RECIPIENT_DOMAIN, hard=True),
    "inactive-mailbox": Meaning("recipient.inactive", _RECIPIENT, hard=True),
    "quota-issues": Meaning("recipient.full", _RECIPIENT, bounce=Bounce.SOFT),
    "invalid-sender": Meaning("policy.sender", Scope.SENDER_DOMAIN, Reaction.ALERT_AUTH),
    "authentication-failed": Meaning("authentication.unauthenticated", Scope.SENDER_DOMAIN, Reaction.ALERT_AUTH),
    "spam-related": Meaning("content.spam", Scope.MESSAGE, Reaction.ALERT_CONTENT),
    "spam-content": Meaning("content.spam", Scope.MESSAGE, Reaction.ALERT_CONTENT),
    "spam-block": Meaning("reputation.ip", Scope.IP, Reaction.SLOW_IP),
    "content-related": Meaning("content.spam", Scope.MESSAGE, Reaction.ALERT_CONTENT),
    "virus-related": Meaning("content.attachment", Scope.MESSAGE, Reaction.ALERT_CONTENT),
    "prohibited-attachment": Meaning("content.attachment", Scope.MESSAGE, Reaction.ALERT_CONTENT),
    "policy-related": Meaning("policy.other", Scope.MESSAGE, Reaction.ALERT_CONTENT),
    "protocol-errors": Meaning("policy.protocol", Scope.LOCAL, Reaction.ALERT_LOCAL),
    "too-many-recipients": Meaning("policy.too-many-recipients", Scope.MESSAGE),
    "relaying-issues": Meaning("policy.relay", Scope.RECIPIENT_DOMAIN),
    "relay-denied": Meaning("policy.relay", Scope.RECIPIENT_DOMAIN),
    "routing-errors": Meaning("infrastructure.remote", Scope.REMOTE),
    "transient-failure": Meaning("infrastructure.remote", Scope.REMOTE),
    "bad-configuration": Meaning("infrastructure.remote", Scope.REMOTE),
    "no-answer-from-host": Meaning("infrastructure.connect", Scope.REMOTE),
    "bad-connection": Meaning("infrastructure.connect", Scope.REMOTE),
    "dns-failure": Meaning("infrastructure.dns", Scope.REMOTE),
    "message-expired": Meaning("infrastructure.timeout", Scope.REMOTE),
    "auto-reply": _NO_REFUSAL,
    "subscribe": _NO_REFUSAL,
    "unsubscribe": _NO_REFUSAL,
    "challenge-response": _NO_REFUSAL,
    "success": Meaning(why_not="a success is no refusal"),
    "other": Meaning(why_not="it says nothing of the cause"),
    "uncategorized": Meaning(why_not="it says nothing of the cause"),
}
"""PowerMTA's categories and KumoMTA's classes (written the same way) -> what they mean here."""


def kebab(name: str) -> str:
    """Write DNSFailure as dns-failure."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()


def _class_meaning(name: str) -> Meaning:
    return CLASSES.get(kebab(name)) or Meaning(why_not=f"{name} is a class of the site's own, of unknown meaning")


def _bounce_classes(text: str, rules: Mapping[str, Any]) -> Iterator[Foreign]:
    """[rules] of class -> patterns, tried in this order; crates/bounce-classify of KumoMTA."""
    at = 0
    for name, patterns in rules.items():
        at = max(at, _position(text, rf"^[ \t]*[\"']?{re.escape(name)}[\"']?\s*=", at))
        for pattern in patterns if isinstance(patterns, list) else []:
            if not isinstance(pattern, str):
                continue
            found = _string_position(text, pattern, at)
            at = max(at, found)
            yield Foreign(
                _line(text, found), "rules", True, "code", False, pattern, name, Home(), _class_meaning(name)
            )  # fmt: skip


# --- shaping ------------------------------------------------------------------------------------------------------

_SLOW: Final = Meaning("throttling.ip", Scope.IP, Reaction.SLOW_IP)
_CONNECTIONS: Final = Meaning("throttling.connections", Scope.IP, Reaction.SLOW_IP)
_SETTINGS: Final[Mapping[str, Meaning]] = {
    "max_message_rate": _SLOW,
    "source_selection_rate": _SLOW,
    "connection_limit": _CONNECTIONS,
    "max_connection_rate": _CONNECTIONS,
    "max_deliveries_per_connection": _CONNECTIONS,
}
_ACTIONS: Final[Mapping[str, Meaning]] = {
    "Suspend": _SLOW,
    "SuspendTenant": Meaning("throttling.domain", Scope.SENDER_DOMAIN, Reaction.PAUSE_DOMAIN),
    "SuspendCampaign": Meaning(why_not="no reply names a campaign; `sidecar subqueue open` pauses one by hand"),
    "Bounce": Meaning(why_not="we never bounce mail that Postfix would keep"),
    "BounceTenant": Meaning(why_not="we never bounce mail that Postfix would keep"),
    "BounceCampaign": Meaning(why_not="we never bounce mail that Postfix would keep"),
}
_AUTOMATION: Final = "automation"
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)
_SECONDS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_THRESHOLD: Final = re.compile(r"(\d+)\s*/\s*(s|m|h|d)[a-z]*")
_WINDOWS: Final = {"s": "1s", "m": "1m", "h": "1h", "d": "24h"}


def _seconds(text: str) -> float:
    """Read "90m", "2 hours", "1h 30m"; 0 for what is none."""
    parts = _DURATION.findall(text)
    return sum(
        float(number) * _SECONDS.get(unit.lower(), _SECONDS.get(unit[:1].lower(), 0.0)) for number, unit in parts
    )


def _shaping(text: str, table: Mapping[str, Any], matches: Mapping[str, Any]) -> Iterator[Foreign]:
    """Blocks with `automation`; crates/kumo-api-types/src/shaping.rs of KumoMTA."""
    for name, block in table.items():
        if name == "provider" and isinstance(block, dict):
            for provider, settings in block.items():
                whose = _provider(provider, matches.get(provider, []))
                yield from _block(text, rf"provider\.[\"']?{re.escape(provider)}[\"']?", settings, whose)
        else:
            whose = (Home(), "") if name == "default" else _provider(name, [{"DomainSuffix": name}])
            yield from _block(text, rf"[\"']?{re.escape(name)}[\"']?", block, whose)


def _block(text: str, header: str, block: Any, whose: tuple[Home, str]) -> Iterator[Foreign]:
    automation = block.get(_AUTOMATION) if isinstance(block, dict) else None
    at = 0
    for rule in automation if isinstance(automation, list) else ():
        at = _position(text, rf"^[ \t]*\[\[\s*{header}\.[\"']?{_AUTOMATION}[\"']?\s*\]\]", at)
        if isinstance(rule, dict):
            yield from _automation(text, at, rule, whose)
        at += 2


def _provider(name: str, found: Any) -> tuple[Home, str]:
    """Whose hosts a block is for, and why it is for nobody's."""
    mx: list[str] = []
    domains: list[str] = []
    for match in found if isinstance(found, list) else [found]:
        for kind, value in match.items() if isinstance(match, dict) else ():
            {"MXSuffix": mx, "HostName": mx, "DomainSuffix": domains}.get(kind, []).append(str(value).lower())
    if not (mx or domains):
        return Home(name), f'a dead block: no file given matches provider "{name}" to a host'
    dotted = [value for value in (*mx, *domains) if value.endswith(".")]
    home = Home(name, _hosts(mx), _hosts(domains))
    if not (home.mx or home.domains):
        return home, f"a dead block: {(*mx, *domains)[0]!r} is no host name"
    if len(dotted) == len(mx) + len(domains):
        return home, f"a dead block: {dotted[0]!r} ends in a dot, and host names are compared without"
    return home, ""


_HOST: Final = re.compile(r"\.?(?:[a-z0-9_-]{1,63}\.)*[a-z0-9-]{1,63}")


def _hosts(names: list[str]) -> tuple[str, ...]:
    return tuple(host for name in names if _HOST.fullmatch(host := name.rstrip(".")))


def _automation(text: str, at: int, rule: Mapping[str, Any], whose: tuple[Home, str]) -> Iterator[Foreign]:
    home, dead = whose
    actions = rule.get("action", [])
    meaning, action, remarks = _action(actions if isinstance(actions, list) else [actions])
    recipients, within = _trigger(rule.get("trigger", "Immediate"))
    patterns = rule.get("regex", [])
    for pattern in patterns if isinstance(patterns, list) else [patterns]:
        if not isinstance(pattern, str):
            continue
        found = _string_position(text, pattern, at)
        internal = pattern.startswith("KumoMTA internal: ") or rule.get("match_internal") is True
        why = Meaning(why_not="it is about words of KumoMTA's own, not of a server") if internal else meaning
        yield Foreign(
            _line(text, found), home.name, False, "code", False, pattern, action, home, why, recipients,
            within, _seconds(str(rule.get("duration", ""))), remarks, dead,
        )  # fmt: skip


def _action(actions: list[Any]) -> tuple[Meaning, str, tuple[str, ...]]:
    """The first action that we have; the others are told."""
    meanings: list[tuple[Meaning, str]] = []
    remarks: list[str] = []
    for action in actions:
        if isinstance(action, str):
            meanings.append((_ACTIONS.get(action) or Meaning(why_not=f"unknown action {action}"), action))
        elif isinstance(action, dict) and len(action) == 1:
            ((kind, setting),) = action.items()
            name = setting.get("name", "") if isinstance(setting, dict) else ""
            value = setting.get("value", "") if isinstance(setting, dict) else ""
            unknown = Meaning(why_not=f"{name or kind} is a setting of that server alone")
            meanings.append((_SETTINGS.get(str(name)) or unknown, f"{kind} {name}={value}"))
    if not meanings:
        return Meaning(why_not="it does nothing"), "", ()
    carried = [found for found in meanings if not found[0].why_not] or meanings
    meaning, said = carried[0]
    if "=" in said and not meaning.why_not:
        remarks.append(f"{said}: the pace is learned here, not set")
    remarks += [f"{other} is left out" for other_meaning, other in meanings if other_meaning is not meaning]
    return meaning, ", ".join(other for _, other in meanings), tuple(remarks)


def _trigger(trigger: Any) -> tuple[int, str]:
    threshold = trigger.get("Threshold", "") if isinstance(trigger, dict) else ""
    parts = _THRESHOLD.match(str(threshold))
    return (max(1, int(parts[1])), _WINDOWS[parts[2]]) if parts else (1, "")


# --- PowerMTA -----------------------------------------------------------------------------------------------------

_TAG: Final = re.compile(r"^[ \t]*<(?:smtp-pattern-list\b|bounce-category-patterns\b)", re.MULTILINE | re.IGNORECASE)
_OPENS: Final = re.compile(r"<([a-z-]+)\s*([^>]*)>", re.IGNORECASE)
_PATTERN: Final = re.compile(r"(?:(?:reply|/)\s*)??(?P<slash>/)(?P<pattern>(?:\\.|[^\\/])*)/(?P<rest>.*)")
_TIME: Final = re.compile(r"reenable-after\s*=\s*([\w ]+)")


class _Domains(NamedTuple):
    """Which <domain> uses which list, and for how long it stays in backoff."""

    of_list: dict[str, list[str]]
    pause: dict[str, float]


def _powermta(text: str) -> Iterator[Foreign]:
    uses = _domains(text)
    section, name = "", ""
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if line.startswith("</"):
            section = ""
        elif opened := _OPENS.fullmatch(line.partition("#")[0].strip()):
            section, name = opened[1].lower(), opened[2].strip()
        elif line and not line.startswith("#") and section in {"smtp-pattern-list", "bounce-category-patterns"}:
            parts = _PATTERN.match(line)
            if parts is None:
                refused = Meaning(why_not="not understood; wanted /pattern/ and an action or a category")
                yield Foreign(number, name, True, "code", True, line, "", Home(), refused)
                continue
            rest = parts["rest"].partition("#")[0].strip()
            if section == "smtp-pattern-list":
                yield _backoff(number, name, parts["pattern"], rest, uses)
            else:
                yield Foreign(number, "categories", True, "status", True, parts["pattern"], rest, Home(),
                              _class_meaning(rest))  # fmt: skip


def _domains(text: str) -> _Domains:
    uses, current = _Domains({}, {}), ""
    macros: dict[str, list[str]] = {}
    here: dict[str, str] = {}
    for raw in text.splitlines():
        line = raw.partition("#")[0].strip()
        words = line.split(None, 2)
        if opened := _OPENS.fullmatch(line):
            current, here = (opened[2].strip() if opened[1].lower() == "domain" else ""), {}
        elif line.lower().startswith("</domain") and current and "smtp-pattern-list" in here:
            used = here["smtp-pattern-list"]
            of = macros.get(current[1:], []) if current.startswith("$") else [current.lower()]
            uses.of_list.setdefault(used, []).extend(of)
            uses.pause[used] = max(uses.pause.get(used, 0.0), _seconds(here.get("backoff-to-normal-after", "")))
        elif words[:1] == ["domain-macro"] and len(words) == 3:
            macros[words[1]] = [domain.strip().lower() for domain in words[2].split(",")]
        elif current and len(words) > 1:
            here[words[0].lower()] = line.split(None, 1)[1]
    return uses


def _backoff(number: int, name: str, pattern: str, rest: str, uses: _Domains) -> Foreign:
    actions = [action.strip().lower() for action in rest.split(",")]
    pause, remarks = uses.pause.get(name, 0.0), []
    time = _TIME.search(rest)
    if "disable-source-ip" in rest:
        meaning, pause = Meaning("reputation.ip", Scope.IP, Reaction.SLOW_IP), _seconds(time[1]) if time else 0.0
    elif "mode=backoff" in actions:
        meaning = Meaning("throttling.generic", Scope.IP, Reaction.SLOW_IP)
        remarks = [action for action in actions if action != "mode=backoff"]
    elif any(action.startswith("bounce-") for action in actions):
        meaning = Meaning(why_not="we never bounce mail that Postfix would keep")
    else:
        meaning = Meaning(why_not=f"{rest or 'no action'}: nothing of that kind is done here")
    domains = uses.of_list.get(name, [])
    home, dead = Home(), ""
    if uses.of_list and not domains:
        dead = f"no <domain> uses the list {name}"
    elif domains and "*" not in domains:
        home = Home(name, (), _hosts(list(dict.fromkeys(domains))))
    said = tuple(f"{remark} is left out" for remark in remarks)
    return Foreign(number, name, True, "code", True, pattern, rest, home, meaning, 0, "", pause, said, dead)


# --- places -------------------------------------------------------------------------------------------------------


def _position(text: str, pattern: str, at: int) -> int:
    found = re.compile(pattern, re.MULTILINE).search(text, at)
    return found.start() if found else at


def _string_position(text: str, value: str, at: int) -> int:
    """Where a string stands, whichever way it is written; `at` where it is not found."""
    for written in (value, value.replace("\\", "\\\\").replace('"', '\\"')):
        if (found := text.find(written, at)) >= 0:
            return found
    return at


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1
