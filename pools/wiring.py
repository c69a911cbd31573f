"""Settings to services: the pools of one process, and who leads."""

from dataclasses import dataclass

from django.conf import settings

from pools.domain.generation import PoolRules
from pools.domain.index import PoolIndex
from pools.domain.news import News, Released, Wanted
from pools.domain.snapshot import digest
from pools.services.fallback import Fallback
from pools.services.generator import Generator
from pools.services.mirror import Mirror
from pools.services.ports import CatalogStore
from pools.services.sync import PoolSync
from pools.store.catalog import RedisCatalogStore
from pools.store.history import DjangoHistory
from pools.store.memory import MemoryCatalogStore
from pools.store.wishes import DjangoWishStore
from registry.domain.instance import InstanceReport
from registry.services.election import Election
from registry.services.recorder import NodeRecorder
from registry.store.history import DjangoNodeHistory
from registry.wiring import RedisGround, Registry, build_registry, from_settings, wall_ms


@dataclass(frozen=True, slots=True)
class Pools:
    """One process's pools: what it follows, and what it does if it leads."""

    registry: Registry
    rules: PoolRules
    catalog: CatalogStore
    index: PoolIndex
    sync: PoolSync
    election: Election
    generator: Generator
    fallback: Fallback

    def start_loops(self, *, candidate: bool) -> None:
        """Follow the configuration, and stand for election if this process may lead."""
        loops = self.registry.loops
        loops.again("pool news", self.sync.follow)
        loops.every("pool poll", settings.SCHED_POOL_SYNC_MS, self._poll)
        loops.every("pool fallback", settings.SCHED_SNAPSHOT_SYNC_MS, self._fall_back)
        if candidate:
            loops.again("election", self.election.run)
            # Woken when there is something to do; the interval is for what time alone brings.
            self.generator.wake = loops.every("pool generator", 200, self.generator.turn)

    def report(self, **more: object) -> InstanceReport:
        """What this process tells its peers of itself."""
        config = self.sync.config
        return InstanceReport(
            instance_id=self.registry.instance_id,
            started_at_ms=self.registry.started_at_ms,
            pools=len(self.index.pools),
            pool_config_epoch=config.epoch,
            pool_config_version=config.version,
            pool_config_digest=self.sync.digest,
            pool_index_digest=self.index.digest,
            **more,  # type: ignore[arg-type]
        )

    def seen_epoch(self) -> int:
        return self.sync.config.epoch

    async def _poll(self) -> None:
        before = self.sync.config
        published = await self.sync.poll()
        # Not there any more what was read here: the store lost its data, or let it expire.
        lost = before.epoch > 0 and (
            published is None
            or published.order < before.order
            or (published.order == before.order and digest(published) != digest(before))
        )
        await self.registry.leases.raise_epoch(max(before.epoch + lost, self.sync.config.epoch))

    async def _fall_back(self) -> None:
        self.fallback.turn(store_away="node sync" in self.registry.loops.failing)

    def on_news(self, news: News) -> None:
        if isinstance(news, Released):
            self.election.wake()
        elif isinstance(news, Wanted) and news.what == "step-down" and self.election.leading():
            pause_ms = self.registry.lease_timing.renew_ms
            self.registry.loops.spawn(self.election.step_down(pause_ms=pause_ms), name="step down")


@from_settings
def pool_rules() -> PoolRules:
    return PoolRules(
        min_nodes_per_pool=settings.SCHED_MIN_NODES_PER_POOL,
        max_pools=settings.SCHED_MAX_POOLS,
        enable_mixed_pools=settings.SCHED_ENABLE_MIXED_POOLS,
        require_semantic=settings.SCHED_REQUIRE_SEMANTIC,
    )


def build_pools(registry: Registry) -> Pools:
    """Wire one process; raises ImproperlyConfigured with one sentence where settings are wrong."""
    rules = pool_rules()
    catalog = _catalog(registry)
    index = PoolIndex(rules)
    sync = PoolSync(catalog, index, registry.views, clock=registry.clock)
    election = registry.election(seen_epoch=lambda: sync.config.epoch)
    generator = Generator(
        catalog,
        sync,
        registry.membership,
        election,
        candidate=registry.instance_id,
        rules=rules,
        cleanup_ms=settings.SCHED_POOL_CLEANUP_MS,
        refresh_ms=_refresh_ms(),
        clock=registry.clock,
        wall_clock=wall_ms,
    )
    fallback = Fallback(sync, rules=rules)
    pools = Pools(registry, rules, catalog, index, sync, election, generator, fallback)
    sync.subscribe(pools.on_news)
    return pools


def _catalog(registry: Registry) -> CatalogStore:
    ttl_ms = settings.SCHED_POOL_CONFIG_TTL_MS
    ground = registry.ground
    if isinstance(ground, RedisGround):
        return RedisCatalogStore(ground.connection, ground.keys, config_ttl_ms=ttl_ms)
    return MemoryCatalogStore(ground.server, config_ttl_ms=ttl_ms)


def _refresh_ms() -> int:
    """How often a leader renews the configuration's life: well within it."""
    return max(min(settings.SCHED_POOL_CONFIG_TTL_MS // 3, 60_000), 1)


def build_mirror() -> Mirror:
    """Wire the pool mirror; raises ImproperlyConfigured where settings are wrong."""
    registry = build_registry()
    return Mirror(
        _catalog(registry),
        DjangoHistory(),
        wishes=DjangoWishStore(),
        recorder=NodeRecorder(registry.membership, DjangoNodeHistory()),
        sync_ms=settings.SCHED_SNAPSHOT_SYNC_MS,
        on_close=registry.close,
    )
