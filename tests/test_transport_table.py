"""The table of transports: what stands in it, that it changes in place, and what a running Postfix makes of it."""

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from policies.access import Wiring
from policies.provider_directory import ProviderDirectory
from policies.recipients import RecipientProviders
from policies.routing import Routing, compiled, read_route
from sidecar import core, postfix, postfix_configuration, transport_table, wiring_plan
from sidecar.config import Config, Mode, PostfixConfig
from sidecar.lab.private_postfix import PrivatePostfix
from sidecar.postfix import PostfixError
from sidecar.site import domain_tables
from sidecar.transport_table import Changes, TransportTable
from tests.world import RULES

pytestmark = pytest.mark.postfix


def routing(*written: tuple[str, str]) -> Routing:
    return Routing(compiled(read_route(transport, when)) for transport, when in written)


DOMAINS = {"gmail.com": "google", "school.example": "google", "yahoo.com": "yahoo", "gmx.de": "gmx"}


@pytest.mark.parametrize(
    ("routes", "table"),
    [
        ([], {}),
        ([("out", "provider = google")], {"gmail.com": "out", "school.example": "out"}),
        ([("a", "recipient_domain = school.example"), ("b", "provider in (google, yahoo)")],
         {"school.example": "a", "gmail.com": "b", "yahoo.com": "b"}),
        ([("news", "tenant = news"), ("size", "provider = google and size > 1m"), ("b", "provider = google")],
         {"gmail.com": "b", "school.example": "b"}),
        ([("pool:bulk", "provider = google"), ("b", "provider = yahoo")], {"yahoo.com": "b"}),
        ([("b", "not provider = google")], {"yahoo.com": "b", "gmx.de": "b"}),
    ],
)  # fmt: skip
def test_what_a_domain_alone_decides(routes: list[tuple[str, str]], table: dict[str, str]) -> None:
    assert routing(*routes).table(DOMAINS) == table


def test_known_domains_are_those_of_rules_and_those_learned() -> None:
    recipients = RecipientProviders(RULES.providers)
    recipients.learn("school.example", "google", now=1.0)
    known = recipients.known()
    assert (known["gmail.com"], known["school.example"]) == ("google", "google")
    assert isinstance(RULES.providers, ProviderDirectory)


def parts(*, mode: Mode = Mode.ACT, filter_allowed: bool = True) -> Any:
    wired = Wiring(filter_allowed=filter_allowed, own_domains=frozenset({"yahoo.com"}))
    recipients = RecipientProviders(RULES.providers)
    access = SimpleNamespace(
        wiring={"postfix": wired}.get, routing=routing(("out", "recipient_domain in (gmail.com, yahoo.com)"))
    )
    return SimpleNamespace(
        access=access,
        config=Config(mode=mode),
        instances=[SimpleNamespace(syslog_name="postfix")],
        engine=SimpleNamespace(recipients=recipients),
    )


def test_the_table_is_empty_where_no_route_would_be_answered() -> None:
    assert core.transports_by_domain(parts()) == {"gmail.com": "out"}, "yahoo.com is at home here"
    assert core.transports_by_domain(parts(mode=Mode.OBSERVE)) == {}
    assert core.transports_by_domain(parts(filter_allowed=False)) == {}


@pytest.fixture
def table(tmp_path: Path) -> str:
    (tmp_path / "main.cf").touch()
    os.utime(tmp_path / "main.cf", (1, 1))  # Postfix waits for one that was just written
    return f"lmdb:{tmp_path}/transport"


