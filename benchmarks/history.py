"""A month of a busy site in core's store: how long a report takes, how large the sums are, and the events beside them.

30 days at 5,000,000 messages a day by default: the sums as core would have written them, and as many raw events as
asked for. Each report is a new process, as an admin starts it; its first run after the store was made is left out.
"""

import argparse
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from policies.commands import Attempt, Received
from policies.rollup import ALL, DAY, MEASURES, Flow, Names, Refusal, Rolled, join
from policies.time_to_delivery import BUCKETS
from sidecar.database import Database
from sidecar.history_store import HistoryStore
from sidecar.store import Commit, Store

PROVIDERS = ("google", "microsoft", "yahoo", "microsoft-365", "apple", "gmx", "comcast", "orange", "proofpoint",
             "mimecast", "mail-ru", "qq")  # fmt: skip
SHARES = (35, 18, 12, 10, 6, 5, 4, 3, 3, 2, 1, 1)
REFUSALS = tuple(
    Refusal(f"{provider}/{rule}", detail, bounce, status)
    for provider in PROVIDERS
    for rule, detail, bounce, status in (
        ("rate", "throttling.domain", "transient", "deferred"),
        ("no-such-user", "recipient.unknown", "hard", "bounced"),
        ("spam", "content.spam", "block", "bounced"),
    )
)
BEGIN = 1_767_225_600
"""A midnight, UTC."""


class Site(NamedTuple):
    messages: int
    days: int
    flows: int


def flows(site: Site, chance: random.Random) -> list[Flow]:
    """A day's flows: sending domains with their tenants, lanes, and campaigns of some days."""
    found = []
    for number in range(site.flows):
        domain = number % 400
        provider = chance.choices(PROVIDERS, SHARES)[0]
        campaign = f"c{domain}-{chance.randrange(12)}"
        tenant = f"tenant-{domain // 2}"
        found.append(
            Flow(
                provider, f"shop-{domain}.example", f"lane-{domain % 12:02}", "mx1", tenant, campaign, f"s{domain % 50}"
            )
        )
    return list(dict.fromkeys(found))


