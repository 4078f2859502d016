"""The same numbers out of log files as out of core's store, however the files are cut."""

import gzip
import subprocess
from datetime import UTC
from pathlib import Path

import pytest

from policies.rollup import MEASURES
from sidecar import bulk, history_log
from sidecar.history_log import LogReport
from tests.history_world import LOG, SETTINGS, TOTALS, filled
from tests.world import RULES

_SUMS = ", ".join(f"sum({name})" for name in MEASURES)
_FLOWS = "provider, sending_domain, transport, tenant, campaign, segment"
QUERIES = (
    f"SELECT begin, {_FLOWS}, {_SUMS} FROM daily JOIN flow ON flow.id = flow GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, 2, 3, 4, 5, 6, 7",  # noqa: S608  # ours
    """SELECT begin, provider, rule, detail, attempts FROM hourly_refusal
    JOIN flow ON flow.id = flow JOIN refusal ON refusal.id = refusal ORDER BY 1, 2, 3, 4""",
    "SELECT time, kind, why FROM change WHERE kind = 'postfix' ORDER BY time",
)


def read(*paths: Path) -> LogReport:
    return history_log.read(paths, RULES, SETTINGS, zone=UTC)


def test_a_log_gives_what_core_would_have_stored(tmp_path: Path) -> None:
    store, report = filled(tmp_path / "core.db"), read(LOG)
    for query in QUERIES:
        rows = report.database.rows(query)
        assert rows == store.connection.execute(query).fetchall()
        assert rows
    assert (report.lines, report.unknown) == (71, 0)
    store.close()


@pytest.mark.parametrize("pieces", [2, 3, 5])
def test_parts_that_are_read_apart_give_the_same(monkeypatch: pytest.MonkeyPatch, pieces: int) -> None:
    """A part is then a few lines, and messages go over several cuts."""
    whole = read(LOG)
    monkeypatch.setattr(bulk, "_LEAST", 100)
    monkeypatch.setattr(bulk, "_SAMPLES", 100)
    monkeypatch.setattr(history_log, "_PIECE", LOG.stat().st_size // pieces)
    apart = read(LOG)
    assert [apart.database.rows(query) for query in QUERIES] == [whole.database.rows(query) for query in QUERIES]
    assert apart.lines == whole.lines


def test_rotated_files_in_any_order_give_the_same(tmp_path: Path) -> None:
    lines = LOG.read_bytes().splitlines(keepends=True)
    older, newer = tmp_path / "mail.log.1.gz", tmp_path / "mail.log"
    older.write_bytes(gzip.compress(b"".join(lines[:20])))
    newer.write_bytes(b"".join(lines[20:]))
    whole = read(LOG)
    assert [read(newer, older).database.rows(query) for query in QUERIES] == [
        whole.database.rows(query) for query in QUERIES
    ]


def test_pflogsumm_counts_the_same_but_for_what_it_means_otherwise() -> None:
    ran = subprocess.run(["pflogsumm", str(LOG)], capture_output=True, text=True, check=True).stdout
    words = {line.split()[1]: line.split() for line in ran.splitlines()[:20] if len(line.split()) > 1}
    handed_to_the_filter = 1
    the_filters_own_entry, entered_without_client = 1, 1
    assert int(words["delivered"][0]) == TOTALS["sent"] + handed_to_the_filter
    assert int(words["bounced"][0]) == TOTALS["bounced"]
    assert words["deferred"][2].lstrip("(") == str(TOTALS["deferred"])
    # The notification is a message of ours; the second pass behind the filter is none.
    assert int(words["received"][0]) == TOTALS["messages"] + the_filters_own_entry - entered_without_client
