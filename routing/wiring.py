"""Settings to services: one scheduler instance, from its stores to what its sockets speak to."""

import asyncio
import contextvars
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import structlog
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from pools.wiring import Pools, build_pools
from registry.domain.errors import StoreUnavailable
from registry.domain.ids import node_id as new_node_id
from registry.services.loops import Loops
from registry.services.membership import Membership
from registry.wiring import RedisGround, Registry, build_registry
from routing.domain.errors import CloseCode
from routing.domain.job import JobLimits
from routing.domain.selection import SelectionRules
from routing.services.access import Access
from routing.services.actions import ActionOutcome, Actions, NodeControl
from routing.services.assignment import Assignment
from routing.services.completion import Completion
from routing.services.connections import Connections
from routing.services.deadlines import Deadlines
from routing.services.delivery import Delivery
from routing.services.handover import Handover
from routing.services.intake import Intake
from routing.services.island import Island
from routing.services.overview import Overview
from routing.services.persist import persist
from routing.services.placement import Placement
from routing.services.ports import (
    InboxStore,
    JobStore,
    QueueStore,
    SessionStore,
    SlotStore,
)
from routing.services.rehearsal import Rehearsal
from routing.services.retries import Retries
from routing.services.sessions import Sessions
from routing.services.slots import Slots
from routing.services.sweeper import Sweeper
from routing.services.tokens import Tokens
from routing.services.waiting import Waiting
from routing.store.audit import DjangoAuditLog
from routing.store.inbox import RedisInboxStore
from routing.store.jobs import RedisJobStore
from routing.store.memory import (
    MemoryInboxStore,
    MemoryJobStore,
    MemoryQueueStore,
    MemorySessionStore,
    MemorySlotStore,
)
from routing.store.queues import RedisQueueStore
from routing.store.reservations import RedisSlotStore
from routing.store.sessions import RedisSessionStore
from routing.store.tokens import DjangoOperatorTokens

log = structlog.get_logger(__name__)

Answer = TypeVar("Answer")

OPEN_LIMIT = 1_000
"""Unfinished jobs that one session may have."""

OUTBOX_LIMIT = 10_000
"""Terminal messages kept for one session until it acknowledges them."""

PATIENCE_S = 1.0
TICK_MS = 50
ISLAND_MS = 100
SAFETY_NET_MS = 5_000


@dataclass(frozen=True, slots=True)
class Stores:
    """Where dispatch keeps its state."""

    jobs: JobStore
    sessions: SessionStore
    slots: SlotStore
    queues: QueueStore
    inbox: InboxStore


