"""What was done to mail stands in the audit, for each message; it is found again, and nothing in it can be changed."""

import csv
import io
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from parsers.policy_protocol import DeferIfPermit, Discard, Filter, PolicyRequest, Reject
from policies import audit
from policies.access import Arrival, Decision
from policies.audit import Acted
from policies.commands import Change
from policies.key import Key
from policies.refusals import Refusals
from policies.suppression import Add, End, Listed, Move, Reason
from sidecar import audit_read
from sidecar.audit_read import Wanted
from sidecar.cli import sidecar
from sidecar.database import Database
from sidecar.rows import gather
from sidecar.store import Store
from sidecar.store_rows import Commit
from tests.policy_world import access_in
from tests.suppression_world import Lists
from tests.world import World

KEY = "sender-domain:burst.example@comcast"
THROTTLED = "451 4.2.0 Throttled - try again later. http://postmaster.comcast.net/smtp-error-codes.php#RL000010"
NOW = time.time()


def refuse_burst(domain: str, provider: str, now: float) -> str | None:
    del provider, now
    return THROTTLED if domain == "burst.example" else None


def change(
    kind: str, *ids: str, age: float = 0.0, key: str = KEY, line: str = "", by: str = "engine", why: str = "why"
) -> Change:
    """One row, `age` days old."""
    messages = tuple(("postfix", one) for one in ids)
    return Change(NOW - age * 86_400, key, kind, "paused", why, line, "rule", by, len(ids), messages)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with_rows = Store.open(tmp_path / "core.db")
    yield with_rows
    with_rows.close()


def asked(**attributes: object) -> PolicyRequest:
    """One question of smtpd."""
    nothing: dict[str, Any] = dict.fromkeys(PolicyRequest._fields, "") | {"recipient_count": 0, "size": 0}
    return PolicyRequest(**(nothing | attributes))


def told(directory: Path, *arguments: str) -> Result:
    configuration = directory / "sidecar.toml"
    configuration.write_text(f'[store]\npath = "{directory}"\n')
    return CliRunner().invoke(sidecar, ["--config", str(configuration), "audit", *arguments])


# Who tells.


def test_each_hold_and_release_names_its_messages(store: Store) -> None:
    world = World(refuse_burst)
    for number in range(5):
        world.submit("news@burst.example", [f"u{number}@comcast.net"])
    world.run(5)
    held = {message.queue_id for message in world.engine.books.ours}
    assert held
    world.engine.orders.release(Key.read(KEY), by_whom="ann", now=world.now)
    world.run(60)
    commit = gather(world.engine, None, now=world.now)
    assert commit is not None
    store.commit(commit)

    done = {
        queue_id: [row.change for row in audit_read.of_message(store_database(store), queue_id).rows]
        for queue_id in held
    }
    for changes in done.values():
        kinds = [each.kind for each in changes]
        assert kinds[0] in {"held", "answered"}
        assert ("released", "ann") in {(each.kind, each.by_whom) for each in changes}
        assert "released" in [each.kind for each in changes if each.by_whom == "engine"]
        assert {each.key for each in changes} <= {KEY, ""}


def test_mail_that_is_answered_hold_is_one_row_with_all_its_messages() -> None:
    world = World(refuse_burst)
    world.engine.orders.open(Key.read(KEY), rule="by-hand", now=1.0)
    for number in range(3_000):
        arrival = Arrival("postfix", f"4T{number:09d}", "a@burst.example", ("x@comcast.net",), True, 1, "", "")
        assert world.engine.arriving(arrival, now=2.0) is not None
        assert world.engine.arriving(arrival, now=2.0) is not None  # asked again
    (answered,) = [each for each in world.engine.telling.take_changes() if each.kind == "answered"]
    assert answered.messages == len(answered.ids) == 3_000
    assert answered.why == "paused, 0 waiting"
    assert not [each for each in world.engine.telling.take_changes() if each.kind == "answered"]


def test_what_is_only_asked_or_observed_is_not_in_it() -> None:
    world = World(refuse_burst)
    world.engine.orders.open(Key.read(KEY), rule="by-hand", now=1.0)
    arrival = Arrival("postfix", "", "a@burst.example", ("x@comcast.net",), True, 1, "", "", binding=False)
    assert world.engine.arriving(arrival, now=2.0) is not None
    assert world.engine.arriving(arrival._replace(queue_id="4T1"), now=2.0) is not None
    assert "answered" not in {each.kind for each in world.engine.telling.take_changes()}


COUNTED = [(Acted("routed", "route/lane-02", "all its recipients go over lane-02"), 2)]


