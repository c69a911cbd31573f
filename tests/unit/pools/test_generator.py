"""The generator of one or two processes, over memory stores in virtual time."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from structlog.testing import capture_logs

from pools.domain.generation import PoolRules
from pools.domain.index import PoolIndex
from pools.domain.news import Publication
from pools.domain.snapshot import PoolConfig
from pools.services.generator import Generator
from pools.services.sync import PoolSync
from pools.store.memory import MemoryCatalogStore
from registry.domain.capability import (
    LanguageCapabilities,
    LanguagePair,
    ServiceCapability,
    ServiceType,
)
from registry.domain.errors import StoreUnavailable
from registry.domain.lease import LeaseTiming
from registry.domain.node import Liveness, NodeSnapshot, NodeStatus
from registry.services.election import Election
from registry.services.loops import Loops
from registry.services.membership import Membership
from registry.services.views import NodeViews
from registry.store.memory import MemoryLeaseStore, MemoryNodeStore, MemoryServer
from tests.support.manual_time import in_virtual_time, now_ms, pass_ms, settled

TIMING = LeaseTiming(ttl_ms=60_000, renew_ms=10_000)
LIVENESS = Liveness(
    heartbeat_ms=1_000, presence_ttl_ms=3_000, owner_ttl_ms=9_000, snapshot_sync_ms=500
)
RULES = PoolRules(enable_mixed_pools=False, require_semantic=False)
CLEANUP_MS = 10_000
REFRESH_MS = 20_000
CONFIG_TTL_MS = 60_000
SERVICES = (ServiceType.ASR, ServiceType.NMT, ServiceType.TTS)


def node(node_id: str, *pairs: str, revision: int = 0) -> NodeSnapshot:
    listed = tuple(LanguagePair(*pair.split("-")) for pair in pairs)
    return NodeSnapshot(
        node_id=node_id,
        instance_id="one",
        connection_epoch=1,
        revision=revision,
        status=NodeStatus.READY,
        max_concurrent_jobs=1,
        accept_public_jobs=True,
        capability_by_type=tuple(ServiceCapability(each, ready=True) for each in SERVICES),
        language_capabilities=LanguageCapabilities(supported_language_pairs=listed),
        registered_at_ms=0,
    )


class Catalog:
    """A process's way to the catalog: it can lose requests and replies, and notes publishes."""

    def __init__(self, inner: MemoryCatalogStore) -> None:
        self._inner = inner
        self.away = False
        self.loses_replies = False
        self.reply_ms = 0
        self.tried: list[PoolConfig] = []

    async def publish(self, config: PoolConfig, *, candidate: str) -> Publication:
        self.tried.append(config)
        if self.away:
            raise StoreUnavailable("the test took the catalog away")
        outcome = await self._inner.publish(config, candidate=candidate)
        if self.loses_replies:
            raise StoreUnavailable("the test lost the reply")
        await asyncio.sleep(self.reply_ms / 1000)
        return outcome

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        operation = getattr(self._inner, verb)

        async def call(*args: Any, **kwargs: Any) -> Any:
            if self.away:
                raise StoreUnavailable("the test took the catalog away")
            return await operation(*args, **kwargs)

        return call


class Process:
    """One candidate with all that a generator stands on."""

    def __init__(
        self, server: MemoryServer, name: str = "one", *, cleanup_ms: int = CLEANUP_MS
    ) -> None:
        self.server, self.name = server, name
        self.views = NodeViews()
        self.catalog = Catalog(MemoryCatalogStore(server, config_ttl_ms=CONFIG_TTL_MS))
        self.index = PoolIndex(RULES)
        self.sync = PoolSync(self.catalog, self.index, self.views, clock=now_ms)  # type: ignore[arg-type]
        self.leases = MemoryLeaseStore(server, ttl_ms=TIMING.ttl_ms)
        self.election = Election(
            self.leases,
            candidate=name,
            timing=TIMING,
            clock=now_ms,
            random=Random(0),
            seen_epoch=lambda: self.sync.config.epoch,
        )
        nodes = MemoryNodeStore(server, instance_id=name, owner_ttl_ms=9_000, presence_ttl_ms=3_000)
        self.membership = Membership(
            nodes, self.views, instance_id=name, liveness=LIVENESS, clock=now_ms
        )
        self.generator = Generator(
            self.catalog,  # type: ignore[arg-type]
            self.sync,
            self.membership,
            self.election,
            candidate=name,
            rules=RULES,
            cleanup_ms=cleanup_ms,
            refresh_ms=REFRESH_MS,
            clock=now_ms,
            wall_clock=now_ms,
        )

    async def lead(self, *nodes: NodeSnapshot) -> "Process":
        """Win the election, having seen these nodes."""
        await self.membership.sync()
        for each in nodes:
            self.views.put(each)
        await self.election.step()
        assert self.election.leading() is not None
        return self

    async def keep_leading(self, ms: int, *, every_ms: int = 1_000) -> None:
        """Let time pass with a renewal and a turn each second, as the loops do it."""
        until_ms = now_ms() + ms
        while now_ms() < until_ms:
            await asyncio.sleep(min(every_ms, until_ms - now_ms()) / 1000)
            await self.election.step()
            await self.generator.turn()

    @property
    def published(self) -> list[tuple[int, int]]:
        """(epoch, version) of all that this process tried to publish."""
        return [config.order for config in self.catalog.tried]

    def pools(self) -> list[str]:
        return [pool.name for pool in self.sync.config.pools]


