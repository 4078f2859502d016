"""The wiring: where the checks go in a list, what is computed for a site, and what apply and remove do to real files."""

import dataclasses
import json
import os
import shutil
import smtplib
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from sidecar import postfix, postfix_configuration, restrictions, transports, wiring, wiring_plan
from sidecar.config import (
    Config,
    ImapConfig,
    Mode,
    PolicyConfig,
    PostfixConfig,
    Route,
    SeedConfig,
    SeedTestConfig,
    StoreConfig,
    TransportConfig,
)
from sidecar.held_record import HeldRecord, Op
from sidecar.lab.private_postfix import PrivatePostfix
from sidecar.wiring_plan import Place

pytestmark = pytest.mark.postfix

ASK = "check_policy_service { unix:private/sidecar, timeout=3s, default_action=DUNNO }"
BY_HAND = "check_policy_service unix:private/sidecar"


def is_ours(element: restrictions.Element) -> bool:
    return wiring_plan.ours(element, endpoint="unix:private/sidecar")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", []),
        ("permit_mynetworks, reject", ["permit_mynetworks", "reject"]),
        ("permit_mynetworks reject", ["permit_mynetworks", "reject"]),
        ("a,\n  b ,, c", ["a", "b", "c"]),
        ("check_client_access hash:/x, reject", ["check_client_access hash:/x", "reject"]),
        ("check_client_access,hash:/x,reject", ["check_client_access hash:/x", "reject"]),
        ("warn_if_reject reject_rbl_client zen.example permit", ["warn_if_reject reject_rbl_client zen.example", "permit"]),
        (f"{ASK} permit", [ASK, "permit"]),
        ("reject_rhsbl_sender dbl.example, sleep 1, defer", ["reject_rhsbl_sender dbl.example", "sleep 1", "defer"]),
        ("check_policy_service", ["check_policy_service"]),  # cut off: Postfix complains, we keep it
        ("check_sender_access inline:{a=HOLD, b={REJECT x}} permit", ["check_sender_access inline:{a=HOLD, b={REJECT x}}", "permit"]),
    ],
)  # fmt: skip
def test_elements_of_a_list(text: str, wanted: list[str]) -> None:
    assert [str(one) for one in restrictions.split(text)] == wanted


VALUES = {"mua": "permit_sasl_authenticated,reject", "strict": "reject_unknown_sender_domain", "loop": "$loop"}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "$sidecar_policy"),
        ("permit_mynetworks, reject_unauth_destination", "$sidecar_policy, permit_mynetworks, reject_unauth_destination"),
        ("reject_non_fqdn_recipient permit_mynetworks reject", "reject_non_fqdn_recipient, $sidecar_policy, permit_mynetworks, reject"),
        ("reject_a, check_recipient_access hash:/x, reject_b", "reject_a, check_recipient_access hash:/x, reject_b, $sidecar_policy"),
        ("$mua", "$sidecar_policy, $mua"),
        ("${strict}, $mua", "${strict}, $sidecar_policy, $mua"),
        ("$(mua)", "$sidecar_policy, $(mua)"),
        ("$loop, $unknown, permit", "$loop, $unknown, $sidecar_policy, permit"),
        ("PERMIT_MYNETWORKS", "$sidecar_policy, PERMIT_MYNETWORKS"),
        ("permit_mynetworks, $sidecar_policy, reject", "$sidecar_policy, permit_mynetworks, reject"),  # too late before
        (f"permit_mynetworks, {BY_HAND}, reject", "$sidecar_policy, permit_mynetworks, reject"),
        ("permit_mynetworks, check_policy_service unix:private/other", "$sidecar_policy, permit_mynetworks, check_policy_service unix:private/other"),
        ("reject_rbl_client permit.example, permit", "reject_rbl_client permit.example, $sidecar_policy, permit"),
    ],
)  # fmt: skip
def test_place_of_the_recipient_check(text: str, wanted: str) -> None:
    assert restrictions.placed(text, "$sidecar_policy", VALUES, is_ours) == wanted


WORDS = st.sampled_from(
    ["permit_mynetworks", "reject", "reject_unauth_destination", "check_client_access hash:/x", "$mua", "$strict",
     "$sidecar_policy", BY_HAND, ASK, "warn_if_reject reject_rbl_client a.example", "defer_if_permit"]
)  # fmt: skip


