"""Own domains in Postfix's tables, asked as Postfix would: found, not found, files, parents, and what cannot be read."""

import asyncio
from pathlib import Path

import pytest

from policies.strangers import Strangers
from sidecar import own_tables, postfix
from sidecar.lab.private_postfix import PrivatePostfix
from sidecar.postfix import PostfixError

pytestmark = pytest.mark.postfix


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "main.cf").touch()
    (tmp_path / "domains").write_text("# ours\nfile.example, other.example\n")
    return tmp_path


@pytest.mark.parametrize(
    ("table", "domain", "ours"),
    [
        ("inline:{one.example=x}", "one.example", True),
        ("inline:{one.example=x}", "two.example", False),
        ("inline:{one.example=x}", "below.one.example", True),
        ("proxy:inline:{one.example=x}", "one.example", True),
        ("regexp:{{/^[a-z]+\\.example$/ x}}", "any.example", True),
        ("DIRECTORY/domains", "other.example", True),
        ("DIRECTORY/domains", "ours", False),
        ("static:x", "whatever.example", True),
    ],
)
def test_a_domain_in_a_table(directory: Path, table: str, domain: str, *, ours: bool) -> None:
    assert own_tables.is_named(directory, [table.replace("DIRECTORY", str(directory))], domain) is ours


@pytest.mark.parametrize("domain", ["a\0b.example", "gr\udcfcn.example", "-q.example", "", "x." * 2_000])
def test_whatever_a_client_calls_a_domain_is_no_reason_to_end(directory: Path, domain: str) -> None:
    strangers = Strangers()
    assert not strangers.is_stranger("postfix", domain, now=0.0)
    trouble = asyncio.run(own_tables.answer(strangers, {"postfix": (directory, ["inline:{one.example=x}"])}))
    assert ("null byte" in trouble) is ("\0" in domain)


@pytest.mark.parametrize(("table", "error"), [("hash:/no/such/table", PostfixError), ("/no/such/file", OSError)])
def test_what_cannot_be_read_is_no_answer(directory: Path, table: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        own_tables.is_named(directory, [table], "a.example")


def test_what_hygiene_wants_to_know_is_answered(tmp_path: Path) -> None:
    settings = {
        "virtual_mailbox_domains": "inline:{one.example=x}",
        "relay_domains": f"plain.example {tmp_path}/domains",
    }
    (tmp_path / "domains").write_text("file.example\n")
    mail = PrivatePostfix(tmp_path / "postfix", main_cf=settings)
    instances = tuple(postfix.instances(mail.config_directory))
    name, strangers = instances[0].syslog_name, Strangers()
    domains = ("one.example", "two.example", "file.example")

    def look() -> list[bool]:
        return [strangers.is_stranger(name, domain, now=0.0) for domain in domains]

    tables = own_tables.tables_of(instances)
    assert look() == [False, False, False]
    assert asyncio.run(own_tables.answer(strangers, tables)) == ""
    assert look() == [False, True, False]
    assert strangers.take() == [], "all were answered"
    (tmp_path / "domains").unlink()
    strangers.is_stranger(name, "three.example", now=0.0)
    assert "domains" in asyncio.run(own_tables.answer(strangers, tables))
    assert not strangers.is_stranger(name, "three.example", now=0.0)
