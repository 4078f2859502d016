"""One page for the fleet: people hear of everything, from one host, and of its end when it is over on all."""

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from parsers.feeds.dnsbl import Severity
from policies.figures import Kind
from policies.fleet.page import CLAIM, SEEN_FOR, Claim, Hand, Page, Sight, Told, merged, of_fleet, said
from policies.fleet.terms import GRACE
from policies.incidents import MESSAGES_A_DAY, Incident, Member, Phase
from policies.note import NoteKind
from sidecar.fleet import pages
from sidecar.fleet.page_names import PAGE
from sidecar.fleet.pages import ALONE_AFTER, PASS_ON
from tests.fleet_pages_world import (
    KEY,
    SENDER,
    SHARE,
    Fleet,
    here,
)


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "in_thread", here)


@pytest.fixture(name="fleet")
def _fleet() -> Fleet:
    fleet = Fleet()
    fleet.passes(GRACE + 2.0)
    return fleet


def test_what_all_see_is_told_once_and_over_when_it_is_so_on_all(fleet: Fleet) -> None:
    for host in fleet.hosts:
        host.sees()
    fleet.passes(4.0)
    assert fleet.people.messages == [NoteKind.OPENED]
    for host in fleet.hosts[:2]:
        host.severity = None
        fleet.passes(60.0)
    assert fleet.people.messages == [NoteKind.OPENED]
    fleet.hosts[2].severity = None
    fleet.passes(4.0)
    assert fleet.people.messages == [NoteKind.OPENED, NoteKind.RESOLVED]
    assert [line.partition(",")[0] for line in fleet.people.told[-1][3].hosts] == [
        "mx0: over",
        "mx1: over",
        "mx2: over",
    ]
    said_it = {name for _, name, kind, _ in fleet.people.told if kind is NoteKind.OPENED}
    assert all(any("told over chat" in each for each in host.heard) for host in fleet.hosts if host.name not in said_it)


def test_worse_is_told_by_who_sees_it_and_more_hosts_after_a_while(fleet: Fleet) -> None:
    fleet.hosts[0].sees(Severity.WARNING)
    fleet.passes(4.0)
    fleet.hosts[1].sees(Severity.CRITICAL)
    fleet.passes(4.0)
    assert fleet.people.messages == [NoteKind.OPENED, NoteKind.WORSE]
    quiet = Fleet(2)
    quiet.passes(GRACE + 2.0)
    quiet.hosts[0].sees()
    quiet.passes(4.0)
    quiet.hosts[1].sees()
    quiet.passes(700.0)
    assert quiet.people.messages == [NoteKind.OPENED, NoteKind.WIDER]
    assert len(quiet.people.told[-1][3].hosts) == 2


def test_a_host_that_dies_before_it_spoke_is_spoken_for(fleet: Fleet) -> None:
    for host in fleet.hosts:
        host.sees()
        host.reaches_people = False
    fleet.passes(2.0)
    (holder,) = (host for host in fleet.hosts if host.rows.rows)
    holder.running = False
    for host in fleet.hosts:
        host.reaches_people = True
    fleet.passes(CLAIM - 4.0)
    assert fleet.people.messages == []
    fleet.passes(8.0)
    assert fleet.people.messages == [NoteKind.OPENED]
    holder.running = True  # it was only stopped, and comes back with what it had to say
    holder.send()
    fleet.passes(60.0)
    assert fleet.people.messages == [NoteKind.OPENED]


def test_a_host_that_cannot_reach_people_leaves_it_to_another(fleet: Fleet) -> None:
    fleet.hosts[0].sees()
    fleet.hosts[0].reaches_people = False
    fleet.passes(4.0)
    fleet.hosts[1].sees()
    fleet.passes(PASS_ON + 4.0)
    assert fleet.people.messages == [NoteKind.OPENED]
    assert fleet.people.told[0][1] == "mx1"


@pytest.mark.parametrize("known", [False, True])
def test_a_host_that_never_reaches_people_leaves_the_end_and_the_next_time_to_another(
    fleet: Fleet,
    known: bool,  # noqa: FBT001  # of a table
) -> None:
    """Whether or not it is `known` there that the channel is broken."""
    mute, other, _ = fleet.hosts
    mute.reaches_people = False
    for _ in range(3):
        mute.rows.broken_since = fleet.memory.at if known else 0.0
        mute.sees()
        fleet.passes(4.0)
        other.sees()
        fleet.passes(PASS_ON + CLAIM + 4.0)
        assert fleet.people.believe_that_it_goes_on
        mute.severity = other.severity = None
        fleet.passes(PASS_ON + CLAIM + 4.0)
        assert fleet.people.pages_open == set()
        fleet.memory.at += 86_400.0  # messages of a day are counted, and the channel is tried again
    assert {name for _, name, *_ in fleet.people.told} == {"mx1"}
    assert len(fleet.people.messages) == 6


