"""Which pools there should be: section 5 of the contract, and what an id promises."""

from collections import Counter
from collections.abc import Iterable
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pools.domain.generation import Generation, PoolRules, census
from pools.domain.generation import generate as generate_for
from pools.domain.pool import Pool, PoolKind
from registry.domain.capability import (
    Capabilities,
    LanguageCapabilities,
    LanguagePair,
    NmtCapability,
    NmtRule,
    Pair,
    ServiceCapability,
    ServiceType,
    supports,
)


def generate(nodes: Iterable[Capabilities], *, rules: PoolRules, **more: Any) -> Generation:
    """The pools for these nodes, one `capabilities` each."""
    return generate_for(census(nodes, rules), rules=rules, **more)


CODES = ("de", "en", "fr", "zh")  # none with a hyphen: names cannot collide
READY = tuple(ServiceCapability(service, ready=True) for service in ServiceType)
WITHOUT_SEMANTIC = tuple(entry for entry in READY if entry.type is not ServiceType.SEMANTIC)
PLAIN = PoolRules()


def node(*pairs: str, services: tuple[ServiceCapability, ...] = READY) -> Capabilities:
    """A node of these pairs, each spelled `src>tgt`."""
    listed = tuple(LanguagePair(*pair.split(">")) for pair in pairs)
    return Capabilities(services, LanguageCapabilities(supported_language_pairs=listed))


def names(generation: Generation) -> list[str]:
    return [pool.name for pool in generation.pools]


def ids(generation: Generation) -> dict[str, int]:
    return {pool.name: pool.id for pool in generation.pools}


any_pair = st.sampled_from([pair for pair in product(CODES, CODES) if pair[0] != pair[1]])
any_source = st.sampled_from([("*", code) for code in CODES])
listed_nodes = st.lists(any_pair, max_size=5).map(lambda pairs: node(*(">".join(p) for p in pairs)))
languages = st.lists(st.sampled_from(CODES), max_size=4).map(tuple)
spoken_nodes = st.builds(
    lambda services, asr, tts, semantic: Capabilities(
        services,
        LanguageCapabilities(
            asr_languages=asr,
            tts_languages=tts,
            semantic_languages=semantic,
            nmt_capabilities=(NmtCapability("m", CODES, NmtRule.ANY_TO_ANY),),
        ),
    ),
    st.sampled_from([READY, READY, WITHOUT_SEMANTIC, ()]),
    languages,
    languages,
    languages,
)
nodes = st.lists(listed_nodes | spoken_nodes, max_size=8)
rules = st.builds(
    PoolRules,
    min_nodes_per_pool=st.integers(1, 3),
    max_pools=st.integers(0, 8),
    enable_mixed_pools=st.booleans(),
    require_semantic=st.booleans(),
)
wishes = st.frozensets(any_pair | any_source, max_size=3)


def reading_of_section_5(
    members: list[Capabilities], rules: PoolRules, pinned: frozenset[Pair], excluded: set[Pair]
) -> dict[str, PoolKind]:
    """Count node by node and pair by pair, then do what the text says."""
    semantic = rules.require_semantic
    exact: Counter[Pair] = Counter()
    mixed: Counter[Pair] = Counter()
    for each in members:
        done = {
            (src, tgt)
            for src, tgt in product(CODES, CODES)
            if supports(each, src, tgt, require_semantic=semantic)
        }
        exact.update(done)
        mixed.update({("*", tgt) for _, tgt in done})
    found = {"-".join(pair): PoolKind.PINNED for pair in pinned - excluded}
    free = [pair for pair in exact if pair not in excluded and pair not in pinned]
    free = [pair for pair in free if exact[pair] >= rules.min_nodes_per_pool]
    free.sort(key=lambda pair: "-".join(pair))
    free.sort(key=lambda pair: exact[pair], reverse=True)
    found |= {"-".join(pair): PoolKind.EXACT for pair in free[: rules.max_pools]}
    if rules.enable_mixed_pools:
        for pair in set(mixed) - excluded - pinned:
            if mixed[pair] >= rules.min_nodes_per_pool:
                found["-".join(pair)] = PoolKind.MIXED
    return found


@settings(deadline=None, max_examples=250)
@given(nodes, rules, wishes, wishes)
def test_the_pools_are_those_of_section_5(members, rules, pinned, excluded):
    made = generate(members, rules=rules, pinned=pinned, excluded=excluded)
    expected = reading_of_section_5(members, rules, pinned, excluded)
    assert {pool.name: pool.kind for pool in made.pools} == expected


