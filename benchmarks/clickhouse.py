"""A fleet's history on Debian's clickhouse-server: events a second with all views, bytes an event, a 30-day report.

A month of a billion events does not fit here, so that each figure says where it comes from:
- insert rate and bytes an event: so many events made on the server itself, over 30 days, merged at the end; both are
  linear in the number of events but for what a larger index costs;
- what one host sends: its core.db through the outside process's own code;
- latency of sums and of a whole report (all its questions, trends and spikes, but for its printing): over daily sums of the size that a billion events leave, which are made directly. A report reads
  nothing else, so this is not extrapolated; that there are so many flows is an assumption, and is printed.
"""

import argparse
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from policies.rollup import DAY, MEASURES
from sidecar.clickhouse import HttpServer
from sidecar.history_read import Selection, where
from sidecar.history_report import make
from sidecar.history_server import ServerHistory
from sidecar.shipping import Shipper
from sidecar.store import Commit, Store
from tests.clickhouse_world import emptied, private_server
from tests.test_rollup import attempt

BEGIN = 1_767_225_600
"""A midnight, UTC."""
DAYS = 30
BILLION = 1_000_000_000
STREAM = """
    number % 400 AS domain, intHash32(number) AS chance, chance % 12 AS lot,
    ['google', 'google', 'google', 'google', 'microsoft', 'microsoft', 'yahoo', 'yahoo', 'apple', 'gmx', 'comcast', 'orange']
        [intHash32(number + 7) % 12 + 1] AS provider_
"""
"""400 sending domains, each with 12 campaigns of three days, from two of 300 hosts, to 12 providers."""
EVENTS = f"""
    INSERT INTO attempt SELECT toDate({{begin}} + 3600, 'UTC'), concat('mx', toString((domain * 7 + lot % 2) % 300), '/1'),
        {{first}} + number, {{begin}} + number * 86400. / {{rows}}, concat('mx', toString((domain * 7 + lot % 2) % 300)),
        'postfix', concat('4', substring(lower(hex(intHash64(number + {{first}}))), 1, 12)),
        concat('shop-', toString(domain), '.example'), concat(provider_, '.example'), provider_,
        concat('mx', toString(chance % 5), '.', provider_, '.example'),
        if(chance % 100 < 90, '2.0.0', '4.7.28') AS dsn_, if(chance % 100 < 90, 'sent', if(chance % 100 < 97, 'deferred', 'bounced')) AS status_,
        if(status_ = 'sent', '', concat(provider_, if(status_ = 'deferred', '/rate', '/no-such-user'))),
        if(status_ = 'sent', '', if(status_ = 'deferred', 'throttling.domain', 'recipient.unknown')),
        if(status_ = 'sent', '', if(status_ = 'deferred', 'transient', 'hard')), if(status_ = 'sent', '', 'sender-domain'),
        exp((chance % 1000) / 100.) / 100, '', concat('user', toString(chance % 5000000), '@', provider_, '.example'),
        concat('lane-', toString(domain % 12)), concat('tenant-', toString(intDiv(domain, 2))),
        concat('c', toString(domain), '-', toString(lot), '-', toString(intDiv({{day}}, 3))), concat('s', toString(domain % 50)),
        concat(if(status_ = 'sent', '250 2.0.0 OK  ', '421-4.7.28 Our system has detected an unusual rate of mail '),
            lower(hex(intHash64(number))), ' ', lower(hex(chance)), ' - gsmtp'), '', 1
    FROM (SELECT number, {STREAM} FROM numbers({{rows}}))
"""
FLOWS = 400 * 12 * 12
"""On a day: the lot of a campaign says which of the two hosts."""
SUMS = f"""
    INSERT INTO daily SELECT toDate({{begin}} + 3600, 'UTC'), {{begin}}, provider_, concat('shop-', toString(domain), '.example'),
        concat('lane-', toString(domain % 12)), concat('mx', toString((domain * 7 + lot % 2) % 300)),
        concat('tenant-', toString(intDiv(domain, 2))), concat('c', toString(domain), '-', toString(lot), '-', toString(intDiv({{day}}, 3))),
        concat('s', toString(domain % 50)), if(kind = 0, '', concat(provider_, '/rate')), if(kind = 0, '', 'throttling.domain'),
        if(kind = 0, '', 'transient'), ['sent', 'deferred', 'bounced'][kind + 1], concat('mx', toString((domain * 7 + lot % 2) % 300), '/1'),
        {", ".join(["toInt64(chance % 97)"] * (len(MEASURES) + 1))}
    FROM (
        SELECT number % 3 AS kind, intDiv(number, 3) % 400 AS domain, intDiv(number, 1200) % 12 AS lot, intHash32(number) AS chance,
            ['google', 'microsoft', 'yahoo', 'apple', 'gmx', 'comcast', 'orange', 'a', 'b', 'c', 'd', 'e'][intDiv(number, 14400) + 1] AS provider_
        FROM numbers({FLOWS * 3})
    )
"""


