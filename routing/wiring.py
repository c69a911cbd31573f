"""Settings to services: one scheduler instance, from its stores to what its sockets speak to."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from pools.store.catalog import SCRIPTS as POOL_SCRIPTS
from pools.wiring import Pools, build_pools
from registry.domain.ids import check_identifier
from registry.store.acl import rights
from registry.store.nodes import SCRIPTS as NODE_SCRIPTS
from registry.wiring import RedisGround, Registry, build_registry, wall_ms
from routing.domain.credentials import session_keys
from routing.domain.job import JobLimits
from routing.domain.limits import Limits
from routing.domain.selection import SelectionRules
from routing.instance import Routing, Stores
from routing.services.access import Access, Gate
from routing.services.actions import Actions, NodeControl
from routing.services.assignment import Assignment
from routing.services.completion import Completion
from routing.services.connections import Connections
from routing.services.deadlines import Deadlines
from routing.services.delivery import Delivery
from routing.services.handover import Handover
from routing.services.intake import Intake
from routing.services.island import Island
from routing.services.node_credentials import Issuing, Revoking
from routing.services.node_keys import NodeKeys
from routing.services.overview import Overview
from routing.services.placement import Placement
from routing.services.rehearsal import Rehearsal
from routing.services.retries import Retries
from routing.services.session_tokens import SessionTokens
from routing.services.sessions import Sessions
from routing.services.shares import Shares
from routing.services.slots import Slots
from routing.services.sweeper import Sweeper
from routing.services.tokens import Tokens
from routing.services.waiting import Waiting
from routing.store.audit import DjangoAuditLog
from routing.store.inbox import RedisInboxStore
from routing.store.jobs import SCRIPTS, RedisJobStore
from routing.store.memory import (
    MemoryInboxStore,
    MemoryJobStore,
    MemoryQueueStore,
    MemorySessionStore,
    MemoryShareStore,
    MemorySlotStore,
)
from routing.store.node_keys import DjangoNodeCredentials
from routing.store.queues import RedisQueueStore
from routing.store.reservations import RedisSlotStore
from routing.store.sessions import RedisSessionStore
from routing.store.shares import RedisShareStore
from routing.store.tokens import DjangoOperatorTokens

OPEN_LIMIT = 1_000
"""Unfinished jobs that one session may have."""

OUTBOX_LIMIT = 10_000
"""Terminal messages kept for one session until it acknowledges them."""


def build_candidate() -> Routing:
    """Wire a process that only stands for election: no sockets, no inbox."""
    return build_routing(serves=False)


def build_routing(*, serves: bool = True) -> Routing:
    """Wire one instance; raises ImproperlyConfigured with one sentence where settings are wrong."""
    limits, rules = job_limits(), selection_rules()
    registry = build_registry()
    pools = build_pools(registry)
    stores = _stores(registry, limits)
    me = registry.instance_id
    membership, deadlines = registry.membership, Deadlines(registry.clock)
    delivery = Delivery(stores.inbox, instance_id=me)
    slots = Slots(stores.slots, registry.views, lease_ms=limits.reservation_ms)
    placement = Placement(pools.index, registry.views, rules=rules, chance=registry.random.random)
    assignment = Assignment(stores.jobs, slots, delivery, membership, instance_id=me)
    waiting = Waiting(stores.queues, stores.jobs, assignment, placement, membership)
    sessions = Sessions(
        stores.sessions, instance_id=me, new_token=lambda: secrets.token_urlsafe(32)
    )
    completion = Completion(
        stores.jobs,
        slots,
        waiting,
        assignment,
        delivery,
        membership,
        sessions,
        deadlines,
        instance_id=me,
    )
    retries = Retries(
        stores.jobs,
        slots,
        waiting,
        assignment,
        completion,
        placement,
        sessions,
        deadlines,
        limits=limits,
    )
    sweeper = Sweeper(
        pools.election, membership, registry.instances, stores.inbox, sessions, retries
    )
    shares = Shares(
        stores.shares,
        limit=socket_limits().tenant_in_flight,
        life_ms=limits.life_ms,
        clock=registry.clock,
        spawn=lambda work: registry.loops.spawn(work, name="tenant's share"),
    )
    completion.listeners.append(shares.ended)
    intake = Intake(stores.jobs, slots, waiting, assignment, placement, deadlines, limits=limits)
    return Routing(
        registry=registry,
        pools=pools,
        stores=stores,
        access=Access(
            settings.SCHED_NODE_AUTH,
            settings.SCHED_SESSION_AUTH,
            NodeKeys(DjangoNodeCredentials(), delivery, clock=registry.clock, wall=wall_ms),
            session_tokens(),
        ),
        gate=Gate(socket_limits()),
        shares=shares,
        revoking=Revoking(registry.instances, delivery),
        membership=membership,
        connections=Connections(),
        delivery=delivery,
        deadlines=deadlines,
        slots=slots,
        placement=placement,
        assignment=assignment,
        sessions=sessions,
        waiting=waiting,
        completion=completion,
        retries=retries,
        intake=intake,
        island=Island(
            stores.jobs,
            sessions,
            stores.sessions,
            slots,
            waiting,
            assignment,
            deadlines,
            membership,
            placement,
            limits=limits,
            clock=registry.clock,
            new_token=lambda: secrets.token_hex(8),
            spawn=lambda work: registry.loops.spawn(work, name="island"),
        ),
        handover=Handover(sessions, retries, delivery, instance_id=me),
        overview=Overview(
            instance_id=me,
            started_at_ms=registry.started_at_ms,
            views=registry.views,
            index=pools.index,
            sync=pools.sync,
            instances=registry.instances,
            leases=registry.leases,
            loops=registry.loops,
            jobs=stores.jobs,
            sessions=stores.sessions,
        ),
        rehearsal=Rehearsal(
            pools.index, registry.views, rules=rules, chance=registry.random.random
        ),
        actions=_actions(registry, pools, delivery, instance_id=me),
        control=NodeControl(delivery, membership, waiting, instance_id=me),
        sweeper=sweeper,
        serves=serves,
        max_frame_bytes=settings.SCHED_MAX_FRAME_BYTES,
        default_capacity=limits.default_capacity,
    )


@asynccontextmanager
async def build_actions() -> AsyncIterator[Actions]:
    """Wire operators' actions for a process that is no instance, on the nodes as they are now.

    Raises ImproperlyConfigured where settings are wrong, and StoreUnavailable.
    """
    if settings.SCHED_REDIS_MODE == "off":
        raise ImproperlyConfigured(
            "SCHED_REDIS_MODE is 'off', so no other process can reach the instance;"
            " use its API or its admin pages"
        )
    registry = build_registry()
    try:
        ground = registry.ground
        assert isinstance(ground, RedisGround)  # noqa: S101 (only mode `off` has another)
        # Never the id of an instance, whatever SCHED_INSTANCE_ID says: what is meant for the
        # instance of that name would be taken for our own.
        me = f"command-{secrets.token_hex(8)}"
        inbox = RedisInboxStore(ground.connection, ground.keys, instance_id=me)
        await registry.membership.sync()
        yield _actions(
            registry, build_pools(registry), Delivery(inbox, instance_id=me), instance_id=me
        )
    finally:
        await registry.close()


def _actions(registry: Registry, pools: Pools, delivery: Delivery, *, instance_id: str) -> Actions:
    return Actions(
        registry.membership,
        delivery,
        pools.catalog,
        registry.leases,
        DjangoAuditLog(),
        instance_id=instance_id,
    )


def operator_tokens() -> Tokens:
    """The credentials of operators' programs; they need no instance."""
    return Tokens(DjangoOperatorTokens(), DjangoAuditLog())


