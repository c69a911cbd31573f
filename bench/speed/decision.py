"""How long choosing a node takes: `python -m bench.speed.decision`, a worker.

The one part of this harness that calls the scheduler's own code: placement over an index of 200
pools, in memory. Microseconds for each decision.
"""

import asyncio
import time
from random import Random

from bench.workers import serve
from pools.domain.generation import PoolRules, generate
from pools.domain.index import PoolIndex
from registry.domain.capability import (
    LanguageCapabilities,
    LanguagePair,
    ServiceCapability,
    ServiceType,
)
from registry.domain.node import NodeSnapshot, NodeStatus
from registry.services.views import NodeViews
from routing.domain.selection import SelectionRules
from routing.services.placement import Placement

POOLS = 200
PAIRS_OF_A_NODE = 100
LANGUAGES = [f"l{number}" for number in range(15)]
PAIRS = [(src, tgt) for src in LANGUAGES for tgt in LANGUAGES if src != tgt][:POOLS]
RULES = PoolRules(max_pools=POOLS, enable_mixed_pools=False)
SERVICES = (ServiceType.ASR, ServiceType.NMT, ServiceType.TTS, ServiceType.SEMANTIC)


def placement_over(nodes: int) -> Placement:
    """So many nodes, each in half of the pools."""
    views, index = NodeViews(), PoolIndex(RULES)
    for number in range(nodes):
        views.put(_snapshot(number))
    known = [view.snapshot for view in views]
    for snapshot in known:
        index.put(snapshot.node_id, snapshot.capabilities)
    generation = generate(index.census(), rules=RULES)
    index.configure(generation.pools)
    if len(generation.pools) != POOLS:
        raise RuntimeError(f"{len(generation.pools)} pools came of {nodes} nodes")
    chance = Random(1).random  # noqa: S311
    return Placement(index, views, rules=SelectionRules(), chance=chance, clock=lambda: 0)


def _snapshot(number: int) -> NodeSnapshot:
    first = number * PAIRS_OF_A_NODE
    pairs = (PAIRS[(first + step) % POOLS] for step in range(PAIRS_OF_A_NODE))
    return NodeSnapshot(
        node_id=f"node-{number:05}",
        instance_id="i",
        connection_epoch=1,
        revision=1,
        status=NodeStatus.READY,
        max_concurrent_jobs=4,
        accept_public_jobs=True,
        capability_by_type=tuple(ServiceCapability(service, ready=True) for service in SERVICES),
        language_capabilities=LanguageCapabilities(
            supported_language_pairs=tuple(LanguagePair(src, tgt) for src, tgt in pairs)
        ),
        registered_at_ms=0,
    )


class Decisions:
    """The verbs."""

    def __init__(self) -> None:
        self._placements: dict[int, Placement] = {}
        self._random = Random(2)  # noqa: S311

    async def decide(self, nodes: int, count: int) -> list[float]:
        placement = self._placements.get(nodes)
        if placement is None:
            placement = self._placements[nodes] = placement_over(nodes)
        spent = []
        for src, tgt in self._random.choices(PAIRS, k=count):
            began = time.perf_counter_ns()
            plan = placement.plan(src, tgt)
            spent.append((time.perf_counter_ns() - began) / 1000)
            if plan is None or not plan.nodes:
                raise RuntimeError(f"no node was chosen for {src}-{tgt}")
        return spent


if __name__ == "__main__":
    asyncio.run(serve({"decide": Decisions().decide}))