@given(st.lists(WORDS, max_size=8))
def test_placing_is_done_once_and_undone_whole(words: list[str]) -> None:
    text = ", ".join(words)
    placed = restrictions.placed(text, "$sidecar_policy", VALUES, is_ours)
    assert restrictions.placed(placed, "$sidecar_policy", VALUES, is_ours) == placed
    assert restrictions.asked_in_time(placed.replace("$sidecar_policy", ASK).replace("$mua", VALUES["mua"]), is_ours)
    others = [one for one in words if one not in {"$sidecar_policy", BY_HAND, ASK}]
    assert restrictions.without(placed, is_ours) == ", ".join(others)
    head = restrictions.first(text, "$sidecar_policy", is_ours)
    assert restrictions.split(head)[0] == restrictions.Element(("$sidecar_policy",))
    assert restrictions.without(head, is_ours) == ", ".join(others)


def cool(mail: PrivatePostfix) -> None:
    """Postfix waits two seconds for a main.cf that was just written; not for an old one."""
    os.utime(mail.config_directory / "main.cf", (0, 0))


class Private(NamedTuple):
    mail: PrivatePostfix
    config: Config

    def run(self, *arguments: str) -> Result:
        done = CliRunner().invoke(wiring.postfix_command, list(arguments), obj=self.config)
        cool(self.mail)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    def site(self) -> postfix_configuration.Configuration:
        return postfix_configuration.read(postfix.instances(self.mail.config_directory)[0])

    def files(self) -> dict[str, str]:
        """Everything below the configuration directory, with blanks folded as postconf may write them."""
        return {
            str(path.relative_to(self.mail.config_directory)): " ".join(path.read_text().split())
            for path in self.mail.config_directory.rglob("*")
            if path.is_file()
        }


@pytest.fixture(scope="module")
def queue() -> Iterator[Path]:
    """A queue that all configurations here share: making one takes Postfix two seconds. User postfix may enter it."""
    directory = Path(tempfile.mkdtemp(prefix="wiring-"))
    directory.chmod(0o755)
    mail = PrivatePostfix(directory / "postfix")
    cool(mail)
    assert postfix.check(mail.config_directory) == []
    yield mail.queue_directory
    shutil.rmtree(directory)


class Maker(NamedTuple):
    """Makes configurations below one directory."""

    directory: Path
    queue: Path

    def __call__(
        self,
        main_cf: Mapping[str, str] | None = None,
        master_cf: str = "",
        routes: Sequence[Route] = (),
        *,
        config: Config | None = None,
        name: str = "postfix",
    ) -> Private:
        settings = {"queue_directory": str(self.queue), **(main_cf or {})}
        mail = PrivatePostfix(self.directory / name, main_cf=settings, master_cf=master_cf)
        if settings.get("enable_long_queue_ids") == "":
            mail.postconf("-X", "enable_long_queue_ids")
        cool(mail)
        (self.directory / "store").mkdir(exist_ok=True)
        return Private(
            mail,
            dataclasses.replace(
                config or Config(),
                runtime_directory=str(self.directory / "run"),
                store=StoreConfig(path=str(self.directory / "store")),
                postfix=PostfixConfig(config_directory=str(mail.config_directory)),
                route=tuple(routes),
            ),
        )


@pytest.fixture
def private(tmp_path: Path, queue: Path) -> Maker:
    return Maker(tmp_path, queue)


def edits(
    one: Private, *, lanes: int = 0, headers: bool = False, mine: frozenset[str] = frozenset()
) -> dict[str, str | None]:
    """What would be changed, by name."""
    made = wiring_plan.plan(one.site(), one.config, lanes=lanes, headers=headers, mine=mine)
    assert made.refused == ()
    return {edit.name: edit.after for edit in made.edits}


def test_a_plain_site(private: Maker) -> None:
    one = private({"smtpd_recipient_restrictions": "permit_mynetworks, reject", "enable_long_queue_ids": ""})
    assert edits(one, lanes=1, headers=True) == {
        "sidecar_policy": ASK,
        "enable_long_queue_ids": "yes",
        "smtpd_recipient_restrictions": "$sidecar_policy, permit_mynetworks, reject",
        "smtpd_end_of_data_restrictions": "$sidecar_policy",
        "header_checks": "regexp:$config_directory/sidecar/header_checks.regexp",
        "nested_header_checks": "",
        "mime_header_checks": "",
        "lane-01/unix": "lane-01 unix - - n - 2 smtp -o syslog_name=postfix/lane-01",
    }


