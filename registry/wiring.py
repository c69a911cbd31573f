"""Settings to services: membership, presence and leadership of one process."""

import functools
import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TypeVar

import structlog
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from registry.domain.errors import InvalidIdentifier, InvalidTiming, StoreUnavailable
from registry.domain.ids import check_identifier, instance_id
from registry.domain.lease import LeaseTiming
from registry.domain.node import Liveness
from registry.services.election import Election
from registry.services.loops import Loops, Step
from registry.services.membership import Membership
from registry.services.ports import Clock, InstanceStore, LeaseStore, NodeStore
from registry.services.views import NodeViews
from registry.store.address import Address, RedisMode, cluster, sentinel, single
from registry.store.connection import Connection
from registry.store.embedded import EmbeddedServer
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

log = structlog.get_logger(__name__)


def monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class RedisGround:
    """Where shared state lives: a Redis."""

    connection: Connection
    keys: Keys
    embedded: EmbeddedServer | None


@dataclass(frozen=True, slots=True)
class MemoryGround:
    """Where it lives in mode `off`: in this process, for nobody else."""

    server: MemoryServer


Ground = RedisGround | MemoryGround


@dataclass(frozen=True, slots=True)
class Registry:
    """One process's part in the cluster's membership."""

    instance_id: str
    started_at_ms: int
    ground: Ground
    liveness: Liveness
    lease_timing: LeaseTiming
    clock: Clock
    random: Random
    loops: Loops
    views: NodeViews
    membership: Membership
    instances: InstanceStore
    leases: LeaseStore

    @property
    def report_ms(self) -> int:
        """How often this process says that it is there."""
        life = self.liveness
        return max(min(life.snapshot_sync_ms, life.presence_ttl_ms // 3), 1)

    def election(self, *, seen_epoch: "SeenEpoch") -> Election:
        return Election(
            self.leases,
            candidate=self.instance_id,
            timing=self.lease_timing,
            clock=self.clock,
            random=self.random,
            seen_epoch=seen_epoch,
        )

    def start_loops(self) -> None:
        """Follow everyone's nodes, and keep the embedded server alive where there is one."""
        ground = self.ground
        if isinstance(ground, RedisGround) and ground.embedded is not None:
            self.loops.every("embedded server", 1_000, _reviver(ground.embedded))
        self.loops.again("node news", self.membership.follow)
        self.loops.every("node sync", self.liveness.snapshot_sync_ms, self.membership.sync)

    async def close(self) -> None:
        """Stop the loops and let go of Redis."""
        await self.loops.stop()
        if isinstance(self.ground, RedisGround):
            await self.ground.connection.close()
            if self.ground.embedded is not None:
                self.ground.embedded.stop()


SeenEpoch = Clock
"""Returns the highest epoch this process has seen."""


def embedded_server(folder: Path) -> EmbeddedServer:
    """The embedded server over the data in a folder; not started yet."""
    return EmbeddedServer(folder)


T = TypeVar("T")


def from_settings(build: Callable[[], T]) -> Callable[[], T]:
    """Let `build`, which reads settings, refuse them by Django's own error, in the same words."""

    @functools.wraps(build)
    def built() -> T:
        try:
            return build()
        except ValueError as error:
            raise ImproperlyConfigured(str(error)) from None

    return built


def liveness() -> Liveness:
    return Liveness(
        heartbeat_ms=settings.SCHED_HEARTBEAT_MS,
        presence_ttl_ms=settings.SCHED_PRESENCE_TTL_MS,
        owner_ttl_ms=settings.SCHED_OWNER_TTL_MS,
        snapshot_sync_ms=settings.SCHED_SNAPSHOT_SYNC_MS,
    )


def lease_timing() -> LeaseTiming:
    return LeaseTiming(ttl_ms=settings.SCHED_LEADER_TTL_MS, renew_ms=settings.SCHED_LEADER_RENEW_MS)


def build_registry() -> Registry:
    """Wire one process; raises ImproperlyConfigured with one sentence where settings are wrong."""
    try:
        timing, life = lease_timing(), liveness()
    except InvalidTiming as error:
        raise ImproperlyConfigured(str(error)) from None
    me = _instance_id()
    ground = _ground()
    views = NodeViews()
    random = Random()  # noqa: S311 (jitter and lots, no secret)
    nodes, instances, leases = _stores(ground, me, life, timing)
    return Registry(
        instance_id=me,
        started_at_ms=wall_ms(),
        ground=ground,
        liveness=life,
        lease_timing=timing,
        clock=monotonic_ms,
        random=random,
        loops=Loops(random),
        views=views,
        membership=Membership(nodes, views, instance_id=me, liveness=life, clock=monotonic_ms),
        instances=instances,
        leases=leases,
    )


def _stores(
    ground: Ground, me: str, life: Liveness, timing: LeaseTiming
) -> tuple[NodeStore, InstanceStore, LeaseStore]:
    owner_ttl_ms, presence_ttl_ms = life.owner_ttl_ms, life.presence_ttl_ms
    if isinstance(ground, MemoryGround):
        server = ground.server
        return (
            MemoryNodeStore(
                server, instance_id=me, owner_ttl_ms=owner_ttl_ms, presence_ttl_ms=presence_ttl_ms
            ),
            MemoryInstanceStore(server, presence_ttl_ms=presence_ttl_ms),
            MemoryLeaseStore(server, ttl_ms=timing.ttl_ms),
        )
    redis = (ground.connection, ground.keys)
    return (
        RedisNodeStore(
            *redis, instance_id=me, owner_ttl_ms=owner_ttl_ms, presence_ttl_ms=presence_ttl_ms
        ),
        RedisInstanceStore(*redis, presence_ttl_ms=presence_ttl_ms),
        RedisLeaseStore(*redis, ttl_ms=timing.ttl_ms),
    )


def _instance_id() -> str:
    chosen = settings.SCHED_INSTANCE_ID
    if chosen == "auto":
        return instance_id(host=socket.gethostname(), pid=os.getpid(), token=secrets.token_hex(3))
    try:
        return check_identifier(chosen, what="SCHED_INSTANCE_ID")
    except InvalidIdentifier as error:
        raise ImproperlyConfigured(str(error)) from None


def _ground() -> Ground:
    mode, url = settings.SCHED_REDIS_MODE, settings.SCHED_REDIS_URL
    if mode == "off":
        # Like a Redis of its own: what it stamps is shown to people beside wall times.
        return MemoryGround(MemoryServer(clock=wall_ms))
    prefix, embedded = settings.SCHED_REDIS_KEY_PREFIX, None
    if mode == RedisMode.SINGLE and not url:
        embedded = EmbeddedServer(settings.SCHED_EMBEDDED_DIR)
        try:
            embedded.ensure()
        except (StoreUnavailable, OSError) as error:
            raise ImproperlyConfigured(f"the embedded server cannot be used: {error}") from None
        url = embedded.url
    try:
        address = _address(mode, url)
        keys = Keys(check_identifier(prefix, what="SCHED_REDIS_KEY_PREFIX"))
    except (ValueError, InvalidIdentifier) as error:
        raise ImproperlyConfigured(str(error)) from None
    return RedisGround(Connection(address), keys, embedded)


def _address(mode: str, url: str) -> Address:
    if mode == RedisMode.CLUSTER:
        return cluster(settings.SCHED_REDIS_CLUSTER_URLS or ([url] if url else []))
    return sentinel(url) if mode == RedisMode.SENTINEL else single(url)


def _reviver(embedded: EmbeddedServer) -> Step:
    async def revive() -> None:
        # A look costs a microsecond; a start, when the parent of the last one died, 50 ms.
        embedded.ensure()

    return revive
