"""Queues in memory."""

from collections import defaultdict
from collections.abc import Sequence

from registry.store.memory import MemoryServer

Rank = tuple[int, int]
"""What goes first is smaller: ten less the priority, then the time of acceptance."""


class QueueState:
    """The rank of each waiting job, by queue."""

    def __init__(self, server: MemoryServer) -> None:
        self.queues: defaultdict[str, dict[str, Rank]] = defaultdict(dict)


class MemoryQueueStore:
    """Implements `QueueStore`."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    @property
    def _queues(self) -> defaultdict[str, dict[str, Rank]]:
        return self._server.state(QueueState).queues

    async def put(
        self, queue: str, *, job_id: str, priority: int, accepted_ms: int, limit: int
    ) -> bool:
        waiting = self._queues[queue]
        if job_id not in waiting and len(waiting) >= limit:
            return False
        waiting.setdefault(job_id, (10 - priority, accepted_ms))
        return True

    async def lengths(self) -> dict[str, int]:
        return {queue: len(waiting) for queue, waiting in self._queues.items() if waiting}

    async def pull(self, queues: Sequence[str]) -> str | None:
        heads = [(self._head(queue), queue) for queue in queues if self._queues[queue]]
        if not heads:
            return None
        # Of equal ranks in two queues the one that was named first goes first.
        (_, job_id), queue = min(heads, key=lambda head: head[0][0])
        del self._queues[queue][job_id]
        return job_id

    async def leave(self, queue: str, *, job_id: str) -> bool:
        return self._queues[queue].pop(job_id, None) is not None

    def _head(self, queue: str) -> tuple[Rank, str]:
        return min((rank, job_id) for job_id, rank in self._queues[queue].items())
