"""Nodes that went, and nodes that came back; and work whose minder died.

A lost node's work is tried elsewhere at once, unless there is reason to expect the node back: its
instance is going down, or operators set a grace. Then whoever minds each job is told, and looks
again when the grace is over. A node that comes back and names what it works on keeps all that was
given to nobody else meanwhile.

What is looked at again is confirmed, not assumed: the slot is reserved once more (which changes
nothing where it is held), and the node's instance makes sure that the node got the job. So an
assignment that died on its way is made good, and one that arrived is left alone.

Not promised: that no work is done twice. A result counts once, by its attempt.
"""

import asyncio

import structlog

from registry.domain.errors import InvalidIdentifier
from registry.domain.ids import split_job_id
from registry.services.membership import LocalNode, Membership
from routing.domain import wire
from routing.domain.job import TERMINAL, JobState
from routing.domain.outcome import Envelope, EnvelopeKind, Reserved, StoredJob
from routing.domain.patience import Patience
from routing.services import assignment
from routing.services.assignment import Assignment
from routing.services.deadlines import Deadlines
from routing.services.delivery import Delivery
from routing.services.persist import persist
from routing.services.ports import JobStore, SessionStore
from routing.services.retries import Retries
from routing.services.slots import Slots
from routing.services.waiting import Waiting

log = structlog.get_logger(__name__)

Held = tuple[str, int]
"""A job id and an attempt."""


