"""The index against a naive model: who is in which pool after any history."""

import random
from collections.abc import Iterable
from itertools import product
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pools.domain.generation import Generation, PoolRules, census
from pools.domain.generation import generate as generate_for
from pools.domain.index import Choice, PoolIndex
from pools.domain.pool import Pool, PoolKind, pool_name
from registry.domain.capability import (
    Capabilities,
    LanguageCapabilities,
    LanguagePair,
    NmtCapability,
    NmtRule,
    ServiceCapability,
    ServiceType,
    refusal,
)


def generate(nodes: Iterable[Capabilities], *, rules: PoolRules, **more: Any) -> Generation:
    """The pools for these nodes, one `capabilities` each."""
    return generate_for(census(nodes, rules), rules=rules, **more)


CODES = ("en", "zh", "zh-CN", "CN-en")  # zh > CN-en and zh-CN > en spell the same
PAIRS = [pair for pair in product(CODES, CODES) if pair[0] != pair[1]]
RULES = PoolRules()
READY = tuple(ServiceCapability(service, ready=True) for service in ServiceType)
UNREADY = (ServiceCapability(ServiceType.ASR, ready=False, reason="loading"), *READY[1:])


def node(*pairs: str, services: tuple[ServiceCapability, ...] = READY) -> Capabilities:
    """A node of these pairs, each spelled `src>tgt`."""
    listed = tuple(LanguagePair(*pair.split(">")) for pair in pairs)
    return Capabilities(services, LanguageCapabilities(supported_language_pairs=listed))


def pool(number: int, src: str, tgt: str, kind: PoolKind | None = None) -> Pool:
    kind = kind or (PoolKind.MIXED if src == "*" else PoolKind.EXACT)
    return Pool(number, pool_name(src, tgt), kind, src, tgt)


def index_of(pools: list[Pool], nodes: dict[str, Capabilities]) -> PoolIndex:
    index = PoolIndex(RULES)
    index.configure(pools)
    for node_id, capabilities in nodes.items():
        index.put(node_id, capabilities)
    return index


def supported(capabilities: Capabilities, src: str, tgt: str) -> bool:
    return refusal(capabilities, src, tgt, require_semantic=True) is None


def belongs(capabilities: Capabilities, pool: Pool) -> bool:
    sources = CODES if pool.takes_any_source else (pool.src,)
    return any(supported(capabilities, src, pool.tgt) for src in sources)


node_ids = st.sampled_from([f"n{number}" for number in range(6)])
some_pairs = st.lists(st.sampled_from(PAIRS), max_size=4, unique=True)
listed_nodes = st.builds(
    lambda pairs, services: node(*(">".join(pair) for pair in pairs), services=services),
    some_pairs,
    st.sampled_from([READY, READY, UNREADY]),
)
some_codes = st.lists(st.sampled_from(CODES), max_size=4, unique=True).map(tuple)
spoken_nodes = st.builds(
    lambda asr, tts: Capabilities(
        READY,
        LanguageCapabilities(
            asr_languages=asr,
            tts_languages=tts,
            semantic_languages=CODES,
            nmt_capabilities=(NmtCapability("m", CODES, NmtRule.ANY_TO_ANY),),
        ),
    ),
    some_codes,
    some_codes,
)
silent_nodes = st.just(Capabilities(READY, None))
capabilities = listed_nodes | spoken_nodes | silent_nodes
pool_sets = st.lists(
    st.builds(
        lambda number, pair, pinned: pool(number, *pair, PoolKind.PINNED if pinned else None),
        st.integers(1, 9),
        st.sampled_from([*PAIRS, *(("*", code) for code in CODES)]),
        st.booleans(),
    ),
    max_size=8,
    unique_by=(lambda pool: pool.name, lambda pool: pool.id),
)


