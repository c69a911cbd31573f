"""A burst of tasks from several instances at once, over nodes that keep what they get."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

from tests.support.agents import Node, Session
from tests.support.cluster import Cluster, Instance
from tests.support.waiting import eventually

INSTANCES = ("one", "two", "three", "four")
NODES = 20
TASKS = 100
PAIR = ("zh", "en")


def jain(counts: Sequence[int]) -> float:
    """Jain's index: 1 where all are equal, 1/n where one has everything."""
    return sum(counts) ** 2 / (len(counts) * sum(count * count for count in counts))


class Field:
    """Instances with nodes and sessions, ready for one burst after the other."""

    def __init__(
        self, instances: list[Instance], nodes: list[Node], sessions: list[Session]
    ) -> None:
        self._instances = instances
        self.nodes = nodes
        self._sessions = sessions
        self._said = dict.fromkeys(range(len(sessions)), 0)
        self._seen = [0] * len(nodes)

    async def burst(self) -> list[int]:
        """Say TASKS utterances at once; how many each node got once all have arrived."""
        self._seen = [len(node.jobs) for node in self.nodes]
        share = TASKS // len(self._sessions)
        await asyncio.gather(*(self._say(number, share) for number in range(len(self._sessions))))
        await eventually(lambda: sum(self._got()) >= TASKS, what="all tasks at their nodes")
        return self._got()

    async def finish(self) -> None:
        """Let the nodes end what they have; wait until all sessions and instances know of it.

        Instances hear of slots that others gave back within a sync interval: until then they take
        nodes for busy that are not.
        """
        for node, seen in zip(self.nodes, self._seen, strict=True):
            for job in node.jobs[seen:]:
                await node.finish(job)
        for number, session in enumerate(self._sessions):
            for index in range(self._said[number]):
                await session.translated(index)
        for instance in self._instances:
            await eventually(partial(_is_idle, instance), within_ms=30_000)

    def _got(self) -> list[int]:
        return [len(node.jobs) - seen for node, seen in zip(self.nodes, self._seen, strict=True)]

    async def _say(self, number: int, count: int) -> None:
        for _ in range(count):
            await self._sessions[number].say(self._said[number])
            self._said[number] += 1


async def lay_out(
    cluster: Cluster, stack: AsyncExitStack, *, sessions: int, slots: int = 8
) -> Field:
    """Start the instances, each with a part of the nodes and of the sessions."""
    # One by one: four at once take longer to start than they may on a busy machine.
    instances = [(await cluster.start_instances(name))[0] for name in INSTANCES]
    nodes = [
        Node(_at(instances, number).node_url, f"n{number}", "-".join(PAIR), slots=slots)
        for number in range(NODES)
    ]
    for node in nodes:
        await stack.enter_async_context(node)
    for instance in instances:
        await eventually(partial(_is_complete, instance), within_ms=30_000)
    peers = [Session(_at(instances, number).session_url, *PAIR) for number in range(sessions)]
    for peer in peers:
        await stack.enter_async_context(peer)
    return Field(instances, nodes, peers)


def _at(instances: list[Instance], number: int) -> Instance:
    return instances[number % len(instances)]


def _is_complete(instance: Instance) -> bool:
    pools = instance.state().get("pools", [])
    return any(each["nodes"] == NODES for each in pools if each["name"] == "-".join(PAIR))


def _is_idle(instance: Instance) -> bool:
    status, body = instance.get("/api/v1/nodes")
    return status == 200 and not any(node["reserved"] for node in json.loads(body)["nodes"])
