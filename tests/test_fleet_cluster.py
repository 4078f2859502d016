"""Two cores at a Redis in cluster mode, of one node: nothing that they ask names keys of two slots."""

import asyncio
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from policies.fleet.book import Wish
from sidecar.fleet.book_store import BookStore, Changed
from sidecar.fleet.redis_store import RedisStore
from sidecar.lab.private_postfix import PrivatePostfix
from tests.redis_world import cluster_of_one, until
from tests.test_fleet_core import NAMES, PATIENT, postfix, two
from tests.test_fleet_shares import ROW, put, renewal

__all__ = ["postfix"]
pytestmark = [pytest.mark.postfix, pytest.mark.timeout(300)]
ASKED = {
    "eval",
    "get",
    "set",
    "setrange",
    "scan",
    "publish",
    "subscribe",
    "xadd",
    "xread",
    "xrevrange",
    "hset",
    "hgetall",
}
"""Commands; each has been asked for at least once."""


def test_what_hosts_share_is_shared_through_a_cluster_of_one_node(
    tmp_path: Path, postfix: PrivatePostfix
) -> None:  # the fixture
    stream = {"do": "open", "where": "tenant = news", "name": "news", "who": "root"}

    async def scene() -> None:
        async with cluster_of_one(tmp_path) as server, two(tmp_path, postfix, server, "-c", PATIENT) as (one, other):
            key = one.is_refused(1)
            await until(lambda: other.state(key) == "paused")
            answers = [{"domain": "hosted.example", "hosts": ["mx.hoster.example"], "ttl": 300}]
            one.ask("learned-mx", answers=answers)
            await until(lambda: bool(other.ask("fleet-learned", name="hosted.example")["learned"]))
            other.ask("suppress", do="add", who="root", rows=[{"address": "dead@gmail.com"}])
            await until(lambda: one.suppresses("dead@gmail.com"))
            opened = await asyncio.to_thread(lambda: one.ask("subqueue", **stream, host=""))
            assert set(opened["hosts"]) == set(NAMES), opened
            store = RedisStore(server.url)
            read, book = await put(store)
            (told,) = await BookStore(store).change([renewal(read, book, Wish("mx1", ROW, 5))])
            assert isinstance(told, Changed)
            asked = await store.redis.info("commandstats")
            assert {name.removeprefix("cmdstat_") for name in asked} >= ASKED
            failed = {name for name, each in asked.items() if each["failed_calls"] or each["rejected_calls"]}
            assert failed <= {"cmdstat_client", "cmdstat_hello"}, failed  # of the library: older servers lack these
            with pytest.raises(RedisError, match="slot"):  # and it would have been seen
                await store.redis.mget([store.key("a"), store.key("b")])
            assert (await store.redis.info("commandstats"))["cmdstat_mget"]["rejected_calls"] == 1
            await store.close()

    asyncio.run(scene())