@settings(deadline=None, max_examples=150)
@given(st.data(), nodes, nodes, rules, wishes, st.booleans())
def test_the_answer_is_the_same_in_any_order_of_nodes(data, before, after, rules, pinned, keep):
    previous = generate(before, rules=rules)
    one, two = (
        generate(
            order,
            rules=rules,
            previous=data.draw(st.permutations(previous.pools)),
            next_pool_id=previous.next_pool_id,
            pinned=pinned,
            keep=previous.pools if keep else (),
        )
        for order in (after, data.draw(st.permutations(after)))
    )
    assert one == two
    assert names(one) == sorted(names(one))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(nodes, wishes, st.booleans()), min_size=2, max_size=5), rules)
def test_an_id_never_means_two_pools_and_a_pool_keeps_its_own(rounds, rules):
    owner_of: dict[int, str] = {}
    last = Generation((), 1)
    for members, pinned, keep in rounds:
        made = generate(
            members,
            rules=rules,
            previous=last.pools,
            next_pool_id=last.next_pool_id,
            pinned=pinned,
            keep=last.pools if keep else (),
        )
        before = ids(last)
        for name, number in ids(made).items():
            assert owner_of.setdefault(number, name) == name
            if name in before:
                assert number == before[name]
            else:
                assert last.next_pool_id <= number < made.next_pool_id
        assert len(set(ids(made).values())) == len(made.pools)
        last = made


def test_the_first_pools_are_numbered_by_name_from_one():
    assert ids(generate([node("zh>en", "en>zh")], rules=PLAIN)) == {
        "*-en": 1,
        "*-zh": 2,
        "en-zh": 3,
        "zh-en": 4,
    }


def test_no_nodes_make_no_pools():
    assert generate([], rules=PLAIN, next_pool_id=9) == Generation((), 9)


def test_a_pair_with_fewer_nodes_than_the_minimum_has_no_pool():
    rules = PoolRules(min_nodes_per_pool=2)
    members = [node("zh>en"), node("zh>en", "de>en"), node("fr>zh")]
    assert names(generate(members, rules=rules)) == ["*-en", "zh-en"]


def test_a_mixed_pool_counts_nodes_not_pairs():
    rules = PoolRules(min_nodes_per_pool=2)
    assert names(generate([node("zh>en", "de>en", "fr>en")], rules=rules)) == []
    assert names(generate([node("zh>en"), node("de>en")], rules=rules)) == ["*-en"]


def test_the_cap_keeps_the_pairs_with_most_nodes_and_ties_go_by_name():
    rules = PoolRules(max_pools=2, enable_mixed_pools=False)
    members = [node("zh>en", "fr>en", "de>en"), node("zh>en")]
    assert names(generate(members, rules=rules)) == ["de-en", "zh-en"]


def test_the_cap_does_not_count_mixed_pools():
    made = generate([node("zh>en", "fr>de", "de>zh")], rules=PoolRules(max_pools=1))
    assert names(made) == ["*-de", "*-en", "*-zh", "de-zh"]


def test_a_cap_of_none_leaves_the_mixed_pools():
    assert names(generate([node("zh>en")], rules=PoolRules(max_pools=0))) == ["*-en"]


def test_mixed_pools_can_be_switched_off():
    made = generate([node("zh>en")], rules=PoolRules(enable_mixed_pools=False))
    assert names(made) == ["zh-en"]


def test_a_pinned_pool_exists_without_nodes_and_outside_the_cap():
    rules = PoolRules(max_pools=1, enable_mixed_pools=False)
    made = generate(
        [node("zh>en", "de>en")], rules=rules, pinned=frozenset({("fr", "en"), ("zh", "en")})
    )
    kinds = {pool.name: pool.kind for pool in made.pools}
    assert kinds == {
        "de-en": PoolKind.EXACT,
        "fr-en": PoolKind.PINNED,
        "zh-en": PoolKind.PINNED,
    }


def test_a_pin_may_name_any_source():
    made = generate([], rules=PLAIN, pinned=frozenset({("*", "en")}))
    assert made.pools == (Pool(1, "*-en", PoolKind.PINNED, "*", "en"),)


@pytest.mark.parametrize("pair", [("en", "en"), ("en", "*"), ("", "en"), ("en", ""), ("*", "*")])
def test_a_pin_that_is_no_pair_is_refused(pair: Pair):
    with pytest.raises(ValueError, match="no pair of two languages"):
        generate([], rules=PLAIN, pinned=frozenset({pair}))


def test_an_excluded_pair_has_no_pool_pinned_or_not_and_frees_its_place_under_the_cap():
    rules = PoolRules(max_pools=1, enable_mixed_pools=False)
    members = [node("zh>en", "de>en"), node("zh>en")]
    excluded = frozenset({("zh", "en"), ("fr", "en")})
    made = generate(members, rules=rules, excluded=excluded, pinned=frozenset({("fr", "en")}))
    assert names(made) == ["de-en"]


def test_an_excluded_mixed_pool_leaves_the_exact_one():
    made = generate([node("zh>en")], rules=PLAIN, excluded=frozenset({("*", "en")}))
    assert names(made) == ["zh-en"]