async def a_leader(*nodes: NodeSnapshot) -> Process:
    """A process that leads and has published the pools of these nodes."""
    process = Process(MemoryServer(clock=now_ms))
    await process.lead(*nodes)
    await process.generator.turn()
    return process


class TestPublishing:
    @in_virtual_time
    async def test_a_leader_publishes_the_pools_of_its_nodes(self) -> None:
        one = await a_leader(node("n", "de-en", "en-de"))
        current = await one.catalog.current()
        assert current == one.sync.config
        assert (current.order, current.generated_by) == ((1, 1), "one")
        assert [pool.name for pool in current.pools] == ["de-en", "en-de"]

    @in_virtual_time
    async def test_who_does_not_lead_does_nothing(self) -> None:
        one = Process(MemoryServer(clock=now_ms))
        await one.membership.sync()
        one.views.put(node("n", "de-en"))
        await one.generator.turn()
        assert one.published == []

    @in_virtual_time
    async def test_a_leader_that_has_not_seen_all_nodes_yet_waits(self) -> None:
        one = Process(MemoryServer(clock=now_ms))
        await one.election.step()
        await one.generator.turn()
        assert one.published == []
        await one.membership.sync()
        await one.generator.turn()
        assert one.published == [(1, 0)]

    @in_virtual_time
    async def test_the_same_answer_publishes_nothing(self) -> None:
        one = await a_leader(node("n", "de-en"))
        one.views.put(node("m", "de-en"))
        one.views.put(node("n", "de-en", revision=1))
        await one.keep_leading(3 * CLEANUP_MS)
        assert one.published == [(1, 1)]

    @in_virtual_time
    async def test_a_new_pool_is_published_at_the_next_turn(self) -> None:
        one = await a_leader(node("n", "de-en"))
        one.views.put(node("m", "fr-en"))
        await one.generator.turn()
        assert (one.sync.config.order, one.pools()) == ((1, 2), ["de-en", "fr-en"])

    @in_virtual_time
    async def test_changes_wake_the_generator(self) -> None:
        one = await a_leader(node("n", "de-en"))
        woken: list[str] = []
        one.generator.wake = lambda: woken.append("")
        one.views.put(node("n", "de-en", revision=1))
        assert woken == []
        one.views.put(node("m", "fr-en"))
        one.views.remove("m", epoch=1)
        assert len(woken) == 2

    @in_virtual_time
    async def test_a_pool_keeps_its_id_and_a_new_one_takes_the_next(self) -> None:
        one = await a_leader(node("n", "fr-en"))
        one.views.put(node("m", "de-en"))
        await one.generator.turn()
        assert {pool.name: pool.id for pool in one.sync.config.pools} == {"fr-en": 1, "de-en": 2}

    @in_virtual_time
    async def test_an_operators_wish_is_looked_at_without_a_change_of_nodes(self) -> None:
        one = await a_leader(node("n", "de-en"))
        await one.sync.follow()
        await one.catalog.ask("regenerate", by="an operator")
        await one.sync.follow()
        await one.generator.turn()
        assert one.published == [(1, 1)]


