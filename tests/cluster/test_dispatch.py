"""A task goes in at one instance and comes back from a node on another, over real processes."""

import json
import signal

from tests.support.agents import Node, Session, translating
from tests.support.cluster import Cluster, Instance
from tests.support.waiting import eventually


async def serves(instance: Instance, *pools: str) -> None:
    """Wait until an instance has members in these pools."""

    def ready() -> bool:
        members = {pool["name"]: pool["nodes"] for pool in instance.state().get("pools", [])}
        return all(members.get(pool) for pool in pools)

    await eventually(ready, what=f"{pools} at {instance.name}")


async def test_a_task_crosses_instances_and_its_result_comes_back(cluster: Cluster) -> None:
    a, b = await cluster.start_instances("a", "b")
    async with Node(b.node_url, "n1", "zh-en", answer=translating("n1")) as node:
        await serves(a, "zh-en")
        async with Session(a.session_url, "zh", "en") as session:
            for index in range(20):
                await session.say(index, audio=f"audio{index}", carried={"kept": index})
            for index in range(20):
                ack = await session.expect("utterance_ack", utterance_index=index)
                assert ack["status"] == "accepted" or ack["status"] == "queued"
                terminal = await session.translated(index)
                assert terminal["tts_audio"] == f"audio{index}"
                assert terminal["job_id"] == ack["job_id"]
            assert [frame["seq"] for frame in session.terminals] == list(range(1, 21))
        job = node.jobs[0]
        assert job["carried"] == {"kept": 0}
        assert job["attempt_id"] == 1
        assert job["pipeline"] == {"use_asr": True, "use_nmt": True, "use_tts": True}


async def test_an_utterance_in_an_unknown_language_goes_to_the_mixed_pool(
    cluster: Cluster,
) -> None:
    a, b = await cluster.start_instances("a", "b")
    async with (
        Node(b.node_url, "n1", "zh-en", answer=translating("n1")),
        Node(b.node_url, "n2", "en-zh", answer=translating("n2")) as other,
        Session(a.session_url, "auto", "en") as session,
    ):
        await serves(a, "*-en", "*-zh")
        for index in range(8):
            await session.say(index)
            await session.translated(index)
        assert other.jobs == []


async def test_no_node_for_the_pair_is_said_at_once(cluster: Cluster) -> None:
    (a,) = await cluster.start_instances("a")
    async with Node(a.node_url, "n1", "zh-en"), Session(a.session_url, "fr", "de") as session:
        await serves(a, "zh-en")
        await session.say(0)
        refusal = await session.expect("error")
        assert refusal["code"] == "NO_AVAILABLE_NODE"
        assert refusal["utterance_index"] == 0


async def test_an_utterance_sent_twice_is_one_task(cluster: Cluster) -> None:
    a, b = await cluster.start_instances("a", "b")
    async with (
        Node(b.node_url, "n1", "zh-en") as node,
        Session(a.session_url, "zh", "en") as session,
    ):
        await serves(a, "zh-en")
        await session.say(7)
        await session.say(7)
        await session.expect("utterance_ack", status="accepted")
        await session.expect("utterance_ack", status="duplicate")
        job = await node.expect("job_assign")
        await node.finish(job)
        await node.finish(job)
        await session.terminal(7)
        await session.say(7)
        await session.expect("utterance_ack", status="duplicate", nth=2)
        await session.say(8)
        await node.finish(await node.expect("job_assign", utterance_index=8))
        await session.terminal(8)
        assert len(session.terminals) == 2
        assert len(node.jobs) == 2


async def test_i2_a_node_never_holds_more_than_its_slots(cluster: Cluster) -> None:
    a, b = await cluster.start_instances("a", "b")
    async with (
        Node(a.node_url, "n1", "zh-en", slots=2) as node,
        Session(a.session_url, "zh", "en") as near,
        Session(b.session_url, "zh", "en") as far,
    ):
        await serves(a, "zh-en")
        await serves(b, "zh-en")
        for session in (near, far):
            for index in range(4):
                await session.say(index)
            for index in range(4):
                await session.expect("utterance_ack", utterance_index=index)
        unfinished: list[str] = []
        for number in range(1, 9):
            job = await node.expect("job_assign", nth=number)
            unfinished.append(job["job_id"])
            assert len(unfinished) <= 2
            if len(unfinished) == 2 or number == 8:
                held = {frame["job_id"]: frame for frame in node.jobs}
                await node.finish(held[unfinished.pop(0)])
        await node.finish(node.jobs[-1])
        for session in (near, far):
            for index in range(4):
                await session.translated(index)


