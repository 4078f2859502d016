"""Each finding, by a site that has the fault and one that has not."""

import dataclasses
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from policies.hygiene import Level
from policies.quota import Per, Within
from policies.reacting import Do, Signal
from sidecar import check, findings, postfix, wiring_plan
from sidecar.config import (
    AlertsConfig,
    Config,
    HygieneConfig,
    LogConfig,
    Mode,
    PolicyConfig,
    PoolConfig,
    PoolMember,
    PostfixConfig,
    QuotaConfig,
    ReactConfig,
    Route,
    SubqueuesConfig,
    TransportConfig,
)
from sidecar.findings import Finding, Severity
from sidecar.lab.private_postfix import PrivatePostfix

pytestmark = pytest.mark.postfix

ASK = "check_policy_service { unix:private/sidecar, timeout=3s, default_action=DUNNO }"
GOOD = {
    "smtpd_recipient_restrictions": f"reject_non_fqdn_recipient, {ASK}, permit_mynetworks, reject",
    "smtpd_end_of_data_restrictions": f"{ASK}, permit",
    "header_checks": wiring_plan.HEADER_TABLE,
}
ROUTED = Config(route=(Route("out-google", "google"),))
COMCAST = Config(transport=(TransportConfig("out-comcast", 25, "192.0.2.7"),))
COMCAST_5 = Config(transport=(TransportConfig("out-comcast", 25, "192.0.2.7", concurrency=5),))
COMCAST_CF = "out-comcast unix - - n - 25 smtp\n  -o syslog_name=postfix/comcast -o smtp_bind_address=192.0.2.7\n"
LANE = "lane-01 unix - - n - 2 smtp\n"
ROUTE_BY_TENANT = Config(route=(Route("out-google", when="tenant = newsletter"),))
POOLED = Config(pool=(PoolConfig("bulk", (PoolMember("out-google"),)),))
OUT = "out-google unix - - n - 20 smtp\n"


class Site(NamedTuple):
    directory: Path
    sockets: tuple[socket.socket, ...]

    @property
    def policy_socket(self) -> Path:
        return self.directory / "queue" / "private" / "sidecar"


@pytest.fixture
def place() -> Iterator[Site]:
    """A directory with what a good host has beside its main.cf: sockets that somebody listens on, and a log."""
    directory = Path(tempfile.mkdtemp(prefix="check-"))
    (directory / "queue" / "private").mkdir(parents=True)
    (directory / "run").mkdir()
    (directory / "mail.log").touch(0o644)
    with socket.socket(socket.AF_UNIX) as policy, socket.socket(socket.AF_UNIX) as helper:
        policy.bind(str(directory / "queue" / "private" / "sidecar"))
        helper.bind(str(directory / "run" / "helper"))
        shutil.chown(directory / "queue" / "private" / "sidecar", "postfix")
        (directory / "queue" / "private" / "sidecar").chmod(0o600)
        policy.listen()
        helper.listen()
        yield Site(directory, (policy, helper))
    shutil.rmtree(directory)


def looked(
    site: Site, main_cf: dict[str, str], master_cf: str = "", config: Config | None = None, user: str = "nobody"
) -> list[Finding]:
    directory = site.directory
    settings = {**GOOD, "queue_directory": str(directory / "queue"), "maillog_file": "", **main_cf}
    mail = PrivatePostfix(directory / "postfix", main_cf=settings, master_cf=master_cf)
    os.utime(mail.config_directory / "main.cf", (0, 0))  # Postfix waits two seconds for one just written
    config = config or Config()
    source = str(directory / "mail.log") if config.log == LogConfig() else config.log.source
    full = dataclasses.replace(
        config,
        runtime_directory=str(directory / "run"),
        log=dataclasses.replace(config.log, source=source),
        postfix=PostfixConfig(config_directory=str(mail.config_directory)),
    )
    return check.look(full, user=user)


def test_a_good_site_has_no_findings(place: Site) -> None:
    assert looked(place, {}) == []


