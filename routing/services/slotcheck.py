"""Slots that nobody uses: reservations whose job ended, or moved on, without giving them back.

A process that dies between ending a job and freeing its slot leaves one behind, until it expires.
Each heartbeat tells how many jobs the node runs; where that differs from what is reserved, twice
in a row, the reservations that were there both times are compared with their jobs. A younger one
may belong to a job that is just being written.
"""

import asyncio

import structlog

from routing.domain.job import TERMINAL
from routing.services.ports import JobStore
from routing.services.slots import Slots

log = structlog.get_logger(__name__)

Held = tuple[str, int]


class SlotCheck:
    """Compares what is reserved with what runs."""

    def __init__(self, jobs: JobStore, slots: Slots) -> None:
        self._jobs = jobs
        self._slots = slots
        self._differed: dict[str, set[Held]] = {}
        self.repaired = 0

    def doubtful(self, node_id: str, held: set[Held], *, running: int) -> set[Held]:
        """The reservations to be looked at now: none, unless the numbers differ once more."""
        before = self._differed.pop(node_id, set())
        if len(held) == running:
            return set()
        self._differed[node_id] = held
        return before & held

    def forget(self, node_id: str) -> None:
        self._differed.pop(node_id, None)

    async def repair(self, node_id: str, doubtful: set[Held]) -> int:
        """Free those of a node's reservations that no job uses; returns how many."""
        freed = await asyncio.gather(*(self._repair(node_id, *one) for one in doubtful))
        self.repaired += sum(freed)
        return sum(freed)

    async def _repair(self, node_id: str, job_id: str, attempt: int) -> bool:
        job = await self._jobs.get(job_id)
        current = (job.attempt, job.node_id) if job and job.state not in TERMINAL else None
        if current == (attempt, node_id):
            return False
        await self._slots.release(node_id, job_id=job_id, attempt=attempt)
        log.warning("slot freed", node_id=node_id, job_id=job_id, attempt=attempt)
        return True
