"""The oracle: what it reads in the mail log, and what it makes of a run that was written down."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.lab.fleet import Message, Submissions
from sidecar.lab.maillog import Follower, MailLog
from sidecar.lab.measure import Episode, Evidence, Figures, Pair, episodes, figures, percentile
from sidecar.lab.provider import Accepted, Ledger, Refused
from sidecar.lab.scenario import By, Kind, Limit, Provider, Scenario, Sender, Stage

BURST = Sender("burst.example", ("google",), dkim="burst.example", spf="burst.example", burst=10)
SHOP = Sender("shop.example", ("google",), dkim="shop.example", spf="shop.example", rate=1.0)
LIMIT = Limit(By.DKIM, Kind.BUCKET, rate=1, burst=5)
GOOGLE = Provider("google", ("gmail.com",), ("mx.google.example",), transaction_s=0.5, limit=(LIMIT,))
YAHOO = Provider("yahoo", ("yahoo.com",), ("mta5.am0.yahoodns.net",))
SCENARIO = Scenario("x", 100, (SHOP, BURST), (GOOGLE, YAHOO), scale=60)


@dataclass
class Run:
    """Writes a run down as the lab would."""

    submissions: Submissions = field(default_factory=Submissions)
    ledger: Ledger = field(default_factory=Ledger)
    log: MailLog = field(default_factory=MailLog)
    queued: set[Pair] = field(default_factory=set)

    def message(self, number: int, sender: Sender, at: float, *to: str) -> None:
        message_id = f"{number}@{sender.domain}"
        recipients = to or ("u@gmail.com",)
        self.submissions.accepted.append(Message(message_id, sender, recipients, sender.burst > 0, at))
        self.line(at, f"postfix/cleanup[1]: {_id(number)}: message-id=<{message_id}>")
        self.line(at, f"postfix/qmgr[2]: {_id(number)}: from=<b@x>, size=9, nrcpt={len(recipients)} (queue active)")

    def sent(self, number: int, sender: Sender, at: float, to: str = "u@gmail.com", by: str = "google") -> None:
        self.ledger.accepted.append(Accepted(at, by, f"{number}@{sender.domain}", to))
        self.line(at, f"postfix/smtp[3]: {_id(number)}: to=<{to}>, relay=r, delay=1, dsn=2.0.0, status=sent (250 ok)")

    def refused(self, number: int, sender: Sender, at: float, limit: Limit = LIMIT, to: str = "u@gmail.com") -> None:
        identity = {By.DKIM: sender.dkim, By.IP: "127.0.0.1", By.RECIPIENT: to}[limit.by]
        message_id = f"{number}@{sender.domain}"
        self.ledger.refused.append(Refused(at, "google", limit.by, identity, message_id, Stage.END_OF_DATA, "421"))
        self.line(
            at, f"postfix/smtp[3]: {_id(number)}: to=<{to}>, relay=r, dsn=4.7.28, status=deferred (host said: 421)"
        )

    def held(self, number: int, at: float) -> None:
        self.line(at, f"postfix/postsuper[4]: {_id(number)}: placed on hold")

    def released(self, number: int, at: float) -> None:
        self.line(at, f"postfix/postsuper[4]: {_id(number)}: released from hold")

    def line(self, at: float, text: str) -> None:
        self.log.line(f"Nov 21 19:36:06 mta1 {text}", at)

    def figures(self, ended: float = 100.0, scenario: Scenario = SCENARIO) -> Figures:
        return figures(Evidence(scenario, self.submissions, self.ledger, self.log, frozenset(self.queued), ended))


def _id(number: int) -> str:
    return f"4jX2WB{number:09}"


def test_each_message_has_one_fate() -> None:
    run = Run()
    for number in range(1, 6):
        run.message(number, SHOP, 1.0)
    run.sent(1, SHOP, 2.0)
    run.line(3.0, f"postfix/smtp[3]: {_id(2)}: to=<u@gmail.com>, relay=r, dsn=5.1.1, status=bounced (host said: 550)")
    run.queued.add(Pair("3@shop.example", "u@gmail.com"))
    run.sent(4, SHOP, 2.0)
    run.queued.add(Pair("4@shop.example", "u@gmail.com"))
    counted = run.figures()
    assert (counted.injected, counted.delivered, counted.bounced, counted.queued, counted.lost) == (5, 2, 1, 1, 1)
    assert counted.findings() == ["lost"]


@given(st.lists(st.sampled_from(["sent", "bounced", "queued", "gone", "twice"]), max_size=30))
def test_the_fates_add_up(fates: list[str]) -> None:
    run = Run()
    for number, fate in enumerate(fates):
        run.message(number, SHOP, 1.0)
        for _ in range({"sent": 1, "twice": 2}.get(fate, 0)):
            run.sent(number, SHOP, 2.0)
        if fate == "bounced":
            run.line(3.0, f"postfix/smtp[3]: {_id(number)}: to=<u@gmail.com>, dsn=5.1.1, status=bounced (550)")
        if fate == "queued":
            run.queued.add(Pair(f"{number}@shop.example", "u@gmail.com"))
    counted = run.figures()
    assert counted.injected == counted.delivered + counted.bounced + counted.queued + counted.lost == len(fates)
    assert counted.lost == fates.count("gone")
    assert counted.duplicated == fates.count("twice")


def test_an_unsure_submission_counts_only_where_it_was_seen() -> None:
    run = Run()
    run.message(1, SHOP, 1.0)
    run.message(2, SHOP, 1.0)
    run.submissions.unsure, run.submissions.accepted = run.submissions.accepted, []
    run.sent(1, SHOP, 2.0)
    counted = run.figures()
    assert (counted.injected, counted.delivered, counted.lost) == (1, 1, 0)


def test_a_rejected_submission_is_a_finding_by_recipient() -> None:
    run = Run()
    refused = Message("1@shop.example", SHOP, ("a@gmail.com", "b@gmail.com"), burst=False, submitted=1.0)
    run.submissions.rejected.append((refused, "451 4.3.5 no"))
    assert run.figures().rejected == 2
    assert run.figures().findings() == ["rejected"]


def test_others_are_those_that_no_fired_limit_covers() -> None:
    run = Run()
    run.message(1, BURST, 0.0)
    run.refused(1, BURST, 1.0)
    run.sent(1, BURST, 50.0)
    for number, wait in enumerate([0.5, 0.75, 1.0, 9.0], 2):
        run.message(number, SHOP, 10.0)
        run.sent(number, SHOP, 10.0 + wait)
    counted = run.figures()
    assert (counted.others_p50_s, counted.others_p95_s) == (0.75, 9.0)
    assert counted.throttled_delivered == 1


def test_mail_of_the_throttled_sender_to_another_provider_is_not_timed_but_never_held() -> None:
    run = Run()
    run.message(1, BURST, 0.0)
    run.refused(1, BURST, 1.0)
    run.message(2, BURST, 0.0, "u@yahoo.com")
    run.sent(2, BURST, 3.0, "u@yahoo.com", "yahoo")
    run.held(2, 1.5)
    counted = run.figures()
    assert counted.others_p50_s is None
    assert counted.others_held == 1
    assert counted.findings() == ["lost", "others_held"]


def test_a_message_may_be_held_once_its_other_recipient_is_delivered() -> None:
    run = Run()
    run.message(1, BURST, 0.0, "u@gmail.com", "v@yahoo.com")
    run.refused(1, BURST, 1.0)
    run.sent(1, BURST, 2.0, "v@yahoo.com", "yahoo")
    run.held(1, 2.1)
    assert run.figures().others_held == 0


def test_an_ip_limit_covers_all_mail_to_its_provider() -> None:
    run = Run()
    limit = Limit(By.IP, Kind.BUCKET, rate=1, burst=5)
    run.message(1, BURST, 0.0)
    run.refused(1, BURST, 1.0, limit)
    run.message(2, SHOP, 0.0)
    run.held(2, 2.0)
    run.message(3, SHOP, 0.0, "u@yahoo.com")
    run.sent(3, SHOP, 1.25, "u@yahoo.com", "yahoo")
    run.queued = {Pair("1@burst.example", "u@gmail.com"), Pair("2@shop.example", "u@gmail.com")}
    counted = run.figures()
    assert (counted.others_p50_s, counted.others_held, counted.findings()) == (1.25, 0, [])


def test_a_recipients_limit_entitles_nobody_to_hold() -> None:
    run = Run()
    limit = Limit(By.RECIPIENT, Kind.BUCKET, rate=1, burst=5)
    run.message(1, BURST, 0.0)
    run.refused(1, BURST, 1.0, limit)
    run.held(1, 1.5)
    assert run.figures().others_held == 1


def test_other_mail_that_still_waits_counts_with_its_age() -> None:
    run = Run()
    run.message(1, SHOP, 10.0)
    run.sent(1, SHOP, 11.0)
    run.message(2, SHOP, 40.0)
    run.message(3, SHOP, 99.5)  # too young to be late
    run.queued = {Pair("2@shop.example", "u@gmail.com"), Pair("3@shop.example", "u@gmail.com")}
    assert run.figures(ended=100.0).others_p95_s == 60.0


def test_deferrals_of_the_throttled_and_of_the_first_episode() -> None:
    run = Run()
    for number in range(1, 5):
        run.message(number, BURST, 0.0)
    run.refused(1, BURST, 1.0)
    run.refused(2, BURST, 1.5)
    run.held(3, 1.2)  # the reaction: 200 ms
    run.released(3, 20.0)
    run.sent(3, BURST, 20.5)
    run.refused(4, BURST, 40.0)  # a second episode
    run.sent(1, BURST, 60.0)
    run.message(9, SHOP, 0.0)
    run.line(2.0, f"postfix/smtp[3]: {_id(9)}: to=<u@gmail.com>, relay=none, dsn=4.4.1, status=deferred (timeout)")
    counted = run.figures()
    assert (counted.deferrals, counted.deferrals_first_episode, counted.retriggers) == (3, 2, 1)
    assert counted.deferrals_per_delivered == 1.5
    assert (counted.reaction_p50_s, counted.reaction_p99_s) == (0.2, 0.2)


def test_an_attempt_in_a_pause_is_an_unheld_one() -> None:
    run = Run()
    for number in range(1, 5):
        run.message(number, BURST, 0.0)
    run.refused(1, BURST, 1.0)
    run.held(2, 1.1)
    run.refused(3, BURST, 2.5)  # under way when the pause began
    run.refused(4, BURST, 9.0)
    run.released(2, 15.0)
    run.sent(2, BURST, 15.5)
    assert run.figures().unheld_attempts == 1


def test_drain_is_measured_against_one_who_knows_the_limit() -> None:
    run = Run()
    for number in range(15):
        run.message(number, BURST, 10.0)
        run.refused(number, BURST, 10.5)
    for number in range(15):
        run.sent(number, BURST, 20.0 + 2 * number)
    # 15 through a bucket of 5 at 1 a second: 10 s; the first pause, 600 s by 60, another 10 s; it took 38 s.
    assert run.figures().drain_ratio == pytest.approx(38 / 20, rel=0.02)


def test_a_backlog_that_did_not_drain_has_no_ratio() -> None:
    run = Run()
    run.message(1, BURST, 0.0)
    run.refused(1, BURST, 1.0)
    assert run.figures().drain_ratio is None


@pytest.mark.parametrize(("openings", "p99"), [(150, 1.5), (200, 0.1)])
def test_few_reactions_have_no_better_percentile_than_the_worst(openings: int, p99: float) -> None:
    run = Run()
    for number in range(1, openings + 1):
        sender = replace(BURST, domain=f"d{number}.example", dkim=f"d{number}.example", spf=f"d{number}.example")
        run.message(number, sender, 0.0)
        run.refused(number, sender, 1.0)
        run.held(number, 2.5 if number == 1 else 1.1)
    assert run.figures().reaction_p99_s == p99


@pytest.mark.parametrize(
    ("attempts", "wanted"),
    [
        ([], []),
        ([(1.0, True), (2.0, True)], []),
        ([(1.0, True), (1.2, False), (1.4, True), (1.6, False)], [Episode(1.2, 1.6)]),
        ([(1.0, False), (1.5, False), (5.0, False)], [Episode(1.0, 1.5), Episode(5.0, 5.0)]),
        ([(1.0, False), (5.0, True), (5.5, False)], [Episode(1.0, 1.0), Episode(5.5, 5.5)]),
        ([(1.0, False), (1.8, True), (2.6, True), (3.4, False)], [Episode(1.0, 3.4)]),
    ],
)
def test_an_episode_ends_where_the_attempts_pause(attempts: list[tuple[float, bool]], wanted: list[Episode]) -> None:
    assert episodes(attempts, gap=2.0) == wanted


@pytest.mark.parametrize(
    ("values", "share", "wanted"),
    [
        ([], 0.5, None),
        ([3.0], 0.99, 3.0),
        ([4.0, 1.0, 3.0, 2.0], 0.5, 2.0),
        (list(map(float, range(1, 101))), 0.95, 95),
    ],
)
def test_percentiles_are_by_nearest_rank(values: list[float], share: float, wanted: float | None) -> None:
    assert percentile(values, share) == wanted


@pytest.mark.parametrize(
    ("lines", "silent"),
    [
        (["smtp[3]: {}: to=<a@x>, relay=r, dsn=2.0.0, status=sent (250 ok)", "qmgr[2]: {}: removed"], 0),
        (["qmgr[2]: {}: removed"], 1),
        (["smtp[3]: {}: to=<a@x>, relay=r, dsn=4.0.0, status=deferred (x)", "qmgr[2]: {}: removed"], 1),
        (["smtp[3]: {}: to=<a@x>, dsn=5.0.0, status=bounced (x)", "qmgr[2]: {}: removed"], 0),
        (["postsuper[5]: {}: removed"], 0),
        (
            [
                "qmgr[2]: {}: from=<s@x>, size=1, nrcpt=2 (queue active)",
                "smtp[3]: {}: to=<a@x>, relay=r, dsn=2.0.0, status=sent (250 ok)",
                "qmgr[2]: {}: from=<s@x>, size=1, nrcpt=2 (queue active)",
                "qmgr[2]: {}: removed",
            ],
            1,
        ),
    ],
    ids=["sent", "nothing-said", "only-deferred", "bounced", "deleted-by-hand", "one-of-two"],
)
def test_mail_removed_without_a_final_line_is_noticed(lines: list[str], silent: int) -> None:
    run = Run()
    for line in lines:
        run.line(1.0, f"postfix/{line.format(_id(1))}")
    assert len(run.log.removed_silently) == silent


def test_what_is_on_hold_follows_the_log() -> None:
    run = Run()
    run.line(
        1.0, f"postfix/smtpd[7]: {_id(1)}: hold: END-OF-MESSAGE from l[127.0.0.1]: <END-OF-MESSAGE>: x; from=<s@x>"
    )
    run.held(2, 2.0)
    run.held(3, 2.0)
    run.released(2, 3.0)
    run.line(4.0, f"postfix/postsuper[4]: {_id(3)}: requeued")
    assert run.log.on_hold == {_id(1)}
    assert run.log.requeued == 1
    assert [(moved.time, moved.queue_id) for moved in run.log.held] == [(1.0, _id(1)), (2.0, _id(2)), (2.0, _id(3))]


def test_a_log_is_followed_through_a_rotation_and_half_lines(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    follower = Follower(path)
    follower.catch_up()
    line = "Nov 21 19:36:06 mta1 postfix/postsuper[4]: {}: placed on hold\n"
    path.write_text(line.format(_id(1)) + line.format(_id(2))[:40])
    follower.catch_up()
    assert follower.log.on_hold == {_id(1)}
    with path.open("a") as log:
        log.write(line.format(_id(2))[40:])
    path.rename(tmp_path / "mail.log.1")
    path.write_text(line.format(_id(3)))
    follower.catch_up()
    follower.close()
    assert follower.log.on_hold == {_id(1), _id(2), _id(3)}
