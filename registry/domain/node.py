"""A node as the scheduler sees it: its status machine, its snapshot, its load.

The status says whether a node may be given work. It is not a promise that the node is alive:
that is what presence keys and reservations with an expiry are for.
"""

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from registry.domain.capability import Capabilities, LanguageCapabilities, ServiceCapability
from registry.domain.errors import InvalidTiming, InvalidTransition


class NodeStatus(StrEnum):
    REGISTERING = "registering"
    READY = "ready"
    DEGRADED = "degraded"
    DRAINING = "draining"
    OFFLINE = "offline"


class NodeEvent(StrEnum):
    REGISTERED = "registered"
    FAILED_OFTEN = "failed often"
    RECOVERED = "recovered"
    DRAIN = "drain"
    RESUME = "resume"
    LOST = "lost"


# A node registers, works, and goes. While `degraded` it is chosen only when no ready node is left;
# while `draining` never. A resumed node starts as ready: its failure window was emptied.
# Registering again (a new connection of the same node) starts over from wherever it was, but a
# drain is an operator's word and outlives the connection.
TRANSITIONS: dict[tuple[NodeStatus, NodeEvent], NodeStatus] = {
    (NodeStatus.REGISTERING, NodeEvent.REGISTERED): NodeStatus.READY,
    (NodeStatus.REGISTERING, NodeEvent.DRAIN): NodeStatus.DRAINING,
    (NodeStatus.REGISTERING, NodeEvent.LOST): NodeStatus.OFFLINE,
    (NodeStatus.READY, NodeEvent.REGISTERED): NodeStatus.READY,
    (NodeStatus.READY, NodeEvent.FAILED_OFTEN): NodeStatus.DEGRADED,
    (NodeStatus.READY, NodeEvent.DRAIN): NodeStatus.DRAINING,
    (NodeStatus.READY, NodeEvent.RESUME): NodeStatus.READY,
    (NodeStatus.READY, NodeEvent.LOST): NodeStatus.OFFLINE,
    (NodeStatus.DEGRADED, NodeEvent.REGISTERED): NodeStatus.READY,
    (NodeStatus.DEGRADED, NodeEvent.FAILED_OFTEN): NodeStatus.DEGRADED,
    (NodeStatus.DEGRADED, NodeEvent.RECOVERED): NodeStatus.READY,
    (NodeStatus.DEGRADED, NodeEvent.DRAIN): NodeStatus.DRAINING,
    (NodeStatus.DEGRADED, NodeEvent.RESUME): NodeStatus.READY,
    (NodeStatus.DEGRADED, NodeEvent.LOST): NodeStatus.OFFLINE,
    (NodeStatus.DRAINING, NodeEvent.REGISTERED): NodeStatus.DRAINING,
    (NodeStatus.DRAINING, NodeEvent.DRAIN): NodeStatus.DRAINING,
    (NodeStatus.DRAINING, NodeEvent.RESUME): NodeStatus.READY,
    (NodeStatus.DRAINING, NodeEvent.LOST): NodeStatus.OFFLINE,
    (NodeStatus.OFFLINE, NodeEvent.REGISTERED): NodeStatus.READY,
    (NodeStatus.OFFLINE, NodeEvent.LOST): NodeStatus.OFFLINE,
}


def advance(status: NodeStatus, event: NodeEvent) -> NodeStatus:
    """The status after `event`; raises InvalidTransition when the table has no such step."""
    try:
        return TRANSITIONS[status, event]
    except KeyError:
        raise InvalidTransition(f"a node that is {status} cannot take '{event}'") from None


class Gpu(msgspec.Struct, frozen=True, gc=False):
    name: str
    memory_gb: float


class Hardware(msgspec.Struct, frozen=True, gc=False):
    cpu_cores: int
    memory_gb: float
    gpus: tuple[Gpu, ...] | None = None


