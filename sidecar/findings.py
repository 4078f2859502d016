"""What is wrong, missing or worth knowing in a site's Postfix and in how it is wired to us.

A table of checks, each a function of one instance's configuration; none changes anything.
"""

import os
import pwd
import socket
import stat
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from policies.hygiene import Level
from policies.quota import Per
from policies.reacting import Signal
from sidecar import other_filters, restrictions, transports, wiring_plan
from sidecar.config import Config, ConfigError, Mode
from sidecar.hygiene import levels_in, open_hygiene
from sidecar.pools import names
from sidecar.pools import wanted as wanted_pools
from sidecar.postfix import seconds
from sidecar.postfix_configuration import Configuration, Service
from sidecar.provider_names import misspelt
from sidecar.quota import read_quotas
from sidecar.restrictions import Element, PolicyService
from sidecar.routes import routes_of
from sidecar.site import OWN_DOMAINS, domain_tables, relays, wiring_of


class Severity(StrEnum):
    CRITICAL = "critical"
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Finding(NamedTuple):
    """One thing that is not as it should be."""

    id: str
    severity: Severity
    file: str
    """Where it stands, or should."""
    key: str
    found: str
    wanted: str
    """What would be right, and why where that is not plain."""
    command: str
    """What would put it right, "" where that is for a person to decide."""


class Host(NamedTuple):
    """All that the checks look at."""

    site: Configuration
    config: Config
    user: str
    """Whom core runs as."""
    others_wired: bool
    """Another instance asks us, so that this one may be meant not to."""

    def main(self, id_: str, severity: Severity, key: str, wanted: str, command: str = "") -> Finding:
        """A finding about a parameter of main.cf."""
        path = self.site.instance.config_directory / "main.cf"
        return Finding(id_, severity, str(path), key, self.site.expanded.get(key, ""), wanted, command)

    def ours(self, id_: str, key: str, found: str, wanted: str, command: str = "") -> Finding:
        """An error in our own configuration."""
        return Finding(id_, Severity.ERROR, "sidecar.toml", key, found, wanted, command)

    @property
    def apply(self) -> str:
        """The command that wires this instance."""
        name = self.site.instance.syslog_name
        chosen = "" if name == "postfix" else f" --instance {name}"
        return f"sidecar postfix --config-directory {self.site.instance.config_directory}{chosen} apply"

    def postconf(self, setting: str) -> str:
        return f"postconf -c {self.site.instance.config_directory} -e '{setting}'"


Check = Callable[[Host], Iterator[Finding]]

RECIPIENT = "smtpd_recipient_restrictions"
END_OF_DATA = "smtpd_end_of_data_restrictions"
_POLICY_LISTS = (
    "smtpd_client_restrictions",
    "smtpd_helo_restrictions",
    "smtpd_sender_restrictions",
    "smtpd_relay_restrictions",
    RECIPIENT,
    "smtpd_data_restrictions",
    END_OF_DATA,
)
_TIMEOUT_MAX = 10.0
"""Seconds; a policy service of ours answers in milliseconds, and two tries of this are waited for at each recipient."""


def is_ours(host: Host, element: Element) -> bool:
    """Whether an expanded element asks us, at any address of policy.listen."""
    asked = restrictions.policy_service(element)
    return asked is not None and any(_same_place(host, asked.endpoint, ours) for ours in host.config.policy.listen)


def wired(host: Host) -> bool:
    """Whether any smtpd of this instance asks us anything."""
    return any(True for _ in _questions(host))


def find(host: Host) -> list[Finding]:
    """All findings of all checks, the worst first."""
    found = [finding for check in CHECKS for finding in check(host)]
    return sorted(found, key=lambda finding: list(Severity).index(finding.severity))


def _same_place(host: Host, endpoint: str, listen: str) -> bool:
    if endpoint.startswith("unix:") and listen.startswith("unix:"):
        below = host.site.instance.queue_directory
        return below / endpoint.removeprefix("unix:") == below / listen.removeprefix("unix:")
    return endpoint == listen


def _questions(host: Host) -> Iterator[tuple[Service, str, PolicyService]]:
    """Every place where an smtpd asks us: service, list, and how."""
    for service in host.site.smtpd():
        for name in _POLICY_LISTS:
            for element in restrictions.split(host.site.effective(service, name)):
                asked = restrictions.policy_service(element)
                if asked is not None and is_ours(host, element):
                    yield service, name, asked


