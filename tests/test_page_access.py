"""Who may see the status page: the rules, the password file, and the door with its answers."""

import asyncio
import base64
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from sidecar.cli import sidecar
from sidecar.config import AlertsConfig, Config, ConfigError, WebConfig
from sidecar.page import access, gate, passwords
from sidecar.page.access import judge, rules
from sidecar.page.gate import Gate
from sidecar.page.passwords import NOBODY, Hash

PASSWORD = "correct horse"  # noqa: S105  # of nobody
CHEAP = Hash(16, 8, 1, b"salt", passwords._scrypt(PASSWORD, b"salt", 16, 8, 1))


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> Path:
    file = tmp_path / "page.passwords"
    file.write_text(f"# ours\n\nann:{CHEAP}\n")
    file.chmod(0o640)
    return file


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def scope(path: str = "/", client: str = "127.0.0.1", **headers: str) -> dict[str, Any]:
    named = {"host": "127.0.0.1:8025"} | {name.replace("_", "-").lower(): value for name, value in headers.items()}
    raw = [(name.encode(), value.encode("latin-1")) for name, value in named.items()]
    return {"type": "http", "method": "GET", "path": path, "client": (client, 4711), "headers": raw, "state": {}}


LOOPBACK = WebConfig()
PROXY = WebConfig(
    listen="0.0.0.0:8025", proxies=("192.0.2.8", "2001:db8::/64"), scrapers=("198.51.100.0/24",)
)  # the admin may


@pytest.mark.parametrize(
    ("web", "asked", "allowed", "user"),
    [
        (LOOPBACK, scope(), True, ""),
        (LOOPBACK, scope(host="localhost:8025"), True, ""),
        (LOOPBACK, scope(host="[::1]:8025"), True, ""),
        (LOOPBACK, scope(host="status.site.example"), True, ""),
        (LOOPBACK, scope(host="evil.example:8025"), False, ""),
        (LOOPBACK, scope(host=""), False, ""),
        (LOOPBACK, scope("/metrics", host="evil.example"), True, ""),
        (LOOPBACK, scope("/healthz", host="evil.example"), True, ""),
        (LOOPBACK, scope(x_forwarded_user="ann", host="evil.example"), False, ""),
        (PROXY, scope(client="192.0.2.8", x_forwarded_user="ann"), True, "ann"),
        (PROXY, scope(client="::ffff:192.0.2.8", x_forwarded_user="ann"), True, "ann"),
        (PROXY, scope(client="2001:db8::5", x_forwarded_user="ann", host="any.example"), True, "ann"),
        (PROXY, scope(client="192.0.2.8"), False, ""),
        (PROXY, scope(client="192.0.2.9", x_forwarded_user="ann"), False, ""),
        (PROXY, scope(client="127.0.0.1"), False, ""),
        (PROXY, scope("/metrics", client="192.0.2.9"), False, ""),
        (PROXY, scope("/metrics", client="198.51.100.7"), True, ""),
        (PROXY, scope("/", client="198.51.100.7"), False, ""),
        (PROXY, scope("/healthz", client="203.0.113.1"), True, ""),
    ],
)
def test_who_is_let_in(web: WebConfig, asked: dict[str, Any], *, allowed: bool, user: str) -> None:
    found = judge(rules(Config(web=web, alerts=AlertsConfig(page="https://status.site.example/x"))), asked)
    assert (found.allowed, found.user) == (allowed, user)


def test_a_header_that_comes_twice_names_nobody() -> None:
    asked = scope(client="192.0.2.8", x_forwarded_user="ann")
    asked["headers"].append((b"x-forwarded-user", b"bea"))
    assert not judge(rules(Config(web=PROXY)), asked).allowed


@pytest.mark.parametrize(
    ("web", "says"),
    [
        (
            WebConfig(listen="0.0.0.0:8025"),
            "web.listen: 0.0.0.0:8025 can be reached from other hosts, and nobody",
        ),  # as above
        (WebConfig(listen="[::]:8025"), r"web.listen: \[::\]:8025 can be reached from other hosts"),
        (WebConfig(listen="192.0.2.7:8025", scrapers=("192.0.2.9",)), "wanted web.password_file"),
        (WebConfig(proxies=("the-proxy",)), "web.proxies: 'the-proxy' does not appear to be .* wanted addresses"),
        (WebConfig(scrapers=("192.0.2.7/24",)), "web.scrapers: 192.0.2.7/24 has host bits set"),
        (WebConfig(password_file="/nowhere"), "web.password_file: /nowhere: cannot be read"),  # noqa: S106  # a path
    ],
)
def test_what_would_let_anybody_in_is_refused(web: WebConfig, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        rules(Config(web=web))


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        ("ann:secret\n", 0o600, "line 1: found no hash of ours, wanted NAME:scrypt"),
        ("ann:scrypt$16$8$1$!!$!!\n", 0o600, "line 1: found no hash"),
        ("ann:scrypt$17$8$1$c2FsdA==$c2FsdA==\n", 0o600, "line 1"),
        (f"ann:scrypt${1 << 30}$8$1$c2FsdA==$c2FsdA==\n", 0o600, "line 1"),
        ("\n# nobody\n", 0o600, "no line in it"),
        (f"ann:{CHEAP}\n", 0o644, "everybody may read it; wanted chmod 640"),
    ],
)
def test_password_files_that_are_none(tmp_path: Path, text: str, mode: int, says: str) -> None:
    file = tmp_path / "passwords"
    file.write_text(text)
    file.chmod(mode)
    with pytest.raises(ConfigError, match=says):
        passwords.read(file)


