"""Reading the log and keeping what it said, killed at any moment: every line counts once."""

import gzip
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

from policies.commands import Attempt
from sidecar.store import Store

READER = """
import asyncio, contextlib, json, os, sys
from pathlib import Path
from sidecar.log_source import follow
from policies.commands import Attempt
from sidecar.store import Commit, Store

async def main(database, log, row):
    store = Store.open(Path(database))
    count = store.connection.execute("SELECT count(*) FROM attempt").fetchone()[0]
    os.write(1, b"%d\\n" % count)
    async with contextlib.aclosing(follow(log, start=store.checkpoint(log), from_end=False)) as batches:
        async for batch in batches:
            attempts = [Attempt(*row)._replace(queue_id=line.decode()) for line in batch.lines]
            store.commit(Commit(checkpoint=batch.position, attempts=attempts))
            if batch.gap:
                os.write(1, b"gap\\n")
            count += len(attempts)
            os.write(1, b"%d\\n" % count)

asyncio.run(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
"""

ROW = Attempt(5.0, "mx1", "postfix", "", "e.org", "g.com", "google", "", "2.0.0", "sent", "", "", "", "", 0.1, "")


class Writer:
    """A mail log that grows and is rotated."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written = 0

    def write(self, count: int) -> None:
        with self.path.open("a") as file:
            file.writelines(f"line {number}\n" for number in range(self.written, self.written + count))
        self.written += count

    def shift(self) -> None:
        for number in range(20, 0, -1):
            for suffix in ("", ".gz"):
                old = self.path.with_name(f"mail.log.{number}{suffix}")
                if old.exists():
                    old.rename(self.path.with_name(f"mail.log.{number + 1}{suffix}"))

    def rename(self) -> None:
        self.shift()
        self.path.rename(self.path.with_name("mail.log.1"))

    def copy_and_truncate(self) -> None:
        self.shift()
        shutil.copyfile(self.path, self.path.with_name("mail.log.1"))
        os.truncate(self.path, 0)

    def compress(self) -> None:
        plain = self.path.with_name("mail.log.1")
        made = plain.with_name("mail.log.1.gz")
        made.write_bytes(gzip.compress(plain.read_bytes()))
        os.utime(made, ns=(plain.stat().st_atime_ns, plain.stat().st_mtime_ns))
        plain.unlink()


def test_killed_at_any_moment_while_the_log_is_rotated(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "mail.log")
    database = tmp_path / "core.db"
    command = [sys.executable, "-c", READER, str(database), str(writer.path), json.dumps(ROW)]
    chance = random.Random(11)
    steps = [writer.rename, writer.copy_and_truncate, writer.rename, writer.compress]
    for step in [*steps, *steps, None]:
        writer.write(chance.randrange(1, 3000))
        wanted = writer.written if step is None else chance.randrange(writer.written)
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent) as child:
            assert child.stdout
            for said in child.stdout:
                assert said != b"gap\n"
                if int(said) >= wanted:
                    break
            writer.write(5)
            child.kill()
        if step:
            step()
    store = Store.open(database)
    lines = [row.queue_id for row in store.attempts(0, 10**6)]
    for table in ("hourly", "daily"):
        query = f"SELECT dimension, sum(sent) FROM {table}_value GROUP BY dimension"  # noqa: S608  # ours
        assert {number for _, number in store.connection.execute(query)} == {len(lines)}
    store.close()
    assert lines == [f"line {number}" for number in range(len(lines))]
    assert writer.written - 5 <= len(lines) <= writer.written
