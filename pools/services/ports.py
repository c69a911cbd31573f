"""What the pool services need from outside, as protocols.

Every store method may raise `StoreUnavailable`.
"""

from collections.abc import Sequence
from typing import Protocol

from pools.domain.news import News, Publication
from pools.domain.snapshot import PoolConfig
from pools.domain.wishes import Wishes


class CatalogStore(Protocol):
    """The published pool configuration and the news about it."""

    async def publish(self, config: PoolConfig, *, candidate: str) -> Publication:
        """Publish under `config.epoch`; refused unless that is the epoch of the lease now held."""

    async def refresh(self, *, candidate: str, epoch: int) -> bool:
        """Prolong the configuration's life; False when it is gone and should be published again."""

    async def current(self) -> PoolConfig | None: ...

    async def set_wishes(self, wishes: Wishes) -> bool:
        """Keep what operators wish, and tell the leader; False when that is kept already."""

    async def wishes(self) -> Wishes:
        """What operators wish; none where nothing is kept."""

    async def ask(self, what: str, *, by: str) -> None:
        """Tell the leader a wish."""

    async def position(self) -> str:
        """Where the news ends now."""

    async def news(self, since: str, *, within_ms: int) -> tuple[str, Sequence[News]]:
        """News after `since`, waiting for some up to `within_ms`; with the new position."""


class History(Protocol):
    """Every published configuration, kept for people to read."""

    async def record(self, config: PoolConfig) -> bool:
        """Keep a configuration once by its (epoch, version); True when it was not kept yet."""


class WishStore(Protocol):
    """Where operators' wishes are kept for good."""

    async def read(self) -> Wishes: ...
