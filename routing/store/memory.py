"""Dispatch state in memory: for one process without Redis, and for unit tests.

Each method is one step, as its Lua verb is in Redis; see `registry.store.memory`.
"""

from collections import defaultdict, deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

import msgspec

from registry.domain.ids import split_job_id
from registry.store.memory import MemoryServer, NodeState, Shelf
from routing.domain.job import TERMINAL, JobState
from routing.domain.outcome import (
    Acceptance,
    Accepted,
    Again,
    Brief,
    Duplicate,
    Envelope,
    Exhausted,
    Finished,
    Full,
    JournalEntry,
    NodeGone,
    Reservation,
    Reserved,
    Resumed,
    ResumeRefused,
    SessionClosed,
    Stale,
    StoredJob,
    StoredSession,
    TooManyOpen,
)

DEAD_LETTERS_KEPT = 1_000


@dataclass(slots=True)
class Session:
    """A session with its unfinished jobs by deadline, and its terminal messages by seq."""

    instance_id: str
    token_hash: str
    init: bytes
    epoch: int = 1
    seq: int = 0
    top: int = -1
    settled: str = ""
    closed: bool = False
    open_jobs: dict[str, int] = field(default_factory=dict)
    outbox: dict[int, bytes] = field(default_factory=dict)

    def end(self, job_id: str, body: bytes, *, kept: int) -> None:
        """Add a job's terminal message, and keep the newest `kept`."""
        self.seq += 1
        self.outbox[self.seq] = body
        self.trim(self.seq - kept)
        self.open_jobs.pop(job_id, None)

    def trim(self, upto: int) -> None:
        for seq in list(takewhile(lambda seq: seq <= upto, self.outbox)):
            del self.outbox[seq]


class SessionState:
    """Sessions, and their jobs, which are kept no longer than their session."""

    def __init__(self, server: MemoryServer) -> None:
        self.sessions: Shelf[Session] = Shelf(server)
        self.watched: defaultdict[str, set[str]] = defaultdict(set)
        self.jobs: Shelf[StoredJob] = Shelf(server)


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

    async def assign(self, job_id: str, *, expected: int, attempt: int, node_id: str) -> bool:
        job = self._unfinished(job_id, attempt=expected)
        if isinstance(job, Stale):
            return False
        self._state.jobs.change(
            job_id, replace(job, state=JobState.ASSIGNED, attempt=attempt, node_id=node_id)
        )
        return True

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
        self, job_id: str, *, attempt: int, max_attempts: int, reason: str
    ) -> Again | Exhausted | Stale:
        job = self._unfinished(job_id, attempt=attempt)
        if isinstance(job, Stale):
            return job
        entry = {"attempt": attempt, "node": job.node_id, "reason": reason}
        job = replace(job, history=[*job.history, entry])
        if attempt < max_attempts:
            job = replace(job, state=JobState.QUEUED, attempt=attempt + 1, node_id="")
        self._state.jobs.change(job_id, job)
        return Again(job.attempt) if attempt < max_attempts else Exhausted(job.history)

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
        self._keep(_filed(job_id, state, brief, session.seq))
        return session.seq

    async def get(self, job_id: str) -> StoredJob | None:
        job = self._state.jobs.get(job_id)
        if job is None:
            return None
        return replace(job, remaining_ms=max(job.deadline_ms - self._server.clock(), 0))

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


def _filed(job_id: str, state: str, brief: Brief, seq: int) -> StoredJob:
    """A job that ended without the store."""
    return StoredJob(
        job_id=job_id,
        state=state,
        attempt=0,
        node_id="",
        deadline_ms=0,
        remaining_ms=0,
        accepted_ms=0,
        brief=brief,
        payload=None,
        history=[],
        seq=seq,
    )


