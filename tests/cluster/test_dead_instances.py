"""What an instance minded when it died is minded by someone else."""

from tests.support.agents import Node, Session
from tests.support.cluster import Cluster
from tests.support.waiting import eventually


async def test_i1_a_job_ends_although_its_sessions_instance_died_and_the_client_is_late(
    cluster: Cluster,
) -> None:
    quick = {"SCHED_JOB_TIMEOUT_MS": "1500", "SCHED_JOB_MAX_ATTEMPTS": "1"}
    cluster.settings |= quick
    a, b = await cluster.start_instances("a", "b")
    cluster.start_leader("leader")
    async with Node(b.node_url, "n1", "zh-en", slots=1) as mute:
        await eventually(
            lambda: any(p["name"] == "zh-en" and p["nodes"] for p in a.state()["pools"]),
            what="the pool",
        )
        session = Session(a.session_url, "zh", "en")
        await session.open()
        await session.say(0)
        await session.expect("utterance_ack")
        await mute.expect("job_assign")
        a.kill()
        # Nobody resumes it meanwhile: it ends because its deadline is minded by another process.
        await mute.expect("job_cancel")
        resumed = await session.resume_at(b.session_url)
        terminal = await resumed.terminal(0)
        assert terminal["code"] == "JOB_TIMEOUT"
        assert terminal["seq"] == 1
        await resumed.close()
        peers = {peer["id"] for peer in b.state()["instances"]}
        assert "a" not in peers
