"""The outbox: nothing lost, nothing said twice, whenever the process dies and whatever the other side answers."""

import asyncio
import functools
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from parsers.feeds.dnsbl import Severity
from policies.channels import alertmanager
from policies.channels.receipt import Receipt, Result
from policies.conditions import CONDITIONS, Alert, Turn
from policies.figures import Kind
from policies.incidents import Incident, Incidents
from policies.note import Note, NoteKind
from sidecar import outbox as outbox_module
from sidecar.channels import Channel
from sidecar.config import ChannelConfig, ChannelKind
from sidecar.database import StoreUnavailable
from sidecar.incident_store import ChannelState, IncidentStore, Looked, Posted
from sidecar.outbox import Outbox
from tests.alert_world import KEY, TOKEN, Alertmanager, PagerDuty, Slack, note
from tests.outside_world import Response, http_server


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Iterator[IncidentStore]:
    store = IncidentStore.open(tmp_path / "outside.db")
    yield store
    store.close()


def written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def slack(directory: Path, url: str, name: str = "chat", path: str = "services/T0/B0/x") -> Channel:
    file = written(directory / f"{name}.url", f"{url}/{path}")
    return Channel(ChannelConfig(name, ChannelKind.SLACK, url_file=file), "mx7")


def bot(directory: Path, url: str) -> Channel:
    file = written(directory / "token", TOKEN)
    config = ChannelConfig("chat", ChannelKind.SLACK, token_file=file, channel="C0123456789", url=f"{url}/api")
    return Channel(config, "mx7")


def pagerduty(directory: Path, url: str) -> Channel:
    file = written(directory / "key", KEY)
    return Channel(ChannelConfig("pager", ChannelKind.PAGERDUTY, routing_key_file=file, url=url), "mx7")


def no_incidents() -> list[Incident]:
    return []


def outbox(store: IncidentStore, *channels: Channel, unsure: Callable[[int], Note | None] = lambda _: None) -> Outbox:
    return Outbox(store, channels, incidents=no_incidents, unsure=unsure, backoff=0.01)


def post(store: IncidentStore, out: Outbox, *notes: Note, at: float = 0.0) -> None:
    store.looked(Looked(posts=[(each, out.wanting(each)) for each in notes]), now=at or time.time())


def drain(store: IncidentStore, out: Outbox, *channels: Channel, rounds: int = 10) -> None:
    """Send until nothing is left that may be sent now; what waits for its time is hurried."""
    for _ in range(rounds):
        for channel in channels:
            while out.send_next(channel) is None:
                pass
            store.hurry(channel.name)


def states(store: IncidentStore) -> list[tuple[str, str, str]]:
    return [(each.channel, str(each.kind), each.state) for each in reversed(store.posted())]


def test_one_message_a_change_in_one_thread(store: IncidentStore, tmp_path: Path) -> None:
    world = Slack()
    with http_server(world) as server:
        channel = bot(tmp_path, server.url)
        out = outbox(store, channel)
        post(store, out, note(), note(NoteKind.WORSE), note(incident=2), note(NoteKind.RESOLVED))
        drain(store, out, channel)
        # The thread is known also to the next process.
        again = outbox(store, channel)
        post(store, again, note(NoteKind.RESOLVED, 2))
        drain(store, again, channel)
    assert [body.get("thread_ts") for body in world.taken] == [None, "1.1", None, "1.1", "3.1"]


def test_a_pager_hears_of_one_incident(store: IncidentStore, tmp_path: Path) -> None:
    world = PagerDuty()
    with http_server(world) as server:
        channel = pagerduty(tmp_path, server.url)
        out = outbox(store, channel)
        post(store, out, note(), note(NoteKind.WORSE), note(NoteKind.AGAIN), note(NoteKind.ACKED))
        drain(store, out, channel)
        assert (world.pages, list(world.open.values())) == (1, ["acknowledged"])
        post(store, out, note(NoteKind.RESOLVED))
        drain(store, out, channel)
    assert (world.pages, world.open) == (1, {})


