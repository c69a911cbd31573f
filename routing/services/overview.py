"""What an instance sees of the cluster: the answer of `/api/v1/state` and of the operator pages."""

import asyncio
from dataclasses import dataclass
from typing import Any

from pools.domain.index import PoolIndex
from pools.services.sync import PoolSync
from registry.domain.errors import InvalidIdentifier
from registry.domain.ids import check_identifier, split_job_id
from registry.domain.instance import InstanceReport
from registry.domain.lease import Held
from registry.services.loops import Loops
from registry.services.ports import InstanceStore, LeaseStore
from registry.services.views import NodeView, NodeViews
from routing.domain.decision import latest
from routing.domain.outcome import StoredJob
from routing.services.ports import JobStore, SessionStore
from routing.services.reasons import DecisionState, shown


@dataclass(frozen=True, slots=True)
class InstanceState:
    id: str
    started_at_ms: int
    degraded: bool


@dataclass(frozen=True, slots=True)
class LeaderState:
    instance_id: str
    epoch: int
    expires_in_ms: int


@dataclass(frozen=True, slots=True)
class PoolConfigState:
    version: int
    epoch: int
    generated_by: str
    generated_at_ms: int
    digest: str


@dataclass(frozen=True, slots=True)
class NodeCounts:
    total: int
    ready: int


@dataclass(frozen=True, slots=True)
class PoolState:
    id: int
    name: str
    kind: str
    nodes: int


@dataclass(frozen=True, slots=True)
class PeerState:
    id: str
    nodes: int
    sessions: int
    last_seen_ms: int
    pool_config_version: int
    pool_index_digest: str
    degraded: bool


@dataclass(frozen=True, slots=True)
class State:
    """The cluster from here. `leader` and `instances` are the store's word, all else is ours.

    While the store is away there is no leader to be seen, and this instance is the only one.
    """

    instance: InstanceState
    leader: LeaderState | None
    pool_config: PoolConfigState
    pool_index_digest: str
    nodes: NodeCounts
    pools: list[PoolState]
    instances: list[PeerState]


@dataclass(frozen=True, slots=True)
class NodeState:
    """One node, live."""

    id: str
    status: str
    instance_id: str
    connection_epoch: int
    slots: int
    reserved: int
    cpu_percent: float
    mem_percent: float
    gpu_percent: float | None
    platform: str
    version: str
    labels: dict[str, str]
    pools: list[str]
    accept_public_jobs: bool
    registered_at_ms: int


@dataclass(frozen=True, slots=True)
class AttemptState:
    """An attempt that failed; with the node's own words where it was the node that gave it up."""

    attempt: int
    node_id: str
    reason: str
    code: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class JobDetail:
    """One job, without what it carries. `seq` is null until it has ended; times are the store's.

    `decisions` says for each attempt why it was given to its node.
    """

    id: str
    session_id: str
    utterance_index: int
    state: str
    attempt: int
    node_id: str | None
    accepted_at_ms: int
    deadline_ms: int
    src_lang: str
    tgt_lang: str
    tenant: str
    priority: int
    trace_id: str
    labels: dict[str, str]
    history: list[AttemptState]
    decisions: list[DecisionState]
    seq: int | None


@dataclass(frozen=True, slots=True)
class SessionDetail:
    """One session, without its secrets. `open_jobs` by deadline; `seq` counts those that ended."""

    id: str
    instance_id: str
    connection_epoch: int
    seq: int
    closed: bool
    open_jobs: list[str]