class Losses:
    """What becomes of the work of nodes that come and go."""

    def __init__(
        self,
        jobs: JobStore,
        sessions: SessionStore,
        slots: Slots,
        waiting: Waiting,
        attempts: Assignment,
        retries: Retries,
        delivery: Delivery,
        membership: Membership,
        doubts: Deadlines,
        *,
        patience: Patience,
        instance_id: str,
    ) -> None:
        self._jobs = jobs
        self._sessions = sessions
        self._slots = slots
        self._waiting = waiting
        self._assignment = attempts
        self._retries = retries
        self._delivery = delivery
        self._membership = membership
        self._doubts = doubts
        self._patience = patience
        self._instance_id = instance_id
        delivery.on(EnvelopeKind.LEFT, self.left)

    def expect(self, node_id: str, running: set[Held]) -> None:
        """A node that is about to register names what it works on.

        Noted before anyone can send it the same once more, unless it is registered here already:
        then it may be another machine under its id.
        """
        if self._membership.local(node_id) is None:
            for job_id, attempt in running:
                self._assignment.adopt(node_id, job_id, attempt)

    def unexpected(self, node_id: str) -> None:
        """It was not registered after all."""
        if self._membership.local(node_id) is None:
            self._assignment.let_go(node_id)

    async def node_joined(self, node: LocalNode, running: set[Held], before: set[Held]) -> None:
        """A node (re)connected: try again what it was given and no longer works on; fill it.

        `before` is what it held before it registered: what was given to it since is under way.
        """
        node_id = node.snapshot.node_id
        for job_id, held in self._assignment.held_by(node_id).items():
            # From a connection before this one, on this instance.
            if (job_id, held.attempt) in before - running:
                self._assignment.forget(node_id, job_id)
        dropped = (
            self._retries.try_again(
                job_id, attempt, node_id=node_id, reason="the node came back without the job"
            )
            for job_id, attempt in before - running
        )
        await asyncio.gather(*dropped, *(self._keep(node, *one) for one in running))
        await self._waiting.fill(node)

    def let_go(self, node: LocalNode) -> dict[str, assignment.Held]:
        """The node's connection is gone: what it held here, unless another connection does."""
        node_id = node.snapshot.node_id
        if self._membership.local(node_id) is not node:
            return {}
        return self._assignment.let_go(node_id)

    async def node_left(
        self, node_id: str, *, grace_ms: int, known: dict[str, assignment.Held] | None = None
    ) -> None:
        """A node is gone: its work is tried elsewhere, now or when its grace is over.

        What a node that acknowledges jobs had not acknowledged, as is `known` here, waits for
        nobody.
        """
        known = known or {}
        held = await persist(lambda: self._slots.held(node_id), what="held slots")
        owed = {(job_id, held.attempt) for job_id, held in known.items() if held.owed}
        at_once = held & owed if grace_ms else held
        await asyncio.gather(
            *(self._lost(node_id, *one) for one in at_once),
            *(self._wait(node_id, *one, grace_ms=grace_ms) for one in held - at_once),
        )

    async def inherit(self, session_id: str, *, grace_ms: int) -> None:
        """Mind a session whose minder is gone, and make sure that each of its jobs is on its way.

        A job that was to be queued is queued; one that was given to a node is confirmed.
        """
        jobs = await self._retries.watch_session(session_id)
        await asyncio.gather(*(self._pursue(job, grace_ms=grace_ms) for job in jobs))

    async def pass_on(self) -> None:
        """This process goes: have those who mind the jobs now look again in its stead.

        Those of sessions that nobody has taken over are found by whoever does.
        """
        doubts = self._doubts.pending()
        for doubt in doubts:
            job = await self._jobs.get(doubt.job_id)
            if job is not None and job.state not in TERMINAL:
                grace_ms = self.return_ms
                await self._wait(job.node_id, doubt.job_id, doubt.attempt, grace_ms=grace_ms)

    async def turn(self) -> None:
        """Look again at what waited for its node's return. Raises StoreUnavailable."""
        due = self._doubts.due()
        looks = (self._look_again(doubt.job_id, doubt.attempt) for doubt in due)
        outcomes = await asyncio.gather(*looks, return_exceptions=True)
        failed = [
            (doubt, outcome)
            for doubt, outcome in zip(due, outcomes, strict=True)
            if isinstance(outcome, BaseException)
        ]
        for doubt, _ in failed:
            self._doubts.add(doubt.job_id, attempt=doubt.attempt, within_ms=0)
        if failed:
            raise failed[0][1]

    async def _keep(self, node: LocalNode, job_id: str, attempt: int) -> None:
        """Let a node go on with what it names, if nobody else was given it meanwhile."""
        node_id = node.snapshot.node_id
        try:
            split_job_id(job_id)
        except InvalidIdentifier:
            self._assignment.forget(node_id, job_id)
            return
        before = await self._jobs.get(job_id)
        if before is not None and before.state not in TERMINAL:
            # First the slot: what the node works on takes one, whoever else would like it.
            reserved = await self._slots.reserve(node_id, job_id=job_id, attempt=attempt)
            if isinstance(reserved, Reserved) and await self._jobs.take_back(
                job_id, attempt=attempt, node_id=node_id
            ):
                await self._kept(node_id, attempt, before)
                return
        node.link.send(wire.job_cancel(job_id, reason="it ended, or another node has it by now"))
        # Fenced: where the attempt is current it was not kept for want of a slot.
        await self._retries.try_again(
            job_id, attempt, node_id=node_id, reason="the node came back and had no slot for it"
        )

    async def _kept(self, node_id: str, attempt: int, before: StoredJob) -> None:
        job_id = before.job_id
        if before.state == JobState.QUEUED:
            log.info("job taken back", job_id=job_id, attempt=attempt, node_id=node_id)
            await self._waiting.leave(before)
        session = await self._sessions.get(split_job_id(job_id)[0])
        origin = session.instance_id if session is not None else ""
        self._assignment.adopt(node_id, job_id, attempt, origin=origin)

    async def _lost(self, node_id: str, job_id: str, attempt: int) -> None:
        if self._assignment.holds(node_id, job_id, attempt):
            return  # It is back already, and here.
        await self._retries.try_again(job_id, attempt, node_id=node_id, reason="the node left")

    async def _wait(self, node_id: str, job_id: str, attempt: int, *, grace_ms: int) -> None:
        """Have whoever minds the job look again when its node's grace is over.

        If that is nobody who lives, the leader's sweep finds the session, and does the same.
        """
        session_id = split_job_id(job_id)[0]
        session = await persist(lambda: self._sessions.get(session_id), what="session of a job")
        if session is None:
            return
        left = Envelope(
            EnvelopeKind.LEFT,
            session_id,
            str(grace_ms).encode(),
            job_id,
            attempt,
            self._instance_id,
            node_id,
        )
        await persist(lambda: self._delivery.send(session.instance_id, left), what="node left")

    async def left(self, envelope: Envelope) -> None:
        """A node went that may come back: look again when its grace is over."""
        within_ms = int(envelope.body)
        self._doubts.add(envelope.job_id, attempt=envelope.number, within_ms=within_ms)

    async def _look_again(self, job_id: str, attempt: int) -> None:
        job = await self._jobs.get(job_id)
        if job is not None and job.state not in TERMINAL and job.attempt == attempt:
            await self._pursue(job, grace_ms=0)

    async def _pursue(self, job: StoredJob, *, grace_ms: int) -> None:
        log.info("job looked after", job_id=job.job_id, attempt=job.attempt, node_id=job.node_id)
        if job.state == JobState.QUEUED:
            await self._waiting.put_back(job)
            await self._waiting.offer()
            return
        held = await self._slots.reserve(job.node_id, job_id=job.job_id, attempt=job.attempt)
        if isinstance(held, Reserved) and await self._assignment.confirm(job, held.instance_id):
            return
        if grace_ms:
            self._doubts.add(job.job_id, attempt=job.attempt, within_ms=grace_ms)
            return
        await self._retries.try_again(
            job.job_id, job.attempt, node_id=job.node_id, reason="the node left"
        )

    @property
    def grace_ms(self) -> int:
        """How long the work of a node that broke off waits for it."""
        return self._patience.node_grace_ms

    @property
    def return_ms(self) -> int:
        """The same for a node that was sent away, or whose instance died."""
        return self._patience.return_ms
