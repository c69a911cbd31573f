"""The published configuration: its order, its digest, what it changes, and what is refused."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pools.domain.errors import InvalidPoolConfig, PoolError
from pools.domain.pool import Pool, PoolKind, pool_name
from pools.domain.snapshot import (
    EMPTY,
    SUMMARY_LIMIT,
    Difference,
    PoolConfig,
    decode,
    difference,
    digest,
    encode,
)


def pool(number: int, src: str, tgt: str, kind: PoolKind | None = None) -> Pool:
    kind = kind or (PoolKind.MIXED if src == "*" else PoolKind.EXACT)
    return Pool(number, pool_name(src, tgt), kind, src, tgt)


def config(*pools: Pool, epoch: int = 1, version: int = 1, **more: object) -> PoolConfig:
    given = {"generated_at_ms": 5, "generated_by": "i-1", "reason": "new pair", "next_pool_id": 99}
    return PoolConfig(version=version, epoch=epoch, pools=pools, **{**given, **more})


ZH_EN, EN_ZH, ANY_EN = pool(1, "zh", "en"), pool(2, "en", "zh"), pool(3, "*", "en")


def test_a_later_epoch_is_greater_than_any_version_of_an_earlier_one():
    assert config(epoch=2, version=1).order > config(epoch=1, version=99).order
    assert config(epoch=2, version=2).order > config(epoch=2, version=1).order
    assert config(epoch=2, version=1).order > EMPTY.order


def test_a_configuration_is_read_back_as_it_was_written():
    here = config(ZH_EN, EN_ZH, ANY_EN, pool(4, "*", "zh", PoolKind.PINNED))
    assert decode(encode(here)) == here
    assert decode(encode(EMPTY)) == EMPTY


def test_unknown_fields_of_a_newer_scheduler_are_skipped():
    given = json.loads(encode(config(ZH_EN)))
    given["since"] = {"x": 1}
    given["pools"][0]["colour"] = "blue"
    assert decode(json.dumps(given).encode()) == config(ZH_EN)


def _with(**changes: object) -> bytes:
    return json.dumps({**json.loads(encode(config(ZH_EN))), **changes}).encode()


def _with_pool(**changes: object) -> bytes:
    return _with(pools=[{**json.loads(msgspec.json.encode(ZH_EN)), **changes}])


def _without(name: str) -> bytes:
    given = json.loads(encode(config(ZH_EN)))
    del given[name]
    return json.dumps(given).encode()


GARBAGE = {
    "nothing": b"",
    "no JSON": b"pools",
    "half of it": encode(config(ZH_EN))[:-5],
    "something behind it": encode(config(ZH_EN)) + b"x",
    "null": b"null",
    "a list": b"[]",
    "wrong UTF-8": encode(config(ZH_EN)).replace(b"i-1", b"\xff\xfe"),
    "deep nesting": b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "pools that are none": _with(pools="zh-en"),
    "a version below 0": _with(version=-1),
    "an epoch below 0": _with(epoch=-1),
    "an epoch in text": _with(epoch="1"),
    "a fraction": _with(version=1.5),
    "a number beyond all bounds": _with(version=1).replace(b'"version": 1', b'"version": 1e999'),
    "digits without end": _with(version=1).replace(b'"version": 1', b'"version": ' + b"9" * 9_000),
    "two pools of one name": encode(config(ZH_EN)).replace(
        b'"pools":[', b'"pools":[' + msgspec.json.encode(pool(7, "zh", "en")) + b","
    ),
    "two pools of one id": encode(config(ZH_EN)).replace(
        b'"pools":[', b'"pools":[' + msgspec.json.encode(pool(1, "de", "en")) + b","
    ),
    "an id still to be given": _with(next_pool_id=1),
    "a name of another pair": _with_pool(name="de-en"),
    "an unknown kind": _with_pool(kind="spare"),
    "a mixed pool of one source": _with_pool(kind="mixed"),
    "an exact pool of any source": _with_pool(src="*", name="*-en"),
    "a pool to itself": _with_pool(src="en", name="en-en"),
    "a pool to any": _with_pool(tgt="*", name="zh-*"),
    "a pool from nowhere": _with_pool(src="", name="-en"),
    **{f"no {name}": _without(name) for name in PoolConfig.__struct_encode_fields__},
}


@pytest.mark.parametrize("raw", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_refused_with_a_sentence(raw: bytes):
    with pytest.raises(InvalidPoolConfig, match=r"the pool configuration cannot be read: .") as no:
        decode(raw)
    assert isinstance(no.value, PoolError)


def _values(inner: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10), _values
)
mangled = st.builds(
    lambda name, value: json.dumps({**json.loads(encode(config(ZH_EN))), name: value}).encode(),
    st.sampled_from(PoolConfig.__struct_encode_fields__),
    anything,
)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=60) | anything.map(lambda it: json.dumps(it).encode()) | mangled)
def test_whatever_the_store_holds_is_a_configuration_or_refused(raw: bytes):
    try:
        read = decode(raw)
    except InvalidPoolConfig:
        return
    assert decode(encode(read)) == read
    assert len(digest(read)) == 32


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pools": (ZH_EN, pool(5, "zh", "en"))}, "the same name"),
        ({"pools": (ZH_EN, pool(1, "en", "zh"))}, "the same id"),
        ({"pools": (ZH_EN,), "next_pool_id": 1}, "still to be given"),
    ],
)
def test_a_configuration_that_contradicts_itself_cannot_be_made(changes: dict, words: str):
    with pytest.raises(ValueError, match=words):
        msgspec.structs.replace(EMPTY, **{"next_pool_id": 50, **changes})


def test_the_digest_knows_no_order_of_pools_and_no_words_of_the_leader():
    one = config(ZH_EN, EN_ZH)
    two = config(EN_ZH, ZH_EN, generated_by="i-2", generated_at_ms=9, reason="x", next_pool_id=7)
    assert digest(one) == digest(two)


@pytest.mark.parametrize(
    "other",
    [
        config(ZH_EN, EN_ZH, epoch=2),
        config(ZH_EN, EN_ZH, version=2),
        config(ZH_EN),
        config(ZH_EN, EN_ZH, ANY_EN),
        config(ZH_EN, pool(5, "en", "zh")),
        config(ZH_EN, pool(2, "en", "zh", PoolKind.PINNED)),
    ],
)
def test_the_digest_tells_other_configurations_apart(other: PoolConfig):
    assert digest(other) != digest(config(ZH_EN, EN_ZH))


def test_the_difference_names_what_came_what_went_and_what_changed():
    before = config(ZH_EN, EN_ZH, ANY_EN)
    after = config(pool(8, "zh", "en"), ANY_EN, pool(9, "de", "en"), pool(7, "*", "de"))
    assert difference(before, after) == Difference(
        added=("*-de", "de-en"), removed=("en-zh",), changed=("zh-en",)
    )


def test_a_pool_of_another_kind_or_another_pair_of_the_same_name_has_changed():
    assert difference(config(ZH_EN), config(pool(1, "zh", "en", PoolKind.PINNED))).changed == (
        "zh-en",
    )
    assert difference(config(pool(1, "a-b", "c")), config(pool(1, "a", "b-c"))).changed == (
        "a-b-c",
    )


def test_without_a_configuration_before_all_pools_came():
    assert difference(None, config(ZH_EN, EN_ZH)) == Difference(added=("en-zh", "zh-en"))
    assert difference(config(ZH_EN), config(ZH_EN, epoch=5)) == Difference()


def test_the_summary_says_it_in_one_line():
    assert Difference().summary() == "no change"
    assert Difference(added=("a-b",), removed=("c-d",)).summary() == (
        "+1 -1: added a-b; removed c-d"
    )
    assert Difference(changed=("a-b", "c-d")).summary() == "~2: changed a-b, c-d"


def test_a_long_summary_keeps_its_counts_and_is_cut():
    text = Difference(added=tuple(f"l{number}-en" for number in range(500))).summary()
    assert len(text) == SUMMARY_LIMIT
    assert text.startswith("+500: added l0-en, ")
    assert text.endswith("…")


@pytest.mark.parametrize(
    ("kind", "src", "tgt"),
    [
        (PoolKind.EXACT, "*", "en"),
        (PoolKind.MIXED, "zh", "en"),
        (PoolKind.EXACT, "en", "en"),
        (PoolKind.PINNED, "zh", "*"),
        (PoolKind.PINNED, "*", "*"),
        (PoolKind.EXACT, "", "en"),
        (PoolKind.EXACT, "zh", ""),
    ],
)
def test_a_pool_that_contradicts_itself_cannot_be_made(kind: PoolKind, src: str, tgt: str):
    with pytest.raises(ValueError, match="pool "):
        pool(1, src, tgt, kind)
