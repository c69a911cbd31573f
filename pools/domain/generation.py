"""Which pools there should be, given what the nodes can do.

A pure function: whoever holds the same nodes, rules, wishes and previous pools gets the same
answer, in whatever order the nodes come. It does not say which node is in which pool (`index`
does), nor whether the answer is worth publishing.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from msgspec import Struct

from pools.domain.pool import ANY_SOURCE, Pool, PoolKind, in_order, pool_name
from registry.domain.capability import (
    Capabilities,
    LanguageCapabilities,
    Pair,
    language_pairs,
    usable_languages,
)


@dataclass(frozen=True, slots=True)
class PoolRules:
    """The settings of generation. Raises ValueError where they make no sense."""

    min_nodes_per_pool: int = 1
    max_pools: int = 50
    enable_mixed_pools: bool = True
    require_semantic: bool = True

    def __post_init__(self) -> None:
        if self.min_nodes_per_pool < 1:
            raise ValueError(
                f"SCHED_MIN_NODES_PER_POOL is {self.min_nodes_per_pool}; it must be at least 1"
            )
        if self.max_pools < 0:
            raise ValueError(f"SCHED_MAX_POOLS is {self.max_pools}; it must be at least 0")


class Generation(Struct, frozen=True):
    """The pools in order of name, and the id that the next new pool will get."""

    pools: tuple[Pool, ...]
    next_pool_id: int


Census = Mapping[LanguageCapabilities | None, int]
"""How many nodes have which usable languages."""


def census(capabilities: Iterable[Capabilities], rules: PoolRules) -> Census:
    """Count nodes, one `capabilities` each: they come in thousands, what differs in dozens."""
    semantic = rules.require_semantic
    return Counter(usable_languages(each, require_semantic=semantic) for each in capabilities)


def generate(
    nodes: Census,
    *,
    rules: PoolRules,
    previous: Sequence[Pool] = (),
    next_pool_id: int = 1,
    pinned: frozenset[Pair] = frozenset(),
    excluded: frozenset[Pair] = frozenset(),
    keep: Collection[Pool] = (),
) -> Generation:
    """The pools for these nodes.

    `pinned` pairs always have a pool, outside the cap; `excluded` ones never, pinned or not; in
    both the source may be "*". A pool that `previous` has keeps its id, whatever its kind; a new
    or returning one takes the next id, so an id never means two pools. Raises ValueError where a
    pinned pair is none. Pools in `keep` that have too few nodes now stay for this time, so that a
    node that comes and goes changes nothing; a pool cut by the cap goes.
    """
    exact, mixed = _count_nodes(nodes, rules)
    chosen: dict[str, tuple[PoolKind, Pair]] = {}
    for kind, pairs in (
        (PoolKind.PINNED, iter(sorted(pinned))),
        (PoolKind.EXACT, _ranked(exact, rules)),
        (PoolKind.MIXED, _ranked(mixed, rules)),
    ):
        limit = rules.max_pools if kind is PoolKind.EXACT else None
        _choose(chosen, kind, pairs, excluded=excluded, limit=limit)
    if keep:
        enough = {*_ranked(exact, rules), *_ranked(mixed, rules)}
        for pool in keep:
            wanted = pool.kind is not PoolKind.MIXED or rules.enable_mixed_pools
            lost = pool.kind is not PoolKind.PINNED and (pool.src, pool.tgt) not in enough
            if wanted and lost and (pool.src, pool.tgt) not in excluded:
                chosen.setdefault(pool.name, (pool.kind, (pool.src, pool.tgt)))
    return _numbered(chosen, previous, next_pool_id)


def refreeze(pools: Iterable[Pool], *, next_pool_id: int) -> Generation:
    """These very pools again, under their own ids."""
    frozen = in_order(pools)
    return Generation(frozen, max((next_pool_id, *(pool.id + 1 for pool in frozen))))


def _count_nodes(groups: Census, rules: PoolRules) -> tuple[Counter[Pair], Counter[Pair]]:
    """How many nodes would be in each exact and in each mixed pool."""
    exact: Counter[Pair] = Counter()
    mixed: Counter[Pair] = Counter()
    for languages, nodes in groups.items():
        pairs = language_pairs(languages, rules.require_semantic)
        for pair in pairs:
            exact[pair] += nodes
        if rules.enable_mixed_pools:
            for tgt in {tgt for _, tgt in pairs}:
                mixed[ANY_SOURCE, tgt] += nodes
    return exact, mixed


def _ranked(nodes_by_pair: Counter[Pair], rules: PoolRules) -> Iterator[Pair]:
    """The pairs with enough nodes: most nodes first, then by name."""
    enough = (item for item in nodes_by_pair.items() if item[1] >= rules.min_nodes_per_pool)
    ranked = sorted(enough, key=lambda item: (-item[1], pool_name(*item[0]), item[0]))
    return (pair for pair, _ in ranked)


def _choose(
    chosen: dict[str, tuple[PoolKind, Pair]],
    kind: PoolKind,
    pairs: Iterator[Pair],
    *,
    excluded: frozenset[Pair],
    limit: int | None,
) -> None:
    """Add the first `limit` pairs whose name is free.

    A name is taken when its pair was pinned, or, since codes may contain hyphens, when another
    pair spells the same (`a-b` to `c`, `a` to `b-c`): the better placed one has it, and the other
    is served like a pair that the cap cut off.
    """
    for pair in pairs:
        if limit == 0:
            return
        name = pool_name(*pair)
        if name in chosen or pair in excluded:
            continue
        chosen[name] = (kind, pair)
        limit = None if limit is None else limit - 1


def _numbered(
    chosen: dict[str, tuple[PoolKind, Pair]], previous: Sequence[Pool], next_pool_id: int
) -> Generation:
    ids = {(pool.src, pool.tgt): pool.id for pool in previous}
    next_pool_id = max(next_pool_id, *(pool.id + 1 for pool in previous), 1)
    pools = []
    for name, (kind, pair) in sorted(chosen.items()):
        pool_id = ids.get(pair)
        if pool_id is None:
            pool_id, next_pool_id = next_pool_id, next_pool_id + 1
        pools.append(Pool(id=pool_id, name=name, kind=kind, src=pair[0], tgt=pair[1]))
    return Generation(tuple(pools), next_pool_id)
