"""The four multi-instance scenarios of the design document, section 6.3, over real processes."""

from tests.support.agents import Node
from tests.support.cluster import Cluster, Instance
from tests.support.waiting import eventually

ALL = ("a", "b", "c")


def agree(instances: list[Instance], *, nodes: int) -> bool:
    """Whether all see so many nodes, the same pools and the same members."""
    states = [instance.state() for instance in instances]
    if not all(states) or any(state["nodes"]["total"] != nodes for state in states):
        return False
    digests = {(s["pool_config"]["digest"], s["pool_index_digest"]) for s in states}
    return len(digests) == 1


def pools(instance: Instance) -> dict[str, int]:
    return {pool["name"]: pool["nodes"] for pool in instance.state().get("pools", [])}


async def test_a_node_registered_at_one_instance_is_known_at_all(cluster: Cluster) -> None:
    instances = await cluster.start_instances(*ALL)
    async with Node(instances[0].node_url, "n1", "zh-en", "ja-en"):
        await eventually(
            lambda: agree(instances, nodes=1) and len(pools(instances[2])) == 3,
            what="all instances to know the node",
        )
        for instance in instances:
            assert pools(instance) == {"zh-en": 1, "ja-en": 1, "*-en": 1}
            assert '"instance_id": "a"' in instance.get("/api/v1/nodes/n1")[1]
    await eventually(lambda: agree(instances, nodes=0), what="all instances to forget the node")


async def test_pools_generated_once_are_the_same_everywhere(cluster: Cluster) -> None:
    instances = await cluster.start_instances(*ALL)
    async with (
        Node(instances[0].node_url, "n1", "zh-en"),
        Node(instances[1].node_url, "n2", "zh-en", "en-zh"),
    ):
        wanted = {"zh-en": 2, "en-zh": 1, "*-en": 2, "*-zh": 1}
        await eventually(
            lambda: all(pools(instance) == wanted for instance in instances),
            what="the pools at all instances",
        )
        assert agree(instances, nodes=2)
        configs = [instance.state()["pool_config"] for instance in instances]
        assert configs[0] == configs[1] == configs[2]
        leader = instances[0].state()["leader"]
        assert configs[0]["generated_by"] == leader["instance_id"]
        assert configs[0]["epoch"] == leader["epoch"]


async def test_when_the_leader_is_killed_another_one_leads_and_publishes(
    cluster: Cluster,
) -> None:
    instances = await cluster.start_instances(*ALL, SCHED_LEADER_CANDIDATE="false")
    first = cluster.start_leader("leader-1")
    await eventually(
        lambda: (instances[0].state().get("leader") or {}).get("instance_id") == "leader-1",
        what="the first leader",
    )
    cluster.start_leader("leader-2")
    async with Node(instances[0].node_url, "n1", "zh-en"):
        await eventually(lambda: "zh-en" in pools(instances[2]), what="pools of the first leader")
        before = instances[0].state()
        first.kill()
        await eventually(
            lambda: all(i.state()["pool_config"]["generated_by"] == "leader-2" for i in instances),
            what="the second leader's configuration at all instances",
        )
        after = instances[0].state()
        assert after["leader"]["epoch"] > before["leader"]["epoch"]
        assert after["pool_config"]["epoch"] == after["leader"]["epoch"]
        assert after["pool_config"]["version"] >= before["pool_config"]["version"]
        assert after["pools"] == before["pools"], "a pool keeps its id for as long as it exists"
        async with Node(instances[1].node_url, "n2", "de-en"):
            await eventually(
                lambda: all("de-en" in pools(instance) for instance in instances),
                what="a pool that only the second leader can have made",
            )


async def test_a_leader_that_stops_in_order_is_followed_at_once(cluster: Cluster) -> None:
    # A lease far longer than the test: only the release can bring the successor.
    lease = {"SCHED_LEADER_TTL_MS": "120000", "SCHED_LEADER_RENEW_MS": "5000"}
    (instance,) = await cluster.start_instances("a", SCHED_LEADER_CANDIDATE="false", **lease)
    first = cluster.start_leader("leader-1", **lease)
    await eventually(
        lambda: (instance.state().get("leader") or {}).get("instance_id") == "leader-1",
        what="the first leader",
    )
    second = cluster.start_leader("leader-2", **lease)
    await eventually(lambda: "event=started" in second.log, what="the standby")
    assert first.stop() == 0
    await eventually(
        lambda: (instance.state().get("leader") or {}).get("instance_id") == "leader-2",
        what="the second leader",
    )


async def test_a_changed_configuration_reaches_every_instance(cluster: Cluster) -> None:
    instances = await cluster.start_instances(*ALL)
    async with Node(instances[0].node_url, "n1", "zh-en") as node:
        await eventually(lambda: agree(instances, nodes=1) and "zh-en" in pools(instances[1]))
        before = instances[1].state()["pool_config"]["version"]
        await node.beat("zh-en", "fr-en")
        await eventually(
            lambda: all("fr-en" in pools(instance) for instance in instances),
            what="the new pool at all instances",
        )
        await eventually(lambda: agree(instances, nodes=1), what="the same index everywhere")
        versions = {instance.state()["pool_config"]["version"] for instance in instances}
        assert versions == {before + 1}
        await node.beat("zh-en")
        await eventually(
            lambda: all("fr-en" not in pools(instance) for instance in instances),
            what="the empty pool to be retired by the sweep",
        )
        await eventually(lambda: agree(instances, nodes=1), what="the same index everywhere")


async def test_instances_alone_make_a_working_cluster(cluster: Cluster) -> None:
    (a, b) = await cluster.start_instances("a", "b")
    await eventually(lambda: a.state().get("leader") is not None, what="a leader")
    assert a.state()["leader"]["instance_id"] in ("a", "b")
    names = {peer["id"] for peer in b.state()["instances"]}
    assert names == {"a", "b"}
