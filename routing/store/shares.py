"""Tenants' unfinished jobs in Redis: one sorted set of job ids by expiry for each tenant."""

from registry.store.connection import Connection
from registry.store.keys import Keys
from routing.domain.outcome import Share
from routing.store.jobs import SCRIPTS


class RedisShareStore:
    """Implements `ShareStore`."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys

    async def hold(self, tenant: str, *, job_id: str, life_ms: int, limit: int) -> Share:
        reply = await self._connection.run(
            SCRIPTS["hold_share"], [self._keys.tenant_open(tenant)], [job_id, life_ms, limit]
        )
        return Share(reply.word)

    async def release(self, tenant: str, *, job_id: str) -> None:
        await self._connection.call("ZREM", self._keys.tenant_open(tenant), job_id)
