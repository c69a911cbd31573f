"""The server is away for a while: local sessions are served by local nodes, and nothing is lost."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.agents import Node, Session, translating
from tests.support.cluster import Cluster, Instance
from tests.support.waiting import eventually


def degraded(instance: Instance) -> bool:
    return instance.get("/readyz")[0] == 503 and "Redis" in instance.get("/readyz")[1]


async def serves(instance: Instance, *pools: str) -> None:
    def there() -> bool:
        found = {pool["name"]: pool["nodes"] for pool in instance.state().get("pools", [])}
        return all(found.get(pool) for pool in pools)

    await eventually(there, what=f"{pools} at {instance.name}")


@asynccontextmanager
async def outage(cluster: Cluster, *instances: Instance) -> AsyncIterator[None]:
    """Without a server inside, with it and everyone ready after."""
    cluster.server.stop(kill=True)
    for instance in instances:
        await eventually(lambda i=instance: degraded(i), what=f"{instance.name} to notice")
    yield
    cluster.start_server()
    for instance in instances:
        await instance.ready()


async def test_i6_an_instance_serves_its_own_sessions_by_its_own_nodes_without_redis(
    cluster: Cluster,
) -> None:
    a, b = await cluster.start_instances("a", "b")
    async with Node(a.node_url, "n1", "zh-en", "ja-en") as node:
        await serves(a, "zh-en")
        session = Session(a.session_url, "zh", "en")
        await session.open()
        await session.say(0)
        await node.finish(await node.expect("job_assign", utterance_index=0))
        await session.terminal(0)
        await session.say(1)
        under_way = await node.expect("job_assign", utterance_index=1)

        async with outage(cluster, a, b):
            await session.say(2)
            await session.expect("utterance_ack", utterance_index=2, status="accepted")
            await node.finish(under_way)  # the store has to hear of it first
            job = await node.expect("job_assign", utterance_index=2)
            await session.say(2)
            await session.expect("utterance_ack", utterance_index=2, status="duplicate")
            await node.finish(job)
            assert (await session.translated(2))["seq"] == 2
            # What became of an older one, only the store knows.
            await session.say(0)
            refusal = await session.expect("error", utterance_index=0)
            assert (refusal["code"], "seq" in refusal) == ("INTERNAL_ERROR", False)
            assert a.get("/healthz")[0] == 200

        assert (await session.translated(1))["seq"] == 3
        await session.say(3)
        await node.finish(await node.expect("job_assign", utterance_index=3))
        assert (await session.translated(3))["seq"] == 4
        await session.say(2)
        await session.expect("utterance_ack", utterance_index=2, status="duplicate", nth=2)

        again = await session.resume_at(b.session_url, last_seq=0)
        await again.terminal(3)
        assert [(f["seq"], f["utterance_index"]) for f in again.terminals] == [
            (1, 0),
            (2, 2),
            (3, 1),
            (4, 3),
        ]
        assert [f["seq"] for f in session.terminals] == [1, 2, 3, 4]
        await again.close()
        assert node.close_code is None


async def test_what_an_island_began_ends_after_the_store_is_back(cluster: Cluster) -> None:
    (a,) = await cluster.start_instances("a")
    async with (
        Node(a.node_url, "n1", "zh-en", slots=1) as node,
        Session(a.session_url, "zh", "en") as session,
    ):
        await serves(a, "zh-en")
        async with outage(cluster, a):
            await session.say(0)
            await session.say(1)
            await session.expect("utterance_ack", utterance_index=1, status="queued")
            job = await node.expect("job_assign", utterance_index=0)
        for index in (0, 1):
            await session.say(index)
            await session.expect("utterance_ack", utterance_index=index, status="duplicate")
        await session.say(2)
        await node.finish(job)
        assert (await session.translated(0))["seq"] == 1
        for number in (2, 3):
            await node.finish(await node.expect("job_assign", nth=number))
        for index in (1, 2):
            await session.translated(index)
        assert sorted(f["seq"] for f in session.terminals) == [1, 2, 3]
        assert len(node.jobs) == 3
        assert a.get(f"/api/v1/jobs/{session.session_id}:1")[0] == 200


async def test_i6_a_server_that_hangs_closes_no_socket_and_loses_nothing(
    cluster: Cluster,
) -> None:
    cluster.settings["SCHED_PRESENCE_TTL_MS"] = "4000"
    a, b = await cluster.start_instances("a", "b")
    async with (
        Node(b.node_url, "n1", "zh-en", answer=translating("n1")) as node,
        Session(a.session_url, "zh", "en") as session,
    ):
        await serves(a, "zh-en")
        await session.say(0)
        await session.translated(0)
        assert cluster.server.pid is not None
        cluster.pause_server(signal.SIGSTOP)
        for instance in (a, b):
            await eventually(
                lambda i=instance: i.get("/readyz")[0] == 503,
                within_ms=20_000,
                what=f"{instance.name} to notice",
            )
            assert instance.get("/healthz")[0] == 200
        cluster.pause_server(signal.SIGCONT)
        for instance in (a, b):
            await instance.ready()
        await serves(a, "zh-en")
        await session.say(1)
        await session.translated(1)
        assert (node.close_code, session.close_code) == (None, None)
