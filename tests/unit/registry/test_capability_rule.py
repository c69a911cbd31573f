"""Which node can do which pair: section 5 of the contract, read a second time and compared."""

from itertools import product

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.domain.capability import (
    Capabilities,
    LanguageCapabilities,
    LanguagePair,
    NmtCapability,
    NmtRule,
    ServiceCapability,
    ServiceType,
    capabilities_digest,
    refusal,
    supported_pairs,
    supports,
    usable_languages,
)

CODES = ("en", "zh", "de", "zh-CN")
ASKED = (*CODES, "auto", "*", "EN")
READY = tuple(ServiceCapability(service, ready=True) for service in ServiceType)


def reading_of_section_5(node: Capabilities, src: str, tgt: str, *, semantic: bool) -> bool:
    """The text, clause by clause, with no eye on how the code does it."""
    # "A node supports (src, tgt), src != tgt,"
    if src == tgt:
        return False
    # "when it is ready for every required service (asr, nmt, tts, and semantic if required), and"
    ready = {str(entry.type) for entry in node.capability_by_type if entry.ready}
    if not {"asr", "nmt", "tts", *(["semantic"] if semantic else [])} <= ready:
        return False
    given = node.language_capabilities or LanguageCapabilities()
    # "where `supported_language_pairs` is given: the pair is in it;"
    if given.supported_language_pairs is not None:
        return any(pair.src == src and pair.tgt == tgt for pair in given.supported_language_pairs)
    # "else: src in `asr_languages`, tgt in `tts_languages`,"
    if src not in (given.asr_languages or ()) or tgt not in (given.tts_languages or ()):
        return False
    # "some `nmt_capabilities` entry covers the pair by its rule"
    if not any(_covers(model, src, tgt) for model in given.nmt_capabilities or ()):
        return False
    # "and, if semantic is required, both in `semantic_languages`."
    return not semantic or {src, tgt} <= set(given.semantic_languages or ())


def _covers(model: NmtCapability, src: str, tgt: str) -> bool:
    pair = LanguagePair(src, tgt)
    match model.rule:
        case NmtRule.ANY_TO_ANY:
            both = src in model.languages and tgt in model.languages
            return both and pair not in (model.blocked_pairs or ())
        case NmtRule.ANY_TO_EN:
            return tgt == "en"
        case NmtRule.EN_TO_ANY:
            return src == "en"
        case NmtRule.SPECIFIC_PAIRS:
            return pair in (model.supported_pairs or ())


codes = st.sampled_from(CODES)
languages = st.lists(codes, max_size=6).map(tuple)
pairs = st.lists(st.builds(LanguagePair, codes, codes), max_size=6).map(tuple)
models = st.builds(
    NmtCapability,
    model_id=st.sampled_from(["m1", "m2"]),
    languages=languages,
    rule=st.sampled_from(NmtRule),
    blocked_pairs=st.none() | pairs,
    supported_pairs=st.none() | pairs,
)
language_capabilities = st.builds(
    LanguageCapabilities,
    supported_language_pairs=st.none() | st.none() | pairs,
    asr_languages=st.none() | languages | st.just(CODES),
    tts_languages=st.none() | languages | st.just(CODES),
    semantic_languages=st.none() | languages | st.just(CODES),
    nmt_capabilities=st.none() | st.lists(models, max_size=3).map(tuple),
)
# Most draws of the above are refused early; these get as far as the rules of the models.
speaking = st.builds(
    LanguageCapabilities,
    asr_languages=st.just(CODES),
    tts_languages=st.just(CODES),
    semantic_languages=st.just(CODES) | languages,
    nmt_capabilities=st.lists(models, min_size=1, max_size=3).map(tuple),
)
services = st.lists(
    st.builds(
        ServiceCapability,
        type=st.sampled_from(ServiceType),
        ready=st.booleans(),
        reason=st.none() | st.sampled_from(["loading", "no GPU"]),
        ready_impl_ids=st.none() | st.lists(st.sampled_from(["a", "b"]), max_size=3).map(tuple),
    ),
    max_size=6,
).map(tuple)
capabilities = st.builds(
    Capabilities,
    capability_by_type=st.just(READY) | services,
    language_capabilities=st.none() | language_capabilities | speaking,
) | st.builds(Capabilities, st.just(READY), speaking)