CONTENT_FILTER = "127.0.0.1:10025 inet n - n - - smtpd -o content_filter=\n"
LAST_SMTPD = f"""\
127.0.0.1:10025 inet n - n - - smtpd
  -o content_filter=
  -o {{smtpd_recipient_restrictions={ASK}, permit}}
  -o {{smtpd_end_of_data_restrictions={ASK}}}
"""
SASL = {"smtpd_sasl_auth_enable": "yes"}
BY_TENANT, BY_CLIENT = QuotaConfig("t", Per.TENANT, 1, Within.DAY), QuotaConfig("c", Per.CLIENT, 1, Within.DAY)


def quotas(*rows: QuotaConfig) -> Config:
    return Config(quota=rows)


SHORT = "check_policy_service { unix:private/sidecar, timeout=3s, default_action=DUNNO"

CASES: list[tuple[str, str, str, dict[str, str], str, Config | None]] = [
    ("long-queue-ids", "error", "enable_long_queue_ids", {"enable_long_queue_ids": "no"}, "", None),
    ("not-wired", "error", "smtpd_recipient_restrictions", {"smtpd_recipient_restrictions": "permit_mynetworks, reject", "smtpd_end_of_data_restrictions": ""}, "", None),
    ("recipient-check-late", "error", "smtpd_recipient_restrictions", {"smtpd_recipient_restrictions": f"permit_mynetworks, {ASK}, reject"}, "", None),
    ("recipient-check-missing", "error", "smtpd_recipient_restrictions", {"smtpd_recipient_restrictions": "permit_mynetworks"}, "", None),
    ("recipient-check-missing", "error", "submission/inet/smtpd_recipient_restrictions", {}, "submission inet n - n - - smtpd -o smtpd_recipient_restrictions=\n", None),
    ("recipient-check-late", "error", "submissions/inet/smtpd_recipient_restrictions", {"mua": f"permit_sasl_authenticated, {ASK}"}, "submissions inet n - n - - smtpd -o smtpd_recipient_restrictions=$mua\n", None),
    ("end-of-data-check-missing", "error", "smtpd_end_of_data_restrictions", {"smtpd_end_of_data_restrictions": ""}, "", None),
    ("end-of-data-check-late", "error", "smtpd_end_of_data_restrictions", {"smtpd_end_of_data_restrictions": f"reject_unauth_pipelining, {ASK}"}, "", None),
    ("end-of-data-check-missing", "error", "smtpd/pass/smtpd_end_of_data_restrictions", {}, "smtpd pass - - n - - smtpd -o smtpd_end_of_data_restrictions=\n", None),
    ("default-action", "error", "smtpd_end_of_data_restrictions", {"smtpd_end_of_data_restrictions": "check_policy_service { unix:private/sidecar, timeout=3s }"}, "", None),
    ("default-action", "error", "smtpd_end_of_data_restrictions", {"smtpd_end_of_data_restrictions": "check_policy_service { unix:private/sidecar, timeout=3s, default_action=OK }"}, "", None),
    ("policy-timeout", "warning", "smtpd_recipient_restrictions", {"smtpd_recipient_restrictions": "check_policy_service { unix:private/sidecar, default_action=DUNNO }, permit"}, "", None),
    ("try-limit-one", "error", "smtpd_end_of_data_restrictions", {"smtpd_end_of_data_restrictions": f"{SHORT}, try_limit=1 }}"}, "", None),
    ("try-limit", "warning", "smtpd_recipient_restrictions", {"smtpd_policy_service_try_limit": "5"}, "", None),
    ("request-limit", "info", "smtpd_end_of_data_restrictions", {"smtpd_end_of_data_restrictions": f"{SHORT}, request_limit=1 }}"}, "", None),
    ("proxy-filter", "error", "smtpd_recipient_restrictions", {"smtpd_proxy_filter": "127.0.0.1:10024"}, "127.0.0.1:10025 inet n - n - - smtpd -o smtpd_proxy_filter=\n", None),
    ("content-filter-loop", "error", "smtpd_recipient_restrictions", {"content_filter": "smtp:[127.0.0.1]:10024"}, CONTENT_FILTER, None),
    ("no-last-smtpd", "error", "content_filter", {"content_filter": "smtp:[127.0.0.1]:10024"}, "", None),
    ("policy-socket-chroot", "error", "policy.listen", {"smtpd_end_of_data_restrictions": f"{ASK.replace('private', '/private')}"}, "smtpd pass - - y - - smtpd\n", Config(policy=PolicyConfig(listen=("unix:/private/sidecar", "unix:private/sidecar")))),
    ("log-elsewhere", "error", "log.source", {"maillog_file": "/var/log/postfix.log"}, "", None),
    ("log-elsewhere", "error", "log.source", {"maillog_file": "/var/log/postfix.log"}, "", Config(log=LogConfig(source="journal"))),
    ("log-journal", "info", "log.source", {}, "", Config(log=LogConfig(source="journal"))),
    ("log-journal", "info", "log.source", {}, "", Config(log=LogConfig(source="journal:/var/log/journal/remote"))),
    ("log-missing", "error", "log.source", {}, "", Config(log=LogConfig(source="/nowhere/mail.log"))),
    ("route-transport", "error", "route.transport", {}, "", ROUTED),
    ("route-relayhost", "error", "relayhost", {"relayhost": "[relay.example]"}, OUT, ROUTED),
    ("route-relayhost", "error", "sender_dependent_relayhost_maps", {"sender_dependent_relayhost_maps": "inline:{a=b}"}, OUT, ROUTED),
    ("route-off", "warning", "always_bcc", {"always_bcc": "archive@one.example"}, OUT, ROUTED),
    ("route-off", "warning", "smtpd_sender_restrictions", {"smtpd_sender_restrictions": "check_sender_access inline:{ { news.example = FILTER out-news: } }"}, OUT, ROUTED),
    ("route-off", "warning", "header_checks", {"header_checks": f"regexp:{{{{/^List-Id:/ FILTER out-news:}}}}, {wiring_plan.HEADER_TABLE}"}, OUT, ROUTED),
    ("route-relayhost", "error", "default_transport", {"default_transport": "smtp:[relay.example]"}, OUT, ROUTED),
    ("route-tables", "warning", "transport_maps", {"transport_maps": "inline:{one.example=local:}"}, OUT, ROUTE_BY_TENANT),
    ("route-tables", "warning", "virtual_mailbox_domains", {"virtual_mailbox_domains": "inline:{one.example=x}"}, OUT, ROUTE_BY_TENANT),
    ("route-wrong", "error", "route[0].when", {}, "", Config(route=(Route("out-google", when="tennant = a"),))),
    ("lane-missing", "error", "subqueues.lane", {}, "", Config(subqueues=SubqueuesConfig(lane=("google",)))),
    ("lane-missing", "error", "subqueues.lane", {"relayhost": "[relay.example]"}, LANE, Config(subqueues=SubqueuesConfig(lane=("google",)))),
    ("transport-missing", "error", "transport.name", {}, "", COMCAST),
    ("transport-differs", "warning", "out-comcast/unix/maxproc", {}, COMCAST_CF.replace(" 25 ", " 20 "), COMCAST),
    ("transport-differs", "warning", "out-comcast/unix/maxproc", {}, COMCAST_CF.replace(" 25 ", " - "), COMCAST),
    ("transport-differs", "warning", "out-comcast/unix/smtp_bind_address", {}, COMCAST_CF.replace("192.0.2.7", "192.0.2.8"), COMCAST),
    ("transport-differs", "warning", "out-comcast/unix/smtp_helo_name", {}, COMCAST_CF + "  -o smtp_helo_name=a.example\n", COMCAST),
    ("transport-differs", "warning", "out-comcast_destination_concurrency_limit", {}, COMCAST_CF, COMCAST_5),
    ("transport-differs", "warning", "out-google/unix/maxproc", {}, "out-google unix - - n - 7 smtp\n", ROUTED),
    ("pool-wrong", "error", "pool bulk", {}, "", Config(pool=(PoolConfig("bulk", ()),))),
    ("pool-transport", "error", "pool.transports", {}, "", POOLED),
    ("pool-transport", "error", "react.to", {}, "", Config(react=(ReactConfig("r", Signal.REPUTATION, Do.ISOLATE, "quarantine"),))),
    ("pool-syslog-name", "warning", "pool.transports", {}, OUT, POOLED),
    ("react-deaf", "error", "react.signal", {}, "", Config(alerts=AlertsConfig(enabled=False), react=(ReactConfig("r", Signal.LISTED, Do.LEAVE_POOL),))),
    ("always-bcc", "info", "always_bcc", {"always_bcc": "archive@one.example"}, "", None),
    ("always-bcc", "info", "recipient_bcc_maps", {"recipient_bcc_maps": "inline:{a=b}"}, "", None),
    ("milters", "warning", "smtpd_milters", {"smtpd_milters": "inet:127.0.0.1:8891"}, "", None),
    ("milters", "warning", "submission/inet/smtpd_milters", {}, "submission inet n - n - - smtpd -o smtpd_milters=inet:127.0.0.1:8891\n", None),
    ("delay-warning", "warning", "delay_warning_time", {"delay_warning_time": "4h"}, "", None),
    ("hold-max", "info", "bounce_queue_lifetime", {"bounce_queue_lifetime": "1d"}, "", None),
    ("soft-bounce", "warning", "soft_bounce", {"soft_bounce": "yes"}, "", None),
    ("header-checks", "warning", "header_checks", {"header_checks": ""}, "", None),
    ("hashed-hold", "info", "hash_queue_names", {"hash_queue_names": "deferred, hold"}, "", None),
    ("mailq", "warning", "authorized_mailq_users", {"authorized_mailq_users": "root"}, "", None),
    ("syslog-name", "error", "syslog_name", {"syslog_name": "mta"}, "", None),
    ("quota-refused", "error", "quota[1].where", SASL, "", quotas(BY_TENANT, QuotaConfig("q", Per.CLIENT, 1, Within.DAY, where="sendr = a"))),
    ("provider-unknown", "warning", "quota[0].where", {}, "", quotas(QuotaConfig("q", Per.CLIENT, 1, Within.DAY, where="not provider in (google, gogle)"))),
    ("quota-no-tenants", "warning", "smtpd_sasl_auth_enable", {}, "", quotas(BY_TENANT)),
    ("recipient-check-late", "error", "smtpd_recipient_restrictions", {"smtpd_recipient_restrictions": f"permit_mynetworks, {ASK}, reject"}, "", quotas(BY_CLIENT)),
    ("recipient-check-missing", "error", "smtpd_recipient_restrictions", {"smtpd_recipient_restrictions": "permit_mynetworks", "smtpd_data_restrictions": ASK}, "", quotas(BY_CLIENT)),
    ("hygiene-refused", "error", "hygiene.role_file", {}, "", Config(hygiene=HygieneConfig(role=Level.WARN, role_file="/nowhere"))),
    ("hygiene-own-domains", "info", "virtual_mailbox_domains", {"virtual_mailbox_domains": "one.example, inline:{two.example=x}"}, "", Config(hygiene=HygieneConfig(role=Level.REJECT))),
    ("hygiene-verify-code", "info", "unverified_recipient_reject_code", {}, "", Config(hygiene=HygieneConfig(verify_domains=("a.example",)))),
]  # fmt: skip


