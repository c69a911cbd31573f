"""Published pool configurations in the database.

Each is written in one transaction with what follows from it: the pools as last published, and the
difference to its neighbours. The unique constraint decides between mirrors that record the same
version at once; the loser changes nothing.
"""

import msgspec
from django.db.models import Q

from pools.domain.pool import Pool
from pools.domain.snapshot import PoolConfig, difference, digest
from pools.models import Pool as PoolRow
from pools.models import PoolVersion
from registry.store.history import in_database, moment


class DjangoHistory:
    """Implements `History`."""

    async def record(self, config: PoolConfig) -> bool:
        return await in_database(_record, config)


def _record(config: PoolConfig) -> bool:
    row, created = PoolVersion.objects.get_or_create(
        epoch=config.epoch,
        version=config.version,
        defaults={
            "generated_at": moment(config.generated_at_ms),
            "generated_by": config.generated_by[:200],
            "reason": config.reason,
            "digest": digest(config),
            "pools": msgspec.to_builtins(config.pools),
        },
    )
    if not created:
        return False
    _compare(row)
    follower = PoolVersion.objects.filter(_after(row)).last()
    if follower is not None:
        # Recorded late, after a newer one: that one was compared with an older neighbour.
        _compare(follower)
    else:
        _keep_pools(config)
    return True


def _compare(row: PoolVersion) -> None:
    """Set a row's difference to the version recorded before it."""
    before = PoolVersion.objects.filter(_before(row)).first()
    found = difference(_config(before) if before else None, _config(row))
    row.added, row.removed = list(found.added), list(found.removed)
    row.changed, row.summary = list(found.changed), found.summary()
    row.save(update_fields=["added", "removed", "changed", "summary"])


def _keep_pools(config: PoolConfig) -> None:
    """Make the pools as last published those of the newest configuration."""
    at = moment(config.generated_at_ms)
    names = [pool.name for pool in config.pools]
    PoolRow.objects.filter(retired_at=None).exclude(name__in=names).update(retired_at=at)
    known = set(PoolRow.objects.filter(retired_at=None).values_list("name", "pool_id", "kind"))
    for pool in config.pools:
        if (pool.name, pool.id, pool.kind.value) in known:
            continue
        PoolRow.objects.update_or_create(
            name=pool.name,
            defaults={
                "pool_id": pool.id,
                "kind": pool.kind.value,
                "src": pool.src,
                "tgt": pool.tgt,
                "since_version": config.version,
                "retired_at": None,
            },
        )


def _before(row: PoolVersion) -> Q:
    return Q(epoch__lt=row.epoch) | Q(epoch=row.epoch, version__lt=row.version)


def _after(row: PoolVersion) -> Q:
    return Q(epoch__gt=row.epoch) | Q(epoch=row.epoch, version__gt=row.version)


def _config(row: PoolVersion) -> PoolConfig:
    pools = msgspec.convert(row.pools, tuple[Pool, ...])
    return PoolConfig(
        version=row.version,
        epoch=row.epoch,
        generated_at_ms=0,
        generated_by=row.generated_by,
        reason=row.reason,
        next_pool_id=max((pool.id for pool in pools), default=0) + 1,
        pools=pools,
    )
