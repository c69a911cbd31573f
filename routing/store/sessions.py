"""Sessions and their outboxes in Redis. A terminal message with seq n has stream id `n-0`."""

import asyncio
from collections.abc import Sequence

import msgspec

from registry.store.connection import Connection
from registry.store.keys import Keys
from registry.store.streams import entries
from routing.domain.outcome import JournalEntry, Resumed, ResumeRefused, StoredSession
from routing.store.jobs import SCRIPTS


class RedisSessionStore:
    """Implements `SessionStore`."""

    def __init__(self, connection: Connection, keys: Keys, *, retention_ms: int) -> None:
        self._connection = connection
        self._keys = keys
        self._retention_ms = retention_ms

    async def open(
        self, session_id: str, *, instance_id: str, token_hash: str, init: bytes
    ) -> bool:
        reply = await self._connection.run(
            SCRIPTS["open_session"],
            [self._keys.session_meta(session_id)],
            [instance_id, token_hash, init, self._retention_ms],
        )
        return reply.word == "opened"

    async def resume(
        self, session_id: str, *, instance_id: str, token_hash: str
    ) -> Resumed | ResumeRefused:
        reply = await self._connection.run(
            SCRIPTS["resume_session"],
            self._parts(session_id),
            [instance_id, token_hash, self._retention_ms],
        )
        if reply.word != "resumed":
            return ResumeRefused(forbidden=reply.word == "forbidden")
        epoch, seq, previous_instance = reply.integer(0), reply.integer(1), reply.text(2)
        return Resumed(epoch, seq, previous_instance, reply.values[3], top=reply.integer(4))

    async def settle(
        self, session_id: str, *, base: int, entries: Sequence[JournalEntry], token: str
    ) -> int | None:
        keys = self._keys
        reply = await self._connection.run(
            SCRIPTS["settle_session"],
            [
                keys.session_meta(session_id),
                keys.session_open(session_id),
                keys.session_outbox(session_id),
                *(keys.session_job(session_id, entry.job_id) for entry in entries),
            ],
            [base, msgspec.json.encode(entries), token, self._retention_ms],
        )
        return None if reply.word == "unknown" else reply.integer()

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
        reply = await self._connection.run(
            SCRIPTS["restore_session"],
            [self._keys.session_meta(session_id)],
            [instance_id, token_hash, init, epoch, seq, self._retention_ms],
        )
        return reply.word == "restored"

    async def close(self, session_id: str) -> list[str]:
        reply = await self._connection.run(
            SCRIPTS["close_session"],
            [self._keys.session_meta(session_id), self._keys.session_open(session_id)],
            [],
        )
        return [job_id.decode() for job_id in reply.values]

    async def touch(self, session_id: str) -> None:
        parts = self._parts(session_id)
        await asyncio.gather(
            *(self._connection.call("PEXPIRE", key, self._retention_ms) for key in parts)
        )

    async def watch(self, session_id: str, *, instance_id: str) -> None:
        await self._connection.call("SADD", self._keys.instance_sessions(instance_id), session_id)

    async def unwatch(self, session_id: str, *, instance_id: str) -> None:
        await self._connection.call("SREM", self._keys.instance_sessions(instance_id), session_id)

    async def watched(self, instance_id: str) -> list[str]:
        found = await self._connection.call("SMEMBERS", self._keys.instance_sessions(instance_id))
        return sorted(session_id.decode() for session_id in found)

    async def get(self, session_id: str) -> StoredSession | None:
        meta, open_jobs = await asyncio.gather(
            self._connection.call(
                "HMGET", self._keys.session_meta(session_id), "instance", "epoch", "seq", "closed"
            ),
            self.open_jobs(session_id),
        )
        instance_id, epoch, seq, closed = meta
        if epoch is None:
            return None
        return StoredSession(
            session_id,
            instance_id.decode(),
            int(epoch),
            int(seq),
            closed=closed is not None,
            open_jobs=open_jobs,
        )

    async def open_jobs(self, session_id: str) -> list[str]:
        found = await self._connection.call("ZRANGE", self._keys.session_open(session_id), 0, -1)
        return [job_id.decode() for job_id in found]

    async def outbox(self, session_id: str, *, after: int) -> list[tuple[int, bytes]]:
        reply = await self._connection.call(
            "XRANGE", self._keys.session_outbox(session_id), f"({after}", "+"
        )
        return [(int(e.id.partition("-")[0]), e.fields[b"body"]) for e in entries(reply)]

    async def trim(self, session_id: str, *, upto: int) -> None:
        await self._connection.call(
            "XTRIM", self._keys.session_outbox(session_id), "MINID", f"{upto + 1}-0"
        )

    def _parts(self, session_id: str) -> list[str]:
        return [
            self._keys.session_meta(session_id),
            self._keys.session_open(session_id),
            self._keys.session_outbox(session_id),
        ]
