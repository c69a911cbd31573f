"""Jobs in Redis, under their session's tag."""

from pathlib import Path
from typing import Any

import msgspec

from registry.domain.ids import split_job_id
from registry.store.connection import Connection
from registry.store.keys import Keys
from registry.store.scripts import Reply, load_scripts
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

SCRIPTS = load_scripts(Path(__file__).parent / "lua")
_brief = msgspec.json.Decoder(Brief)
_FIELDS = (
    "state", "attempt", "node", "deadline_ms", "accepted_ms", "brief", "payload", "history", "seq",
    "decisions",
)  # fmt: skip


class RedisJobStore:
    """Implements `JobStore`."""

    def __init__(
        self,
        connection: Connection,
        keys: Keys,
        *,
        retention_ms: int,
        open_limit: int,
        outbox_limit: int,
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._retention_ms = retention_ms
        self._open_limit = open_limit
        self._outbox_limit = outbox_limit

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
        session_id = _session_of(job_id)
        reply = await self._connection.run(
            SCRIPTS["accept_job"],
            [
                self._keys.session_meta(session_id),
                self._keys.session_job(session_id, job_id),
                self._keys.session_open(session_id),
            ],
            [
                job_id,
                "assigned" if attempt else "queued",
                attempt,
                node_id,
                life_ms,
                msgspec.json.encode(brief),
                payload,
                self._retention_ms,
                self._open_limit,
                split_job_id(job_id)[1],
                sent_seq,
                decision,
            ],
        )
        match reply.word:
            case "accepted":
                return Accepted(reply.integer(0), reply.integer(1))
            case "duplicate":
                return Duplicate(reply.text())
            case "closed":
                return SessionClosed()
            case _:
                return TooManyOpen()

    async def withdraw(self, job_id: str, *, attempt: int) -> bool:
        session_id = _session_of(job_id)
        reply = await self._connection.run(
            SCRIPTS["withdraw_job"],
            [self._keys.session_job(session_id, job_id), self._keys.session_open(session_id)],
            [job_id, attempt],
        )
        return reply.word == "withdrawn"

    async def assign(
        self, job_id: str, *, expected: int, attempt: int, node_id: str, decision: bytes = b""
    ) -> bool:
        reply = await self._connection.run(
            SCRIPTS["assign_job"], [self._job(job_id)], [expected, attempt, node_id, decision]
        )
        return reply.word == "assigned"

    async def claim(
        self, job_id: str, *, attempt: int, node_id: str, decision: bytes = b""
    ) -> StoredJob | None:
        reply = await self._connection.run(
            SCRIPTS["claim_job"], [self._job(job_id)], [attempt, node_id, decision]
        )
        return _stored(job_id, reply) if reply.word == "claimed" else None

    async def queue(self, job_id: str, *, attempt: int) -> bool:
        reply = await self._connection.run(SCRIPTS["queue_job"], [self._job(job_id)], [attempt])
        return reply.word == "queued"

    async def start(self, job_id: str, *, attempt: int) -> None:
        await self._connection.run(SCRIPTS["start_job"], [self._job(job_id)], [attempt])

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
        said = (fault.code or "unknown", fault.message) if fault else ("", "")
        reply = await self._connection.run(
            SCRIPTS["fail_attempt"],
            [self._job(job_id)],
            [attempt, node_id, max_attempts, reason, *said],
        )
        match reply.word:
            case "again":
                return Again(reply.integer())
            case "exhausted":
                return Exhausted(_entries(reply.values[0]))
            case word:
                return Stale(word)

    async def take_back(self, job_id: str, *, attempt: int, node_id: str) -> bool:
        reply = await self._connection.run(
            SCRIPTS["take_back"], [self._job(job_id)], [attempt, node_id]
        )
        return reply.word in ("taken", "current")

    async def finish(
        self, job_id: str, *, attempt: int, node_id: str, state: str, body: bytes
    ) -> Finished | Stale:
        session_id = _session_of(job_id)
        reply = await self._connection.run(
            SCRIPTS["finish_job"],
            [
                self._keys.session_meta(session_id),
                self._keys.session_job(session_id, job_id),
                self._keys.session_open(session_id),
                self._keys.session_outbox(session_id),
            ],
            [job_id, attempt, node_id, state, body, self._retention_ms, self._outbox_limit],
        )
        if reply.word == "ended":
            return Stale(reply.word, seq=reply.integer(1), instance_id=reply.text(2))
        if reply.word != "finished":
            return Stale(reply.word)
        return Finished(reply.integer(0), reply.text(1), reply.integer(2), reply.text(3))

    async def file(self, job_id: str, *, state: str, brief: Brief, body: bytes) -> int | None:
        session_id = _session_of(job_id)
        reply = await self._connection.run(
            SCRIPTS["file_result"],
            [
                self._keys.session_meta(session_id),
                self._keys.session_job(session_id, job_id),
                self._keys.session_outbox(session_id),
            ],
            [state, body, msgspec.json.encode(brief), self._retention_ms],
        )
        return reply.integer() if reply.word == "filed" else None

    async def get(self, job_id: str) -> StoredJob | None:
        reply = await self._connection.run(SCRIPTS["read_job"], [self._job(job_id)], [])
        return _stored(job_id, reply) if reply.word == "found" else None

    async def glance(self, job_id: str) -> Glance | None:
        state, attempt, node_id = await self._connection.call(
            "HMGET", self._job(job_id), "state", "attempt", "node"
        )
        return Glance(state.decode(), int(attempt), node_id.decode()) if state else None

    def _job(self, job_id: str) -> str:
        return self._keys.session_job(_session_of(job_id), job_id)


def _session_of(job_id: str) -> str:
    return split_job_id(job_id)[0]


def _stored(job_id: str, reply: Reply) -> StoredJob:
    now_ms = reply.integer()
    found: dict[str, Any] = dict(zip(_FIELDS, reply.values[1:], strict=True))
    deadline_ms = int(found["deadline_ms"])
    return StoredJob(
        job_id=job_id,
        state=found["state"].decode(),
        attempt=int(found["attempt"]),
        node_id=found["node"].decode(),
        deadline_ms=deadline_ms,
        remaining_ms=max(deadline_ms - now_ms, 0),
        accepted_ms=int(found["accepted_ms"]),
        brief=_brief.decode(found["brief"]),
        payload=found["payload"],
        history=_entries(found["history"]),
        seq=int(found["seq"]) if found["seq"] else None,
        decisions=_entries(found["decisions"]),
    )


def _entries(raw: bytes | None) -> list[dict[str, Any]]:
    return msgspec.json.decode(b"[" + (raw or b"") + b"]", type=list[dict[str, Any]])
