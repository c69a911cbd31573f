"""Which node is in which pool: kept in memory by each instance, updated in place.

Nodes with the same usable languages share one profile, where their pairs and pools are worked out
once; a node itself costs one entry in the roster of each of its pools.

Not promised: that a member is alive, has room or is not draining; membership knows capabilities
only. Not thread-safe. The order of members follows history and differs between instances.
"""

from collections import Counter
from collections.abc import Iterable, KeysView, Sequence
from hashlib import blake2b

import msgspec
from msgspec import Struct

from pools.domain.generation import Census, PoolRules
from pools.domain.pool import Pool, in_order
from registry.domain.capability import (
    AUTO,
    Capabilities,
    LanguageCapabilities,
    Pair,
    language_pairs,
    refusal,
    usable_languages,
)


class Choice(Struct, frozen=True):
    """The pool of a task. If `filtered`, only those members count that support its pair."""

    pool: Pool
    filtered: bool


class PoolIndex:
    """Pools, the known nodes, and who is in what."""

    def __init__(self, rules: PoolRules) -> None:
        self._rules = rules
        self._pools: tuple[Pool, ...] = ()
        self._exact: dict[Pair, Pool] = {}
        self._mixed: dict[str, Pool] = {}
        self._rosters: dict[str, _Roster] = {}
        self._profiles: dict[LanguageCapabilities | None, _Profile] = {}
        self._profile_of: dict[str, _Profile] = {}
        # Profiles, not nodes: a put then counts pairs only when it brings a profile or takes one.
        self._profiles_by_pair: Counter[Pair] = Counter()
        self._pools_digest: int | None = None  # Worked out when it is asked for.
        self._members_digest = 0

    @property
    def pools(self) -> tuple[Pool, ...]:
        """The pools as configured."""
        return self._pools

    @property
    def nodes(self) -> KeysView[str]:
        """The ids of all known nodes, in pools or not; a live view."""
        return self._profile_of.keys()

    @property
    def digest(self) -> str:
        """32 hex digits, equal on two instances exactly when pools and members are.

        The XOR of one hash per member node, over its id and its pools, makes it independent of
        order and cheap to keep: it guards against drift, not against an attacker who picks ids.
        """
        if self._pools_digest is None:
            self._pools_digest = _pools_digest(self._pools)
        return f"{self._pools_digest ^ self._members_digest:032x}"

    def census(self) -> Census:
        """How many of the known nodes have which usable languages."""
        return {languages: profile.nodes for languages, profile in self._profiles.items()}

    def configure(self, pools: Sequence[Pool]) -> None:
        """Take these pools, whose names are unique, and put every known node into its own."""
        before, self._pools = self._pools, tuple(pools)
        self._exact = {(p.src, p.tgt): p for p in pools if not p.takes_any_source}
        self._mixed = {p.tgt: p for p in pools if p.takes_any_source}
        self._pools_digest = None
        # One pool of many changes as a rule: the rosters of the others stay what they are.
        pairs = {(p.src, p.tgt) for p in before}.intersection((p.src, p.tgt) for p in pools)
        came = [p for p in pools if (p.src, p.tgt) not in pairs]
        for pool in before:
            if (pool.src, pool.tgt) not in pairs:
                del self._rosters[pool.name]
        self._rosters.update((pool.name, _Roster()) for pool in came)
        self._regroup(frozenset(pool.name for pool in came))

    def put(self, node_id: str, capabilities: Capabilities) -> bool:
        """Add the node or give it these capabilities; whether that changed its pairs' grounds."""
        semantic = self._rules.require_semantic
        languages = usable_languages(capabilities, require_semantic=semantic)
        before = self._profile_of.get(node_id)
        after = self._profiles.get(languages)
        if before is not None and before is after:
            return False
        if after is None:
            after = self._open_profile(languages)
        after.nodes += 1
        self._profile_of[node_id] = after
        self._move(node_id, before, after)
        return True

    def remove(self, node_id: str) -> bool:
        """Forget the node; whether it was known."""
        before = self._profile_of.pop(node_id, None)
        if before is None:
            return False
        self._move(node_id, before, None)
        return True

    def members(self, pool_name: str) -> Sequence[str]:
        """The nodes of a pool, none if there is no such pool: a live list, indexed in O(1).

        Only to be read, and not to be held across an await.
        """
        roster = self._rosters.get(pool_name)
        return roster.nodes if roster is not None else ()

    def counts(self) -> dict[str, int]:
        """How many nodes each pool has."""
        return {name: len(roster.nodes) for name, roster in self._rosters.items()}

    def pools_of(self, node_id: str) -> tuple[str, ...]:
        """The names of the pools that a node is in, in the order of the configuration."""
        profile = self._profile_of.get(node_id)
        return profile.pools if profile is not None else ()

    def supports(self, node_id: str, src: str, tgt: str) -> bool:
        """Whether a known node supports the pair; "auto" and "*" are no languages."""
        profile = self._profile_of.get(node_id)
        return profile is not None and (src, tgt) in profile.pairs

    def refusal(self, capabilities: Capabilities, src: str, tgt: str) -> str | None:
        """Why a node with these capabilities does not support the pair; None when it does."""
        semantic = self._rules.require_semantic
        return refusal(capabilities, src, tgt, require_semantic=semantic)

    def choose_pool(self, src: str, tgt: str) -> Choice | None:
        """The pool for a task, or None where there is none for it.

        "auto" goes to `*-tgt`, a language to its own pool. A pair that has nodes but no pool was
        cut off by the cap, or is too rare or too new: it goes to those members of `*-tgt` that
        support it. An unfiltered pool may be empty: it exists until the leader retires it.
        """
        if src == AUTO:
            mixed = self._mixed.get(tgt)
            return Choice(mixed, filtered=False) if mixed is not None else None
        exact = self._exact.get((src, tgt))
        if exact is not None:
            return Choice(exact, filtered=False)
        mixed = self._mixed.get(tgt)
        # Whoever supports the pair is a member of `*-tgt`, so no member needs to be looked at.
        if mixed is None or (src, tgt) not in self._profiles_by_pair:
            return None
        return Choice(mixed, filtered=True)

    def _move(self, node_id: str, before: "_Profile | None", after: "_Profile | None") -> None:
        """Take the node from the pools of one profile to those of another."""
        old = before.pools if before is not None else ()
        new = after.pools if after is not None else ()
        for name in set(old).difference(new):
            self._rosters[name].remove(node_id)
        for name in set(new).difference(old):
            self._rosters[name].extend((node_id,))
        if before is not None:
            self._members_digest ^= before.member_digest(node_id)
            self._leave_profile(before)
        if after is not None:
            self._members_digest ^= after.member_digest(node_id)

    def _regroup(self, came: frozenset[str]) -> None:
        """Take profiles to the pools as configured, their nodes to the rosters of those in `came`.

        A pool that came may have the name of one that went, so equal names do not say enough.
        """
        entered = {profile: profile.pools_among(self._pools) for profile in self._profiles.values()}
        moved: dict[_Profile, list[str]] = {
            profile: []
            for profile, names in entered.items()
            if names != profile.pools or not came.isdisjoint(names)
        }
        if not moved:
            return
        for node_id, profile in self._profile_of.items():
            if profile in moved:
                moved[profile].append(node_id)
        for profile, node_ids in moved.items():
            self._shift_digest(profile, node_ids)
            profile.enter(entered[profile])
            self._shift_digest(profile, node_ids)
            for name in came.intersection(profile.pools):
                self._rosters[name].extend(node_ids)

    def _shift_digest(self, profile: "_Profile", node_ids: Sequence[str]) -> None:
        """Add the nodes' parts to the digest, or take them from it."""
        for node_id in node_ids:
            self._members_digest ^= profile.member_digest(node_id)

    def _open_profile(self, languages: LanguageCapabilities | None) -> "_Profile":
        pairs = language_pairs(languages, self._rules.require_semantic)
        profile = self._profiles[languages] = _Profile(languages, pairs)
        profile.enter(profile.pools_among(self._pools))
        self._profiles_by_pair.update(pairs)
        return profile

    def _leave_profile(self, profile: "_Profile") -> None:
        """One node fewer has it; with the last one it goes, and its pairs are counted down."""
        profile.nodes -= 1
        if profile.nodes:
            return
        del self._profiles[profile.languages]
        for pair in profile.pairs:
            self._profiles_by_pair[pair] -= 1
            if not self._profiles_by_pair[pair]:
                del self._profiles_by_pair[pair]


