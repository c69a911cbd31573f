"""THE protocol: every frame of `/ws/node` and `/ws/session`, in and out.

A frame is decoded once into its raw fields; what the scheduler needs is then checked against the
message's struct, and what it does not need stays raw bytes and is carried through untouched
(`carried`). Outgoing job and result frames are spliced from such bytes, so audio is never decoded
and never encoded again.

Not promised: that carried fields mean anything. They are valid JSON, nothing more is known.
"""

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from registry.domain.capability import (
    Capabilities,
    LanguageCapabilities,
    LanguageCode,
    ServiceCapability,
)
from registry.domain.node import Hardware
from routing.domain.errors import ErrorCode, InvalidCapability, InvalidMessage
from routing.domain.outcome import Fault

CAPABILITY_SCHEMA_VERSION = "2.0"
PROTOCOL_VERSION = "1.0"

Text = Annotated[str, Meta(max_length=512)]
Name = Annotated[str, Meta(min_length=1, max_length=256)]
Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Attempt = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Percent = Annotated[float, Meta(ge=0, le=1000)]
Labels = Annotated[dict[str, Text], Meta(max_length=64)]
Fields = dict[str, Raw]


class Message(Struct, frozen=True, tag_field="type"):
    """A decoded frame."""


# From nodes.


class RunningJob(Struct, frozen=True):
    job_id: Name
    attempt_id: Attempt


class NodeRegister(Message, frozen=True, tag="node_register"):
    node_id: str | None
    version: Text
    capability_schema_version: Raw
    platform: Text
    hardware: Hardware
    installed_models: list[Any]
    capability_by_type: Raw
    features_supported: dict[str, Any]
    accept_public_jobs: bool
    language_capabilities: Raw | UnsetType = UNSET
    installed_services: list[Any] | None = None
    max_concurrent_jobs: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    labels: Labels | None = None
    running_jobs: Annotated[list[RunningJob], Meta(max_length=10_000)] | None = None


class ResourceUsage(Struct, frozen=True):
    cpu_percent: Percent
    mem_percent: Percent
    running_jobs: Count
    gpu_percent: Percent | None = None
    gpu_mem_percent: Percent | None = None


class NodeHeartbeat(Message, frozen=True, tag="node_heartbeat"):
    node_id: Name
    timestamp: int
    resource_usage: ResourceUsage
    capability_by_type: Raw
    installed_services: list[Any] | None = None
    language_capabilities: Raw | UnsetType = UNSET


class JobAck(Message, frozen=True, tag="job_ack"):
    job_id: Name
    attempt_id: Attempt
    node_id: Name
    session_id: Name
    trace_id: str | None = None


class JobStarted(Message, frozen=True, tag="job_started"):
    job_id: Name
    attempt_id: Attempt
    node_id: Name
    session_id: Name
    trace_id: str | None = None


class AsrPartial(Message, frozen=True, tag="asr_partial"):
    job_id: Name
    node_id: Name
    session_id: Name
    utterance_index: Count
    text: str
    is_final: bool
    trace_id: str | None = None


class NodeFault(Struct, frozen=True):
    code: str
    message: str
    details: Raw | UnsetType = UNSET


class JobResult(Message, frozen=True, tag="job_result"):
    job_id: Name
    attempt_id: Attempt
    node_id: Name
    session_id: Name
    utterance_index: Count
    success: bool
    text_asr: str | None = None
    text_translated: str | None = None
    tts_format: str | None = None
    error: NodeFault | None = None
    trace_id: str | None = None


class NodeError(Message, frozen=True, tag="node_error"):
    node_id: Name
    code: str
    message: str
    details: Raw | UnsetType = UNSET


class FaultDetails(Struct, frozen=True):
    """What counts here of the `details` of a node's error; the rest is carried."""

    job_id: Name | None = None
    attempt_id: Attempt | None = None
    retryable: bool = True


# From sessions.


class Resume(Struct, frozen=True):
    session_id: Name
    token: Name
    last_seq: Count