def test_semantic_counts_only_where_the_rules_require_it():
    members = [node("zh>en", services=WITHOUT_SEMANTIC)]
    assert names(generate(members, rules=PLAIN)) == []
    assert names(generate(members, rules=PoolRules(require_semantic=False))) == ["*-en", "zh-en"]


def _after(first: Generation, members: list[Capabilities], **more: object) -> Generation:
    return generate(
        members,
        rules=more.pop("rules", PLAIN),
        previous=first.pools,
        next_pool_id=first.next_pool_id,
        **more,
    )


def test_a_pool_that_stays_keeps_its_id_when_others_come_and_go():
    first = generate([node("en>zh", "zh>en")], rules=PLAIN)
    second = _after(first, [node("de>en", "zh>en")])
    assert ids(second)["zh-en"] == ids(first)["zh-en"] == 4
    assert ids(second)["*-en"] == ids(first)["*-en"] == 1
    assert ids(second)["de-en"] == 5


def test_a_pool_that_returns_gets_a_new_id():
    first = generate([node("zh>en")], rules=PLAIN)
    gone = _after(first, [])
    back = _after(gone, [node("zh>en")])
    assert gone == Generation((), 3)
    assert ids(back) == {"*-en": 3, "zh-en": 4}


def test_a_pool_keeps_its_id_when_an_operator_pins_it_and_lets_it_go_again():
    first = generate([node("zh>en")], rules=PLAIN)
    pinned = _after(first, [node("zh>en")], pinned=frozenset({("zh", "en")}))
    free = _after(pinned, [node("zh>en")])
    assert pinned.pools[1].kind is PoolKind.PINNED
    assert free == first


def test_the_next_id_is_beyond_every_previous_one_even_if_the_caller_forgot_it():
    previous = [Pool(41, "fr-en", PoolKind.EXACT, "fr", "en")]
    made = generate([node("zh>en")], rules=PLAIN, previous=previous)
    assert ids(made) == {"*-en": 42, "zh-en": 43}
    assert made.next_pool_id == 44


def test_a_lost_pool_stays_for_a_time_when_asked_to_and_goes_otherwise():
    first = generate([node("zh>en"), node("de>en")], rules=PLAIN)
    assert _after(first, [node("de>en")], keep=first.pools) == first
    assert names(_after(first, [node("de>en")])) == ["*-en", "de-en"]


def test_a_pool_below_the_minimum_is_lost_too_and_may_stay():
    rules = PoolRules(min_nodes_per_pool=2, enable_mixed_pools=False)
    first = generate([node("zh>en"), node("zh>en")], rules=rules)
    assert _after(first, [node("zh>en")], rules=rules, keep=first.pools) == first
    assert names(_after(first, [node("zh>en")], rules=rules)) == []


def test_a_pool_cut_by_the_cap_goes_although_lost_ones_stay():
    rules = PoolRules(max_pools=1, enable_mixed_pools=False)
    first = generate([node("zh>en")], rules=rules)
    second = _after(first, [node("zh>en", "de>en"), node("de>en")], rules=rules, keep=first.pools)
    assert names(second) == ["de-en"]


def test_an_excluded_or_unpinned_pool_does_not_stay():
    first = generate([node("zh>en")], rules=PLAIN, pinned=frozenset({("fr", "en")}))
    excluded = frozenset({("zh", "en")})
    assert names(_after(first, [], keep=first.pools, excluded=excluded)) == ["*-en"]


def test_of_two_pairs_that_spell_the_same_the_one_with_more_nodes_has_the_name():
    rules = PoolRules(enable_mixed_pools=False)
    one, two = node("a-b>c"), node("a>b-c")
    assert [(p.src, p.tgt) for p in generate([one, two, two], rules=rules).pools] == [("a", "b-c")]
    assert [(p.src, p.tgt) for p in generate([one, one, two], rules=rules).pools] == [("a-b", "c")]
    assert [(p.src, p.tgt) for p in generate([two, one], rules=rules).pools] == [("a", "b-c")]


def test_the_other_pair_of_a_name_is_another_pool_with_another_id():
    rules = PoolRules(enable_mixed_pools=False)
    first = generate([node("a-b>c")], rules=rules)
    second = _after(first, [node("a>b-c")], rules=rules)
    assert names(first) == names(second) == ["a-b-c"]
    assert (first.pools[0].id, second.pools[0].id) == (1, 2)


@pytest.mark.parametrize(
    ("given", "setting"),
    [
        ({"min_nodes_per_pool": 0}, "SCHED_MIN_NODES_PER_POOL is 0"),
        ({"max_pools": -1}, "SCHED_MAX_POOLS is -1"),
    ],
)
def test_rules_that_make_no_sense_are_refused_by_their_setting(given: dict, setting: str):
    with pytest.raises(ValueError, match=setting):
        PoolRules(**given)