@pytest.mark.parametrize(
    "trouble",
    [
        [Response(429, b"", (("Retry-After", "0"),))],
        [Response(500, b"rollup_error"), Response(503)],
        [Response(429), Response(500), Response(502), Response(429)],
    ],
)
def test_what_was_certainly_not_taken_is_sent_again(
    store: IncidentStore, tmp_path: Path, trouble: list[Response | None]
) -> None:
    world = Slack(script=trouble)
    with http_server(world) as server:
        channel = slack(tmp_path, server.url)
        out = outbox(store, channel)
        post(store, out, note(), note(NoteKind.RESOLVED))
        drain(store, out, channel)
    assert [body["text"][:10] for body in world.taken] == ["[FIRING] c", "[RESOLVED]"]
    assert {state for *_, state in states(store)} == {"sent"}


def test_retry_after_is_honoured(store: IncidentStore, tmp_path: Path) -> None:
    world = Slack(script=[Response(429, b"", (("Retry-After", "70"),))])
    with http_server(world) as server:
        channel = slack(tmp_path, server.url)
        out = outbox(store, channel)
        post(store, out, note(), note(NoteKind.RESOLVED))
        assert out.send_next(channel) is None
        wait = out.send_next(channel)
    assert wait is not None
    assert 60 < wait <= 70
    assert world.taken == []


def test_slack_is_asked_once_a_second(store: IncidentStore, tmp_path: Path) -> None:
    world = Slack(per_second=1)

    async def story(url: str) -> None:
        channel, done = slack(tmp_path, url), asyncio.Event()
        loop, sent = asyncio.get_running_loop(), list[Result]()

        def told(_: str, result: Result) -> None:
            sent.append(result)
            if len(sent) == 3:
                loop.call_soon_threadsafe(done.set)

        out = Outbox(store, [channel], incidents=no_incidents, unsure=lambda _: None, told=told)
        post(store, out, *(note(incident=number, title=f"number {number}") for number in range(1, 4)))
        running = asyncio.create_task(out.run())
        await asyncio.wait_for(done.wait(), 60)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert sent == [Result.SENT] * 3

    with http_server(world) as server:
        asyncio.run(story(server.url))
    assert [body["text"].rpartition(" ")[2] for body in world.taken] == list("123")


@pytest.mark.parametrize("error", ["no_service", "invalid_token", "channel_is_archived", "invalid_blocks"])
def test_a_broken_channel_falls_back_to_the_next_and_says_so(store: IncidentStore, tmp_path: Path, error: str) -> None:
    broken, well = Slack(), Slack()
    with http_server(broken) as one, http_server(well) as two:
        channels = slack(tmp_path, one.url, "chat", f"services/{error}"), slack(tmp_path, two.url, "spare")
        only_first = channels[1]._replace(
            config=ChannelConfig("spare", ChannelKind.SLACK, ("info",), url_file=channels[1].config.url_file)
        )
        channels = channels[0], only_first
        out = outbox(store, *channels)
        post(store, out, note(), note(NoteKind.RESOLVED))
        drain(store, out, *channels)
        assert len(one.requests) == 1  # known to be broken, it is not asked again for a while
    assert len(well.taken) == 2
    assert f"channel chat: answers {error_status(error)} {error}" in str(well.taken[0]["blocks"])
    assert store.channel("chat").broken_since > 0
    assert store.channel("spare") == ChannelState()
    assert [state for channel, _, state in states(store) if channel == "chat"] == ["failed", "failed"]


def error_status(error: str) -> int:
    return {"no_service": 404, "invalid_token": 403, "channel_is_archived": 410, "invalid_blocks": 400}[error]


def test_the_only_channel_is_tried_again_when_it_was_repaired(store: IncidentStore, tmp_path: Path) -> None:
    world = Slack()
    with http_server(world) as server:
        channel = slack(tmp_path, server.url, path="services/no_service")
        out = outbox(store, channel)
        post(store, out, note())
        assert out.send_next(channel) is None
        assert states(store) == [("chat", "opened", "queued")]
        slack(tmp_path, server.url)  # the file has the right URL now
        out.works("chat")
        drain(store, out, channel)
    assert len(world.taken) == 1
    assert store.channel("chat").broken_since == 0