class Features(Struct, frozen=True):
    """What we know of a session's features; the others mean nothing to us."""

    node_labels: Labels | None = None


class SessionInit(Message, frozen=True, tag="session_init"):
    client_version: Text
    platform: Text
    src_lang: LanguageCode
    tgt_lang: LanguageCode
    tenant_id: Text | None = None
    mode: Text | None = None
    lang_a: LanguageCode | None = None
    lang_b: LanguageCode | None = None
    features: Features | None = None
    trace_id: Text | None = None
    resume: Resume | None = None


class Utterance(Message, frozen=True, tag="utterance"):
    session_id: Name
    utterance_index: Count
    manual_cut: bool
    src_lang: LanguageCode
    tgt_lang: LanguageCode
    audio_format: Text
    sample_rate: Annotated[int, Meta(ge=1, le=10_000_000)]
    trace_id: Text | None = None
    priority: Annotated[int, Meta(ge=0, le=9)] | None = None
    deadline_ms: Annotated[int, Meta(ge=1, le=86_400_000)] | None = None
    node_labels: Labels | None = None


class UtteranceCancel(Message, frozen=True, tag="utterance_cancel"):
    session_id: Name
    utterance_index: Count


class ResultAck(Message, frozen=True, tag="result_ack"):
    session_id: Name
    seq: Count


class ClientHeartbeat(Message, frozen=True, tag="client_heartbeat"):
    session_id: Name
    timestamp: int


class SessionClose(Message, frozen=True, tag="session_close"):
    session_id: Name
    reason: Text | None = None


NodeMessage = (
    NodeRegister | NodeHeartbeat | JobAck | JobStarted | AsrPartial | JobResult | NodeError
)
SessionMessage = (
    SessionInit | Utterance | UtteranceCancel | ResultAck | ClientHeartbeat | SessionClose
)


class Frame(NamedTuple):
    """A decoded frame: the checked message, and every field of it as raw bytes."""

    message: Message
    fields: Fields


_OPAQUE = {"utterance": ("audio",), "job_result": ("tts_audio",)}
"""Fields that must be text, and are long: looked at, never decoded."""

_fields = msgspec.json.Decoder(Fields)
_text = msgspec.json.Decoder(str)
_encode = msgspec.json.encode


class FrameDecoder:
    """Decodes the frames that one side may send."""

    def __init__(self, *messages: type[Message]) -> None:
        self._decoders = {
            str(message.__struct_config__.tag): (
                msgspec.json.Decoder(message),
                frozenset(message.__struct_fields__),
            )
            for message in messages
        }

    @property
    def tags(self) -> list[str]:
        """The types of frames that are known here."""
        return list(self._decoders)

    def decode(self, data: str | bytes) -> Frame:
        """Decode one frame; raises InvalidMessage with a sentence for its sender."""
        try:
            # As text: what is carried through raw would keep broken UTF-8 unseen.
            fields = _fields.decode(data.decode() if isinstance(data, bytes) else data)
            kind = _text.decode(fields["type"])
        except KeyError:
            raise InvalidMessage("the frame has no 'type'") from None
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            raise InvalidMessage("the frame is not a JSON object with a text 'type'") from None
        known = self._decoders.get(kind)
        if known is None:
            raise InvalidMessage(
                f"type '{kind[:64]}' is not known here; known are: {', '.join(self._decoders)}"
            )
        decoder, names = known
        _check_opaque(kind, fields)
        head = {name: raw for name, raw in fields.items() if name in names}
        try:
            return Frame(decoder.decode(_encode(head)), fields)
        except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
            raise InvalidMessage(f"{kind}: {_reason(error)}") from None


def _check_opaque(kind: str, fields: Fields) -> None:
    for name in _OPAQUE.get(kind, ()):
        raw = fields.get(name)
        if raw is None and kind == "utterance":
            raise InvalidMessage(f"{kind}: Object missing required field `{name}`")
        may_be_null = kind != "utterance"
        if raw is None or (may_be_null and _is_null(raw)):
            continue
        if bytes(memoryview(raw)[:1]) != b'"':
            raise InvalidMessage(f"{kind}: Expected `str` - at `$.{name}`")


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)[:500]


