import json
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.commands import Attempt, Change
from sidecar import statements
from sidecar.database import Database, Schema
from sidecar.log_batch import Position
from sidecar.store import (
    Commit,
    HeldBy,
    HoldRow,
    LearnedRow,
    Store,
    StoreDamaged,
    StoreError,
    StoreUnavailable,
    SubQueueRow,
    open_read_only,
)

SOURCE = "/var/log/mail.log"


def attempt(number: int) -> Attempt:
    return Attempt(
        time=1_700_000_000.0 + number,
        host="mx1",
        instance="postfix",
        queue_id=f"4TX{number:07d}z",
        sender_domain="example.com",
        recipient_domain="gmail.com",
        provider="google",
        relay="gmail-smtp-in.l.google.com",
        dsn="4.7.28",
        status="deferred",
        rule="google/rate-dkim-domain",
        detail="throttling.domain",
        bounce="transient",
        scope="sender-domain",
        delay=1.5,
        key="dkim-domain:example.com@google",
    )


def change(number: int, line: str = "Nov 21 19:00:00 mx1 postfix/smtp[12]: ...") -> Change:
    return Change(
        1_700_000_000.0 + number, "dkim-domain:example.com@google", "opened", "paused", "why", line, "rule", "engine", 3
    )


def hold(queue_id: str, *, confirmed: bool = False) -> HoldRow:
    return HoldRow(
        "postfix",
        queue_id,
        ("a@google", "b@google"),
        5.0,
        HeldBy.ANSWER,
        confirmed,
        True,
        "s@e.org",
        ("r@g.com",),
        4.0,
    )


SUBQUEUE = SubQueueRow("dkim-domain:example.com@google", '{"state": "paused"}', "google/rate", "the line", 1.0, 2.0)
LEARNED = LearnedRow("provider", "example.net", "google", 7.0)


def commit_of(number: int, size: int = 1) -> Commit:
    """The `number`th of equal commits: its checkpoint says how many attempts there are with it."""
    attempts = [attempt(number * size + index) for index in range(size)]
    return Commit(checkpoint=Position(SOURCE, str((number + 1) * size)), attempts=attempts)


def attempts_and_checkpoint(store: Store) -> tuple[int, int]:
    position = store.checkpoint(SOURCE)
    return store.connection.execute("SELECT count(*) FROM attempt").fetchone()[0], int(
        position.token
    ) if position else 0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "core.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    opened = Store.open(path)
    yield opened
    opened.close()


def test_what_was_committed_is_read_again_after_closing(path: Path) -> None:
    first = Store.open(path)
    first.commit(
        Commit(
            checkpoint=Position(SOURCE, "{}"),
            attempts=[attempt(1), attempt(2)],
            changes=[change(1)],
            subqueues=[SUBQUEUE],
            holds=[hold("A"), hold("B")],
            learned=[LEARNED],
        )
    )
    first.close()
    second = Store.open(path)
    assert second.recovered == ""
    assert second.checkpoint(SOURCE) == Position(SOURCE, "{}")
    assert second.checkpoint("journal") is None
    assert second.attempts(0, 10) == [attempt(1), attempt(2)]
    assert second.attempts_since(attempt(2).time) == [attempt(2)]
    assert second.changes(0, 10) == [(1, change(1))]
    assert second.subqueues() == [SUBQUEUE]
    assert second.holds() == [hold("A"), hold("B")]
    assert second.learned() == [LEARNED]
    second.close()


def test_a_row_takes_the_place_of_the_one_with_its_key(store: Store) -> None:
    later = SUBQUEUE._replace(snapshot='{"state": "probing"}')
    store.commit(Commit(Position(SOURCE, "1"), subqueues=[SUBQUEUE], holds=[hold("A")], learned=[LEARNED]))
    store.commit(
        Commit(
            Position(SOURCE, "2"),
            subqueues=[later],
            holds=[hold("A", confirmed=True)],
            learned=[LEARNED._replace(last_seen=8.0)],
        )
    )
    assert store.checkpoint(SOURCE) == Position(SOURCE, "2")
    assert store.subqueues() == [later]
    assert store.holds() == [hold("A", confirmed=True)]
    assert store.learned() == [LEARNED._replace(last_seen=8.0)]


def test_what_is_gone_goes(store: Store) -> None:
    store.commit(Commit(subqueues=[SUBQUEUE], holds=[hold("A"), hold("B")]))
    store.commit(Commit(subqueues_gone=[SUBQUEUE.key], holds_gone=[("postfix", "A"), ("postfix", "never was")]))
    assert store.subqueues() == []
    assert store.holds() == [hold("B")]


