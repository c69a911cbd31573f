"""What `pools:changes` tells: a new configuration, a released lease, an operator's wish."""

from dataclasses import dataclass

from pools.domain.snapshot import PoolConfig


@dataclass(frozen=True, slots=True)
class Published:
    config: PoolConfig


@dataclass(frozen=True, slots=True)
class Released:
    """The leader under `epoch` stepped down: candidates may try at once."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """Someone asks the leader for something: `regenerate`, or `step-down`."""

    what: str
    by: str


News = Published | Released | Wanted


@dataclass(frozen=True, slots=True)
class Publication:
    """A publish's outcome. Refused when `stale` (another leads) or behind version `behind`."""

    published: bool
    stale: bool = False
    behind: int = 0