NODE_FRAMES = FrameDecoder(
    NodeRegister, NodeHeartbeat, JobAck, JobStarted, AsrPartial, JobResult, NodeError
)
SESSION_FRAMES = FrameDecoder(
    SessionInit, Utterance, UtteranceCancel, ResultAck, ClientHeartbeat, SessionClose
)


# Capabilities, checked apart from the rest because they have an error code of their own.

_services = msgspec.json.Decoder(Annotated[tuple[ServiceCapability, ...], Meta(max_length=256)])
_languages = msgspec.json.Decoder(LanguageCapabilities | None)
_any = msgspec.json.Decoder()


def check_schema_version(message: NodeRegister) -> None:
    """Raise InvalidCapability unless the node speaks our capability schema."""
    try:
        given = _any.decode(message.capability_schema_version)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise InvalidCapability(f"capability_schema_version: {_reason(error)}") from None
    if given != CAPABILITY_SCHEMA_VERSION:
        raise InvalidCapability(
            f"capability_schema_version is {str(given)[:64]!r};"
            f" this scheduler speaks '{CAPABILITY_SCHEMA_VERSION}'"
        )


def capabilities_of(
    message: NodeRegister | NodeHeartbeat, *, before: Capabilities | None = None
) -> Capabilities:
    """The node's capabilities; fields a heartbeat leaves out stay as `before`.

    Raises InvalidCapability with the field that does not fit.
    """
    try:
        services = _services.decode(message.capability_by_type)
        if message.language_capabilities is UNSET:
            languages = before.language_capabilities if before else None
        else:
            languages = _languages.decode(message.language_capabilities)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise InvalidCapability(_reason(error)) from None
    if not services:
        raise InvalidCapability("capability_by_type is empty; name at least one service")
    return Capabilities(services, languages)


# What a node said of a job that it gave up.

_fault_details = msgspec.json.Decoder(FaultDetails)


def fault_details(said: NodeFault | NodeError | None) -> FaultDetails:
    """The details that we know of; a node's own may look like anything."""
    if said is None or said.details is UNSET:
        return FaultDetails()
    try:
        return _fault_details.decode(said.details)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return FaultDetails()


def fault_of(message: JobResult | NodeError) -> Fault:
    """What a failed result, or an error that names a job, says of it."""
    said = message.error if isinstance(message, JobResult) else message
    if said is None:
        return Fault("unknown", "")
    details = None if said.details is UNSET else said.details
    return Fault(
        said.code[:64],
        said.message[:2000],
        details=details,
        retryable=fault_details(said).retryable,
    )


# To nodes.


def node_register_ack(node_id: str, *, message: str, status: str) -> bytes:
    return _encode(
        {
            "type": "node_register_ack",
            "node_id": node_id,
            "message": message,
            "status": status,
        }
    )


_PIPELINE = Raw(b'{"use_asr":true,"use_nmt":true,"use_tts":true}')
_SCHEDULERS_OWN = frozenset({"type", "job_id", "attempt_id", "pipeline", "trace_id"})


def job_payload(fields: Mapping[str, Raw], *, trace_id: str) -> bytes:
    """What every attempt of a job carries: the utterance's fields, as one JSON object."""
    payload: dict[str, Any] = {
        name: raw for name, raw in fields.items() if name not in _SCHEDULERS_OWN
    }
    payload["pipeline"] = fields.get("pipeline", _PIPELINE)
    payload["trace_id"] = trace_id
    return _encode(payload)


def job_assign(payload: bytes, *, job_id: str, attempt_id: int) -> bytes:
    """The frame that gives one attempt to a node: a payload with its head spliced on."""
    head = b'{"type":"job_assign","job_id":%b,"attempt_id":%d,' % (_encode(job_id), attempt_id)
    return head + payload[1:]