@pytest.mark.parametrize(("act", "counted"), [(True, COUNTED), (False, [])])
def test_routes_are_counted_once_a_message_and_not_while_observing(act: bool, counted: object) -> None:  # noqa: FBT001
    access = access_in(act=act)
    for instance in ("a.1", "a.2"):
        rcpt = asked(protocol_state="RCPT", instance=instance, recipient="x@yahoo.com")
        end = rcpt._replace(protocol_state="END-OF-MESSAGE", recipient_count=1, queue_id=f"4T{instance}")
        access.decide(rcpt, "postfix", now=1.0)
        access.decide(end, "postfix", now=1.0)
        access.decide(end, "postfix", now=1.0)  # smtpd lost the connection and asks again
        access.explain(end._replace(instance=""), "postfix", now=1.0)
    assert access.take_acted() == counted
    assert access.take_acted() == []


def test_refusals_at_rcpt_are_counted_by_list_and_reason() -> None:
    lists = Lists()
    lists.apply(Add(lists.digest("x@yahoo.com"), "", Listed("global", Reason.HARD_BOUNCE), "", 1.0, "ann"))
    access = access_in(refusing=Refusals(lists, lambda domain: domain))
    for recipient in ("x@yahoo.com", "y@yahoo.com", "x@yahoo.com"):
        access.decide(
            asked(protocol_state="RCPT", instance="1", sender="a@b.example", recipient=recipient), "postfix", now=1.0
        )
    refused = Acted("rejected", "suppress/hard-bounce", "suppressed on global for hard-bounce")
    assert access.take_acted() == [(refused, 2)]


def test_what_changes_the_suppression_list_is_summed_up_by_list_reason_and_hand() -> None:
    hard, wish = Listed("global", Reason.HARD_BOUNCE), Listed("domain:a.example", Reason.COMPLAINT)
    moves: list[Move] = [
        Add(b"1", "x@y.example", hard, "line 1", 5.0, "google/no-such-user"),
        Add(b"2", "z@y.example", hard, "line 2", 5.0, "google/no-such-user"),
        Add(b"3", "", wish, "report", 5.0, "ingest"),
        End(b"1", hard, 9.0, "ann", "asked by phone"),
    ]
    rows = [(each.kind, each.why, each.line, each.by_whom, each.messages) for each in audit.of_moves(moves, now=9.0)]
    assert rows == [
        ("suppressed", "on global for hard-bounce", "line 1", "google/no-such-user", 2),
        ("suppressed", "on domain:a.example for complaint", "report", "ingest", 1),
        ("unsuppressed", "on global for hard-bounce: asked by phone", "", "ann", 1),
    ]


@pytest.mark.parametrize(
    "action", [Filter("lane-01"), Reject("5.1.1", "no"), Discard("no"), DeferIfPermit("4.7.1", "no")]
)
def test_every_answer_that_changes_mail_has_a_kind(action: Filter | Reject | Discard | DeferIfPermit) -> None:
    access = access_in()
    access._acted[Decision(action, "", "rule", "why")] = 3
    ((acted, count),) = access.take_acted()
    (row,) = audit.of_answers([(acted, count)], now=5.0)
    assert row.kind in audit.KINDS
    assert row.messages == 3


# Nothing is changed.

REFUSED = (
    "UPDATE change SET why = 'another'",
    "UPDATE change SET by_whom = 'engine'",
    "UPDATE change SET time = 0",
    "UPDATE change SET messages = 0",
    "UPDATE OR REPLACE change SET id = 1 WHERE id = 2",
    "DELETE FROM change",
    "INSERT OR REPLACE INTO change SELECT id, time, key, kind, state, 'another', line, rule, by_whom, messages FROM change",
    "DELETE FROM change_message",
    "UPDATE change_message SET queue_id = 'other'",
    "UPDATE OR REPLACE change_message SET change = 7",
    "UPDATE audit_retention SET kept_from = 1e12",
    "DELETE FROM audit_retention",
    "INSERT OR REPLACE INTO audit_retention VALUES (1, 1e12)",
)


@pytest.mark.parametrize("statement", REFUSED)
def test_no_statement_changes_what_was_done(store: Store, statement: str) -> None:
    store.commit(Commit(changes=[change("held", "4TA", "4TB", by="ann"), change("released", "4TA")]))
    before = list(store.connection.iterdump())
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        store.connection.execute(statement)
    assert list(store.connection.iterdump()) == before


