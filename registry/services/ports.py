"""What the registry's services need from outside: stores, time and sockets, as protocols.

Every store method may raise `StoreUnavailable`. Two stores implement each protocol, Redis and
memory, and one contract suite holds both to the same behaviour.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from registry.domain.instance import InstanceReport
from registry.domain.lease import Acquisition, Held
from registry.domain.node import NodeLoad, NodeSnapshot
from registry.domain.ownership import Changes, Claim, Position

Clock = Callable[[], int]
"""Monotonic time of this process in ms."""


class NodeStore(Protocol):
    """Ownership and snapshots of nodes, as one instance writes and everyone reads them."""

    async def claim(
        self, node_id: str, *, fingerprint: str, floor: int, capacity: int, own: int = 0
    ) -> Claim:
        """Own a node; `own` is the epoch under which the claiming socket owns it already, or 0."""

    async def keep(self, node_id: str, *, epoch: int, fingerprint: str, capacity: int) -> bool:
        """Prolong ownership and presence; False when another connection owns the node."""

    async def drop(self, node_id: str, *, epoch: int) -> bool: ...

    async def put(self, snapshot: NodeSnapshot) -> bool:
        """Write a snapshot and its change; False when a newer one stands."""

    async def remove(self, node_id: str, *, epoch: int) -> bool: ...

    async def set_draining(self, node_id: str, *, draining: bool, capacity: int) -> None:
        """Remember an operator's word beyond the node's connection."""

    async def draining(self, node_id: str) -> bool:
        """That word, as it is now."""

    async def present(self, node_ids: Sequence[str]) -> set[str]:
        """Those of the nodes whose presence has not expired."""

    async def everything(self) -> tuple[Position, list[NodeSnapshot]]:
        """Every snapshot, and a position from which no change is missed."""

    async def changes(self, since: Position) -> Changes: ...

    async def news_after(self, since: Position, *, within_ms: int) -> bool:
        """Whether a snapshot changed after a position; waits for it up to `within_ms`."""

    async def publish_loads(self, loads: Mapping[str, NodeLoad]) -> None: ...


class InstanceStore(Protocol):
    """Who is there: each process's report and its presence."""

    async def report(self, report: InstanceReport) -> None: ...

    async def reports(self) -> list[InstanceReport]:
        """Reports of all instances that are present, by id."""

    async def all_reports(self) -> list[InstanceReport]:
        """The same, with those whose presence expired before they could leave."""

    async def absent(self) -> list[str]:
        """Those whose presence expired before they could leave, or who left work behind."""

    async def leave(self, instance_id: str, *, unfinished: bool = False) -> None:
        """Be gone. With `unfinished` work the report stays, for the leader's sweep to find."""


class LeaseStore(Protocol):
    """The one lease of the leader."""

    async def acquire(self, candidate: str, *, floor: int) -> Acquisition: ...

    async def renew(self, candidate: str, *, epoch: int) -> bool: ...

    async def release(self, candidate: str, *, epoch: int) -> bool: ...

    async def holder(self) -> Held | None: ...

    async def raise_epoch(self, seen: int) -> None:
        """Make sure that no epoch up to `seen` is granted again."""


class NodeHistory(Protocol):
    """Which nodes there have been, kept for people to read."""

    async def record(self, registrations: Sequence[NodeSnapshot]) -> None:
        """Keep who registered, when and as what; of one node the last word counts."""