def test_a_table_is_made_and_changed_in_place(table: str, tmp_path: Path) -> None:
    ours = TransportTable(table, tmp_path)
    file = transport_table.file_of(table)
    assert file is not None
    assert not file.exists()
    assert ours.update({}) == Changes(0, 0)
    inode = file.stat().st_ino
    many = {f"d{i}.example": "out-a" for i in range(2_000)}
    assert ours.update(many) == Changes(2_000, 0)
    assert ours.update(many) == Changes(0, 0)
    again = TransportTable(table, tmp_path)  # after a restart
    fewer = {name: "out-b" if name == "d7.example" else where for name, where in many.items() if name != "d8.example"}
    assert again.update({**fewer, ".rr.example": "out-c"}) == Changes(2, 1)
    for key, value in (("d7.example", "out-b:"), ("d8.example", ""), (".rr.example", "out-c:")):
        assert postfix.looked_up(tmp_path, key, table) == value
    assert file.stat().st_ino == inode, "Postfix has this file open"
    assert file.stat().st_mode & 0o777 == 0o644


def test_domains_and_recipients_are_kept_apart(table: str, tmp_path: Path) -> None:
    ours = TransportTable(table, tmp_path)
    ours.update({"a.example": "out-a"})
    assert ours.lead({"u@a.example": "out-b", "v@a.example": "out-b"}) == Changes(2, 0)
    assert ours.update({"b.example": "out-a"}) == Changes(1, 1)
    again = TransportTable(table, tmp_path)  # after a restart
    assert again.led() == {"u@a.example": "out-b", "v@a.example": "out-b"}
    assert again.lead({"u@a.example": "out-c"}) == Changes(1, 1)
    found = {key: postfix.looked_up(tmp_path, key, table) for key in ("u@a.example", "v@a.example", "b.example")}
    assert found == {"u@a.example": "out-c:", "v@a.example": "", "b.example": "out-a:"}


def test_what_cannot_be_written_is_told_and_tried_again(table: str, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    elsewhere = TransportTable(f"{table[:5]}{tmp_path}/gone/below/transport", tmp_path)
    with pytest.raises(PostfixError, match=r"postmap .* status 1"):
        elsewhere.update({"a.example": "out"})
    (tmp_path / "gone" / "below").mkdir()
    assert elsewhere.update({"a.example": "out"}) == Changes(1, 0)


# Wired.


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("hash:/x", "wanted lmdb and a path, as lmdb:/var/lib/sidecar/transport"),
        ("lmdb:relative", "wanted lmdb and a path"),
        ("lmdb:/no/such/place", "/no/such/place.lmdb is not there yet: start sidecar-core"),
    ],
)
def test_a_table_that_would_put_off_mail_is_not_wired(tmp_path: Path, written: str, says: str) -> None:
    (tmp_path / "main.cf").touch()
    assert says in transport_table.problem(written, tmp_path)


def test_ours_is_asked_after_the_sites_own(tmp_path: Path) -> None:
    mail = PrivatePostfix(tmp_path / "postfix", main_cf={"transport_maps": "inline:{a.example=local:}"})
    table = f"lmdb:{tmp_path}/transport"
    config = Config(postfix=PostfixConfig(str(mail.config_directory), transport_table=table))
    (instance,) = postfix.instances(mail.config_directory)
    site = postfix_configuration.read(instance)
    assert any("is not there yet" in said for said in wiring_plan.plan(site, config).refused)
    TransportTable(table, mail.config_directory).update({})
    (edit,) = [edit for edit in wiring_plan.plan(site, config).edits if edit.name == "transport_maps"]
    assert edit.after == f"inline:{{a.example=local:}}, {table}"
    assert domain_tables({"transport_maps": table}, table) == []
    assert domain_tables({"transport_maps": edit.after}, table) == ["transport_maps"]


# A running Postfix.


