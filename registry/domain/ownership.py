"""Who owns a node, and what readers of `nodes:all` learn of changes: plain results and news."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from registry.domain.node import NodeLoad, NodeSnapshot

TAKEOVERS = 5
TAKEOVER_WINDOW_MS = 60_000
"""How often a living connection may be replaced by another one of its node, within this time."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """The node is ours under `epoch`; `previous_instance` owned it until now, or nobody ('')."""

    epoch: int
    previous_instance: str
    draining: bool


@dataclass(frozen=True, slots=True)
class Conflict:
    """A living node with another identity has this id.

    `contested`: with the same identity. Its connections have replaced each other TAKEOVERS times
    within the window, as two nodes do that were set up with one id; the one that has it keeps it.
    """

    contested: bool = False

    def reason(self, node_id: str) -> str:
        """What is wrong and what helps, for whoever sent the registration."""
        if self.contested:
            return (
                f"{node_id} was taken over {TAKEOVERS} times in {TAKEOVER_WINDOW_MS // 1000} s and"
                " is connected: it seems that two nodes use one node_id;"
                " give each its own, or send null to be given one"
            )
        return (
            f"a living node with other hardware is registered as {node_id};"
            " choose another node_id, or send null to be given one"
        )


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
