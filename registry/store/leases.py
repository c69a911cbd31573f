"""The leader's lease in Redis."""

import asyncio

from registry.domain.lease import Acquisition, Granted, Held
from registry.store.connection import Connection
from registry.store.keys import Keys
from registry.store.nodes import SCRIPTS


class RedisLeaseStore:
    """Implements `LeaseStore`."""

    def __init__(self, connection: Connection, keys: Keys, *, ttl_ms: int) -> None:
        self._connection = connection
        self._keys = keys
        self._ttl_ms = ttl_ms
        self._lease = [keys.leader, keys.leader_epoch]

    async def acquire(self, candidate: str, *, floor: int) -> Acquisition:
        reply = await self._connection.run(
            SCRIPTS["acquire_lease"], self._lease, [candidate, floor, self._ttl_ms]
        )
        if reply.word == "granted":
            return Granted(reply.integer())
        return Held(reply.text(0), reply.integer(1), reply.integer(2))

    async def renew(self, candidate: str, *, epoch: int) -> bool:
        reply = await self._connection.run(
            SCRIPTS["renew_lease"], self._lease, [candidate, epoch, self._ttl_ms]
        )
        return reply.word == "renewed"

    async def release(self, candidate: str, *, epoch: int) -> bool:
        reply = await self._connection.run(
            SCRIPTS["release_lease"], [*self._lease, self._keys.pool_changes], [candidate, epoch]
        )
        return reply.word == "released"

    async def holder(self) -> Held | None:
        holder, epoch, remaining_ms = await asyncio.gather(
            self._connection.call("GET", self._keys.leader),
            self._connection.call("GET", self._keys.leader_epoch),
            self._connection.call("PTTL", self._keys.leader),
        )
        if holder is None:
            return None
        return Held(holder.decode(), int(epoch or 0), max(int(remaining_ms), 0))

    async def raise_epoch(self, seen: int) -> None:
        await self._connection.run(SCRIPTS["raise_epoch"], [self._keys.leader_epoch], [seen])