class TestRetiring:
    @in_virtual_time
    async def test_an_emptied_pool_is_retired_only_by_the_sweep(self) -> None:
        one = await a_leader(node("n", "de-en"), node("m", "fr-en"))
        one.views.remove("m", epoch=1)
        await one.generator.turn()
        await one.keep_leading(CLEANUP_MS - 1)
        assert (one.published, one.pools()) == ([(1, 1)], ["de-en", "fr-en"])
        await one.keep_leading(CLEANUP_MS)
        assert (one.published, one.pools()) == ([(1, 1), (1, 2)], ["de-en"])

    @in_virtual_time
    async def test_a_node_that_comes_and_goes_changes_nothing(self) -> None:
        one = await a_leader(node("n", "de-en"), node("m", "fr-en"))
        for revision in range(1, 20):
            one.views.remove("m", epoch=1)
            await one.keep_leading(CLEANUP_MS // 2)
            one.views.put(node("m", "fr-en", revision=revision))
            await one.keep_leading(CLEANUP_MS // 2)
        assert one.published == [(1, 1)]

    @in_virtual_time
    async def test_a_retired_pool_that_returns_gets_a_new_id(self) -> None:
        one = await a_leader(node("n", "de-en"), node("m", "fr-en"))
        one.views.remove("m", epoch=1)
        await one.generator.turn()
        await one.keep_leading(2 * CLEANUP_MS)
        one.views.put(node("m", "fr-en", revision=1))
        await one.generator.turn()
        assert {pool.name: pool.id for pool in one.sync.config.pools} == {"de-en": 1, "fr-en": 3}

    @in_virtual_time
    async def test_a_sweep_whose_publish_did_not_get_through_is_made_good(self) -> None:
        one = await a_leader(node("n", "de-en"), node("m", "fr-en"))
        one.views.remove("m", epoch=1)
        await one.generator.turn()
        one.catalog.away = True
        for _ in range(2 * CLEANUP_MS // 1_000):
            await pass_ms(1_000)
            with suppress(StoreUnavailable):
                await one.generator.turn()
        one.catalog.away = False
        await one.keep_leading(CLEANUP_MS)
        assert one.pools() == ["de-en"]


class TestNewLeader:
    @in_virtual_time
    async def test_i3_a_new_leader_republishes_under_its_epoch_and_the_version_stays(self) -> None:
        one = await a_leader(node("n", "de-en"))
        await one.election.step_down(pause_ms=TIMING.ttl_ms)
        two = Process(one.server, "two")
        await two.lead(node("n", "de-en"))
        await two.generator.turn()
        assert two.published == [(2, 1)]
        await one.sync.poll()
        assert one.sync.config.order == (2, 1)
        assert one.sync.config.pools == two.sync.config.pools

    @in_virtual_time
    async def test_a_new_leader_keeps_pools_whose_nodes_it_has_not_seen(self) -> None:
        one = await a_leader(node("n", "de-en"), node("m", "fr-en"))
        await one.election.step_down(pause_ms=TIMING.ttl_ms)
        two = Process(one.server, "two")
        await two.lead(node("n", "de-en"))
        await two.generator.turn()
        assert (two.published, two.pools()) == ([(2, 1)], ["de-en", "fr-en"])

    @in_virtual_time
    async def test_i3_a_publish_of_who_was_overtaken_is_refused_and_wakes_its_election(
        self,
    ) -> None:
        one = await a_leader(node("n", "de-en"))
        running = asyncio.create_task(one.election.run())
        await settled()
        one.server.lose_everything()
        two = Process(one.server, "two")
        await two.leases.acquire("two", floor=1)
        one.views.put(node("m", "fr-en"))
        with capture_logs() as logs:
            await one.generator.turn()
            assert await one.catalog.current() is None
            await settled()
        assert one.election.leading() is None
        assert [entry["event"] for entry in logs] == ["publish refused", "leader demoted"]
        running.cancel()

    @in_virtual_time
    async def test_i3_what_was_refused_is_not_in_force_here_either(self) -> None:
        one = await a_leader(node("n", "de-en"))
        one.server.lose_everything()
        one.views.put(node("m", "fr-en"))
        await one.generator.turn()
        assert (one.sync.config.order, one.pools()) == ((1, 1), ["de-en"])

    @in_virtual_time
    async def test_i3_who_is_behind_takes_a_higher_version(self) -> None:
        one = await a_leader(node("n", "de-en"))
        for number, pair in enumerate(("fr-en", "it-en", "es-en")):
            one.views.put(node(f"m{number}", pair))
            await one.generator.turn()
        assert one.sync.config.version == 4
        await pass_ms(CONFIG_TTL_MS)  # the configuration expired, and its version did not
        two = Process(one.server, "two")
        await two.lead(node("n", "de-en"))
        await two.generator.turn()
        await two.generator.turn()
        assert two.published == [(2, 1), (2, 5)]
        await one.sync.poll()
        assert one.sync.config.order == (2, 5)

    @in_virtual_time
    async def test_i3_after_a_loss_of_data_the_epoch_still_grows(self) -> None:
        one = await a_leader(node("n", "de-en"))
        one.server.lose_everything()
        await pass_ms(TIMING.renew_ms)
        await one.election.step()
        await one.election.step()
        await one.generator.turn()
        assert one.published == [(1, 1), (2, 1)]
        assert await one.catalog.current() == one.sync.config

    @in_virtual_time
    async def test_i3_a_late_reply_to_an_earlier_tenure_does_not_end_the_adopting(self) -> None:
        one = await a_leader(node("n", "de-en"))
        one.views.put(node("m", "fr-en"))
        one.catalog.reply_ms = 500
        turn = asyncio.create_task(one.generator.turn())
        await settled()
        await one.election.step_down()
        await one.election.step()
        await turn
        await one.keep_leading(5_000)
        current = await one.catalog.current()
        assert current is not None
        assert current.epoch == 2


class TestLifeOfTheConfiguration:
    @in_virtual_time
    async def test_a_living_leader_keeps_it_from_expiring(self) -> None:
        one = await a_leader(node("n", "de-en"))
        await one.keep_leading(5 * CONFIG_TTL_MS)
        assert await one.catalog.current() == one.sync.config
        assert one.published == [(1, 1)]

    @in_virtual_time
    async def test_a_leader_that_sweeps_at_every_turn_keeps_it_too(self) -> None:
        one = Process(MemoryServer(clock=now_ms), cleanup_ms=4_000)
        await one.lead(node("n", "de-en"))
        await one.keep_leading(3 * CONFIG_TTL_MS)
        assert await one.catalog.current() is not None

    @in_virtual_time
    async def test_one_that_expired_is_published_again(self) -> None:
        one = await a_leader(node("n", "de-en"))
        await one.election.step()
        await pass_ms(TIMING.window_ms - 1)
        await one.election.step()
        await pass_ms(CONFIG_TTL_MS - TIMING.window_ms + 1)
        assert await one.catalog.current() is None
        await one.keep_leading(5_000)
        assert one.published == [(1, 1), (1, 1)]
        assert (await one.catalog.current()).order == (1, 1)

    @in_virtual_time
    async def test_one_that_expired_is_published_again_with_what_changed(self) -> None:
        one = await a_leader(node("n", "de-en"))
        await pass_ms(TIMING.window_ms - 1)
        await one.election.step()
        await pass_ms(CONFIG_TTL_MS)
        await one.election.step()
        await one.election.step()
        one.views.put(node("m", "fr-en"))
        await one.generator.turn()
        assert one.published[1:] == [(2, 2)]


class TestLostRequestsAndReplies:
    @in_virtual_time
    async def test_what_did_not_get_through_is_published_at_a_later_turn(self) -> None:
        one = await a_leader(node("n", "de-en"))
        one.views.put(node("m", "fr-en"))
        one.catalog.away = True
        with pytest.raises(StoreUnavailable):
            await one.generator.turn()
        one.catalog.away = False
        await one.generator.turn()
        assert one.published == [(1, 1), (1, 2), (1, 2)]
        assert one.pools() == ["de-en", "fr-en"]

    @in_virtual_time
    async def test_a_publish_whose_reply_was_lost_comes_back_as_news(self) -> None:
        one = await a_leader(node("n", "de-en"))
        await one.sync.follow()
        one.views.put(node("m", "fr-en"))
        one.catalog.loses_replies = True
        with pytest.raises(StoreUnavailable):
            await one.generator.turn()
        one.catalog.loses_replies = False
        await one.sync.follow()
        await one.keep_leading(3_000)
        assert one.published == [(1, 1), (1, 2)]
        assert one.sync.config.order == (1, 2)

    @in_virtual_time
    async def test_i3_a_version_whose_reply_was_lost_is_not_given_to_other_pools(self) -> None:
        one = await a_leader(node("n", "de-en"))
        one.views.put(node("m", "fr-en"))
        one.catalog.loses_replies = True
        with pytest.raises(StoreUnavailable):
            await one.generator.turn()
        one.catalog.loses_replies = False
        one.views.put(node("k", "it-en"))
        await one.generator.turn()
        await one.generator.turn()
        assert one.published == [(1, 1), (1, 2), (1, 2), (1, 3)]
        assert one.pools() == ["de-en", "fr-en", "it-en"]

    @in_virtual_time
    async def test_a_new_leader_whose_reply_was_lost_does_not_spin(self) -> None:
        one = Process(MemoryServer(clock=now_ms))
        await one.lead(node("n", "de-en"))
        one.catalog.loses_replies = True
        loops = Loops(Random(0))
        one.generator.wake = loops.every("pool generator", 1_000, limited(one.generator.turn))
        await pass_ms(10)
        one.catalog.loses_replies = False
        await pass_ms(5_000)
        assert len(one.catalog.tried) < 10
        await loops.stop()


def limited(step: Callable[[], Any], limit: int = 500) -> Callable[[], Any]:
    """The step, which stands still after `limit` times: a loop that spins would end no test."""
    left = iter(range(limit))

    async def turn() -> None:
        if next(left, None) is None:
            await asyncio.Event().wait()
        await step()

    return turn
