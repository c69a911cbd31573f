"""Following the published configuration, and serving without the store, in virtual time."""

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest
from structlog.testing import capture_logs

from pools.domain.generation import PoolRules
from pools.domain.index import PoolIndex
from pools.domain.news import News, Published, Wanted
from pools.domain.pool import Pool, PoolKind, pool_name
from pools.domain.snapshot import EMPTY, PoolConfig, digest
from pools.domain.wishes import Frozen, Wishes
from pools.services.fallback import Fallback
from pools.services.sync import PoolSync
from pools.store.memory import MemoryCatalogStore
from pools.wiring import Pools
from registry.domain.capability import (
    LanguageCapabilities,
    LanguagePair,
    ServiceCapability,
    ServiceType,
)
from registry.domain.node import NodeSnapshot, NodeStatus
from registry.services.views import NodeViews
from registry.store import memory
from registry.store.memory import MemoryLeaseStore, MemoryServer
from tests.support.manual_time import in_virtual_time, now_ms, pass_ms, settled

RULES = PoolRules(enable_mixed_pools=False, require_semantic=False)
TTL_MS = 60_000
SERVICES = (ServiceType.ASR, ServiceType.NMT, ServiceType.TTS)


def config(epoch: int, version: int, *pairs: str) -> PoolConfig:
    pools = tuple(
        Pool(number, pool_name(src, tgt), PoolKind.EXACT, src, tgt)
        for number, (src, tgt) in enumerate((pair.split("-") for pair in pairs), 1)
    )
    return PoolConfig(
        version=version,
        epoch=epoch,
        generated_at_ms=0,
        generated_by="one",
        reason="a test",
        next_pool_id=len(pools) + 1,
        pools=pools,
    )


def node(node_id: str, *pairs: str) -> NodeSnapshot:
    listed = tuple(LanguagePair(*pair.split("-")) for pair in pairs)
    return NodeSnapshot(
        node_id=node_id,
        instance_id="one",
        connection_epoch=1,
        revision=0,
        status=NodeStatus.READY,
        max_concurrent_jobs=1,
        accept_public_jobs=True,
        capability_by_type=tuple(ServiceCapability(each, ready=True) for each in SERVICES),
        language_capabilities=LanguageCapabilities(supported_language_pairs=listed),
        registered_at_ms=0,
    )


class Reader:
    """One process that follows."""

    def __init__(self, server: MemoryServer) -> None:
        self.views = NodeViews()
        self.index = PoolIndex(RULES)
        self.catalog = MemoryCatalogStore(server, config_ttl_ms=TTL_MS)
        self.leases = MemoryLeaseStore(server, ttl_ms=TTL_MS)
        self.sync = PoolSync(self.catalog, self.index, self.views, clock=now_ms)
        self.fallback = Fallback(self.sync, rules=RULES)

    def follow(self) -> "asyncio.Task[None]":
        async def again_and_again() -> None:
            while True:
                await self.sync.follow()

        return asyncio.create_task(again_and_again())

    async def poll_as_wired(self) -> None:
        registry = SimpleNamespace(leases=self.leases)
        await Pools._poll(cast(Pools, SimpleNamespace(sync=self.sync, registry=registry)))

    def pools(self) -> list[str]:
        return [pool.name for pool in self.index.pools]


class Leader:
    """Whoever leads; publishes what a test says."""

    def __init__(self, server: MemoryServer, name: str = "leader") -> None:
        self.name = name
        self.catalog = MemoryCatalogStore(server, config_ttl_ms=TTL_MS)
        self.leases = MemoryLeaseStore(server, ttl_ms=TTL_MS)

    async def publish(self, what: PoolConfig) -> None:
        held = await self.leases.holder()
        if held is not None and held.epoch < what.epoch:
            await self.leases.release(held.instance_id, epoch=held.epoch)
            held = None
        if held is None:
            await self.leases.acquire(self.name, floor=what.epoch - 1)
        outcome = await self.catalog.publish(what, candidate=self.name)
        assert outcome.published, outcome


