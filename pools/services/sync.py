"""Following the published configuration, and keeping the pool index in step with nodes and pools.

A configuration is taken only when its (epoch, version) is higher than that of the one in force,
from whichever way it came first: the push (news) or the poll. What expired in the store stays in
force here.
"""

from collections.abc import Callable, Sequence

import structlog

from pools.domain.errors import InvalidPoolConfig
from pools.domain.index import PoolIndex
from pools.domain.news import News, Published, Wanted
from pools.domain.pool import Pool
from pools.domain.snapshot import EMPTY, PoolConfig, digest
from pools.domain.wishes import NONE, Wishes
from pools.services.ports import CatalogStore
from registry.domain.node import NodeSnapshot
from registry.services.ports import Clock
from registry.services.views import NodeViews

log = structlog.get_logger(__name__)

NEWS_WAIT_MS = 5000


class PoolSync:
    """One process's copy of the pools."""

    def __init__(
        self, catalog: CatalogStore, index: PoolIndex, views: NodeViews, *, clock: Clock
    ) -> None:
        self._catalog = catalog
        self._clock = clock
        self._position: str | None = None
        self._in_touch = False
        self._digest: str | None = None
        self._listeners: list[Callable[[News], None]] = []
        self.index = index
        self.config = EMPTY
        self.wishes: Wishes = NONE  # As last read: for pools made here while the store is away.
        self.local = False
        self.applied_at_ms: int | None = None
        views.subscribe(self._follow_node)

    @property
    def digest(self) -> str:
        """Digest of the configuration in force."""
        if self._digest is None:
            self._digest = digest(self.config)
        return self._digest

    @property
    def followed(self) -> bool:
        """Whether what was published has been read, since this process began."""
        return self._position is not None

    def subscribe(self, listener: Callable[[News], None]) -> None:
        """Call `listener` with every piece of news that this process reads."""
        self._listeners.append(listener)

    def apply(self, config: PoolConfig) -> bool:
        """Put a configuration in force if it is newer; True when it was."""
        if config.order <= self.config.order:
            return False
        before, self.config = self.config, config
        self._digest = None
        if self.local:
            self.leave_local()
        elif config.pools != before.pools:
            self.index.configure(config.pools)
        self.applied_at_ms = self._clock()
        log.info(
            "pool configuration applied",
            epoch=config.epoch,
            version=config.version,
            pools=len(config.pools),
        )
        return True

    def put_local(self, pools: Sequence[Pool]) -> None:
        """Serve with pools of our own making; the configuration in force stays what it is."""
        if tuple(pools) == self.index.pools:
            return
        self.local = True
        self.index.configure(pools)
        log.warning("pools generated locally", pools=len(pools))

    def leave_local(self) -> None:
        """Serve with the configuration in force again."""
        self.local = False
        self.index.configure(self.config.pools)
        log.info("pools follow the leader again", version=self.config.version)

    async def poll(self) -> PoolConfig | None:
        """Read the published configuration and the wishes: the safety net under the push."""
        published = await self._catalog.current()
        if published is not None:
            self.apply(published)
        await self._read_wishes()
        return published

    async def follow(self) -> None:
        """Wait for news once and act on it. To be called again and again.

        At first, and after a failure, it catches up instead and returns at once.
        """
        if self._position is None or not self._in_touch:
            # First where the news ends, then the state: nothing falls between the two.
            position = self._position or await self._catalog.position()
            await self.poll()
            self._position, self._in_touch = position, True
            return
        self._in_touch = False
        self._position, news = await self._catalog.news(self._position, within_ms=NEWS_WAIT_MS)
        self._in_touch = True
        for item in news:
            if isinstance(item, Published):
                self.apply(item.config)
            for listener in self._listeners:
                listener(item)
        # Last, so that no news is lost when they cannot be read; the poll reads them again.
        if any(isinstance(item, Wanted) and item.what == "wishes" for item in news):
            await self._read_wishes()

    async def _read_wishes(self) -> None:
        try:
            self.wishes = await self._catalog.wishes()
        except InvalidPoolConfig as error:
            # They are the leader's business; what is known here stays.
            log.error("wishes not readable", reason=str(error))  # noqa: TRY400 (no stack)

    def _follow_node(self, before: NodeSnapshot | None, after: NodeSnapshot | None) -> None:
        if after is not None:
            self.index.put(after.node_id, after.capabilities)
        elif before is not None:
            self.index.remove(before.node_id)