class MemorySessionStore:
    """Implements `SessionStore`."""

    def __init__(self, server: MemoryServer, *, retention_ms: int) -> None:
        self._server = server
        self._retention_ms = retention_ms

    @property
    def _sessions(self) -> Shelf[Session]:
        return self._server.state(SessionState).sessions

    @property
    def _watched(self) -> defaultdict[str, set[str]]:
        return self._server.state(SessionState).watched

    async def open(
        self, session_id: str, *, instance_id: str, token_hash: str, init: bytes
    ) -> bool:
        if self._sessions.get(session_id) is not None:
            return False
        session = Session(instance_id, token_hash, init)
        self._sessions.put(session_id, session, ttl_ms=self._retention_ms)
        return True

    async def resume(
        self, session_id: str, *, instance_id: str, token_hash: str
    ) -> Resumed | ResumeRefused:
        session = self._sessions.get(session_id)
        if session is None or session.closed:
            return ResumeRefused(forbidden=False)
        if session.token_hash != token_hash:
            return ResumeRefused(forbidden=True)
        previous_instance, session.instance_id = session.instance_id, instance_id
        session.epoch += 1
        await self.touch(session_id)
        return Resumed(session.epoch, session.seq, previous_instance, session.init, top=session.top)

    async def settle(
        self, session_id: str, *, base: int, entries: Sequence[JournalEntry], token: str
    ) -> int | None:
        session = self._sessions.get(session_id)
        if session is None:
            return None
        if session.settled == token:
            return session.seq
        jobs = self._server.state(SessionState).jobs
        known = (jobs.get(entry.job_id) for entry in entries)
        twins = {job.seq for job in known if job is not None}
        later = {seq: body for seq, body in session.outbox.items() if seq > base}
        unseen = [body for seq, body in later.items() if seq not in twins]
        session.outbox = {seq: body for seq, body in session.outbox.items() if seq <= base}
        session.seq, session.settled = base, token
        for entry in entries:
            session.end(entry.job_id, entry.body.encode(), kept=len(session.outbox) + 1)
            brief = msgspec.json.decode(entry.brief, type=Brief)
            filed = _filed(entry.job_id, entry.state, brief, session.seq)
            jobs.put(entry.job_id, filed, ttl_ms=self._retention_ms)
        for body in unseen:
            session.end("", body, kept=len(session.outbox) + 1)
        return session.seq

    async def restore(
        self,
        session_id: str,
        *,
        instance_id: str,
        token_hash: str,
        init: bytes,
        epoch: int,
        seq: int,
    ) -> bool:
        known = self._sessions.get(session_id)
        if known is not None:
            known.seq = max(known.seq, seq)
            return False
        session = Session(instance_id, token_hash, init, epoch, seq)
        self._sessions.put(session_id, session, ttl_ms=self._retention_ms)
        return True

    async def close(self, session_id: str) -> list[str]:
        session = self._sessions.get(session_id)
        if session is not None:
            session.closed = True
        return await self.open_jobs(session_id)

    async def touch(self, session_id: str) -> None:
        self._sessions.prolong(session_id, ttl_ms=self._retention_ms)

    async def watch(self, session_id: str, *, instance_id: str) -> None:
        self._watched[instance_id].add(session_id)

    async def unwatch(self, session_id: str, *, instance_id: str) -> None:
        self._watched[instance_id].discard(session_id)

    async def watched(self, instance_id: str) -> list[str]:
        return sorted(self._watched[instance_id])

    async def get(self, session_id: str) -> StoredSession | None:
        session = self._sessions.get(session_id)
        if session is None:
            return None
        return StoredSession(
            session_id,
            session.instance_id,
            session.epoch,
            session.seq,
            closed=session.closed,
            open_jobs=await self.open_jobs(session_id),
        )

    async def open_jobs(self, session_id: str) -> list[str]:
        session = self._sessions.get(session_id)
        if session is None:
            return []
        return sorted(session.open_jobs, key=lambda job_id: (session.open_jobs[job_id], job_id))

    async def outbox(self, session_id: str, *, after: int) -> list[tuple[int, bytes]]:
        session = self._sessions.get(session_id)
        return (
            [(seq, body) for seq, body in session.outbox.items() if seq > after] if session else []
        )

    async def trim(self, session_id: str, *, upto: int) -> None:
        session = self._sessions.get(session_id)
        if session is not None:
            session.trim(upto)