def test_a_channel_that_cannot_be_reached_for_long_is_stood_in_for(store: IncidentStore, tmp_path: Path) -> None:
    well = Slack()
    with http_server(well) as server:
        away, spare = pagerduty(tmp_path, "http://127.0.0.1:1"), slack(tmp_path, server.url, "spare")
        spare = spare._replace(
            config=ChannelConfig("spare", ChannelKind.SLACK, ("info",), url_file=spare.config.url_file)
        )
        out = outbox(store, away, spare)
        post(store, out, note())
        drain(store, out, away, spare, rounds=3)
        assert well.taken == []
        post(store, out, note(incident=2), at=time.time() - outbox_module.HAND_ON_AFTER - 1)
        store.done(1, "dropped", now=0.0)
        drain(store, out, away, spare, rounds=3)
    assert len(well.taken) == 1
    assert "no answer" in str(well.taken[0])


def test_a_channel_that_was_taken_away_leaves_nothing_behind(store: IncidentStore, tmp_path: Path) -> None:
    out = outbox(store, slack(tmp_path, "http://127.0.0.1:1"))
    post(store, out, note())
    outbox(store).recover()
    assert states(store) == [("chat", "opened", "dropped")]


# No answer: nobody knows.


def test_without_an_answer_another_channel_says_it(store: IncidentStore, tmp_path: Path) -> None:
    first, second = Slack(script=[None]), Slack()
    with http_server(first) as one, http_server(second) as two:
        channel = slack(tmp_path, one.url)
        spare = slack(tmp_path, two.url, "spare")
        spare = spare._replace(
            config=ChannelConfig("spare", ChannelKind.SLACK, ("info",), url_file=spare.config.url_file)
        )
        out = outbox(store, channel, spare)
        post(store, out, note())
        drain(store, out, channel, spare)
        assert len(one.requests) == 1
    assert states(store) == [("chat", "opened", "unsure"), ("spare", "opened", "sent")]
    assert "it may have arrived" in str(second.taken[0])


@pytest.mark.parametrize("still", [True, False])
def test_without_another_channel_a_later_message_says_that_it_goes_on(
    store: IncidentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, still: bool
) -> None:
    monkeypatch.setattr(outbox_module, "UNSURE_AFTER", 0.0)
    world = Slack(script=[None])
    with http_server(world) as server:
        channel = slack(tmp_path, server.url)
        out = outbox(store, channel, unsure=lambda number: note(NoteKind.UNSURE, number) if still else None)
        post(store, out, note())
        drain(store, out, channel)
    assert [body["text"] for body in world.taken] == ["[STILL FIRING] critical: a.example is unwell"] * still
    assert [state for *_, state in states(store)] == ["unsure", "sent" if still else "dropped"]


def test_what_is_made_for_later_holds_nothing_up(store: IncidentStore, tmp_path: Path) -> None:
    world = Slack(script=[None])
    with http_server(world) as server:
        channel = slack(tmp_path, server.url)
        out = outbox(store, channel)
        post(store, out, note(), note(NoteKind.RESOLVED))
        drain(store, out, channel)
    assert [body["text"][:10] for body in world.taken] == ["[RESOLVED]"]


def test_a_pager_is_asked_again_for_it_knows_the_event(store: IncidentStore, tmp_path: Path) -> None:
    world = PagerDuty(script=[None, Response(503)])
    with http_server(world) as server:
        channel = pagerduty(tmp_path, server.url)
        out = outbox(store, channel)
        post(store, out, note())
        drain(store, out, channel)
    assert (world.pages, states(store)) == (1, [("pager", "opened", "sent")])


# Death at every step.

