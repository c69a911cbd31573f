"""The lease's timing, what a tenure counts from, and how long a standby waits."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from registry.domain.errors import InvalidTiming
from registry.domain.lease import LeaseTiming, Tenure, standby_ms, tenure

DEFAULT = LeaseTiming(ttl_ms=60_000, renew_ms=10_000)


@pytest.mark.parametrize("ttl_ms", [99, 0, -1])
def test_a_lease_too_short_to_hold_is_refused_by_the_name_of_its_setting(ttl_ms: int):
    with pytest.raises(InvalidTiming, match=f"SCHED_LEADER_TTL_MS is {ttl_ms}"):
        LeaseTiming(ttl_ms=ttl_ms, renew_ms=10)


@pytest.mark.parametrize("renew_ms", [0, -1, 45_000, 54_000, 60_000, 90_000])
def test_a_renewal_without_room_for_a_retry_is_refused_by_its_setting(renew_ms: int):
    with pytest.raises(InvalidTiming, match=f"SCHED_LEADER_RENEW_MS is {renew_ms}") as refused:
        LeaseTiming(ttl_ms=60_000, renew_ms=renew_ms)
    assert "SCHED_LEADER_TTL_MS (60000)" in str(refused.value)


def test_the_longest_renewal_that_leaves_room_for_a_retry_is_taken():
    assert LeaseTiming(ttl_ms=60_000, renew_ms=44_999).retry_ms == 8_999


@settings(deadline=None, max_examples=200)
@given(st.integers(100, 10_000_000))
@example(100)
def test_the_cure_that_the_refusal_names_is_accepted(ttl_ms: int):
    with pytest.raises(InvalidTiming) as refused:
        LeaseTiming(ttl_ms=ttl_ms, renew_ms=ttl_ms)
    cure_ms = int(str(refused.value).rpartition("try ")[2])
    assert LeaseTiming(ttl_ms=ttl_ms, renew_ms=cure_ms).renew_ms == cure_ms


@settings(deadline=None, max_examples=300)
@given(st.integers(-1_000, 200_000), st.integers(-1_000, 200_000))
def test_timing_that_is_accepted_renews_and_retries_within_the_tenure(ttl_ms: int, renew_ms: int):
    try:
        timing = LeaseTiming(ttl_ms=ttl_ms, renew_ms=renew_ms)
    except InvalidTiming:
        return
    assert 0 < timing.renew_ms < timing.renew_ms + timing.retry_ms < timing.window_ms
    assert timing.window_ms < timing.ttl_ms


def test_a_tenure_counts_from_the_sending_less_the_margin():
    assert tenure(7, sent_ms=1_000, timing=DEFAULT) == Tenure(7, 1_000 + 54_000)


def test_a_slow_reply_takes_from_the_tenure_and_never_adds():
    sent_ms, answered_ms = 0, 50_000
    held = tenure(1, sent_ms=sent_ms, timing=DEFAULT)
    assert held.stands(now_ms=answered_ms)
    assert held.until_ms - answered_ms == 4_000


def test_a_tenure_stands_until_its_last_ms_and_not_in_it():
    held = Tenure(epoch=1, until_ms=500)
    assert held.stands(now_ms=499)
    assert not held.stands(now_ms=500)
    assert not held.stands(now_ms=501)


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 10**9), st.integers(0, 10**6), st.integers(100, 600_000))
def test_i3_a_tenure_is_over_before_the_store_could_grant_the_next(sent: int, way: int, ttl: int):
    """I8 beside it: both counts begin with the request, each on its own clock, 5 % apart here."""
    timing = LeaseTiming(ttl_ms=ttl, renew_ms=ttl // 6)
    free_ms = sent + way + ttl  # the store counts from when it received the request
    slow_clock_until = sent + (tenure(1, sent_ms=sent, timing=timing).until_ms - sent) * 1.05
    assert slow_clock_until < free_ms


@settings(deadline=None, max_examples=200)
@given(st.integers(-10, 100_000), st.floats(0, 1))
def test_a_standby_wakes_after_the_expiry_and_within_the_jitter(remaining_ms: int, chance: float):
    wait_ms = standby_ms(remaining_ms, timing=DEFAULT, chance=chance)
    assert max(remaining_ms, 0) < wait_ms <= max(remaining_ms, 0) + 1 + 1_000


def test_standbys_with_other_chances_wake_apart():
    waits = {standby_ms(5_000, timing=DEFAULT, chance=chance / 100) for chance in range(100)}
    assert len(waits) == 100


def test_the_jitter_is_at_least_ten_ms_wide_under_the_shortest_renewal():
    timing = LeaseTiming(ttl_ms=100, renew_ms=16)
    assert standby_ms(0, timing=timing, chance=0.0) == 1
    assert standby_ms(0, timing=timing, chance=1.0) == 11