def new_server() -> MemoryServer:
    return MemoryServer(clock=now_ms)


class TestApplying:
    @pytest.mark.parametrize("order", [(2, 3), (2, 2), (1, 9), (0, 0)])
    def test_i3_an_older_or_equal_one_is_never_applied(self, order: tuple[int, int]) -> None:
        @in_virtual_time
        async def check() -> None:
            reader = Reader(new_server())
            assert reader.sync.apply(config(2, 3, "de-en"))
            assert not reader.sync.apply(config(*order, "fr-en"))
            assert reader.pools() == ["de-en"]

        check()

    @pytest.mark.parametrize("order", [(2, 4), (3, 3), (3, 1)])
    def test_i3_a_newer_one_is_applied_and_the_epoch_counts_first(
        self, order: tuple[int, int]
    ) -> None:
        @in_virtual_time
        async def check() -> None:
            reader = Reader(new_server())
            reader.sync.apply(config(2, 3, "de-en"))
            assert reader.sync.apply(config(*order, "fr-en"))
            assert reader.pools() == ["fr-en"]

        check()

    @in_virtual_time
    async def test_an_applied_one_is_in_force_with_its_digest_and_logged_once(self) -> None:
        reader = Reader(new_server())
        assert (reader.sync.config, reader.sync.digest) == (EMPTY, digest(EMPTY))
        with capture_logs() as logs:
            reader.sync.apply(config(1, 1, "de-en"))
            reader.sync.apply(config(1, 1, "de-en"))
        assert reader.sync.digest == digest(config(1, 1, "de-en"))
        assert reader.sync.applied_at_ms == now_ms()
        assert [entry["event"] for entry in logs] == ["pool configuration applied"]

    @in_virtual_time
    async def test_the_same_pools_under_a_new_epoch_leave_the_index_alone(
        self,
    ) -> None:
        reader = Reader(new_server())
        reader.views.put(node("n", "de-en"))
        reader.sync.apply(config(1, 1, "de-en"))
        members = reader.index.members("de-en")
        reader.sync.apply(config(2, 1, "de-en"))
        assert reader.index.members("de-en") is members

    @in_virtual_time
    async def test_i4_readers_of_the_same_nodes_in_any_order_have_the_same_index(self) -> None:
        one, two = Reader(new_server()), Reader(new_server())
        nodes = [node("n", "de-en"), node("m", "de-en", "fr-en"), node("k", "fr-en")]
        for each in nodes:
            one.views.put(each)
        one.sync.apply(config(1, 1, "de-en", "fr-en"))
        two.sync.apply(config(1, 1, "de-en", "fr-en"))
        two.views.put(node("gone", "de-en"))
        for each in reversed(nodes):
            two.views.put(each)
        two.views.remove("gone", epoch=1)
        assert one.index.digest == two.index.digest