@pytest.mark.parametrize(("known", "within"), [(True, 4.0), (False, PASS_ON + 6.0)])
def test_who_comes_to_be_cut_off_from_people_leaves_the_end_to_another(
    fleet: Fleet,
    known: bool,  # noqa: FBT001  # of a table
    within: float,
) -> None:
    other, mute, _ = fleet.hosts  # who looks last finds the end
    for host in (mute, other):
        host.sees()
    fleet.passes(4.0)
    mute.reaches_people = False
    mute.rows.broken_since = fleet.memory.at if known else 0.0
    mute.severity = other.severity = None
    fleet.passes(within)
    assert [name for _, name, *_ in fleet.people.told] == ["mx0", "mx0"]
    fleet.passes(5 * PASS_ON)
    mute.reaches_people, mute.rows.broken_since = True, 0.0
    fleet.passes(5 * PASS_ON)
    assert fleet.people.messages == [NoteKind.OPENED, NoteKind.RESOLVED]


def test_the_end_is_said_by_who_is_left_as_soon_as_it_can(fleet: Fleet) -> None:
    mute, other, _ = fleet.hosts
    for host in (mute, other):
        host.sees()
    fleet.passes(4.0)
    other.severity = None
    fleet.passes(4.0)
    other.running = False
    mute.reaches_people, mute.severity = False, None
    fleet.passes(20 * PASS_ON)
    assert fleet.people.believe_that_it_goes_on
    mute.reaches_people = True  # nobody else was there
    fleet.passes(2 * PASS_ON + 4.0)
    assert fleet.people.messages == [NoteKind.OPENED, NoteKind.RESOLVED]
    other.running = True
    fleet.passes(PASS_ON)
    assert fleet.people.messages == [NoteKind.OPENED, NoteKind.RESOLVED]


def test_a_store_that_is_away_makes_each_speak_for_itself_and_no_storm_follows(fleet: Fleet) -> None:
    fleet.memory.cut_off = {host.name for host in fleet.hosts}
    for host in fleet.hosts:
        host.sees()
    fleet.passes(ALONE_AFTER - 2.0)
    assert fleet.people.messages == []
    assert not any(host.shared.alone() for host in fleet.hosts)
    fleet.passes(6.0)
    assert all(host.shared.alone() for host in fleet.hosts)
    assert fleet.people.messages == [NoteKind.OPENED] * 3
    fleet.memory.cut_off = set()
    fleet.memory.texts, fleet.memory.life = {}, 2
    fleet.passes(300.0)
    assert not any(host.shared.alone() for host in fleet.hosts)
    assert fleet.people.messages == [NoteKind.OPENED] * 3
    for host in fleet.hosts:
        host.severity = None
    fleet.passes(10.0)
    assert fleet.people.messages == [NoteKind.OPENED] * 3 + [NoteKind.RESOLVED]


def test_a_store_that_forgot_everything_is_told_and_nobody_is_paged_again(fleet: Fleet) -> None:
    fleet.hosts[2].sees()
    fleet.passes(4.0)
    fleet.memory.texts, fleet.memory.life = {}, 2
    fleet.hosts[0].sees()  # it asks before the one that knows what was told
    fleet.passes(60.0)
    assert fleet.people.messages == [NoteKind.OPENED]
    assert set(Page.read(fleet.memory.texts[f"{PAGE}{KEY}"]).sights) == {"mx0", "mx2"}


def test_a_host_that_is_gone_does_not_keep_it_open_for_ever(fleet: Fleet) -> None:
    fleet.hosts[0].sees()
    fleet.hosts[1].sees()
    fleet.passes(4.0)
    fleet.hosts[0].running = False
    fleet.hosts[1].severity = None
    fleet.passes(SEEN_FOR - 70.0)
    assert fleet.people.messages == [NoteKind.OPENED]
    fleet.passes(80.0)
    assert fleet.people.messages == [NoteKind.OPENED, NoteKind.RESOLVED]
    assert any("mx0: error, not heard of for" in line for line in fleet.people.told[-1][3].hosts)
    fleet.hosts[0].running = True  # and it still sees it
    fleet.passes(10.0)
    assert fleet.people.messages[-1] is NoteKind.REOPENED


