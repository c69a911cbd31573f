"""The nodes whose sockets this instance holds: register, heartbeat, drain, lose; and the sync.

`Membership` owns every local node connection and keeps three things in step: the node's keys in
the store, its snapshot for everyone, and this instance's `NodeViews`. `sync` is one round of
following everyone else.

Not promised: that a node's view elsewhere is newer than one sync interval.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import structlog

from registry.domain.capability import Capabilities
from registry.domain.errors import StoreUnavailable
from registry.domain.node import (
    IDLE,
    FailureWindow,
    Hardware,
    Liveness,
    NodeEvent,
    NodeLoad,
    NodeSnapshot,
    NodeStatus,
    advance,
)
from registry.domain.ownership import Conflict, Gone, Position
from registry.services.ports import Clock, NodeStore
from registry.services.views import NodeViews

log = structlog.get_logger(__name__)


class NodeLink(Protocol):
    """The socket of a node."""

    def send(self, frame: bytes) -> bool:
        """Hand a frame to the socket; False when it is closing or too far behind."""

    def close(self, code: int, reason: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Registration:
    """What a node said of itself, already checked."""

    node_id: str
    capabilities: Capabilities
    max_concurrent_jobs: int
    accept_public_jobs: bool
    version: str
    platform: str
    hardware: Hardware
    labels: Mapping[str, str]
    registered_at_ms: int

    @property
    def fingerprint(self) -> str:
        """What tells a reconnecting node from another machine with the same id."""
        identity = msgspec.json.encode((self.platform, self.hardware))
        return hashlib.blake2b(identity, digest_size=12).hexdigest()


@dataclass(slots=True)
class LocalNode:
    """A node connected to this instance. `busy` while one of its frames is being acted on.

    It `acknowledges` jobs once it has acknowledged one on this connection.
    """

    link: NodeLink
    snapshot: NodeSnapshot
    fingerprint: str
    heard_ms: int
    busy: bool = False
    load: NodeLoad = IDLE
    told_load: NodeLoad = IDLE
    failures: FailureWindow = field(default_factory=FailureWindow)
    last_failure: str = ""
    acknowledges: bool = False

    @property
    def capacity(self) -> int:
        """Slots open to reservations: none while the node drains."""
        draining = self.snapshot.status is NodeStatus.DRAINING
        return 0 if draining else self.snapshot.max_concurrent_jobs


NEWS_WAIT_MS = 5_000
SLICE = 200
"""Nodes kept or taken over at once, so that thousands of them do not hold the event loop."""

ROUNDS_ADRIFT = 2
"""Syncs in a row with another digest than the store's before all nodes are read anew."""

STALL_MS = 1_000
"""A look for silent nodes that is as late as this is worth a line in the log."""

REPLACED = 4409
SILENT = 4408
"""Close codes; `routing.domain.errors.CloseCode` has them all."""


