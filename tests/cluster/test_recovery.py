"""Whoever dies: everything that was acknowledged ends exactly once. Over real processes."""

import asyncio
import contextlib
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import pytest

from tests.cluster.test_dispatch import serves
from tests.support.agents import Node, Session, translating
from tests.support.cluster import Cluster, Instance
from tests.support.roaming import RoamingNode, RoamingSession
from tests.support.waiting import eventually

TTL_MS = 4_000
LOOKED = "job looked after"
SHORT = {
    "SCHED_PRESENCE_TTL_MS": str(TTL_MS),
    "SCHED_OWNER_TTL_MS": str(TTL_MS),
    "SCHED_QUEUE_TIMEOUT_MS": "60000",
    "SCHED_JOB_TIMEOUT_MS": "60000",
    "SCHED_STOP_TIMEOUT_MS": "4000",
}
"""A job's own times are far longer than these tests: only recovery can bring it further."""


@pytest.fixture(autouse=True)
def short(cluster: Cluster) -> None:
    cluster.settings |= SHORT


@contextlib.asynccontextmanager
async def running(*peers: RoamingNode | RoamingSession) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(peer.run()) for peer in peers]
    try:
        yield
        for task in tasks:
            assert not task.done() or task.exception() is None, task.exception()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def all_ended(
    sessions: Sequence[RoamingSession], *, within_ms: int = 30_000, fair: bool = True
) -> None:
    """Wait for it; then nothing may be lost, doubled or failed."""
    await eventually(
        lambda: all(session.done.is_set() for session in sessions),
        within_ms=within_ms,
        what=f"all utterances to end; lost now: {[session.lost for session in sessions]}",
    )
    assert [session.lost for session in sessions] == [[] for _ in sessions]
    assert [session.doubled for session in sessions] == [[] for _ in sessions]
    if fair:
        assert sum((session.outcomes for session in sessions), Counter()).keys() == {"success"}


def node_urls(*instances: Instance) -> list[str]:
    return [instance.node_url for instance in instances]


def session_urls(*instances: Instance) -> list[str]:
    return [instance.session_url for instance in instances]


def under_way(nodes: Sequence[RoamingNode]) -> int:
    return sum(len(node.held) for node in nodes)