def _where(host: Host, service: Service, name: str) -> tuple[str, str]:
    """File and key of a list as a service has it."""
    directory = host.site.instance.config_directory
    if name in service.overrides:
        return str(directory / "master.cf"), f"{service.id}/{name}"
    return str(directory / "main.cf"), name


def _version(host: Host) -> Iterator[Finding]:
    version = host.site.instance.parameters["mail_version"]
    if version.split(".")[0] in {"1", "2"}:
        yield host.main(
            "postfix-version", Severity.ERROR, "mail_version", "3.0 or later: default_action of one service"
        )


def _long_queue_ids(host: Host) -> Iterator[Finding]:
    if host.site.expanded.get("enable_long_queue_ids") != "yes":
        key = "enable_long_queue_ids"
        wanted = "yes: short ids are used again, and a hold would meet another message"
        yield host.main("long-queue-ids", Severity.ERROR, key, wanted, host.postconf(f"{key} = yes"))


def _asked(host: Host) -> Iterator[Finding]:
    """Each smtpd that is the last before the Internet asks at RCPT, in time, and at the end of the data."""
    if not wired(host):
        severity = Severity.WARNING if host.others_wired else Severity.ERROR
        wanted = "an smtpd that asks the sidecar; nothing that arrives is held or routed without it"
        yield host.main("not-wired", severity, RECIPIENT, wanted, host.apply)
        return
    seen = set()
    for service in host.site.smtpd():
        if wiring_plan.passed_on(host.site, service):
            continue
        for id_, name, wanted in _UNASKED:
            file, key = _where(host, service, name)
            text = host.site.effective(service, name)
            complaint = _unasked(host, name, text)
            if complaint and key not in seen:
                seen.add(key)
                yield Finding(f"{id_}-{complaint}", Severity.ERROR, file, key, text, wanted, host.apply)


_UNASKED = (
    ("recipient-check", RECIPIENT, "the check before the first permit_*, or it is never asked about mail that one lets pass"),
    ("end-of-data-check", END_OF_DATA, "the check at the head: there the message is decided, with its queue id"),
)  # fmt: skip


def _unasked(host: Host, name: str, text: str) -> str:
    """missing, late, or "" where it is asked as it should."""
    elements = restrictions.split(text)
    if not any(is_ours(host, element) for element in elements):
        return "missing"
    if name == END_OF_DATA:
        return "" if is_ours(host, elements[0]) else "late"
    return "" if restrictions.asked_in_time(text, lambda element: is_ours(host, element)) else "late"


def _filter_passes(host: Host) -> Iterator[Finding]:
    """A message that passes two smtpds must be decided in the last one alone."""
    reported = set()
    for service, name, _ in _questions(host):
        reason = wiring_plan.passed_on(host.site, service)
        if not reason or service.id in reported:
            continue
        reported.add(service.id)
        file, key = _where(host, service, name)
        if reason.startswith("smtpd_proxy_filter"):
            wanted = "no question here: before a proxy filter there is no queue id, and HOLD and FILTER do nothing"
            yield Finding("proxy-filter", Severity.ERROR, file, key, f"{service.id}: {reason}", wanted, "")
        else:
            wanted = "no question here: the mail comes back through another smtpd, and FILTER would skip the filter"
            yield Finding("content-filter-loop", Severity.ERROR, file, key, f"{service.id}: {reason}", wanted, "")
    if not any(not wiring_plan.passed_on(host.site, service) for service in host.site.smtpd()) and host.site.smtpd():
        wanted = (
            "an smtpd with -o content_filter= -o smtpd_proxy_filter= behind the filter: the last before the Internet"
        )
        yield host.main("no-last-smtpd", Severity.ERROR, "content_filter", wanted)


def _answers(host: Host) -> Iterator[Finding]:
    """What smtpd does when we are away or slow, for each distinct way of asking."""
    seen = set()
    for service, name, asked in _questions(host):
        file, key = _where(host, service, name)
        for check in _HOW:
            value = asked.settings.get(
                check.setting, host.site.effective(service, f"smtpd_policy_service_{check.setting}")
            )
            if not check.good(value) and (check.id, key) not in seen:
                seen.add((check.id, key))
                found = f"{check.setting} = {value}"
                yield Finding(check.id, check.severity, file, key, found, check.wanted, host.apply)


