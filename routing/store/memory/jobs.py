"""Jobs in memory."""

from dataclasses import replace
from typing import Any

import msgspec

from registry.domain.ids import split_job_id
from registry.store.memory import MemoryServer
from routing.domain.job import TERMINAL, JobState
from routing.domain.outcome import (
    Acceptance,
    Accepted,
    Again,
    Brief,
    Duplicate,
    Exhausted,
    Fault,
    Finished,
    Glance,
    SessionClosed,
    Stale,
    StoredJob,
    TooManyOpen,
)
from routing.store.memory.sessions import Session, SessionState, filed_job


class MemoryJobStore:
    """Implements `JobStore`."""

    def __init__(
        self, server: MemoryServer, *, retention_ms: int, open_limit: int, outbox_limit: int
    ) -> None:
        self._server = server
        self._retention_ms = retention_ms
        self._open_limit = open_limit
        self._outbox_limit = outbox_limit

    @property
    def _state(self) -> SessionState:
        return self._server.state(SessionState)

    async def accept(
        self,
        job_id: str,
        *,
        attempt: int,
        node_id: str,
        brief: Brief,
        payload: bytes,
        life_ms: int,
        sent_seq: int = 0,
        decision: bytes = b"",
    ) -> Acceptance:
        session, known = self._session_of(job_id), self._state.jobs.get(job_id)
        if session is None or session.closed:
            return SessionClosed()
        if known is not None:
            return Duplicate(known.state)
        if len(session.open_jobs) >= self._open_limit:
            return TooManyOpen()
        now_ms = self._server.clock()
        job = StoredJob(
            job_id=job_id,
            state=JobState.ASSIGNED if attempt else JobState.QUEUED,
            attempt=attempt,
            node_id=node_id,
            deadline_ms=now_ms + life_ms,
            remaining_ms=life_ms,
            accepted_ms=now_ms,
            brief=brief,
            payload=payload,
            history=[],
            seq=None,
            decisions=_entries(decision),
        )
        session.open_jobs[job_id] = job.deadline_ms
        session.top = max(session.top, split_job_id(job_id)[1])
        session.seq = max(session.seq, sent_seq)
        self._keep(job)
        return Accepted(now_ms, job.deadline_ms)

    async def withdraw(self, job_id: str, *, attempt: int) -> bool:
        job = self._unfinished(job_id, attempt=attempt)
        if isinstance(job, Stale) or job.state == JobState.RUNNING:
            return False
        self._state.jobs.drop(job_id)
        session = self._session_of(job_id)
        if session is not None:
            session.open_jobs.pop(job_id, None)
        return True

    async def assign(
        self, job_id: str, *, expected: int, attempt: int, node_id: str, decision: bytes = b""
    ) -> bool:
        job = self._unfinished(job_id, attempt=expected)
        if isinstance(job, Stale):
            return False
        self._state.jobs.change(
            job_id,
            replace(
                job,
                state=JobState.ASSIGNED,
                attempt=attempt,
                node_id=node_id,
                decisions=[*job.decisions, *_entries(decision)],
            ),
        )
        return True

    async def claim(
        self, job_id: str, *, attempt: int, node_id: str, decision: bytes = b""
    ) -> StoredJob | None:
        job = await self.get(job_id)
        if job is None or job.state != JobState.QUEUED or max(job.attempt, 1) != attempt:
            return None
        job = replace(
            job,
            state=JobState.ASSIGNED,
            attempt=attempt,
            node_id=node_id,
            decisions=[*job.decisions, *_entries(decision)],
        )
        self._state.jobs.change(job_id, job)
        return job

    async def queue(self, job_id: str, *, attempt: int) -> bool:
        job = self._unfinished(job_id, attempt=attempt)
        if isinstance(job, Stale):
            return False
        self._state.jobs.change(job_id, replace(job, state=JobState.QUEUED, node_id=""))
        return True

    async def start(self, job_id: str, *, attempt: int) -> None:
        job = self._unfinished(job_id, attempt=attempt)
        if isinstance(job, StoredJob) and job.state != JobState.QUEUED:
            self._state.jobs.change(job_id, replace(job, state=JobState.RUNNING))

    async def fail_attempt(
        self,
        job_id: str,
        *,
        attempt: int,
        max_attempts: int,
        reason: str,
        node_id: str = "",
        fault: Fault | None = None,
    ) -> Again | Exhausted | Stale:
        job = self._unfinished(job_id, attempt=attempt)
        if isinstance(job, Stale):
            return job
        if node_id not in ("", job.node_id):
            return Stale("stale")
        if job.history and job.history[-1]["attempt"] == attempt:
            return Exhausted(job.history)
        entry = {"attempt": attempt, "node": job.node_id, "reason": reason}
        if fault is not None:
            entry |= {"code": fault.code or "unknown", "message": fault.message}
        job = replace(job, history=[*job.history, entry])
        if attempt < max_attempts:
            job = replace(job, state=JobState.QUEUED, attempt=attempt + 1, node_id="")
        self._state.jobs.change(job_id, job)
        return Again(job.attempt) if attempt < max_attempts else Exhausted(job.history)

    async def take_back(self, job_id: str, *, attempt: int, node_id: str) -> bool:
        job = self._unfinished(job_id, attempt=None)
        if isinstance(job, Stale):
            return False
        if job.state != JobState.QUEUED:
            return (job.attempt, job.node_id) == (attempt, node_id)
        *before, last = job.history or [{}]
        if job.attempt != attempt + 1 or "code" in last:
            return False
        if (last.get("attempt"), last.get("node")) != (attempt, node_id):
            return False
        job = replace(job, state=JobState.RUNNING, attempt=attempt, node_id=node_id, history=before)
        self._state.jobs.change(job_id, job)
        return True

    async def finish(
        self, job_id: str, *, attempt: int, node_id: str, state: str, body: bytes
    ) -> Finished | Stale:
        job, session = self._unfinished(job_id, attempt=attempt or None), self._session_of(job_id)
        if session is None:
            return Stale("unknown")
        if isinstance(job, Stale):
            return self._first_end(job_id, session) if job.why == "ended" else job
        if node_id not in ("", job.node_id):
            return Stale("stale")
        session.end(job_id, body, kept=self._outbox_limit)
        self._keep(replace(job, state=state, seq=session.seq, payload=None))
        return Finished(session.seq, session.instance_id, job.attempt, job.node_id)

    async def file(self, job_id: str, *, state: str, brief: Brief, body: bytes) -> int | None:
        session = self._session_of(job_id)
        if session is None or self._state.jobs.get(job_id) is not None:
            return None
        session.end(job_id, body, kept=self._outbox_limit)
        self._keep(filed_job(job_id, state, brief, session.seq))
        return session.seq

    async def get(self, job_id: str) -> StoredJob | None:
        job = self._state.jobs.get(job_id)
        if job is None:
            return None
        return replace(job, remaining_ms=max(job.deadline_ms - self._server.clock(), 0))

    async def glance(self, job_id: str) -> Glance | None:
        job = self._state.jobs.get(job_id)
        return Glance(job.state, job.attempt, job.node_id) if job is not None else None

    def _unfinished(self, job_id: str, *, attempt: int | None) -> StoredJob | Stale:
        """The job if it has not ended and this attempt (None: any) is its current one."""
        job = self._state.jobs.get(job_id)
        if job is None:
            return Stale("unknown")
        if job.state in TERMINAL:
            return Stale("ended")
        return job if attempt in (None, job.attempt) else Stale("stale")

    def _first_end(self, job_id: str, session: Session) -> Stale:
        job = self._state.jobs.get(job_id)
        seq = job.seq if job is not None and job.seq is not None else 0
        return Stale("ended", seq=seq, instance_id=session.instance_id)

    def _session_of(self, job_id: str) -> Session | None:
        return self._state.sessions.get(split_job_id(job_id)[0])

    def _keep(self, job: StoredJob) -> None:
        self._state.jobs.put(job.job_id, job, ttl_ms=self._retention_ms)
        session_id, _ = split_job_id(job.job_id)
        self._state.sessions.prolong(session_id, ttl_ms=self._retention_ms)


def _entries(decision: bytes) -> list[dict[str, Any]]:
    return [msgspec.json.decode(decision, type=dict[str, Any])] if decision else []
