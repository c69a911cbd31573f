"""Jobs that wait for a slot: into the queue, and out of it when a node has room.

A freed slot pulls in the same turn in which it is freed, and a flow that begins to wait makes
every instance offer it to its nodes with room; nothing polls. A pulled job is under a lease until
it is given to the node or has ended, so that it is not lost with the process that pulled it: when
the lease has run out, any instance puts it back into its place.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from registry.domain.errors import StoreUnavailable
from registry.services.membership import LocalNode, Membership
from routing.domain.job import JobLimits
from routing.domain.outcome import Brief, Reserved, StoredJob
from routing.domain.queueing import Flow, Lease, QueueFull, flow_of, flow_of_job, member_of
from routing.services.assignment import Assignment
from routing.services.backlog import Backlog
from routing.services.placement import Placement
from routing.services.ports import JobStore, QueueStore
from routing.services.slots import Slots
from routing.services.tenants import Tenants

LEASE_MS = 5_000
"""Far longer than a claim takes, and shorter than anyone waits in vain."""

MOST_AT_ONCE = 32
"""Jobs of one pull."""

SIDE_BY_SIDE = 4
"""Nodes that are offered something at once: most often one job is there, and the first gets it."""

SLICE = 200
"""Nodes whose slots are read at once."""

RETRY_AFTER_MS = 1_000
SHORTEST_RETRY_MS = 100


class Waiting:
    """The queues, as this instance uses them."""

    def __init__(
        self,
        queues: QueueStore,
        jobs: JobStore,
        slots: Slots,
        assignment: Assignment,
        placement: Placement,
        membership: Membership,
        backlog: Backlog,
        tenants: Tenants,
        *,
        limits: JobLimits,
        spawn: Callable[[Coroutine[Any, Any, object]], object],
    ) -> None:
        self._queues = queues
        self._jobs = jobs
        self._slots = slots
        self._assignment = assignment
        self._placement = placement
        self._membership = membership
        self._backlog = backlog
        self._tenants = tenants
        self._limits = limits
        self._spawn = spawn
        self._spoken_for: Counter[str] = Counter()

    # Into the queue, and out of it without a node.

    async def put(
        self, job_id: str, brief: Brief, *, attempt: int, accepted_ms: int
    ) -> QueueFull | None:
        """Queue a new job; None when it waits now."""
        flow = flow_of(brief)
        full = await self._queues.put(
            flow,
            member=member_of(job_id, attempt),
            accepted_ms=accepted_ms,
            limit=self._limits.queue_limit,
            weights=self._weights(brief.tenant),
        )
        if full is not None:
            self._backlog.refused(flow, full)
        return full

    async def put_back(self, job: StoredJob) -> None:
        """Queue a job that was accepted long ago: whatever the limit, in the place of its age."""
        await self._queues.put(
            flow_of_job(job),
            member=member_of(job.job_id, job.attempt),
            accepted_ms=job.accepted_ms,
        )

    async def leave(self, job: StoredJob) -> bool:
        return await self._queues.leave(flow_of_job(job), member=member_of(job.job_id, job.attempt))

    def must_queue(self, brief: Brief) -> bool:
        """Whether others wait before a new job: it must not overtake them."""
        return self._backlog.goes_before(brief.queue, priority=brief.priority)

    def refusal(self, brief: Brief) -> QueueFull | None:
        """How the job's tenant was refused a place, if that was just now."""
        return self._backlog.refusal(flow_of(brief))

    def retry_after_ms(self, full: QueueFull) -> int:
        """When to try a full queue again.

        The oldest job has waited as long as the queue takes to drain: its length over its rate.
        """
        if not full.oldest_ms:
            return RETRY_AFTER_MS
        return min(max(full.oldest_ms, SHORTEST_RETRY_MS), self._limits.queue_timeout_ms)

    @property
    def lengths(self) -> Mapping[Flow, int]:
        """Waiting jobs of the whole cluster by flow, at most a second old; for people."""
        return self._backlog.lengths

    # Out of the queue, to a node.

    async def follow(self) -> None:
        """Offer what begins to wait to our nodes with room. To be called again and again."""
        heard = await self._backlog.follow()
        for lease in heard.overdue:
            # Whoever pulled it died, or could not reach the store.
            await self._queues.give_back(lease)
        if heard.read:
            await self._count_full_nodes()
        if heard.began:
            await self.offer()

    async def offer(self) -> None:
        """Give what waits to our nodes with room, one each in turn, those with most room first."""
        vain: set[str] = set()
        while nodes := [n for n in self._with_room() if n.snapshot.node_id not in vain]:
            some = nodes[:SIDE_BY_SIDE]
            given = await asyncio.gather(*(self._fill(node, at_most=1) for node in some))
            vain.update(
                node.snapshot.node_id for node, took in zip(some, given, strict=True) if not took
            )

    async def fill(self, node: LocalNode) -> None:
        """Give waiting jobs to a node of ours while it has room for them."""
        while await self._fill(node, at_most=MOST_AT_ONCE):
            pass

    def anything_for(self, node_id: str) -> bool:
        """Whether something waits that the node may take, room or not."""
        return self._backlog.fits(node_id)

    async def take(self, node_id: str, *, freed: bool) -> list[Lease]:
        """Pull for a node of ours, while a slot of it is being released in this very turn.

        `freed` unless the slot was free already. To be given to the node by `give`.
        """
        self._speak_for(node_id, -int(freed))
        try:
            return await self._pull_if_possible(node_id)
        finally:
            self._speak_for(node_id, int(freed))

    async def give(self, leases: list[Lease], node: LocalNode) -> None:
        """Give pulled jobs to a node of ours, and whatever else it has room for."""
        await self._give_all(leases, node.snapshot.node_id)
        await self.fill(node)

    async def _count_full_nodes(self) -> None:
        """Read the slots of nodes that something waits for and that seem to be full.

        Slots that were freed by another instance, or have expired, are not seen here otherwise.
        """
        node_ids = [node.snapshot.node_id for node in self._membership.local_nodes()]
        full = [n for n in node_ids if self._room(n) < 1 and self._backlog.fitting(n)]
        for start in range(0, len(full), SLICE):
            await asyncio.gather(*map(self._slots.held, full[start : start + SLICE]))

    def _with_room(self) -> list[LocalNode]:
        nodes = [
            (room, node)
            for node in self._membership.local_nodes()
            if (room := self._room(node.snapshot.node_id)) > 0
            and self._backlog.fitting(node.snapshot.node_id)
        ]
        nodes.sort(key=lambda found: -found[0] / found[1].snapshot.max_concurrent_jobs)
        return [node for _, node in nodes]

    def _room(self, node_id: str) -> int:
        """Slots that neither a reservation holds nor a pull under way is for."""
        return self._placement.room(node_id, freed=-self._spoken_for[node_id])

    def _speak_for(self, node_id: str, slots: int) -> None:
        self._spoken_for[node_id] += slots
        if not self._spoken_for[node_id]:
            del self._spoken_for[node_id]

    async def _fill(self, node: LocalNode, *, at_most: int) -> bool:
        """Give a node what it has room for; False when there was nothing to give, or no room."""
        node_id = node.snapshot.node_id
        leases = await self._pull(node_id, at_most=at_most)
        return any(await self._give_all(leases, node_id))

    async def _pull_if_possible(self, node_id: str) -> list[Lease]:
        with contextlib.suppress(StoreUnavailable):
            return await self._pull(node_id, at_most=MOST_AT_ONCE)
        return []

    async def _pull(self, node_id: str, *, at_most: int) -> list[Lease]:
        """Take jobs for a node's free slots out of the queue. No store call if nothing waits."""
        if not self._backlog or (room := self._room(node_id)) < 1:
            return []
        flows = self._backlog.fitting(node_id)
        if not flows:
            return []
        count, since = min(room, at_most), self._backlog.turn
        leases: list[Lease] = []
        self._speak_for(node_id, count)
        try:
            pulled = await self._queues.pull(
                flows, weights=self._tenants.weights, count=count, lease_ms=LEASE_MS
            )
            leases = pulled.leases
            self._backlog.emptied(pulled.empty, since=since)
        finally:
            self._speak_for(node_id, len(leases) - count)
        return leases

    async def _give_all(self, leases: list[Lease], node_id: str) -> list[bool]:
        if len(leases) == 1:
            return [await self._give(leases[0], node_id)]
        return await asyncio.gather(*(self._give(lease, node_id) for lease in leases))

    async def _give(self, lease: Lease, node_id: str) -> bool:
        """Give a pulled job to the node. False when the node cannot have it: it waits again."""
        job_id, attempt = lease.job_id, lease.attempt
        why = self._placement.pulled(node_id, attempt=attempt, pool=lease.flow.pool)
        reserving = self._slots.reserve(node_id, job_id=job_id, attempt=attempt)
        self._speak_for(node_id, -1)  # From here on it counts as a reservation that is pending.
        held, job = await asyncio.gather(
            reserving, self._jobs.claim(job_id, attempt=attempt, node_id=node_id, decision=why)
        )
        if job is None or job.payload is None:
            # It ended, or someone else brought it further.
            if isinstance(held, Reserved) and held.fresh:
                await self._slots.release(node_id, job_id=job_id, attempt=attempt)
            await self._queues.settle(lease)
            return True
        if not isinstance(held, Reserved):
            # In this order: whoever pulls it can claim it.
            if await self._jobs.queue(job_id, attempt=attempt):
                await self._queues.put(
                    lease.flow, member=lease.member, accepted_ms=lease.accepted_ms
                )
            await self._queues.settle(lease)
            return False
        self._spawn(self._settle(lease))
        await self._assignment.hand_over(job_id, attempt, node_id, held.instance_id, job.payload)
        return True

    async def _settle(self, lease: Lease) -> None:
        # Where that fails the job waits again, and whoever pulls it finds that it does not.
        with contextlib.suppress(StoreUnavailable):
            await self._queues.settle(lease)

    def _weights(self, tenant: str) -> dict[str, int]:
        """The weights that matter where this tenant joins those that wait."""
        weights = self._tenants.weights
        if not weights:
            return {}
        names = {flow.tenant for flow in self._backlog} | {tenant}
        return {name: weights[name] for name in names if name in weights}