@pytest.mark.parametrize(("id_", "severity", "key", "main_cf", "master_cf", "config"), CASES, ids=[f"{case[0]}-{case[2]}" for case in CASES])  # fmt: skip
def test_a_fault_is_found(
    place: Site, *, id_: str, severity: str, key: str, main_cf: dict[str, str], master_cf: str, config: Config | None
) -> None:
    found = looked(place, main_cf, master_cf, config)
    named = [finding for finding in found if (finding.id, finding.key) == (id_, key)]
    assert [finding.severity for finding in named] == [severity], found
    assert named[0].wanted
    allowed = {id_, *_ALSO.get(id_, ())}
    assert {finding.id for finding in found} <= allowed


_ALSO = {
    "no-last-smtpd": ("content-filter-loop",),
    "policy-socket-chroot": ("policy-socket-missing",),
    "route-off": ("always-bcc",),
    "recipient-check-missing": (),
}
"""What comes with a fault as a matter of course."""


@pytest.mark.parametrize(
    ("main_cf", "master_cf", "config"),
    [
        ({"smtpd_recipient_restrictions": "check_policy_service unix:private/sidecar, permit",
          "smtpd_policy_service_timeout": "5s", "smtpd_policy_service_default_action": "DUNNO"}, "", None),
        ({"smtpd_milters": "inet:127.0.0.1:8891"}, "", Config(policy=PolicyConfig(milters_quarantine=True))),
        ({"delay_warning_time": "4h"}, "", Config(subqueues=SubqueuesConfig(hold_max_hours=2.0))),
        ({}, OUT, ROUTED),
        ({"transport_maps": "inline:{one.example=local:}"}, OUT, ROUTED),
        ({"default_transport": "smtp"}, OUT, ROUTED),
        ({}, COMCAST_CF, COMCAST),
        ({"out-comcast_destination_concurrency_limit": "5"}, COMCAST_CF, COMCAST_5),
        ({}, LANE, Config(subqueues=SubqueuesConfig(lane=("google",)))),
        ({"default_transport": "error:no mail leaves"}, OUT, ROUTED),
        ({"syslog_name": "mta"}, "", Config(log=LogConfig(source="-", syslog_names=("mta",)))),
        ({"relayhost": "[relay.example]"}, "", None),
        ({"content_filter": "smtp:[127.0.0.1]:10024", "smtpd_recipient_restrictions": "", "smtpd_end_of_data_restrictions": ""},
         LAST_SMTPD, None),
        ({"authorized_mailq_users": "root, nobody"}, "", None),
        (SASL, "", quotas(BY_TENANT, BY_CLIENT)),
        ({}, "submission inet n - n - - smtpd -o smtpd_sasl_auth_enable=yes\n", quotas(BY_TENANT)),
        ({"virtual_mailbox_domains": "inline:{two.example=x}"}, "", Config(hygiene=HygieneConfig(role=Level.WARN))),
        ({"unverified_recipient_reject_code": "550"}, "", Config(hygiene=HygieneConfig(verify_domains=("a.example",)))),
    ],
)  # fmt: skip
def test_what_is_right_in_another_way_is_no_finding(
    place: Site, main_cf: dict[str, str], master_cf: str, config: Config | None
) -> None:
    assert looked(place, main_cf, master_cf, config) == []


