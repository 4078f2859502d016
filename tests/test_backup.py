"""A backup is true to one moment though others write, tells when it is damaged, and puts nothing over what is there."""

import io
import json
import socket
import sqlite3
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sidecar import backup, backup_command, restoring
from sidecar.cli import sidecar
from sidecar.config import Config, StoreConfig
from sidecar.held_record import HeldRecord, Op, read
from sidecar.log_batch import Position
from sidecar.outside_store import OutsideStore
from sidecar.store import Store
from sidecar.store_rows import Commit
from tests.test_store import attempt, attempts_and_checkpoint, commit_of, hold


def site(directory: Path) -> Path:
    """A host's configuration; everything of it is below `directory`."""
    (directory / "rules").mkdir(parents=True)
    (directory / "rules" / "mine.toml").write_text("# of our own\n")
    path = directory / "sidecar.toml"
    path.write_text(
        f'runtime_directory = "{directory}/run"\n[store]\npath = "{directory}/store"\n'
        f'[rules]\ndirectory = "{directory}/rules"\n'
    )
    return path


def filled(directory: Path) -> Path:
    """A site with something in everything."""
    path = site(directory)
    store = Store.open(directory / "store" / "core.db")
    store.commit(Commit(holds=[hold("4TA"), hold("4TB")], attempts=[attempt(1)]))
    store.close()
    OutsideStore.open(directory / "store" / "outside.db").close()
    (directory / "store" / "suppression.key").write_text("key")
    HeldRecord(directory / "store" / "held.record").append(Op.HOLD, "postfix", ["4TA", "4TB"], key="k", now=1.0)
    return path


def run(configuration: Path, *arguments: object) -> Result:
    return CliRunner().invoke(sidecar, ["--config", str(configuration), *map(str, arguments)], catch_exceptions=False)


def made(configuration: Path, target: Path) -> Path:
    result = run(configuration, "backup", target, "--json")
    assert result.exit_code == 0, result.output
    return Path(json.loads(result.output)["file"])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return filled(tmp_path / "one")


@pytest.fixture
def file(source: Path, tmp_path: Path) -> Path:
    return made(source, tmp_path / "backup.tar")


def test_what_was_backed_up_is_there_again_on_an_empty_host(file: Path, tmp_path: Path) -> None:
    result = run(site(tmp_path / "two"), "restore", file)
    assert result.exit_code == 0, result.output
    place = tmp_path / "two" / "store"
    store = Store.open(place / "core.db")
    assert store.recovered == ""
    assert store.holds() == [hold("4TA"), hold("4TB")]
    assert store.attempts(0, 9) == [attempt(1)]
    store.close()
    OutsideStore.open(place / "outside.db").close()
    assert (place / "suppression.key").read_text() == "key"
    assert set(read(place / "held.record").live) == {("postfix", "4TA"), ("postfix", "4TB")}