SUBMISSION = """\
submission inet n - n - - smtpd
  -o smtpd_recipient_restrictions=
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
submissions inet n - n - - smtpd
  -o smtpd_recipient_restrictions=$mua
  -o { smtpd_end_of_data_restrictions = check_client_access hash:/x, reject }
smtpd pass - - n - - smtpd
"""


def test_every_smtpd_of_master_cf_is_wired_by_its_own_values(private: Maker) -> None:
    one = private({"mua": "permit_sasl_authenticated,reject"}, SUBMISSION)
    found = edits(one)
    assert found == {
        "sidecar_policy": ASK,
        "smtpd_recipient_restrictions": "$sidecar_policy",
        "smtpd_end_of_data_restrictions": "$sidecar_policy",
        "submission/inet/smtpd_recipient_restrictions": "$sidecar_policy",
        "submissions/inet/smtpd_recipient_restrictions": "$sidecar_policy,$mua",
        "submissions/inet/smtpd_end_of_data_restrictions": "$sidecar_policy_submissions_inet_end_of_data_restrictions",
        "sidecar_policy_submissions_inet_end_of_data_restrictions": "$sidecar_policy, check_client_access hash:/x, reject",
    }


REINJECTION = """\
127.0.0.1:10025 inet n - n - - smtpd
  -o content_filter=
  -o smtpd_recipient_restrictions=permit_mynetworks,reject
"""


def test_behind_a_content_filter_only_the_last_smtpd_is_wired(private: Maker) -> None:
    one = private({"content_filter": "smtp:[127.0.0.1]:10024"}, REINJECTION)
    made = wiring_plan.plan(one.site(), one.config, lanes=0, headers=False)
    assert {edit.name: edit.after for edit in made.edits} == {
        "sidecar_policy": ASK,
        "127.0.0.1:10025/inet/smtpd_recipient_restrictions": "$sidecar_policy,permit_mynetworks,reject",
        "127.0.0.1:10025/inet/smtpd_end_of_data_restrictions": "$sidecar_policy",
    }
    port = one.mail.port
    reason = "content_filter = smtp:[127.0.0.1]:10024: its mail passes another smtpd, which is asked instead"
    assert made.notes == (f"127.0.0.1:{port}/inet: {reason}",)


HEADERS = {"header_checks": "regexp:/a regexp:/b"}


def test_the_sites_own_header_checks_come_first_and_alone_see_attachments(private: Maker) -> None:
    found = edits(private(HEADERS), headers=True)
    table = "regexp:$config_directory/sidecar/header_checks.regexp"
    assert found["header_checks"] == f"regexp:/a, regexp:/b, {table}"
    assert found["nested_header_checks"] == found["mime_header_checks"] == "regexp:/a regexp:/b"


GOOGLE = Route("out-google", "google", maxproc=5, options=("smtp_bind_address=192.0.2.7", "smtp_helo_name=a.example"))


def test_routes_become_transports(private: Maker) -> None:
    one = private({"syslog_name": "postfix-out"}, "mine unix - - n - 7 smtp\n",
                  [GOOGLE, dataclasses.replace(GOOGLE, provider="other"), Route("mine", "yahoo")])  # fmt: skip
    made = wiring_plan.plan(one.site(), one.config, lanes=0, headers=False)
    line = "out-google unix - - n - 5 smtp -o syslog_name=postfix-out/out-google"
    line += " -o smtp_bind_address=192.0.2.7 -o smtp_helo_name=a.example"
    assert [edit.after for edit in made.edits if edit.place is Place.SERVICE] == [line]
    assert made.notes == ("mine/unix is in master.cf already; left as it is: mine unix - - n - 7 smtp",)