def test_a_commit_without_checkpoint_leaves_it(store: Store) -> None:
    store.commit(commit_of(0))
    store.commit(Commit(changes=[change(1)]))
    assert attempts_and_checkpoint(store) == (1, 1)


def test_changes_are_read_on_after_an_id(store: Store) -> None:
    store.commit(Commit(changes=[change(number) for number in range(5)]))
    assert [row.time - 1_700_000_000 for _, row in store.changes(2, 2)] == [2, 3]


def test_bytes_that_are_not_utf8_are_kept_readable(store: Store) -> None:
    line = b"user caf\xe9 <x@y>".decode(errors="surrogateescape")
    broken = hold("A")._replace(sender=line, recipients=(line,))
    store.commit(Commit(changes=[change(1, line)], holds=[broken]))
    assert [row.line for _, row in store.changes(0, 1)] == ["user caf\\udce9 <x@y>"]
    assert [(row.sender, row.by) for row in store.holds()] == [("user caf\\udce9 <x@y>", HeldBy.ANSWER)]


text = st.text(st.characters(exclude_categories=()), max_size=20)


@settings(max_examples=50, deadline=None)
@given(text, text, st.lists(text, max_size=3))
def test_any_text_can_be_kept(sender: str, line: str, recipients: list[str]) -> None:
    store = Store(Database(Path("memory"), sqlite3.connect(":memory:", isolation_level=None)))
    for script in statements.SCHEMA.migrations():
        store.connection.executescript(script)
    row = hold("A")._replace(sender=sender, recipients=tuple(recipients))
    store.commit(Commit(changes=[change(1, line)], holds=[row]))
    sound = not any("\ud800" <= letter <= "\udfff" for letter in sender + line + "".join(recipients))
    assert not sound or store.holds() == [row]
    assert not sound or [change.line for _, change in store.changes(0, 1)] == [line]
    assert len(store.holds()) == 1
    store.close()


def test_a_mistake_in_a_row_is_an_error_and_leaves_nothing(store: Store) -> None:
    store.commit(commit_of(0))
    with pytest.raises(sqlite3.IntegrityError):
        store.commit(commit_of(1)._replace(changes=[change(1)._replace(time=float("nan"))]))
    assert attempts_and_checkpoint(store) == (1, 1)


def test_old_rows_are_pruned_in_slices(store: Store) -> None:
    store.commit(Commit(attempts=[attempt(number) for number in range(10)], changes=[change(0), change(20)]))
    assert store.prune(before=attempt(5).time, limit=3) == 3
    assert store.prune(before=attempt(5).time, limit=3) == 2
    assert store.prune(before=attempt(5).time, limit=3) == 0
    assert store.prune_audit(before=attempt(5).time, limit=3) == 1
    assert store.prune_audit(before=attempt(5).time, limit=3) == 0
    assert [row.time for row in store.attempts_since(0)] == [attempt(number).time for number in range(5, 10)]
    assert [number for number, _ in store.changes(0, 10)] == [2]


def test_ids_are_not_used_again_when_all_was_pruned(store: Store) -> None:
    store.commit(Commit(changes=[change(1), change(2)]))
    store.prune_audit(before=change(3).time, limit=10)
    store.commit(Commit(changes=[change(4)]))
    assert [number for number, _ in store.changes(2, 10)] == [3]


def test_the_file_is_not_for_everybody(store: Store) -> None:
    assert store.path.stat().st_mode & 0o7 == 0


# What another process sees


def test_another_process_reads_while_core_writes(store: Store) -> None:
    store.commit(commit_of(0))
    reader = open_read_only(store.path)
    assert attempts_and_checkpoint(reader) == (1, 1)
    store.commit(commit_of(1))
    assert attempts_and_checkpoint(reader) == (2, 2)
    reader.close()


def test_a_reader_cannot_write(store: Store) -> None:
    reader = open_read_only(store.path)
    with pytest.raises(StoreUnavailable, match="readonly"):
        reader.commit(commit_of(0))
    reader.close()


def test_a_reader_says_that_there_is_no_store_yet(path: Path) -> None:
    with pytest.raises(StoreError, match=r"no store yet.*start the sidecar"):
        open_read_only(path)


def test_a_reader_does_not_read_a_schema_that_is_to_be_migrated(path: Path) -> None:
    at_version(path, 1).close()
    with pytest.raises(StoreError, match=f"still of schema 1, wanted {len(statements.SCHEMA.migrations())}"):
        open_read_only(path)