@given(st.text(max_size=40))
def test_a_hash_is_read_as_it_was_written_and_fits_its_password_alone(password: str) -> None:
    password = password.encode(errors="replace").decode()
    made = Hash(16, 8, 1, b"salt", passwords._scrypt(password, b"salt", 16, 8, 1))
    assert Hash.read(str(made)) == made
    assert made.fits(password)
    assert not made.fits(password + "x")
    assert not Hash(16, 8, 1, b"pepper", made.digest).fits(password)


def test_the_command_prints_a_line_for_the_file(tmp_path: Path) -> None:
    result = CliRunner().invoke(sidecar, ["password", "bea"], input="s3cret\n")
    file = tmp_path / "passwords"
    file.write_text(result.stdout)
    file.chmod(0o600)
    found = passwords.read(file)["bea"]
    assert (found.n, found.r) == (1 << 14, 8)
    assert found.fits("s3cret")
    assert not NOBODY.fits("s3cret")


@pytest.mark.parametrize(("name", "given"), [("a:b", "x\n"), (" ", "x\n"), ("ann", "\n")])
def test_the_command_refuses_what_could_not_be_used(name: str, given: str) -> None:
    assert CliRunner().invoke(sidecar, ["password", name], input=given).exit_code == 2


# The door.


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(f"hello {scope['state']['user']}")(scope, receive, send)


class Answered:
    def __init__(self) -> None:
        self.status = 0
        self.headers: Mapping[bytes, bytes] = {}
        self.body = b""

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        else:
            self.body += message["body"]


def asked(
    config: Config, *scopes: dict[str, Any], clock: list[float] | None = None, tries: list[str] | None = None
) -> list[Answered]:
    """What the door says to each, one after the other."""
    answers = []

    async def nothing() -> Message:
        return {"type": "http.disconnect"}

    async def ask() -> None:
        with ThreadPoolExecutor(1) as threads:
            door = Gate(hello, rules(config), threads, clock=lambda: clock.pop(0) if clock else 0.0)
            tried = door._tried
            if tries is not None:
                door._tried = lambda name, password: tries.append(name) or tried(name, password)  # type: ignore[method-assign,func-returns-value]
            for each in scopes:
                answers.append(Answered())
                await door(each, nothing, answers[-1].take)

    asyncio.run(ask())
    return answers


def test_a_password_is_asked_for_tried_and_remembered_for_a_minute(file: Path) -> None:
    config = Config(web=WebConfig(listen="0.0.0.0:8025", password_file=str(file)))  # as above
    right, tries = basic("ann", PASSWORD), list[str]()
    times = [0.0, 1.0, 1.0 + gate.REMEMBERED]
    found = asked(config, scope(client="192.0.2.1"), *(scope(**right) for _ in times), clock=times, tries=tries)
    assert [answer.status for answer in found] == [401, 200, 200, 200]
    assert found[0].headers[b"www-authenticate"].startswith(b'Basic realm="Postfix sidecar"')
    assert found[1].body == b"hello ann"
    assert tries == ["ann", "ann"]


@pytest.mark.parametrize(
    "headers",
    [
        basic("ann", "wrong"),
        basic("bob", PASSWORD),
        basic("", ""),
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic " + base64.b64encode(b"ann").decode()},
        {"Authorization": "Basic " + base64.b64encode(b"\xff\xfe:x").decode()},
        {"Authorization": "Bearer " + base64.b64encode(f"ann:{PASSWORD}".encode()).decode()},
        {"X_Forwarded_User": "ann"},
    ],
)
def test_who_is_not_let_in_with_a_password_file(file: Path, headers: dict[str, str]) -> None:
    config = Config(web=WebConfig(password_file=str(file)))
    assert [answer.status for answer in asked(config, scope(**headers))] == [401]


def test_a_password_file_that_breaks_later_lets_nobody_in(file: Path) -> None:
    config = Config(web=WebConfig(password_file=str(file)))
    known = rules(config)
    file.write_text("")

    with ThreadPoolExecutor(1) as threads:
        assert Gate(hello, known, threads)._tried("ann", PASSWORD) is False


def test_guesses_wait_for_each_other(file: Path) -> None:
    """One at a time, whoever asks: a second thread never hashes."""
    at_once: list[int] = []
    busy = threading.Semaphore(0)
    inside = [0]

    async def ask() -> None:
        with ThreadPoolExecutor(4) as threads:
            door = Gate(hello, rules(Config(web=WebConfig(password_file=str(file)))), threads)

            def tried(_name: str, _password: str) -> bool:
                inside[0] += 1
                at_once.append(inside[0])
                busy.acquire(timeout=0.02)
                inside[0] -= 1
                return False

            door._tried = tried  # type: ignore[method-assign,assignment]
            guesses = (door._fits("ann", str(number), scope=scope()) for number in range(6))
            await asyncio.gather(*guesses)

    asyncio.run(ask())
    assert at_once == [1] * 6


def test_refusals_say_why() -> None:
    strange = asked(Config(), scope(host="evil.example"))[0]
    assert (strange.status, strange.body) == (
        421,
        b"not from here: 'evil.example' is not a name of this page; see alerts.page\n",
    )
    other = asked(Config(web=PROXY), scope(client="192.0.2.9"))[0]
    assert (other.status, other.body) == (403, b"not from here: 192.0.2.9 is no trusted proxy, or named no user\n")


def test_addresses_that_are_read() -> None:
    assert access._host("[2001:db8::1]:8025") == "[2001:db8::1]"
    assert access._host("[2001:db8::1]") == "[2001:db8::1]"
    assert access._host("LocalHost:8025") == "localhost"