@pytest.mark.parametrize(
    ("main_cf", "routes", "listen", "says"),
    [
        ({"relayhost": "[relay.example]"}, [GOOGLE], (), "[[route]]: relayhost = [relay.example]: an answer FILTER would bypass it"),
        ({"sender_dependent_relayhost_maps": "inline:{a=b}"}, [GOOGLE], (), "sender_dependent_relayhost_maps = inline:{a=b}"),
        ({"smtpd_proxy_filter": "127.0.0.1:10024"}, [], (), "every smtpd of master.cf hands its mail to a filter"),
        ({"content_filter": "smtp:[127.0.0.1]:10024"}, [], (), "-o content_filter= and -o smtpd_proxy_filter="),
        ({}, [Route("smtp", "google")], (), "transport = 'smtp': wanted a name of your own"),
        ({}, [Route("a b", "google")], (), "transport = 'a b': wanted a name"),
        ({}, [Route("a", "google", maxproc=0)], (), "maxproc = 0: wanted 1 or more"),
        ({}, [Route("a", "google", options=("x y=z",))], (), "options: 'x y=z': wanted NAME=VALUE"),
        ({}, [Route("a", "google", options=("x=y z",))], (), "options: 'x=y z': wanted NAME=VALUE"),
        ({}, [Route("a", "google"), Route("a", "yahoo", maxproc=3)], (), "another route gives it other settings"),
        ({}, [], ("unix:/run/policy",), "smtpd/pass are chrooted and cannot reach /run/policy"),
        ({}, [], ("",), "policy.listen: empty"),
    ],
)  # fmt: skip
def test_what_must_not_be_wired_is_refused(
    private: Maker, main_cf: dict[str, str], routes: list[Route], listen: tuple[str, ...], says: str
) -> None:
    config = Config(policy=PolicyConfig(listen=listen)) if listen else None
    one = private(main_cf, "smtpd pass - - y - - smtpd\n", routes, config=config)
    before = one.files()
    for command in ("show", "apply"):
        done = one.run(command)
        assert done.exit_code == 2
        assert says in done.output
    assert one.files() == before


@pytest.mark.parametrize("name", ["always_bcc", "sender_bcc_maps"])
def test_routes_that_would_not_be_answered_are_noted(private: Maker, name: str) -> None:
    one = private({name: "inline:{a=b}"}, "", [GOOGLE])
    assert any("routes are not answered" in note for note in wiring_plan.plan(one.site(), one.config).notes)


SEEDS = Config(
    seed=(SeedConfig("seed@gmx.example", "gmx", ImapConfig("h", "u", "p")),),
    seedtest=SeedTestConfig(sender="seedtest@example.com", transports=("smtp", "gone")),
)
SEED_TABLE = "inline:{seedtest+gone@example.com=gone:, seedtest+out-google@example.com=out-google:, seedtest+smtp@example.com=smtp:}"


def test_seed_tests_choose_their_transport_by_a_table_of_senders(private: Maker) -> None:
    theirs = "inline:{a@example.com=smtp:}"
    one = private({wiring_plan.SEED_MAP: theirs}, "", [GOOGLE], config=SEEDS)
    plan = wiring_plan.plan(one.site(), one.config)
    assert [edit.after for edit in plan.edits if edit.name == wiring_plan.SEED_MAP] == [f"{SEED_TABLE}, {theirs}"]
    assert [note for note in plan.notes if "gone" in note]
    one.run("apply")
    directory = one.mail.config_directory
    for name in ("smtp", "out-google"):
        key = wiring_plan.sender_on("seedtest@example.com", name)
        assert postfix.looked_up(directory, key, SEED_TABLE) == f"{name}:"
    assert postfix.looked_up(directory, "a@example.com", SEED_TABLE) == ""
    fewer = dataclasses.replace(one.config, seedtest=SeedTestConfig(sender="seedtest@example.com"))
    later = wiring_plan.plan(one.site(), fewer, mine=wiring.read_undo(one.site().instance).services)
    assert [edit.after for edit in later.edits if edit.name == wiring_plan.SEED_MAP] == [
        f"inline:{{seedtest+out-google@example.com=out-google:}}, {theirs}"
    ]
    one.run("remove")
    assert one.site().own[wiring_plan.SEED_MAP] == theirs


