"""Reading all nodes at once, from a real server, leaves the event loop free for others."""

import asyncio

import pytest

from registry.domain.node import Liveness, NodeSnapshot
from registry.services.membership import Membership
from registry.services.views import NodeViews
from registry.store import nodes as node_store
from registry.wiring import monotonic_ms
from tests.contract.backends import RedisBackend
from tests.contract.test_node_store import snapshot

NODES = 10_000
TOGETHER = 1_000
LIVENESS = Liveness(
    heartbeat_ms=1_000, presence_ttl_ms=60_000, owner_ttl_ms=60_000, snapshot_sync_ms=500
)


class CountingDecoder:
    """The store's decoder, which counts what it decodes."""

    def __init__(self) -> None:
        self._decoder = node_store._snapshot
        self.decoded = 0

    def decode(self, raw: bytes) -> NodeSnapshot:
        self.decoded += 1
        return self._decoder.decode(raw)


async def test_ten_thousand_nodes_are_read_in_slices_between_which_others_run(
    redis_backend: RedisBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = redis_backend.nodes("one")
    for start in range(0, NODES, TOGETHER):
        names = (f"n{number}" for number in range(start, start + TOGETHER))
        await asyncio.gather(*(store.put(snapshot(name)) for name in names))
    decoder = CountingDecoder()
    monkeypatch.setattr(node_store, "_snapshot", decoder)
    views = NodeViews()
    reader = Membership(
        redis_backend.nodes("two"), views, instance_id="two", liveness=LIVENESS, clock=monotonic_ms
    )
    most_decoded = most_taken = 0

    async def tick() -> None:
        nonlocal most_decoded, most_taken
        while True:
            decoded, taken = decoder.decoded, len(views)
            await asyncio.sleep(0)
            most_decoded = max(most_decoded, decoder.decoded - decoded)
            most_taken = max(most_taken, len(views) - taken)

    ticking = asyncio.create_task(tick())
    await reader.sync()
    ticking.cancel()
    assert len(views) == NODES
    assert most_decoded <= node_store.SLICE
    assert most_taken <= node_store.SLICE
