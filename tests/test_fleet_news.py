"""What hosts tell each other of the suppression list: whatever order they work and read in, they end with the same list."""

from collections import deque
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies.fleet.news import Entry, Hearing, change_text, read_change
from policies.suppression import Add, Change, End, Erase, Listed, Reason

WHO = b"0123456789abcdef"
LISTED = [Listed("global", reason) for reason in (Reason.HARD_BOUNCE, Reason.COMPLAINT)]
ADD = Add(WHO, "a@x.example", LISTED[0], "line", 5.0, "rule", "google", 0.0, 9.0)


@pytest.mark.parametrize(
    "change", [ADD, End(WHO, LISTED[1], 5.0, "root", "she asked"), Erase(WHO, "a@x", True, 5.0, "root")]
)
def test_a_change_is_read_as_it_was_written(change: Change) -> None:
    entry = Entry("store", 7, "mx1", "key", change)
    assert Entry.of(entry.fields()) == entry
    assert read_change(change_text(change).replace('"kind"', '"of_a_newer_version":1,"kind"')) == change


def test_a_long_line_is_cut() -> None:
    change = read_change(change_text(ADD._replace(evidence="x" * 5_000)))
    assert isinstance(change, Add)
    assert len(change.evidence) == 1_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no JSON", "Expecting value"),
        ("[]", "no change"),
        ('{"kind":"grow"}', "'grow', of another version"),
        (change_text(ADD).replace(WHO.hex(), "12"), "wanted 16"),
        (change_text(ADD).replace("global", "nowhere"), "wanted global"),
        (change_text(ADD).replace("hard-bounce", "mood"), "mood"),
        (change_text(ADD).replace("5.0", '"now"'), "wanted seconds since"),
        (change_text(ADD).replace('"line"', "7"), "wanted a text"),
        (change_text(ADD).replace('"since"', '"then"'), "since"),
    ],
)
def test_what_is_no_change_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_change(text)


def test_an_entry_without_its_fields_is_refused() -> None:
    with pytest.raises(ValueError, match="'number'"):
        Entry.of({"origin": "store"})


def test_what_was_missed_is_noticed() -> None:
    hearing = Hearing("ours", {"theirs": 3}, [])
    for origin, number in (("theirs", 3), ("theirs", 4), ("new", 70)):
        hearing.take(Entry(origin, number, "mx2", "", ADD))
    assert not hearing.missed
    hearing.take(Entry("theirs", 6, "mx2", "", ADD))
    assert hearing.missed == {"theirs"}
    hearing = Hearing("ours", {"theirs": 3}, [])
    hearing.ended({"theirs": 3, "unknown": 9})
    assert not hearing.missed
    hearing.ended({"theirs": 4})
    assert hearing.missed == {"theirs"}


class Host:
    """A list that is changed here and by others, and how far the stream was read."""

    def __init__(self, name: str) -> None:
        self.hearing = Hearing(name, {}, [])
        self.list: set[Listed] = set()
        self.unsaid = deque[Entry]()
        self.read = self.count = 0

    def do(self, change: Any) -> None:
        (self.list.add if isinstance(change, Add) else self.list.discard)(change.listed)

    def changes(self, change: Change) -> None:
        self.do(change)
        self.hearing.told(change)
        self.count += 1
        self.unsaid.append(Entry(self.hearing.origin, self.count, "", "", change))

    def reads(self, stream: list[Entry]) -> None:
        if self.read < len(stream):
            change = self.hearing.take(stream[self.read])
            self.read += 1
            if change is not None:
                self.do(change)


steps = st.lists(
    st.tuples(
        st.integers(0, 2), st.sampled_from(["add", "end", "say", "say twice", "read", "read"]), st.integers(0, 1)
    ),
    max_size=60,
)


@given(steps)
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_all_end_with_one_list(steps: list[tuple[int, str, int]]) -> None:
    hosts, stream = [Host(str(number)) for number in range(3)], list[Entry]()

    def say(host: Host) -> None:
        if host.unsaid:
            stream.append(host.unsaid.popleft())

    for number, do, which in steps:
        host = hosts[number]
        match do:
            case "add":
                host.changes(ADD._replace(listed=LISTED[which]))
            case "end":
                host.changes(End(WHO, LISTED[which], 5.0, "root", ""))
            case "say":
                say(host)
            case "say twice":  # the answer was lost
                stream.extend(list(host.unsaid)[:1])
                say(host)
            case _:
                host.reads(stream)
    for host in hosts:
        while host.unsaid:
            say(host)
    for host in hosts:
        while host.read < len(stream):
            host.reads(stream)
    assert hosts[0].list == hosts[1].list == hosts[2].list
    assert not any(host.hearing.missed for host in hosts)
    assert not any(host.hearing._unheard.total() for host in hosts)
