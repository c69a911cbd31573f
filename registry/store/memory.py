"""The registry's stores in memory: for one process without Redis, and for unit tests.

A `MemoryServer` is what the stores of all instances share, as a Redis would be: expiring values,
logs of news, and one time. Nothing here awaits between looking and changing, so each method is one
step, as a script is in Redis.

Not promised: anything across processes or threads. A server belongs to one event loop.
"""

import asyncio
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from operator import itemgetter
from typing import Any, Generic, NamedTuple, TypeVar, cast

import msgspec

from registry.domain.instance import InstanceReport
from registry.domain.lease import Acquisition, Granted, Held
from registry.domain.node import DIGEST_BITS, NodeLoad, NodeSnapshot, digest_part
from registry.domain.ownership import (
    TAKEOVER_WINDOW_MS,
    TAKEOVERS,
    Changes,
    Claim,
    Claimed,
    Conflict,
    Gone,
    Position,
)

Value = TypeVar("Value")
State = TypeVar("State")

IDENTITY_TTL_MS = 86_400_000
NODE_CHANGES_KEPT = 10_000
LOADS_KEPT = 1_000
NEWS_KEPT = 1_000
_LEADER = "leader"


class MemoryServer:
    """The shared state. `clock` is its time in ms."""

    def __init__(self, *, clock: Callable[[], int]) -> None:
        self.clock = clock
        self._states: dict[Callable[[MemoryServer], Any], Any] = {}
        self._positions = count(1)
        self._bell = asyncio.Event()

    def state(self, make: Callable[["MemoryServer"], State]) -> State:
        """The part of the state that `make` makes; made when it is first asked for."""
        if make not in self._states:
            self._states[make] = make(self)
        return cast(State, self._states[make])

    def next_position(self) -> int:
        """A number higher than all before, also when the data was lost in between."""
        return next(self._positions)

    def ring(self) -> None:
        """Wake everyone who waits in `rung`."""
        self._bell.set()
        self._bell = asyncio.Event()

    async def rung(self) -> None:
        """Return at the next `ring`."""
        await self._bell.wait()

    def lose_everything(self) -> None:
        """Forget all data, as a server does that restarts without its disk."""
        self._states.clear()
        self.ring()


class Shelf(Generic[Value]):
    """Values by name, each until its time is up."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server
        self._kept: dict[str, tuple[Value, float]] = {}
        self._sweep_at = 1_000

    def get(self, name: str) -> Value | None:
        value, expires_ms = self._kept.get(name, (None, 0.0))
        if self._server.clock() < expires_ms:
            return value
        self._kept.pop(name, None)
        return None

    def put(self, name: str, value: Value, *, ttl_ms: float = float("inf")) -> None:
        if len(self._kept) >= self._sweep_at:
            self._sweep()
        self._kept[name] = (value, self._server.clock() + ttl_ms)

    def change(self, name: str, value: Value) -> None:
        """Put another value in the place of one that is there; its time stays."""
        self._kept[name] = (value, self._kept[name][1])

    def prolong(self, name: str, *, ttl_ms: int) -> bool:
        """Start a value's time anew; False when there is none."""
        value = self.get(name)
        if value is None:
            return False
        self.put(name, value, ttl_ms=ttl_ms)
        return True

    def remaining_ms(self, name: str) -> int:
        _, expires_ms = self._kept.get(name, (None, 0.0))
        return max(int(expires_ms - self._server.clock()), 0)

    def drop(self, name: str) -> None:
        self._kept.pop(name, None)

    def _sweep(self) -> None:
        # At twice the size of what the last sweep left: its cost is spread over as many puts.
        now_ms = self._server.clock()
        self._kept = {name: kept for name, kept in self._kept.items() if now_ms < kept[1]}
        self._sweep_at = max(2 * len(self._kept), 1_000)


class Log(Generic[Value]):
    """Items by position, at least the newest `kept` of them."""

    def __init__(self, server: MemoryServer, *, kept: int) -> None:
        self._server = server
        self._limit = kept
        self._items: list[tuple[int, Value]] = []

    def append(self, item: Value) -> None:
        self._items.append((self._server.next_position(), item))
        if len(self._items) >= 2 * self._limit:
            del self._items[: -self._limit]
        self._server.ring()

    def after(self, position: int) -> list[Value]:
        return [item for _, item in self._items[bisect(self._items, position, key=itemgetter(0)) :]]

    @property
    def end(self) -> int:
        """The newest item's position; 0 when there is none."""
        return self._items[-1][0] if self._items else 0


class Owner(NamedTuple):
    instance_id: str
    epoch: int


@dataclass(slots=True)
class Identity:
    epoch: int = 0
    fingerprint: str | None = None
    draining: bool = False
    takeovers: int = 0
    takeovers_since_ms: int = 0

    def may_be_taken(self, now_ms: int) -> bool:
        """Count a takeover; False when there were too many."""
        if not 0 <= now_ms - self.takeovers_since_ms < TAKEOVER_WINDOW_MS:
            self.takeovers, self.takeovers_since_ms = 0, now_ms
        if self.takeovers >= TAKEOVERS:
            self.takeovers_since_ms = now_ms
            return False
        self.takeovers += 1
        return True


