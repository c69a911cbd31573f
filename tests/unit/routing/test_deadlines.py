"""The heap of deadlines, on a clock that stands until it is told to move."""

import random

import pytest

from routing.services.deadlines import Deadlines, Watched


class StandingClock:
    def __init__(self) -> None:
        self.now_ms = 1_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock()


@pytest.fixture
def deadlines(clock: StandingClock) -> Deadlines:
    return Deadlines(clock)


def test_nothing_is_due_where_nothing_is_watched(deadlines: Deadlines):
    assert deadlines.due() == []
    assert len(deadlines) == 0
    assert "s:1" not in deadlines


def test_a_deadline_comes_due_at_its_ms_and_once(deadlines: Deadlines, clock: StandingClock):
    deadlines.add("s:1", attempt=2, within_ms=50)
    clock.now_ms += 49
    assert deadlines.due() == []
    clock.now_ms += 1
    assert deadlines.due() == [
        Watched(due_ms=1_050, job_id="s:1", attempt=2, queued=False, last=False, watch=0)
    ]
    assert deadlines.due() == []


def test_a_deadline_of_waiting_for_a_slot_says_so(deadlines: Deadlines):
    deadlines.add("s:1", attempt=0, within_ms=0, queued=True)
    assert [watched.queued for watched in deadlines.due()] == [True]


def test_what_is_due_comes_in_order_of_time(deadlines: Deadlines, clock: StandingClock):
    draws = random.Random(3)
    spans = [draws.randrange(1_000) for _ in range(200)]
    for number, within_ms in enumerate(spans):
        deadlines.add(f"s:{number}", attempt=1, within_ms=within_ms)
    clock.now_ms += 500
    early = [watched.due_ms - 1_000 for watched in deadlines.due()]
    clock.now_ms += 500
    late = [watched.due_ms - 1_000 for watched in deadlines.due()]
    assert early == sorted(span for span in spans if span <= 500)
    assert late == sorted(span for span in spans if span > 500)


def test_the_end_of_a_life_is_marked_as_the_last(deadlines: Deadlines, clock: StandingClock):
    deadlines.add("s:1", attempt=1, within_ms=10)
    deadlines.add("s:1", attempt=1, within_ms=90, last=True)
    clock.now_ms += 90
    assert [watched.last for watched in deadlines.due()] == [False, True]


def test_a_forgotten_job_never_comes_due(deadlines: Deadlines, clock: StandingClock):
    deadlines.add("s:1", attempt=1, within_ms=10)
    deadlines.add("s:1", attempt=1, within_ms=20, last=True)
    deadlines.add("s:2", attempt=1, within_ms=30)
    deadlines.forget("s:1")
    assert "s:1" not in deadlines
    assert len(deadlines) == 1
    clock.now_ms += 100
    assert [watched.job_id for watched in deadlines.due()] == ["s:2"]


def test_forgetting_what_is_not_watched_changes_nothing(deadlines: Deadlines):
    deadlines.add("s:1", attempt=1, within_ms=10)
    deadlines.forget("s:9")
    assert "s:1" in deadlines
    assert len(deadlines) == 1


def test_a_job_with_two_deadlines_counts_once_and_stays_after_the_first(
    deadlines: Deadlines, clock: StandingClock
):
    deadlines.add("s:1", attempt=1, within_ms=10)
    deadlines.add("s:1", attempt=1, within_ms=90, last=True)
    clock.now_ms += 10
    assert len(deadlines.due()) == 1
    assert len(deadlines) == 1
    assert "s:1" in deadlines


def test_a_deadline_that_has_passed_already_is_due_at_once(deadlines: Deadlines):
    deadlines.add("s:1", attempt=1, within_ms=-5)
    assert len(deadlines.due()) == 1


def test_a_deadline_of_a_forgotten_job_stays_forgotten_when_the_job_is_watched_again(
    deadlines: Deadlines, clock: StandingClock
):
    deadlines.add("s:1", attempt=1, within_ms=10)
    deadlines.forget("s:1")
    deadlines.add("s:1", attempt=2, within_ms=1_000)
    clock.now_ms += 10
    assert deadlines.due() == []


def test_a_job_whose_last_deadline_came_out_is_no_longer_watched(
    deadlines: Deadlines, clock: StandingClock
):
    deadlines.add("s:1", attempt=1, within_ms=10)
    deadlines.add("s:1", attempt=1, within_ms=10, last=True)
    clock.now_ms += 10
    assert len(deadlines.due()) == 2
    assert "s:1" not in deadlines
    assert len(deadlines) == 0


def test_the_longest_watched_jobs_are_told_with_their_age(
    deadlines: Deadlines, clock: StandingClock
) -> None:
    for number in range(3):
        deadlines.add(f"s:{number}", attempt=1, within_ms=9_000)
        clock.now_ms += 100
    deadlines.add("s:0", attempt=2, within_ms=9_000)
    deadlines.forget("s:1")
    assert deadlines.longest(9) == [("s:0", 300), ("s:2", 100)]
    assert deadlines.longest(1) == [("s:0", 300)]
