"""One scheduler process, from its start to its leaving: what runs in it, and in which order.

`routing.wiring` builds it. While it serves, its sockets speak to the services it holds.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import structlog
from django.conf import settings

from pools.wiring import Pools
from registry.domain.errors import StoreUnavailable
from registry.domain.ids import node_id as new_node_id
from registry.services.loops import Loops
from registry.services.membership import Membership
from registry.wiring import Registry
from routing.domain.errors import CloseCode
from routing.services.access import OPEN, Access, Gate
from routing.services.actions import Actions, NodeControl
from routing.services.assignment import Assignment
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
from routing.services.node_credentials import Revoking
from routing.services.node_keys import RECHECK_MS
from routing.services.overview import Overview
from routing.services.persist import persist
from routing.services.placement import Placement
from routing.services.ports import (
    DeadLetterStore,
    InboxStore,
    JobStore,
    QueueStore,
    SessionStore,
    ShareStore,
    SlotStore,
)
from routing.services.rehearsal import Rehearsal
from routing.services.retries import Retries
from routing.services.sessions import Sessions
from routing.services.shares import Shares
from routing.services.slotcheck import SlotCheck
from routing.services.slots import Slots
from routing.services.sweeper import Sweeper
from routing.services.tenants import Tenants
from routing.services.waiting import Waiting

log = structlog.get_logger(__name__)

PATIENCE_S = 1.0
TICK_MS = 50
ISLAND_MS = 100
TIDY_MS = 60_000
SWEEP_LOOK_MS = 1_000
"""How often a process looks whether it is to sweep: whoever begins to lead does at once."""
SOCKETS_MS = 1_000


@dataclass(frozen=True, slots=True)
class Stores:
    """Where dispatch keeps its state."""

    jobs: JobStore
    sessions: SessionStore
    slots: SlotStore
    queues: QueueStore
    inbox: InboxStore
    letters: DeadLetterStore
    shares: ShareStore


@dataclass(slots=True)
class Routing:
    """One scheduler process: an instance, or, if it does not serve, a leader candidate only."""

    registry: Registry
    pools: Pools
    stores: Stores
    access: Access
    gate: Gate
    shares: Shares
    revoking: Revoking
    membership: Membership
    connections: Connections
    delivery: Delivery
    deadlines: Deadlines
    slots: Slots
    placement: Placement
    assignment: Assignment
    sessions: Sessions
    tenants: Tenants
    waiting: Waiting
    completion: Completion
    lately: Lately
    retries: Retries
    losses: Losses
    slot_check: SlotCheck
    draining_nodes: Draining
    leaving: Leaving
    intake: Intake
    dispatch_times: DispatchTimes
    island: Island
    handover: Handover
    overview: Overview
    rehearsal: Rehearsal
    actions: Actions
    letters: DeadLetters
    letter_actions: LetterActions
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
    def draining(self) -> bool:
        """Whether this instance takes no new sessions and nodes."""
        return self.stopping or self.leaving.draining

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
        self.leaving.on_change = loops.every("report", self.registry.report_ms, self._report)
        loops.every("deadlines", TICK_MS, self.retries.turn)
        loops.every("dead letters", TIDY_MS, self.letters.tidy)
        loops.every("returns", TICK_MS, self.losses.turn)
        look_ms = min(SWEEP_LOOK_MS, self.registry.liveness.presence_ttl_ms // 6)
        loops.every("sweep", look_ms, self.sweeper.turn)
        if self.serves:
            self._start_serving(loops)
        log.info("started", instance_id=self.instance_id, serves=self.serves)

    def _start_serving(self, loops: Loops) -> None:
        loops.again("inbox", self.delivery.pump)
        loops.again("waiting jobs", self.waiting.follow)
        loops.every("tenant weights", settings.SCHED_POOL_SYNC_MS, self.tenants.read)
        loops.every("sessions", settings.SCHED_SESSION_RETENTION_MS // 3, self.sessions.touch)
        check_ms = self.registry.liveness.silence_check_ms
        loops.every("silent nodes", check_ms, self._close_silent)
        loops.every("acknowledgements", TICK_MS, self.retries.unheard)
        loops.every("drains", TICK_MS, self.draining_nodes.turn)
        loops.every("leaving", TICK_MS, self.leaving.turn)
        loops.every("island", ISLAND_MS, self._mind_island)
        loops.every("silent sockets", SOCKETS_MS, self._sweep_sockets)
        if self.access.node_auth != OPEN:
            loops.every("node credentials", RECHECK_MS, self._recheck_credentials)
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
        elif self.draining:
            reasons.append("an operator drains the instance")
        if self.island.active:
            reasons.append("the store is, or was until now, away: only local nodes are reached")
        if self.membership.synced_at_ms is None:
            reasons.append("the nodes have not been synced yet")
        if not self.pools.sync.followed:
            reasons.append("the pool configuration has not been read yet")
        return reasons

    async def stop(self, *, within_ms: int) -> None:
        """Leave: take nothing new, see out what is under way, close the sockets with 1012, go.

        Half of the time is for the work. What a node then still works on waits for the node's
        return at another instance; whoever minds the job is told.
        """
        if self.stopping:
            return
        self.stopping = True
        log.info("stopping", instance_id=self.instance_id)
        try:
            async with asyncio.timeout(within_ms / 1000):
                await self.pools.election.step_down(pause_ms=within_ms)
                if self.serves:
                    await self.leaving.drain(within_ms=within_ms // 2)
                    await self.leaving.emptied()
                left = await self.connections.close_all(
                    CloseCode.GOING_DOWN, "the instance is going down", within_ms=within_ms
                )
                if left:
                    log.warning("sockets not closed in time", sockets=left)
                if self.serves:
                    await self.delivery.finish()
                    await self.losses.pass_on()
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
                draining=self.draining,
                candidate=self.candidate,
                serves=self.serves,
                degraded=self.island.active or self.pools.sync.local,
            )
        )

    async def _close_silent(self) -> None:
        self.membership.close_silent()

    async def _sweep_sockets(self) -> None:
        self.gate.sweep(self.registry.clock())

    async def _recheck_credentials(self) -> None:
        """A database that is away is no reason to say that this instance may take no traffic."""
        with contextlib.suppress(StoreUnavailable):
            await self.access.node_keys.recheck()

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
