"""The status page at the size of a large site: how long each view takes, with 10,000 live sub-queues and full stores.

    benchmarks/page.py [--subqueues 10000] [--domains 2000] [--times 30]

Prints the median and the worst of each view over HTTP, how long a scrape of /metrics takes meanwhile, and the memory.
The stores hold a day of sums by provider and domain, what the feeds tell of each domain, and a month of changes.
"""

import argparse
import resource
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from parsers.observation import Observation, Outcome  # after the path
from policies.cadence import Standing  # as above
from policies.commands import Change  # as above
from policies.figures import Kind  # as above
from sidecar.incident_store import IncidentStore  # as above
from sidecar.store import Store  # as above
from sidecar.store_rows import Commit  # as above
from tests import page_world as world  # as above
from tests.page_world import NOW, STATUS, at_some_port, config, served  # as above

VIEWS = ("/", "/?sort=key&page=100", "/?q=d04&state=paused", "/domains", "/domains?sort=put-off", "/addresses", "/feeds",
         "/incidents", "/incident/5", "/audit", "/audit?by=hand", "/domain/d00042.example",
         "/subqueue/dkim-domain%3Ad00042.example%40google", "/search?q=4hXr5T1xZkz9qKd")  # fmt: skip
BAR = 0.1
"""Seconds a view may take."""


def fill(directory: Path, *, domains: int, changes: int) -> None:
    world.filled(directory)
    store = Store.open(directory / "core.db")
    for first in range(0, changes, 50_000):
        made = [
            Change(NOW - (changes - number) * 2.5, f"dkim-domain:d{number % 10_000:05}.example@google", "held", "paused",
                   "pause of 300 s", "", "google/rate-dkim-domain", "ann" if number % 5000 == 0 else "engine", 7)
            for number in range(first, min(first + 50_000, changes))
        ]  # fmt: skip
        store.commit(Commit(changes=made))
    store.close()
    outside = IncidentStore.open(directory / "outside.db")
    newest = int(NOW) // 3600 * 3600
    rows = [
        (3600, newest - hour * 3600, str(Kind.DOMAIN), f"d{number:05}.example", 900, 880, 15, 5, 2, 0, 0, 0)
        for hour in range(24)
        for number in range(domains)
    ]
    with outside.database.transaction():
        outside.database.connection.executemany("INSERT INTO tally VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    told = [
        Observation("authentication", f"d{number:05}.example", measure, Outcome.OK, 1.0, "")
        for number in range(domains)
        for measure in ("requirement.SPF", "requirement.DKIM", "requirement.DMARC_POLICY", "requirement.DNS_RECORDS")
    ]
    outside.polls.polled("authentication", Standing(asked_at=NOW, told_at=NOW, since=NOW), told, [], now=NOW)
    outside.close()


def subqueues(number: int) -> list[dict[str, object]]:
    row = STATUS["subqueues"][0]
    return [
        {**row, "key": f"dkim-domain:d{each:05}.example@google", "held": each % 977, "state": ("paused", "ramping", "probing")[each % 3]}
        for each in range(number)
    ]  # fmt: skip


def get(url: str) -> float:
    began = time.perf_counter()
    with urllib.request.urlopen(url, timeout=60) as answer:  # our own server
        answer.read()
    return time.perf_counter() - began


def measured(url: str, times: int) -> list[float]:
    get(url)
    return [get(url) for _ in range(times)]


def scrapes_meanwhile(url: str, busy: Sequence[str], seconds: float) -> list[float]:
    """How long /metrics takes while four visitors ask for page after page."""
    stop = threading.Event()

    def visits(path: str) -> None:
        while not stop.is_set():
            get(url + path)

    visitors = [threading.Thread(target=visits, args=(path,)) for path in busy]
    for visitor in visitors:
        visitor.start()
    until, found = time.monotonic() + seconds, []
    while time.monotonic() < until:
        found.append(get(f"{url}/metrics"))
        time.sleep(0.05)
    stop.set()
    for visitor in visitors:
        visitor.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subqueues", type=int, default=10_000)
    parser.add_argument("--domains", type=int, default=2_000)
    parser.add_argument("--changes", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=30)
    chosen = parser.parse_args()
    answer = {**STATUS, "subqueues": subqueues(chosen.subqueues)}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        fill(directory, domains=chosen.domains, changes=chosen.changes)
        size = sum(file.stat().st_size for file in directory.iterdir()) / 1e6
        print(
            f"{chosen.subqueues} sub-queues, {chosen.domains} domains, {chosen.changes} changes, stores of {size:.0f} MB"
        )
        with served(at_some_port(config(directory)), {"status": lambda _: answer, "metrics": lambda _: {}}) as page:
            print(f"{'view':50} {'median ms':>10} {'worst ms':>10}")
            slow = []
            for path in VIEWS:
                taken = measured(page.url + path, chosen.times)
                print(f"{path:50} {statistics.median(taken) * 1e3:10.1f} {max(taken) * 1e3:10.1f}")
                slow += [path] if statistics.median(taken) > BAR else []
            scrapes = scrapes_meanwhile(page.url, VIEWS[:4], 10.0)
            print(
                f"{'/metrics while four ask for pages':50} {statistics.median(scrapes) * 1e3:10.1f} {max(scrapes) * 1e3:10.1f}"
            )
        print(
            f"memory of all in one process, its simulated core too: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB"
        )
        print(f"over {BAR * 1e3:.0f} ms: {', '.join(slow) or 'none'}")


if __name__ == "__main__":
    main()