class Overview:
    """Answers questions about the cluster from this instance's view and the store."""

    def __init__(
        self,
        *,
        instance_id: str,
        started_at_ms: int,
        views: NodeViews,
        index: PoolIndex,
        sync: PoolSync,
        instances: InstanceStore,
        leases: LeaseStore,
        loops: Loops,
        jobs: JobStore,
        sessions: SessionStore,
    ) -> None:
        self._instance_id = instance_id
        self._started_at_ms = started_at_ms
        self._views = views
        self._index = index
        self._sync = sync
        self._instances = instances
        self._leases = leases
        self._loops = loops
        self._jobs = jobs
        self._sessions = sessions

    @property
    def degraded(self) -> bool:
        """Whether this instance serves without the store, or with pools of its own making."""
        return bool(self._loops.failing) or self._sync.local

    async def state(self) -> State:
        held, reports = await self._seen_in_store()
        config = self._sync.config
        return State(
            instance=InstanceState(self._instance_id, self._started_at_ms, self.degraded),
            leader=_leader(held),
            pool_config=PoolConfigState(
                config.version,
                config.epoch,
                config.generated_by,
                config.generated_at_ms,
                self._sync.digest,
            ),
            pool_index_digest=self._index.digest,
            nodes=self.node_counts(),
            pools=self.pools(),
            instances=[_peer(report) for report in reports if report.serves],
        )

    async def _seen_in_store(self) -> tuple[Held | None, list[InstanceReport]]:
        if self._loops.failing:
            return None, []
        return await asyncio.gather(self._leases.holder(), self._instances.reports())

    def node_counts(self) -> NodeCounts:
        return NodeCounts(len(self._views), sum(view.ready for view in self._views))

    def pools(self) -> list[PoolState]:
        """The pools in the order of their names."""
        counts = self._index.counts()
        return [
            PoolState(pool.id, pool.name, pool.kind.value, counts[pool.name])
            for pool in self._index.pools
        ]

    def pool_members(self, name: str) -> list[str] | None:
        """The nodes of a pool by id; None when there is no such pool."""
        if name not in self._index.counts():
            return None
        return sorted(self._index.members(name))

    def nodes(self, *, after: str = "", limit: int = 100) -> list[NodeState]:
        """Nodes by id, those that come after the given one."""
        ids = sorted(v.snapshot.node_id for v in self._views if v.snapshot.node_id > after)
        found = (self.node(node_id) for node_id in ids[:limit])
        return [node for node in found if node is not None]

    def node(self, node_id: str) -> NodeState | None:
        view = self._views.get(node_id)
        return self._node(view) if view is not None else None

    async def job(self, job_id: str) -> JobDetail | None:
        """One job, while its session is kept; raises StoreUnavailable."""
        try:
            split_job_id(job_id)
        except InvalidIdentifier:
            return None
        found = await self._jobs.get(job_id)
        return _job(found) if found is not None else None

    async def session(self, session_id: str) -> SessionDetail | None:
        """One session, while it is kept; raises StoreUnavailable."""
        try:
            check_identifier(session_id, what="session id")
        except InvalidIdentifier:
            return None
        found = await self._sessions.get(session_id)
        if found is None:
            return None
        return SessionDetail(
            found.session_id,
            found.instance_id,
            found.epoch,
            found.seq,
            found.closed,
            found.open_jobs,
        )

    def _node(self, view: NodeView) -> NodeState:
        snapshot = view.snapshot
        return NodeState(
            id=snapshot.node_id,
            status=snapshot.status.value,
            instance_id=snapshot.instance_id,
            connection_epoch=snapshot.connection_epoch,
            slots=snapshot.max_concurrent_jobs,
            reserved=view.reserved,
            cpu_percent=view.load.cpu_percent,
            mem_percent=view.load.mem_percent,
            gpu_percent=view.load.gpu_percent,
            platform=snapshot.platform,
            version=snapshot.version,
            labels=snapshot.labels,
            pools=list(self._index.pools_of(snapshot.node_id)),
            accept_public_jobs=snapshot.accept_public_jobs,
            registered_at_ms=snapshot.registered_at_ms,
        )


def _leader(held: Held | None) -> LeaderState | None:
    return LeaderState(held.instance_id, held.epoch, held.remaining_ms) if held else None


def _peer(report: InstanceReport) -> PeerState:
    return PeerState(
        report.instance_id,
        report.nodes,
        report.sessions,
        report.last_seen_ms,
        report.pool_config_version,
        report.pool_index_digest,
        report.degraded,
    )


def _job(job: StoredJob) -> JobDetail:
    session_id, utterance_index = split_job_id(job.job_id)
    return JobDetail(
        id=job.job_id,
        session_id=session_id,
        utterance_index=utterance_index,
        state=job.state,
        attempt=job.attempt,
        node_id=job.node_id or None,
        accepted_at_ms=job.accepted_ms,
        deadline_ms=job.deadline_ms,
        src_lang=job.brief.src,
        tgt_lang=job.brief.tgt,
        tenant=job.brief.tenant,
        priority=job.brief.priority,
        trace_id=job.brief.trace_id,
        labels=job.brief.labels,
        history=[_attempt(entry) for entry in job.history],
        decisions=[shown(each) for each in latest(job.decisions)],
        seq=job.seq,
    )


def _attempt(entry: dict[str, Any]) -> AttemptState:
    return AttemptState(
        int(entry["attempt"]),
        str(entry["node"]),
        str(entry["reason"]),
        entry.get("code"),
        entry.get("message"),
    )