READ_AS_NOBODY = """
import sys
from pathlib import Path
from sidecar.store import open_read_only
store = open_read_only(Path(sys.argv[1]))
print(store.checkpoint("/var/log/mail.log").token)
store.close()
"""


def test_a_reader_without_right_to_write_reads_after_core_has_stopped(path: Path) -> None:
    writer = Store.open(path)
    writer.commit(commit_of(0))
    writer.close()
    path.chmod(0o444)
    path.parent.chmod(0o555)
    drop_rights = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--securebits=+noroot", "--"]
    command = [*(drop_rights if os.geteuid() == 0 else []), sys.executable, "-c", READ_AS_NOBODY, str(path)]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=root)
    path.parent.chmod(0o755)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_a_second_writer_is_told_of_the_first(path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.database.LOCK_TIMEOUT", 0.01)
    second = Store.open(path)
    store.connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="second sidecar"):
        second.commit(commit_of(0))
    store.connection.execute("ROLLBACK")
    second.commit(commit_of(0))
    assert attempts_and_checkpoint(store) == (1, 1)
    second.close()


# Schema


def at_version(path: Path, version: int) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    for script in statements.SCHEMA.migrations()[:version]:
        connection.executescript(script)
    connection.execute(f"PRAGMA user_version = {version}")
    return connection


def test_two_connections_of_one_process_keep_their_log_when_another_process_closes_the_file(
    path: Path, store: Store
) -> None:
    """The outside process has its file open several times, and a command may write it."""
    also = Database.open(path, statements.SCHEMA)
    store.commit(Commit(attempts=[attempt(1)]))
    log = path.with_name(f"{path.name}-wal")
    before = log.stat().st_ino
    writes = (
        "import sqlite3, sys; file = sqlite3.connect(sys.argv[1]);"
        "file.execute('BEGIN IMMEDIATE'); file.rollback(); file.close()"
    )
    subprocess.run([sys.executable, "-c", writes, str(path)], check=True, timeout=60)
    also.close()
    assert log.stat().st_ino == before
    store.commit(Commit(attempts=[attempt(2)]))
    reader = open_read_only(path)
    assert [row.queue_id for row in reader.attempts(0, 10)] == [attempt(1).queue_id, attempt(2).queue_id]
    reader.close()


def test_a_store_of_version_1_is_brought_to_the_present_one(path: Path) -> None:
    old = at_version(path, 1)
    before = Attempt._fields[: Attempt._fields.index("recipient")]
    marks = ", ".join("?" * len(before))
    old.execute(f"INSERT INTO attempt ({', '.join(before)}) VALUES ({marks})", attempt(1)[: len(before)])  # noqa: S608  # our names
    old.execute(statements.PUT_CHECKPOINT, (SOURCE, "1"))
    old.close()
    store = Store.open(path)
    assert store.recovered == ""
    assert attempts_and_checkpoint(store) == (1, 1)
    store.commit(Commit(holds=[hold("A")], learned=[LEARNED]))
    assert store.holds() == [hold("A")]
    store.close()


def test_every_version_leads_to_the_same_tables(tmp_path: Path) -> None:
    found = []
    for version in range(len(statements.SCHEMA.migrations()) + 1):
        path = tmp_path / f"{version}.db"
        at_version(path, version).close()
        store = Store.open(path)
        found.append(store.connection.execute("SELECT sql FROM sqlite_schema ORDER BY name").fetchall())
        store.close()
    assert all(tables == found[0] for tables in found)


