"""The frames that load clients send: as small as the contract allows, with a little audio."""

import msgspec

Pair = tuple[str, str]
HERE, ACROSS, BEATING = ("zh", "en"), ("zh", "ja"), ("zh", "ko")
"""Pairs of their own keep the nodes of one measurement out of the pools of another."""
AUDIO = "UklGRg==" * 100
"""800 characters; the audio is carried through as it is."""

_encode = msgspec.json.Encoder().encode


class Incoming(msgspec.Struct):
    """What a client reads of any frame; absent fields keep their defaults."""

    type: str
    job_id: str = ""
    attempt_id: int = 0
    session_id: str = ""
    utterance_index: int = -1
    trace_id: str | None = None
    seq: int = 0
    code: str = ""
    message: str = ""


decode = msgspec.json.Decoder(Incoming).decode


def session_init(pair: Pair) -> bytes:
    return _encode(
        {
            "type": "session_init",
            "client_version": "bench",
            "platform": "web",
            "src_lang": pair[0],
            "tgt_lang": pair[1],
        }
    )


def utterance(session_id: str, index: int, pair: Pair = HERE) -> bytes:
    return _encode(
        {
            "type": "utterance",
            "session_id": session_id,
            "utterance_index": index,
            "manual_cut": False,
            "src_lang": pair[0],
            "tgt_lang": pair[1],
            "audio": AUDIO,
            "audio_format": "wav",
            "sample_rate": 16000,
        }
    )


def job_result(job: Incoming, node_id: str) -> bytes:
    return _encode(
        {
            "type": "job_result",
            "job_id": job.job_id,
            "attempt_id": job.attempt_id,
            "node_id": node_id,
            "session_id": job.session_id,
            "utterance_index": job.utterance_index,
            "success": True,
            "text_asr": "heard",
            "text_translated": "translated",
            "tts_audio": AUDIO,
            "tts_format": "wav",
            "trace_id": job.trace_id,
        }
    )
