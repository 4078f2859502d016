"""`sidecar suppress` against a core that answers: by hand, CSV in and out, and what goes wrong said in a line."""

import asyncio
import csv
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sidecar import suppress_command
from sidecar.cli import sidecar
from sidecar.config import Config, StoreConfig, SuppressionStorage
from sidecar.control import CoreRefused, serve_control
from tests.suppression_core import core

Run = Callable[..., Result]


@contextmanager
def served(directory: Path, **settings: Any) -> Iterator[Run]:
    """Core's command and that of the outside process, in a thread; gives what runs `sidecar suppress`."""
    config = Config(runtime_directory=str(directory), store=StoreConfig(path=str(directory)))
    ready, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with (
            core(directory, **settings) as it,
            await serve_control(config.control_socket, {"suppress": it.part.answer}),
            await serve_control(config.outside_socket, {"erase": lambda request: {"rows": len(request["address"])}}),
        ):
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(60)
        yield lambda *words, **more: CliRunner().invoke(sidecar, ["suppress", *map(str, words)], obj=config, **more)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
        config.control_socket.unlink(missing_ok=True)
        config.outside_socket.unlink(missing_ok=True)


def test_a_person_is_erased_from_the_history_server_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def ask(_: Path, request: dict[str, Any], **__: Any) -> dict[str, Any]:
        asked.append(request["command"])
        if request["command"] == "erase-history" and len(asked) < 4:
            raise CoreRefused("not erased on the ClickHouse server: no answer")
        return {"erase": {"rows": 2}, "suppress": {"rows": 1, "listed": False}}.get(request["command"], {"done": True})

    monkeypatch.setattr(suppress_command, "ask_core", ask)
    config = Config(store=StoreConfig(clickhouse="http://127.0.0.1:8123"))
    away = CliRunner().invoke(sidecar, ["suppress", "erase", "ann@x.example"], obj=config)
    assert away.exit_code == 1
    assert "erased from 1 rows of core and 2 of the outside process" in away.output
    assert "no answer; run this again when the server is back" in away.output
    done = CliRunner().invoke(sidecar, ["suppress", "erase", "ann@x.example", "--json"], obj=config)
    assert (done.exit_code, json.loads(done.output)["history"]) == (0, "erased")
    assert asked == ["erase", "suppress", "erase-history"] * 2  # what is sent in between does not name them any more


def test_by_hand(tmp_path: Path) -> None:
    with served(tmp_path) as run:
        assert (
            run("add", "a@x.example", "b@x.example", "--why", "asked on the phone").output == "2 added, 0 were there\n"
        )
        shown = run("check", "A@x.example")
        assert shown.exit_code == 1
        assert shown.output.startswith("A@x.example: suppressed on global (by-hand)\n")
        assert "asked on the phone" in shown.output
        assert run("check", "c@x.example").output == "c@x.example: not suppressed\n"
        (first, second) = json.loads(run("list", "--json").output)
        assert (first["address"], second["reason"]) == ("a@x.example", "by-hand")
        assert run("remove", "a@x.example").output == "a@x.example: taken off global (by-hand)\n"
        again = run("remove", "a@x.example")
        assert (again.exit_code, again.output) == (1, "a@x.example: on no list\n")
        assert [each["address"] for each in json.loads(run("list", "--json", "--ended").output)] == [
            "a@x.example",
            "b@x.example",
        ]
        assert json.loads(run("segments", "--json").output) == []


def test_for_some_days(tmp_path: Path) -> None:
    with served(tmp_path) as run:
        run("add", "a@x.example", "--days", "2", "--list", "tenant:shop", "--reason", "complaint")
        (entry,) = json.loads(run("list", "--json", "--list", "tenant:shop").output)
        assert entry["until"] == pytest.approx(entry["since"] + 2 * 86_400, abs=60)
        assert json.loads(run("list", "--json", "--reason", "imported").output) == []