class How(NamedTuple):
    """One setting of a policy service and what is right for it."""

    id: str
    severity: Severity
    setting: str
    good: Callable[[str], bool]
    wanted: str


def _short(text: str) -> bool:
    try:
        return seconds(text, "s") <= _TIMEOUT_MAX
    except ValueError:
        return False


_HOW = (
    How("default-action", Severity.ERROR, "default_action", lambda text: text.upper() == "DUNNO",
        "default_action=DUNNO: else mail is refused while the sidecar is away"),
    How("policy-timeout", Severity.WARNING, "timeout", _short,
        "timeout=3s: Postfix waits twice as long, at each recipient"),
    How("try-limit-one", Severity.ERROR, "try_limit", lambda text: text != "1",
        "try_limit=2: with 1, after a restart of the sidecar each open session goes unasked to its end"),
    How("try-limit", Severity.WARNING, "try_limit", lambda text: text in {"1", "2"},
        "try_limit=2: each further try costs a second"),
    How("request-limit", Severity.INFO, "request_limit", lambda text: text == "0",
        "request_limit=0: the sidecar keeps connections open"),
)  # fmt: skip


def _policy_socket(host: Host) -> Iterator[Finding]:
    endpoint = wiring_plan.endpoint_of(host.config)
    if not endpoint.startswith("unix:"):
        return
    path = host.site.instance.queue_directory / endpoint.removeprefix("unix:")
    start = "systemctl start sidecar-policy.socket"

    def finding(id_: str, severity: Severity, found: str, wanted: str, command: str = start) -> Finding:
        return Finding(id_, severity, str(path), "policy.listen", found, wanted, command)

    caged = [service.id for service in host.site.smtpd() if service.chroot == "y"]
    if endpoint.startswith("unix:/") and caged:
        wanted = "unix:private/sidecar: a chrooted smtpd reaches only what is below the queue directory"
        yield finding("policy-socket-chroot", Severity.ERROR, f"{', '.join(caged)} chrooted", wanted, "")
    try:
        status = path.lstat()
    except FileNotFoundError:
        wanted = "a socket: without one each question costs smtpd a second"
        yield finding("policy-socket-missing", Severity.ERROR if wired(host) else Severity.WARNING, "missing", wanted)
        return
    except OSError as error:
        yield finding("policy-socket-unseen", Severity.INFO, str(error.strerror), "run this as root to look at it", "")
        return
    if not stat.S_ISSOCK(status.st_mode):
        yield finding("policy-socket-no-socket", Severity.ERROR, "no socket", "a socket; move away what lies there", "")
        return
    owner = host.site.instance.parameters["mail_owner"]
    mode = f"{stat.S_IMODE(status.st_mode):04o} {_name_of(status.st_uid)}"
    if status.st_uid != _uid(owner) and status.st_mode & 0o006 != 0o006:
        yield finding("policy-socket-owner", Severity.ERROR, mode, f"0600 {owner}: smtpd connects as that user")
    elif status.st_mode & 0o002:
        wanted = f"0600 {owner}: else any user of this host may ask which addresses are suppressed"
        yield finding("policy-socket-open", Severity.WARNING, mode, wanted, f"chmod 0600 {path}")
    if not _answers_connect(path):
        yield finding("policy-socket-dead", Severity.ERROR, "nobody listens", "a listening core, or systemd for it")


