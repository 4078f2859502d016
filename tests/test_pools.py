"""Pools: shares by weight, no mail moved but a member's own, and what is said of members that do not take it."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.pools import Choice, Member, PassedOver, Pool, checked, choose, ranked

FOUR = Pool("bulk", (Member("ip-1"), Member("ip-2", 2.0), Member("ip-3", 4.0), Member("ip-4", 0.5)))
KEYS = [f"4cF{number:05d}" for number in range(20_000)]


def everybody(transport: str, luck: float) -> str:  # noqa: ARG001  # whatever they are
    return ""


def over(pool: Pool, key: str) -> str:
    return choose(pool, key, everybody).transport


def test_shares_are_by_weight() -> None:
    seen = Counter(over(FOUR, key) for key in KEYS)
    for transport, weight in FOUR.members:
        assert seen[transport] / len(KEYS) == pytest.approx(weight / 7.5, abs=0.012)


NAMES = st.lists(st.text("abcdefgh-0123456789", min_size=1, max_size=8), min_size=2, max_size=8, unique=True)


@given(NAMES, st.lists(st.floats(0.01, 100.0), min_size=8, max_size=8), st.text(max_size=20))
def test_a_member_that_comes_or_goes_moves_only_its_own_share(names: list[str], weights: list[float], key: str) -> None:
    members = tuple(map(Member, names, weights))
    before, without = Pool("p", members), Pool("p", members[1:])
    went = over(before, key)
    assert over(without, key) == went or went == members[0].transport
    assert [name for name, _ in ranked(without, key)] == [
        name for name, _ in ranked(before, key) if name != members[0].transport
    ]


@given(NAMES, st.integers(0, 7), st.text(max_size=20))
def test_a_greater_weight_takes_from_others_and_gives_nothing_away(names: list[str], which: int, key: str) -> None:
    which %= len(names)
    plain = Pool("p", tuple(map(Member, names)))
    heavier = Pool("p", tuple(Member(name, 3.0 if i == which else 1.0) for i, name in enumerate(names)))
    assert over(heavier, key) in {over(plain, key), names[which]}


def test_who_is_out_gives_its_mail_to_the_next_choice_and_all_of_it_comes_back() -> None:
    def out(transport: str, luck: float) -> str:  # noqa: ARG001  # out altogether
        return "listed" if transport == "ip-3" else ""

    moved = Counter()  # type: Counter[str]
    for key in KEYS:
        usual, now = over(FOUR, key), choose(FOUR, key, out)
        if usual == "ip-3":
            moved[now.transport] += 1
            assert now.passed == (PassedOver("ip-3", "listed"),)
        else:
            assert now == Choice(usual)
    assert moved["ip-2"] / moved.total() == pytest.approx(2 / 3.5, abs=0.03)


def test_a_growing_share_takes_ever_more_of_the_same_mail() -> None:
    taken: set[str] = set()
    for share in (0.05, 0.2, 0.5, 1.0):

        def refuses(transport: str, luck: float, share: float = share) -> str:
            return "returning" if transport == "ip-3" and luck >= share else ""

        mine = {key for key in KEYS if choose(FOUR, key, refuses).transport == "ip-3"}
        assert taken <= mine
        assert len(mine) / len(KEYS) == pytest.approx(share * 4 / 7.5, abs=0.012)
        taken = mine


@pytest.mark.parametrize("otherwise", ["", "relay-last"])
def test_none_left(otherwise: str) -> None:
    found = choose(FOUR._replace(otherwise=otherwise), "key", lambda transport, _: f"{transport} is out")
    assert found.transport == otherwise
    assert sorted(found.passed) == [PassedOver(f"ip-{i}", f"ip-{i} is out") for i in range(1, 5)]


@pytest.mark.parametrize(
    ("pools", "said"),
    [
        ([FOUR, FOUR], "pool bulk: there are two of this name; wanted one"),
        ([Pool("p", ())], "pool p: no transports; wanted at least one"),
        ([Pool("p", (Member("a"), Member("a")))], "pool p: a is in it twice; wanted once, with the weight of both"),
        ([Pool("p", (Member("a", 0.0),))], "pool p: a: weight 0, wanted above 0"),
        ([Pool("p", (Member("a", float("inf")),))], "pool p: a: weight inf, wanted above 0"),
        ([Pool("p", (Member("a"),), otherwise="pool:q")], "pool p: otherwise: pool:q: wanted a transport, not anoth"),
    ],
)
def test_a_pool_that_cannot_be_used_is_refused(pools: list[Pool], said: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011  # its words are what is looked at
        checked(pools)
    assert str(refused.value).startswith(said)


def test_the_lots_stay_what_they_were() -> None:
    """Hosts of a fleet, and versions of ours, must agree: another hash would move every domain to another address."""
    assert [over(FOUR, f"d{number}.example") for number in range(6)] == PINNED


PINNED = ["ip-2", "ip-3", "ip-1", "ip-2", "ip-3", "ip-2"]
