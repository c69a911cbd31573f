"""How long dispatch takes: from an utterance's frame to its `job_assign` at a socket or an inbox.

Counted in this process's memory, some hundred nanoseconds a task, and read by `/metrics` and the
pulse. Utterances that had to wait for a slot are not counted: their time is that of the queue.
"""

import time
from collections.abc import Callable

from routing.domain.spread import BOUNDS_US, bucket_of


class DispatchTimes:
    """Counts by bucket, which only ever grow, and their sum. `now_ns` is monotonic."""

    def __init__(self, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.now_ns = now_ns
        self.counts = [0] * (len(BOUNDS_US) + 1)
        self.total_us = 0

    def ended(self, began_ns: int) -> None:
        """What began then, by `now_ns`, is done now."""
        took_us = (self.now_ns() - began_ns) // 1000
        self.counts[bucket_of(took_us)] += 1
        self.total_us += took_us