def timed(what: str, number: float, run: float) -> None:
    print(f"{what:<58} {number:>12,.0f} in {run:6.1f} s  {number / run:>10,.0f}/s", flush=True)


def events(server: HttpServer, number: int) -> None:
    rows = number // DAYS
    began = time.perf_counter()
    for day in range(DAYS):
        server.run(EVENTS.format(begin=BEGIN + day * DAY, day=day, rows=rows, first=day * rows + 1))
    took = time.perf_counter() - began
    timed("events made and inserted on the server, with all views", rows * DAYS, took)
    rate = rows * DAYS / took
    print(
        f"  at that rate a billion take {BILLION / rate / 3600:.1f} h; a billion in {DAYS} days are {BILLION / DAYS / DAY:.0f}/s,"
        f" {BILLION / DAYS / DAY / rate:.2%} of it"
    )
    for table in ("attempt", "named", "hourly", "daily"):
        for (partition,) in server.rows(
            "SELECT DISTINCT partition FROM system.parts WHERE database = 'sidecar' AND active AND table = ?", (table,)
        ):
            name = f"'{partition}'" if "-" in partition else partition
            server.run(f"OPTIMIZE TABLE {table} PARTITION {name} FINAL")
    whole = 0.0
    for table, size, count in server.rows(
        "SELECT table, sum(bytes), sum(rows) FROM system.parts WHERE database = 'sidecar' AND active GROUP BY table ORDER BY table"
    ):
        whole += size / (rows * DAYS)
        print(
            f"  {table:<8} {count:>12,} rows {size / (rows * DAYS):>7.1f} bytes an event, {size / (rows * DAYS) * BILLION / 1e9:>6.0f} GB a billion"
        )
    print(
        f"  all      {'':>12}      {whole:>7.1f} bytes an event, {whole * BILLION / 1e9:>6.0f} GB a billion", flush=True
    )


def one_host(server: HttpServer, directory: Path, number: int) -> None:
    store = Store.open(directory / "core.db")
    for begin in range(0, number, 10_000):
        store.commit(
            Commit(attempts=[attempt(queue_id=f"4{n:010}", recipient=f"user{n}@gmail.com", reply=f"250 2.0.0 OK {n} - gsmtp", campaign=f"c{n % 500}")
                             for n in range(begin, begin + 10_000)])
        )  # fmt: skip
    store.close()
    shipper = Shipper(directory / "core.db", server, "bench", days=100_000)
    began, worked = time.perf_counter(), time.process_time()
    while shipper.step(now=time.time()).waiting:
        pass
    timed("events of one host, from its core.db over HTTP", number, time.perf_counter() - began)
    print(
        f"  processor time of the outside process: {(time.process_time() - worked) / number * 1e6:.1f} µs an event",
        flush=True,
    )


def reports(server: HttpServer) -> None:
    server.run("TRUNCATE TABLE daily")
    for day in range(DAYS):
        server.run(SUMS.format(begin=BEGIN + day * DAY, day=day))
    (rows,) = server.rows("SELECT count() FROM daily")[0]
    print(f"daily sums as of a billion events in {DAYS} days, {FLOWS:,} flows a day: {rows:,} rows")
    history = ServerHistory(server)
    plain = Selection(BEGIN, BEGIN + DAYS * DAY, ("provider",))
    for name, selection in {
        "by provider": plain,
        "by campaign": plain._replace(by=("campaign",), whole=True),
        "by tenant,provider where provider = google": plain._replace(by=("tenant", "provider"), where=where("provider = google"), whole=True),
        "by rule": plain._replace(by=("rule",), whole=True),
    }.items():  # fmt: skip
        took = []
        for _ in range(5):
            began = time.perf_counter()
            history.sums(selection)
            took.append(time.perf_counter() - began)
        print(f"  sums {name:<46} first {took[0]:5.2f} s, then {statistics.median(took[1:]):5.2f} s", flush=True)
    for name, by in {"provider": ("provider",), "campaign": ("campaign",)}.items():
        took = []
        for _ in range(3):
            began = time.perf_counter()
            made = make(history, None, plain._replace(by=by), now=float(BEGIN + DAYS * DAY))
            took.append(time.perf_counter() - began)
        print(
            f"  the whole report of {DAYS} days by {name:<25} first {took[0]:5.2f} s, then {statistics.median(took[1:]):5.2f} s,"
            f" {len(made.rows):,} rows",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--host-events", type=int, default=200_000)
    wanted = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        private_server(Path(name)) as debian,
        closing(debian.client()) as server,
    ):
        server.patience = 3600.0
        server.create()
        emptied(server)
        one_host(server, Path(name), wanted.host_events)
        emptied(server)
        events(server, wanted.events)
        reports(server)


if __name__ == "__main__":
    main()