async def test_a_session_resumes_at_another_instance_and_misses_nothing(
    cluster: Cluster,
) -> None:
    a, b = await cluster.start_instances("a", "b")
    async with Node(a.node_url, "n1", "zh-en") as node:
        await serves(b, "zh-en")
        session = Session(a.session_url, "zh", "en")
        await session.open()
        for index in range(3):
            await session.say(index)
            await session.expect("utterance_ack", utterance_index=index)
        await node.finish(await node.expect("job_assign", utterance_index=0))
        await session.terminal(0)
        session.break_off()
        await node.finish(await node.expect("job_assign", utterance_index=1))
        resumed = await session.resume_at(b.session_url)
        assert (await resumed.expect("session_init_ack"))["resumed"] is True
        assert (await resumed.terminal(1))["seq"] == 2
        await node.finish(await node.expect("job_assign", utterance_index=2))
        assert (await resumed.terminal(2))["seq"] == 3
        again = await resumed.resume_at(a.session_url, last_seq=0)
        await again.terminal(2)
        assert [frame["seq"] for frame in again.terminals] == [1, 2, 3]
        assert await resumed.closed() == 4409
        await again.close()


async def test_when_a_node_is_lost_its_job_is_tried_on_another(cluster: Cluster) -> None:
    a, b = await cluster.start_instances("a", "b")
    async with Session(a.session_url, "zh", "en") as session:
        first = Node(b.node_url, "n1", "zh-en")
        await first.open()
        await serves(a, "zh-en")
        await session.say(0)
        job = await first.expect("job_assign")
        async with Node(a.node_url, "n2", "zh-en", answer=translating("n2")) as second:
            await serves(b, "zh-en")
            first.break_off()
            await session.translated(0)
            assert second.jobs[0]["job_id"] == job["job_id"]
            assert second.jobs[0]["attempt_id"] == 2


async def test_an_instance_that_is_killed_takes_no_task_with_it(cluster: Cluster) -> None:
    a, b, c = await cluster.start_instances("a", "b", "c", SCHED_JOB_TIMEOUT_MS="3000")
    async with Session(a.session_url, "zh", "en") as session:
        lost = Node(c.node_url, "n1", "zh-en")
        await lost.open()
        await serves(a, "zh-en")
        for index in range(4):
            await session.say(index)
            await lost.expect("job_assign", utterance_index=index)
        c.kill()
        async with Node(b.node_url, "n2", "zh-en", answer=translating("n2")):
            for index in range(4):
                await session.translated(index)
            assert [frame["seq"] for frame in session.terminals] == [1, 2, 3, 4]


async def test_sigterm_closes_sockets_with_1012_and_hands_work_over(cluster: Cluster) -> None:
    a, b = await cluster.start_instances("a", "b")
    leaving = Node(b.node_url, "n1", "zh-en")
    await leaving.open()
    async with (
        Session(a.session_url, "zh", "en") as session,
        Session(b.session_url, "zh", "en") as moving,
    ):
        await serves(a, "zh-en")
        await session.say(0)
        await leaving.expect("job_assign")
        async with Node(a.node_url, "n2", "zh-en", answer=translating("n2")):
            await eventually(lambda: b.state()["nodes"]["total"] == 2)
            b.signal(signal.SIGTERM)
            assert await leaving.closed() == 1012
            assert await moving.closed() == 1012
            await session.translated(0)
            assert b.ended() == 0
            peers = {peer["id"] for peer in a.state()["instances"]}
            assert peers == {"a"}


async def test_only_a_node_with_the_labels_gets_the_task_also_after_it_waited(
    cluster: Cluster,
) -> None:
    a, b = await cluster.start_instances("a", "b")
    async with (
        Node(a.node_url, "plain", "zh-en", answer=translating("plain")),
        Node(b.node_url, "eu", "zh-en", slots=1, labels={"region": "eu"}) as node,
        Session(a.session_url, "zh", "en", features={"node_labels": {"region": "eu"}}) as session,
    ):
        await eventually(lambda: len(json.loads(a.get("/api/v1/nodes")[1])["nodes"]) == 2)
        await serves(a, "zh-en")
        await session.say(0)
        first = await node.expect("job_assign", utterance_index=0)
        await session.say(1)
        waited = await session.expect("utterance_ack", utterance_index=1)
        assert waited["status"] == "queued"
        await session.say(2, node_labels={})
        await session.translated(2)
        await node.finish(first)
        await node.finish(await node.expect("job_assign", utterance_index=1))
        await session.translated(1)
        await session.say(3, node_labels={"region": "mars"})
        refusal = await session.expect("error", utterance_index=3)
        assert refusal["code"] == "NO_AVAILABLE_NODE"
        assert "region=mars" in refusal["message"]
        decided = json.loads(a.get(f"/api/v1/jobs/{first['job_id']}")[1])["decisions"]
        assert [(each["node"], each["waited"]) for each in decided] == [("eu", False)]
        decided = json.loads(a.get(f"/api/v1/jobs/{waited['job_id']}")[1])["decisions"]
        assert [(each["node"], each["waited"]) for each in decided] == [("eu", True)]