def test_every_finding_has_a_case() -> None:
    """Of those that a configuration alone can show; the rest stand below."""
    below = {
        "postfix-version", "policy-socket-missing", "policy-socket-no-socket", "policy-socket-owner",
        "policy-socket-open", "policy-socket-dead", "policy-socket-unseen", "helper-missing", "helper-dead",
        "log-unreadable", "no-user", "hygiene-unreadable",
    }  # fmt: skip
    source = Path(findings.__file__).read_text()
    shown = {case[0] for case in CASES}
    for id_ in shown - {
        "quota-refused",
        "hygiene-refused",
        "recipient-check-late",
        "recipient-check-missing",
        "end-of-data-check-late",
        "end-of-data-check-missing",
    }:
        assert f'"{id_}"' in source
    for id_ in below:
        assert f'"{id_}"' in source
    assert len(findings.CHECKS) == 24  # another check: another case, then another number


def ids(found: Sequence[Finding]) -> list[tuple[str, Severity]]:
    return [(finding.id, finding.severity) for finding in found]


def test_an_absent_policy_socket(place: Site) -> None:
    place.policy_socket.unlink()
    assert ids(looked(place, {})) == [("policy-socket-missing", Severity.ERROR)]
    bare = {"smtpd_recipient_restrictions": "", "smtpd_end_of_data_restrictions": ""}
    assert ("policy-socket-missing", Severity.WARNING) in ids(looked(place, bare))


