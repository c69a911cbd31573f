"""Queues in Redis: jobs that wait for a slot, one sorted set for each pool."""

from collections.abc import Sequence

import msgspec

from registry.store.connection import Connection
from registry.store.keys import Keys
from routing.store.jobs import SCRIPTS


class RedisQueueStore:
    """Implements `QueueStore`."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys

    async def put(
        self, queue: str, *, job_id: str, priority: int, accepted_ms: int, limit: int
    ) -> bool:
        reply = await self._connection.run(
            SCRIPTS["enqueue_job"],
            [self._keys.queue_index, self._keys.queue(queue)],
            [queue, job_id, priority, limit, accepted_ms],
        )
        return reply.word == "queued"

    async def lengths(self) -> dict[str, int]:
        flat = await self._connection.call("HGETALL", self._keys.queue_index)
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return {name.decode(): int(length) for name, length in pairs}

    async def pull(self, queues: Sequence[str]) -> str | None:
        if not queues:
            return None
        reply = await self._connection.run(
            SCRIPTS["pull_job"],
            [self._keys.queue_index, *(self._keys.queue(queue) for queue in queues)],
            [msgspec.json.encode(list(queues))],
        )
        return reply.text(0) if reply.word == "pulled" else None

    async def leave(self, queue: str, *, job_id: str) -> bool:
        reply = await self._connection.run(
            SCRIPTS["leave_queue"],
            [self._keys.queue_index, self._keys.queue(queue)],
            [queue, job_id],
        )
        return reply.word == "left"
