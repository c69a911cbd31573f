"""A published pool configuration: what the leader writes and every instance reads.

Configurations are ordered by (epoch, version); a reader takes only a greater one. Times in here
are the leader's clock, for people to read: no decision compares them.
"""

from hashlib import blake2b
from typing import Annotated

import msgspec
from msgspec import Meta, Struct, field

from pools.domain.errors import InvalidPoolConfig
from pools.domain.pool import Pool, in_order

SUMMARY_LIMIT = 200  # characters

Count = Annotated[int, Meta(ge=0)]


class PoolConfig(Struct, frozen=True):
    """One configuration. Raises ValueError when two pools share a name or an id."""

    version: Count
    epoch: Count
    generated_at_ms: Count = field(name="generated_at")
    generated_by: str
    reason: str
    next_pool_id: Count
    pools: tuple[Pool, ...]

    def __post_init__(self) -> None:
        if len({pool.name for pool in self.pools}) < len(self.pools):
            raise ValueError("two pools have the same name")
        if len({pool.id for pool in self.pools}) < len(self.pools):
            raise ValueError("two pools have the same id")
        if max([pool.id for pool in self.pools], default=-1) >= self.next_pool_id:
            raise ValueError("a pool has an id that is still to be given")

    @property
    def order(self) -> tuple[int, int]:
        """(epoch, version): a greater one replaces a smaller one, never the other way."""
        return (self.epoch, self.version)


EMPTY = PoolConfig(
    version=0, epoch=0, generated_at_ms=0, generated_by="", reason="", next_pool_id=1, pools=()
)


class Difference(Struct, frozen=True):
    """The names, sorted, of pools that came, went, or kept their name under another id or kind."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def summary(self) -> str:
        """One line of at most SUMMARY_LIMIT characters, such as `+1 -1: added a-b; removed c-d`."""
        parts = (
            ("+", "added", self.added),
            ("-", "removed", self.removed),
            ("~", "changed", self.changed),
        )
        counts = " ".join(f"{sign}{len(names)}" for sign, _, names in parts if names)
        if not counts:
            return "no change"
        lists = "; ".join(f"{verb} {', '.join(names)}" for _, verb, names in parts if names)
        text = f"{counts}: {lists}"
        return text if len(text) <= SUMMARY_LIMIT else text[: SUMMARY_LIMIT - 1] + "…"


def encode(config: PoolConfig) -> bytes:
    """The configuration as JSON."""
    return msgspec.json.encode(config)


def decode(raw: bytes) -> PoolConfig:
    """What `encode` gave; raises InvalidPoolConfig on anything else. Unknown fields are skipped."""
    try:
        return msgspec.json.decode(raw, type=PoolConfig)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidPoolConfig(f"the pool configuration cannot be read: {error}") from error


def digest(config: PoolConfig) -> str:
    """32 hex digits over epoch, version and pools: equal exactly when those are."""
    content = (config.epoch, config.version, in_order(config.pools))
    return blake2b(msgspec.json.encode(content), digest_size=16).hexdigest()


def difference(before: PoolConfig | None, after: PoolConfig) -> Difference:
    """What `after` changes; None stands for a configuration without pools."""
    old = {pool.name: pool for pool in (before.pools if before else ())}
    new = {pool.name: pool for pool in after.pools}
    return Difference(
        added=tuple(sorted(new.keys() - old.keys())),
        removed=tuple(sorted(old.keys() - new.keys())),
        changed=tuple(sorted(name for name in new.keys() & old.keys() if new[name] != old[name])),
    )
