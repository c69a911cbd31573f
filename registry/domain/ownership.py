"""Who owns a node, and what readers of `nodes:all` learn of changes: plain results and news."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from registry.domain.node import NodeLoad, NodeSnapshot


@dataclass(frozen=True, slots=True)
class Claimed:
    """The node is ours under `epoch`; `previous_instance` owned it until now, or nobody ('')."""

    epoch: int
    previous_instance: str
    draining: bool


@dataclass(frozen=True, slots=True)
class Conflict:
    """A living node with another identity has this id."""


Claim = Claimed | Conflict


@dataclass(frozen=True, slots=True)
class Gone:
    """A node left; the news is of the connection with this epoch."""

    node_id: str
    connection_epoch: int


@dataclass(frozen=True, slots=True)
class Position:
    """Where a reader of the change streams stands, and in which life of the store."""

    changes: str = "0-0"
    loads: str = "0-0"
    sequence: int = 0
    birth: str = ""


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened since a position. `complete` is False when something was missed.

    `digest` is that of all snapshots as of the change numbered `told`. `lost` when the store has
    lost its data since.
    """

    position: Position
    complete: bool
    nodes: Sequence[NodeSnapshot | Gone]
    loads: Mapping[str, NodeLoad]
    told: int
    digest: int
    lost: bool
