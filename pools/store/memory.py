"""The published configuration in memory: for one process without Redis, and for unit tests."""

import asyncio
from collections.abc import Sequence
from typing import Any

from pools.domain.news import News, Publication, Published, Released, Wanted
from pools.domain.snapshot import PoolConfig
from pools.domain.wishes import NONE, Wishes
from registry.store.memory import LeaseState, MemoryServer, Shelf

_CONFIG = "config"


class CatalogState:
    """The configuration, until it expires, and its version, which does not."""

    def __init__(self, server: MemoryServer) -> None:
        self.config: Shelf[PoolConfig] = Shelf(server)
        self.version = 0
        self.wishes = NONE


class MemoryCatalogStore:
    """Implements `CatalogStore`."""

    def __init__(self, server: MemoryServer, *, config_ttl_ms: int) -> None:
        self._server = server
        self._config_ttl_ms = config_ttl_ms

    @property
    def _state(self) -> CatalogState:
        return self._server.state(CatalogState)

    @property
    def _lease(self) -> LeaseState:
        return self._server.state(LeaseState)

    async def publish(self, config: PoolConfig, *, candidate: str) -> Publication:
        if not self._lease.held_by(candidate, epoch=config.epoch):
            return Publication(published=False, stale=True)
        state, stands = self._state, await self.current()
        same_epoch = stands is not None and stands.epoch >= config.epoch
        if config.version < state.version or (same_epoch and config.version <= state.version):
            return Publication(published=False, behind=state.version)
        state.config.put(_CONFIG, config, ttl_ms=self._config_ttl_ms)
        state.version = config.version
        self._lease.tell("published", config)
        return Publication(published=True)

    async def refresh(self, *, candidate: str, epoch: int) -> bool:
        if not self._lease.held_by(candidate, epoch=epoch):
            return True
        return self._state.config.prolong(_CONFIG, ttl_ms=self._config_ttl_ms)

    async def current(self) -> PoolConfig | None:
        return self._state.config.get(_CONFIG)

    async def set_wishes(self, wishes: Wishes) -> bool:
        if self._state.wishes == wishes:
            return False
        self._state.wishes = wishes
        await self.ask("wishes", by=wishes.by)
        return True

    async def wishes(self) -> Wishes:
        return self._state.wishes

    async def ask(self, what: str, *, by: str) -> None:
        self._lease.tell("wanted", (what, by))

    async def position(self) -> str:
        return str(self._lease.news.end)

    async def news(self, since: str, *, within_ms: int) -> tuple[str, Sequence[News]]:
        after = int(since.partition("-")[0])
        try:
            async with asyncio.timeout(within_ms / 1000):
                while self._lease.news.end <= after:
                    await self._server.rung()
        except TimeoutError:
            return since, []
        found = self._lease.news.after(after)
        return await self.position(), [_news(kind, content) for kind, content in found]


def _news(kind: str, content: Any) -> News:
    match kind:
        case "published":
            return Published(content)
        case "released":
            return Released(content)
        case _:
            return Wanted(*content)
