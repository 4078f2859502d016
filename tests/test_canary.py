"""Canary: who is chosen, what stops it early, what promotes it, and how seldom chance alone stops one that is no worse."""

import random
from typing import Any

import pytest

from policies.canary import BY_ITSELF, FEWEST, Arm, Canary, Phase, Trial, check, chosen, compared, judged, outcome
from policies.deliverability import Rate, newcombe

NEW = Canary("new-ip", 0.05, "ip-9", 1_000)
IDS = [f"4cG{number:06d}" for number in range(20_000)]


def test_the_share_is_chosen_and_always_the_same() -> None:
    trial = Trial("new-ip")
    mine = [queue_id for queue_id in IDS if chosen(NEW, trial, queue_id)]
    assert len(mine) / len(IDS) == pytest.approx(0.05, abs=0.005)
    assert mine == [queue_id for queue_id in IDS if chosen(NEW, trial, queue_id)]
    more = {queue_id for queue_id in IDS if chosen(NEW._replace(share=0.2), trial, queue_id)}
    assert set(mine) < more
    other = {queue_id for queue_id in IDS if chosen(NEW._replace(name="other"), trial, queue_id)}
    assert 0 < len(other & set(mine)) < 200


@pytest.mark.parametrize(("phase", "goes"), [(Phase.PROMOTED, 1.0), (Phase.STOPPED, 0.0)])
def test_when_it_is_decided_all_goes_or_none(phase: Phase, goes: float) -> None:
    trial = Trial("new-ip", phase)
    assert sum(chosen(NEW, trial, queue_id) for queue_id in IDS) == goes * len(IDS)


def trial_of(canary: tuple[int, int, int], control: tuple[int, int, int]) -> Trial:
    """Each: delivered, bounced, deferred first."""
    trial = Trial("new-ip")
    for arm, (sent, bounced, deferred) in zip(Arm, (canary, control), strict=True):
        attempts = sent + bounced + deferred
        trial.count(arm, attempts=attempts, sent=sent, bounced=bounced, block=bounced, deferred=deferred)
    return trial


ALIKE = (19_700, 300, 400)


@pytest.mark.parametrize(
    ("canary", "phase", "why"),
    [
        ((0, 0, 0), Phase.RUNNING, "0 of 1000 delivered"),
        ((0, 40, 0), Phase.RUNNING, "0 of 1000 delivered"),  # 40 say little
        ((300, 5, 6), Phase.RUNNING, "300 of 1000 delivered"),
        ((300, 10, 6), Phase.RUNNING, "300 of 1000 delivered"),  # chance may do that
        ((270, 30, 6), Phase.STOPPED, "acceptance 90.00% of 300 against 98.50% of 20000 of control"),
        ((295, 5, 90), Phase.STOPPED, "deferrals 23.08% of 390 against 1.96% of 20400 of control"),
        ((1_000, 15, 20), Phase.PROMOTED, "after 1000 deliveries no worse: acceptance 98.52% of 1015 against 98.50%"),
        ((1_000, 0, 20), Phase.PROMOTED, "after 1000 deliveries no worse: acceptance 100.00% of 1000"),
        ((1_000, 27, 20), Phase.STOPPED, "acceptance 97.37% of 1027 against 98.50% of 20000 of control"),
    ],
)
def test_the_verdict(canary: tuple[int, int, int], phase: Phase, why: str) -> None:
    found = judged(NEW, trial_of(canary, ALIKE))
    assert (found.phase, found.why[: len(why)]) == (phase, why)


def test_it_goes_on_while_a_loss_is_not_ruled_out() -> None:
    small = NEW._replace(until=100)
    found = judged(small, trial_of((100, 3, 0), ALIKE))
    assert found.phase is Phase.RUNNING
    assert found.why.startswith("100 delivered, but a loss of ")
    assert judged(small, trial_of((1_000, 18, 0), ALIKE)).phase is Phase.PROMOTED


def test_what_is_decided_stays() -> None:
    trial = trial_of((10, 900, 0), ALIKE)
    trial.phase, trial.why = Phase.PROMOTED, "by hand"
    assert judged(NEW, trial) == (Phase.PROMOTED, "by hand")