def test_what_is_exported_can_be_imported_and_comes_out_the_same(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    with served(tmp_path / "1") as run:
        run("add", "a@x.example", "--why", 'says "no",\nand means it; =1+1', "--list", "domain:shop.example")
        run("add", "b@x.example", "--days", "9", "--reason", "unsubscribe")
        assert run("export", tmp_path / "list.csv").exit_code == 0
        wanted = json.loads(run("list", "--json").output)
    with served(tmp_path / "2") as run:
        assert run("import", tmp_path / "list.csv").output == "2 added, 0 known, 0 refused\n"
        assert run("import", tmp_path / "list.csv").output == "0 added, 2 known, 0 refused\n"
        found = json.loads(run("list", "--json").output)
    for each in ("address", "list", "reason", "evidence"):
        assert [entry[each] for entry in found] == [entry[each] for entry in wanted]
    for each in ("since", "until"):
        assert [entry[each] for entry in found] == pytest.approx([entry[each] for entry in wanted], abs=1)


def test_hashed_lists_go_to_a_store_with_the_same_key(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    with served(tmp_path / "1", storage=SuppressionStorage.HASH) as run:
        run("add", "a@x.example")
        exported = run("export").output
        assert "a@x.example" not in exported
        (row,) = csv.DictReader(io.StringIO(exported))
        assert (row["address"], len(row["digest"])) == ("", 32)
    (tmp_path / "list.csv").write_text(exported)
    (tmp_path / "2" / "suppression.key").write_bytes((tmp_path / "1" / "suppression.key").read_bytes())
    with served(tmp_path / "2", storage=SuppressionStorage.HASH) as run:
        assert run("import", tmp_path / "list.csv").output.startswith("1 added")
        assert run("check", "a@x.example").exit_code == 1


def test_a_file_of_addresses_alone_larger_than_a_batch(tmp_path: Path) -> None:
    names = [f"user{number}@x.example" for number in range(1_234)]
    (tmp_path / "list.txt").write_text("\ufeff" + "\r\n".join(names))
    with served(tmp_path) as run:
        assert (
            run("import", tmp_path / "list.txt", "--list", "tenant:shop").output == "1234 added, 0 known, 0 refused\n"
        )
        assert len(json.loads(run("list", "--json", "--limit", "2000").output)) == 1_234
        lines = run("export", "--list", "tenant:shop").output.splitlines()
        assert [line.partition(",")[0] for line in lines[1:]] == names


def test_bad_rows_are_told_with_their_line_and_the_others_taken(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(
        "address,until\na@x.example,\nnobody,\n\nb@x.example,2040-01-01\nc@x.example,some day\n"
    )
    with served(tmp_path) as run:
        said = run("import", tmp_path / "list.csv")
        assert said.exit_code == 1
        assert said.stdout == "2 added, 0 known, 2 refused\n"
        assert f"{tmp_path}/list.csv:3: 'nobody': no address" in said.stderr
        assert f"{tmp_path}/list.csv:6: until 'some day': wanted seconds" in said.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,mail\n", "wanted a header with the column address"),
        ("address,colour\na@x.example,red\n", "column 'colour' is unknown"),
        ("", "wanted a header"),
    ],
)
def test_a_file_that_is_no_list(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with served(tmp_path) as run:
        refused = run("import", tmp_path / "list.csv")
    assert refused.exit_code == 2
    assert said in refused.stderr


def test_what_core_refuses(tmp_path: Path) -> None:
    with served(tmp_path) as run:
        refused = run("add", "nobody", "a@x.example")
        assert (refused.exit_code, refused.stdout) == (2, "1 added, 0 were there\n")
        assert "refused: 'nobody': no address" in refused.stderr
        refused = run("add", "b@x.example", "--list", "here")
        assert "wanted global, tenant:LOGIN or domain:EXAMPLE.COM" in refused.stderr
        assert run("check", "nobody").exit_code == 2
        assert run("list", "--list", "here").exit_code == 2


def test_erase(tmp_path: Path) -> None:
    with served(tmp_path) as run:
        run("add", "a@x.example", "--why", "a@x.example called")
        said = run("erase", "a@x.example").output
        assert (
            said
            == "a@x.example: erased from 2 rows of core and 11 of the outside process; a digest stays on the list\n"
        )
        assert run("check", "a@x.example").exit_code == 1
        (tmp_path / "list.csv").write_text(run("export").output)
        assert run("import", tmp_path / "list.csv").output == "0 added, 1 known, 0 refused\n"
        assert json.loads(run("erase", "a@x.example", "--forget", "--json").output)["listed"] == []
        assert run("check", "a@x.example").exit_code == 0


def test_nothing_is_erased_halfway(tmp_path: Path) -> None:
    with served(tmp_path) as run:
        run("add", "a@x.example")
        (tmp_path / "outside").unlink()
        refused = run("erase", "a@x.example")
        assert refused.exit_code == 3
        assert json.loads(run("list", "--json").output)[0]["address"] == "a@x.example"


def test_core_away(tmp_path: Path) -> None:
    config = Config(runtime_directory=str(tmp_path))
    said = CliRunner().invoke(sidecar, ["suppress", "check", "a@x.example"], obj=config)
    assert said.exit_code == 3
    assert "core does not run here" in said.stderr