@settings(deadline=None, max_examples=300)
@given(capabilities, st.booleans())
def test_the_rule_is_what_section_5_says_for_every_pair(node: Capabilities, semantic: bool):
    expected = {
        (src, tgt)
        for src, tgt in product(ASKED, ASKED)
        if reading_of_section_5(node, src, tgt, semantic=semantic)
    }
    assert supported_pairs(node, require_semantic=semantic) == expected
    for src, tgt in product(ASKED, ASKED):
        held = supports(node, src, tgt, require_semantic=semantic)
        said = refusal(node, src, tgt, require_semantic=semantic)
        assert held == ((src, tgt) in expected)
        assert held == (said is None)
        assert said is None or said.strip()


@settings(deadline=None, max_examples=100)
@given(capabilities, st.booleans())
def test_nodes_with_equal_usable_languages_support_the_same_pairs(node: Capabilities, need: bool):
    usable = usable_languages(node, require_semantic=need)
    all_ready = Capabilities(READY, usable)
    assert supported_pairs(node, require_semantic=need) == supported_pairs(
        all_ready, require_semantic=need
    )


def _node(languages: LanguageCapabilities | None, *services: ServiceCapability) -> Capabilities:
    return Capabilities(services or READY, languages)


def _model(rule: NmtRule = NmtRule.ANY_TO_ANY, **more: object) -> tuple[NmtCapability, ...]:
    return (NmtCapability("m", CODES, rule, **more),)


ALL = LanguageCapabilities(
    asr_languages=CODES, tts_languages=CODES, semantic_languages=CODES, nmt_capabilities=_model()
)
LOADING = ServiceCapability(ServiceType.NMT, ready=False, reason="loading")


def _less(**changes: object) -> Capabilities:
    return _node(msgspec.structs.replace(ALL, **changes))


@pytest.mark.parametrize(
    ("node", "src", "words"),
    [
        (_node(ALL), "en", "source and target are both en"),
        (_node(ALL, READY[0], *READY[2:]), "zh", "nmt is not offered"),
        (_node(ALL, LOADING, READY[0], *READY[2:]), "zh", "nmt is not ready: loading"),
        (_node(ALL, *READY[:4]), "zh", "semantic is not offered"),
        (_node(None), "zh", "it gave no language_capabilities"),
        (_less(supported_language_pairs=()), "zh", "supported_language_pairs lacks zh-en"),
        (_less(asr_languages=("en",)), "zh", "asr_languages lacks zh"),
        (_less(tts_languages=None), "zh", "tts_languages lacks en"),
        (_less(nmt_capabilities=()), "zh", "no nmt_capabilities entry covers zh-en"),
        (_less(semantic_languages=("zh",)), "zh", "semantic_languages lacks en"),
    ],
)
def test_a_refusal_names_the_first_clause_that_fails(node: Capabilities, src: str, words: str):
    assert refusal(node, src, "en", require_semantic=True) == words


ZH_EN, EN_EN = LanguagePair("zh", "en"), LanguagePair("en", "en")
BUT_ZH_EN = {("en", "zh"), ("en", "de"), ("zh", "de"), ("de", "en"), ("de", "zh")}


@pytest.mark.parametrize(
    ("model", "pairs"),
    [
        (_model(), BUT_ZH_EN | {("zh", "en")}),
        (_model(blocked_pairs=(ZH_EN,)), BUT_ZH_EN),
        (_model(NmtRule.ANY_TO_EN, blocked_pairs=(ZH_EN,)), {("zh", "en"), ("de", "en")}),
        (_model(NmtRule.EN_TO_ANY), {("en", "zh"), ("en", "de")}),
        (_model(NmtRule.SPECIFIC_PAIRS, supported_pairs=(ZH_EN, EN_EN)), {("zh", "en")}),
        (_model(NmtRule.SPECIFIC_PAIRS), set()),
        ((NmtCapability("m", ("zh", "en"), NmtRule.ANY_TO_ANY),), {("zh", "en"), ("en", "zh")}),
    ],
)
def test_each_rule_of_a_model_covers_its_own_pairs(model: tuple, pairs: set):
    three = ("en", "zh", "de")
    node = _less(asr_languages=three, tts_languages=three, nmt_capabilities=model)
    assert supported_pairs(node, require_semantic=True) == pairs
    without_zh = Capabilities(
        READY,
        msgspec.structs.replace(node.language_capabilities, semantic_languages=("en", "de")),
    )
    assert supported_pairs(without_zh, require_semantic=True) == {p for p in pairs if "zh" not in p}