class NodeSnapshot(msgspec.Struct, frozen=True, gc=False):
    """What `nodes:all` holds of a node: who it is, what it can do, who owns it. Never its load.

    `connection_epoch` grows with each connection of the node; of two snapshots of one node the
    one with the higher (connection_epoch, revision) is newer.
    """

    node_id: str
    instance_id: str
    connection_epoch: int
    revision: int
    status: NodeStatus
    max_concurrent_jobs: int
    accept_public_jobs: bool
    capability_by_type: tuple[ServiceCapability, ...]
    language_capabilities: LanguageCapabilities | None
    registered_at_ms: int
    version: str = ""
    platform: str = ""
    hardware: Hardware | None = None
    labels: dict[str, str] = {}

    @property
    def order(self) -> tuple[int, int]:
        return self.connection_epoch, self.revision

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(self.capability_by_type, self.language_capabilities)


DIGEST_BITS = 48


def digest_part(snapshot: NodeSnapshot) -> int:
    """One snapshot's part of the digest of all: parts are summed modulo 2^DIGEST_BITS.

    The Lua verbs that write snapshots keep the same sum.
    """
    epoch, revision = snapshot.order
    name = f"{snapshot.node_id}|{epoch}|{revision}".encode()
    return int(hashlib.sha1(name, usedforsecurity=False).hexdigest()[:12], 16)


class NodeLoad(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A node's own figures from its last heartbeat, in percent and jobs. Travels apart.

    `reserved` is ours beside them: the reservations its owner counted then.
    """

    cpu_percent: float = 0.0
    mem_percent: float = 0.0
    gpu_percent: float | None = None
    gpu_mem_percent: float | None = None
    running_jobs: int = 0
    reserved: int = 0

    @property
    def peak_percent(self) -> float:
        """The scarcest resource: what the resource threshold is compared with."""
        return max(
            self.cpu_percent, self.mem_percent, self.gpu_percent or 0.0, self.gpu_mem_percent or 0.0
        )


IDLE = NodeLoad()


@dataclass(slots=True)
class FailureWindow:
    """The outcomes of a node's last jobs: degraded by 3 failures of the last 5, or 3 in a row.

    Three in a row are three of the last five too, so one window of five answers both.
    """

    outcomes: list[bool] = field(default_factory=list)
    size: int = 5
    limit: int = 3

    def add(self, *, succeeded: bool) -> None:
        self.outcomes.append(succeeded)
        del self.outcomes[: -self.size]

    @property
    def failures(self) -> int:
        return self.outcomes.count(False)

    @property
    def tripped(self) -> bool:
        return self.failures >= self.limit


@dataclass(frozen=True, slots=True)
class Liveness:
    """How often nodes and instances say that they live, and how long silence may last, in ms."""

    heartbeat_ms: int
    presence_ttl_ms: int
    owner_ttl_ms: int
    snapshot_sync_ms: int

    @property
    def silence_check_ms(self) -> int:
        """How often to look for silent nodes: one is found soon after its time is over.

        And often enough that a stall of this process is told from the silence of its nodes.
        """
        return max(min(self.presence_ttl_ms // 20, 500), 1)

    def __post_init__(self) -> None:
        for name, value in (
            ("SCHED_HEARTBEAT_MS", self.heartbeat_ms),
            ("SCHED_SNAPSHOT_SYNC_MS", self.snapshot_sync_ms),
        ):
            if value <= 0:
                raise InvalidTiming(f"{name} is {value}; it must be a positive number of ms")
        for name, value in (
            ("SCHED_PRESENCE_TTL_MS", self.presence_ttl_ms),
            ("SCHED_OWNER_TTL_MS", self.owner_ttl_ms),
        ):
            if value <= self.heartbeat_ms or value <= self.snapshot_sync_ms:
                raise InvalidTiming(
                    f"{name} is {value}; it must be longer than SCHED_HEARTBEAT_MS"
                    f" ({self.heartbeat_ms}) and SCHED_SNAPSHOT_SYNC_MS ({self.snapshot_sync_ms}),"
                    " best three times as long, so that one lost beat ends nothing"
                )
