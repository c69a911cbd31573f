"""Giving one attempt of a job to one node: reserve, note, hand over.

The order matters. The slot is reserved first, so that no node gets more than it can hold; then
the job notes its node, so that only that node's result counts; then the frame goes out. Dying in
between leaves a reservation that expires and a job that its deadline brings up again.
"""

from collections.abc import Awaitable, Callable

import structlog

from registry.services.membership import Membership
from routing.domain import decision, wire
from routing.domain.outcome import Envelope, EnvelopeKind, StoredJob
from routing.domain.shortlist import Shortlist
from routing.services.delivery import Delivery
from routing.services.persist import persist
from routing.services.ports import JobStore
from routing.services.slots import Slots

log = structlog.get_logger(__name__)

Undelivered = Callable[..., Awaitable[None]]


class Assignment:
    """Hands attempts to nodes, and knows which attempts the nodes of this instance hold."""

    def __init__(
        self,
        jobs: JobStore,
        slots: Slots,
        delivery: Delivery,
        membership: Membership,
        *,
        instance_id: str,
    ) -> None:
        self._jobs = jobs
        self._slots = slots
        self._delivery = delivery
        self._membership = membership
        self._instance_id = instance_id
        self._running: dict[tuple[str, str], tuple[int, str]] = {}
        self.on_undelivered: Undelivered = _nobody
        delivery.on(EnvelopeKind.ASSIGN, self._on_assign)

    @property
    def running(self) -> int:
        """Attempts that nodes of this instance hold."""
        return len(self._running)

    async def place(self, job: StoredJob, nodes: Shortlist, *, waited: bool = False) -> bool:
        """Give a stored job to the first of these nodes with room; False when none has."""
        attempt = max(job.attempt, 1)
        taken = await self._slots.reserve_one(nodes, job_id=job.job_id, attempt=attempt)
        if taken is None:
            return False
        node_id = taken.node_id
        why = decision.encode(nodes.decision(node_id, attempt=attempt, waited=waited))
        if job.payload is None or not await self._jobs.assign(
            job.job_id, expected=job.attempt, attempt=attempt, node_id=node_id, decision=why
        ):
            # It ended, or someone else brought it further.
            await self._slots.release(node_id, job_id=job.job_id, attempt=attempt)
            return True
        await self.hand_over(job.job_id, attempt, node_id, taken.held.instance_id, job.payload)
        return True

    async def hand_over(
        self, job_id: str, attempt: int, node_id: str, instance_id: str, payload: bytes
    ) -> None:
        """Bring the frame to the instance that holds the node's socket."""
        frame = wire.job_assign(payload, job_id=job_id, attempt_id=attempt)
        envelope = Envelope(
            EnvelopeKind.ASSIGN, node_id, frame, job_id, attempt, sender=self._instance_id
        )
        # Sent twice when only the reply was lost: `_on_assign` acts on an attempt once.
        sent = await persist(lambda: self._delivery.send(instance_id, envelope), what="assign")
        if not sent:
            await self.on_undelivered(
                job_id, attempt, node_id=node_id, reason="the node's instance is gone"
            )

    def is_local(self, instance_id: str) -> bool:
        return instance_id == self._instance_id

    def origin(self, node_id: str, job_id: str) -> str | None:
        """The instance that assigned a job which a node of ours holds."""
        held = self._running.get((node_id, job_id))
        return held[1] if held else None

    def holds(self, node_id: str, job_id: str, attempt: int) -> bool:
        held = self._running.get((node_id, job_id))
        return held is not None and held[0] == attempt

    def adopt(self, node_id: str, job_id: str, attempt: int) -> None:
        """A node that came back says that it still works on this attempt."""
        self._running[node_id, job_id] = (attempt, self._instance_id)

    def forget(self, node_id: str, job_id: str) -> None:
        self._running.pop((node_id, job_id), None)

    async def _on_assign(self, envelope: Envelope) -> None:
        node_id, job_id, attempt = envelope.subject, envelope.job_id, envelope.number
        if self.holds(node_id, job_id, attempt):
            return
        node = self._membership.local(node_id)
        if node is not None and node.link.send(envelope.body):
            self._running[node_id, job_id] = (attempt, envelope.sender)
            return
        await self.on_undelivered(
            job_id, attempt, node_id=node_id, reason="the node left before it got the job"
        )


async def _nobody(job_id: str, attempt: int, *, node_id: str, reason: str) -> None:
    log.error("undelivered", job_id=job_id, attempt=attempt, node_id=node_id, reason=reason)
