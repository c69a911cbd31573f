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
from registry.wiring import RedisGround, Registry, build_registry, from_settings, wall_ms
from routing.domain.credentials import session_keys
from routing.domain.job import JobLimits
from routing.domain.limits import Limits
from routing.domain.patience import Patience
from routing.domain.queueing import parse_weights
from routing.domain.selection import SelectionRules
from routing.instance import Routing, Stores
from routing.services.access import Access, Gate
from routing.services.actions import Actions, NodeControl
from routing.services.assignment import Assignment
from routing.services.backlog import Backlog
from routing.services.completion import Completion
from routing.services.connections import Connections
from routing.services.deadletters import DeadLetters
from routing.services.deadlines import Deadlines
from routing.services.delivery import Delivery
from routing.services.dispatch_times import DispatchTimes
from routing.services.draining import Draining
from routing.services.handover import Handover
from routing.services.intake import Intake
from routing.services.island import Island
from routing.services.lately import Lately
from routing.services.leaving import Leaving
from routing.services.letter_actions import LetterActions
from routing.services.losses import Losses
from routing.services.node_credentials import Issuing, Revoking
from routing.services.node_keys import NodeKeys
from routing.services.overview import Overview
from routing.services.placement import Placement
from routing.services.rehearsal import Rehearsal
from routing.services.replays import RemoteReplays, Replays
from routing.services.retries import Retries
from routing.services.session_tokens import SessionTokens
from routing.services.sessions import Sessions
from routing.services.shares import Shares
from routing.services.slotcheck import SlotCheck
from routing.services.slots import Slots
from routing.services.sweeper import Sweeper
from routing.services.tenants import Tenants
from routing.services.tokens import Tokens
from routing.services.waiting import Waiting
from routing.store.audit import DjangoAuditLog
from routing.store.deadletters import RedisDeadLetterStore
from routing.store.inbox import RedisInboxStore
from routing.store.jobs import SCRIPTS, RedisJobStore
from routing.store.memory import (
    MemoryDeadLetterStore,
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
from routing.store.tenants import DjangoTenantStore
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
    limits, rules, weights = job_limits(), selection_rules(), tenant_weights()
    patience = node_patience()
    registry = build_registry()
    pools = build_pools(registry)
    me = registry.instance_id
    stores = _stores(registry, limits, instance_id=me)
    membership, deadlines = registry.membership, Deadlines(registry.clock)
    delivery = Delivery(stores.inbox, instance_id=me)
    slots = Slots(
        stores.slots, registry.views, lease_ms=limits.reservation_ms, clock=registry.clock
    )
    placement = Placement(
        pools.index,
        registry.views,
        rules=rules,
        chance=registry.random.random,
        clock=registry.clock,
        some_local=membership.some_local,
    )
    assignment = Assignment(
        stores.jobs,
        slots,
        delivery,
        membership,
        instance_id=me,
        ack_timeout_ms=patience.ack_timeout_ms,
        clock=registry.clock,
    )
    tenants = Tenants(DjangoTenantStore(), configured=weights)
    waiting = Waiting(
        stores.queues,
        stores.jobs,
        slots,
        assignment,
        placement,
        membership,
        Backlog(stores.queues, placement, clock=registry.clock),
        tenants,
        limits=limits,
        spawn=lambda work: registry.loops.spawn(work, name="waiting"),
    )
    sessions = Sessions(
        stores.sessions, instance_id=me, new_token=lambda: secrets.token_urlsafe(32)
    )
    letters = _letters(registry, pools, stores)
    letters.listen(delivery)
    lately = Lately(wall_ms)
    completion = Completion(
        stores.jobs,
        slots,
        waiting,
        assignment,
        delivery,
        membership,
        sessions,
        deadlines,
        letters,
        lately,
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
        membership,
        limits=limits,
        ack_timeout_ms=patience.ack_timeout_ms,
    )
    losses = Losses(
        stores.jobs,
        stores.sessions,
        slots,
        waiting,
        assignment,
        retries,
        delivery,
        membership,
        Deadlines(registry.clock),
        patience=patience,
        instance_id=me,
    )
    sweeper = Sweeper(
        pools.election,
        membership,
        registry.instances,
        stores.inbox,
        sessions,
        retries,
        losses,
        presence_ttl_ms=registry.liveness.presence_ttl_ms,
        clock=registry.clock,
    )
    connections = Connections()
    draining_nodes = Draining(
        membership, slots, retries, timeout_ms=patience.drain_timeout_ms, clock=registry.clock
    )
    leaving = Leaving(
        membership,
        sessions,
        assignment,
        waiting,
        deadlines,
        connections,
        delivery,
        timeout_ms=patience.drain_timeout_ms,
        clock=registry.clock,
    )
    shares = Shares(
        stores.shares,
        limit=socket_limits().tenant_in_flight,
        life_ms=limits.life_ms,
        clock=registry.clock,
        spawn=lambda work: registry.loops.spawn(work, name="tenant's share"),
    )
    completion.listeners.append(shares.ended)
    times = DispatchTimes()
    intake = Intake(
        stores.jobs,
        slots,
        waiting,
        assignment,
        placement,
        deadlines,
        limits=limits,
        times=times,
    )
    replays = Replays(
        stores.letters, stores.jobs, stores.sessions, intake, delivery, instance_id=me
    )
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
        connections=connections,
        delivery=delivery,
        deadlines=deadlines,
        slots=slots,
        placement=placement,
        assignment=assignment,
        sessions=sessions,
        tenants=tenants,
        waiting=waiting,
        completion=completion,
        lately=lately,
        retries=retries,
        losses=losses,
        slot_check=SlotCheck(stores.jobs, slots),
        draining_nodes=draining_nodes,
        leaving=leaving,
        intake=intake,
        dispatch_times=times,
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
        handover=Handover(sessions, retries, losses, delivery, instance_id=me),
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
        rehearsal=Rehearsal(pools.index, registry.views, placement),
        actions=_actions(registry, pools, delivery, instance_id=me),
        letters=letters,
        letter_actions=LetterActions(letters, replays, DjangoAuditLog()),
        control=NodeControl(delivery, membership, waiting, draining_nodes, leaving, instance_id=me),
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
    async with _outside() as (registry, stores, me):
        await registry.membership.sync()
        delivery = Delivery(stores.inbox, instance_id=me)
        yield _actions(registry, build_pools(registry), delivery, instance_id=me)


@asynccontextmanager
async def build_letter_actions() -> AsyncIterator[LetterActions]:
    """Wire the dead letters for a process that is no instance; raises like `build_actions`."""
    async with _outside() as (registry, stores, me):
        letters = _letters(registry, build_pools(registry), stores)
        replays = RemoteReplays(
            stores.letters,
            stores.jobs,
            registry.instances,
            Delivery(stores.inbox, instance_id=me),
            registry.clock,
        )
        yield LetterActions(letters, replays, DjangoAuditLog())


@asynccontextmanager
async def _outside() -> AsyncIterator[tuple[Registry, Stores, str]]:
    if settings.SCHED_REDIS_MODE == "off":
        raise ImproperlyConfigured(
            "SCHED_REDIS_MODE is 'off', so no other process can reach the instance;"
            " use its API or its admin pages"
        )
    registry = build_registry()
    try:
        # Never the id of an instance, whatever SCHED_INSTANCE_ID says: what is meant for the
        # instance of that name would be taken for our own.
        me = f"command-{secrets.token_hex(8)}"
        yield registry, _stores(registry, job_limits(), instance_id=me), me
    finally:
        await registry.close()


def _letters(registry: Registry, pools: Pools, stores: Stores) -> DeadLetters:
    return DeadLetters(
        stores.letters,
        stores.jobs,
        registry.instances,
        instance_id=registry.instance_id,
        leads=lambda: pools.election.leading() is not None,
    )


def _actions(registry: Registry, pools: Pools, delivery: Delivery, *, instance_id: str) -> Actions:
    return Actions(
        registry.membership,
        delivery,
        pools.catalog,
        registry.leases,
        registry.instances,
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
    async with _outside() as (registry, stores, me):
        yield Revoking(registry.instances, Delivery(stores.inbox, instance_id=me))


@from_settings
def session_tokens() -> SessionTokens:
    """Sessions' tokens, checked and made; raises ImproperlyConfigured where the keys are wrong."""
    return SessionTokens(session_keys(settings.SCHED_SESSION_KEYS))


def redis_rights() -> list[str]:
    """What the scheduler's Redis user must be allowed, as ACL SETUSER takes it."""
    prefix = check_identifier(settings.SCHED_REDIS_KEY_PREFIX, what="SCHED_REDIS_KEY_PREFIX")
    scripts = [script for kept in (NODE_SCRIPTS, POOL_SCRIPTS, SCRIPTS) for script in kept.values()]
    return rights(
        prefix,
        (script.source for script in scripts),
        clustered=settings.SCHED_REDIS_MODE == "cluster",
    )


@from_settings
def socket_limits() -> Limits:
    return Limits(
        session_frame_rate=settings.SCHED_SESSION_FRAME_RATE,
        node_frame_rate=settings.SCHED_NODE_FRAME_RATE,
        sockets_per_address=settings.SCHED_SOCKETS_PER_ADDRESS,
        sockets_per_process=settings.SCHED_SOCKETS_PER_PROCESS,
        greeting_ms=settings.SCHED_GREETING_MS,
        session_idle_ms=settings.SCHED_SESSION_IDLE_MS,
        tenant_in_flight=settings.SCHED_TENANT_IN_FLIGHT,
    )


def shut_doors() -> list[str]:
    """The settings by which no one can open a socket yet."""
    keyless = settings.SCHED_SESSION_AUTH == "required" and not settings.SCHED_SESSION_KEYS.strip()
    return ["SCHED_SESSION_KEYS"] if keyless else []


@from_settings
def job_limits() -> JobLimits:
    return JobLimits(
        timeout_ms=settings.SCHED_JOB_TIMEOUT_MS,
        max_attempts=settings.SCHED_JOB_MAX_ATTEMPTS,
        queue_limit=settings.SCHED_QUEUE_LIMIT,
        queue_timeout_ms=settings.SCHED_QUEUE_TIMEOUT_MS,
        default_capacity=settings.SCHED_MAX_JOBS_PER_NODE,
    )


@from_settings
def node_patience() -> Patience:
    return Patience(
        job_timeout_ms=settings.SCHED_JOB_TIMEOUT_MS,
        ack_timeout_ms=settings.SCHED_ACK_TIMEOUT_MS,
        node_grace_ms=settings.SCHED_NODE_GRACE_MS,
        drain_timeout_ms=settings.SCHED_DRAIN_TIMEOUT_MS,
    )


def open_doors() -> list[str]:
    """The settings by which anyone may open a socket."""
    doors = ("SCHED_NODE_AUTH", "SCHED_SESSION_AUTH")
    return [door for door in doors if getattr(settings, door) == "open"]


@from_settings
def tenant_weights() -> dict[str, int]:
    return parse_weights(settings.SCHED_TENANT_WEIGHTS)


@from_settings
def selection_rules() -> SelectionRules:
    return SelectionRules(resource_threshold=settings.SCHED_RESOURCE_THRESHOLD)


def _stores(registry: Registry, limits: JobLimits, *, instance_id: str) -> Stores:
    ground, me = registry.ground, instance_id
    retention_ms = settings.SCHED_SESSION_RETENTION_MS + limits.life_ms
    limit, keep_ms = settings.SCHED_DEAD_LETTERS_LIMIT, settings.SCHED_DEAD_LETTERS_KEEP_MS
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
            RedisDeadLetterStore(
                *redis, instance_id=me, limit=limit, keep_ms=keep_ms, retention_ms=retention_ms
            ),
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
        MemoryDeadLetterStore(
            server, instance_id=me, limit=limit, keep_ms=keep_ms, retention_ms=retention_ms
        ),
        MemoryShareStore(server),
    )