def test_something_else_in_place_of_the_policy_socket(place: Site) -> None:
    place.policy_socket.unlink()
    place.policy_socket.touch()
    assert ids(looked(place, {})) == [("policy-socket-no-socket", Severity.ERROR)]


@pytest.mark.parametrize(
    ("owner", "mode", "wanted"),
    [
        ("root", 0o600, "policy-socket-owner"),
        ("postfix", 0o666, "policy-socket-open"),
        ("root", 0o666, "policy-socket-open"),
    ],
)
def test_rights_of_the_policy_socket(place: Site, owner: str, mode: int, wanted: str) -> None:
    shutil.chown(place.policy_socket, owner)
    place.policy_socket.chmod(mode)
    found = looked(place, {})
    assert [finding.id for finding in found] == [wanted]
    assert found[0].found == f"{mode:04o} {owner}"


def test_sockets_that_nobody_listens_on(place: Site) -> None:
    for one in place.sockets:
        one.close()
    assert ids(looked(place, {})) == [("policy-socket-dead", Severity.ERROR), ("helper-dead", Severity.WARNING)]


def test_an_absent_helper_is_an_error_once_it_is_needed(place: Site) -> None:
    (place.directory / "run" / "helper").unlink()
    assert ids(looked(place, {})) == [("helper-missing", Severity.WARNING)]
    assert ids(looked(place, {}, config=Config(mode=Mode.ACT))) == [("helper-missing", Severity.ERROR)]


