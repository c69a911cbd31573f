"""The sides of every contract: the same stores over memory, a real Redis and a real cluster."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from pools.services.ports import CatalogStore
from pools.store.catalog import RedisCatalogStore
from pools.store.memory import MemoryCatalogStore
from registry.services.ports import InstanceStore, LeaseStore, NodeStore
from registry.store.connection import Connection
from registry.store.instances import RedisInstanceStore
from registry.store.keys import Keys
from registry.store.leases import RedisLeaseStore
from registry.store.memory import (
    MemoryInstanceStore,
    MemoryLeaseStore,
    MemoryNodeStore,
    MemoryServer,
)
from registry.store.nodes import RedisNodeStore
from routing.services.ports import (
    DeadLetterStore,
    FigureStore,
    InboxStore,
    JobStore,
    QueueStore,
    SessionStore,
    ShareStore,
    SlotStore,
)
from routing.store.deadletters import RedisDeadLetterStore
from routing.store.figures import RedisFigureStore
from routing.store.inbox import RedisInboxStore
from routing.store.jobs import RedisJobStore
from routing.store.memory import (
    MemoryDeadLetterStore,
    MemoryInboxStore,
    MemoryJobStore,
    MemoryQueueStore,
    MemorySessionStore,
    MemoryShareStore,
    MemorySlotStore,
)
from routing.store.memory.figures import MemoryFigureStore
from routing.store.queues import RedisQueueStore
from routing.store.reservations import RedisSlotStore
from routing.store.sessions import RedisSessionStore
from routing.store.shares import RedisShareStore
from tests.support.redis_servers import ShardedRedis
from tests.support.waiting import eventually

LONG_MS = 60_000
SHORT_MS = 200
"""A life that a test waits out on Redis, and that nothing else in the test takes as long as."""
OPEN_LIMIT = 3
OUTBOX_LIMIT = 1_000


class Backend(Protocol):
    """A server, and stores over it as each instance would build them."""

    def nodes(self, instance_id: str = "one", *, ttl_ms: int = LONG_MS) -> NodeStore: ...

    def instances(self, *, ttl_ms: int = LONG_MS) -> InstanceStore: ...

    def leases(self, *, ttl_ms: int = LONG_MS) -> LeaseStore: ...

    def catalog(self, *, ttl_ms: int = LONG_MS) -> CatalogStore: ...

    def jobs(self, *, retention_ms: int = LONG_MS) -> JobStore: ...

    def sessions(self, *, retention_ms: int = LONG_MS) -> SessionStore: ...

    def slots(self) -> SlotStore: ...

    def shares(self) -> ShareStore: ...

    def queues(self) -> QueueStore: ...

    def inbox(self, instance_id: str) -> InboxStore: ...

    def letters(
        self, instance_id: str = "one", *, limit: int = 100, keep_ms: int = LONG_MS
    ) -> DeadLetterStore: ...

    def figures(self, *, life_ms: int = LONG_MS) -> FigureStore: ...

    async def lose_everything(self) -> None:
        """Take all data from the server, as a restart without its disk does."""

    async def outlast(self, ttl_ms: int, condition: Callable[[], Awaitable[bool]]) -> None:
        """Let `ttl_ms` pass on the server; returns when the condition has come true by that."""

    async def elapse(self, ms: int) -> None:
        """Let `ms` pass on the server: whatever had less to live is gone by then."""


class MemoryBackend:
    """Stores over one memory server, whose time a test moves."""

    def __init__(self) -> None:
        self.now_ms = 1_790_000_000_000
        self._server = MemoryServer(clock=lambda: self.now_ms)

    def nodes(self, instance_id: str = "one", *, ttl_ms: int = LONG_MS) -> NodeStore:
        return MemoryNodeStore(
            self._server, instance_id=instance_id, owner_ttl_ms=ttl_ms, presence_ttl_ms=ttl_ms
        )

    def instances(self, *, ttl_ms: int = LONG_MS) -> InstanceStore:
        return MemoryInstanceStore(self._server, presence_ttl_ms=ttl_ms)

    def leases(self, *, ttl_ms: int = LONG_MS) -> LeaseStore:
        return MemoryLeaseStore(self._server, ttl_ms=ttl_ms)

    def catalog(self, *, ttl_ms: int = LONG_MS) -> CatalogStore:
        return MemoryCatalogStore(self._server, config_ttl_ms=ttl_ms)

    def jobs(self, *, retention_ms: int = LONG_MS) -> JobStore:
        return MemoryJobStore(
            self._server,
            retention_ms=retention_ms,
            open_limit=OPEN_LIMIT,
            outbox_limit=OUTBOX_LIMIT,
        )

    def sessions(self, *, retention_ms: int = LONG_MS) -> SessionStore:
        return MemorySessionStore(self._server, retention_ms=retention_ms)

    def slots(self) -> SlotStore:
        return MemorySlotStore(self._server)

    def shares(self) -> ShareStore:
        return MemoryShareStore(self._server)

    def queues(self) -> QueueStore:
        return MemoryQueueStore(self._server)

    def inbox(self, instance_id: str) -> InboxStore:
        return MemoryInboxStore(self._server, instance_id=instance_id)

    def letters(
        self, instance_id: str = "one", *, limit: int = 100, keep_ms: int = LONG_MS
    ) -> DeadLetterStore:
        return MemoryDeadLetterStore(
            self._server,
            instance_id=instance_id,
            limit=limit,
            keep_ms=keep_ms,
            retention_ms=SHORT_MS,
        )

    def figures(self, *, life_ms: int = LONG_MS) -> FigureStore:
        return MemoryFigureStore(self._server, life_ms=life_ms)

    async def lose_everything(self) -> None:
        self._server.lose_everything()

    async def outlast(self, ttl_ms: int, condition: Callable[[], Awaitable[bool]]) -> None:
        self.now_ms += ttl_ms - 1
        assert not await condition(), "it came true before its time"
        self.now_ms += 1
        assert await condition()

    async def elapse(self, ms: int) -> None:
        self.now_ms += ms


class RedisBackend:
    """Stores over one key prefix of a real server, whose time nobody moves."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self.connection = connection
        self.keys = keys

    def nodes(self, instance_id: str = "one", *, ttl_ms: int = LONG_MS) -> NodeStore:
        return RedisNodeStore(
            self.connection,
            self.keys,
            instance_id=instance_id,
            owner_ttl_ms=ttl_ms,
            presence_ttl_ms=ttl_ms,
        )

    def instances(self, *, ttl_ms: int = LONG_MS) -> InstanceStore:
        return RedisInstanceStore(self.connection, self.keys, presence_ttl_ms=ttl_ms)

    def leases(self, *, ttl_ms: int = LONG_MS) -> LeaseStore:
        return RedisLeaseStore(self.connection, self.keys, ttl_ms=ttl_ms)

    def catalog(self, *, ttl_ms: int = LONG_MS) -> CatalogStore:
        return RedisCatalogStore(self.connection, self.keys, config_ttl_ms=ttl_ms)

    def jobs(self, *, retention_ms: int = LONG_MS) -> JobStore:
        return RedisJobStore(
            self.connection,
            self.keys,
            retention_ms=retention_ms,
            open_limit=OPEN_LIMIT,
            outbox_limit=OUTBOX_LIMIT,
        )

    def sessions(self, *, retention_ms: int = LONG_MS) -> SessionStore:
        return RedisSessionStore(self.connection, self.keys, retention_ms=retention_ms)

    def slots(self) -> SlotStore:
        return RedisSlotStore(self.connection, self.keys)

    def shares(self) -> ShareStore:
        return RedisShareStore(self.connection, self.keys)

    def queues(self) -> QueueStore:
        return RedisQueueStore(self.connection, self.keys)

    def inbox(self, instance_id: str) -> InboxStore:
        return RedisInboxStore(self.connection, self.keys, instance_id=instance_id)

    def letters(
        self, instance_id: str = "one", *, limit: int = 100, keep_ms: int = LONG_MS
    ) -> DeadLetterStore:
        return RedisDeadLetterStore(
            self.connection,
            self.keys,
            instance_id=instance_id,
            limit=limit,
            keep_ms=keep_ms,
            retention_ms=SHORT_MS,
        )

    def figures(self, *, life_ms: int = LONG_MS) -> FigureStore:
        return RedisFigureStore(self.connection, self.keys, life_ms=life_ms)

    async def lose_everything(self) -> None:
        await self.connection.call("FLUSHALL")

    async def outlast(self, ttl_ms: int, condition: Callable[[], Awaitable[bool]]) -> None:
        await eventually(condition, within_ms=ttl_ms + 5_000)

    async def elapse(self, ms: int) -> None:
        witness = f"{self.keys.prefix}:witness"
        await self.connection.call("SET", witness, "", "PX", ms)

        async def gone() -> bool:
            return not await self.connection.call("EXISTS", witness)

        await self.outlast(ms, gone)


class ClusterBackend(RedisBackend):
    """Stores over one key prefix of a real cluster."""

    def __init__(self, connection: Connection, keys: Keys, servers: ShardedRedis) -> None:
        super().__init__(connection, keys)
        self._servers = servers

    async def lose_everything(self) -> None:
        self._servers.flush()
