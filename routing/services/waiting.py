"""Jobs that wait for a slot: into the queue, and out of it when a node has room.

A freed slot pulls; nothing polls. Whoever queues a job looks once more afterwards, so that a slot
freed in between is not missed, and a slow safety net looks at every local node.
"""

from collections.abc import Sequence

from registry.services.membership import LocalNode, Membership
from routing.domain.job import JobState
from routing.domain.outcome import Brief, StoredJob, refused_by
from routing.services.assignment import Assignment
from routing.services.placement import Placement
from routing.services.ports import JobStore, QueueStore

UNLIMITED = 2**31


class Waiting:
    """The queues, as this instance uses them."""

    def __init__(
        self,
        queues: QueueStore,
        jobs: JobStore,
        assignment: Assignment,
        placement: Placement,
        membership: Membership,
    ) -> None:
        self._queues = queues
        self._jobs = jobs
        self._assignment = assignment
        self._placement = placement
        self._membership = membership

    async def put(self, job_id: str, brief: Brief, *, accepted_ms: int, limit: int) -> bool:
        """Queue a job; False when its queue is full."""
        return await self._queues.put(
            brief.queue,
            job_id=job_id,
            priority=brief.priority,
            accepted_ms=accepted_ms,
            limit=limit,
        )

    async def put_back(self, job: StoredJob) -> None:
        """Queue a job that was accepted long ago: whatever the limit, in the place of its age."""
        await self.put(job.job_id, job.brief, accepted_ms=job.accepted_ms, limit=UNLIMITED)

    async def leave(self, job: StoredJob) -> bool:
        return await self._queues.leave(job.brief.queue, job_id=job.job_id)

    async def lengths(self) -> dict[str, int]:
        return await self._queues.lengths()

    async def look_again(self, job_id: str) -> None:
        """Place a job that was just queued if a slot became free meanwhile."""
        job = await self._jobs.get(job_id)
        if job is None or job.state != JobState.QUEUED:
            return
        plan = self._placement.plan(job.brief.src, job.brief.tgt)
        if plan and plan.nodes and await self.leave(job):
            await self._place_or_put_back(job, plan.nodes)

    async def fill(self, node: LocalNode) -> None:
        """Give waiting jobs to a node of ours while it has room for them."""
        node_id = node.snapshot.node_id
        refused: list[StoredJob] = []
        await self._fill(node_id, refused)
        for job in refused:
            await self.put_back(job)

    async def _fill(self, node_id: str, refused: list[StoredJob]) -> None:
        while self._placement.can_take(node_id):
            lengths = await self._queues.lengths()
            fitting = [queue for queue in lengths if self._fits(node_id, queue)]
            job_id = await self._queues.pull(fitting)
            if job_id is None:
                return
            job = await self._jobs.get(job_id)
            if job is None or job.state != JobState.QUEUED:
                continue
            if node_id in refused_by(job.history):
                refused.append(job)
            else:
                await self._place_or_put_back(job, [node_id])

    async def fill_all(self) -> None:
        """The safety net: offer what waits to every local node once."""
        if await self._queues.lengths():
            for node in self._membership.local_nodes():
                await self.fill(node)

    async def _place_or_put_back(self, job: StoredJob, nodes: Sequence[str]) -> None:
        refused = refused_by(job.history)
        if not await self._assignment.place(job, [node for node in nodes if node not in refused]):
            await self.put_back(job)

    def _fits(self, node_id: str, queue: str) -> bool:
        src, _, tgt = queue.partition(">")
        return self._placement.serves(node_id, src, tgt)
