"""What must happen to a job by when, as this process remembers it.

An in-memory heap on the local monotonic clock; the store's own deadline is what another instance
goes by when this one is gone. What comes due is only a reason to look at the stored job.
"""

import heapq
from collections import Counter
from typing import NamedTuple

from registry.services.ports import Clock


class Watched(NamedTuple):
    """A job to be looked at: has it got beyond this attempt, and beyond waiting for a slot?

    `last` marks the end of the job's whole life.
    """

    due_ms: int
    job_id: str
    attempt: int
    queued: bool
    last: bool


class Deadlines:
    """A heap of what is due when. Forgetting is O(1); entries are dropped when they surface."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[Watched] = []
        self._live: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._live

    def add(
        self,
        job_id: str,
        *,
        attempt: int,
        within_ms: int,
        queued: bool = False,
        last: bool = False,
    ) -> None:
        self._live[job_id] += 1
        due_ms = self._clock() + within_ms
        heapq.heappush(self._heap, Watched(due_ms, job_id, attempt, queued, last))

    def forget(self, job_id: str) -> None:
        """The job ended: nothing of it comes due any more."""
        self._live.pop(job_id, None)

    def due(self) -> list[Watched]:
        """Take out what is due now."""
        now_ms = self._clock()
        found: list[Watched] = []
        while self._heap and self._heap[0].due_ms <= now_ms:
            watched = heapq.heappop(self._heap)
            if watched.job_id in self._live:
                found.append(watched)
        return found