def _answers_connect(path: Path) -> bool:
    """Whether somebody listens; a full backlog, or want of rights to try, says nothing against it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
    return True


def _hands(host: Host) -> Iterator[Finding]:
    """The queue helper, which alone may run postsuper."""
    path = host.config.helper_socket
    severity = Severity.ERROR if host.config.mode is Mode.ACT else Severity.WARNING
    wanted = "the queue helper's socket: core itself may not run postsuper"
    start = "systemctl start sidecar-queue-helper.socket"
    if not path.is_socket():
        yield Finding("helper-missing", severity, str(path), "runtime_directory", "missing", wanted, start)
    elif not _answers_connect(path):
        yield Finding("helper-dead", severity, str(path), "runtime_directory", "nobody listens", wanted, start)


def _log(host: Host) -> Iterator[Finding]:
    source, written = host.config.log.source, host.site.expanded.get("maillog_file", "")
    if written and Path(written) != Path(source):
        wanted = f"log.source = {written!r}: Postfix writes there (maillog_file), and nowhere else"
        yield host.ours("log-elsewhere", "log.source", source, wanted)
    elif source.partition(":")[0] == "journal":
        wanted = (
            "nothing to do where some tenths of a second do not matter: journald hands lines over in batches,"
            " so a refusal is acted on about 0.3 s later than from a file that rsyslog or maillog_file writes"
        )
        yield host.ours("log-journal", "log.source", source, wanted)._replace(severity=Severity.INFO)
    if source == "-" or source.partition(":")[0] == "journal":
        return
    path = Path(source)
    if not path.exists():
        wanted = 'the file that Postfix\'s log goes to, or "journal"'
        yield host.ours("log-missing", "log.source", f"{source}: no such file", wanted)
        return
    status = path.stat()
    if not _may_read(status, host.user):
        found = f"{stat.S_IMODE(status.st_mode):04o} {_name_of(status.st_uid)}, group {status.st_gid}"
        wanted = f"readable by {host.user}: it must be in the file's group"
        yield Finding(
            "log-unreadable", Severity.ERROR, source, "log.source", found, wanted, f"usermod -aG adm {host.user}"
        )


def _transports(host: Host) -> Iterator[Finding]:
    """What we would render against what Postfix has."""
    declared = {each.name for each in host.config.transport}
    for transport in transports.wanted(host.config).values():
        if transport.name in declared and host.site.service(transport.name, "unix") is None:
            wanted = "an entry of master.cf of that name: mail sent there would wait"
            yield host.ours("transport-missing", "transport.name", transport.name, wanted, host.apply)
        for key, found, wanted in transports.differences(transport, host.site):
            file = host.site.instance.config_directory / ("master.cf" if "/" in key else "main.cf")
            said = (
                f"{wanted or 'nothing'}, as sidecar.toml says (an entry that is not of our making is changed by hand)"
            )
            yield Finding("transport-differs", Severity.WARNING, str(file), key, found, said, host.apply)


def _pools(host: Host) -> Iterator[Finding]:
    """Transports that mail is steered to must be there, and tell the log their name: outcomes are known by it."""
    try:
        steered = wanted_pools(host.config, [host.site.instance])
    except ConfigError as error:
        key, _, wrong = str(error).partition(": ")
        yield host.ours("pool-wrong", key, "not usable; core does not start with it", wrong)
        return
    for key, name in steered.named():
        service = host.site.service(name, "unix")
        if service is None:
            wanted = "an entry of master.cf of that name: mail sent there would wait"
            yield host.ours("pool-transport", key, name, wanted, host.apply)
        elif not host.site.effective(service, "syslog_name").endswith(f"/{name}"):
            found = f"{name} without a name of its own in the log"
            wanted = f"-o syslog_name=.../{name} in master.cf: what becomes of its mail is known by that name alone"
            yield host.ours("pool-syslog-name", key, found, wanted)._replace(severity=Severity.WARNING)
    from_outside = [rule.name for rule in host.config.react if rule.signal is not Signal.IP_BLOCKED]
    if from_outside and not host.config.alerts.enabled:
        wanted = f"alerts.enabled = true: {', '.join(from_outside)} would hear of nothing"
        yield host.ours("react-deaf", "react.signal", "alerts are off", wanted)


def _routes(host: Host) -> Iterator[Finding]:
    expanded = host.site.expanded
    if host.config.subqueues.lane and not wiring_of(host.site).lanes:
        wanted = (
            "transports lane-01, ... in master.cf, and nothing that forbids FILTER: without, that mail waits on hold"
        )
        yield host.ours("lane-missing", "subqueues.lane", ", ".join(host.config.subqueues.lane), wanted, host.apply)
    try:
        routes = routes_of(host.config, names(host.config))
    except ConfigError as error:
        key, _, wrong = str(error).partition(": ")
        yield host.ours("route-wrong", key, "not usable; core does not start with it", wrong)
        return
    for route in routes:
        if not route.pool and host.site.service(route.transport, "unix") is None:
            yield host.ours("route-transport", "route.transport", route.transport,
                            "an entry of master.cf of that name: mail routed there would wait", host.apply)  # fmt: skip
    if not (routes or host.config.canary or any(rule.to for rule in host.config.react)):
        return
    for name in relays(expanded):
        yield host.main("route-relayhost", Severity.ERROR, name, "empty, or no [[route]]: FILTER bypasses a relay")
    for name in ("content_filter", "always_bcc", "sender_bcc_maps", "recipient_bcc_maps"):
        if expanded.get(name):
            yield host.main("route-off", Severity.WARNING, name, "empty: routes are not answered while it is set")
    for name in other_filters.find(host.site):
        wanted = "no FILTER of the site's own: the last one wins, and so routes are not answered beside it"
        yield host.main("route-off", Severity.WARNING, name, wanted)
    for name in (
        domain_tables(expanded, host.config.postfix.transport_table)
        if any(not route.names_recipients for route in routes)
        else ()
    ):
        wanted = "no table, or routes that say whom they lead to (provider, recipient_domain): others are not answered"
        yield host.main("route-tables", Severity.WARNING, name, wanted)


def _copies(host: Host) -> Iterator[Finding]:
    for name in ("always_bcc", "sender_bcc_maps", "recipient_bcc_maps"):
        if host.site.expanded.get(name):
            wanted = "nothing to do: held mail is never requeued here, for a requeue would copy it again"
            yield host.main("always-bcc", Severity.INFO, name, wanted)


def _milters(host: Host) -> Iterator[Finding]:
    if host.config.policy.milters_quarantine:
        return
    for service in host.site.smtpd():
        value = host.site.effective(service, "smtpd_milters")
        if value:
            file, key = _where(host, service, "smtpd_milters")
            wanted = "policy.milters_quarantine = true if one of them quarantines: we would release what it holds"
            yield Finding("milters", Severity.WARNING, file, key, value, wanted, "")
            return


def _delay_warning(host: Host) -> Iterator[Finding]:
    limit = host.config.subqueues.hold_max_hours * 3600
    if 0 < host.site.instance.seconds("delay_warning_time") < limit:
        wanted = (
            f"0, or longer than subqueues.hold_max_hours ({limit / 3600:g} h): held mail would be announced as delayed"
        )
        yield host.main("delay-warning", Severity.WARNING, "delay_warning_time", wanted)


def _hold_max(host: Host) -> Iterator[Finding]:
    for name in ("maximal_queue_lifetime", "bounce_queue_lifetime"):
        half = host.site.instance.seconds(name) / 2
        if half < host.config.subqueues.hold_max_hours * 3600:
            wanted = f"nothing to do: mail leaves hold after half of it, {half / 3600:g} h"
            yield host.main("hold-max", Severity.INFO, name, wanted)


def _soft_bounce(host: Host) -> Iterator[Finding]:
    if host.site.expanded.get("soft_bounce") == "yes":
        wanted = "no: while it is set, no address is ever found dead, and refused mail comes again"
        yield host.main("soft-bounce", Severity.WARNING, "soft_bounce", wanted, host.postconf("soft_bounce = no"))


def _header_checks(host: Host) -> Iterator[Finding]:
    if wiring_plan.HEADER_CHECKS not in host.site.expanded.get("header_checks", ""):
        wanted = (
            "our table at its end: from it core learns which domains sign and send (not needed with a signing milter)"
        )
        yield host.main("header-checks", Severity.WARNING, "header_checks", wanted, host.apply)


def _hashed_hold(host: Host) -> Iterator[Finding]:
    if "hold" in host.site.expanded.get("hash_queue_names", "").lower().replace(",", " ").split():
        yield host.main(
            "hashed-hold", Severity.INFO, "hash_queue_names", "nothing to do: the helper knows how to find them"
        )


def _mailq(host: Host) -> Iterator[Finding]:
    key = "authorized_mailq_users"
    value = host.site.expanded.get(key, "static:anyone")
    if "static:anyone" not in value and host.user not in value.replace(",", " ").split():
        yield host.main("mailq", Severity.WARNING, key, f"{host.user} among them: core reconciles with postqueue -j")


def _names(host: Host) -> Iterator[Finding]:
    name = host.site.instance.syslog_name
    if not name.startswith("postfix") and name not in host.config.log.syslog_names:
        wanted = f'log.syslog_names = ["{name}"]: only names that begin with "postfix" are known by themselves'
        yield host.main("syslog-name", Severity.ERROR, "syslog_name", wanted)


def _user(host: Host) -> Iterator[Finding]:
    if _uid(host.user) is None:
        wanted = "a user that core runs as, without rights over Postfix"
        yield Finding("no-user", Severity.WARNING, "/etc/passwd", host.user, "no such user", wanted,
                      "systemd-sysusers sidecar.conf")  # fmt: skip


def _quotas(host: Host) -> Iterator[Finding]:
    try:
        read_quotas(host.config, file=_OUR_FILE)
    except ConfigError as error:
        yield _refused(host, "quota", error)
    tenants = [row.name for row in host.config.quota if row.per in {Per.TENANT, Per.TENANT_PROVIDER}]
    logins = any(host.site.effective(service, "smtpd_sasl_auth_enable") == "yes" for service in host.site.smtpd())
    if tenants and not logins:
        wanted = (
            'yes for an smtpd, or per = "client" or "sending-domain": without logins a quota by tenant counts nothing'
        )
        found = host.main("quota-no-tenants", Severity.WARNING, "smtpd_sasl_auth_enable", wanted)
        yield found._replace(found=f"no smtpd has it; [[quota]] {', '.join(tenants)}")


def _hygiene(host: Host) -> Iterator[Finding]:
    ours = host.config.hygiene
    try:
        open_hygiene(ours, file=_OUR_FILE)
    except ConfigError as error:
        yield _refused(host, "hygiene", error)
    for key in ("typo_file", "disposable_file", "role_file"):
        path = Path(getattr(ours, key) or os.devnull)
        if path.is_file() and not _may_read(path.stat(), host.user):
            wanted = f"readable by {host.user}: core does not start without it"
            yield Finding("hygiene-unreadable", Severity.ERROR, str(path), f"hygiene.{key}", "not readable", wanted, "")
    if Level.REJECT in levels_in(ours):
        yield from _own_domains_in_tables(host)
    code = "unverified_recipient_reject_code"
    if ours.verify_domains and host.site.expanded.get(code, "450").startswith("4"):
        wanted = "550, where a client is to hear at once that nobody is there; with 450 it tries again for days"
        yield host.main("hygiene-verify-code", Severity.INFO, code, wanted, host.postconf(f"{code} = 550"))


def _own_domains_in_tables(host: Host) -> Iterator[Finding]:
    for name in OWN_DOMAINS:
        if any(":" in word or "/" in word for word in host.site.expanded.get(name, "").replace(",", " ").split()):
            wanted = (
                f"readable by {host.user}, as `postmap -q` asks: core looks there before hygiene judges a domain, and lets"
                " its mail in where it cannot; or the domains written out"
            )
            yield host.main("hygiene-own-domains", Severity.INFO, name, wanted)


_OUR_FILE = Path("sidecar.toml")


def _refused(host: Host, what: str, error: ConfigError) -> Finding:
    """What core would not begin with; the words are its own."""
    _, key, found = str(error).split(": ", 2)
    return host.ours(f"{what}-refused", key, found, "what is said there: core neither starts nor reloads with this")


def _provider_names(host: Host) -> Iterator[Finding]:
    """Conditions that never hold, for nobody is called so."""
    for key, name, near in misspelt(host.config):
        wanted = f"{near}, perhaps" if near else "a provider as `sidecar classify` names it, or the domain of its MX"
        yield host.ours("provider-unknown", key, name, wanted)._replace(severity=Severity.WARNING)


CHECKS: Sequence[Check] = (
    _version,
    _long_queue_ids,
    _asked,
    _filter_passes,
    _answers,
    _policy_socket,
    _hands,
    _log,
    _transports,
    _routes,
    _quotas,
    _hygiene,
    _pools,
    _provider_names,
    _copies,
    _milters,
    _delay_warning,
    _hold_max,
    _soft_bounce,
    _header_checks,
    _hashed_hold,
    _mailq,
    _names,
    _user,
)
"""Every check, in the order in which findings of one severity are shown."""


def _may_read(status: os.stat_result, user: str) -> bool:
    """Whether `user` may read a file by its mode; true where there is no such user, which is another finding."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return True
    if entry.pw_uid in {0, status.st_uid}:
        return entry.pw_uid == 0 or bool(status.st_mode & stat.S_IRUSR)
    if status.st_gid in os.getgrouplist(user, entry.pw_gid):
        return bool(status.st_mode & stat.S_IRGRP)
    return bool(status.st_mode & stat.S_IROTH)


def _uid(user: str) -> int | None:
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