def replayed_utterance(payload: bytes, *, session_id: str) -> Frame:
    """A job's payload as the first utterance of another session; all else in it stays as it is.

    Its deadline is not heeded again: it was that of a client who no longer waits.
    """
    fields = _fields.decode(payload)
    fields |= {
        "type": Raw(b'"utterance"'),
        "session_id": Raw(_encode(session_id)),
        "utterance_index": Raw(b"0"),
    }
    message, _ = SESSION_FRAMES.decode(_encode(fields))
    return Frame(msgspec.structs.replace(message, deadline_ms=None), fields)


def job_cancel(job_id: str, *, reason: str) -> bytes:
    return _encode({"type": "job_cancel", "job_id": job_id, "reason": reason})


def node_control(command: str, *, reason: str) -> bytes:
    return _encode({"type": "node_control", "command": command, "reason": reason})


def error(code: ErrorCode, message: str, **more: Any) -> bytes:
    """An `error` frame; `more` adds `details` or the ids of what it is about."""
    return _encode({"type": "error", "code": code, "message": message, **more})


# To sessions.


def session_init_ack(
    session_id: str,
    *,
    message: str,
    trace_id: str,
    resume_token: str,
    resumed: bool,
    node_id: str = "",
) -> bytes:
    return _encode(
        {
            "type": "session_init_ack",
            "session_id": session_id,
            "message": message,
            "trace_id": trace_id,
            "assigned_node_id": node_id or None,
            "protocol_version": PROTOCOL_VERSION,
            "resume_token": resume_token,
            "resumed": resumed,
        }
    )


def utterance_ack(session_id: str, utterance_index: int, *, job_id: str, status: str) -> bytes:
    return _encode(
        {
            "type": "utterance_ack",
            "session_id": session_id,
            "utterance_index": utterance_index,
            "job_id": job_id,
            "status": status,
        }
    )


_PARTIAL_DROPS = frozenset({"node_id", "seq"})


def asr_partial(fields: Mapping[str, Raw]) -> bytes:
    return _encode({name: raw for name, raw in fields.items() if name not in _PARTIAL_DROPS})


_RESULT_DROPS = frozenset({"type", "seq", "attempt_id", "node_id", "success", "error"})
_EMPTY = Raw(b'""')
_RESULT_TEXTS = ("text_asr", "text_translated", "tts_audio", "tts_format")


def translation_result(fields: Mapping[str, Raw]) -> bytes:
    """A node's result as its session gets it, without `seq`: see `with_seq`."""
    body: dict[str, Any] = {"type": "translation_result"}
    body.update((name, _EMPTY) for name in _RESULT_TEXTS)
    body.update((name, raw) for name, raw in fields.items() if name not in _RESULT_DROPS)
    for name in _RESULT_TEXTS:
        if _is_null(body[name]):
            body[name] = _EMPTY
    return _encode(body)


def _is_null(raw: Raw) -> bool:
    return bytes(memoryview(raw)[:1]) == b"n"


def job_failure(
    code: ErrorCode, message: str, *, session_id: str, job_id: str, details: Any = None
) -> bytes:
    """The terminal `error` of a job, without `seq`: see `with_seq`."""
    index = int(job_id.rpartition(":")[2])
    more = {} if details is None else {"details": details}
    return error(code, message, session_id=session_id, utterance_index=index, job_id=job_id, **more)


def with_seq(body: bytes, seq: int) -> bytes:
    """A terminal message with its place in the session's sequence spliced on."""
    return b'{"seq":%d,' % seq + body[1:]


def server_heartbeat(session_id: str, *, timestamp_ms: int) -> bytes:
    return _encode(
        {"type": "server_heartbeat", "session_id": session_id, "timestamp": timestamp_ms}
    )


def session_close_ack(session_id: str) -> bytes:
    return _encode({"type": "session_close_ack", "session_id": session_id})