def test_who_takes_it_on_or_closes_it_does_so_for_all(fleet: Fleet) -> None:
    for host in fleet.hosts:
        host.sees()
    fleet.passes(4.0)
    fleet.hosts[0].acked_by = "root"
    assert fleet.hosts[0].by_hand(closed=False, who="root") == ["mx0", "mx1", "mx2"]
    fleet.passes(6.0)
    assert [host.acked_by for host in fleet.hosts] == ["root", "host mx0 (root)", "host mx0 (root)"]
    fleet.hosts[1].severity = None
    fleet.hosts[1].by_hand(closed=True, who="ann")
    fleet.passes(6.0)
    assert [host.severity for host in fleet.hosts] == [None, None, None]
    assert fleet.people.messages == [NoteKind.OPENED, NoteKind.RESOLVED]
    assert fleet.people.told[-1][3].by_whom == "closed by host mx1 (ann)"
    fleet.hosts[2].sees()  # it fires anew
    fleet.passes(6.0)
    assert fleet.people.messages[-1] is NoteKind.REOPENED
    assert fleet.hosts[2].severity is not None


def test_who_comes_to_see_it_after_it_was_taken_on_knows_that_and_not_of_what_is_over(fleet: Fleet) -> None:
    first, *_, late = fleet.hosts
    first.sees()
    fleet.passes(4.0)
    first.acked_by = "root"
    first.by_hand(closed=False, who="root")
    late.sees()
    fleet.passes(6.0)
    assert late.acked_by == "host mx0 (root)"
    first.severity = late.severity = None
    fleet.passes(6.0)
    assert fleet.people.messages == [NoteKind.OPENED, NoteKind.RESOLVED]
    late.sees()  # it fires anew
    fleet.passes(6.0)
    assert fleet.people.messages[-1] is NoteKind.REOPENED
    assert late.acked_by == ""


@pytest.mark.parametrize("before", [0.0, 1.0, 4.0])
def test_what_is_taken_on_before_the_store_knows_who_sees_it_is_taken_on_by_all(fleet: Fleet, before: float) -> None:
    first, second, late = fleet.hosts
    second.sees()
    fleet.passes(before)
    first.sees()
    first.acked_by = "root"
    assert "mx0" in first.by_hand(closed=False, who="root")
    fleet.passes(8.0)
    late.sees()
    fleet.passes(8.0)
    assert [second.acked_by, late.acked_by] == ["host mx0 (root)"] * 2
    assert fleet.people.messages == [NoteKind.OPENED]


def test_what_was_closed_once_is_not_closed_again_when_it_comes_back_without_the_store(fleet: Fleet) -> None:
    *_, late = fleet.hosts
    late.sees()
    fleet.passes(4.0)
    late.severity = None
    late.by_hand(closed=True, who="ann")
    fleet.passes(6.0)
    fleet.memory.cut_off = {host.name for host in fleet.hosts}
    late.sees()
    fleet.passes(ALONE_AFTER + 6.0)
    assert late.incidents()[0].live


def test_hosts_that_take_turns_send_no_more_than_one_would(fleet: Fleet) -> None:
    for _ in range(20):
        for host in fleet.hosts:
            host.sees()
            fleet.passes(30.0)
            host.severity = None
            fleet.passes(30.0)
    assert len(fleet.people.messages) <= MESSAGES_A_DAY + 1
    fleet.memory.at += 86_400.0
    fleet.passes(10.0)
    assert fleet.people.messages[-1] is NoteKind.RESOLVED


def test_what_is_about_one_host_is_that_host_s() -> None:
    member = Member("pf-rep:core:mx1:away", "away", "mx1", Kind.HOST, Severity.ERROR, True, 0, 0, 0, "")  # it fires
    incident = Incident(1, member.key, Phase.OPEN, "", "", Severity.ERROR, "", "", 0.0, 0.0, members=(member,))
    assert not of_fleet(incident)
    assert of_fleet(incident._replace(members=(member._replace(kind=Kind.PROVIDER),)))


@pytest.mark.parametrize(
    "text", ["[]", "1", '{"told": 1}', '{"told": {"a": 1}}', '{"sights": {"a": {"at": "x"}}}', "{"]
)
def test_a_text_that_is_no_page_is_told_so(text: str) -> None:
    with pytest.raises(ValueError, match=r"page|JSON|Expecting"):
        Page.read(text)


