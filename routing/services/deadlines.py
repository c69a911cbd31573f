"""What must happen to a job by when, as this process remembers it.

An in-memory heap on the local monotonic clock; the store's own deadline is what another instance
goes by when this one is gone. What comes due is only a reason to look at the stored job.
"""

import heapq
from collections.abc import Iterable
from itertools import count, islice
from typing import NamedTuple

from registry.services.ports import Clock


class Watched(NamedTuple):
    """A job to be looked at: has it got beyond this attempt, and beyond waiting for a slot?

    `last` marks the end of the job's whole life. `watch` tells the job's time of being watched
    from a later one, after it was forgotten.
    """

    due_ms: int
    job_id: str
    attempt: int
    queued: bool
    last: bool
    watch: int


class Minded(NamedTuple):
    """A job that is watched, and for how long by now."""

    job_id: str
    for_ms: int


class _Watch:
    __slots__ = ("left", "number", "since_ms")

    def __init__(self, number: int, since_ms: int) -> None:
        self.number = number
        self.since_ms = since_ms
        self.left = 0


class Deadlines:
    """A heap of what is due when. Forgetting is O(1); entries are dropped when they surface."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[Watched] = []
        self._watches: dict[str, _Watch] = {}
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._watches)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._watches

    def jobs(self) -> Iterable[str]:
        """The jobs that are watched."""
        return self._watches.keys()

    def longest(self, count: int) -> list[Minded]:
        """The jobs that have been watched for the longest time."""
        now_ms = self._clock()
        return [
            Minded(job_id, now_ms - watch.since_ms)
            for job_id, watch in islice(self._watches.items(), count)
        ]

    def add(
        self,
        job_id: str,
        *,
        attempt: int,
        within_ms: int,
        queued: bool = False,
        last: bool = False,
    ) -> None:
        now_ms = self._clock()
        watch = self._watches.get(job_id)
        if watch is None:
            watch = self._watches[job_id] = _Watch(next(self._numbers), now_ms)
        watch.left += 1
        due_ms = now_ms + within_ms
        heapq.heappush(self._heap, Watched(due_ms, job_id, attempt, queued, last, watch.number))

    def forget(self, job_id: str) -> None:
        """The job ended: nothing of it comes due any more."""
        self._watches.pop(job_id, None)

    def pending(self) -> list[Watched]:
        """All that is to come."""
        return [watched for watched in self._heap if self._counts(watched)]

    def due(self) -> list[Watched]:
        """Take out what is due now."""
        now_ms = self._clock()
        found: list[Watched] = []
        while self._heap and self._heap[0].due_ms <= now_ms:
            watched = heapq.heappop(self._heap)
            if not self._counts(watched):
                continue
            watch = self._watches[watched.job_id]
            watch.left -= 1
            if not watch.left:
                del self._watches[watched.job_id]
            found.append(watched)
        return found

    def _counts(self, watched: Watched) -> bool:
        watch = self._watches.get(watched.job_id)
        return watch is not None and watch.number == watched.watch