def node_credentials() -> Issuing:
    """Giving out and revoking nodes' credentials in the database; it needs no instance."""
    return Issuing(DjangoNodeCredentials(), DjangoAuditLog())


@asynccontextmanager
async def build_revoking() -> AsyncIterator[Revoking | None]:
    """Wire the word to all instances that credentials were revoked; None in mode `off`.

    Raises ImproperlyConfigured where settings are wrong.
    """
    if settings.SCHED_REDIS_MODE == "off":
        yield None
        return
    registry = build_registry()
    try:
        ground = registry.ground
        assert isinstance(ground, RedisGround)  # noqa: S101 (only mode `off` has another)
        me = f"command-{secrets.token_hex(8)}"
        inbox = RedisInboxStore(ground.connection, ground.keys, instance_id=me)
        yield Revoking(registry.instances, Delivery(inbox, instance_id=me))
    finally:
        await registry.close()


def session_tokens() -> SessionTokens:
    """Sessions' tokens, checked and made; raises ImproperlyConfigured where the keys are wrong."""
    try:
        return SessionTokens(session_keys(settings.SCHED_SESSION_KEYS))
    except ValueError as error:
        raise ImproperlyConfigured(str(error)) from None


def redis_rights() -> list[str]:
    """What the scheduler's Redis user must be allowed, as ACL SETUSER takes it."""
    prefix = check_identifier(settings.SCHED_REDIS_KEY_PREFIX, what="SCHED_REDIS_KEY_PREFIX")
    scripts = [script for kept in (NODE_SCRIPTS, POOL_SCRIPTS, SCRIPTS) for script in kept.values()]
    return rights(
        prefix,
        (script.source for script in scripts),
        clustered=settings.SCHED_REDIS_MODE == "cluster",
    )