class Membership:
    """This instance's part of the cluster's nodes."""

    def __init__(
        self,
        store: NodeStore,
        views: NodeViews,
        *,
        instance_id: str,
        liveness: Liveness,
        clock: Clock,
    ) -> None:
        self._store = store
        self.views = views
        self._instance_id = instance_id
        self._liveness = liveness
        self._clock = clock
        self._local: dict[str, LocalNode] = {}
        self._local_ids: list[str] | None = None
        self._position: Position | None = None
        self._synced_at_ms: int | None = None
        self._catching_up = asyncio.Lock()
        self._in_touch = False
        self._loss_listeners: list[Callable[[], None]] = []
        self._told_all_at_ms = clock()
        self._looked_at_ms = clock()
        self._in_touch_since_ms: int | None = None
        self._writing = 0
        self._writes = 0
        self._adrift = False
        self._rounds_adrift = 0
        self._unwritten = False
        self.full_syncs = 0

    @property
    def synced_at_ms(self) -> int | None:
        """When the views last matched the store, on this process's clock; None before the first."""
        return self._synced_at_ms

    def subscribe_loss(self, listener: Callable[[], None]) -> None:
        """Call `listener` when the store is found to have lost its data."""
        self._loss_listeners.append(listener)

    @property
    def may_judge(self) -> bool:
        """Whether absence means anything: after a presence TTL in touch with the store.

        After an outage everyone's presence has run out, and the living need a moment to say that
        they live.
        """
        since_ms = self._in_touch_since_ms
        return since_ms is not None and (self._clock() - since_ms >= self._liveness.presence_ttl_ms)

    def local(self, node_id: str) -> LocalNode | None:
        return self._local.get(node_id)

    def local_nodes(self) -> list[LocalNode]:
        return list(self._local.values())

    def some_local(self, lot: float) -> str:
        """One of the nodes connected here, by a lot from 0 up to 1; "" if there is none."""
        if self._local_ids is None:
            self._local_ids = list(self._local)
        ids = self._local_ids
        return ids[int(lot * len(ids))] if ids else ""

    async def register(self, registration: Registration, link: NodeLink) -> LocalNode | Conflict:
        """Make `link` the node's one owning connection, and tell everyone what the node can do."""
        node_id = registration.node_id
        view, ours = self.views.get(node_id), self._local.get(node_id)
        claim = await self._store.claim(
            node_id,
            fingerprint=registration.fingerprint,
            floor=view.snapshot.connection_epoch if view else 0,
            capacity=registration.max_concurrent_jobs,
            own=ours.snapshot.connection_epoch if ours is not None and ours.link is link else 0,
        )
        if isinstance(claim, Conflict):
            if claim.contested:
                log.warning("node id contested", node_id=node_id, instance_id=self._instance_id)
            return claim
        before = NodeStatus.DRAINING if claim.draining else NodeStatus.REGISTERING
        snapshot = NodeSnapshot(
            node_id=node_id,
            instance_id=self._instance_id,
            connection_epoch=claim.epoch,
            revision=0,
            status=advance(before, NodeEvent.REGISTERED),
            max_concurrent_jobs=registration.max_concurrent_jobs,
            accept_public_jobs=registration.accept_public_jobs,
            capability_by_type=registration.capabilities.capability_by_type,
            language_capabilities=registration.capabilities.language_capabilities,
            registered_at_ms=registration.registered_at_ms,
            version=registration.version,
            platform=registration.platform,
            hardware=registration.hardware,
            labels=dict(registration.labels),
        )
        node = LocalNode(link, snapshot, registration.fingerprint, heard_ms=self._clock())
        self._replace_local(node_id, node)
        self.views.put(snapshot)
        try:
            await self._write(self._store.put(snapshot))
        except StoreUnavailable:
            # It is claimed: the next round of `sync` writes what is missing.
            self._position = None
        log.info(
            "node registered",
            node_id=node_id,
            instance_id=self._instance_id,
            connection_epoch=claim.epoch,
            taken_from=claim.previous_instance or None,
        )
        return node

    def heard(self, node: LocalNode) -> None:
        """Note that the node's socket said something."""
        node.heard_ms = self._clock()

    async def heartbeat(
        self, node: LocalNode, *, load: NodeLoad, capabilities: Capabilities | None
    ) -> bool:
        """Take a heartbeat: prolong presence, note the load, tell changed capabilities.

        False when another connection owns the node by now; the caller's socket was closed.
        """
        node.load = load
        self.views.set_load(node.snapshot.node_id, load, now_ms=self._clock())
        if not await self._keep(node):
            return False
        if capabilities is not None and capabilities != node.snapshot.capabilities:
            await self._revise(
                node,
                capability_by_type=capabilities.capability_by_type,
                language_capabilities=capabilities.language_capabilities,
            )
        return True

    async def record_outcome(self, node: LocalNode, *, succeeded: bool) -> None:
        """Count a job's outcome into the failure window; degrades or restores the node."""
        node.failures.add(succeeded=succeeded)
        status = node.snapshot.status
        if node.failures.tripped and status is NodeStatus.READY:
            await self._step(node, NodeEvent.FAILED_OFTEN)
        elif not node.failures.tripped and status is NodeStatus.DEGRADED:
            await self._step(node, NodeEvent.RECOVERED)

    async def drain(self, node_id: str, *, draining: bool) -> bool:
        """Close or open a node's slots, at once and across its reconnects. False when unknown."""
        view = self.views.get(node_id)
        if view is None:
            return False
        await self._store.set_draining(
            node_id, draining=draining, capacity=view.snapshot.max_concurrent_jobs
        )
        return True

    async def is_draining(self, node_id: str) -> bool:
        """What `drain` was told last of this node, by whomever."""
        return await self._store.draining(node_id)

    async def follow_drain(self, node: LocalNode, *, draining: bool) -> None:
        """Show in a local node's status what `drain` has set, wherever that was done."""
        node.failures = FailureWindow()
        await self._step(node, NodeEvent.DRAIN if draining else NodeEvent.RESUME)

    async def retire(self, node: LocalNode) -> None:
        """Close a local node's slots for as long as this connection of it lives."""
        await self.follow_drain(node, draining=True)
        await self._keep(node)

    async def reopen(self, node: LocalNode) -> None:
        """Undo `retire`, unless an operator drains the node itself."""
        if not await self.is_draining(node.snapshot.node_id):
            await self.follow_drain(node, draining=False)
            await self._keep(node)

    async def lose(self, node: LocalNode) -> bool:
        """The node's socket is gone: give the node up. False when another connection has it."""
        node_id, epoch = node.snapshot.node_id, node.snapshot.connection_epoch
        if self._local.get(node_id) is node:
            del self._local[node_id]
            self._local_ids = None
        if self.views.remove(node_id, epoch=epoch):
            log.info("node lost", node_id=node_id, connection_epoch=epoch)
        try:
            if not await self._store.drop(node_id, epoch=epoch):
                return False
            await self._write(self._store.remove(node_id, epoch=epoch))
        except StoreUnavailable as error:
            # Its keys run out by themselves, and the leader's sweep removes the snapshot.
            log.warning("node not removed from the store", node_id=node_id, reason=str(error))
        return True

    def close_silent(self) -> None:
        """Close sockets of nodes that said nothing for a presence TTL (half-open connections).

        To be called every `silence_check_ms`. While it is late this process did not run: that time
        is not held against the nodes, and what they said meanwhile is read before they are judged.
        """
        now_ms, every_ms = self._clock(), self._liveness.silence_check_ms
        late_ms = max(now_ms - self._looked_at_ms - every_ms, 0)
        self._looked_at_ms = now_ms
        for node in self.local_nodes():
            node.heard_ms = min(node.heard_ms + late_ms, now_ms)
        if late_ms >= STALL_MS:
            log.warning("this process stalled", late_ms=late_ms)
        if late_ms > every_ms:
            return
        oldest_ms = now_ms - self._liveness.presence_ttl_ms
        for node in self.local_nodes():
            # What it says while we are busy with what it said, for want of a store, waits.
            if node.heard_ms < oldest_ms and not node.busy:
                node.link.close(SILENT, "no heartbeat within the presence TTL")

    async def sync(self) -> None:
        """One round: tell loads that changed, follow everyone's changes, make good a drift."""
        since_ms, self._in_touch_since_ms = self._in_touch_since_ms, None
        if since_ms is None:
            await self._keep_all()
        await self._tell_loads()
        await self._catch_up()
        self._in_touch_since_ms = self._clock() if since_ms is None else since_ms
        self._rounds_adrift = self._rounds_adrift + 1 if self._adrift else 0
        if self._rounds_adrift >= ROUNDS_ADRIFT:
            log.warning("node views drifted", nodes=len(self.views))
            self._position = None
            await self._catch_up()

    async def follow(self) -> None:
        """Wait for a change of any node and take it over. To be called again and again.

        At first, and after a failure, it catches up instead and returns at once.
        """
        position, in_touch = self._position, self._in_touch
        self._in_touch = False
        if (
            position is None
            or not in_touch
            or await self._store.news_after(position, within_ms=NEWS_WAIT_MS)
        ):
            await self._catch_up()
        self._in_touch = True

    async def _catch_up(self) -> None:
        async with self._catching_up:
            if self._position is None:
                await self._sync_everything()
            else:
                await self._sync_changes(self._position)
                if self._unwritten:
                    await self._sync_everything()
            self._synced_at_ms = self._clock()

    async def _sync_changes(self, since: Position) -> None:
        writes = self._writes
        changes = await self._store.changes(since)
        if changes.lost:
            log.warning("the store lost its data", told=changes.told, seen=since.sequence)
            for listener in self._loss_listeners:
                listener()
        if not changes.complete:
            await self._sync_everything()
            return
        await self._apply(changes.nodes, changes.loads)
        self._position = changes.position
        # What we write now, or wrote since, is in our views already, and in that digest not yet.
        self._adrift = (
            not self._writing
            and writes == self._writes
            and changes.told == changes.position.sequence
            and changes.digest != self.views.digest
        )

    async def _tell_loads(self) -> None:
        loads: dict[str, NodeLoad] = {}
        # All of them again now and then, for instances that started since.
        now_ms = self._clock()
        anew = now_ms - self._told_all_at_ms >= self._liveness.presence_ttl_ms
        if anew:
            self._told_all_at_ms = now_ms
        for node_id, node in self._local.items():
            view = self.views.get(node_id)
            load = msgspec.structs.replace(node.load, reserved=view.reserved if view else 0)
            if anew or load != node.told_load:
                loads[node_id] = load
        if not loads:
            return
        await self._store.publish_loads(loads)
        for node_id, load in loads.items():
            if node_id in self._local:
                self._local[node_id].told_load = load

    async def _keep_all(self) -> None:
        """After an outage: prolong what may have run out meanwhile, before anyone sweeps it."""
        nodes = self.local_nodes()
        for start in range(0, len(nodes), SLICE):
            await asyncio.gather(*(self._keep(node) for node in nodes[start : start + SLICE]))

    async def sweep(self) -> list[str]:
        """Remove nodes that no living connection backs; returns which. The leader's turn."""
        remote = [v.snapshot for v in self.views if v.snapshot.node_id not in self._local]
        present = await self._store.present([snapshot.node_id for snapshot in remote])
        absent = [snapshot for snapshot in remote if snapshot.node_id not in present]
        return [
            snapshot.node_id
            for snapshot in absent
            if await self._store.remove(snapshot.node_id, epoch=snapshot.connection_epoch)
        ]

    async def _sync_everything(self) -> None:
        position, snapshots = await self._store.everything()
        self.full_syncs += 1
        self._adrift = self._unwritten = False
        stored = {snapshot.node_id: snapshot for snapshot in snapshots}
        await self._apply(snapshots, {})
        for view in self.views:
            node_id = view.snapshot.node_id
            if node_id not in stored and node_id not in self._local:
                self.views.remove(node_id, epoch=view.snapshot.connection_epoch)
        for node in self.local_nodes():
            known = stored.get(node.snapshot.node_id)
            if known is None or known.order < node.snapshot.order:
                await self._restore(node)
        self._position = position

    async def _restore(self, node: LocalNode) -> None:
        if await self._keep(node):
            await self._write(self._store.put(node.snapshot))

    async def _apply(
        self, nodes: Sequence[NodeSnapshot | Gone], loads: Mapping[str, NodeLoad]
    ) -> None:
        for position, news in enumerate(nodes, 1):
            if position % SLICE == 0:
                await asyncio.sleep(0)
            if isinstance(news, Gone):
                ours = self._local.get(news.node_id)
                if ours is not None and ours.snapshot.connection_epoch == news.connection_epoch:
                    # Swept while its presence lapsed, and connected all the same.
                    self._unwritten = True
                    continue
                self.views.remove(news.node_id, epoch=news.connection_epoch)
                continue
            self.views.put(news)
            ours = self._local.get(news.node_id)
            if ours is not None and news.connection_epoch > ours.snapshot.connection_epoch:
                ours.link.close(REPLACED, "a newer connection of this node took over")
        for node_id, load in loads.items():
            if node_id not in self._local:
                self.views.set_load(node_id, load, now_ms=self._clock())

    async def _write(self, write: Awaitable[bool]) -> None:
        self._writing += 1
        self._writes += 1
        try:
            await write
        finally:
            self._writing -= 1

    async def _keep(self, node: LocalNode) -> bool:
        kept = await self._store.keep(
            node.snapshot.node_id,
            epoch=node.snapshot.connection_epoch,
            fingerprint=node.fingerprint,
            capacity=node.capacity,
        )
        if not kept:
            node.link.close(REPLACED, "a newer connection of this node took over")
        return kept

    async def _step(self, node: LocalNode, event: NodeEvent) -> None:
        status = advance(node.snapshot.status, event)
        if status is not node.snapshot.status:
            log.info("node status", node_id=node.snapshot.node_id, status=status, event_word=event)
            await self._revise(node, status=status)

    async def _revise(self, node: LocalNode, **changes: object) -> None:
        revision = node.snapshot.revision + 1
        node.snapshot = msgspec.structs.replace(node.snapshot, revision=revision, **changes)
        self.views.put(node.snapshot)
        await self._write(self._store.put(node.snapshot))

    def _replace_local(self, node_id: str, node: LocalNode) -> None:
        before = self._local.get(node_id)
        self._local[node_id] = node
        self._local_ids = None
        if before is not None and before.link is not node.link:
            before.link.close(REPLACED, "a newer connection of this node took over")