def test_a_host_without_a_configuration_gets_the_one_of_the_backup(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = tmp_path / "one"
    lost.rename(tmp_path / "burnt")
    default = tmp_path / "etc" / "sidecar.toml"
    for module in (restoring, backup_command):
        monkeypatch.setattr(module, "DEFAULT_PATH", default)
    restoring.restore(file, Config(store=StoreConfig(str(tmp_path / "none"))), None, force=False)
    assert default.read_text() == (tmp_path / "burnt" / "sidecar.toml").read_text()
    assert (lost / "rules" / "mine.toml").read_text() == "# of our own\n"
    assert (lost / "store" / "core.db").exists()


def test_the_copy_is_of_one_moment_though_core_writes(tmp_path: Path) -> None:
    """Each commit moves the checkpoint with its attempts; in a torn copy they would not agree."""
    store = Store.open(tmp_path / "core.db")
    stop, number = threading.Event(), 0

    def write() -> None:
        nonlocal number
        while not stop.is_set():
            store.commit(commit_of(number, 20))
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for copy in range(10):
            backup.copy_database(tmp_path / "core.db", tmp_path / f"{copy}.db")
    finally:
        stop.set()
        writer.join()
    store.close()
    for copy in range(10):
        copied = Store.open(tmp_path / f"{copy}.db")
        attempts, checkpoint = attempts_and_checkpoint(copied)
        assert attempts == checkpoint
        copied.close()


def test_the_record_names_what_was_held_while_the_stores_were_copied(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = backup.copy_database

    def held_meanwhile(path: Path, copy: Path) -> None:
        original(path, copy)
        HeldRecord(tmp_path / "one" / "store" / "held.record").append(Op.HOLD, "postfix", ["4TZ"], key="k", now=2.0)

    monkeypatch.setattr(backup, "copy_database", held_meanwhile)
    file = made(source, tmp_path / "b.tar")
    run(site(tmp_path / "two"), "restore", file)
    assert ("postfix", "4TZ") in read(tmp_path / "two" / "store" / "held.record").live


def test_a_directory_gets_a_file_with_host_and_time(source: Path, tmp_path: Path) -> None:
    (tmp_path / "backups").mkdir()
    file = made(source, tmp_path / "backups")
    assert [path.name for path in (tmp_path / "backups").iterdir()] == [file.name]
    assert file.name.startswith(f"sidecar-{socket.gethostname()}-20")
    assert file.stat().st_mode & 0o077 == 0


def test_what_is_there_is_not_written_over(source: Path, file: Path) -> None:
    before = file.read_bytes()
    assert run(source, "backup", file).exit_code == 2
    assert file.read_bytes() == before


def test_a_store_that_is_there_is_kept_unless_forced_and_then_set_aside(file: Path, tmp_path: Path) -> None:
    two = filled(tmp_path / "two")
    place = tmp_path / "two" / "store"
    HeldRecord(place / "held.record").append(Op.HOLD, "postfix", ["4TNEW"], key="k", now=9.0)
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    refused = run(two, "restore", file)
    assert (refused.exit_code, "--force" in refused.output) == (2, True)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before

    assert run(two, "restore", file, "--force").exit_code == 0
    for name in ("core.db", "outside.db", "suppression.key"):
        assert (place / f"{name}.before-restore-1").read_bytes() == before[name]
    assert (place / "held.record").read_bytes() == before["held.record"]  # knows of 4TNEW
    assert run(two, "restore", file, "--force").exit_code == 0
    assert (place / "core.db.before-restore-2").exists()


def test_a_write_ahead_log_without_its_store_is_not_taken_for_the_new_ones(file: Path, tmp_path: Path) -> None:
    two = site(tmp_path / "two")
    place = tmp_path / "two" / "store"
    place.mkdir()
    (place / "core.db-wal").write_bytes(b"stray")
    (place / "suppressed.index").write_bytes(b"old")
    assert run(two, "restore", file).exit_code == 0
    assert not (place / "core.db-wal").exists()
    assert not (place / "suppressed.index").exists()


@pytest.mark.parametrize("process", ["control", "outside"])
def test_it_refuses_beside_a_running_sidecar(file: Path, tmp_path: Path, process: str) -> None:
    two = site(tmp_path / "two")
    (tmp_path / "two" / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "two" / "run" / process))
        listening.listen()
        result = run(two, "restore", file, "--force")
    assert result.exit_code == 2
    assert "stop it first" in result.output
    assert not (tmp_path / "two" / "store").exists()


# Backups that are none.


def rewritten(file: Path, change: Callable[[str, bytes], tuple[str, bytes] | None]) -> Path:
    """The same archive, each member as `change` has it, or without it."""
    other = file.with_name("other.tar")
    with tarfile.open(file) as old, tarfile.open(other, "w") as new:
        for member in old.getmembers():
            content = old.extractfile(member)
            assert content is not None
            if (kept := change(member.name, content.read())) is not None:
                info = tarfile.TarInfo(kept[0])
                info.size = len(kept[1])
                new.addfile(info, io.BytesIO(kept[1]))
    return other


def renamed(name: str, data: bytes) -> tuple[str, bytes]:
    """As somebody would have it who wants a file of root's replaced."""
    if name == "manifest.json":
        return name, data.replace(b"rules/mine.toml", b"rules/../x.toml")
    return ("rules/../x.toml" if name == "rules/mine.toml" else name), data


BROKEN = {
    "one bit of core.db": (lambda name, data: (name, data[:-1] + b"?" if name == "core.db" else data), "SHA-256"),
    "no core.db": (lambda name, data: None if name == "core.db" else (name, data), "missing"),
    "no manifest": (lambda name, data: None if name == "manifest.json" else (name, data), "does not begin with"),
    "a path out of it": (renamed, "belongs in no backup"),
    "a later format": (lambda name, data: (name, data.replace(b'"format": 1', b'"format": 9')), "format 9"),
    "no JSON": (lambda name, data: (name, b"{" if name == "manifest.json" else data), "cannot be read"),
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("option", ["--check", "--force"])
def test_a_broken_backup_changes_nothing(file: Path, tmp_path: Path, how: str, option: str) -> None:
    change, says = BROKEN[how]
    other = rewritten(file, change)
    two = filled(tmp_path / "two")
    before = {path: path.read_bytes() for path in (tmp_path / "two").rglob("*") if path.is_file()}
    result = run(two, "restore", other, option)
    assert result.exit_code == 2
    assert says in result.output
    assert {path: path.read_bytes() for path in (tmp_path / "two").rglob("*") if path.is_file()} == before


def test_one_that_was_cut_off_is_told(file: Path, source: Path) -> None:
    whole = file.read_bytes()
    for size in (0, 100, 700, len(whole) // 2):
        file.write_bytes(whole[:size])
        assert run(source, "restore", file, "--check").exit_code == 2


def test_a_store_of_a_newer_sidecar_is_not_put_in_place(tmp_path: Path) -> None:
    one = filled(tmp_path / "one")
    with sqlite3.connect(tmp_path / "one" / "store" / "core.db") as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    result = run(site(tmp_path / "two"), "restore", made(one, tmp_path / "b.tar"))
    assert result.exit_code == 2
    assert "newer sidecar" in result.output


def test_a_damaged_store_gives_no_backup(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "one" / "store" / "core.db"
    data = bytearray(path.read_bytes())
    data[4096:16384] = b"\xff" * 12288
    path.write_bytes(data)
    result = run(source, "backup", tmp_path / "b.tar")
    assert result.exit_code == 2
    assert "core.db" in result.output
    assert not list(tmp_path.glob("*b.tar*"))
    assert not list(tmp_path.glob(".sidecar-backup-*"))


def test_without_a_store_there_is_nothing_to_back_up(tmp_path: Path) -> None:
    result = run(site(tmp_path / "one"), "backup", tmp_path / "b.tar")
    assert result.exit_code == 2
    assert "store.path" in result.output


def test_a_sound_one_is_told_with_what_is_in_it(file: Path, source: Path) -> None:
    result = run(source, "restore", file, "--check", "--json")
    names = [member["name"] for member in json.loads(result.output)["members"]]
    assert names == [
        "sidecar.toml", "rules/mine.toml", "suppression.key", "outside.db", "core.db", "held.record"
    ]  # fmt: skip


def test_it_reads_on_in_the_log_where_the_backup_left_it(tmp_path: Path) -> None:
    one = site(tmp_path / "one")
    store = Store.open(tmp_path / "one" / "store" / "core.db")
    store.commit(Commit(checkpoint=Position("/var/log/mail.log", "here")))
    file = made(one, tmp_path / "b.tar")
    store.commit(Commit(checkpoint=Position("/var/log/mail.log", "later")))
    store.close()
    assert run(site(tmp_path / "two"), "restore", file).exit_code == 0
    restored = Store.open(tmp_path / "two" / "store" / "core.db")
    assert restored.checkpoint("/var/log/mail.log") == Position("/var/log/mail.log", "here")
    restored.close()