SITES: list[tuple[dict[str, str], str, list[Route]]] = [
    ({"enable_long_queue_ids": ""}, "", []),
    ({"smtpd_recipient_restrictions": "reject_non_fqdn_recipient permit_mynetworks, reject", "mua": "permit,reject"}, SUBMISSION, [GOOGLE]),
    ({"content_filter": "smtp:[127.0.0.1]:10024", **HEADERS}, REINJECTION, []),
    ({"smtpd_end_of_data_restrictions": f"permit_mynetworks, {BY_HAND}"}, "", []),
]  # fmt: skip


@pytest.mark.parametrize(("main_cf", "master_cf", "routes"), SITES)
def test_apply_twice_is_apply_once_and_remove_restores(
    private: Maker, main_cf: dict[str, str], master_cf: str, routes: list[Route]
) -> None:
    one = private(main_cf, master_cf, routes)
    before = one.files()
    first = one.run("apply")
    assert first.exit_code == 0, first.output
    assert "Postfix is stopped: this counts from its next start" in first.output
    applied = one.files()
    mine = wiring.read_undo(one.site().instance).services
    assert edits(one, lanes=4, headers=True, mine=mine) == {}
    assert "nothing to change" in one.run("apply").output
    assert one.files() == applied
    assert one.run("show").output.rstrip().endswith("wired already")
    removed = one.run("remove")
    assert removed.exit_code == 0, removed.output
    assert one.files() == {name: text.replace("-o { ", "-o {").replace(" }", "}").replace(" = check_", "=check_")
                           if name == "master.cf" else text for name, text in before.items()}  # fmt: skip
    assert "nothing of ours is wired" in one.run("remove").output


def test_what_an_admin_changed_since_is_kept(private: Maker) -> None:
    one = private({"smtpd_recipient_restrictions": "permit_mynetworks, reject"})
    one.run("apply")
    one.mail.postconf("-e", "smtpd_recipient_restrictions=reject_non_fqdn_sender, $sidecar_policy, permit_mynetworks, reject",
                      "nested_header_checks=regexp:/mine")  # fmt: skip
    cool(one.mail)
    done = one.run("remove")
    assert "nested_header_checks = regexp:/mine: changed since; was None before, left as it is" in done.output
    own = one.site().own
    assert own["smtpd_recipient_restrictions"] == "reject_non_fqdn_sender, permit_mynetworks, reject"
    assert "sidecar_policy" not in own


def test_with_the_undo_lost_what_is_plainly_ours_goes(private: Maker) -> None:
    one = private({"smtpd_recipient_restrictions": "permit_mynetworks, reject", "mua": "permit"}, SUBMISSION)
    one.run("apply", "--lanes", "0")
    undo = one.mail.config_directory / "sidecar" / "undo.json"
    undo.write_text("{")
    done = one.run("remove")
    assert (done.exit_code, "move it away" in done.output) == (1, True)
    undo.unlink()
    done = one.run("remove")
    assert done.exit_code == 0, done.output
    assert not any("sidecar_policy" in text for name, text in one.files().items() if name == "master.cf")
    own = one.site().own
    assert own["smtpd_recipient_restrictions"] == "permit_mynetworks, reject"
    assert {name for name in own if "smtpd_end" in name or name in {"sidecar_policy", "header_checks"}} == set()


def test_a_complaint_of_postfix_stops_it_on_the_copy(private: Maker) -> None:
    one = private(routes=[Route("out", "google", options=("smtp_no_such_thing=$no_such_thing",))])
    before = one.files()
    done = one.run("apply")
    assert done.exit_code == 1
    assert "on a copy, Postfix says: " in done.output
    assert "undefined parameter: no_such_thing" in done.output
    assert f"{one.mail.config_directory}/master.cf" in done.output
    assert one.files() == before