def test_an_address_may_be_taken_out_of_a_text(store: Store) -> None:
    store.commit(Commit(changes=[change("held", line="to=<jane@x.example>, said")]))
    store.connection.execute("UPDATE change SET line = 'to=<[erased]>, said'")
    assert [row.line for _, row in store.changes(0, 10)] == ["to=<[erased]>, said"]


def test_rows_go_by_age_with_their_messages_and_no_others(store: Store) -> None:
    store.commit(Commit(changes=[change("held", f"4T{age}", age=age) for age in (100, 95, 91, 89, 1)]))
    before = NOW - 90 * 86_400
    assert [store.prune_audit(before=before, limit=2) for _ in range(3)] == [2, 1, 0]
    assert store.connection.execute("SELECT queue_id FROM change_message ORDER BY change").fetchall() == [
        ("4T89",),
        ("4T1",),
    ]
    assert len(store.changes(0, 10)) == 2


def test_nothing_of_the_last_day_goes_whatever_is_asked(store: Store) -> None:
    store.commit(Commit(changes=[change("held", "4TA")]))
    with pytest.raises(sqlite3.IntegrityError, match="last day"):
        store.prune_audit(before=NOW + 1, limit=10)
    assert len(store.changes(0, 10)) == 1


# Who asks.


def store_database(store: Store) -> Database:
    return Database(store.path, store.connection)


@pytest.fixture
def filled(store: Store) -> Path:
    opened = "Nov 22 03:00:00 mx1 postfix/smtp[7]: 4TA: to=<x@comcast.net>, status=deferred (said: 451 Throttled)"
    store.commit(
        Commit(
            changes=[
                change("opened", age=3, line=opened),
                change("held", "4TA", "4TB", age=2.9),
                change("answered", "4TC", age=2.8),
                change("released", "4TA", age=1, by="ann", why="by hand"),
                change("closed", age=0.5),
                change("opened", age=0.4, by="ann"),
                change("held", "4TD", age=0.3),
                change("routed", age=0.1, key="", by="policy", why="=1+1"),
            ]
        )
    )
    return store.path.parent


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ((), ["opened", "held", "answered", "released", "closed", "opened", "held", "routed"]),
        (("--limit", "2"), ["held", "routed"]),
        (("--key", KEY, "--since", "30h"), ["released", "closed", "opened", "held"]),
        (("--kind", "held"), ["held", "held"]),
        (("--by", "hand"), ["released", "opened"]),
        (("--by", "policy"), ["routed"]),
        (("--queue-id", "4TA"), ["held", "released"]),
        (("--queue-id", "4T"), []),
    ],
)
def test_what_is_asked_for_is_listed_oldest_first(filled: Path, options: tuple[str, ...], kinds: list[str]) -> None:
    result = told(filled, "list", "--json", *options)
    assert result.exit_code == 0
    assert [row["kind"] for row in json.loads(result.output)] == kinds
    exported = told(filled, "export", *options) if "--limit" not in options else None
    assert exported is None or [json.loads(line)["kind"] for line in exported.output.splitlines()] == kinds


def test_evidence_is_the_line_of_the_same_episode(filled: Path) -> None:
    rows = json.loads(told(filled, "list", "--json", "--kind", "held").output)
    assert ["451 Throttled" in row["line"] for row in rows] == [True, False]


def test_a_message_has_its_story(filled: Path) -> None:
    result = told(filled, "show", "4TA")
    assert result.exit_code == 0
    assert [line.split()[1] for line in result.output.splitlines() if line.startswith("20")] == ["held", "released"]
    assert "by ann" in result.output
    assert "451 Throttled" in result.output
    assert result.output.endswith("4TA is not on hold by us now\n")
    shown = json.loads(told(filled, "show", "4TA", "--json").output)
    assert [row["kind"] for row in shown["done"]] == ["held", "released"]
    assert shown["held_since"] is None


def test_a_message_that_nobody_knows_is_a_finding(filled: Path) -> None:
    result = told(filled, "show", "4TZ9")
    assert result.exit_code == 1
    assert "not known" in result.output


def test_an_export_opens_in_a_spreadsheet_and_runs_nothing(filled: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(told(filled, "export", "--format", "csv").output)))
    assert [row["queue_ids"] for row in rows] == ["", "4TA 4TB", "4TC", "4TA", "", "", "4TD", ""]
    assert rows[-1]["why"] == "'=1+1"


def test_an_export_is_read_in_slices(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_read, "_AT_ONCE", 3)
    store.commit(Commit(changes=[change("held", f"4T{number}") for number in range(10)]))
    rows = list(audit_read.every(store_database(store), Wanted()))
    assert [row.id for row in rows] == list(range(1, 11))