def socket_limits() -> Limits:
    try:
        return Limits(
            session_frame_rate=settings.SCHED_SESSION_FRAME_RATE,
            node_frame_rate=settings.SCHED_NODE_FRAME_RATE,
            sockets_per_address=settings.SCHED_SOCKETS_PER_ADDRESS,
            sockets_per_process=settings.SCHED_SOCKETS_PER_PROCESS,
            greeting_ms=settings.SCHED_GREETING_MS,
            session_idle_ms=settings.SCHED_SESSION_IDLE_MS,
            tenant_in_flight=settings.SCHED_TENANT_IN_FLIGHT,
        )
    except ValueError as error:
        raise ImproperlyConfigured(str(error)) from None


def shut_doors() -> list[str]:
    """The settings by which no one can open a socket yet."""
    keyless = settings.SCHED_SESSION_AUTH == "required" and not settings.SCHED_SESSION_KEYS.strip()
    return ["SCHED_SESSION_KEYS"] if keyless else []


def job_limits() -> JobLimits:
    try:
        return JobLimits(
            timeout_ms=settings.SCHED_JOB_TIMEOUT_MS,
            max_attempts=settings.SCHED_JOB_MAX_ATTEMPTS,
            queue_limit=settings.SCHED_QUEUE_LIMIT,
            queue_timeout_ms=settings.SCHED_QUEUE_TIMEOUT_MS,
            default_capacity=settings.SCHED_MAX_JOBS_PER_NODE,
        )
    except ValueError as error:
        raise ImproperlyConfigured(str(error)) from None


def open_doors() -> list[str]:
    """The settings by which anyone may open a socket."""
    doors = ("SCHED_NODE_AUTH", "SCHED_SESSION_AUTH")
    return [door for door in doors if getattr(settings, door) == "open"]


def selection_rules() -> SelectionRules:
    try:
        return SelectionRules(resource_threshold=settings.SCHED_RESOURCE_THRESHOLD)
    except ValueError as error:
        raise ImproperlyConfigured(str(error)) from None


def _stores(registry: Registry, limits: JobLimits) -> Stores:
    ground, me = registry.ground, registry.instance_id
    retention_ms = settings.SCHED_SESSION_RETENTION_MS + limits.life_ms
    if isinstance(ground, RedisGround):
        redis = (ground.connection, ground.keys)
        return Stores(
            RedisJobStore(
                *redis,
                retention_ms=retention_ms,
                open_limit=OPEN_LIMIT,
                outbox_limit=OUTBOX_LIMIT,
            ),
            RedisSessionStore(*redis, retention_ms=retention_ms),
            RedisSlotStore(*redis),
            RedisQueueStore(*redis),
            RedisInboxStore(*redis, instance_id=me),
            RedisShareStore(*redis),
        )
    server = ground.server
    return Stores(
        MemoryJobStore(
            server, retention_ms=retention_ms, open_limit=OPEN_LIMIT, outbox_limit=OUTBOX_LIMIT
        ),
        MemorySessionStore(server, retention_ms=retention_ms),
        MemorySlotStore(server),
        MemoryQueueStore(server),
        MemoryInboxStore(server, instance_id=me),
        MemoryShareStore(server),
    )
