"""The job's state table, walked whole, and the limits of a job's life."""

from itertools import product

import pytest

from registry.domain.errors import InvalidTransition
from routing.domain.job import TERMINAL, TRANSITIONS, JobEvent, JobLimits, JobState, advance

# A row per state, a column per event, "." where the step does not exist.
GRID = """
           assign    start    queue   succeed    fail    cancel     expire
queued     assigned  .        queued  succeeded  failed  cancelled  expired
assigned   assigned  running  queued  succeeded  failed  cancelled  expired
running    assigned  running  queued  succeeded  failed  cancelled  expired
succeeded  .         .        .       .          .       .          .
failed     .         .        .       .          .       .          .
cancelled  .         .        .       .          .       .          .
expired    .         .        .       .          .       .          .
"""


def _steps() -> dict[tuple[JobState, JobEvent], JobState | None]:
    head, *rows = [line.split() for line in GRID.strip().splitlines()]
    return {
        (JobState(state), JobEvent(event)): None if cell == "." else JobState(cell)
        for state, *cells in rows
        for event, cell in zip(head, cells, strict=True)
    }


EXPECTED = _steps()
STEPS = sorted(pair for pair, end in EXPECTED.items() if end is not None)
REFUSED = sorted(pair for pair, end in EXPECTED.items() if end is None)


def test_the_grid_above_names_every_pair_of_state_and_event():
    assert set(EXPECTED) == set(product(JobState, JobEvent))


@pytest.mark.parametrize(("state", "event"), STEPS)
def test_a_step_of_the_table_leads_where_the_grid_says(state: JobState, event: JobEvent):
    assert advance(state, event) is EXPECTED[state, event]


@pytest.mark.parametrize(("state", "event"), REFUSED)
def test_a_step_the_table_lacks_raises_and_nothing_changes(state: JobState, event: JobEvent):
    before = dict(TRANSITIONS)
    with pytest.raises(InvalidTransition) as refused:
        advance(state, event)
    assert before == TRANSITIONS
    assert state.value in str(refused.value)
    assert event.value in str(refused.value)


def test_i1_no_event_leads_out_of_a_terminal_state():
    assert {state for state, _ in TRANSITIONS} == set(JobState) - TERMINAL
    assert {"succeeded", "failed", "cancelled", "expired"} == TERMINAL


@pytest.mark.parametrize("state", sorted(set(JobState) - TERMINAL))
def test_i1_every_end_is_open_to_a_job_that_has_not_ended(state: JobState):
    ends = {end for (start, _), end in TRANSITIONS.items() if start is state}
    assert ends >= TERMINAL


LIMITS = {
    "timeout_ms": 30_000,
    "max_attempts": 3,
    "queue_limit": 1_000,
    "queue_timeout_ms": 10_000,
    "default_capacity": 4,
}


def test_a_job_may_wait_once_and_be_tried_to_the_end():
    assert JobLimits(**LIMITS).life_ms == 10_000 + 3 * 30_000


def test_a_slot_stays_reserved_longer_than_the_attempt_may_take():
    assert JobLimits(**LIMITS).reservation_ms > 30_000


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize(
    ("field", "setting"),
    [
        ("timeout_ms", "SCHED_JOB_TIMEOUT_MS"),
        ("max_attempts", "SCHED_JOB_MAX_ATTEMPTS"),
        ("queue_limit", "SCHED_QUEUE_LIMIT"),
        ("queue_timeout_ms", "SCHED_QUEUE_TIMEOUT_MS"),
        ("default_capacity", "SCHED_MAX_JOBS_PER_NODE"),
    ],
)
def test_a_limit_below_one_is_refused_by_its_setting(field: str, setting: str, value: int):
    with pytest.raises(ValueError, match=f"{setting} is {value}"):
        JobLimits(**{**LIMITS, field: value})
