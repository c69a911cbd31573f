"""An utterance comes in: written as a job, given to a node or queued, and acknowledged.

The job is written and its first slot reserved in one turn, before anyone hears of either. What is
acknowledged is in the store.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import structlog

from registry.domain.ids import job_id as job_id_of
from routing.domain import decision, wire
from routing.domain.errors import ErrorCode
from routing.domain.job import DEFAULT_PRIORITY, TERMINAL, JobLimits
from routing.domain.outcome import (
    Acceptance,
    Accepted,
    Brief,
    Duplicate,
    SessionClosed,
)
from routing.domain.queueing import QueueFull, queue_of
from routing.domain.shortlist import Shortlist
from routing.services.assignment import Assignment
from routing.services.deadlines import Deadlines
from routing.services.dispatch_times import DispatchTimes
from routing.services.placement import Placement
from routing.services.ports import JobStore
from routing.services.sessions import Session
from routing.services.slots import Slots, Taken
from routing.services.waiting import Waiting

log = structlog.get_logger(__name__)

RETRY_AFTER_MS = 1000


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The job is safe. `status` is accepted, queued or duplicate."""

    job_id: str
    status: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The utterance was not taken; nothing of it is kept."""

    code: ErrorCode
    message: str
    details: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class NewJob:
    """An utterance as the job that is to be written."""

    job_id: str
    brief: Brief
    payload: bytes
    life_ms: int
    sent_seq: int


def labels_of(session: Session, message: wire.Utterance) -> dict[str, str]:
    """What a node must have to take the utterance: its own word, else its session's."""
    return session.init.node_labels if message.node_labels is None else message.node_labels


def new_job(
    session: Session,
    message: wire.Utterance,
    fields: wire.Fields,
    *,
    pool: str,
    limits: JobLimits,
) -> NewJob:
    """The job of an utterance, for a pool. A deadline of the client's can only shorten its life."""
    trace_id = message.trace_id or session.init.trace_id
    labels = labels_of(session, message)
    brief = Brief(
        src=message.src_lang,
        tgt=message.tgt_lang,
        priority=DEFAULT_PRIORITY if message.priority is None else message.priority,
        tenant=session.init.tenant,
        trace_id=trace_id,
        queue=queue_of(pool, message.src_lang, message.tgt_lang, labels),
        labels=labels,
    )
    return NewJob(
        job_id_of(session.session_id, message.utterance_index),
        brief,
        wire.job_payload(fields, trace_id=trace_id),
        min(message.deadline_ms or limits.life_ms, limits.life_ms),
        session.sent_seq,
    )


