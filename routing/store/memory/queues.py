"""Queues in memory."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from registry.store.memory import Log, MemoryServer
from routing.domain.queueing import (
    DEFAULT_WEIGHT,
    Flow,
    FlowNews,
    Lease,
    Pull,
    QueueFull,
    Standing,
    lease_of,
    may_queue,
)

NEWS_KEPT = 1_000
FURTHEST_BEHIND = 2.0
"""How much service a tenant catches up with at most; see `pull_job.lua`."""


class QueueState:
    """The age of each waiting job by flow, the leases, and what each tenant was served."""

    def __init__(self, server: MemoryServer) -> None:
        self.flows: defaultdict[Flow, dict[str, int]] = defaultdict(dict)
        self.pulled: dict[Lease, int] = {}
        self.served: dict[str, float] = {}
        self.news: Log[FlowNews] = Log(server, kept=NEWS_KEPT)

    def add(self, flow: Flow, member: str, accepted_ms: int) -> None:
        waiting = self.flows[flow]
        if member not in waiting:
            waiting[member] = accepted_ms
            if len(waiting) == 1:
                self.news.append(FlowNews(flow, waits=True))

    def take(self, flow: Flow, member: str) -> None:
        del self.flows[flow][member]
        if not self.flows[flow]:
            del self.flows[flow]
            self.news.append(FlowNews(flow, waits=False))

    def in_pool(self, pool: str) -> Counter[str]:
        """Waiting jobs of a pool by tenant."""
        found: Counter[str] = Counter()
        for flow, waiting in self.flows.items():
            if flow.pool == pool:
                found[flow.tenant] += len(waiting)
        return found


class MemoryQueueStore:
    """Implements `QueueStore`."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    @property
    def _state(self) -> QueueState:
        return self._server.state(QueueState)

    async def put(
        self,
        flow: Flow,
        *,
        member: str,
        accepted_ms: int,
        limit: int | None = None,
        weights: Mapping[str, int] | None = None,
    ) -> QueueFull | None:
        waiting = self._state.flows.get(flow, {})
        if member in waiting:
            return None
        if limit:
            in_pool = self._state.in_pool(flow.pool)
            if not may_queue(flow.tenant, in_pool, limit=limit, weights=weights or {}):
                now_ms = self._server.clock()
                oldest_ms = max(now_ms - min(waiting.values(), default=now_ms), 0)
                return QueueFull(in_pool.total(), oldest_ms)
        self._state.add(flow, member, accepted_ms)
        return None

    async def pull(
        self, flows: Sequence[Flow], *, weights: Mapping[str, int], count: int, lease_ms: int
    ) -> Pull:
        if not flows or count < 1:
            return Pull()
        state, due_ms = self._state, self._server.clock() + lease_ms
        leases: list[Lease] = []
        self._level({flow.tenant for flow in flows if flow in state.flows})
        while len(leases) < count and (waiting := [f for f in flows if f in state.flows]):
            lease = min(map(self._head, waiting), key=self._rank)
            if any(flow.tenant != lease.flow.tenant for flow in waiting):
                weight = weights.get(lease.flow.tenant, DEFAULT_WEIGHT)
                state.served[lease.flow.tenant] += 1 / weight
            state.take(lease.flow, lease.member)
            state.pulled[lease] = due_ms
            leases.append(lease)
        if not state.flows:
            state.served.clear()
        return Pull(leases, [flow for flow in flows if flow not in state.flows])

    async def settle(self, lease: Lease) -> None:
        self._state.pulled.pop(lease, None)

    async def give_back(self, lease: Lease) -> bool:
        if self._state.pulled.pop(lease, None) is None:
            return False
        self._state.add(lease.flow, lease.member, lease.accepted_ms)
        return True

    async def leave(self, flow: Flow, *, member: str) -> bool:
        if member not in self._state.flows.get(flow, {}):
            return False
        self._state.take(flow, member)
        return True

    async def standing(self) -> Standing:
        now_ms = self._server.clock()
        return Standing(
            str(self._state.news.end),
            {flow: len(waiting) for flow, waiting in self._state.flows.items()},
            [lease for lease, due_ms in self._state.pulled.items() if due_ms <= now_ms],
        )

    async def oldest(self, flows: Sequence[Flow]) -> list[int | None]:
        now_ms = self._server.clock()
        firsts = [min(self._state.flows.get(flow, {}).values(), default=None) for flow in flows]
        return [None if first is None else max(now_ms - first, 0) for first in firsts]

    async def news(self, since: str, *, within_ms: int) -> tuple[str, list[FlowNews]]:
        after = int(since.partition("-")[0])
        try:
            async with asyncio.timeout(within_ms / 1000):
                while self._state.news.end <= after:
                    await self._server.rung()
        except TimeoutError:
            return since, []
        return str(self._state.news.end), self._state.news.after(after)

    def _level(self, tenants: set[str]) -> None:
        """Let nobody who waits be too far behind, and who is new begin with the least of them."""
        if len(tenants) < 2:
            return
        served = self._state.served
        known = [tenant for tenant in tenants if tenant in served]
        most = max((served[tenant] for tenant in known), default=0.0)
        for tenant in known:
            served[tenant] = max(served[tenant], most - FURTHEST_BEHIND)
        least = min((served[tenant] for tenant in known), default=0.0)
        for tenant in tenants:
            served.setdefault(tenant, least)

    def _head(self, flow: Flow) -> Lease:
        accepted_ms, member = min((at, member) for member, at in self._state.flows[flow].items())
        return lease_of(f"{member}|{accepted_ms}|{flow.name}")

    def _rank(self, lease: Lease) -> tuple[int, float, int]:
        flow = lease.flow
        return -flow.priority, self._state.served.get(flow.tenant, 0.0), lease.accepted_ms