class NodeState:
    """What the server knows of nodes."""

    def __init__(self, server: MemoryServer) -> None:
        self.owners: Shelf[Owner] = Shelf(server)
        self.capacities: Shelf[int] = Shelf(server)
        self.identities: Shelf[Identity] = Shelf(server)
        self.snapshots: dict[str, NodeSnapshot] = {}
        self.changes: Log[tuple[int, NodeSnapshot | Gone]] = Log(server, kept=NODE_CHANGES_KEPT)
        self.loads: Log[Mapping[str, NodeLoad]] = Log(server, kept=LOADS_KEPT)
        self.sequence = 0
        self.birth = str(server.next_position())

    def tell(self, news: NodeSnapshot | Gone) -> None:
        self.sequence += 1
        self.changes.append((self.sequence, news))


class MemoryNodeStore:
    """Implements `NodeStore` for one instance."""

    def __init__(
        self, server: MemoryServer, *, instance_id: str, owner_ttl_ms: int, presence_ttl_ms: int
    ) -> None:
        self._server = server
        self._instance_id = instance_id
        self._owner_ttl_ms = owner_ttl_ms
        self._presence_ttl_ms = presence_ttl_ms

    @property
    def _state(self) -> NodeState:
        return self._server.state(NodeState)

    async def claim(
        self, node_id: str, *, fingerprint: str, floor: int, capacity: int, own: int = 0
    ) -> Claim:
        owner = self._state.owners.get(node_id)
        identity = self._state.identities.get(node_id) or Identity()
        alive = owner is not None and self._state.capacities.get(node_id) is not None
        if alive and identity.fingerprint not in (None, fingerprint):
            return Conflict()
        if alive and owner != self._me(own) and not identity.may_be_taken(self._server.clock()):
            return Conflict(contested=True)
        identity.epoch = max(identity.epoch, floor) + 1
        identity.fingerprint = fingerprint
        self._own(node_id, identity, epoch=identity.epoch, capacity=capacity)
        return Claimed(identity.epoch, owner.instance_id if owner else "", identity.draining)

    async def keep(self, node_id: str, *, epoch: int, fingerprint: str, capacity: int) -> bool:
        owner = self._state.owners.get(node_id)
        identity = self._state.identities.get(node_id) or Identity()
        if owner not in (None, self._me(epoch)):
            return False
        if owner is None:
            if identity.epoch > epoch:
                return False
            identity.epoch, identity.fingerprint = epoch, fingerprint
        self._own(node_id, identity, epoch=epoch, capacity=capacity)
        return True

    async def drop(self, node_id: str, *, epoch: int) -> bool:
        if self._state.owners.get(node_id) not in (None, self._me(epoch)):
            return False
        self._state.owners.drop(node_id)
        self._state.capacities.drop(node_id)
        return True

    async def put(self, snapshot: NodeSnapshot) -> bool:
        known = self._state.snapshots.get(snapshot.node_id)
        if known is not None and known.order > snapshot.order:
            return False
        self._state.snapshots[snapshot.node_id] = snapshot
        self._state.tell(snapshot)
        return True

    async def remove(self, node_id: str, *, epoch: int) -> bool:
        known = self._state.snapshots.get(node_id)
        if known is not None and known.connection_epoch > epoch:
            return False
        self._state.snapshots.pop(node_id, None)
        self._state.tell(Gone(node_id, epoch))
        return True

    async def set_draining(self, node_id: str, *, draining: bool, capacity: int) -> None:
        identity = self._state.identities.get(node_id)
        if identity is None:
            self._state.identities.put(node_id, identity := Identity())
        identity.draining = draining
        if self._state.capacities.get(node_id) is not None:
            self._state.capacities.change(node_id, 0 if draining else capacity)

    async def draining(self, node_id: str) -> bool:
        identity = self._state.identities.get(node_id)
        return identity is not None and identity.draining

    async def present(self, node_ids: Sequence[str]) -> set[str]:
        return {id_ for id_ in node_ids if self._state.capacities.get(id_) is not None}

    async def everything(self) -> tuple[Position, list[NodeSnapshot]]:
        state = self._state
        changes, loads = str(state.changes.end), str(state.loads.end)
        position = Position(changes, loads, state.sequence, state.birth)
        return position, list(state.snapshots.values())

    async def changes(self, since: Position) -> Changes:
        state = self._state
        found = state.changes.after(_number(since.changes))
        loads = state.loads.after(_number(since.loads))
        expected = list(range(since.sequence + 1, state.sequence + 1))
        lost = since.birth not in ("", state.birth)
        return Changes(
            position=Position(
                str(state.changes.end) if found else since.changes,
                str(state.loads.end) if loads else since.loads,
                found[-1][0] if found else since.sequence,
                state.birth,
            ),
            complete=(
                not lost and [n for n, _ in found] == expected and state.sequence >= since.sequence
            ),
            nodes=[news for _, news in found],
            loads={node_id: load for batch in loads for node_id, load in batch.items()},
            told=state.sequence,
            digest=sum(map(digest_part, state.snapshots.values())) % 2**DIGEST_BITS,
            lost=lost,
        )

    async def news_after(self, since: Position, *, within_ms: int) -> bool:
        try:
            async with asyncio.timeout(within_ms / 1000):
                while self._state.changes.end <= _number(since.changes):
                    await self._server.rung()
        except TimeoutError:
            return False
        return True

    async def publish_loads(self, loads: Mapping[str, NodeLoad]) -> None:
        self._state.loads.append(dict(loads))

    def _me(self, epoch: int) -> Owner:
        return Owner(self._instance_id, epoch)

    def _own(self, node_id: str, identity: Identity, *, epoch: int, capacity: int) -> None:
        state = self._state
        state.identities.put(node_id, identity, ttl_ms=IDENTITY_TTL_MS)
        state.owners.put(node_id, self._me(epoch), ttl_ms=self._owner_ttl_ms)
        open_slots = 0 if identity.draining else capacity
        state.capacities.put(node_id, open_slots, ttl_ms=self._presence_ttl_ms)