class SlotState:
    """When each reservation of each node expires."""

    def __init__(self, server: MemoryServer) -> None:
        self._clock = server.clock
        self._slots: dict[str, dict[tuple[str, int], int]] = {}

    def of(self, node_id: str) -> dict[tuple[str, int], int]:
        """The node's unexpired reservations, to read and to change."""
        now_ms, slots = self._clock(), self._slots.setdefault(node_id, {})
        for expired in [slot for slot, expires_ms in slots.items() if expires_ms <= now_ms]:
            del slots[expired]
        return slots


class MemorySlotStore:
    """Implements `SlotStore`."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    async def reserve(
        self, node_id: str, *, job_id: str, attempt: int, lease_ms: int
    ) -> Reservation:
        node = self._server.state(NodeState)
        owner, capacity = node.owners.get(node_id), node.capacities.get(node_id)
        if owner is None or capacity is None:
            return NodeGone()
        slots = self._slots(node_id)
        if (job_id, attempt) in slots:
            return Reserved(owner.instance_id, len(slots), fresh=False)
        if len(slots) >= capacity:
            return Full(len(slots))
        slots[job_id, attempt] = self._server.clock() + lease_ms
        return Reserved(owner.instance_id, len(slots), fresh=True)

    async def release(self, node_id: str, *, job_id: str, attempt: int) -> int:
        slots = self._slots(node_id)
        slots.pop((job_id, attempt), None)
        return len(slots)

    async def held(self, node_id: str) -> list[tuple[str, int]]:
        return list(self._slots(node_id))

    def _slots(self, node_id: str) -> dict[tuple[str, int], int]:
        return self._server.state(SlotState).of(node_id)


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


class InboxState:
    """What lies in each open inbox by position, and what nobody could act on."""

    def __init__(self, server: MemoryServer) -> None:
        self.inboxes: dict[str, dict[int, Envelope]] = {}
        self.dead: deque[tuple[Envelope, str]] = deque(maxlen=DEAD_LETTERS_KEPT)


class MemoryInboxStore:
    """Implements `InboxStore` for one instance."""

    def __init__(self, server: MemoryServer, *, instance_id: str) -> None:
        self._server = server
        self._instance_id = instance_id
        self._closed = False

    @property
    def _state(self) -> InboxState:
        return self._server.state(InboxState)

    async def open(self) -> None:
        self._state.inboxes.setdefault(self._instance_id, {})

    async def close(self) -> bool:
        inboxes = self._state.inboxes
        if not inboxes.get(self._instance_id):
            inboxes.pop(self._instance_id, None)
            self._closed = True
            self._server.ring()
        return self._closed

    async def send(self, instance_id: str, envelope: Envelope) -> bool:
        inbox = self._state.inboxes.get(instance_id)
        if inbox is None:
            return False
        inbox[self._server.next_position()] = replace(envelope, sender=self._instance_id)
        self._server.ring()
        return True

    async def receive(self) -> AsyncIterator[list[tuple[str, Envelope]]]:
        # From the start: what a former reader took and never acknowledged comes first.
        reached = 0
        while not self._closed:
            await self.open()
            inbox = self._state.inboxes[self._instance_id]
            batch = [(position, letter) for position, letter in inbox.items() if position > reached]
            if batch:
                reached = batch[-1][0]
                yield [(str(position), letter) for position, letter in batch]
            else:
                await self._server.rung()

    async def done(self, tokens: Sequence[str]) -> None:
        inbox = self._state.inboxes.get(self._instance_id, {})
        for token in tokens:
            inbox.pop(int(token), None)

    async def left_by(self, instance_id: str) -> list[tuple[str, Envelope]]:
        inbox = self._state.inboxes.get(instance_id, {})
        return [(str(position), letter) for position, letter in inbox.items()]

    async def clear(self, instance_id: str, tokens: Sequence[str]) -> bool:
        inbox = self._state.inboxes.get(instance_id, {})
        for token in tokens:
            inbox.pop(int(token), None)
        if not inbox:
            self._state.inboxes.pop(instance_id, None)
        return not inbox

    async def bury(self, token: str, envelope: Envelope, *, reason: str) -> None:
        self._state.dead.append((envelope, reason))
        await self.done([token])