class _Profile:
    """What nodes with the same usable languages have in common."""

    __slots__ = ("_key", "languages", "nodes", "pairs", "pools", "targets")

    def __init__(self, languages: LanguageCapabilities | None, pairs: frozenset[Pair]) -> None:
        self.languages = languages
        self.pairs = pairs
        self.targets = {tgt for _, tgt in pairs}
        self.nodes = 0
        self.enter(())

    def pools_among(self, pools: Iterable[Pool]) -> tuple[str, ...]:
        """The names of those of these pools that its nodes are in."""
        return tuple(
            pool.name
            for pool in pools
            if (
                pool.tgt in self.targets
                if pool.takes_any_source
                else (pool.src, pool.tgt) in self.pairs
            )
        )

    def enter(self, names: tuple[str, ...]) -> None:
        """Let these be the pools of its nodes."""
        self.pools = names
        self._key = blake2b(msgspec.json.encode(sorted(names)), digest_size=16).digest()

    def member_digest(self, node_id: str) -> int:
        """A node's part of the digest; nothing for a node that is in no pool."""
        if not self.pools:
            return 0
        hashed = blake2b(node_id.encode(), digest_size=16, key=self._key)
        return int.from_bytes(hashed.digest())


class _Roster:
    """Members of one pool: random access, addition and removal, each in O(1)."""

    __slots__ = ("_positions", "nodes")

    def __init__(self) -> None:
        self.nodes: list[str] = []
        self._positions: dict[str, int] = {}

    def extend(self, node_ids: Sequence[str]) -> None:
        start = len(self.nodes)
        self.nodes.extend(node_ids)
        self._positions.update(zip(node_ids, range(start, len(self.nodes)), strict=True))

    def remove(self, node_id: str) -> None:
        position = self._positions.pop(node_id)
        last = self.nodes.pop()
        if last != node_id:  # the last one fills the gap
            self.nodes[position] = last
            self._positions[last] = position


def _pools_digest(pools: Iterable[Pool]) -> int:
    hashed = blake2b(msgspec.json.encode(in_order(pools)), digest_size=16)
    return int.from_bytes(hashed.digest())