class IndexMachine(RuleBasedStateMachine):
    """Does to the index and to two plain dicts the same, and compares all that can be asked."""

    def __init__(self) -> None:
        super().__init__()
        self.index = PoolIndex(RULES)
        self.nodes: dict[str, Capabilities] = {}
        self.pools: list[Pool] = []
        self.content_of: dict[str, object] = {}
        self.digest_of: dict[object, str] = {}

    @rule(node_id=node_ids, given=capabilities)
    def put(self, node_id: str, given: Capabilities) -> None:
        before = self.nodes.get(node_id)
        changed = self.index.put(node_id, given)
        if before == given:
            assert not changed
        if before is None or any(
            supported(before, *pair) != supported(given, *pair) for pair in PAIRS
        ):
            assert changed
        self.nodes[node_id] = given

    @precondition(lambda self: self.nodes)
    @rule(data=st.data())
    def put_again(self, data: st.DataObject) -> None:
        node_id = data.draw(st.sampled_from(sorted(self.nodes)))
        assert not self.index.put(node_id, self.nodes[node_id])

    @rule(node_id=node_ids)
    def remove(self, node_id: str) -> None:
        assert self.index.remove(node_id) == (self.nodes.pop(node_id, None) is not None)

    @rule(pools=pool_sets)
    def configure(self, pools: list[Pool]) -> None:
        self.index.configure(pools)
        self.pools = pools

    @rule(cap=st.integers(0, 3))
    def configure_what_is_generated(self, cap: int) -> None:
        made = generate(self.nodes.values(), rules=PoolRules(max_pools=cap))
        self.configure(list(made.pools))

    @invariant()
    def members_and_counts_are_those_of_the_model(self) -> None:
        expected = {
            pool.name: {name for name, has in self.nodes.items() if belongs(has, pool)}
            for pool in self.pools
        }
        assert {pool.name: set(self.index.members(pool.name)) for pool in self.pools} == expected
        assert self.index.counts() == {name: len(held) for name, held in expected.items()}
        for pool in self.pools:
            assert len(self.index.members(pool.name)) == len(expected[pool.name])
        assert self.index.nodes == self.nodes.keys()
        assert self.index.pools == tuple(self.pools)

    @invariant()
    def the_census_counts_every_node(self) -> None:
        rules = PoolRules(max_pools=99)
        assert self.index.census() == census(self.nodes.values(), rules)

    @invariant()
    def pools_of_a_node_are_those_of_the_model_in_order(self) -> None:
        for node_id, has in self.nodes.items():
            expected = tuple(pool.name for pool in self.pools if belongs(has, pool))
            assert self.index.pools_of(node_id) == expected
            assert all(
                self.index.supports(node_id, *pair) == supported(has, *pair) for pair in PAIRS
            )

    @invariant()
    def the_choice_is_that_of_the_contract(self) -> None:
        by_pair = {(pool.src, pool.tgt): pool for pool in self.pools}
        for src, tgt in [*PAIRS, *(("auto", code) for code in CODES)]:
            mixed = by_pair.get(("*", tgt))
            expected = None
            if src == "auto":
                expected = Choice(mixed, filtered=False) if mixed else None
            elif (src, tgt) in by_pair:
                expected = Choice(by_pair[src, tgt], filtered=False)
            elif mixed and any(supported(has, src, tgt) for has in self.nodes.values()):
                expected = Choice(mixed, filtered=True)
            assert self.index.choose_pool(src, tgt) == expected

    @invariant()
    def i4_an_index_of_the_same_content_has_the_same_digest_and_no_other_has(self) -> None:
        order = random.Random(len(self.content_of))
        pools, ids = list(self.pools), list(self.nodes)
        order.shuffle(pools)
        order.shuffle(ids)
        other = index_of(pools, {name: self.nodes[name] for name in ids})
        assert other.digest == self.index.digest
        content = (
            frozenset((p.id, p.name, p.kind, p.src, p.tgt) for p in self.pools),
            frozenset(
                (p.name, name)
                for p in self.pools
                for name, has in self.nodes.items()
                if belongs(has, p)
            ),
        )
        assert self.digest_of.setdefault(content, other.digest) == other.digest
        assert self.content_of.setdefault(other.digest, content) == content


IndexMachine.TestCase.settings = settings(deadline=None, max_examples=60, stateful_step_count=25)
TestTheIndexAgreesWithANaiveModel = IndexMachine.TestCase


def test_i4_two_indexes_with_other_histories_but_the_same_content_have_equal_digests():
    pools = [pool(1, "zh", "en"), pool(2, "*", "en"), pool(3, "en", "zh")]
    straight = index_of(pools, {"a": node("zh>en"), "b": node("zh>en", "en>zh")})
    winding = index_of([pool(9, "en", "zh")], {"c": node("en>zh"), "a": node("en>zh")})
    winding.put("b", node("en>zh", "zh>en"))
    winding.configure(pools[::-1])
    winding.put("a", node("zh>en"))
    winding.remove("c")
    winding.put("idle", Capabilities(READY, None))  # in no pool: no part of the content
    assert winding.digest == straight.digest
    assert len(straight.digest) == 32


@pytest.mark.parametrize(
    ("pools", "nodes"),
    [
        ([pool(1, "zh", "en")], {"a": node("zh>en")}),
        ([pool(1, "zh", "en")], {"a": node("zh>en"), "c": node("zh>en")}),
        ([pool(1, "zh", "en")], {"a": node("zh>en"), "b": node("en>zh")}),
        ([pool(1, "zh", "en")], {}),
        ([pool(2, "zh", "en")], {"a": node("zh>en"), "b": node("zh>en")}),
        ([pool(1, "zh", "en", PoolKind.PINNED)], {"a": node("zh>en"), "b": node("zh>en")}),
        ([pool(1, "zh", "en"), pool(2, "*", "zh")], {"a": node("zh>en"), "b": node("zh>en")}),
    ],
)
def test_i4_an_index_of_other_content_has_another_digest(pools, nodes):
    here = index_of([pool(1, "zh", "en")], {"a": node("zh>en"), "b": node("zh>en")})
    assert index_of(pools, nodes).digest != here.digest