def hours(site: Site, chance: random.Random) -> Iterator[Rolled]:
    names: defaultdict[int, Names] = defaultdict(Names)
    for day in range(site.days):
        day_flows = [flow._replace(campaign=f"{flow.campaign}-{day // 3}") for flow in flows(site, random.Random(7))]
        for hour in range(24):
            active = chance.sample(day_flows, len(day_flows) * 2 // 5)
            weights = [chance.paretovariate(1.2) for _ in active]
            scale = site.messages / 24 / sum(weights)
            rolled = Rolled.empty()
            begin = BEGIN + day * DAY + hour * 3600
            for flow, weight in zip(active, weights, strict=True):
                number = max(1, int(weight * scale))
                sums = measured(number, chance)
                rolled.flows[begin, flow] = sums
                for dimension, value in ((ALL, ""), *zip(Flow._fields, flow, strict=True)):
                    known = rolled.values.setdefault((begin, dimension, value), [0] * len(MEASURES))
                    for measure, count in enumerate(sums):
                        known[measure] += count
                first = PROVIDERS.index(flow.provider) * 3
                for refusal in REFUSALS[first : first + 3]:
                    if (refused := int(number * chance.random() * 0.01)) > 0:
                        rolled.refusals[begin, flow, refusal] = refused
            yield join([rolled], names)


def measured(number: int, chance: random.Random) -> list[int]:
    deferred, bounced = int(number * chance.random() * 0.1), int(number * chance.random() * 0.01)
    sent = number - bounced
    within = [0] * BUCKETS
    for bucket, share in ((0, 0.3), (1, 0.4), (2, 0.2), (5, 0.06), (8, 0.03)):
        within[bucket] = int(sent * share)
    within[10] = sent - sum(within)
    return [number, number + deferred, sent, deferred, bounced, bounced // 2, bounced // 3, 0, *within]


def events(number: int, chance: random.Random) -> Iterator[Commit]:
    """Raw events of messages with one recipient, one in ten of them tried twice; committed as core does at full speed."""
    for first in range(0, number, 2_000):
        attempts, received = [], []
        for each in range(first, min(first + 2_000, number)):
            at = BEGIN + each * DAY / 5_000_000
            queue_id, domain = f"4fV{each:010x}zz", f"shop-{each % 400}.example"
            received.append(
                Received(
                    at, "mx1", "postfix", queue_id, f"<{each:x}.{chance.getrandbits(48):x}@{domain}>", f"news@{domain}",
                    18_000, 1, "app.example[198.51.100.7]", f"tenant-{each % 200}",
                )
            )  # fmt: skip
            provider = chance.choices(PROVIDERS, SHARES)[0]
            row = Attempt(
                at + 1, "mx1", "postfix", queue_id, domain, f"{provider}.example", provider,
                f"mx{each % 4}.{provider}.example", "2.0.0", "sent", "", "", "", "", 1.2, "",
                f"user{chance.randrange(10**7)}@{provider}.example", "lane-01", f"tenant-{each % 200}", f"c{each % 900}",
                "s1", f"250 2.0.0 OK  1772438401 d2e1a72fcca58-{chance.getrandbits(60):x}a6f0 - gsmtp", "", 1,
            )  # fmt: skip
            if each % 10 == 0:
                said = f"host {row.relay}[192.0.2.1] said: 421-4.7.28 an unusual rate of mail from your DKIM domain {domain} 421"
                attempts.append(
                    row._replace(
                        status="deferred", dsn="4.7.28", rule="google/rate", detail="throttling.domain", reply=said
                    )
                )
                row = row._replace(first=0)
            attempts.append(row)
        yield Commit(attempts=attempts, received=received)


def megabytes(store: Store, *tables: str) -> float:
    marks = ", ".join("?" * len(tables))
    query = f"SELECT sum(pgsize) FROM dbstat WHERE name IN (SELECT name FROM sqlite_schema WHERE tbl_name IN ({marks}))"
    return (store.connection.execute(query, tables).fetchone()[0] or 0) / 1e6


def report(config: Path, *arguments: str, now: float, runs: int) -> None:
    command = [sys.executable, "-m", "sidecar", "--config", str(config), "report", "--now", str(now), *arguments]
    took, inside, worked = [], [], []
    for _ in range(runs + 1):
        began = time.perf_counter()
        done = subprocess.run([*command, "--timing"], capture_output=True, check=True, text=True)
        took.append(time.perf_counter() - began)
        wall, cpu = map(float, done.stderr.split()[-2:])
        inside.append(wall)
        worked.append(cpu)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(
        f"report {' '.join(arguments):62} {statistics.median(inside[1:]):5.2f} s ({statistics.median(worked[1:]):.2f} s of"
        f" CPU), as a command {statistics.median(took[1:]):5.2f} s; largest process so far {peak:.0f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=5_000_000, help="a day")
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--flows", type=int, default=9_000, help="a day")
    parser.add_argument("--events", type=int, default=1_000_000, help="messages with raw events")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--directory", type=Path, help="keep the store here, and use it if it is there")
    asked = parser.parse_args()
    site = Site(asked.messages, asked.days, asked.flows)
    with tempfile.TemporaryDirectory() as temporary:
        directory = asked.directory or Path(temporary)
        if not (directory / "core.db").exists():
            make(directory / "core.db", site, asked.events)
        store = Store.open(directory / "core.db")
        (rows,) = store.connection.execute("SELECT count(*) FROM hourly").fetchone()
        (day_rows,) = store.connection.execute("SELECT count(*) FROM daily").fetchone()
        hourly, daily = (megabytes(store, table, f"{table}_value", f"{table}_refusal") for table in ("hourly", "daily"))
        raw = megabytes(store, "attempt", "message")
        million = site.messages * site.days / 1e6
        print(f"by the hour: {rows} rows, {hourly:.0f} MB, {hourly / million:.2f} MB a million messages")
        print(f"by the day: {day_rows} rows, {daily:.0f} MB, {daily / million:.2f} MB a million messages")
        if asked.events:
            print(f"events: {raw:.0f} MB for {asked.events} messages, {raw * 1e6 / asked.events:.0f} MB a million")
        store.close()
        config = directory / "sidecar.toml"
        config.write_text(f'[store]\npath = "{directory}"\n')
        now = BEGIN + site.days * DAY - 60.0
        for arguments in (
            ("--last", "24h"),
            ("--last", "7d"),
            ("--last", "30d"),
            ("--last", "30d", "--by", "campaign"),
            ("--last", "30d", "--by", "provider", "--by", "transport"),
            ("--last", "30d", "--by", "rule"),
            ("--last", "30d", "--where", "provider = google and tenant = tenant-7", "--by", "campaign"),
        ):
            report(config, *arguments, now=now, runs=asked.runs)


def make(path: Path, site: Site, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    store = Store.open(path)
    chance = random.Random(3)
    began = time.process_time()
    for commit in events(number, chance):
        store.commit(commit)
    if number:
        print(f"events stored: {number / (time.process_time() - began):.0f} messages a CPU second, sums included")
    for table in ("hourly", "daily", "hourly_value", "daily_value", "hourly_refusal", "daily_refusal", "flow"):
        store.connection.execute(f"DELETE FROM {table}")
    database = Database(store.path, store.connection)
    history = HistoryStore(database)
    for rolled in hours(site, chance):
        with database.transaction():
            history.write(rolled)
    store.close()


if __name__ == "__main__":
    main()
