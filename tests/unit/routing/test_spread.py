"""Durations in buckets: percentiles near the exact ones, and what counting costs."""

import pytest

from routing.domain.spread import BOUNDS_US, bucket_of, percentile_ms
from routing.services.dispatch_times import DispatchTimes


def spread(*durations_us: int) -> list[int]:
    counts = [0] * (len(BOUNDS_US) + 1)
    for duration_us in durations_us:
        counts[bucket_of(duration_us)] += 1
    return counts


def test_nothing_counted_has_no_percentile() -> None:
    assert percentile_ms(spread(), 50) is None
    assert percentile_ms([], 50) is None


@pytest.mark.parametrize("percent", [50, 90, 99])
def test_a_percentile_lies_in_the_bucket_of_the_exact_one(percent: int) -> None:
    durations = [number * 37 for number in range(1, 1_001)]
    told = percentile_ms(spread(*durations), percent)
    exact = sorted(durations)[percent * 10 - 1]
    assert told is not None
    assert bucket_of(round(told * 1000)) == bucket_of(exact)


def test_a_bound_belongs_to_the_bucket_below_it() -> None:
    assert [bucket_of(BOUNDS_US[0]), bucket_of(BOUNDS_US[0] + 1), bucket_of(0)] == [0, 1, 0]


def test_what_is_above_all_bounds_is_told_as_the_highest() -> None:
    assert percentile_ms(spread(60_000_000), 50) == BOUNDS_US[-1] / 1000


def test_times_are_counted_and_summed() -> None:
    now_ns = 5_000_000
    times = DispatchTimes(lambda: now_ns)
    began_ns = times.now_ns()
    now_ns += 1_200_000
    times.ended(began_ns)
    now_ns += 300_000
    times.ended(began_ns)
    assert times.counts == spread(1_200, 1_500)
    assert times.total_us == 2_700