def test_an_empty_index_has_a_digest_and_no_members():
    index = PoolIndex(RULES)
    assert index.digest == index_of([], {"a": node("zh>en")}).digest
    assert list(index.members("zh-en")) == []
    assert index.counts() == {}
    assert index.pools_of("a") == ()
    assert not index.supports("a", "zh", "en")
    assert index.choose_pool("zh", "en") is None
    assert index.choose_pool("auto", "en") is None


def test_a_pair_cut_off_by_the_cap_goes_filtered_to_the_mixed_pool():
    nodes = {"a": node("zh>en"), "b": node("zh>en"), "c": node("zh-CN>en")}
    made = generate(nodes.values(), rules=PoolRules(max_pools=1))
    index = index_of(list(made.pools), nodes)
    mixed = next(pool for pool in made.pools if pool.name == "*-en")
    assert [pool.name for pool in made.pools] == ["*-en", "zh-en"]
    assert index.choose_pool("zh-CN", "en") == Choice(mixed, filtered=True)
    assert [name for name in index.members("*-en") if index.supports(name, "zh-CN", "en")] == ["c"]
    assert index.choose_pool("zh", "en") == Choice(made.pools[1], filtered=False)


def test_a_pair_nobody_supports_has_no_pool_although_its_mixed_pool_exists():
    index = index_of([pool(1, "*", "en")], {"a": node("zh>en")})
    assert index.choose_pool("zh-CN", "en") is None
    index.put("b", node("zh-CN>en"))
    assert index.choose_pool("zh-CN", "en") is not None
    index.remove("b")
    assert index.choose_pool("zh-CN", "en") is None


def test_of_two_pairs_that_spell_the_same_the_one_without_the_name_goes_filtered():
    index = index_of(
        [pool(1, "zh-CN", "en"), pool(2, "*", "CN-en")], {"a": node("zh-CN>en", "zh>CN-en")}
    )
    assert index.choose_pool("zh-CN", "en") == Choice(pool(1, "zh-CN", "en"), filtered=False)
    assert index.choose_pool("zh", "CN-en") == Choice(pool(2, "*", "CN-en"), filtered=True)


def test_a_new_configuration_leaves_the_rosters_of_the_pools_that_stay():
    index = index_of([pool(1, "zh", "en"), pool(2, "en", "zh")], {"a": node("zh>en")})
    roster = index.members("zh-en")
    index.configure([pool(1, "zh", "en"), pool(3, "*", "en")])
    assert index.members("zh-en") is roster
    assert list(index.members("*-en")) == ["a"]


def test_a_pool_that_comes_under_the_name_of_one_that_goes_has_its_own_nodes():
    index = index_of(
        [pool(1, "zh-CN", "en")], {"a": node("zh-CN>en"), "b": node("zh-CN>en", "zh>CN-en")}
    )
    index.configure([pool(2, "zh", "CN-en")])
    assert list(index.members("zh-CN-en")) == ["b"]
    assert index.pools_of("a") == ()


def test_an_exact_pool_may_be_chosen_empty_until_the_leader_retires_it():
    index = index_of([pool(1, "zh", "en")], {})
    assert index.choose_pool("zh", "en") == Choice(pool(1, "zh", "en"), filtered=False)


def test_a_node_whose_service_fails_leaves_its_pools_and_comes_back():
    index = index_of([pool(1, "zh", "en")], {"a": node("zh>en")})
    assert index.put("a", node("zh>en", services=UNREADY))
    assert list(index.members("zh-en")) == []
    assert index.put("a", node("zh>en"))
    assert list(index.members("zh-en")) == ["a"]


def test_a_reason_or_an_implementation_changes_nothing():
    index = index_of([pool(1, "zh", "en")], {"a": node("zh>en")})
    other = (ServiceCapability(ServiceType.ASR, ready=True, reason="warm"), *READY[1:])
    assert not index.put("a", node("zh>en", services=other))


def test_members_are_counted_once_through_a_thousand_changes():
    """Order of removal is where a swap-with-the-last roster would go wrong."""
    draws = random.Random(11)
    index, here = index_of([pool(1, "zh", "en")], {}), set()
    for _ in range(1_000):
        name = f"n{draws.randrange(40)}"
        if draws.random() < 0.5:
            index.put(name, node("zh>en"))
            here.add(name)
        else:
            index.remove(name)
            here.discard(name)
        assert sorted(index.members("zh-en")) == sorted(here)


def test_auto_is_no_language_even_if_a_node_says_so():
    assert not index_of([], {"a": node("auto>en")}).supports("a", "auto", "en")
