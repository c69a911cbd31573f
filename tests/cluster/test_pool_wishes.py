"""What operators wish of the pools travels through the leader to every instance."""

import asyncio

import pytest

from tests.support.agents import Node
from tests.support.cluster import Cluster, Instance
from tests.support.waiting import eventually


def pools(instance: Instance) -> dict[str, str]:
    return {pool["name"]: pool["kind"] for pool in instance.state().get("pools", [])}


async def do(cluster: Cluster, code: str) -> str:
    """Run some Python with the models at hand, as the admin would; returns what it printed."""
    code = f"from pools.models import *; {code}"
    done = await asyncio.to_thread(cluster.run, "shell", "-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
async def test_pinned_excluded_and_frozen_pools_are_published_by_the_leader(
    cluster: Cluster,
) -> None:
    assert cluster.run("migrate", "--verbosity", "0").returncode == 0
    a, b = await cluster.start_instances("a", "b")
    cluster.start_command("mirror", "run_pool_sync")
    async with Node(a.node_url, "n1", "zh-en", "ja-en"):
        await eventually(lambda: "ja-en" in pools(b), what="the pools that follow from the node")

        await do(
            cluster,
            "PoolWish.objects.create(src='fr', tgt='de', wish='pinned');"
            " PoolWish.objects.create(src='ja', tgt='en', wish='excluded')",
        )
        wished = {"*-en": "mixed", "zh-en": "exact", "fr-de": "pinned"}
        await eventually(lambda: pools(a) == pools(b) == wished, what="the wished pools")

        async def recorded() -> bool:
            found = "print(PoolVersion.objects.filter(summary__contains='fr-de').exists())"
            return "True" in await do(cluster, found)

        await eventually(recorded, what="the version in the history")
        await do(
            cluster,
            "PoolFreeze.objects.create(created_by='op', version=PoolVersion.objects.get("
            "version=PoolVersion.objects.get(summary__contains='fr-de').version))",
        )
        frozen_at = a.state()["pool_config"]["version"]
        async with Node(b.node_url, "n2", "ko-en"):
            await eventually(
                lambda: a.state()["nodes"]["total"] == 2, what="a node with a pair of its own"
            )
            await do(cluster, "PoolWish.objects.all().delete()")
            await do(cluster, "PoolFreeze.objects.all().delete()")
            thawed = {"*-en": "mixed", "zh-en": "exact", "ja-en": "exact", "ko-en": "exact"}
            await eventually(lambda: pools(a) == pools(b) == thawed, what="the nodes' own pools")
        assert a.state()["pool_config"]["version"] > frozen_at
