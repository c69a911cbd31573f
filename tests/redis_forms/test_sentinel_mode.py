"""Instances over a Sentinel service: the master dies, hangs or is replaced while tasks flow."""

import signal
from collections.abc import Callable

from tests.redis_forms.traffic import took, traffic
from tests.support.cluster import Cluster
from tests.support.redis_servers import WatchedRedis
from tests.support.waiting import eventually

Over = Callable[[dict[str, str]], Cluster]


async def test_tasks_flow_again_when_a_killed_master_has_a_successor(
    watched: WatchedRedis, over: Over
) -> None:
    async with traffic(over(watched.env)) as flow:
        master = watched.master
        master.kill()
        took("sentinel, master killed", await flow.flows())
        assert watched.master is not master
        master.start()
        await eventually(
            lambda: not master.is_master, within_ms=30_000, what="the old master to follow"
        )
        await flow.flows(within_s=10)


async def test_an_operator_may_have_the_master_replaced(watched: WatchedRedis, over: Over) -> None:
    async with traffic(over(watched.env)) as flow:
        master = watched.master
        watched.fail_over()
        await eventually(lambda: watched.master is not master, what="another master")
        await eventually(
            lambda: not master.is_master, within_ms=30_000, what="the old master to follow"
        )
        await flow.flows()


async def test_a_master_that_hangs_is_replaced_and_comes_back_as_a_replica(
    watched: WatchedRedis, over: Over
) -> None:
    async with traffic(over(watched.env)) as flow:
        master = watched.master
        master.signal(signal.SIGSTOP)
        await eventually(lambda: watched.master is not master, what="another master")
        took("sentinel, master stopped", await flow.flows())
        master.signal(signal.SIGCONT)
        await eventually(
            lambda: not master.is_master, within_ms=30_000, what="the old master to follow"
        )
        await flow.flows()


async def test_a_sentinel_that_is_away_is_not_missed(watched: WatchedRedis, over: Over) -> None:
    watched.sentinels[0].kill()
    async with traffic(over(watched.env)) as flow:
        assert flow.succeeded() > 0
