"""Instances over a Redis Cluster: slots move and masters die while tasks flow."""

import asyncio
import signal
from collections.abc import Callable

import pytest

from registry.store.keys import Keys
from tests.redis_forms.traffic import took, traffic
from tests.support.cluster import Cluster
from tests.support.redis_servers import ShardedRedis
from tests.support.waiting import eventually

Over = Callable[[dict[str, str]], Cluster]
KEYS = Keys("lingua")


async def test_tasks_flow_while_the_slots_of_everything_they_use_move(
    sharded: ShardedRedis, over: Over
) -> None:
    async with traffic(over(sharded.env)) as flow:
        for key in (
            KEYS.session_meta(flow.session.session_id),
            KEYS.node_slots("n1"),
            KEYS.instance_inbox("a"),
            KEYS.instance_inbox("b"),
            KEYS.nodes,
            KEYS.instances,
            KEYS.leader,
            KEYS.queue_index,
        ):
            before = sharded.master_of(key)
            await asyncio.to_thread(sharded.move_slot, key, pause_s=0.005)
            assert sharded.master_of(key) is not before
            await flow.flows(10, within_s=10)
        assert flow.refusals().total() == 0


@pytest.mark.parametrize("number", range(3))
async def test_tasks_flow_again_when_the_replica_of_a_killed_master_has_taken_over(
    sharded: ShardedRedis, over: Over, number: int
) -> None:
    async with traffic(over(sharded.env)) as flow:
        master = sharded.masters[number]
        master.kill()
        took(f"cluster, master {number} killed", await flow.flows())
        master.start()
        await asyncio.to_thread(sharded.healthy)
        assert not master.is_master


async def test_an_operator_may_have_a_replica_take_over(sharded: ShardedRedis, over: Over) -> None:
    async with traffic(over(sharded.env)) as flow:
        key = KEYS.session_meta(flow.session.session_id)
        master = sharded.master_of(key)
        replica = next(s for s in sharded.servers if s.follows(master))
        replica.ask("CLUSTER", "FAILOVER")
        await eventually(lambda: sharded.master_of(key) is replica, what="the replica to be master")
        await flow.flows(within_s=10)


async def test_a_master_that_hangs_is_replaced_and_comes_back_as_a_replica(
    sharded: ShardedRedis, over: Over
) -> None:
    async with traffic(over(sharded.env)) as flow:
        master = sharded.masters[0]
        master.signal(signal.SIGSTOP)
        took("cluster, master stopped", await flow.flows())
        master.signal(signal.SIGCONT)
        await asyncio.to_thread(sharded.healthy)
        await eventually(lambda: not master.is_master, what="the old master to follow")
        await flow.flows(within_s=10)


async def test_one_address_of_the_cluster_is_enough(sharded: ShardedRedis, over: Over) -> None:
    env = sharded.env | {"SCHED_REDIS_CLUSTER_URLS": sharded.urls[2]}
    async with traffic(over(env)) as flow:
        assert flow.succeeded() > 0