def test_copies_come_together_in_any_order() -> None:
    one = Page("a", "b", 1.0, {"mx0": Sight(5.0, "error", 1.0, 1)}, {"chat": Told(6.0, "error", 1, 1, (6.0,))}, token=3)
    other = Page("a", "b", 2.0, {"mx0": Sight(7.0)}, {"chat": Told(4.0, "", 0, 0, (4.0,)), "p": Told(1.0)}, token=4,
                 acked=Hand(3.0, "root"))  # fmt: skip
    both = merged(one, other)
    assert both == merged(other, one) == merged(both, one) == merged(both, other)
    assert both.told["chat"].messages == (6.0,)
    assert Page.read(both.text()) == both
    newer = both.text().replace('"token"', '"of_a_later_version":[1],"token"')
    assert Page.read(newer) == both


def test_who_says_that_it_goes_on_makes_it_no_better() -> None:
    page = said(Page(), "pager", NoteKind.OPENED, Told(1.0, "critical", scope=2, thread="1.1", by="mx0"))
    page = said(page, "pager", NoteKind.AGAIN, Told(2.0, "error", by="mx1"))
    told = page.told["pager"]
    assert (told.severity, told.scope, told.thread, told.by, told.messages) == ("critical", 2, "1.1", "mx1", (1.0,))
    page = said(page, "pager", NoteKind.RESOLVED, Told(3.0, "error", by="mx1"))
    assert page.told["pager"][:4] == (3.0, "", 0, 0)
    page = said(page, "pager", NoteKind.REOPENED, Told(4.0, "warning", by="mx1"))
    assert page.told["pager"].severity == "warning"


def test_a_page_that_a_clock_wrote_which_was_set_back_since_is_sent_all_the_same(fleet: Fleet) -> None:
    """The store's clock was days ahead when people were told, and when a host that is gone by now was about to say more."""
    one, two, gone = fleet.hosts
    fleet.memory.ahead = 10 * 86_400.0
    for host in (one, gone):
        host.sees()
    fleet.passes(4.0)
    page = Page.read(fleet.memory.texts[PAGE + KEY])
    claim = Claim("mx2", page.token + 1, fleet.memory.at + fleet.memory.ahead + CLAIM)
    fleet.memory.texts[PAGE + KEY] = page._replace(claims={"chat": claim}, token=claim.token).text()
    gone.running = False
    fleet.memory.ahead = 0.0
    one.severity = None
    fleet.passes(SEEN_FOR + CLAIM + 8.0)
    assert fleet.people.messages == [NoteKind.OPENED, NoteKind.RESOLVED]
    two.sees()
    fleet.passes(8.0)
    assert fleet.people.messages == [NoteKind.OPENED, NoteKind.RESOLVED, NoteKind.REOPENED]


