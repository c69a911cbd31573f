"""Tasks that wait for a slot, over real processes: when they go, in which order, and who may."""

import asyncio

from tests.support.agents import Node, Session
from tests.support.cluster import Cluster, Instance
from tests.support.waiting import eventually


async def serves(instance: Instance, pool: str) -> None:
    def there() -> bool:
        found = {each["name"]: each["nodes"] for each in instance.state().get("pools", [])}
        return bool(found.get(pool))

    await eventually(there, what=f"{pool} at {instance.name}")


async def occupy(node: Node, session: Session) -> None:
    """Fill the node's only slot."""
    await session.say(0)
    await session.expect("utterance_ack", utterance_index=0)
    await node.expect("job_assign", utterance_index=0)


async def queue(session: Session, *indices: int, **more: int) -> None:
    for index in indices:
        await session.say(index, **more)
    for index in indices:
        await session.expect("utterance_ack", utterance_index=index, status="queued")


async def order(node: Node, *, count: int) -> list[tuple[str, int]]:
    """Finish jobs one by one; who had a turn, in order."""
    for number in range(1, count + 1):
        await node.finish(await node.expect("job_assign", nth=number))
    return [(job["session_id"], job["utterance_index"]) for job in node.jobs]


async def test_a_freed_slot_has_the_next_task_at_once(cluster: Cluster) -> None:
    a, b = await cluster.start_instances("a", "b")
    async with (
        Node(b.node_url, "n1", "zh-en", slots=1) as node,
        Session(a.session_url, "zh", "en") as session,
    ):
        await serves(a, "zh-en")
        await occupy(node, session)
        await queue(session, *range(1, 41))
        # 40 tasks one after the other: a look once a second would take 40 s.
        async with asyncio.timeout(10):
            done = await order(node, count=41)
        assert [index for _, index in done] == list(range(41))
        await session.translated(40)


async def test_a_task_that_waits_goes_to_a_node_that_comes(cluster: Cluster) -> None:
    a, b = await cluster.start_instances("a", "b")
    async with (
        Node(a.node_url, "n1", "zh-en", slots=1) as busy,
        Session(a.session_url, "zh", "en") as session,
    ):
        await serves(a, "zh-en")
        await occupy(busy, session)
        await queue(session, 1, 2, 3)
        async with Node(b.node_url, "n2", "zh-en", slots=2) as other:
            await other.expect("job_assign", utterance_index=2)
            assert [job["utterance_index"] for job in other.jobs] == [1, 2]
            await other.finish(other.jobs[0])
            await other.expect("job_assign", utterance_index=3)


async def test_the_more_urgent_task_goes_first(cluster: Cluster) -> None:
    (a,) = await cluster.start_instances("a")
    async with (
        Node(a.node_url, "n1", "zh-en", slots=1) as node,
        Session(a.session_url, "zh", "en") as session,
    ):
        await serves(a, "zh-en")
        await occupy(node, session)
        await queue(session, 1, 2)
        await queue(session, 3, priority=9)
        await queue(session, 4, priority=0)
        assert [index for _, index in await order(node, count=5)] == [0, 3, 1, 2, 4]


async def test_mixed_and_exact_pools_share_a_node_by_age(cluster: Cluster) -> None:
    (a,) = await cluster.start_instances("a")
    async with (
        Node(a.node_url, "n1", "zh-en", slots=1) as node,
        Session(a.session_url, "zh", "en") as exact,
        Session(a.session_url, "auto", "en") as mixed,
    ):
        await serves(a, "zh-en")
        await occupy(node, exact)
        for index in range(1, 4):
            for session in (exact, mixed):
                await queue(session, index)
                await asyncio.sleep(0.002)  # Ages are in milliseconds.
        turns = [session for session, _ in await order(node, count=7)]
        assert turns[1:] == [exact.session_id, mixed.session_id] * 3


async def test_a_flood_delays_itself_and_weights_are_kept(cluster: Cluster) -> None:
    a, b = await cluster.start_instances("a", "b", SCHED_TENANT_WEIGHTS="heavy=3")
    async with (
        Node(b.node_url, "n1", "zh-en", slots=1) as node,
        Session(a.session_url, "zh", "en", tenant_id="flood") as flood,
        Session(b.session_url, "zh", "en", tenant_id="heavy") as heavy,
    ):
        await serves(a, "zh-en")
        await occupy(node, flood)
        await queue(flood, *range(1, 21))
        await queue(heavy, *range(1, 10))
        turns = [session for session, _ in await order(node, count=13)][1:]
        assert turns.count(heavy.session_id) == 9
        assert heavy.session_id in turns[:2]


async def test_a_full_queue_refuses_the_flood_and_not_its_neighbour(cluster: Cluster) -> None:
    a, b = await cluster.start_instances("a", "b", SCHED_QUEUE_LIMIT="4")
    async with (
        Node(b.node_url, "n1", "zh-en", slots=1) as node,
        Session(a.session_url, "zh", "en", tenant_id="flood") as flood,
        Session(b.session_url, "zh", "en", tenant_id="other") as other,
    ):
        await serves(a, "zh-en")
        await occupy(node, flood)
        await queue(flood, 1, 2, 3, 4)
        for number in (1, 2, 3):
            await flood.say(5)
            refusal = await flood.expect("error", code="QUEUE_FULL", nth=number)
            assert refusal["details"]["retry_after_ms"] >= 100
            assert "seq" not in refusal
        await flood.say(4)
        await flood.expect("utterance_ack", utterance_index=4, status="duplicate")
        await queue(other, 1, 2)
        await order(node, count=7)
        await flood.say(5)
        await node.finish(await node.expect("job_assign", nth=8))
        for index in range(6):
            await flood.translated(index)
        await other.translated(2)
