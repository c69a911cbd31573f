"""What operators wish of the pools, on top of what follows from the nodes.

Wishes live in the database and are told to the leader through the store; the leader makes them
part of the next configuration, like any other change.
"""

import msgspec
from msgspec import Struct

from pools.domain.errors import InvalidPoolConfig
from pools.domain.pool import Pool
from registry.domain.capability import Pair


class Frozen(Struct, frozen=True):
    """These pools, as published once as `version`, are to be in force whatever the nodes do."""

    version: int
    pools: tuple[Pool, ...]


class Wishes(Struct, frozen=True):
    """`pinned` pairs always have a pool, `excluded` ones never; in both the source may be "*".

    While `frozen`, pools neither come nor go.
    """

    pinned: frozenset[Pair] = frozenset()
    excluded: frozenset[Pair] = frozenset()
    frozen: Frozen | None = None
    by: str = ""


NONE = Wishes()

_decoder = msgspec.json.Decoder(Wishes)


def encode(wishes: Wishes) -> bytes:
    """The wishes as JSON, the same for equal wishes."""
    return msgspec.json.encode(wishes, order="deterministic")


def decode(raw: bytes) -> Wishes:
    """What `encode` gave; raises InvalidPoolConfig on anything else."""
    try:
        return _decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidPoolConfig(f"the wishes for pools cannot be read: {error}") from error