async def test_i1_an_instance_killed_with_sixty_tasks_in_flight_loses_and_doubles_none(
    cluster: Cluster,
) -> None:
    a, b, c = await cluster.start_instances("a", "b", "c")
    nodes = [
        RoamingNode(node_urls(*order), f"n{number}", "zh-en", slots=15, work_s=60)
        for number, order in enumerate(((a, b, c), (a, c, b), (b, c, a), (c, b, a)))
    ]
    sessions = [
        RoamingSession(session_urls(*order), "zh", "en", count=15)
        for order in ((a, b, c), (a, c, b), (b, c, a), (c, b, a))
    ]
    async with running(*nodes):
        await serves_all(a, b, c, nodes=4)
        async with running(*sessions):
            await eventually(lambda: under_way(nodes) == 60, what="60 tasks in flight")
            a.kill()
            killed_at = time.monotonic()

            def on_its_way() -> bool:
                ended = sum(len(session.terminals) for session in sessions)
                back = all(n.connected.is_set() and n.at != a.node_url for n in nodes)
                return back and ended + under_way(nodes) == 60

            await eventually(on_its_way, within_ms=TTL_MS * 3 // 2, what="all to run again")
            for node in nodes:
                node.released.set()
            await all_ended(sessions, within_ms=TTL_MS * 3)
            assert time.monotonic() - killed_at < TTL_MS * 3 / 1000


async def serves_all(*instances: Instance, nodes: int) -> None:
    await eventually(
        lambda: all(i.state().get("nodes", {}).get("ready") == nodes for i in instances),
        what=f"{nodes} nodes at all instances",
    )
    for instance in instances:
        await serves(instance, "zh-en")


async def test_i1_a_node_and_its_instance_killed_together_leave_their_work_to_another(
    cluster: Cluster,
) -> None:
    a, b = await cluster.start_instances("a", "b")
    session = RoamingSession(session_urls(b), "zh", "en", count=8)
    dying = Node(a.node_url, "dying", "zh-en", slots=8)
    await dying.open()
    await serves_all(b, nodes=1)
    async with running(session):
        await eventually(lambda: len(dying.jobs) == 8, what="the node to have all")
        heir = Node(b.node_url, "heir", "zh-en", slots=8, answer=translating("heir"))
        await heir.open()
        a.kill()
        dying.break_off()
        await all_ended([session], within_ms=TTL_MS * 3 // 2 + 2_000)
        assert {job["attempt_id"] for job in heir.jobs} == {2}


async def test_i1_a_session_and_its_instance_killed_together_still_get_their_results(
    cluster: Cluster,
) -> None:
    a, b = await cluster.start_instances("a", "b")
    node = RoamingNode(node_urls(b), "n1", "zh-en", slots=4, work_s=60)
    async with running(node):
        await serves_all(a, b, nodes=1)
        session = Session(a.session_url, "zh", "en")
        await session.open()
        for index in range(6):
            await session.say(index)
            await session.expect("utterance_ack", utterance_index=index)
        await eventually(lambda: len(node.held) == 4)
        a.kill()
        session.break_off()
        node.released.set()

        def ended() -> bool:
            return len(node.began) == 6 and not node.held

        # Two of them waited in a queue; their minder is dead.
        await eventually(ended, what="all to be worked on")
        resumed = await session.resume_at(b.session_url)
        for index in range(6):
            await resumed.translated(index)
        assert len(resumed.terminals) == 6
        await resumed.close()


async def test_i1_all_instances_killed_and_started_under_new_names_lose_nothing(
    cluster: Cluster,
) -> None:
    a, b = await cluster.start_instances("a", "b")
    nodes = [
        RoamingNode(node_urls(*order), f"n{number}", "zh-en", slots=4, work_s=60, names=False)
        for number, order in enumerate(((a, b), (b, a)))
    ]
    session = Session(a.session_url, "zh", "en")
    async with running(*nodes):
        await serves_all(a, b, nodes=2)
        await session.open()
        for index in range(12):
            await session.say(index)
            await session.expect("utterance_ack", utterance_index=index)
        await eventually(lambda: under_way(nodes) == 8)
    a.kill()
    b.kill()
    session.break_off()
    c, d = await cluster.start_instances("c", "d")
    # Nobody comes back: neither the session, nor one of the nodes.
    heir = Node(c.node_url, "n0", "zh-en", slots=12, answer=translating("n0"))
    await heir.open()
    await eventually(
        lambda: len(heir.jobs) >= 12, within_ms=TTL_MS * 3 // 2 + 5_000, what="all to be done"
    )
    resumed = await session.resume_at(d.session_url)
    for index in range(12):
        await resumed.translated(index)
    assert sorted(frame["seq"] for frame in resumed.terminals) == list(range(1, 13))
    assert len(heir.jobs) == 12
    await resumed.close()


async def test_i5_a_node_that_reconnects_elsewhere_with_its_jobs_keeps_them(
    cluster: Cluster,
) -> None:
    a, b = await cluster.start_instances("a", "b")
    node = RoamingNode(node_urls(a, b), "n1", "zh-en", work_s=60)
    session = RoamingSession(session_urls(b), "zh", "en", count=4)
    async with running(node):
        await serves_all(a, b, nodes=1)
        async with running(session):
            await eventually(lambda: len(node.held) == 4)
            node.break_off()
            await eventually(
                lambda: '"instance_id": "b"' in b.get("/api/v1/nodes/n1")[1], what="n1 at b"
            )
            node.released.set()
            await all_ended([session])
    # Its jobs waited for a slot as attempt 2, and nobody had one.
    assert [attempt for _, attempt, _ in node.began] == [1, 1, 1, 1]
    assert node.cancelled == []


async def test_a_lost_nodes_work_runs_elsewhere_at_once_and_it_is_told_so_at_its_return(
    cluster: Cluster,
) -> None:
    a, b = await cluster.start_instances("a", "b")
    first = Node(a.node_url, "n1", "zh-en")
    await first.open()
    await serves_all(a, b, nodes=1)
    async with Session(b.session_url, "zh", "en") as session:
        for index in range(4):
            await session.say(index)
            await first.expect("job_assign", utterance_index=index)
        second = Node(b.node_url, "n2", "zh-en")
        await second.open()
        await serves_all(a, nodes=2)
        first.break_off()
        for index in range(4):
            again = await second.expect("job_assign", utterance_index=index)
            assert again["attempt_id"] == 2
        names = [{"job_id": job["job_id"], "attempt_id": 1} for job in first.jobs]
        async with Node(b.node_url, "n1", "zh-en", running_jobs=names) as back:
            for job in first.jobs:
                await back.expect("job_cancel", job_id=job["job_id"])
            await back.finish(first.jobs[0], text_translated="late")
            for job in second.jobs:
                await second.finish(job)
            for index in range(4):
                assert (await session.translated(index))["text_translated"] == "translated"
            assert back.jobs == []


async def test_i1_a_half_open_nodes_work_is_tried_elsewhere(cluster: Cluster) -> None:
    a, b = await cluster.start_instances("a", "b")
    async with Node(a.node_url, "n1", "zh-en") as half_open:
        await serves_all(a, b, nodes=1)
        async with Session(b.session_url, "zh", "en") as session:
            await session.say(0)
            job = await half_open.expect("job_assign")
            half_open.silent = True
            async with Node(b.node_url, "n2", "zh-en", answer=translating("n2")) as other:
                await session.translated(0)
                assert other.jobs[0]["attempt_id"] == 2
                assert other.jobs[0]["job_id"] == job["job_id"]
                assert await half_open.closed() == 4408


@pytest.mark.slow
async def test_sigterm_under_load_loses_doubles_and_repeats_nothing(cluster: Cluster) -> None:
    a, b, c = await cluster.start_instances("a", "b", "c")
    nodes = [
        RoamingNode(node_urls(*order), f"n{number}", "zh-en", slots=5, work_s=60)
        for number, order in enumerate(((a, b, c), (a, c, b), (b, c, a)))
    ]
    sessions = [
        RoamingSession(session_urls(*order), "zh", "en", count=5)
        for order in ((a, b, c), (a, c, b), (b, c, a))
    ]
    async with running(*nodes):
        await serves_all(a, b, c, nodes=3)
        async with running(*sessions):
            await eventually(lambda: under_way(nodes) == 15)
            a.signal(signal.SIGTERM)
            assert await asyncio.to_thread(a.ended) == 0
            await eventually(lambda: all(node.connected.is_set() for node in nodes))
            sent_away = {job_id for node in nodes[:2] for job_id, _, _ in node.began}

            def all_looked_after() -> bool:
                lines = [line for i in (b, c) for line in i.log.splitlines() if LOOKED in line]
                return all(any(job_id in line for line in lines) for job_id in sent_away)

            await eventually(all_looked_after, what="a look at every job of a node sent away")
            for node in nodes:
                node.released.set()
            await all_ended(sessions)
    began = Counter(job_id for node in nodes for job_id, _, _ in node.began)
    assert set(began.values()) == {1}, "no job was begun twice"


async def test_i1_redis_killed_and_restarted_under_load_ends_each_utterance_once(
    cluster: Cluster,
) -> None:
    a, b = await cluster.start_instances("a", "b")
    nodes = [
        RoamingNode(node_urls(*order), f"n{number}", "zh-en", slots=4, work_s=0.3)
        for number, order in enumerate(((a, b), (b, a)))
    ]
    sessions = [
        RoamingSession(session_urls(*order), "zh", "en", count=20) for order in ((a, b), (b, a))
    ]
    async with running(*nodes):
        await serves_all(a, b, nodes=2)
        async with running(*sessions):
            await eventually(lambda: sum(len(s.terminals) for s in sessions) >= 5)
            cluster.server.stop(kill=True)
            await asyncio.to_thread(cluster.server.ensure)
            await all_ended(sessions, within_ms=60_000, fair=False)