@pytest.mark.parametrize(
    ("delivered", "complaints", "control", "phase", "why"),
    [
        (300, 4, 0, Phase.RUNNING, "300 of 1000 delivered"),  # four people
        (300, 9, 20, Phase.STOPPED, "complaints 3.00% of 300 against 0.10% of 20000 of control"),
        (300, 5, 100, Phase.RUNNING, "300 of 1000 delivered"),  # chance may do that, looked at again and again
        (40, 9, 0, Phase.RUNNING, "40 of 1000 delivered"),
        (1_000, 9, 60, Phase.STOPPED, "complaints 0.90% of 1000 against 0.30% of 20000 of control"),
        (1_000, 4, 60, Phase.PROMOTED, "after 1000 deliveries no worse"),
    ],
)
def test_complaints_stop_it_where_there_are_enough(  # the columns of the table above
    delivered: int, complaints: int, control: int, phase: Phase, why: str
) -> None:
    trial = trial_of((delivered, 0, 0), (20_000, 0, 0))
    trial.count(Arm.CANARY, complaints=complaints)
    trial.count(Arm.CONTROL, complaints=control)
    found = judged(NEW, trial)
    assert (found.phase, found.why[: len(why)]) == (phase, why)


def test_why_a_rate_is_not_judged_yet_is_said() -> None:
    trial = trial_of((300, 0, 0), (20_000, 0, 0))
    trial.count(Arm.CANARY, complaints=4)
    assert [each.too_few for each in compared(trial)] == ["", "", "4 of the canary; judged from 5 on"]
    assert [each.too_few for each in compared(trial_of((3, 0, 0), ALIKE))] == ["judged from 50 of each on"] * 3


@pytest.mark.parametrize(("by_whom", "phase"), [(BY_ITSELF, Phase.STOPPED), ("jo", Phase.PROMOTED)])
def test_late_complaints_take_back_what_promoted_itself(by_whom: str, phase: Phase) -> None:
    trial = trial_of((1_000, 0, 0), (20_000, 0, 0))
    trial.phase, trial.by_whom = Phase.PROMOTED, by_whom
    assert judged(NEW, trial).phase is Phase.PROMOTED
    trial.count(Arm.CANARY, complaints=20)
    trial.count(Arm.CONTROL, complaints=20)
    assert judged(NEW, trial).phase is phase


def run(draws: random.Random, accepted: float) -> Trial:
    """Send 5 % over the canary until it is decided; looked at after each 20 of its messages."""
    trial = Trial("new-ip")
    for _ in range(200):
        for arm, number, share in ((Arm.CANARY, 20, accepted), (Arm.CONTROL, 380, 0.985)):
            sent = sum(draws.random() < share for _ in range(number))
            trial.count(arm, attempts=number, sent=sent, bounced=number - sent)
        trial.phase, trial.why = judged(NEW, trial)
        if trial.phase is not Phase.RUNNING:
            return trial
    return trial


def test_chance_seldom_stops_what_is_no_worse_and_a_bad_one_does_not_get_far() -> None:
    draws = random.Random(6)  # a simulation
    same = [run(draws, 0.985) for _ in range(60)]
    assert sum(trial.phase is Phase.STOPPED for trial in same) <= 4
    bad = [run(draws, 0.85) for _ in range(20)]
    assert all(trial.phase is Phase.STOPPED for trial in bad)
    assert max(trial.counts[Arm.CANARY]["attempts"] for trial in bad) < 500


def test_the_comparison_is_the_report_s() -> None:
    found = {each.name: each for each in compared(trial_of((980, 20, 0), (19_000, 1_000, 500)))}
    assert list(found) == ["acceptance", "deferrals", "complaints"]
    assert found["acceptance"].canary.share == 0.98
    assert found["acceptance"].difference == newcombe(Rate(980, 1_000), Rate(19_000, 20_000))
    assert not any(each.worse for each in found.values())


@pytest.mark.parametrize(
    ("status", "bounce", "added"),
    [
        ("sent", "", {"attempts": 1, "sent": 1}),
        ("deferred", "transient", {"attempts": 1, "deferred": 1}),
        ("bounced", "hard", {"attempts": 1, "bounced": 1, "hard": 1}),
        ("bounced", "soft", {"attempts": 1, "bounced": 1}),
        ("expired", "", {"expired": 1}),
        ("deliverable", "", {}),
    ],
)
def test_what_an_attempt_adds(status: str, bounce: str, added: dict[str, int]) -> None:
    assert outcome(status, bounce) == added


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"share": 0.0}, "canary new-ip: share 0, wanted above 0 and below 1, as 0.05"),
        ({"share": 1.0}, "canary new-ip: share 1, wanted above 0 and below 1, as 0.05"),
        ({"until": 10}, f"canary new-ip: until 10, wanted {FEWEST} deliveries or more: fewer say nothing"),
        ({"loss": 0.0}, "canary new-ip: loss 0, wanted above 0 and below 1, as 0.02"),
    ],
)
def test_one_that_makes_no_sense_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011  # its words are what is looked at
        check(NEW._replace(**change))
    assert str(refused.value) == said