class Intake:
    """Takes utterances of the sessions served here."""

    def __init__(
        self,
        jobs: JobStore,
        slots: Slots,
        waiting: Waiting,
        assignment: Assignment,
        placement: Placement,
        deadlines: Deadlines,
        *,
        limits: JobLimits,
        times: DispatchTimes,
    ) -> None:
        self._jobs = jobs
        self._slots = slots
        self._waiting = waiting
        self._assignment = assignment
        self._placement = placement
        self._deadlines = deadlines
        self._limits = limits
        self._times = times
        self._handing_over: set[asyncio.Task[None]] = set()
        self.accepted = 0

    async def submit(
        self,
        session: Session,
        message: wire.Utterance,
        fields: wire.Fields,
        *,
        began_ns: int | None = None,
    ) -> Acknowledged | Refused:
        """Take an utterance as a job, once. Sent again, it is a duplicate and changes nothing.

        `began_ns` is when its frame came, by the clock of `DispatchTimes`.
        """
        src, tgt = message.src_lang, message.tgt_lang
        labels = labels_of(session, message)
        plan = self._placement.plan(src, tgt, labels=labels, near=session.last_node)
        pool = plan.pool if plan is not None else ""
        job = new_job(session, message, fields, pool=pool, limits=self._limits)
        if plan is None:
            return await self._without_pool(job)
        if plan.nodes and not self._waiting.must_queue(job.brief):
            return await self._submit_to(session, job, plan.nodes, began_ns)
        is_new = message.utterance_index > session.top and job.job_id not in self._deadlines
        return await self._submit_waiting(job, is_new=is_new)

    async def _without_pool(self, job: NewJob) -> Acknowledged | Refused:
        # Its nodes may have left since it was accepted: a duplicate is one all the same.
        if await self._jobs.get(job.job_id) is not None:
            return Acknowledged(job.job_id, "duplicate")
        return Refused(ErrorCode.NO_AVAILABLE_NODE, self._placement.refusal(job.brief))

    async def _submit_to(
        self, session: Session, job: NewJob, nodes: Shortlist, began_ns: int | None
    ) -> Acknowledged | Refused:
        # The slot first: it counts as pending from here on, and others choose in the same turn.
        asked = self._slots.ask(nodes, job_id=job.job_id, attempt=1)
        why = decision.encode(nodes.decision(nodes.first, attempt=1))
        written, taken = await asyncio.gather(
            self._accept(job, attempt=1, node_id=nodes.first, why=why), asked
        )
        if not isinstance(written, Accepted):
            if taken is not None and taken.held.fresh:
                await self._slots.release(taken.node_id, job_id=job.job_id, attempt=1)
            return self._not_accepted(job, written)
        if taken is None:
            taken = await self._slots.reserve_one(nodes, job_id=job.job_id, attempt=1)
            if taken is None:
                await self._jobs.queue(job.job_id, attempt=1)
                return await self._queue(job, written, attempt=1)
            why = decision.encode(nodes.decision(taken.node_id, attempt=1))
            await self._jobs.assign(
                job.job_id, expected=1, attempt=1, node_id=taken.node_id, decision=why
            )
        session.last_node = taken.node_id
        return await self._assigned(job, taken, began_ns)

    async def _submit_waiting(self, job: NewJob, *, is_new: bool) -> Acknowledged | Refused:
        refusal = self._waiting.refusal(job.brief)
        if is_new and refusal is not None:
            # Under overload a refusal costs no round trip. A duplicate is one all the same.
            return self._full(job, refusal)
        written = await self._accept(job, attempt=0, node_id="")
        if not isinstance(written, Accepted):
            return self._not_accepted(job, written)
        return await self._queue(job, written, attempt=0)

    async def _accept(
        self, job: NewJob, *, attempt: int, node_id: str, why: bytes = b""
    ) -> Acceptance:
        return await self._jobs.accept(
            job.job_id,
            attempt=attempt,
            node_id=node_id,
            brief=job.brief,
            payload=job.payload,
            life_ms=job.life_ms,
            sent_seq=job.sent_seq,
            decision=why,
        )

    async def _assigned(self, job: NewJob, taken: Taken, began_ns: int | None) -> Acknowledged:
        self._watch(job, attempt=1, within_ms=self._limits.timeout_ms)
        work = self._hand_over(job, taken, began_ns)
        if self._assignment.is_local(taken.held.instance_id):
            await work
        else:
            # Nothing but the inbox write is left, and it is safe to repeat: acknowledge now.
            self._spawn(work)
        return Acknowledged(job.job_id, "accepted")

    async def _hand_over(self, job: NewJob, taken: Taken, began_ns: int | None) -> None:
        await self._assignment.hand_over(
            job.job_id, 1, taken.node_id, taken.held.instance_id, job.payload
        )
        if began_ns is not None:
            self._times.ended(began_ns)

    async def _queue(
        self, job: NewJob, written: Accepted, *, attempt: int
    ) -> Acknowledged | Refused:
        full = await self._waiting.put(
            job.job_id, job.brief, attempt=attempt, accepted_ms=written.accepted_ms
        )
        if full is not None:
            await self._jobs.withdraw(job.job_id, attempt=attempt)
            return self._full(job, full)
        self._watch(job, attempt=attempt, within_ms=self._limits.queue_timeout_ms, queued=True)
        return Acknowledged(job.job_id, "queued")

    def _full(self, job: NewJob, full: QueueFull) -> Refused:
        return Refused(
            ErrorCode.QUEUE_FULL,
            f"the queue from {job.brief.src} to {job.brief.tgt} is full; send it again later",
            {"retry_after_ms": self._waiting.retry_after_ms(full)},
        )

    def _not_accepted(self, job: NewJob, outcome: Acceptance) -> Acknowledged | Refused:
        if isinstance(outcome, Duplicate):
            self._watch_duplicate(job, outcome.state)
            return Acknowledged(job.job_id, "duplicate")
        if isinstance(outcome, SessionClosed):
            return Refused(ErrorCode.INVALID_SESSION, "the session is closed or was forgotten")
        return Refused(
            ErrorCode.RATE_LIMITED,
            "the session has too many unfinished utterances; wait for results",
            {"retry_after_ms": RETRY_AFTER_MS},
        )

    def _watch_duplicate(self, job: NewJob, state: str) -> None:
        """Whoever wrote the job may have died, or not have heard that it did, before giving it on.

        Then nobody brings it further but its deadlines, from here on.
        """
        if state in TERMINAL or job.job_id in self._deadlines:
            return
        self._deadlines.add(job.job_id, attempt=1, within_ms=self._limits.timeout_ms)
        self._deadlines.add(job.job_id, attempt=1, within_ms=job.life_ms, last=True)

    def _watch(self, job: NewJob, *, attempt: int, within_ms: int, queued: bool = False) -> None:
        self.accepted += 1
        self._deadlines.add(job.job_id, attempt=attempt, within_ms=within_ms, queued=queued)
        self._deadlines.add(job.job_id, attempt=attempt, within_ms=job.life_ms, last=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._handing_over.add(task)
        task.add_done_callback(self._handed_over)

    def _handed_over(self, task: "asyncio.Task[None]") -> None:
        self._handing_over.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # The job's deadline brings it up again.
            log.warning("hand-over failed", reason=str(task.exception()))
