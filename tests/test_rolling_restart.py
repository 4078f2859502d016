"""An upgrade of a fleet, host by host, while mail is held: each core is stopped and started, and none of it moves."""

import asyncio
import contextlib
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.control import CoreUnreachable, ask_core
from tests.mail_host_world import MailHost, mail_host_of, running, submit, until
from tests.redis_world import Server
from tests.test_queue_helper import Exchanger

pytestmark = pytest.mark.postfix

KEY = "sender-domain:snd.example@google"


@pytest.fixture
def directory() -> Iterator[Path]:
    """One that user postfix may enter, which pytest's own is not."""
    made = Path(tempfile.mkdtemp(prefix="rolling-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def status(host: MailHost) -> dict[str, Any]:
    return ask_core(host.directory / "control", {"command": "status"}, timeout=60.0)


def may_go_on(host: MailHost, core: subprocess.Popen[bytes]) -> bool:
    """What docs/ansible/roles/sidecar waits for before it goes to the next host."""
    assert core.poll() is None, (host.directory / "said").read_text()
    try:
        said = status(host)
    except CoreUnreachable:
        return False
    fleet = said["fleet"]
    return bool(
        said["helper"]["reachable"]
        and said["log"]["followed"]
        and said["log"]["lag_s"] < 60
        and not fleet["silent"]
        and fleet["rounds"] > 1
    )


def queue(host: MailHost) -> set[tuple[str, str]]:
    return {(each.queue_id, each.queue_name) for each in host.mail.postqueue()}


def test_held_mail_stays_where_it_is_through_a_rolling_restart(directory: Path) -> None:
    with Exchanger() as exchanger, contextlib.ExitStack() as stack:
        threading.Thread(target=exchanger.serve_forever, daemon=True).start()
        stack.callback(exchanger.shutdown)
        redis = Server(directory)
        asyncio.run(redis.start())
        stack.callback(redis.kill)
        hosts = [
            stack.enter_context(mail_host_of(directory / name, exchanger.server_address[1], more(directory / name)))
            for name in ("mx1", "mx2")
        ]
        for host in hosts:
            host.config.write_text(
                f'mode = "act"\npolicy.listen = ["unix:{host.directory}/policy"]\n'
                + host.config.read_text().replace("[store]\n", f'[store]\nredis = "{redis.url}"\n')
            )
        cores = [stack.enter_context(contextlib.ExitStack()) for _ in hosts]
        for host, core in zip(hosts, cores, strict=True):
            process = core.enter_context(running(host.config, "core"))
            until(lambda host=host, process=process: may_go_on(host, process))  # type: ignore[misc]
        for host, count in zip(hosts, (4, 3), strict=True):
            submit(host, count)
            until(lambda host=host, count=count: host.deferred() == count)  # type: ignore[misc]
        ask_core(hosts[0].directory / "control", {"command": "subqueue", "do": "pause", "key": KEY, "seconds": 3600})
        until(lambda: [host.on_hold() for host in hosts] == [4, 3])  # the other one by the fleet's word
        before = [queue(host) for host in hosts]

        for host, core in zip(hosts, cores, strict=True):
            core.close()
            process = core.enter_context(running(host.config, "core"))
            until(lambda host=host, process=process: may_go_on(host, process))  # type: ignore[misc]
            assert status(host)["held_total"] == len(queue(host))
            assert [queue(each) for each in hosts] == before
        until(lambda: status(hosts[0])["fleet"]["held_total"] == 7)

        assert all("released from hold" not in host.mail.maillog.read_text() for host in hosts)
        assert exchanger.taken.empty()  # nothing was let go early
        exchanger.refusing = False
        ask_core(hosts[1].directory / "control", {"command": "subqueue", "do": "close", "key": KEY})
        until(lambda: exchanger.taken.qsize() == 7)  # and nothing was lost, or is there twice
        until(lambda: [queue(host) for host in hosts] == [set(), set()])
        assert exchanger.taken.qsize() == 7


def more(directory: Path) -> str:
    return f'[fleet]\nhost = "{directory.name}"\n[log]\nsource = "{directory}/postfix/mail.log"\n'