def test_a_migration_that_fails_leaves_the_version_before(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = statements.SCHEMA.migrations()
    Store.open(path).close()
    monkeypatch.setattr(Schema, "migrations", lambda _: [*scripts, "CREATE TABLE more (a TEXT) STRICT; nonsense;"])
    with pytest.raises(sqlite3.OperationalError, match="nonsense"):
        Store.open(path)
    monkeypatch.undo()
    store = Store.open(path)
    assert ("more",) not in store.connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    store.close()


def test_every_table_is_strict() -> None:
    connection = sqlite3.connect(":memory:")
    for script in statements.SCHEMA.migrations():
        connection.executescript(script)
    loose = connection.execute("SELECT name FROM pragma_table_list WHERE NOT strict AND name NOT LIKE 'sqlite_%'")
    assert loose.fetchall() == []
    connection.close()


def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    Store.open(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    known = len(statements.SCHEMA.migrations())
    with pytest.raises(StoreError, match=rf"newer sidecar \(schema 99, this one knows {known}\)") as refused:
        Store.open(path)
    assert not isinstance(refused.value, StoreDamaged)
    assert [entry.name for entry in path.parent.iterdir() if "damaged" in entry.name] == []


# Damage


def filled(path: Path) -> None:
    store = Store.open(path)
    store.commit(commit_of(0, size=1000)._replace(subqueues=[SUBQUEUE], holds=[hold("A")]))
    store.close()


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_within_a_page(path: Path) -> None:
    os.truncate(path, 4096 + 100)


def garbage(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(50_000))


def garbage_within(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(random.Random(1).randbytes(40_000))


def garbage_among_the_attempts(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size * 3 // 4 // 4096 * 4096)
        file.write(random.Random(1).randbytes(4096))


def another_program_s_text(path: Path) -> None:
    path.write_text("Nov 21 19:00:00 mx1 postfix/smtp[12]: not a database\n" * 100)


DAMAGES = [cut_short, cut_within_a_page, garbage, garbage_within, garbage_among_the_attempts, another_program_s_text]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_store_is_set_aside_and_a_new_one_made(path: Path, damage: Callable[[Path], None]) -> None:
    filled(path)
    damage(path)
    before = path.read_bytes()
    store = Store.open(path)
    aside = path.with_name("core.db.damaged-1")
    assert str(aside) in store.recovered
    assert aside.read_bytes() == before
    assert store.holds() == []
    store.commit(commit_of(0))
    assert attempts_and_checkpoint(store) == (1, 1)
    store.close()
    again = Store.open(path)
    assert (again.recovered, attempts_and_checkpoint(again)) == ("", (1, 1))
    again.close()


def test_of_a_large_store_what_holds_state_is_checked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading all of it would take longer than a start may."""
    monkeypatch.setattr("sidecar.database.CHECKED_WHOLE", 0)
    filled(path)
    garbage_among_the_attempts(path)
    store = Store.open(path)
    assert (store.recovered, store.holds(), store.subqueues()) == ("", [hold("A")], [SUBQUEUE])
    store.close()


def test_the_log_of_a_replaced_store_goes_with_it_and_not_into_the_new_one(path: Path) -> None:
    filled(path)
    reader = open_read_only(path)
    reader.holds()
    store = Store.open(path)
    store.commit(Commit(holds=[hold("B")]))
    store.close()  # the reader keeps SQLite from folding the log into the file
    fresh = Store.replace(path, "why")
    assert fresh.holds() == []
    fresh.commit(Commit(holds=[hold("C")]))
    aside = Store(Database(path, sqlite3.connect(path.with_name("core.db.damaged-1"))))
    assert [row.queue_id for row in aside.holds()] == ["A", "B"]
    for opened in (aside, reader, fresh):
        opened.close()


def test_a_store_that_is_whole_in_its_write_ahead_log_is_not_lost(path: Path) -> None:
    with writer(path, size=1, dies_after=50) as child:
        child.wait(timeout=60)
    garbage(path)
    store = Store.open(path)
    assert (store.recovered, attempts_and_checkpoint(store)) == ("", (50, 50))
    store.close()


def test_a_second_damaged_store_does_not_replace_the_first(path: Path) -> None:
    for number in (1, 2):
        filled(path)
        cut_short(path)
        store = Store.open(path)
        assert f"core.db.damaged-{number}" in store.recovered
        store.close()


def test_an_emptied_file_is_told(path: Path) -> None:
    filled(path)
    os.truncate(path, 0)
    store = Store.open(path)
    assert "was empty" in store.recovered
    assert store.holds() == []
    store.close()


def work_on(store: Store) -> None:
    for number in range(1, 100):
        store.commit(commit_of(number))
        store.attempts(0, 5000)


def test_damage_that_shows_while_core_runs_is_told_and_the_store_replaced(path: Path) -> None:
    filled(path)
    store = Store.open(path)
    garbage(path)
    with pytest.raises(StoreDamaged, match="damaged") as told:
        work_on(store)
    store.close()
    fresh = Store.replace(path, str(told.value))
    assert "set aside" in fresh.recovered
    fresh.commit(commit_of(0))
    assert attempts_and_checkpoint(fresh) == (1, 1)
    fresh.close()


WRITER = """
import json, os, signal, sys
from pathlib import Path
from policies.commands import Attempt
from sidecar.store import Commit, Position, Store

path, source, row, size, dies_after = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]), *map(int, sys.argv[4:])
store = Store.open(path)
position = store.checkpoint(source)
done = int(position.token) if position else 0
while done != dies_after:
    done += size
    store.commit(Commit(checkpoint=Position(source, str(done)), attempts=[Attempt(*row)] * size))
    os.write(1, b".")
os.kill(os.getpid(), signal.SIGKILL)
"""


def writer(path: Path, *, size: int, dies_after: int = -1) -> "subprocess.Popen[bytes]":
    """Another process that commits `size` attempts at a time, and says a dot after each commit."""
    arguments = [str(path), SOURCE, json.dumps(attempt(0)), str(size), str(dies_after)]
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, *arguments], stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent
    )


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("how", ["cut", "garbled"])
def test_a_damaged_write_ahead_log_loses_whole_commits_alone(path: Path, keep: float, how: str) -> None:
    with writer(path, size=1, dies_after=80) as child:
        assert child.wait(timeout=60) == -signal.SIGKILL
    log = path.with_name("core.db-wal")
    size = log.stat().st_size
    assert size > 100_000
    if how == "cut":
        os.truncate(log, int(size * keep))
    else:
        with log.open("r+b") as file:
            file.seek(int(size * keep))
            file.write(random.Random(2).randbytes(min(5000, size - int(size * keep))))
    store = Store.open(path)
    found, said = attempts_and_checkpoint(store)
    assert found == said < 80
    store.commit(Commit(checkpoint=Position(SOURCE, str(said + 1)), attempts=[attempt(said)]))
    assert attempts_and_checkpoint(store) == (said + 1, said + 1)
    store.close()


# Power and space


def test_killed_at_any_moment_events_and_checkpoint_agree(path: Path) -> None:
    chance = random.Random(7)
    least = 0
    for _ in range(10):
        with writer(path, size=7) as child:
            assert child.stdout
            wanted = chance.randrange(1, 60)
            seen = len(child.stdout.read(wanted))
            for _ in range(chance.randrange(5000)):  # somewhere within the commit that is under way
                pass
            child.kill()
            seen += len(child.stdout.read())
        least += seen * 7
        store = Store.open(path)
        found, said = attempts_and_checkpoint(store)
        store.close()
        assert store.recovered == ""
        assert found == said
        assert least <= found <= least + 7 * 10
        least = found


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB of its own (needs root)."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(place: Path) -> Path:
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
    return ballast


def test_a_full_disk_loses_and_doubles_nothing(small_disk: Path) -> None:
    store = Store.open(small_disk / "core.db")
    number, refused = 0, 0
    ballast = None
    while number < 40:
        if number == 10 and not refused:
            ballast = fill(small_disk)
        try:
            store.commit(commit_of(number, size=50))
        except StoreUnavailable as error:
            assert "free some space" in str(error)  # noqa: PT017  # the loop goes on
            refused += 1
            assert attempts_and_checkpoint(store) == (number * 50, number * 50)
            if refused == 3:
                assert ballast
                ballast.unlink()
        else:
            number += 1
    assert refused == 3
    assert attempts_and_checkpoint(store) == (2000, 2000)
    store.close()
    again = Store.open(small_disk / "core.db")
    assert (again.recovered, attempts_and_checkpoint(again)) == ("", (2000, 2000))
    again.close()


def test_a_full_disk_at_the_start_says_so(small_disk: Path) -> None:
    ballast = fill(small_disk)
    with pytest.raises(StoreUnavailable, match="space"):
        Store.open(small_disk / "core.db")
    ballast.unlink()
    Store.open(small_disk / "core.db").close()


def test_a_failing_disk_loses_and_doubles_nothing(path: Path) -> None:
    """Writes fail as on a bad disk: the file may not grow (EFBIG, which SQLite calls an I/O error)."""
    store = Store.open(path)
    store.commit(commit_of(0, size=50))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = path.with_name("core.db-wal").stat().st_size
    number = 1
    for room in (0, 3000, 9000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, limits[1]))
        try:
            with pytest.raises(StoreUnavailable, match="look at the disk"):
                store.commit(commit_of(number, size=500))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert attempts_and_checkpoint(store)[0] == attempts_and_checkpoint(store)[1]
    store.commit(commit_of(number, size=50))
    assert attempts_and_checkpoint(store) == (100, 100)
    store.close()


def test_a_place_that_cannot_be_written_says_what_would_be_right(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"wanted store\.path in a directory"):
        Store.open(tmp_path / "file" / "core.db")


def test_the_snapshot_of_a_subqueue_is_kept_as_it_is(store: Store) -> None:
    snapshot = json.dumps({"pace": [1.5, 2.0], "letter": "é"})
    store.commit(Commit(subqueues=[SUBQUEUE._replace(snapshot=snapshot)]))
    assert [row.snapshot for row in store.subqueues()] == [snapshot]
