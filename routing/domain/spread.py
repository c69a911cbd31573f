"""How durations are spread: counts in buckets of fixed bounds, and what percentiles they tell.

Not promised: exact percentiles. Within a bucket values are taken to be spread evenly.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

BOUNDS_US = (
    *(250, 500, 750, 1_000, 1_500, 2_000, 3_000, 5_000, 7_500),
    *(10_000, 15_000, 20_000, 30_000, 50_000, 75_000, 100_000, 150_000, 200_000, 300_000, 500_000),
    *(750_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000),
)
"""Upper bounds, inclusive; one bucket more is for what is above them all."""


def bucket_of(duration_us: int) -> int:
    """Which bucket a duration is counted in."""
    return bisect_left(BOUNDS_US, duration_us)


def percentile_ms(counts: Sequence[int], percent: float) -> float | None:
    """The duration below which so many percent of those counted lie; None where there are none.

    What is above all bounds is told as the highest bound.
    """
    total = sum(counts)
    if not total:
        return None
    wanted, below = total * percent / 100, 0
    for count, (low_us, high_us) in zip(counts, pairwise((0, *BOUNDS_US)), strict=False):
        if count and below + count >= wanted:
            return round((low_us + (high_us - low_us) * (wanted - below) / count) / 1000, 2)
        below += count
    return BOUNDS_US[-1] / 1000