@dataclass(slots=True)
class Routing:
    """One scheduler process: an instance, or, if it does not serve, a leader candidate only."""

    registry: Registry
    pools: Pools
    stores: Stores
    access: Access
    membership: Membership
    connections: Connections
    delivery: Delivery
    deadlines: Deadlines
    slots: Slots
    placement: Placement
    assignment: Assignment
    sessions: Sessions
    waiting: Waiting
    completion: Completion
    retries: Retries
    intake: Intake
    island: Island
    handover: Handover
    overview: Overview
    rehearsal: Rehearsal
    actions: Actions
    control: NodeControl
    sweeper: Sweeper
    serves: bool
    max_frame_bytes: int
    default_capacity: int
    stopping: bool = False
    lag_ms: float = 0.0
    loop: asyncio.AbstractEventLoop | None = None

    @property
    def jobs(self) -> JobStore:
        return self.stores.jobs

    @property
    def instance_id(self) -> str:
        return self.registry.instance_id

    @property
    def candidate(self) -> bool:
        """Whether this process stands for election."""
        return settings.SCHED_LEADER_CANDIDATE or not self.serves

    def new_node_id(self) -> str:
        return new_node_id(secrets.token_hex(8))

    def new_trace_id(self) -> str:
        return secrets.token_hex(16)

    def start(self) -> None:
        """Begin to be present in the cluster. Returns at once; `unready` says what is missing."""
        self.loop = asyncio.get_running_loop()
        loops = self.registry.loops
        self.registry.start_loops()
        self.pools.start_loops(candidate=self.candidate)
        loops.every("report", self.registry.report_ms, self._report)
        loops.every("deadlines", TICK_MS, self.retries.turn)
        loops.every("sweep", self.registry.liveness.presence_ttl_ms // 3, self.sweeper.turn)
        if self.serves:
            self._start_serving(loops)
        log.info("started", instance_id=self.instance_id, serves=self.serves)

    def _start_serving(self, loops: Loops) -> None:
        loops.again("inbox", self.delivery.pump)
        loops.every("waiting jobs", SAFETY_NET_MS, self.waiting.fill_all)
        loops.every("sessions", settings.SCHED_SESSION_RETENTION_MS // 3, self.sessions.touch)
        check_ms = self.registry.liveness.silence_check_ms
        loops.every("silent nodes", check_ms, self._close_silent)
        loops.every("island", ISLAND_MS, self._mind_island)
        loops.again("loop lag", self._measure_lag)
        self.membership.subscribe_loss(self._restore_sessions)

    async def patiently(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        """Wait for `work` a moment; while the store is away it goes on in the background.

        So a socket's later frames, heartbeats above all, do not wait behind it.
        """
        task = asyncio.get_running_loop().create_task(work, name=name)
        try:
            await asyncio.wait({task}, timeout=PATIENCE_S)
        finally:
            if not task.done():
                self.registry.loops.adopt(task)
        if task.done():
            task.result()

    def unready(self) -> list[str]:
        """Why this instance should get no traffic now; empty when it should."""
        reasons = [f"{name}: {why}" for name, why in sorted(self.registry.loops.failing.items())]
        if self.stopping:
            reasons.append("the instance is going down")
        if self.island.active:
            reasons.append("the store is, or was until now, away: only local nodes are reached")
        if self.membership.synced_at_ms is None:
            reasons.append("the nodes have not been synced yet")
        if not self.pools.sync.followed:
            reasons.append("the pool configuration has not been read yet")
        return reasons

    async def stop(self, *, within_ms: int) -> None:
        """Leave: take nothing new, close the sockets with 1012, hand over what is held, go."""
        if self.stopping:
            return
        self.stopping = True
        log.info("stopping", instance_id=self.instance_id)
        try:
            async with asyncio.timeout(within_ms / 1000):
                await self.pools.election.step_down(pause_ms=within_ms)
                left = await self.connections.close_all(
                    CloseCode.GOING_DOWN, "the instance is going down", within_ms=within_ms
                )
                if left:
                    log.warning("sockets not closed in time", sockets=left)
                if self.serves:
                    await self.delivery.finish()
                minded = await self.sessions.unmind()
                await self.registry.instances.leave(self.instance_id, unfinished=minded > 0)
        except (TimeoutError, StoreUnavailable) as error:
            # What is left behind runs out by itself, and peers take it over.
            log.warning("did not leave in order", reason=str(error) or "out of time")
        await self.registry.close()
        log.info("stopped", instance_id=self.instance_id)

    async def _report(self) -> None:
        synced_at_ms = self.membership.synced_at_ms
        now_ms = self.registry.clock()
        await self.registry.instances.report(
            self.pools.report(
                nodes=len(self.membership.local_nodes()),
                sessions=len(self.sessions),
                sync_delay_ms=now_ms - synced_at_ms if synced_at_ms is not None else 0,
                draining=self.stopping,
                candidate=self.candidate,
                serves=self.serves,
                degraded=self.island.active or self.pools.sync.local,
            )
        )

    async def _close_silent(self) -> None:
        self.membership.close_silent()

    def _restore_sessions(self) -> None:
        async def restore() -> None:
            await persist(self.sessions.restore, what="restore sessions")

        self.registry.loops.spawn(restore(), name="restore sessions")

    async def _mind_island(self) -> None:
        if "node sync" in self.registry.loops.failing:
            self.island.begin()
        elif self.island.active:
            await self.island.settle()
        self.island.tick()

    async def _measure_lag(self) -> None:
        """How late the event loop runs what is due: what a blocked loop looks like from within."""
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(0.5)
        self.lag_ms = max((asyncio.get_running_loop().time() - began - 0.5) * 1000, 0.0)


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
    intake = Intake(stores.jobs, slots, waiting, assignment, placement, deadlines, limits=limits)
    return Routing(
        registry=registry,
        pools=pools,
        stores=stores,
        access=Access(settings.SCHED_NODE_AUTH, settings.SCHED_SESSION_AUTH),
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
    )


# The instance that this process runs, for the edges that Django calls: views and the admin.

_running: Routing | None = None


def running() -> Routing | None:
    """The instance of this process, if it runs one."""
    return _running


def set_running(routing: Routing | None) -> None:
    global _running  # One instance a process, set once by its composer.
    _running = routing


LIVE_TIMEOUT_S = 5.0


def live_state() -> dict[str, Any] | None:
    """`Overview.state` as builtins, for synchronous callers in other threads than the loop's.

    None when this process runs no instance; raises StoreUnavailable.
    """
    state = _ask(lambda routing: routing.overview.state())
    return msgspec.to_builtins(state) if state is not None else None


def act(
    action: Callable[[Actions], Coroutine[Any, Any, ActionOutcome]],
) -> ActionOutcome | None:
    """Do one of the `Actions`, for the same callers, with the same answers.

    Raises StoreUnavailable also when no answer came in time: the action then goes on by itself.
    """
    return _ask(lambda routing: action(routing.actions))


def _ask(question: Callable[[Routing], Coroutine[Any, Any, Answer]]) -> Answer | None:
    routing = _running
    if routing is None or routing.loop is None:
        return None
    # In a context of its own: in the request's, database work would wait for the request's thread,
    # which waits here.
    asked = contextvars.Context().run(
        asyncio.run_coroutine_threadsafe, question(routing), routing.loop
    )
    try:
        return asked.result(LIVE_TIMEOUT_S)
    except TimeoutError:
        asked.cancel()
        raise StoreUnavailable("the instance did not answer in time") from None
