"""Giving one attempt of a job to one node: reserve, note, hand over.

The order matters. The slot is reserved first, so that no node gets more than it can hold; then
the job notes its node, so that only that node's result counts; then the frame goes out. Dying in
between leaves a reservation that expires and a job that its deadline brings up again.

A node that has acknowledged a job on this connection is expected to acknowledge them all: an
attempt that it says no word of in time has failed. Others are held to the attempt's time only.
"""

from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from registry.services.membership import LocalNode, Membership
from registry.services.ports import Clock
from routing.domain import decision, wire
from routing.domain.job import TERMINAL
from routing.domain.outcome import Envelope, EnvelopeKind, StoredJob
from routing.domain.shortlist import Shortlist
from routing.services.delivery import Delivery
from routing.services.persist import persist
from routing.services.ports import JobStore
from routing.services.slots import Slots

log = structlog.get_logger(__name__)

Undelivered = Callable[..., Awaitable[None]]


@dataclass(slots=True)
class Held:
    """An attempt that a node of this instance holds. It is `owed` a word until the node says one.

    Only nodes that acknowledge owe one. `since_ms` is when it got it, or came back with it.
    """

    attempt: int
    origin: str
    since_ms: int
    owed: bool = False


class Unheard(NamedTuple):
    """An attempt that a node did not acknowledge in time."""

    due_ms: int
    node_id: str
    job_id: str
    attempt: int


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
        ack_timeout_ms: int,
        clock: Clock,
    ) -> None:
        self._jobs = jobs
        self._slots = slots
        self._delivery = delivery
        self._membership = membership
        self._instance_id = instance_id
        self._ack_timeout_ms = ack_timeout_ms
        self._clock = clock
        self._running: defaultdict[str, dict[str, Held]] = defaultdict(dict)
        # One time-out for all, so they come due in the order they were begun.
        self._unheard: deque[Unheard] = deque()
        self.on_undelivered: Undelivered = _nobody
        delivery.on(EnvelopeKind.ASSIGN, self._on_assign)
        delivery.on(EnvelopeKind.CONFIRM, self._on_confirm)

    @property
    def running(self) -> int:
        """Attempts that nodes of this instance hold."""
        return sum(map(len, self._running.values()))

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

    async def confirm(self, job: StoredJob, instance_id: str) -> bool:
        """Make sure that a node got what it was given, by its instance; False when that is gone."""
        envelope = Envelope(
            EnvelopeKind.CONFIRM,
            job.node_id,
            b"",
            job.job_id,
            job.attempt,
            sender=self._instance_id,
        )
        return await persist(lambda: self._delivery.send(instance_id, envelope), what="confirm")

    def is_local(self, instance_id: str) -> bool:
        return instance_id == self._instance_id

    def origin(self, node_id: str, job_id: str) -> str | None:
        """The instance that assigned a job which a node of ours holds."""
        held = self._held(node_id, job_id)
        return held.origin if held else None

    def holds(self, node_id: str, job_id: str, attempt: int) -> bool:
        held = self._held(node_id, job_id)
        return held is not None and held.attempt == attempt

    def held_for_ms(self, node_id: str, job_id: str, attempt: int) -> int | None:
        """How long a node of ours has held this attempt; None when it does not."""
        held = self._held(node_id, job_id)
        if held is None or held.attempt != attempt:
            return None
        return self._clock() - held.since_ms

    def attempt_of(self, node_id: str, job_id: str) -> int | None:
        """Which attempt of a job a node of ours holds."""
        held = self._held(node_id, job_id)
        return held.attempt if held else None

    def held_by(self, node_id: str) -> dict[str, Held]:
        """What a node of ours holds, by job."""
        return dict(self._running.get(node_id, {}))

    def adopt(self, node_id: str, job_id: str, attempt: int, *, origin: str = "") -> None:
        """A node that came back says that it still works on this attempt."""
        self._running[node_id][job_id] = Held(attempt, origin or self._instance_id, self._clock())

    def let_go(self, node_id: str) -> dict[str, Held]:
        """Forget all that a node of ours held, as its connection is gone; returns it."""
        return self._running.pop(node_id, {})

    def forget(self, node_id: str, job_id: str) -> None:
        held = self._running.get(node_id)
        if held is not None:
            held.pop(job_id, None)
            if not held:
                del self._running[node_id]

    def heard(self, node: LocalNode, job_id: str, attempt: int | None = None) -> None:
        """The node spoke of a job it holds; of an attempt, where it named one."""
        held = self._held(node.snapshot.node_id, job_id)
        if held is not None and attempt in (None, held.attempt):
            held.owed = False

    def acknowledged(self, node: LocalNode, job_id: str, attempt: int) -> None:
        """The node acknowledged a job, and will be held to doing so from now on."""
        if self.holds(node.snapshot.node_id, job_id, attempt):
            node.acknowledges = True
            self.heard(node, job_id, attempt)

    def unheard(self) -> list[Unheard]:
        """Take out the attempts of which their nodes said no word in time."""
        now_ms = self._clock()
        found: list[Unheard] = []
        while self._unheard and self._unheard[0].due_ms <= now_ms:
            unheard = self._unheard.popleft()
            held = self._held(unheard.node_id, unheard.job_id)
            if held is not None and held.attempt == unheard.attempt and held.owed:
                found.append(unheard)
        return found

    def _held(self, node_id: str, job_id: str) -> Held | None:
        return self._running.get(node_id, {}).get(job_id)

    async def _on_assign(self, envelope: Envelope) -> None:
        node_id, job_id, attempt = envelope.subject, envelope.job_id, envelope.number
        if self.holds(node_id, job_id, attempt):
            return
        node = self._membership.local(node_id)
        if node is not None and node.link.send(envelope.body):
            now_ms, held = self._clock(), self._running[node_id]
            held[job_id] = Held(attempt, envelope.sender, now_ms, node.acknowledges)
            # Reserved by another instance, maybe: here, too, the slot is no longer free.
            self._membership.views.holds_at_least(node_id, len(held))
            if node.acknowledges:
                due_ms = now_ms + self._ack_timeout_ms
                self._unheard.append(Unheard(due_ms, node_id, job_id, attempt))
            return
        await self.on_undelivered(
            job_id, attempt, node_id=node_id, reason="the node left before it got the job"
        )

    async def _on_confirm(self, envelope: Envelope) -> None:
        """Whoever gave the attempt may have died before it was handed over."""
        node_id, job_id, attempt = envelope.subject, envelope.job_id, envelope.number
        if self.holds(node_id, job_id, attempt):
            return
        job = await self._jobs.get(job_id)
        if job is None or job.state in TERMINAL or job.payload is None:
            return
        if (job.attempt, job.node_id) == (attempt, node_id):
            frame = wire.job_assign(job.payload, job_id=job_id, attempt_id=attempt)
            await self._on_assign(
                Envelope(EnvelopeKind.ASSIGN, node_id, frame, job_id, attempt, envelope.sender)
            )


async def _nobody(job_id: str, attempt: int, *, node_id: str, reason: str) -> None:
    log.error("undelivered", job_id=job_id, attempt=attempt, node_id=node_id, reason=reason)
