"""Queues in Redis: jobs that wait for a slot, one sorted set for each flow."""

from collections.abc import Mapping, Sequence

import msgspec

from registry.store.connection import Connection
from registry.store.keys import Keys
from registry.store.streams import Entry, wait_entries
from routing.domain.queueing import (
    Flow,
    FlowNews,
    Lease,
    Pull,
    QueueFull,
    Standing,
    flow_named,
    lease_of,
)
from routing.store.jobs import SCRIPTS

MOST_OVERDUE = 100
"""Leases that one look brings back; the next look brings more."""


class RedisQueueStore:
    """Implements `QueueStore`."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys

    async def put(
        self,
        flow: Flow,
        *,
        member: str,
        accepted_ms: int,
        limit: int | None = None,
        weights: Mapping[str, int] | None = None,
    ) -> QueueFull | None:
        reply = await self._connection.run(
            SCRIPTS["enqueue_job"],
            [*self._counts(), self._keys.queue_flow(flow.name)],
            [flow.name, member, accepted_ms, limit or 0, msgspec.json.encode(weights or {})],
        )
        if reply.word == "queued":
            return None
        return QueueFull(reply.integer(0), max(reply.integer(1), 0))

    async def pull(
        self, flows: Sequence[Flow], *, weights: Mapping[str, int], count: int, lease_ms: int
    ) -> Pull:
        if not flows or count < 1:
            return Pull()
        names = [flow.name for flow in flows]
        reply = await self._connection.run(
            SCRIPTS["pull_job"],
            [
                *self._counts(),
                self._keys.queue_pulled,
                self._keys.queue_served,
                *map(self._keys.queue_flow, names),
            ],
            [
                msgspec.json.encode(names),
                msgspec.json.encode([weights.get(flow.tenant, 1) for flow in flows]),
                count,
                lease_ms,
            ],
        )
        empty = reply.text(0)
        return Pull(
            [lease_of(token.decode()) for token in reply.values[1:]],
            [flows[int(place) - 1] for place in empty.split(",")] if empty else [],
        )

    async def settle(self, lease: Lease) -> None:
        await self._connection.call("ZREM", self._keys.queue_pulled, lease.token)

    async def give_back(self, lease: Lease) -> bool:
        reply = await self._connection.run(
            SCRIPTS["return_job"],
            [
                *self._counts(),
                self._keys.queue_pulled,
                self._keys.queue_flow(lease.flow.name),
            ],
            [lease.flow.name, lease.member, lease.accepted_ms, lease.token],
        )
        return reply.word == "returned"

    async def leave(self, flow: Flow, *, member: str) -> bool:
        reply = await self._connection.run(
            SCRIPTS["leave_queue"],
            [*self._counts(), self._keys.queue_flow(flow.name)],
            [flow.name, member],
        )
        return reply.word == "left"

    async def standing(self) -> Standing:
        reply = await self._connection.run(
            SCRIPTS["read_queues"],
            [self._keys.queue_index, self._keys.queue_news, self._keys.queue_pulled],
            [MOST_OVERDUE],
        )
        overdue = reply.integer(1)
        tokens, flat = reply.values[2 : 2 + overdue], reply.values[2 + overdue :]
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return Standing(
            reply.text(0),
            {flow_named(name.decode()): int(waiting) for name, waiting in pairs},
            [lease_of(token.decode()) for token in tokens],
        )

    async def oldest(self, flows: Sequence[Flow]) -> list[int | None]:
        if not flows:
            return []
        reply = await self._connection.run(
            SCRIPTS["oldest_jobs"], [self._keys.queue_flow(flow.name) for flow in flows], []
        )
        return [int(age) if age else None for age in reply.values]

    async def news(self, since: str, *, within_ms: int) -> tuple[str, list[FlowNews]]:
        found = await wait_entries(
            self._connection, self._keys.queue_news, since, within_ms=within_ms
        )
        return found[-1].id if found else since, [_news(entry) for entry in found]

    def _counts(self) -> list[str]:
        return [self._keys.queue_index, self._keys.queue_pools, self._keys.queue_news]


def _news(entry: Entry) -> FlowNews:
    return FlowNews(flow_named(entry.fields[b"flow"].decode()), entry.fields[b"waits"] == b"1")
