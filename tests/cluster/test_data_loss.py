"""The server comes back without its data: clients and nodes stay, and everything goes on."""

import shutil

from tests.support.agents import Node, Session
from tests.support.cluster import Cluster
from tests.support.waiting import eventually


async def test_i3_and_i6_after_the_loss_of_all_data_everything_converges_by_itself(
    cluster: Cluster,
) -> None:
    cluster.settings["SCHED_JOB_TIMEOUT_MS"] = "2000"
    a, b = await cluster.start_instances("a", "b")
    async with (
        Node(b.node_url, "n1", "zh-en") as node,
        Session(a.session_url, "zh", "en") as session,
    ):
        await eventually(
            lambda: any(p["name"] == "zh-en" and p["nodes"] for p in a.state()["pools"]),
            what="the pool",
        )
        await session.say(0)
        await node.finish(await node.expect("job_assign", utterance_index=0))
        await session.terminal(0)
        await session.say(1)
        await session.expect("utterance_ack", utterance_index=1)
        before = a.state()["pool_config"]

        cluster.server.stop(kill=True)
        shutil.rmtree(cluster.folder / "valkey" / "appendonlydir")
        cluster.start_server()

        for instance in (a, b):
            await instance.ready()
        await eventually(
            lambda: all(
                (i.state()["pool_config"]["epoch"], i.state()["nodes"]["total"])
                > (before["epoch"], 0)
                for i in (a, b)
            ),
            what="a configuration under a higher epoch at both instances",
        )
        assert a.state()["pool_config"]["version"] >= before["version"]
        assert {pool["name"] for pool in b.state()["pools"]} == {"zh-en", "*-en"}

        lost = await session.terminal(1)
        assert (lost["type"], lost["code"], lost["seq"]) == ("error", "INTERNAL_ERROR", 2)
        await session.say(2)
        await session.expect("utterance_ack", utterance_index=2)
        await node.finish(await node.expect("job_assign", utterance_index=2))
        assert (await session.terminal(2))["seq"] == 3
        again = await session.resume_at(b.session_url, last_seq=2)
        assert (await again.terminal(2))["seq"] == 3
        await again.close()
        assert node.close_code is None