def test_an_edit_that_fails_half_way_leaves_nothing(private: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    one = private()
    before = one.files()
    real = postfix.edit

    def failing(directory: Path, flag: str, *arguments: str) -> None:
        if directory == one.mail.config_directory and flag == "-e":  # the last: master.cf is written by then
            assert "lane-01" in (directory / "master.cf").read_text()
            raise postfix.PostfixError("no space left")
        real(directory, flag, *arguments)

    monkeypatch.setattr(postfix, "edit", failing)
    done = one.run("apply")
    assert done.exit_code == 1
    assert "no space left; main.cf and master.cf are as before" in done.output
    assert {name: text for name, text in one.files().items() if not name.startswith("sidecar/")} == before


def test_a_second_apply_keeps_the_first_ones_undo(private: Maker) -> None:
    one = private({"enable_long_queue_ids": "no"}, routes=[GOOGLE])
    before = one.files()
    one.run("apply", "--lanes", "1")
    faster = Private(one.mail, dataclasses.replace(one.config, route=(Route("out-google", "google", maxproc=50),)))
    assert "out-google unix - - n - 50 smtp" in faster.run("apply", "--lanes", "1").output
    faster.run("remove")
    assert one.files() == before


def test_remove_releases_first_and_not_while_core_may_hold_again(private: Maker) -> None:
    one = private(config=Config(mode=Mode.ACT))
    run = Path(one.config.runtime_directory)
    one.run("apply")
    run.mkdir()
    (run / "heartbeat").touch()
    done = one.run("remove")
    assert (done.exit_code, "core runs and would hold mail again" in done.output) == (1, True)
    assert "sidecar_policy" in one.site().own
    (run / "heartbeat").unlink()
    HeldRecord(one.config.held_record).append(Op.HOLD, "postfix-old", ["3A1F72C4D2"], key="k", now=1.0)
    done = one.run("remove")
    assert (done.exit_code, "not all mail of ours has left hold" in done.output) == (1, True)
    assert "sidecar_policy" in one.site().own


def test_show_as_json(private: Maker) -> None:
    table = json.loads(private().run("show", "--json", "--lanes", "0").stdout)
    assert table["edits"][0] == {"place": "main.cf", "name": "sidecar_policy", "before": None, "after": ASK}
    assert "/^DKIM-Signature:/ INFO" in table["files"]["header_checks.regexp"]
    assert table["refused"] == []


def test_one_of_several_instances_is_chosen(private: Maker) -> None:
    out = private({"multi_instance_name": "postfix-out"}, name="out")
    one = private({"multi_instance_directories": str(out.mail.config_directory)})
    assert one.run("--instance", "postfix-out", "apply").exit_code == 0
    assert "sidecar_policy" in out.site().own
    assert "sidecar_policy" not in one.site().own
    done = one.run("--instance", "postfix-no", "show")
    assert (done.exit_code, "instance 'postfix-no' is unknown" in done.output) == (1, True)
    assert (
        one.run("--config-directory", str(out.mail.config_directory), "show").output.rstrip().endswith("wired already")
    )


@pytest.fixture
def place() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="wiring-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def test_a_running_postfix_asks_where_it_was_wired(place: Path) -> None:
    """The rendered lines in a real smtpd: asked at RCPT and at the end of the data; headers are logged, attached ones not."""
    queue = {"queue_directory": str(place / "postfix" / "queue")}
    one = Maker(place, place)({"smtpd_recipient_restrictions": "permit_mynetworks, reject", **queue}, routes=[GOOGLE])
    with one.mail:
        done = one.run("apply")
        assert done.exit_code == 0, done.output
        assert f"note: {one.mail.queue_directory}/private/sidecar is not there yet" in done.output
        assert "Postfix reloaded" in done.output
        asked: list[str] = []
        with socket.socket(socket.AF_UNIX) as listener:
            path = one.mail.queue_directory / "private" / "sidecar"
            listener.bind(str(path))
            shutil.chown(path, "postfix")
            listener.listen()
            thread = threading.Thread(target=_answer, args=(listener, asked))
            thread.start()
            with smtplib.SMTP("127.0.0.1", one.mail.port) as session:
                session.sendmail("a@snd.example", ["b@one.example"], _MULTIPART)
            thread.join(20)
        assert asked == ["RCPT", "END-OF-MESSAGE"]
        log = one.mail.maillog.read_text()
        assert "info: header From: shop@snd.example from" in log
        assert "info: header Feedback-ID: spring:shop from" in log
        assert "attached@other.example from" not in log
        assert not [line for line in log.splitlines() if "warning" in line]
        path.unlink()
        assert "Postfix reloaded" in one.run("remove").output


_MULTIPART = (
    "From: shop@snd.example\r\nFeedback-ID: spring:shop\r\nMIME-Version: 1.0\r\n"
    'Content-Type: multipart/mixed; boundary="b"\r\n\r\n'
    "--b\r\nContent-Type: message/rfc822\r\n\r\nFrom: attached@other.example\r\nSubject: x\r\n\r\ntext\r\n--b--\r\n"
)


def _answer(listener: socket.socket, asked: list[str]) -> None:
    """Answer two questions with DUNNO."""
    listener.settimeout(60)
    connection, _ = listener.accept()
    with connection, connection.makefile("rw") as stream:
        for line in stream:
            if line.startswith("protocol_state="):
                asked.append(line.strip().partition("=")[2])
            elif line == "\n":
                stream.write("action=DUNNO\n\n")
                stream.flush()
                if len(asked) == 2:
                    return


def test_transports_are_rendered_with_their_addresses_and_limits(private: Maker) -> None:
    comcast = TransportConfig(
        "out-comcast", 25, "192.0.2.7", "2001:db8::7", "out.example.com", 5, 10, 1, ("smtp_tls_security_level=encrypt",)
    )
    config = Config(transport=(comcast, TransportConfig("lane-01", maxproc=1)))
    one = private(
        {},
        "",
        [Route("out-comcast", when="provider = comcast")],
        config=config,
    )
    made = edits(one, lanes=2)
    line = "out-comcast unix - - n - 25 smtp -o syslog_name=postfix/out-comcast -o smtp_bind_address=192.0.2.7"
    line += " -o smtp_bind_address6=2001:db8::7 -o smtp_helo_name=out.example.com -o smtp_tls_security_level=encrypt"
    assert made["out-comcast/unix"] == line
    assert made["lane-01/unix"] == "lane-01 unix - - n - 1 smtp -o syslog_name=postfix/lane-01"
    assert made["lane-02/unix"] == "lane-02 unix - - n - 2 smtp -o syslog_name=postfix/lane-02"
    limits = {name: value for name, value in made.items() if name.startswith("out-comcast_")}
    assert limits == {
        "out-comcast_destination_concurrency_limit": "5",
        "out-comcast_destination_recipient_limit": "10",
        "out-comcast_destination_rate_delay": "1s",
    }
    before = one.files()
    assert one.run("apply").exit_code == 0
    assert [
        found for each in transports.wanted(one.config).values() for found in transports.differences(each, one.site())
    ] == []
    fewer = dataclasses.replace(one.config, transport=(TransportConfig("out-comcast", 9), TransportConfig("lane-01")))
    differ = [found for each in transports.wanted(fewer).values() for found in transports.differences(each, one.site())]
    assert {found.key for found in differ} == {
        "out-comcast/unix/maxproc", "out-comcast/unix/smtp_bind_address", "out-comcast/unix/smtp_bind_address6",
        "out-comcast/unix/smtp_helo_name", "lane-01/unix/maxproc",
    }  # fmt: skip
    assert one.run("remove").exit_code == 0
    assert {name: text for name, text in one.files().items() if name in before} == before


@pytest.mark.parametrize(
    ("transport", "routes", "says"),
    [
        (TransportConfig("smtp"), [], "transport = 'smtp': wanted a name of your own"),
        (TransportConfig("out", maxproc=0), [], "maxproc = 0: wanted 1 or more"),
        (
            TransportConfig("out", bind_address="2001:db8::7"),
            [],
            "bind_address = '2001:db8::7': wanted an IPv4 address",
        ),
        (TransportConfig("out", bind_address6="x"), [], "bind_address6 = 'x': wanted an IPv6 address of this host"),
        (TransportConfig("out", helo="a b"), [], "helo = 'a b': wanted a host name"),
        (
            TransportConfig("out"),
            [Route("out", "google", maxproc=5)],
            "has a [[transport]], which alone says its settings",
        ),
    ],
)
def test_transports_that_cannot_be_rendered(
    private: Maker, transport: TransportConfig, routes: list[Route], says: str
) -> None:
    one = private({}, "", routes, config=Config(transport=(transport,)))
    assert [said for said in wiring_plan.plan(one.site(), one.config).refused if says in said]


def test_two_transports_of_one_name_and_a_route_to_a_pool() -> None:
    refused: list[str] = []
    config = Config(transport=(TransportConfig("out"), TransportConfig("out")), route=(Route("pool:bulk", "google"),))
    assert list(transports.wanted(config, refused=refused)) == ["out"]
    assert refused == ["[[transport]] out: there are two of that name"]
