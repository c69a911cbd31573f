"""Sessions, and what is kept with them, in memory."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

import msgspec

from registry.store.memory import MemoryServer, Shelf
from routing.domain.outcome import (
    Brief,
    JournalEntry,
    Resumed,
    ResumeRefused,
    StoredJob,
    StoredSession,
)


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


def filed_job(job_id: str, state: str, brief: Brief, seq: int) -> StoredJob:
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
            filed = filed_job(entry.job_id, entry.state, brief, session.seq)
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