class TestFollowing:
    @in_virtual_time
    async def test_a_push_is_applied_at_once(self) -> None:
        server = new_server()
        reader, leader = Reader(server), Leader(server)
        reader.follow()
        await settled()
        start_ms = now_ms()
        await leader.publish(config(1, 1, "de-en"))
        await settled()
        assert (reader.sync.config.order, now_ms()) == ((1, 1), start_ms)

    @in_virtual_time
    async def test_a_reader_that_starts_reads_what_stands_first(self) -> None:
        server = new_server()
        await Leader(server).publish(config(1, 1, "de-en"))
        reader = Reader(server)
        assert not reader.sync.followed
        reader.follow()
        await settled()
        assert reader.sync.followed
        assert reader.pools() == ["de-en"]

    @in_virtual_time
    async def test_a_lost_push_is_made_good_by_the_poll(self) -> None:
        server = new_server()
        reader, leader = Reader(server), Leader(server)
        await leader.publish(config(1, 1, "de-en"))
        await reader.sync.poll()
        assert reader.sync.config.order == (1, 1)
        assert not reader.sync.followed

    @in_virtual_time
    async def test_news_that_nobody_keeps_any_more_are_no_harm(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(memory, "NEWS_KEPT", 2)
            server = new_server()
            reader, leader = Reader(server), Leader(server)
            await reader.sync.poll()
            follower = reader.follow()
            await settled()
            follower.cancel()
            await settled()
            for version in range(1, 9):
                await leader.publish(config(1, version, "de-en", "fr-en"))
            reader.follow()
            await settled()
            assert reader.sync.config.order == (1, 8)

    @in_virtual_time
    async def test_i3_a_poll_that_is_older_than_the_push_changes_nothing(self) -> None:
        server = new_server()
        reader, leader = Reader(server), Leader(server)
        await leader.publish(config(1, 1, "de-en"))
        reader.sync.apply(config(1, 2, "fr-en"))
        await reader.sync.poll()
        assert reader.pools() == ["fr-en"]

    @in_virtual_time
    async def test_i3_news_that_are_older_than_the_poll_change_nothing(self) -> None:
        server = new_server()
        reader, leader = Reader(server), Leader(server)
        position = await reader.catalog.position()
        for version, pair in enumerate(("de-en", "fr-en", "it-en"), 1):
            await leader.publish(config(1, version, pair))
        await reader.sync.poll()
        applied = reader.sync.config
        reader.sync._position = position
        await reader.sync.follow()
        assert reader.sync.config is applied

    @in_virtual_time
    async def test_every_piece_of_news_is_told_to_listeners(self) -> None:
        server = new_server()
        reader, leader = Reader(server), Leader(server)
        heard: list[News] = []
        reader.sync.subscribe(heard.append)
        reader.follow()
        await settled()
        await leader.publish(config(1, 1, "de-en"))
        await leader.catalog.ask("regenerate", by="an operator")
        await settled()
        assert heard == [Published(config(1, 1, "de-en")), Wanted("regenerate", "an operator")]

    @in_virtual_time
    async def test_what_expired_in_the_store_stays_in_force(self) -> None:
        server = new_server()
        reader, leader = Reader(server), Leader(server)
        await leader.publish(config(1, 1, "de-en"))
        await reader.sync.poll()
        await pass_ms(TTL_MS)
        assert await reader.catalog.current() is None
        await reader.sync.poll()
        assert reader.pools() == ["de-en"]


class TestLossOfData:
    @in_virtual_time
    async def test_i3_a_lower_epoch_is_not_followed_and_the_next_leader_is_above_it(self) -> None:
        server = new_server()
        reader, leader = Reader(server), Leader(server)
        await leader.publish(config(5, 9, "de-en"))
        await reader.poll_as_wired()
        server.lose_everything()
        await leader.publish(config(1, 1, "fr-en"))
        await reader.poll_as_wired()
        assert reader.sync.config.order == (5, 9)
        assert not await leader.leases.renew(leader.name, epoch=1)
        await leader.publish(config(6, 1, "it-en"))
        await reader.poll_as_wired()
        assert reader.pools() == ["it-en"]

    @in_virtual_time
    async def test_i3_an_epoch_that_was_granted_again_does_not_leave_a_reader_behind(self) -> None:
        server = new_server()
        reader, leader = Reader(server), Leader(server)
        await leader.publish(config(5, 9, "de-en"))
        await reader.poll_as_wired()
        server.lose_everything()
        # A candidate that had read epoch 4 only.
        await leader.publish(config(5, 1, "fr-en"))
        await reader.poll_as_wired()
        assert not await leader.leases.renew(leader.name, epoch=5)


class TestFallback:
    @in_virtual_time
    async def test_i6_pools_are_generated_here_while_the_store_is_away(self) -> None:
        reader = Reader(new_server())
        reader.sync.apply(config(1, 1, "de-en"))
        reader.views.put(node("n", "de-en"))
        reader.views.put(node("m", "fr-en"))
        reader.fallback.turn(store_away=True)
        assert reader.sync.local
        assert reader.pools() == ["de-en", "fr-en"]
        assert list(reader.index.members("fr-en")) == ["m"]
        assert reader.sync.config.order == (1, 1)

    @in_virtual_time
    async def test_i6_a_process_that_never_saw_the_store_has_pools_all_the_same(self) -> None:
        reader = Reader(new_server())
        reader.views.put(node("n", "de-en"))
        reader.fallback.turn(store_away=True)
        assert reader.pools() == ["de-en"]

    @in_virtual_time
    async def test_pools_without_nodes_stay_while_the_store_is_away(self) -> None:
        reader = Reader(new_server())
        reader.sync.apply(config(1, 1, "de-en"))
        reader.fallback.turn(store_away=True)
        assert reader.pools() == ["de-en"]
        assert not reader.sync.local

    @in_virtual_time
    async def test_the_configuration_in_force_comes_back_with_the_store(self) -> None:
        reader = Reader(new_server())
        reader.sync.apply(config(1, 1, "de-en"))
        reader.views.put(node("m", "fr-en"))
        with capture_logs() as logs:
            for _ in range(3):
                reader.fallback.turn(store_away=True)
            for _ in range(3):
                reader.fallback.turn(store_away=False)
        assert (reader.sync.local, reader.pools()) == (False, ["de-en"])
        assert [entry["event"] for entry in logs] == [
            "pools generated locally",
            "pools follow the leader again",
        ]

    @in_virtual_time
    async def test_local_pools_honour_what_operators_exclude_and_pin(self) -> None:
        reader = Reader(new_server())
        await reader.catalog.set_wishes(
            Wishes(pinned=frozenset({("ja", "en")}), excluded=frozenset({("fr", "en")}))
        )
        await reader.sync.poll()
        reader.views.put(node("n", "de-en"))
        reader.views.put(node("m", "fr-en"))
        reader.fallback.turn(store_away=True)
        assert reader.pools() == ["de-en", "ja-en"]

    @in_virtual_time
    async def test_pools_that_operators_froze_stay_while_the_store_is_away(self) -> None:
        reader = Reader(new_server())
        frozen = config(1, 1, "de-en")
        await reader.catalog.set_wishes(Wishes(frozen=Frozen(1, frozen.pools)))
        reader.sync.apply(frozen)
        await reader.sync.poll()
        reader.views.put(node("m", "fr-en"))
        reader.fallback.turn(store_away=True)
        assert (reader.sync.local, reader.pools()) == (False, ["de-en"])

    @in_virtual_time
    async def test_wishes_are_known_as_soon_as_they_are_told(self) -> None:
        reader = Reader(new_server())
        following = reader.follow()
        await asyncio.sleep(0.01)
        wished = Wishes(excluded=frozenset({("fr", "en")}))
        await reader.catalog.set_wishes(wished)
        await asyncio.sleep(0.01)
        assert reader.sync.wishes == wished
        following.cancel()

    @in_virtual_time
    async def test_a_new_configuration_ends_local_pools(self) -> None:
        reader = Reader(new_server())
        reader.views.put(node("m", "fr-en"))
        reader.fallback.turn(store_away=True)
        reader.sync.apply(config(1, 1, "de-en"))
        assert (reader.sync.local, reader.pools()) == (False, ["de-en"])

    @in_virtual_time
    async def test_the_same_configuration_after_the_outage_is_in_force_again(self) -> None:
        server = new_server()
        reader, leader = Reader(server), Leader(server)
        await leader.publish(config(1, 1, "de-en"))
        await reader.sync.poll()
        before = reader.index.digest
        reader.views.put(node("m", "fr-en"))
        reader.fallback.turn(store_away=True)
        assert reader.index.digest != before
        reader.views.remove("m", epoch=1)
        await reader.sync.poll()
        reader.fallback.turn(store_away=False)
        assert reader.index.digest == before

    @in_virtual_time
    async def test_i4_instances_with_the_same_nodes_make_the_same_local_pools(self) -> None:
        one, two = Reader(new_server()), Reader(new_server())
        for each in (node("n", "de-en"), node("m", "fr-en")):
            one.views.put(each)
        for each in (node("m", "fr-en"), node("n", "de-en")):
            two.views.put(each)
        for reader in (one, two):
            reader.fallback.turn(store_away=True)
        assert one.index.digest == two.index.digest
