"""All nodes of `bench sync`, on three instances: `python -m bench.beats URL NODES HEARTBEAT_MS`.

Registers them, says so in one line, then lets each beat at its own phase until it is killed: its
keys are prolonged at each beat, its figures told by its instance once a second.
"""

import asyncio
import sys
from itertools import pairwise
from random import Random

from registry.domain.capability import (
    Capabilities,
    LanguageCapabilities,
    LanguagePair,
    ServiceCapability,
    ServiceType,
)
from registry.domain.node import Gpu, Hardware, Liveness, NodeLoad
from registry.logs import configure_logs
from registry.services.loops import Loops
from registry.services.membership import LocalNode, Membership, Registration
from registry.services.ports import Clock
from registry.services.views import NodeViews
from registry.store.connection import Connection
from registry.store.keys import Keys
from registry.store.nodes import RedisNodeStore
from registry.wiring import monotonic_ms

INSTANCES = ("i0", "i1", "i2")
TTL_MS = 45_000
LANGUAGES = ("zh", "en", "ja", "ko", "de", "fr", "es")
TOGETHER = 200


class Deaf:
    """A node's socket that nobody hears."""

    def send(self, frame: bytes) -> bool:
        return True

    def close(self, code: int, reason: str) -> None:
        raise RuntimeError(f"a node was closed with {code}: {reason}")


def membership(
    connection: Connection, instance_id: str, *, clock: Clock = monotonic_ms
) -> Membership:
    """An instance's part, with the default times."""
    store = RedisNodeStore(
        connection,
        Keys("lingua"),
        instance_id=instance_id,
        owner_ttl_ms=TTL_MS,
        presence_ttl_ms=TTL_MS,
    )
    life = Liveness(
        heartbeat_ms=15_000, presence_ttl_ms=TTL_MS, owner_ttl_ms=TTL_MS, snapshot_sync_ms=1_000
    )
    return Membership(store, NodeViews(), instance_id=instance_id, liveness=life, clock=clock)


def registration(number: int) -> Registration:
    """A node with three pairs, such as a home machine has."""
    turn = [LANGUAGES[(number + step) % len(LANGUAGES)] for step in range(4)]
    pairs = tuple(LanguagePair(src, tgt) for src, tgt in pairwise(turn))
    services = (ServiceType.ASR, ServiceType.NMT, ServiceType.TTS, ServiceType.SEMANTIC)
    return Registration(
        node_id=f"node-{number:05}",
        capabilities=Capabilities(
            tuple(ServiceCapability(service, ready=True) for service in services),
            LanguageCapabilities(supported_language_pairs=pairs),
        ),
        max_concurrent_jobs=4,
        accept_public_jobs=True,
        version="1.0.0",
        platform="linux",
        hardware=Hardware(8, 32.0, (Gpu("NVIDIA GeForce RTX 4070", 12.0),)),
        labels={},
        registered_at_ms=0,
    )


async def register(member: Membership, numbers: list[int]) -> list[LocalNode]:
    """Register nodes, many at a time."""
    found: list[LocalNode] = []
    for start in range(0, len(numbers), TOGETHER):
        together = (member.register(registration(n), Deaf()) for n in numbers[start:][:TOGETHER])
        found += [node for node in await asyncio.gather(*together) if isinstance(node, LocalNode)]
    return found


def some_load(random: Random) -> NodeLoad:
    """Figures that differ from beat to beat, as those of a working node."""
    cpu, mem, gpu, gpu_mem = (round(random.uniform(1, 80), 1) for _ in range(4))
    return NodeLoad(cpu, mem, gpu, gpu_mem, running_jobs=random.randrange(4))


class Beating:
    """The beats of one instance's nodes, spread evenly over the interval."""

    def __init__(self, member: Membership, nodes: list[LocalNode], *, heartbeat_ms: int) -> None:
        self._member = member
        self._nodes = nodes
        self._every_s = heartbeat_ms / 1000 / max(len(nodes), 1)
        self._random = Random(3)  # noqa: S311

    async def run(self) -> None:
        """Beat for ever."""
        clock = asyncio.get_running_loop().time
        began, done = clock(), 0
        while True:
            due = int((clock() - began) / self._every_s)
            together = [self._nodes[n % len(self._nodes)] for n in range(done, due)]
            done = due
            await asyncio.gather(*(self._beat(node) for node in together))
            await asyncio.sleep(0.05)

    async def _beat(self, node: LocalNode) -> None:
        await self._member.heartbeat(node, load=some_load(self._random), capabilities=None)


async def main(url: str, nodes: int, heartbeat_ms: int) -> None:
    loops = Loops(Random())  # noqa: S311
    for part, instance_id in enumerate(INSTANCES):
        member = membership(Connection(url), instance_id)
        local = await register(member, list(range(part, nodes, len(INSTANCES))))
        beating = Beating(member, local, heartbeat_ms=heartbeat_ms)
        loops.spawn(beating.run(), name="beats")
        # Telling loads is one half of `sync`; that this process also follows costs only itself.
        loops.every("node sync", 1_000, member.sync)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    configure_logs("WARNING")
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
