"""The leader's work: generate pools when nodes change, publish when the answer differs.

New pools are published at the next turn. A pool that lost its nodes is retired by the sweep, once
it has been without them for a whole sweep interval, so a node that comes and goes does not churn
versions. Operators' wishes (pinned, excluded, frozen) come in through the store and are part of
the answer. A new leader publishes the configuration in
force under its own epoch, which shuts out its predecessor; the version grows only with the pools.

Not promised: that what is generated here is published. The store refuses a stale epoch, and then
this process has stopped leading.
"""

from collections.abc import Callable, Sequence

import structlog

from pools.domain.generation import Generation, PoolRules, generate, refreeze
from pools.domain.news import News, Wanted
from pools.domain.pool import Pool
from pools.domain.snapshot import PoolConfig, difference
from pools.domain.wishes import Wishes
from pools.services.ports import CatalogStore
from pools.services.sync import PoolSync
from registry.domain.capability import Pair
from registry.domain.lease import Tenure
from registry.domain.node import NodeSnapshot
from registry.services.election import Election
from registry.services.membership import Membership
from registry.services.ports import Clock

log = structlog.get_logger(__name__)


class Generator:
    """Generates and publishes while this process leads; otherwise idle."""

    def __init__(
        self,
        catalog: CatalogStore,
        sync: PoolSync,
        membership: Membership,
        election: Election,
        *,
        candidate: str,
        rules: PoolRules,
        cleanup_ms: int,
        refresh_ms: int,
        clock: Clock,
        wall_clock: Callable[[], int],
    ) -> None:
        self._catalog = catalog
        self._sync = sync
        self._membership = membership
        self._election = election
        self._candidate = candidate
        self._rules = rules
        self._cleanup_ms = cleanup_ms
        self._refresh_ms = refresh_ms
        self._clock = clock
        self._wall_clock = wall_clock
        self._due: str | None = None
        self._adopting = False
        self._wishes: Wishes | None = None
        self._lost_since_ms: dict[Pair, int] = {}
        self._swept_at_ms = clock()
        self._refreshed_at_ms = clock()
        self._version_floor = 0
        self.wake: Callable[[], None] = lambda: None
        election.subscribe(self._on_election)
        membership.views.subscribe(self._on_node)
        sync.subscribe(self._on_news)

    async def turn(self) -> None:
        """Do what is due, if this process leads and has seen all nodes."""
        held = self._election.leading()
        if held is None or self._membership.synced_at_ms is None:
            return
        now_ms = self._clock()
        if self._adopting:
            published = await self._sync.poll()
            self._adopting = published is None or published.epoch != held.epoch
        if self._wishes is None or self._adopting:
            self._wishes = await self._catalog.wishes()
        if now_ms - self._swept_at_ms >= self._sweep_ms:
            self._swept_at_ms = now_ms
            self._due = self._due or "sweep"
        if self._due is not None or self._adopting:
            await self._generate(held, self._wishes)
        if not self._adopting and now_ms - self._refreshed_at_ms >= self._refresh_ms:
            await self._refresh(held)

    @property
    def _sweep_ms(self) -> int:
        """Often enough that a pool is retired soon after its time without nodes is over."""
        return max(self._cleanup_ms // 4, 1)

    async def _generate(self, held: Tenure, wishes: Wishes) -> None:
        reason, self._due = "new leader" if self._adopting else self._due or "", None
        current = self._sync.config
        generated = self._answer(current, wishes)
        changed = generated.pools != current.pools
        if not changed and not self._adopting:
            return
        version = max(current.version, self._version_floor) + int(changed)
        config = PoolConfig(
            version=version,
            epoch=held.epoch,
            generated_at_ms=self._wall_clock(),
            generated_by=self._candidate,
            reason=reason,
            next_pool_id=generated.next_pool_id,
            pools=generated.pools,
        )
        await self._publish(config, before=current)

    def _answer(self, current: PoolConfig, wishes: Wishes) -> Generation:
        if wishes.frozen is not None:
            return refreeze(wishes.frozen.pools, next_pool_id=current.next_pool_id)
        return generate(
            self._sync.index.census(),
            rules=self._rules,
            previous=current.pools,
            next_pool_id=current.next_pool_id,
            pinned=wishes.pinned,
            excluded=wishes.excluded,
            keep=self._lost_lately(current.pools),
        )

    def _lost_lately(self, pools: Sequence[Pool]) -> list[Pool]:
        """Pools that have too few nodes, but not for a whole sweep interval yet."""
        now_ms, counts = self._clock(), self._sync.index.counts()
        lost = [p for p in pools if counts.get(p.name, 0) < self._rules.min_nodes_per_pool]
        self._lost_since_ms = {
            (p.src, p.tgt): self._lost_since_ms.get((p.src, p.tgt), now_ms) for p in lost
        }
        oldest_ms = now_ms - self._cleanup_ms
        return [p for p in lost if self._lost_since_ms[p.src, p.tgt] > oldest_ms]

    async def _publish(self, config: PoolConfig, *, before: PoolConfig) -> None:
        published = False
        try:
            outcome = await self._catalog.publish(config, candidate=self._candidate)
            published = outcome.published
        finally:
            # Also when only the reply was lost: publishing twice is refused, never doubled.
            if not published:
                self._due = self._due or config.reason
        if outcome.stale:
            log.warning("publish refused", epoch=config.epoch, version=config.version)
            self._election.wake()
            return
        if not published:
            self._version_floor = outcome.behind
            self.wake()
            return
        held = self._election.leading()
        if held is not None and held.epoch == config.epoch:
            self._adopting = False
        self._refreshed_at_ms = self._clock()
        self._sync.apply(config)
        log.info(
            "pool configuration published",
            epoch=config.epoch,
            version=config.version,
            reason=config.reason,
            difference=difference(before, config).summary(),
        )

    async def _refresh(self, held: Tenure) -> None:
        self._refreshed_at_ms = self._clock()
        if not await self._catalog.refresh(candidate=self._candidate, epoch=held.epoch):
            self._adopting = True

    def _on_election(self, held: Tenure | None) -> None:
        self._adopting = held is not None
        if held is not None:
            self._swept_at_ms = self._clock()
            self.wake()

    def _on_node(self, before: NodeSnapshot | None, after: NodeSnapshot | None) -> None:
        if before is not None and after is not None and before.capabilities == after.capabilities:
            return
        subject = after or before
        self._due = f"node {subject.node_id} changed" if subject else "nodes changed"
        self.wake()

    def _on_news(self, news: News) -> None:
        if isinstance(news, Wanted) and news.what in ("regenerate", "wishes"):
            if news.what == "wishes":
                self._wishes = None
            self._due = f"asked for by {news.by}"
            self.wake()
