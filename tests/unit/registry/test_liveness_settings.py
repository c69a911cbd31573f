"""How often nodes and instances say that they live: which settings work together."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.domain.errors import InvalidTiming
from registry.domain.node import Liveness

DEFAULTS = {
    "heartbeat_ms": 15_000,
    "presence_ttl_ms": 45_000,
    "owner_ttl_ms": 45_000,
    "snapshot_sync_ms": 1_000,
}


def test_the_defaults_of_the_contract_are_accepted():
    assert Liveness(**DEFAULTS).heartbeat_ms == 15_000


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"heartbeat_ms": 0}, "SCHED_HEARTBEAT_MS is 0"),
        ({"heartbeat_ms": -5}, "SCHED_HEARTBEAT_MS is -5"),
        ({"snapshot_sync_ms": 0}, "SCHED_SNAPSHOT_SYNC_MS is 0"),
        ({"snapshot_sync_ms": -1}, "SCHED_SNAPSHOT_SYNC_MS is -1"),
        ({"presence_ttl_ms": 15_000}, "SCHED_PRESENCE_TTL_MS is 15000"),
        ({"presence_ttl_ms": 0}, "SCHED_PRESENCE_TTL_MS is 0"),
        ({"owner_ttl_ms": 15_000}, "SCHED_OWNER_TTL_MS is 15000"),
        ({"owner_ttl_ms": -1}, "SCHED_OWNER_TTL_MS is -1"),
        ({"snapshot_sync_ms": 45_000}, "SCHED_PRESENCE_TTL_MS is 45000"),
        ({"heartbeat_ms": 50_000, "presence_ttl_ms": 50_001}, "SCHED_OWNER_TTL_MS is 45000"),
    ],
)
def test_a_refusal_names_the_setting_and_its_value(changes: dict[str, int], setting: str):
    with pytest.raises(InvalidTiming, match=setting):
        Liveness(**{**DEFAULTS, **changes})


def test_one_ms_more_than_a_heartbeat_is_enough():
    assert Liveness(**{**DEFAULTS, "presence_ttl_ms": 15_001, "owner_ttl_ms": 15_001})


@settings(deadline=None, max_examples=200)
@given(*[st.integers(-5, 30)] * 4)
def test_what_is_accepted_outlives_a_beat_and_a_sync(beat: int, presence: int, own: int, sync: int):
    possible = beat > 0 and sync > 0 and min(presence, own) > max(beat, sync)
    values = dict(zip(DEFAULTS, (beat, presence, own, sync), strict=True))
    if possible:
        assert Liveness(**values)
    else:
        with pytest.raises(InvalidTiming):
            Liveness(**values)
