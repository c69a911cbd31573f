"""Mirroring every published configuration into the history, and operators' wishes out of it.

It starts with the oldest news that the catalog still has, so that what was published while no
mirror ran is recorded too. Recording twice is recording once: several mirrors may run at a time,
and a restart adds only what is new.

Not promised: a version that came and went from the news while no mirror ran.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from pools.domain.news import Published
from pools.domain.snapshot import PoolConfig
from pools.services.ports import CatalogStore, History, WishStore
from registry.domain.errors import StoreUnavailable
from registry.services.recorder import NodeRecorder

log = structlog.get_logger(__name__)

OLDEST = "0"
"""The position before all news."""

NEWS_WAIT_MS = 5_000
NO_WAIT_MS = 1
"""A wait of 0 would be one without an end."""


async def _nothing() -> None:
    pass


class Mirror:
    """Follows pools, and nodes if it is given a recorder, until it is cancelled."""

    def __init__(
        self,
        catalog: CatalogStore,
        history: History,
        *,
        wishes: WishStore | None = None,
        recorder: NodeRecorder | None = None,
        sync_ms: int = 1_000,
        retry_ms: int = 2_000,
        on_close: Callable[[], Awaitable[None]] = _nothing,
    ) -> None:
        self._catalog = catalog
        self._history = history
        self._wishes = wishes
        self._recorder = recorder
        self._sync_ms = sync_ms
        self._retry_ms = retry_ms
        self._on_close = on_close
        self._position = OLDEST
        self._caught_up = False
        self._last: tuple[int, int] | None = None

    async def run(self) -> None:
        """Mirror until cancelled, through outages of the store and of the database."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._persist("pools", self.follow))
            if self._wishes is not None:
                group.create_task(self._persist("wishes", self.tell_wishes, pause_ms=self._sync_ms))
            if self._recorder is not None:
                group.create_task(
                    self._persist("nodes", self._recorder.turn, pause_ms=self._sync_ms)
                )

    async def once(self) -> None:
        """Mirror what is published now. Raises StoreUnavailable."""
        self._caught_up = False
        while not self._caught_up:
            await self.follow()
        if self._recorder is not None:
            await self._recorder.turn()

    async def tell_wishes(self) -> None:
        """Tell the leader what operators wish, where it is not known: also after data loss."""
        if self._wishes is not None:
            await self._catalog.set_wishes(await self._wishes.read())

    async def close(self) -> None:
        """Give back what the mirror was built on."""
        await self._on_close()

    async def follow(self) -> None:
        """Wait for news once and record it; without news, record what is in force.

        To be called again and again. Raises StoreUnavailable; nothing is skipped then.
        """
        within_ms = NEWS_WAIT_MS if self._caught_up else NO_WAIT_MS
        position, news = await self._catalog.news(self._position, within_ms=within_ms)
        for item in news:
            if isinstance(item, Published):
                await self._record(item.config)
        if position == self._position:
            current = await self._catalog.current()
            if current is not None:
                await self._record(current)
            self._caught_up = True
        self._position = position

    async def _record(self, config: PoolConfig) -> None:
        if config.order == self._last:
            return
        if await self._history.record(config):
            log.info(
                "pool configuration recorded",
                epoch=config.epoch,
                version=config.version,
                pools=len(config.pools),
            )
        self._last = config.order

    async def _persist(
        self, what: str, turn: Callable[[], Awaitable[None]], *, pause_ms: int = 0
    ) -> None:
        """Take turns for ever; tell the beginning and the end of an outage, not each attempt."""
        away = False
        while True:
            try:
                await turn()
            except StoreUnavailable as error:
                if not away:
                    log.warning("mirror waits", what=what, reason=str(error))
                away = True
                await asyncio.sleep(self._retry_ms / 1000)
                continue
            if away:
                log.info("mirror goes on", what=what)
                away = False
            await asyncio.sleep(pause_ms / 1000)
