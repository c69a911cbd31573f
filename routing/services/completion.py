"""A job's end: by its node's result, by cancellation, by its deadline, or for want of attempts.

Whoever ends a job writes its terminal message into the session's outbox in the same step; what
follows (the slot, the session's instance, the node) may be lost and is made good elsewhere.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import structlog

from registry.domain.ids import split_job_id
from registry.services.membership import LocalNode, Membership
from routing.domain import wire
from routing.domain.errors import ErrorCode
from routing.domain.job import DEFAULT_PRIORITY, JobState
from routing.domain.outcome import Brief, Envelope, EnvelopeKind, Fault, Finished, Stale
from routing.services.assignment import Assignment
from routing.services.deadletters import DeadLetters
from routing.services.deadlines import Deadlines
from routing.services.delivery import Delivery
from routing.services.lately import Lately
from routing.services.persist import persist
from routing.services.ports import JobStore
from routing.services.sessions import Sessions
from routing.services.slots import Slots
from routing.services.waiting import Waiting

log = structlog.get_logger(__name__)


class Completion:
    """Ends jobs."""

    def __init__(
        self,
        jobs: JobStore,
        slots: Slots,
        waiting: Waiting,
        assignment: Assignment,
        delivery: Delivery,
        membership: Membership,
        sessions: Sessions,
        deadlines: Deadlines,
        letters: DeadLetters,
        lately: Lately,
        *,
        instance_id: str,
    ) -> None:
        self._jobs = jobs
        self._slots = slots
        self._waiting = waiting
        self._assignment = assignment
        self._delivery = delivery
        self._membership = membership
        self._sessions = sessions
        self._deadlines = deadlines
        self._letters = letters
        self._lately = lately
        self._instance_id = instance_id
        self.finished = 0
        self.listeners: list[Callable[[str], None]] = []
        delivery.on(EnvelopeKind.RESULT, self._on_result)
        delivery.on(EnvelopeKind.CANCEL, self._on_cancel)
        delivery.on(EnvelopeKind.FAILED, self._on_failed)
        delivery.on(EnvelopeKind.PARTIAL, self._on_partial)

    async def result(self, node: LocalNode, message: wire.JobResult, fields: wire.Fields) -> None:
        """End a job with its node's result, free the slot, and let the next job have it."""
        node_id = node.snapshot.node_id
        state, body = ending_of(message, fields)
        held_ms = self._assignment.held_for_ms(node_id, message.job_id, message.attempt_id)
        self._assignment.forget(node_id, message.job_id)
        release = persist(
            lambda: self._slots.release(node_id, job_id=message.job_id, attempt=message.attempt_id),
            what="release",
        )
        finish = partial(
            self._finish,
            message.job_id,
            attempt=message.attempt_id,
            node_id=node_id,
            state=state,
            body=body,
            held_ms=held_ms,
        )
        if self._waiting.anything_for(node_id):
            finished = await self._finish_behind_next(
                node, finish, release, held=held_ms is not None
            )
        else:
            _, finished = await asyncio.gather(release, finish())
        if finished is not None:
            await self._membership.record_outcome(node, succeeded=message.success)

    async def _finish_behind_next(
        self,
        node: LocalNode,
        finish: Callable[[], Awaitable[Finished | None]],
        release: Awaitable[None],
        *,
        held: bool,
    ) -> Finished | None:
        """A slot that others wait for is to stand idle no longer than it must: they go first."""
        leases, _ = await asyncio.gather(
            self._waiting.take(node.snapshot.node_id, freed=held), release
        )
        _, finished = await asyncio.gather(self._waiting.give(leases, node), finish())
        return finished

    async def partial(self, node: LocalNode, message: wire.AsrPartial, fields: wire.Fields) -> None:
        """Pass a partial result on to where the job came from. It may get lost on the way."""
        origin = self._assignment.origin(node.snapshot.node_id, message.job_id)
        if origin is not None:
            session_id = split_job_id(message.job_id)[0]
            body = wire.asr_partial(fields)
            await self._delivery.send(
                origin, Envelope(EnvelopeKind.PARTIAL, session_id, body, message.job_id)
            )

    async def cancel(self, job_id: str, *, reason: str) -> bool:
        """End a job as cancelled. False when it had ended before, or never was."""
        return await self._end(
            job_id,
            JobState.CANCELLED,
            ErrorCode.JOB_CANCELLED,
            f"the utterance was cancelled: {reason}",
        )

    async def time_out(self, job_id: str, *, reason: str, history: list[dict[str, Any]]) -> bool:
        """End a job whose time is over. With a failed attempt, it leaves a dead letter."""
        code = ErrorCode.JOB_TIMEOUT
        end = partial(self._end, job_id, JobState.EXPIRED, code, reason, history=history)
        return await self._letters.bury_and(end, job_id, code=code, reason=reason, history=history)

    async def give_up(
        self,
        job_id: str,
        *,
        timed_out: bool,
        history: list[dict[str, Any]],
        fault: Fault | None = None,
    ) -> bool:
        """End a job that has no attempt left: with what its node said, if that ended it.

        It leaves a dead letter.
        """
        details = None
        if fault is not None:
            reason, details = (
                fault.message or "the node failed without saying why",
                details_of(fault),
            )
        else:
            last = history[-1]["reason"]
            reason = f"{len(history)} attempts failed, the last one because {last}"
        code = ErrorCode.JOB_TIMEOUT if timed_out else ErrorCode.NODE_FAILED
        end = partial(
            self._end, job_id, JobState.FAILED, code, reason, history=history, details=details
        )
        return await self._letters.bury_and(end, job_id, code=code, reason=reason, history=history)

    async def lost(self, job_id: str) -> bool:
        """End a job of a session served here that the store has lost. False when it knows it."""
        session = self._sessions.get(split_job_id(job_id)[0])
        if session is None:
            return False
        init = session.init
        brief = Brief(
            src=init.src_lang,
            tgt=init.tgt_lang,
            priority=DEFAULT_PRIORITY,
            tenant=init.tenant,
            trace_id=init.trace_id,
            queue=f"{init.src_lang}>{init.tgt_lang}",
        )
        body = wire.job_failure(
            ErrorCode.INTERNAL_ERROR,
            "the scheduler's store lost this utterance; send it again under a new index",
            session_id=session.session_id,
            job_id=job_id,
        )
        seq = await self._jobs.file(job_id, state=JobState.FAILED, brief=brief, body=body)
        if seq is None:
            return False
        log.warning("job lost by the store", job_id=job_id)
        await self._sessions.deliver(session.session_id, seq=seq, body=body)
        return True

    async def tell_node(
        self, node_id: str, job_id: str, attempt: int, *, reason: str, failed: bool = False
    ) -> None:
        """Let a node stop working on a job, which may be a failure of its. It may not hear it."""
        view = self._membership.views.get(node_id)
        if view is not None:
            kind = EnvelopeKind.FAILED if failed else EnvelopeKind.CANCEL
            body = wire.job_cancel(job_id, reason=reason)
            await self._delivery.send(
                view.snapshot.instance_id, Envelope(kind, node_id, body, job_id, attempt)
            )

    async def _end(
        self,
        job_id: str,
        state: JobState,
        code: ErrorCode,
        message: str,
        *,
        history: list[dict[str, Any]] | None = None,
        details: dict[str, Any] | None = None,
    ) -> bool:
        details = (details or {}) | ({"attempts": history} if history else {})
        body = wire.job_failure(
            code,
            message,
            session_id=split_job_id(job_id)[0],
            job_id=job_id,
            details=details or None,
        )
        finished = await self._finish(job_id, attempt=0, node_id="", state=state, body=body)
        if finished is None:
            return False
        if finished.node_id:
            await self.tell_node(finished.node_id, job_id, finished.attempt, reason=message)
            await self._slots.release(finished.node_id, job_id=job_id, attempt=finished.attempt)
        else:
            job = await self._jobs.get(job_id)
            if job is not None:
                await self._waiting.leave(job)
        return True

    async def _finish(
        self,
        job_id: str,
        *,
        attempt: int,
        node_id: str,
        state: JobState,
        body: bytes,
        held_ms: int | None = None,
    ) -> Finished | None:
        outcome = await persist(
            lambda: self._jobs.finish(
                job_id, attempt=attempt, node_id=node_id, state=state, body=body
            ),
            what="finish",
        )
        if isinstance(outcome, Stale):
            log.info("news of a job ignored", job_id=job_id, attempt=attempt, why=outcome.why)
            if outcome.seq:
                await self._announce(outcome.instance_id, job_id, outcome.seq)
            return None
        self.finished += 1
        self._lately.note(
            job_id, state, attempt=outcome.attempt, node_id=outcome.node_id, held_ms=held_ms
        )
        await self._announce(
            outcome.instance_id, job_id, outcome.seq, body=body, node_id=outcome.node_id
        )
        return outcome

    async def _announce(
        self, instance_id: str, job_id: str, seq: int, *, body: bytes = b"", node_id: str = ""
    ) -> None:
        """Tell the session's instance. When it is gone the message waits in the outbox."""
        session_id = split_job_id(job_id)[0]
        envelope = Envelope(
            EnvelopeKind.RESULT, session_id, body, job_id, seq, self._instance_id, node_id
        )
        await persist(lambda: self._delivery.send(instance_id, envelope), what="result")

    async def _on_result(self, envelope: Envelope) -> None:
        self._deadlines.forget(envelope.job_id)
        for listener in self.listeners:
            listener(envelope.job_id)
        if envelope.sender != self._instance_id:
            self._slots.freed_elsewhere(envelope.node_id)
        await self._sessions.deliver(envelope.subject, seq=envelope.number, body=envelope.body)

    async def _on_cancel(self, envelope: Envelope) -> None:
        node_id, job_id = envelope.subject, envelope.job_id
        node = self._membership.local(node_id)
        # Of an attempt that was given up. The next one may be this node's too.
        if self._assignment.attempt_of(node_id, job_id) in (None, envelope.number):
            self._assignment.forget(node_id, job_id)
            if node is not None:
                node.link.send(envelope.body)
        if node is not None:
            await self._waiting.fill(node)

    async def _on_failed(self, envelope: Envelope) -> None:
        node = self._membership.local(envelope.subject)
        if node is not None and self._assignment.holds(
            envelope.subject, envelope.job_id, envelope.number
        ):
            await self._membership.record_outcome(node, succeeded=False)
        await self._on_cancel(envelope)

    async def _on_partial(self, envelope: Envelope) -> None:
        session = self._sessions.get(envelope.subject)
        if session is not None and session.link is not None:
            session.link.send(envelope.body)


def ending_of(message: wire.JobResult, fields: wire.Fields) -> tuple[JobState, bytes]:
    """How a node's result ends its job, and the terminal message for it, without seq."""
    if message.success:
        return JobState.SUCCEEDED, wire.translation_result(fields)
    fault = wire.fault_of(message)
    body = wire.job_failure(
        ErrorCode.NODE_FAILED,
        fault.message or "the node failed without saying why",
        session_id=split_job_id(message.job_id)[0],
        job_id=message.job_id,
        details=details_of(fault),
    )
    return JobState.FAILED, body


def details_of(fault: Fault) -> dict[str, Any]:
    """What a session is told of a node's fault beside its message."""
    details: dict[str, Any] = {"code": fault.code}
    if fault.details is not None:
        details["details"] = fault.details
    return details
