"""The leader's work: generate pools when nodes change, publish when the answer differs.

New pools are published at the next turn; pools that lost their nodes are retired by the sweep, so
a node that comes and goes does not churn versions. A new leader publishes the configuration in
force under its own epoch, which shuts out its predecessor; the version grows only with the pools.

Not promised: that what is generated here is published. The store refuses a stale epoch, and then
this process has stopped leading.
"""

from collections.abc import Callable

import structlog

from pools.domain.generation import PoolRules, generate
from pools.domain.news import News, Wanted
from pools.domain.snapshot import PoolConfig, difference
from pools.services.ports import CatalogStore
from pools.services.sync import PoolSync
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
            await self._sync.poll()
        sweeping = now_ms - self._swept_at_ms >= self._cleanup_ms
        if sweeping:
            self._swept_at_ms = now_ms
            self._due = self._due or "sweep"
        if self._due is not None or self._adopting:
            await self._generate(held, retiring=sweeping)
        elif now_ms - self._refreshed_at_ms >= self._refresh_ms:
            await self._refresh(held)

    async def _generate(self, held: Tenure, *, retiring: bool) -> None:
        reason, self._due = self._due or "new leader", None
        current = self._sync.config
        generated = generate(
            (view.snapshot.capabilities for view in self._membership.views),
            rules=self._rules,
            previous=current.pools,
            next_pool_id=current.next_pool_id,
            keep_lost=not retiring,
        )
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
        if isinstance(news, Wanted) and news.what == "regenerate":
            self._due = f"asked for by {news.by}"
            self.wake()