DIES = """
import os, signal, sys
from sidecar.incident_store import IncidentStore
from sidecar import channels
from tests import test_outbox as t
from pathlib import Path
where, when, which, url, directory = sys.argv[1:]
directory = Path(directory)
owner, name = {"sending": (IncidentStore, "sending"), "send": (channels.Channel, "send"), "done": (IncidentStore, "done")}[where]
whole = getattr(owner, name)
def dies(*args, **more):
    if when == "after":
        whole(*args, **more)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(owner, name, dies)
store = IncidentStore.open(directory / "outside.db")
channel = getattr(t, which)(directory, url)
out = t.outbox(store, channel)
out.recover()
t.drain(store, out, channel)
"""

DEATHS = [(where, when) for where in ("sending", "send", "done") for when in ("before", "after")]


def killed(tmp_path: Path, where: str, when: str, which: str, url: str) -> None:
    command = [sys.executable, "-c", DIES, where, when, which, url, str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, check=False, timeout=60)
    assert done.returncode == -9, done.stderr.decode()


@pytest.mark.parametrize(("where", "when"), DEATHS)
def test_slack_never_hears_twice_and_somebody_hears(tmp_path: Path, where: str, when: str) -> None:
    first, second = Slack(), Slack()
    with ExitStack() as stack:
        one, two = stack.enter_context(http_server(first)), stack.enter_context(http_server(second))
        channel = slack(tmp_path, one.url)
        store = IncidentStore.open(tmp_path / "outside.db")
        post(store, outbox(store, channel), note())
        store.close()
        killed(tmp_path, where, when, "slack", one.url)

        spare = slack(tmp_path, two.url, "spare")
        spare = spare._replace(
            config=ChannelConfig("spare", ChannelKind.SLACK, ("info",), url_file=spare.config.url_file)
        )
        store = IncidentStore.open(tmp_path / "outside.db")
        out = outbox(store, channel, spare)
        out.recover()
        drain(store, out, channel, spare)
        store.close()
    assert len(first.taken) <= 1
    assert len(first.taken) + len(second.taken) >= 1
    sure = (where, when) in {("sending", "before"), ("done", "after")}
    assert (len(first.taken), len(second.taken)) == (1, 0) or not sure


@pytest.mark.parametrize(("where", "when"), DEATHS)
def test_a_pager_rings_once(tmp_path: Path, where: str, when: str) -> None:
    world = PagerDuty()
    with http_server(world) as server:
        channel = pagerduty(tmp_path, server.url)
        store = IncidentStore.open(tmp_path / "outside.db")
        post(store, outbox(store, channel), note())
        store.close()
        killed(tmp_path, where, when, "pagerduty", server.url)

        store = IncidentStore.open(tmp_path / "outside.db")
        out = outbox(store, channel)
        out.recover()
        drain(store, out, channel)
        assert states(store) == [("pager", "opened", "sent")]
        store.close()
    assert (world.pages, list(world.open.values())) == (1, ["triggered"])


def test_a_channel_that_hangs_makes_no_other_one_wait(store: IncidentStore, tmp_path: Path) -> None:

    release, hanging, well = threading.Event(), Slack(), Slack()
    hanging.before = functools.partial(release.wait, 60)
    sent: list[tuple[str, Result]] = []

    async def story(one: str, two: str) -> None:
        channels = slack(tmp_path, one), slack(tmp_path, two, "spare")
        heard = asyncio.Event()
        loop = asyncio.get_running_loop()

        def told(name: str, result: Result) -> None:
            sent.append((name, result))
            loop.call_soon_threadsafe(heard.set)

        out = Outbox(store, channels, incidents=no_incidents, unsure=lambda _: None, told=told)
        post(store, out, note())
        running = asyncio.create_task(out.run())
        await asyncio.wait_for(heard.wait(), 60)
        assert sent == [("spare", Result.SENT)]
        running.cancel()  # stopping waits for what is on its way, and records it
        release.set()
        await asyncio.gather(running, return_exceptions=True)

    with http_server(hanging) as one, http_server(well) as two:
        asyncio.run(story(one.url, two.url))
    assert states(store) == [("chat", "opened", "sent"), ("spare", "opened", "sent")]


