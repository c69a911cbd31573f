"""What a node can do: its capabilities as on the wire, and the rule that says which pairs follow.

A pair is (src, tgt). Language codes compare exactly as given, case included: `zh-CN` and `zh-cn`
are two languages. Order and duplicates in the lists carry no meaning.

Not promised: a struct built in Python is not checked against the bounds below, only a decoded one.
"""

from collections.abc import Set
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from itertools import product
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

Pair = tuple[str, str]

AUTO = "auto"
"""What a session says for "find out which"; in a node's lists it names no language."""

# The lookahead refuses the newline that `$` alone would let pass at the end; `*` stays free for
# the names of mixed pools.
LanguageCode = Annotated[
    str, Meta(min_length=1, max_length=35, pattern=r"^[A-Za-z0-9_-]+$(?!\n)", title="language code")
]
# 256 languages are 65,280 pairs, some 10 MB once spelled out: what one node may make us hold.
Languages = Annotated[tuple[LanguageCode, ...], Meta(max_length=256)]
Identifier = Annotated[str, Meta(min_length=1, max_length=256)]


class LanguagePair(Struct, frozen=True, gc=False):
    """One direction of translation."""

    src: LanguageCode
    tgt: LanguageCode


LanguagePairs = Annotated[tuple[LanguagePair, ...], Meta(max_length=65_536)]


class NmtRule(StrEnum):
    """How a translation model's pairs follow from its languages."""

    ANY_TO_ANY = "any_to_any"
    ANY_TO_EN = "any_to_en"
    EN_TO_ANY = "en_to_any"
    SPECIFIC_PAIRS = "specific_pairs"


class NmtCapability(Struct, frozen=True, gc=False, omit_defaults=True):
    """One translation model."""

    model_id: Identifier
    languages: Languages
    rule: NmtRule
    blocked_pairs: LanguagePairs | None = None
    supported_pairs: LanguagePairs | None = None


class LanguageCapabilities(Struct, frozen=True, gc=False, omit_defaults=True, cache_hash=True):
    """The languages of a node. `supported_language_pairs`, once given, overrules all the rest."""

    supported_language_pairs: LanguagePairs | None = None
    asr_languages: Languages | None = None
    tts_languages: Languages | None = None
    semantic_languages: Languages | None = None
    nmt_capabilities: Annotated[tuple[NmtCapability, ...], Meta(max_length=256)] | None = None


class ServiceType(StrEnum):
    """A step of the pipeline that a node may offer."""

    ASR = "asr"
    NMT = "nmt"
    TTS = "tts"
    TONE = "tone"
    SEMANTIC = "semantic"


class ServiceCapability(Struct, frozen=True, gc=False, omit_defaults=True):
    """Whether a service can take work now."""

    type: ServiceType
    ready: bool
    reason: Annotated[str, Meta(max_length=2_000)] | None = None
    ready_impl_ids: Annotated[tuple[Identifier, ...], Meta(max_length=256)] | None = None


class Capabilities(Struct, frozen=True, gc=False, omit_defaults=True, cache_hash=True):
    """All that decides which pairs a node supports. Hashable: nodes that equal each other share."""

    capability_by_type: Annotated[tuple[ServiceCapability, ...], Meta(max_length=256)]
    language_capabilities: LanguageCapabilities | None = None


def supports(capabilities: Capabilities, src: str, tgt: str, *, require_semantic: bool) -> bool:
    """Whether the node can take a task of this pair: `refusal` has nothing to say."""
    return refusal(capabilities, src, tgt, require_semantic=require_semantic) is None


def refusal(
    capabilities: Capabilities, src: str, tgt: str, *, require_semantic: bool
) -> str | None:
    """The first clause of the rule that this pair fails, for people to read; None if it holds."""
    if src == tgt:
        return f"source and target are both {src}"
    if AUTO in (src, tgt):
        return f"{AUTO} is no language"
    unready = _unready_service(capabilities, require_semantic)
    if unready is not None:
        return unready
    languages = capabilities.language_capabilities
    if languages is None:
        return "it gave no language_capabilities"
    if languages.supported_language_pairs is not None:
        listed = LanguagePair(src, tgt) in languages.supported_language_pairs
        return None if listed else f"supported_language_pairs lacks {src}-{tgt}"
    return _language_refusal(languages, src, tgt, require_semantic)


def usable_languages(
    capabilities: Capabilities, *, require_semantic: bool
) -> LanguageCapabilities | None:
    """The node's languages if every required service is ready, else None.

    Together with `require_semantic` this is all that its pairs depend on, so it is the key by
    which nodes are grouped: reasons and implementation ids would split groups for nothing.
    """
    if _unready_service(capabilities, require_semantic) is not None:
        return None
    return capabilities.language_capabilities