def test_a_log_that_core_may_not_read(place: Site) -> None:
    (place.directory / "mail.log").chmod(0o640)
    found = looked(place, {})
    assert ids(found) == [("log-unreadable", Severity.ERROR)]
    assert found[0].command == "usermod -aG adm nobody"
    shutil.chown(place.directory / "mail.log", group="nogroup")
    assert looked(place, {}) == []
    assert looked(place, {}, user="root") == []


def test_a_list_that_core_may_not_read(place: Site) -> None:
    path = place.directory / "roles"
    path.write_text("info\n")
    path.chmod(0o600)
    config = Config(hygiene=HygieneConfig(role=Level.WARN, role_file=str(path)))
    (found,) = looked(place, {}, config=config)
    assert (found.id, found.severity, found.key) == ("hygiene-unreadable", Severity.ERROR, "hygiene.role_file")
    assert looked(place, {}, config=config, user="root") == []


def test_a_user_that_is_not_there(place: Site) -> None:
    assert ids(looked(place, {}, user="no-such-user")) == [("no-user", Severity.WARNING)]


def test_an_old_postfix(place: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    real = postfix.instances
    monkeypatch.setattr(
        postfix,
        "instances",
        lambda path: [one._replace(parameters={**one.parameters, "mail_version": "2.11.3"}) for one in real(path)],
    )
    assert ids(looked(place, {})) == [("postfix-version", Severity.ERROR)]


def test_several_instances(place: Site) -> None:
    def other(name: str, main_cf: dict[str, str]) -> str:
        mail = PrivatePostfix(place.directory / name, main_cf={"maillog_file": "", **main_cf})
        os.utime(mail.config_directory / "main.cf", (0, 0))
        return str(mail.config_directory)

    headers = {"header_checks": wiring_plan.HEADER_TABLE}
    quiet = other("quiet", {"multi_instance_name": "postfix-in", **headers})
    twin = other("twin", headers)
    found = looked(place, {"multi_instance_directories": f"{quiet}, {twin}"})
    assert ("not-wired", Severity.WARNING) in ids(found)  # another instance is: this one may be meant not to be
    assert [finding.file for finding in found if finding.id == "same-syslog-name"] == [f"{twin}/main.cf"]
    commands = {finding.command for finding in found if finding.id == "not-wired"}
    assert f"sidecar postfix --config-directory {quiet} --instance postfix-in apply" in commands


def run(config: Config, *options: str) -> Any:
    done = CliRunner().invoke(check.check, ["--user", "nobody", *options], obj=config)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def test_command(place: Site) -> None:
    wired = PrivatePostfix(place.directory / "postfix", main_cf={**GOOD, "queue_directory": str(place.directory / "queue"),
                                                                  "soft_bounce": "yes"})  # fmt: skip
    config = Config(
        runtime_directory=str(place.directory / "run"),
        log=LogConfig(source=str(wired.maillog)),
        postfix=PostfixConfig(config_directory=str(wired.config_directory)),
    )
    wired.maillog.touch(0o644)
    done = run(config)
    assert done.exit_code == 0  # a warning is no failure
    assert f"warning: soft-bounce: {wired.config_directory}/main.cf: soft_bounce" in done.output
    assert f"  do     postconf -c {wired.config_directory} -e 'soft_bounce = no'" in done.output
    wired.postconf("-X", "soft_bounce")
    assert run(config).output == "nothing found: Postfix is wired as it should\n"
    wired.postconf("-e", "enable_long_queue_ids = no")
    done = run(config, "--json")
    assert done.exit_code == 1
    assert [set(finding) for finding in json.loads(done.stdout)] == [
        {"id", "severity", "file", "key", "found", "wanted", "command"}
    ]
    done = run(dataclasses.replace(config, postfix=PostfixConfig(config_directory="/nowhere")))
    assert (done.exit_code, "postconf -c /nowhere" in done.stderr) == (2, True)