def lines_until(mail: PrivatePostfix, pattern: str, count: int) -> list[re.Match[str]]:
    end = time.monotonic() + 60
    while len(found := list(re.finditer(pattern, mail.maillog.read_text()))) < count:
        assert time.monotonic() < end, mail.maillog.read_text()
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[PrivatePostfix, TransportTable]]:
    """The table lies where Postfix's own user may not look, as below /var/lib/sidecar."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        store = directory / "store"
        store.mkdir(mode=0o700)
        table = f"lmdb:{store}/transport"
        entries = "".join(f"{out} unix - - n - - discard -o syslog_name=postfix/{out}\n" for out in ("out-a", "out-b"))
        mail = PrivatePostfix(directory / "postfix", main_cf={"transport_maps": table}, master_cf=entries)
        ours = TransportTable(table, mail.config_directory)
        ours.update({"gmail.com": "out-a", "yahoo.com": "out-b"})
        with mail:
            yield mail, ours


def send(mail: PrivatePostfix, *recipients: str) -> None:
    """As a program on this host does: through pickup, where no policy service is asked."""
    command = ["sendmail", "-C", str(mail.config_directory), "-f", "a@shop.example", *recipients]
    subprocess.run(
        command,
        input="Subject: x\n\nx\n",
        text=True,
        check=True,
        env={"MAIL_CONFIG": str(mail.config_directory), "PATH": "/usr/sbin:/usr/bin"},
    )


def over(mail: PrivatePostfix, domain: str, count: int) -> set[tuple[str, str]]:
    """(recipient, transport) of deliveries to a domain."""
    delivered = rf"postfix/(?:(out-.)/)?discard\[\d+\]: \w+: to=<([^>]*@{domain})>.* status=sent"
    return {(found[2], found[1] or "") for found in lines_until(mail, delivered, count)}


def test_mail_that_no_policy_answer_routes_goes_over_its_transports(
    running: tuple[PrivatePostfix, TransportTable],
) -> None:
    """From pickup, to recipients that disagree; and from the next update on, without a reload."""
    mail, ours = running
    ours.update({"a.example": "out-a", "b.example": "out-b"})
    send(mail, "u@a.example", "u@b.example", "u@c.example")
    found = [over(mail, domain, 1) for domain in ("a.example", "b.example", "c.example")]
    assert found == [{("u@a.example", "out-a")}, {("u@b.example", "out-b")}, {("u@c.example", "")}]
    ours.update({"c.example": "out-a", "a.example": "out-a"})
    send(mail, "v@c.example", "v@b.example")
    assert over(mail, "c.example", 2) >= {("v@c.example", "out-a")}
    assert over(mail, "b.example", 2) >= {("v@b.example", "")}


def test_queued_mail_goes_by_the_table_as_it_is_when_it_is_tried(
    running: tuple[PrivatePostfix, TransportTable],
) -> None:
    """So that neither held nor deferred mail must be requeued for it (design, rule 6)."""
    mail, ours = running
    ours.update({"later.example": "retry"})  # which defers
    send(mail, "u@later.example")
    (queue_id,) = lines_until(mail, r"postfix/error\[\d+\]: (\w+): to=<u@later.example>.* status=deferred", 1)[
        0
    ].groups()
    mail.postsuper("-h", [queue_id])
    ours.update({"later.example": "out-b"})
    send(
        mail, "u@between.example"
    )  # for half a minute the queue manager remembers the last address that it asked about
    over(mail, "between.example", 1)
    (held,) = mail.queue_files("hold")
    os.utime(held, (1, 1))  # as the helper does, so that it is due
    mail.postsuper("-H", [queue_id])
    (instance,) = postfix.instances(mail.config_directory)
    postfix.kick(instance, "qmgr", "D")
    assert over(mail, "later.example", 1) == {("u@later.example", "out-b")}


def test_each_change_is_seen_at_once_and_no_process_begins_anew(
    running: tuple[PrivatePostfix, TransportTable],
) -> None:
    mail, ours = running
    for i in range(6):
        ours.update({"often.example": f"out-{'ab'[i % 2]}"})
        send(mail, f"u{i}@often.example")
        assert (f"u{i}@often.example", f"out-{'ab'[i % 2]}") in over(mail, "often.example", i + 1)
    assert "has changed" not in mail.maillog.read_text()
