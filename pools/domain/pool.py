"""A pool: the set of nodes that a kind of task may go to, by name and number.

Not promised: that the name tells the pair. `a-b-c` may be (a-b, c) or (a, b-c); read `src` and
`tgt`. Within one configuration names are unique all the same.
"""

from collections.abc import Iterable
from enum import StrEnum

from msgspec import Struct

ANY_SOURCE = "*"


class PoolKind(StrEnum):
    """Why a pool exists."""

    EXACT = "exact"  # enough nodes support the pair
    MIXED = "mixed"  # enough nodes support some pair to this target
    PINNED = "pinned"  # an operator wants it, whoever is there; its source may be any


class Pool(Struct, frozen=True):
    """One pool. `src` is "*" where every source counts; raises ValueError on a contradiction."""

    id: int
    name: str
    kind: PoolKind
    src: str
    tgt: str

    def __post_init__(self) -> None:
        # Each instance does this for each pool of each configuration before it is in force.
        src, tgt, kind = self.src, self.tgt, self.kind
        if self.name != pool_name(src, tgt):
            raise ValueError(f"pool {self.name!r} is not named after {src!r}, {tgt!r}")
        if not src or not tgt or tgt in (ANY_SOURCE, src):
            raise ValueError(f"pool {self.name!r} has no pair of two languages")
        if kind is not PoolKind.PINNED and (src == ANY_SOURCE) != (kind is PoolKind.MIXED):
            raise ValueError(f"pool {self.name!r} is not {self.kind}")

    @property
    def takes_any_source(self) -> bool:
        """Whether its members are the nodes that support some source, not one given source."""
        return self.src == ANY_SOURCE


def pool_name(src: str, tgt: str) -> str:
    """The name of the pool of a pair; `src` may be "*"."""
    return f"{src}-{tgt}"


def in_order(pools: Iterable[Pool]) -> tuple[Pool, ...]:
    """The pools by name."""
    return tuple(sorted(pools, key=lambda pool: pool.name))