def test_alertmanager_is_told_again_and_when_it_is_over(store: IncidentStore) -> None:
    world, made = Alertmanager(), Incidents()
    alert = Alert("k", "hard-bounces", "log", "a.example", Kind.DOMAIN, "m", True, Severity.ERROR, fired_at=time.time())
    made.turned(alert, Turn.FIRED, CONDITIONS[0], now=time.time())
    with http_server(world) as server:
        channel = Channel(ChannelConfig("am", ChannelKind.ALERTMANAGER, url=server.url), "mx7")
        out = Outbox(store, [channel], incidents=made.all, unsure=lambda _: None)
        post(store, out, *made.take()[1])
        assert out.send_next(channel) is None
        for _ in range(3):
            out._repeated.clear()
            assert out.send_next(channel) == alertmanager.EVERY
        wait = out.send_next(channel)
        assert wait is not None
        assert 50 < wait <= alertmanager.EVERY
        made.turned(
            alert._replace(firing=False, resolved_at=time.time()), Turn.RESOLVED, CONDITIONS[0], now=time.time()
        )
        out._repeated.clear()
        out.send_next(channel)
    assert world.posts == 5
    assert world.alerts["k"]["endsAt"] <= datetime.now(UTC).isoformat()


def test_an_alertmanager_that_is_away_for_long_is_broken(store: IncidentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Incidents()
    alert = Alert("k", "hard-bounces", "log", "a.example", Kind.DOMAIN, "m", True, Severity.ERROR, fired_at=time.time())
    made.turned(alert, Turn.FIRED, CONDITIONS[0], now=time.time())
    channel = Channel(ChannelConfig("am", ChannelKind.ALERTMANAGER, url="http://127.0.0.1:1"), "mx7")
    out = Outbox(store, [channel], incidents=made.all, unsure=lambda _: None)
    out.send_next(channel)
    assert store.channel("am").broken_since == 0
    monkeypatch.setattr(outbox_module, "HAND_ON_AFTER", 0.0)
    out._repeated.clear()
    out.send_next(channel)
    assert store.channel("am").broken_since > 0


def test_a_store_that_is_busy_for_a_moment_forgets_nothing(
    store: IncidentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "RECORD_WAIT", 0.0)
    whole, refusals = store.done, [StoreUnavailable("locked")] * 3

    def busy(*arguments: Any, **more: Any) -> None:
        if refusals:
            raise refusals.pop()
        whole(*arguments, **more)

    monkeypatch.setattr(store, "done", busy)
    world = Slack()
    with http_server(world) as server:
        channel = slack(tmp_path, server.url)
        out = outbox(store, channel)
        post(store, out, note())
        drain(store, out, channel)
    assert (len(world.taken), states(store)) == (1, [("chat", "opened", "sent")])


def test_nothing_is_sent_that_cannot_be_recorded(
    store: IncidentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise StoreUnavailable("disk full")

    world = Slack()
    with http_server(world) as server:
        channel = slack(tmp_path, server.url)
        out = outbox(store, channel)
        post(store, out, note())
        monkeypatch.setattr(store, "sending", full)
        with pytest.raises(StoreUnavailable):
            out.send_next(channel)
        assert server.requests == []
        monkeypatch.undo()
        drain(store, out, channel)
    assert len(world.taken) == 1


def test_rows_say_what_they_are(store: IncidentStore, tmp_path: Path) -> None:
    out = outbox(store, slack(tmp_path, "http://127.0.0.1:1"))
    made: dict[str, Any] = {"evidence": ("421 4.7.28 \ud800",), "scope": ("domain:a.example",)}
    post(store, out, note(**made))
    (posted,) = store.posted()
    assert isinstance(posted, Posted)
    assert posted.note == note(**made | {"evidence": ("421 4.7.28 \ud800",)})
    assert Receipt(Result.SENT) == Receipt(Result.SENT, "", "")
