"""`sidecar ask`: words on the command line, core's answer, and what is said when there is none."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sidecar.ask import ask, attributes_of
from sidecar.config import Config
from sidecar.control import serve_control

ANSWER = {"action": "HOLD sidecar a:b@c (d/e)", "key": "a:b@c", "rule": "d/e", "why": "paused, 3 waiting"}


@contextmanager
def core_at(path: Path, handler: Callable[[dict[str, Any]], Mapping[str, Any]]) -> Iterator[None]:
    """A control socket in another thread."""
    ready, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        server = await serve_control(path, {"ask": handler})
        ready.set()
        await stop.wait()
        server.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    assert ready.wait(60)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def asked(tmp_path: Path, *words: str) -> Result:
    return CliRunner().invoke(ask, words, obj=Config(runtime_directory=str(tmp_path)))


def test_what_core_answers_is_printed(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    def handler(request: dict[str, Any]) -> Mapping[str, Any]:
        seen.append(request)
        return ANSWER

    with core_at(tmp_path / "control", handler):
        plain = asked(tmp_path, "recipient=user@gmail.com", "sender=bounce+a=b@example.com")
        as_json = asked(tmp_path, "recipient=user@gmail.com", "size=9", "--json")
    assert seen == [
        {"command": "ask", "request": {"recipient": "user@gmail.com", "sender": "bounce+a=b@example.com"}},
        {"command": "ask", "request": {"recipient": "user@gmail.com", "size": "9"}},
    ]
    assert plain.exit_code == as_json.exit_code == 0
    assert plain.output.splitlines() == [
        "action  HOLD sidecar a:b@c (d/e)",
        "key     a:b@c",
        "rule    d/e",
        "why     paused, 3 waiting",
    ]
    assert json.loads(as_json.output) == ANSWER


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Missing argument"),
        (["user@gmail.com"], "user@gmail.com: wanted NAME=VALUE, as recipient=user@gmail.com"),
        (["recipent=a@b"], "recipent: no attribute of the policy protocol; did you mean recipient?"),
        (["colour=green"], "colour: no attribute of the policy protocol; known are protocol_state, client_address"),
        (["sender=a", "sender=b"], "sender: given twice"),
        (["size=big"], "size: found 'big', wanted a whole number"),
    ],
)
def test_words_that_ask_nothing(words: list[str], message: str, tmp_path: Path) -> None:
    result = asked(tmp_path, *words)
    assert result.exit_code == 2
    assert message in result.output


def test_core_refuses(tmp_path: Path) -> None:
    def handler(_: dict[str, Any]) -> Mapping[str, Any]:
        raise ValueError("not today")

    with core_at(tmp_path / "control", handler):
        result = asked(tmp_path, "recipient=a@b")
    assert result.exit_code == 2
    assert "not today" in result.output


def test_core_is_not_there(tmp_path: Path) -> None:
    result = asked(tmp_path, "recipient=a@b")
    assert result.exit_code == 3
    assert "core does not run here" in result.output


def test_an_empty_value_is_one() -> None:
    assert attributes_of(["sender=", "recipient=a@b=c"]) == {"sender": "", "recipient": "a@b=c"}


def test_help_has_an_example() -> None:
    assert "Example: sidecar ask recipient=" in CliRunner().invoke(ask, ["--help"]).output
