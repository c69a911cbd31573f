"""A job's life, from the accepted utterance to its one terminal message.

The table below is what the Lua verbs of `routing.store` enforce; a test walks both. The attempt
number fences: news of an older attempt changes nothing.
"""

from dataclasses import dataclass
from enum import StrEnum

from registry.domain.errors import InvalidTransition

DEFAULT_PRIORITY = 5
"""Of 0 to 9; 9 goes first."""


class JobState(StrEnum):
    QUEUED = "queued"
    ASSIGNED = "assigned"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class JobEvent(StrEnum):
    ASSIGN = "assign"  # a slot is reserved for the next attempt
    START = "start"  # the node says that it works on it
    QUEUE = "queue"  # no slot is free: wait for one
    SUCCEED = "succeed"
    FAIL = "fail"
    CANCEL = "cancel"
    EXPIRE = "expire"


TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})

# A job is accepted as queued or as assigned, goes back and forth between the two while attempts
# fail, and ends once. A terminal state takes no event: whoever comes second changes nothing.
TRANSITIONS: dict[tuple[JobState, JobEvent], JobState] = {
    (JobState.QUEUED, JobEvent.ASSIGN): JobState.ASSIGNED,
    (JobState.QUEUED, JobEvent.QUEUE): JobState.QUEUED,
    (JobState.ASSIGNED, JobEvent.ASSIGN): JobState.ASSIGNED,
    (JobState.ASSIGNED, JobEvent.START): JobState.RUNNING,
    (JobState.ASSIGNED, JobEvent.QUEUE): JobState.QUEUED,
    (JobState.RUNNING, JobEvent.ASSIGN): JobState.ASSIGNED,
    (JobState.RUNNING, JobEvent.START): JobState.RUNNING,
    (JobState.RUNNING, JobEvent.QUEUE): JobState.QUEUED,
    **{
        (state, event): end
        for state in (JobState.QUEUED, JobState.ASSIGNED, JobState.RUNNING)
        for event, end in (
            (JobEvent.SUCCEED, JobState.SUCCEEDED),
            (JobEvent.FAIL, JobState.FAILED),
            (JobEvent.CANCEL, JobState.CANCELLED),
            (JobEvent.EXPIRE, JobState.EXPIRED),
        )
    },
}


def advance(state: JobState, event: JobEvent) -> JobState:
    """The state after `event`; raises InvalidTransition when the table has no such step."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise InvalidTransition(f"a job that is {state} cannot take '{event}'") from None


@dataclass(frozen=True, slots=True)
class JobLimits:
    """How long a job may take and how often it may be tried. Times in ms."""

    timeout_ms: int
    max_attempts: int
    queue_limit: int
    queue_timeout_ms: int
    default_capacity: int

    def __post_init__(self) -> None:
        for name, value in (
            ("SCHED_JOB_TIMEOUT_MS", self.timeout_ms),
            ("SCHED_JOB_MAX_ATTEMPTS", self.max_attempts),
            ("SCHED_QUEUE_LIMIT", self.queue_limit),
            ("SCHED_QUEUE_TIMEOUT_MS", self.queue_timeout_ms),
            ("SCHED_MAX_JOBS_PER_NODE", self.default_capacity),
        ):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")

    @property
    def life_ms(self) -> int:
        """How long a job may take in all when its session sets no deadline."""
        return self.queue_timeout_ms + self.timeout_ms * self.max_attempts

    @property
    def reservation_ms(self) -> int:
        """How long a slot stays reserved for an attempt: its timeout, and time to hear of it."""
        return self.timeout_ms + 5000
