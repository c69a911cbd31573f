"""Operators' wishes in the database: what the pool mirror tells the leader."""

import msgspec

from pools.domain.pool import Pool
from pools.domain.wishes import Frozen, Wishes
from pools.models import PoolFreeze, PoolWish
from registry.store.history import in_database


class DjangoWishStore:
    """Implements `WishStore`."""

    async def read(self) -> Wishes:
        return await in_database(_read)


def _read() -> Wishes:
    rows = list(PoolWish.objects.values_list("wish", "src", "tgt"))
    freeze = PoolFreeze.objects.select_related("version").first()
    return Wishes(
        pinned=frozenset((s, t) for wish, s, t in rows if wish == PoolWish.Wish.PINNED),
        excluded=frozenset((s, t) for wish, s, t in rows if wish == PoolWish.Wish.EXCLUDED),
        frozen=_frozen(freeze) if freeze else None,
        by=freeze.created_by if freeze else "operators",
    )


def _frozen(freeze: PoolFreeze) -> Frozen:
    pools = msgspec.convert(freeze.version.pools, tuple[Pool, ...])
    return Frozen(freeze.version.version, pools)