def supported_pairs(capabilities: Capabilities, *, require_semantic: bool) -> frozenset[Pair]:
    """Every pair for which `supports` is true. Remembered for the sets asked for last."""
    languages = usable_languages(capabilities, require_semantic=require_semantic)
    return language_pairs(languages, require_semantic)


@lru_cache(maxsize=128)
def language_pairs(
    languages: LanguageCapabilities | None, require_semantic: bool
) -> frozenset[Pair]:
    """The pairs of what `usable_languages` gave."""
    if languages is None:
        return frozenset()
    if languages.supported_language_pairs is not None:
        listed = ((p.src, p.tgt) for p in languages.supported_language_pairs)
        return frozenset((src, tgt) for src, tgt in listed if src != tgt and AUTO not in (src, tgt))
    sources = set(languages.asr_languages or ()) - {AUTO}
    targets = set(languages.tts_languages or ()) - {AUTO}
    if require_semantic:
        sources.intersection_update(languages.semantic_languages or ())
        targets.intersection_update(languages.semantic_languages or ())
    models = languages.nmt_capabilities or ()
    return frozenset().union(*(_covered_pairs(model, sources, targets) for model in models))


def capabilities_digest(capabilities: Capabilities) -> str:
    """32 hex digits that stay the same across processes, orders and duplicates in the lists.

    Everything counts, reasons and implementation ids too: what an operator sees is as new as this.
    """
    canonical = _without_order(msgspec.to_builtins(capabilities))
    return blake2b(msgspec.json.encode(canonical), digest_size=16).hexdigest()


def _unready_service(capabilities: Capabilities, require_semantic: bool) -> str | None:
    """Why a required service cannot take work, if one cannot.

    A type listed more than once is ready when any of its entries is: nodes list implementations,
    and one that works is enough.
    """
    required = [ServiceType.ASR, ServiceType.NMT, ServiceType.TTS]
    if require_semantic:
        required.append(ServiceType.SEMANTIC)
    for service in required:
        entries = [entry for entry in capabilities.capability_by_type if entry.type is service]
        if not any(entry.ready for entry in entries):
            reason = next((entry.reason for entry in entries if entry.reason), None)
            verdict = "is not ready" if entries else "is not offered"
            return f"{service} {verdict}: {reason}" if reason else f"{service} {verdict}"
    return None


def _language_refusal(
    languages: LanguageCapabilities, src: str, tgt: str, require_semantic: bool
) -> str | None:
    if src not in (languages.asr_languages or ()):
        return f"asr_languages lacks {src}"
    if tgt not in (languages.tts_languages or ()):
        return f"tts_languages lacks {tgt}"
    models = languages.nmt_capabilities or ()
    if not any(_covered_pairs(model, {src}, {tgt}) for model in models):
        return f"no nmt_capabilities entry covers {src}-{tgt}"
    if require_semantic:
        for language in (src, tgt):
            if language not in (languages.semantic_languages or ()):
                return f"semantic_languages lacks {language}"
    return None


def _covered_pairs(model: NmtCapability, sources: Set[str], targets: Set[str]) -> Set[Pair]:
    """The pairs from `sources` to `targets` that one model translates, by its rule.

    Only any_to_any looks at `languages` and `blocked_pairs`, and only specific_pairs at
    `supported_pairs`: the contract gives the other rules no more than their fixed side.
    """
    if model.rule is NmtRule.SPECIFIC_PAIRS:
        listed = {(pair.src, pair.tgt) for pair in model.supported_pairs or ()}
        return {(s, t) for s, t in listed if s in sources and t in targets and s != t}
    if model.rule is NmtRule.ANY_TO_EN:
        return {(src, "en") for src in sources - {"en"} if "en" in targets}
    if model.rule is NmtRule.EN_TO_ANY:
        return {("en", tgt) for tgt in targets - {"en"} if "en" in sources}
    known = set(model.languages)
    pairs = {(s, t) for s, t in product(sources & known, targets & known) if s != t}
    return pairs.difference((pair.src, pair.tgt) for pair in model.blocked_pairs or ())


def _without_order(value: Any) -> Any:
    """The same builtins with every list sorted and rid of duplicates."""
    if isinstance(value, dict):
        return {key: _without_order(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        by_text = {msgspec.json.encode(inner): inner for inner in map(_without_order, value)}
        return [by_text[text] for text in sorted(by_text)]
    return value