class Story(RuleBasedStateMachine):
    """Hosts see and do not, die and come back; the store is away, forgets, loses answers; people are out of reach."""

    hosts = st.integers(0, 2)

    @initialize()
    def begins(self) -> None:
        self.patched = pytest.MonkeyPatch()
        self.patched.setattr(pages, "in_thread", here)
        self.fleet = Fleet()
        self.fleet.hosts[1].alerts = (SENDER,)
        self.fleet.hosts[2].alerts = (SENDER, SHARE)
        self.fleet.passes(GRACE + 2.0)
        self.forgiven = 0
        """Messages that a fault may have doubled."""
        self.parted = False
        """Whether a fault may have made two pages."""

    def teardown(self) -> None:
        if not hasattr(self, "fleet"):
            return
        fleet = self.fleet
        fleet.memory.cut_off = set()
        fleet.memory.loses_answers_to = set()
        for host in fleet.hosts:
            host.reaches_people = True
            if not host.running:
                host.restart()
        fleet.passes(SEEN_FOR + 3 * PASS_ON, step=5.0)
        for _ in range(300):  # the end waits for a day on which there is a message left
            if fleet.people.pages_open == self.pages_seen:
                break
            fleet.passes(300.0, step=300.0)
        assert fleet.people.pages_open == self.pages_seen
        self.patched.undo()

    @property
    def pages_seen(self) -> set[str]:
        return {host.page for host in self.fleet.hosts if host.severity}

    @rule(host=hosts, severity=st.sampled_from([Severity.CRITICAL, Severity.ERROR, Severity.WARNING]))
    def sees(self, host: int, severity: Severity) -> None:
        self.fleet.hosts[host].sees(severity)

    @rule(host=hosts)
    def sees_no_more(self, host: int) -> None:
        self.fleet.hosts[host].severity = None

    @rule(seconds=st.sampled_from([2.0, 10.0, 40.0, 130.0]))
    def passes(self, seconds: float) -> None:
        self.fleet.passes(seconds)

    @rule(host=hosts)
    def is_stopped(self, host: int) -> None:
        """Whatever it was about to say it says when it goes on, if it may."""
        self.fleet.hosts[host].running = False
        self.parted = True  # it goes on with its page, when others believe that over

    @rule(host=hosts)
    def goes_on(self, host: int) -> None:
        self.fleet.hosts[host].running = True
        self.fleet.hosts[host].send()

    @rule(host=hosts)
    def is_started_anew(self, host: int) -> None:
        """After kill -9, at the worst of times: what was sent is not known in the fleet."""
        mx = self.fleet.hosts[host]
        if mx.running:
            mx.send()
        mx.restart()

    @rule(host=hosts, reaches=st.booleans())
    def people_are_out_of_reach(self, host: int, reaches: bool) -> None:  # noqa: FBT001  # a rule's argument
        self.fleet.hosts[host].reaches_people = reaches

    @rule(host=hosts)
    def loses_an_answer(self, host: int) -> None:
        self.fleet.memory.loses_answers_to.add(f"mx{host}")

    @rule(hosts=st.sets(hosts, max_size=3))
    def is_cut_off(self, hosts: set[int]) -> None:
        self.fleet.memory.cut_off = {f"mx{host}" for host in hosts}
        self.forgiven += 3 * bool(hosts)
        self.parted |= bool(hosts)

    @rule()
    def forgets(self) -> None:
        self.fleet.memory.texts, self.fleet.memory.life = {}, self.fleet.memory.life + 1
        self.forgiven += 3
        self.parted = True

    @invariant()
    def nothing_is_said_twice_while_the_store_answers(self) -> None:
        if not hasattr(self, "fleet"):
            return
        told = [self.fleet.people.of_page(page) for page in (SHARE[0], SENDER[0])]
        same = sum(
            one is other or {one, other} <= {NoteKind.OPENED, NoteKind.REOPENED}
            for messages in told
            for one, other in pairwise(messages)
            if NoteKind.WIDER not in {one, other} and NoteKind.WORSE not in {one, other}
        )
        if not self.forgiven:
            assert same == 0, self.fleet.people.told
        if not self.parted:
            assert len(self.fleet.seen()) <= 1

    @precondition(lambda self: not self.fleet.memory.cut_off)
    @rule()
    def is_told_in_time(self) -> None:
        """Whoever sees it, can say it and is not disturbed: people know within the stated time."""
        able = [host for host in self.fleet.hosts if host.severity and host.running and host.reaches_people]
        self.fleet.memory.loses_answers_to = set()
        if able:
            self.fleet.passes(CLAIM + PASS_ON + 2 * GRACE)
            pages = {host.page for host in able}
            assert pages <= self.fleet.people.pages_open


Story.TestCase.settings = settings(
    max_examples=20, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
TestStory = Story.TestCase


def test_by_a_clock_that_was_set_back_what_people_did_keeps_its_order() -> None:
    ahead = Page(told={"chat": Told(4000.0, "")}, acked=Hand(5000.0, "ann"), closed=Hand(3000.0))
    page = ahead.by_clock(1400.0)
    assert page.is_acked
    assert page.closed.at < page.told["chat"].at < page.acked.at <= 1400.0
    assert page.by_clock(1400.0) == page


def test_a_copy_of_before_the_clock_was_set_back_does_not_undo_what_was_said_since() -> None:
    there = Page(told={"chat": Told(1401.0, "")})  # people know that it is over
    copy = Page(told={"chat": Told(5000.0, "warning"), "mail": Told(5000.0, "warning")})  # of a host that was away
    page = merged(there, copy.without_ahead(there, 1402.0)).by_clock(1402.0)
    assert [page.open_for(name) for name in ("chat", "mail")] == [False, True]


@pytest.mark.parametrize("ahead", [0.005, 86_400.0])
def test_an_acknowledgement_stays_behind_the_sight_that_it_is_of(ahead: float) -> None:
    now = 1_800_000_000.0
    sight = Sight(now + ahead, "error", now + ahead - 0.001, 1)
    page = Page(sights={"mx0": sight}, acked=Hand(now + ahead, "ann")).by_clock(now)
    assert page.acked.at > page.sights["mx0"].since
    assert page.seen(at=now)