def test_a_service_with_one_ready_entry_among_several_is_ready():
    assert supports(_node(ALL, LOADING, *READY), "zh", "en", require_semantic=True)


def test_a_listed_pair_overrules_every_other_language_field():
    listed = LanguageCapabilities(supported_language_pairs=(LanguagePair("zh", "de"),))
    node = _node(listed)
    assert supported_pairs(node, require_semantic=True) == {("zh", "de")}


def test_an_empty_list_of_pairs_is_given_and_supports_nothing():
    assert supported_pairs(_less(supported_language_pairs=()), require_semantic=False) == set()


def test_languages_differ_by_case():
    assert not supports(_node(ALL), "zh-cn", "en", require_semantic=False)


def test_semantic_counts_only_where_it_is_required():
    node = _less(semantic_languages=())
    assert supports(node, "zh", "en", require_semantic=False)
    assert not supports(node, "zh", "en", require_semantic=True)


@pytest.mark.parametrize("code", ["", "e n", "en\n", "*", "{en}", "x" * 36, "日本"])
def test_a_decoded_language_code_is_bounded(code: str):
    given = msgspec.json.encode({"asr_languages": [code]})
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(given, type=LanguageCapabilities)


def test_a_node_may_name_256_languages_and_no_more():
    def decode(count: int) -> LanguageCapabilities:
        given = {"tts_languages": [f"l{number}" for number in range(count)]}
        return msgspec.json.decode(msgspec.json.encode(given), type=LanguageCapabilities)

    assert len(decode(256).tts_languages or ()) == 256
    with pytest.raises(msgspec.ValidationError):
        decode(257)


def _shuffled(draw: st.DrawFn, value: object) -> object:
    """The same builtins with each list in another order, some entries twice."""
    if isinstance(value, dict):
        return {key: _shuffled(draw, inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        inner = [_shuffled(draw, entry) for entry in value]
        twice = [*inner, *draw(st.lists(st.sampled_from(inner), max_size=2))] if inner else inner
        return draw(st.permutations(twice))
    return value


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_the_digest_knows_no_order_and_no_duplicates(data: st.DataObject):
    node = data.draw(capabilities)
    other = msgspec.convert(_shuffled(data.draw, msgspec.to_builtins(node)), Capabilities)
    assert capabilities_digest(other) == capabilities_digest(node)


@settings(deadline=None, max_examples=150)
@given(capabilities, capabilities)
def test_nodes_of_one_digest_support_the_same_pairs(one: Capabilities, two: Capabilities):
    if capabilities_digest(one) == capabilities_digest(two):
        assert supported_pairs(one, require_semantic=True) == supported_pairs(
            two, require_semantic=True
        )


@pytest.mark.parametrize(
    "other",
    [
        _node(None),
        _less(asr_languages=CODES[:-1]),
        _less(nmt_capabilities=_model(NmtRule.ANY_TO_EN)),
        _less(nmt_capabilities=_model(blocked_pairs=(LanguagePair("en", "zh"),))),
        _node(ALL, *READY[:-1]),
        _node(ALL, *READY[:-1], ServiceCapability(ServiceType.SEMANTIC, ready=False)),
        _node(ALL, *READY[:-1], ServiceCapability(ServiceType.SEMANTIC, ready=True, reason="x")),
    ],
)
def test_the_digest_tells_nodes_apart_that_differ_in_anything(other: Capabilities):
    assert capabilities_digest(other) != capabilities_digest(_node(ALL))


def test_the_digest_is_the_same_in_every_process():
    assert capabilities_digest(_node(None)) == "72732f52bd7d235c9c5abd950cd07136"
    assert len(capabilities_digest(_node(ALL))) == 32
