"""Events as other programs write them: what is taken, and what each refusal says."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.ingest_event import EventKind, IngestEvent, read_event, read_items

NOW = 1.8e9
GOOD = {"id": "e1", "kind": "open", "recipient": "A@x.example", "sending_domain": "News.Shop.Example."}


def test_a_whole_event() -> None:
    item = GOOD | {
        "kind": "bounce",
        "time": "2027-01-14T08:00:00Z",
        "campaign": "may",
        "reply": "550 5.1.1 no such user",
    }
    assert read_event(item, now=NOW) == IngestEvent(
        "e1", EventKind.BOUNCE, "A@x.example", 1799913600.0, "news.shop.example", "may", "550 5.1.1 no such user"
    )


def test_what_is_not_said() -> None:
    assert read_event(GOOD, now=NOW) == IngestEvent(
        "e1", EventKind.OPEN, "A@x.example", NOW, "news.shop.example", "", ""
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"id": ""}, "id: missing"),
        ({"id": 7}, "id: found 7, wanted a text"),
        ({"id": "x" * 201}, "id: found 'xxx"),
        ({"kind": "opened"}, "kind: found 'opened', wanted one of complaint, "),
        ({"kind": ["open"]}, "kind: found"),
        ({"recipient": "nobody"}, "recipient: found 'nobody', wanted an address"),
        ({"recipient": "a@b\nx"}, "recipient: found 'a@b\\nx', wanted a text"),
        ({"sending_domain": ""}, "sending_domain: missing"),
        ({"time": 12}, "time: found 12, wanted ISO 8601"),
        ({"time": "yesterday"}, "time: found 'yesterday'"),
        ({"time": NOW + 7_200}, "time: found"),
        ({"time": float("nan")}, "time: found"),
        ({"time": True}, "time: found"),
        ({"kind": "bounce"}, "reply: missing"),
        ({"recipent": "a@x.example"}, "'recipent': unknown field; known are id, recipient, "),
    ],
)
def test_a_refusal_says_the_field_and_what_would_be_right(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        read_event(GOOD | change, now=NOW)
    assert str(refused.value).startswith(said)


def test_an_array_or_lines() -> None:
    assert read_items(b'[{"a": 1}, 2]') == [{"a": 1}, 2]
    assert read_items(b'{"a": 1}\n\n2\r\n') == [{"a": 1}, 2]
    assert read_items(b"") == []
    for body in (b"[", b'{"a": 1}\n{', b"\xff", b"[" * 100_000):
        with pytest.raises(ValueError, match="JSON"):
            read_items(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*GOOD, "time", "reply", "x"]), inner),
    max_leaves=10,
)


@given(JSON | JSON.map(lambda more: {**GOOD, **more} if isinstance(more, dict) else more))
def test_anything_is_an_event_or_a_refusal(item: Any) -> None:
    try:
        event = read_event(item, now=NOW)
    except ValueError:
        return
    assert json.dumps(event)
    assert event.id
    assert "@" in event.recipient


@given(st.binary())
def test_any_body_is_items_or_a_refusal(body: bytes) -> None:
    try:
        read_items(body)
    except ValueError:
        return
