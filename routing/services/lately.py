"""Which tasks ended here lately: a ring in this process's memory, for people to look at.

A task ends where its node is, mostly. Filling the ring costs one reading of the clock a task.

Not promised: a task that ended during an outage of the store, or by the hand of a dead process.
"""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from registry.services.ports import Clock

KEPT = 500


class Ended(NamedTuple):
    """A task that ended. `at_ms` is wall time here, for people.

    `held_ms` is how long its node had it; None where the node did not end it, or is not ours.
    """

    at_ms: int
    job_id: str
    state: str
    attempt: int
    node_id: str
    held_ms: int | None


class Lately:
    """The last tasks that this process ended."""

    def __init__(self, wall_clock: Clock, *, kept: int = KEPT) -> None:
        self._wall_clock = wall_clock
        self._ring: deque[Ended] = deque(maxlen=kept)

    def __len__(self) -> int:
        return len(self._ring)

    def __iter__(self) -> Iterator[Ended]:
        """The newest first."""
        return reversed(self._ring)

    def note(
        self, job_id: str, state: str, *, attempt: int, node_id: str, held_ms: int | None
    ) -> None:
        self._ring.append(Ended(self._wall_clock(), job_id, state, attempt, node_id, held_ms))