def _number(position: str) -> int:
    return int(position.partition("-")[0])


class InstanceState:
    """What the server knows of instances."""

    def __init__(self, server: MemoryServer) -> None:
        self.presence: Shelf[bool] = Shelf(server)
        self.reports: dict[str, InstanceReport] = {}


class MemoryInstanceStore:
    """Implements `InstanceStore`."""

    def __init__(self, server: MemoryServer, *, presence_ttl_ms: int) -> None:
        self._server = server
        self._presence_ttl_ms = presence_ttl_ms

    @property
    def _state(self) -> InstanceState:
        return self._server.state(InstanceState)

    async def report(self, report: InstanceReport) -> None:
        self._state.presence.put(report.instance_id, True, ttl_ms=self._presence_ttl_ms)
        self._state.reports[report.instance_id] = msgspec.structs.replace(
            report, last_seen_ms=self._server.clock()
        )

    async def reports(self) -> list[InstanceReport]:
        found = await self.all_reports()
        return [report for report in found if self._state.presence.get(report.instance_id)]

    async def all_reports(self) -> list[InstanceReport]:
        return sorted(self._state.reports.values(), key=lambda report: report.instance_id)

    async def absent(self) -> list[str]:
        return sorted(id_ for id_ in self._state.reports if not self._state.presence.get(id_))

    async def leave(self, instance_id: str, *, unfinished: bool = False) -> None:
        self._state.presence.drop(instance_id)
        if not unfinished:
            self._state.reports.pop(instance_id, None)


class LeaseState:
    """The lease and its epoch, and the news that candidates and readers of pools wait for."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server
        self.leader: Shelf[str] = Shelf(server)
        self.epoch = 0
        self.news: Log[tuple[str, Any]] = Log(server, kept=NEWS_KEPT)

    def held_by(self, candidate: str, *, epoch: int) -> bool:
        return self.leader.get(_LEADER) == candidate and self.epoch == epoch

    def tell(self, kind: str, content: Any) -> None:
        self.news.append((kind, content))
        self._server.ring()


class MemoryLeaseStore:
    """Implements `LeaseStore`."""

    def __init__(self, server: MemoryServer, *, ttl_ms: int) -> None:
        self._server = server
        self._ttl_ms = ttl_ms

    @property
    def _state(self) -> LeaseState:
        return self._server.state(LeaseState)

    async def acquire(self, candidate: str, *, floor: int) -> Acquisition:
        held = await self.holder()
        if held is not None and held.instance_id != candidate:
            return held
        self._state.epoch = max(self._state.epoch, floor) + 1
        self._state.leader.put(_LEADER, candidate, ttl_ms=self._ttl_ms)
        return Granted(self._state.epoch)

    async def renew(self, candidate: str, *, epoch: int) -> bool:
        if not self._state.held_by(candidate, epoch=epoch):
            return False
        return self._state.leader.prolong(_LEADER, ttl_ms=self._ttl_ms)

    async def release(self, candidate: str, *, epoch: int) -> bool:
        if not self._state.held_by(candidate, epoch=epoch):
            return False
        self._state.leader.drop(_LEADER)
        self._state.tell("released", epoch)
        return True

    async def holder(self) -> Held | None:
        leader = self._state.leader.get(_LEADER)
        if leader is None:
            return None
        return Held(leader, self._state.epoch, self._state.leader.remaining_ms(_LEADER))

    async def raise_epoch(self, seen: int) -> None:
        self._state.epoch = max(self._state.epoch, seen)
