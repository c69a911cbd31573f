"""How much one peer may ask of an instance: the numbers, and a bucket that counts.

Buckets are in the memory of the instance that has the socket: a socket is at one instance, so
that is exact. Not promised: a limit over all sockets of a peer. In-flight limits are for that.
"""

from dataclasses import dataclass

BURST = 2
"""Seconds' worth of frames that may come at once."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of sockets. 0 is none. Times in ms, rates in frames a second and socket."""

    session_frame_rate: int = 0
    node_frame_rate: int = 0
    sockets_per_address: int = 0
    sockets_per_process: int = 0
    greeting_ms: int = 10_000
    session_idle_ms: int = 0
    tenant_in_flight: int = 0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 0:
                raise ValueError(
                    f"{_SETTINGS[name]} is {getattr(self, name)}; it must be 0 (none) or more"
                )
        if 0 < self.sockets_per_process < self.sockets_per_address:
            raise ValueError(
                "SCHED_SOCKETS_PER_ADDRESS must not be more than SCHED_SOCKETS_PER_PROCESS;"
                " lower it"
            )


_SETTINGS = {
    "session_frame_rate": "SCHED_SESSION_FRAME_RATE",
    "node_frame_rate": "SCHED_NODE_FRAME_RATE",
    "sockets_per_address": "SCHED_SOCKETS_PER_ADDRESS",
    "sockets_per_process": "SCHED_SOCKETS_PER_PROCESS",
    "greeting_ms": "SCHED_GREETING_MS",
    "session_idle_ms": "SCHED_SESSION_IDLE_MS",
    "tenant_in_flight": "SCHED_TENANT_IN_FLIGHT",
}


class Bucket:
    """A token bucket: `rate` a second, and `BURST` seconds' worth at once."""

    __slots__ = ("_last_ms", "_most", "_rate", "_refused", "_tokens")

    def __init__(self, rate: int, now_ms: int) -> None:
        self._rate = rate
        self._most = float(max(rate * BURST, 1))
        self._tokens = self._most
        self._last_ms = now_ms
        self._refused = 0

    def take(self, now_ms: int) -> int:
        """Take one; 0 when there was one, else the ms until there is."""
        if self._rate == 0:
            return 0
        elapsed_ms = max(now_ms - self._last_ms, 0)
        self._tokens = min(self._most, self._tokens + elapsed_ms * self._rate / 1000)
        self._last_ms = now_ms
        if self._tokens >= 1:
            self._tokens -= 1
            if self._tokens >= self._most / 2:
                self._refused = 0
            return 0
        self._refused += 1
        return max(int((1 - self._tokens) * 1000 / self._rate), 1)

    @property
    def overrun(self) -> bool:
        """Whether more was refused than fits in, without a pause: the peer does not listen."""
        return self._refused > self._most
