"""Our own log: one line a record, whatever is in it, and the form that the journal reads."""

import io
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar import own_log


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    """What `start` sets is global to the process: put it back."""
    root, ours = logging.getLogger(), logging.getLogger("sidecar")
    before = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:], root.level, ours.level = before


def written(process: str = "core", *, verbose: bool = False) -> io.StringIO:
    stream = io.StringIO()
    own_log.start(process, verbose=verbose, stream=stream)
    return stream


def test_a_line_says_who() -> None:
    stream = written("queue-helper")
    own_log.stopping("SIGTERM")

    assert stream.getvalue() == f"sidecar/queue-helper[{os.getpid()}]: stopping: SIGTERM\n"


@pytest.mark.parametrize(
    ("crafted", "said"),
    [
        ("two\nlines", "two\\nlines"),
        ("\x1b[2J\x07bell", "\\x1b[2J\\x07bell"),
        ("a\ttab", "a tab"),
        ("\x85next line, \x9bcsi", "\\x85next line, \\x9bcsi"),
        ("bücher.example", "bücher.example"),
        ("\r\n\x00", "\\x0d\\n\\x00"),
    ],
)
def test_nothing_said_by_others_ends_a_line_or_steers_a_terminal(crafted: str, said: str) -> None:
    stream = written()
    own_log.core_away(crafted)

    assert stream.getvalue().partition("]: ")[2] == f"core does not answer: {said}\n"


def test_a_traceback_stays_on_the_line() -> None:
    stream = written()
    try:
        _ = 1 / 0
    except ZeroDivisionError as error:
        own_log.command_failed("status", error)

    assert stream.getvalue().count("\n") == 1
    assert re.search(
        r"control: status: ZeroDivisionError: division by zero\\nTraceback .*test_own_log.*\n", stream.getvalue()
    )


def test_debug_lines_are_for_the_verbose_and_of_libraries_only_what_goes_wrong_is_said() -> None:
    for verbose in (False, True):
        stream = written(verbose=verbose)
        own_log.looked_up("example.com", hosts=(), error="")
        logging.getLogger("asyncio").info("using a selector")
        logging.getLogger("asyncio").warning("took long")

        lines = [line.partition("]: ")[2] for line in stream.getvalue().splitlines()]
        assert lines == ["mx of example.com: accepts no mail"] * verbose + ["took long"]


@pytest.mark.parametrize(
    ("stream_is", "prefix"), [("the journal", "<4>sidecar/core["), ("another", "sidecar/core["), ("", "sidecar/core[")]
)
def test_lines_for_the_journal_begin_with_their_priority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream_is: str, prefix: str
) -> None:
    path = tmp_path / "stream"
    with path.open("w") as stream:
        status = os.fstat(stream.fileno())
        names = {"the journal": f"{status.st_dev}:{status.st_ino}", "another": f"{status.st_dev}:1", "": ""}
        monkeypatch.setenv("JOURNAL_STREAM", names[stream_is])
        own_log.start("core", stream=stream)
        own_log.core_away("silent")

    assert path.read_text().startswith(prefix)
