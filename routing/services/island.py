"""Serving without the store: this instance's sessions by this instance's nodes, in memory.

While the store is away an instance is an island. It takes utterances that it knows to be new,
gives them to nodes whose sockets it holds, and sends results under the next `seq`, keeping each in
a journal. When the store is back the journals are filed in the places they were sent under, what is
still under way is written as jobs like any other, and only then is the store trusted again.

Not promised: what dies with this process. The store is what makes a job durable; until it is
back, an island's acknowledgement is as good as the island's life. New sessions and nodes, and
sessions that moved here with a past that only the store knows, wait for its return.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
import structlog

from registry.domain.ids import job_id as job_id_of
from registry.services.membership import LocalNode, Membership
from registry.services.ports import Clock
from routing.domain import wire
from routing.domain.errors import ErrorCode
from routing.domain.job import JobLimits, JobState
from routing.domain.outcome import Accepted, Brief, Duplicate, Fault, JournalEntry, refused_by
from routing.services.assignment import Assignment
from routing.services.completion import details_of, ending_of
from routing.services.deadlines import Deadlines
from routing.services.intake import RETRY_AFTER_MS, Acknowledged, Refused, labels_of, new_job
from routing.services.persist import persist
from routing.services.placement import Placement
from routing.services.ports import JobStore, SessionStore
from routing.services.sessions import Session, Sessions
from routing.services.slots import Slots
from routing.services.waiting import Waiting

log = structlog.get_logger(__name__)

AWAY = Refused(
    ErrorCode.INTERNAL_ERROR,
    "the scheduler's store is not available; send it again later",
    {"retry_after_ms": RETRY_AFTER_MS},
)


@dataclass(slots=True)
class _Job:
    job_id: str
    session: Session
    brief: Brief
    payload: bytes
    deadline_ms: int
    attempt: int = 0
    node_id: str = ""
    due_ms: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class _Journal:
    """What a session was sent without the store, from `base` + 1 on.

    Once `closed`, because it was sent to the store, nothing is added: whether the store has it is
    not known, and what ends from then on is filed by itself.
    """

    session: Session
    base: int
    token: str
    entries: list[JournalEntry] = field(default_factory=list)
    closed: bool = False


class Island:
    """Jobs and journals of one instance while the store is away, and until they are over."""

    def __init__(
        self,
        jobs: JobStore,
        sessions: Sessions,
        store: SessionStore,
        slots: Slots,
        waiting: Waiting,
        assignment: Assignment,
        deadlines: Deadlines,
        membership: Membership,
        placement: Placement,
        *,
        limits: JobLimits,
        clock: Clock,
        new_token: Callable[[], str],
        spawn: Callable[[Coroutine[Any, Any, object]], object],
    ) -> None:
        self._jobs_store = jobs
        self._sessions = sessions
        self._store = store
        self._slots = slots
        self._waiting_jobs = waiting
        self._assignment = assignment
        self._deadlines = deadlines
        self._membership = membership
        self._placement = placement
        self._limits = limits
        self._clock = clock
        self._new_token = new_token
        self._spawn = spawn
        self._jobs: dict[str, _Job] = {}
        self._ending: set[str] = set()
        self._waiting: deque[str] = deque()
        self._held: Counter[str] = Counter()
        self._journals: dict[str, _Journal] = {}
        self._settling = False
        self.active = False

    def owns(self, job_id: str) -> bool:
        """Whether the job was taken here without the store, and has not ended."""
        return job_id in self._jobs

    def knows(self, job_id: str) -> bool:
        """Whether the store is still to hear of the job from here."""
        return job_id in self._jobs or job_id in self._ending

    def serves(self, session: Session) -> bool:
        """Whether a session's utterances come here now: until its journal is filed."""
        return self.active and (session.unsettled or not self._settling)

    def begin(self) -> None:
        """The store is away."""
        if not self.active:
            self.active = True
            log.warning("island", reason="the store is away: serving local sessions by local nodes")

    def submit(
        self, session: Session, message: wire.Utterance, fields: wire.Fields
    ) -> Acknowledged | Refused:
        """Take an utterance as a job of the island's, if it is certain to be new."""
        job_id = job_id_of(session.session_id, message.utterance_index)
        if self.knows(job_id) or self._journalled(job_id, session):
            return Acknowledged(job_id, "duplicate")
        if message.utterance_index <= session.top:
            return AWAY  # What became of it, only the store knows.
        labels = labels_of(session, message)
        plan = self._placement.plan(message.src_lang, message.tgt_lang, labels=labels)
        pool = plan.pool if plan is not None else ""
        new = new_job(session, message, fields, pool=pool, limits=self._limits)
        if not self._fitting(new.brief):
            return AWAY  # None of our nodes can do it; others may, once they can be reached.
        if len(self._waiting) >= self._limits.queue_limit:
            return Refused(
                ErrorCode.QUEUE_FULL,
                f"{len(self._waiting)} utterances wait already; send it again later",
                {"retry_after_ms": RETRY_AFTER_MS},
            )
        job = _Job(job_id, session, new.brief, new.payload, self._clock() + new.life_ms)
        session.top = message.utterance_index
        self._jobs[job_id] = job
        return Acknowledged(job_id, "accepted" if self._place(job) else "queued")

    def result(self, node: LocalNode, message: wire.JobResult, fields: wire.Fields) -> None:
        """End a job of the island's with its node's result, if that is of its current attempt."""
        job = self._jobs.get(message.job_id)
        node_id = node.snapshot.node_id
        if job is None or (job.node_id, job.attempt) != (node_id, message.attempt_id):
            return
        if not message.success:
            self.refused(node, job.job_id, job.attempt, wire.fault_of(message))
            return
        state, body = ending_of(message, fields)
        self._end(job, state, body)

    def refused(self, node: LocalNode, job_id: str, attempt: int, fault: Fault) -> None:
        """A node gave an attempt up: tried on one that has not, if there is one here."""
        job, node_id = self._jobs.get(job_id), node.snapshot.node_id
        if job is None or (job.node_id, job.attempt) != (node_id, attempt):
            return
        reason = f"the node said {fault.code}: {fault.message}"[:1000]
        refused = refused_by(job.history) | {node_id}
        fitting = self._fitting(job.brief)
        others = [n for n in fitting if n.snapshot.node_id not in refused]
        if fault.retryable and others:
            self._try_again(job, reason, fault)
        else:
            message = fault.message or "the node failed without saying why"
            self._fail(job, JobState.FAILED, ErrorCode.NODE_FAILED, message, fault)

    def partial(self, message: wire.AsrPartial, fields: wire.Fields) -> None:
        """Pass a partial result on."""
        job = self._jobs.get(message.job_id)
        if job is not None and job.session.link is not None:
            job.session.link.send(wire.asr_partial(fields))

    def cancel(self, job_id: str, *, reason: str) -> bool:
        """End a job of the island's as cancelled; False when it is none."""
        job = self._jobs.get(job_id)
        if job is None:
            return False
        self._tell_node(job, reason=reason)
        message = f"the utterance was cancelled: {reason}"
        self._fail(job, JobState.CANCELLED, ErrorCode.JOB_CANCELLED, message)
        return True

    def node_left(self, node_id: str) -> None:
        """A node's socket is gone: its jobs are tried on another one."""
        for job in [job for job in self._jobs.values() if job.node_id == node_id]:
            self._try_again(job, "the node left")

    def tick(self) -> None:
        """Act on what is overdue, and place what waits."""
        now_ms = self._clock()
        for job in list(self._jobs.values()):
            if now_ms >= job.deadline_ms:
                self._tell_node(job, reason="its deadline passed")
                self._fail(job, JobState.EXPIRED, ErrorCode.JOB_TIMEOUT, "its deadline passed")
            elif now_ms >= job.due_ms and job.node_id:
                self._tell_node(job, reason="it took too long")
                limit_ms = self._limits.timeout_ms
                self._try_again(job, f"the node did not answer in {limit_ms} ms")
            elif now_ms >= job.due_ms:
                message = f"no slot became free in {self._limits.queue_timeout_ms} ms"
                self._fail(job, JobState.EXPIRED, ErrorCode.JOB_TIMEOUT, message)
        self._place_waiting()

    async def settle(self) -> None:
        """The store is back: file the journals, then let go. Raises StoreUnavailable."""
        self._settling = True
        try:
            await self._sessions.restore()
            while self._journals:
                await asyncio.gather(*map(self._settle, list(self._journals.values())))
            await asyncio.gather(*map(self._hand_over, list(self._jobs.values())))
            self.active = False
        finally:
            self._settling = False
        log.info("island no more", jobs_under_way=len(self._jobs))

    async def _settle(self, journal: _Journal) -> None:
        session = journal.session
        journal.closed = True
        seq = await self._store.settle(
            session.session_id, base=journal.base, entries=journal.entries, token=journal.token
        )
        if seq is None:
            await self._sessions.restore_one(session, seq=journal.base)
            return
        del self._journals[session.session_id]
        session.unsettled = False
        log.info("journal filed", session_id=session.session_id, messages=len(journal.entries))
        await self._sessions.catch_up(session)

    async def _hand_over(self, job: _Job) -> None:
        """Make a job that is under way one of the store's."""
        node_id, attempt = job.node_id, job.attempt if job.node_id else 0
        life_ms = max(job.deadline_ms - self._clock(), 1)
        # Should the store have lost it meanwhile; a session that is known stays as it is.
        await self._sessions.restore_one(job.session, seq=job.session.sent_seq)
        written = await self._jobs_store.accept(
            job.job_id,
            attempt=attempt,
            node_id=node_id,
            brief=job.brief,
            payload=job.payload,
            life_ms=life_ms,
        )
        if not isinstance(written, Accepted | Duplicate) or job.job_id not in self._jobs:
            return  # It ends here, or just did.
        self._let_go(job)
        del self._jobs[job.job_id]
        within_ms = max(job.due_ms - self._clock(), 1)
        self._deadlines.add(job.job_id, attempt=attempt, within_ms=within_ms, queued=not node_id)
        self._deadlines.add(job.job_id, attempt=attempt, within_ms=life_ms, last=True)
        if node_id:
            self._assignment.adopt(node_id, job.job_id, attempt)
            await self._slots.reserve(node_id, job_id=job.job_id, attempt=attempt)
            return
        stored = await self._jobs_store.get(job.job_id)
        if stored is not None:
            await self._waiting_jobs.put_back(stored)
            await self._waiting_jobs.offer()

    def _place(self, job: _Job) -> bool:
        """Give the next attempt to a local node with room, else let the job wait."""
        failed_on, refused = {str(entry["node"]) for entry in job.history}, refused_by(job.history)
        able = self._fitting(job.brief)
        fitting = [n for n in able if self._has_room(n) and n.snapshot.node_id not in refused]
        fitting.sort(
            key=lambda node: (node.snapshot.node_id in failed_on, self._taken(node) / node.capacity)
        )
        for node in fitting:
            frame = wire.job_assign(job.payload, job_id=job.job_id, attempt_id=job.attempt + 1)
            if node.link.send(frame):
                self._hold(job, node)
                return True
        job.node_id, job.due_ms = "", self._clock() + self._limits.queue_timeout_ms
        self._waiting.append(job.job_id)
        return False

    def _fitting(self, brief: Brief) -> list[LocalNode]:
        """Nodes of this instance that may take such a job."""
        nodes = self._membership.local_nodes()
        return [n for n in nodes if self._placement.accepts(n.snapshot.node_id, brief)]

    def _hold(self, job: _Job, node: LocalNode) -> None:
        job.attempt += 1
        job.node_id = node.snapshot.node_id
        job.due_ms = self._clock() + self._limits.timeout_ms
        self._held[job.node_id] += 1

    def _has_room(self, node: LocalNode) -> bool:
        return self._taken(node) < node.capacity and self._placement.can_take(node.snapshot.node_id)

    def _taken(self, node: LocalNode) -> int:
        node_id = node.snapshot.node_id
        view = self._membership.views.get(node_id)
        return self._held[node_id] + (view.reserved if view else 0)

    def _place_waiting(self) -> None:
        for _ in range(len(self._waiting)):
            job = self._jobs.get(self._waiting.popleft())
            if job is not None and not job.node_id:
                due_ms = job.due_ms
                if not self._place(job):
                    job.due_ms = due_ms

    def _try_again(self, job: _Job, reason: str, fault: Fault | None = None) -> None:
        self._let_go(job)
        said = {"code": fault.code, "message": fault.message} if fault else {}
        job.history.append({"attempt": job.attempt, "node": job.node_id, "reason": reason} | said)
        job.node_id = ""
        if job.attempt >= self._limits.max_attempts:
            message = f"{job.attempt} attempts failed, the last one because {reason}"
            self._fail(job, JobState.FAILED, ErrorCode.NODE_FAILED, message)
        else:
            self._place(job)

    def _fail(
        self,
        job: _Job,
        state: JobState,
        code: ErrorCode,
        message: str,
        fault: Fault | None = None,
    ) -> None:
        details: dict[str, Any] = details_of(fault) if fault else {}
        if job.history:
            details["attempts"] = job.history
        body = wire.job_failure(
            code,
            message,
            session_id=job.session.session_id,
            job_id=job.job_id,
            details=details or None,
        )
        self._end(job, state, body)

    def _end(self, job: _Job, state: JobState, body: bytes) -> None:
        self._let_go(job)
        del self._jobs[job.job_id]
        brief = msgspec.json.encode(job.brief).decode()
        entry = JournalEntry(job.job_id, state.value, body.decode(), brief)
        if self._may_send(job.session):
            self._write(job.session, entry, body)
        else:
            self._ending.add(job.job_id)
            self._spawn(persist(partial(self._end_late, job, entry), what="late ending"))
        self._place_waiting()

    def _may_send(self, session: Session) -> bool:
        """Whether the next seq is ours to give, not the store's."""
        journal = self._journals.get(session.session_id)
        closed = journal is not None and journal.closed
        return self.active and not self._settling and not closed

    async def _end_late(self, job: _Job, entry: JournalEntry) -> None:
        """The job ended while the store came back: it is filed, or ended where it is written."""
        body = entry.body.encode()
        seq = await self._jobs_store.file(job.job_id, state=entry.state, brief=job.brief, body=body)
        if seq is None:
            ended = await self._jobs_store.finish(
                job.job_id, attempt=0, node_id="", state=entry.state, body=body
            )
            seq = ended.seq
        self._ending.discard(job.job_id)
        await self._sessions.deliver(job.session.session_id, seq=seq, body=body)

    def _write(self, session: Session, entry: JournalEntry, body: bytes) -> None:
        journal = self._journals.get(session.session_id)
        if journal is None:
            journal = _Journal(session, session.sent_seq, self._new_token())
            self._journals[session.session_id] = journal
            session.unsettled = True
        journal.entries.append(entry)
        session.sent_seq = journal.base + len(journal.entries)
        if session.link is not None:
            session.link.send(wire.with_seq(body, session.sent_seq))

    def _journalled(self, job_id: str, session: Session) -> bool:
        journal = self._journals.get(session.session_id)
        return journal is not None and any(entry.job_id == job_id for entry in journal.entries)

    def _let_go(self, job: _Job) -> None:
        if job.node_id:
            self._held[job.node_id] -= 1

    def _tell_node(self, job: _Job, *, reason: str) -> None:
        node = self._membership.local(job.node_id) if job.node_id else None
        if node is not None:
            node.link.send(wire.job_cancel(job.job_id, reason=reason))
