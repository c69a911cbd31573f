"""The leader's lease: timing, tenure, and what a candidate does next.

Guaranteed: two candidates with the same timing never both hold a tenure that `stands`, as long as
the store keeps a lease for its TTL from the moment it received the request, and clocks run apart
by less than the margin. A tenure counts the candidate's own monotonic clock from the moment the
request was *sent*, less that margin, so a slow reply, a paused process or a wall clock that jumps
only shortens it.

A store breaks its part when it loses its data, fails over to a copy that lags, or its clock jumps
forward: then the next lease may be granted while the tenure before it stands. Two lead, for less
than one window, and what the older one publishes is refused. A clock that jumps backward does no
more than keep the lease of a candidate that is gone for longer.

Guaranteed even then: a tenure ends at the latest one window after the sending of the last request
that was confirmed; an epoch is granted only above those that the store has granted since it lost
its data, those that its candidate has read or been told of (the floor), and those that readers
told the store of (`raise_epoch`). An epoch that nobody alive remembers may come again.

Not guaranteed: that someone leads at every moment; and a pause between checking a tenure and
acting on it can outlast it. That is why every publish carries the epoch and the store refuses
stale ones: the tenure saves work, the epoch saves correctness.

`tests/unit/registry/test_election_model.py` holds the election to these words.
"""

from dataclasses import dataclass

from registry.domain.errors import InvalidTiming

MARGIN_PERCENT = 10
"""Share of the TTL kept as a margin for clocks that run at slightly different speeds."""


@dataclass(frozen=True, slots=True)
class LeaseTiming:
    """How long a lease lasts and how often it is renewed, in ms."""

    ttl_ms: int
    renew_ms: int

    def __post_init__(self) -> None:
        if self.ttl_ms < 100:
            raise InvalidTiming(
                f"SCHED_LEADER_TTL_MS is {self.ttl_ms}; a lease needs at least 100 ms"
            )
        if self.renew_ms <= 0 or self.renew_ms + self.retry_ms >= self.window_ms:
            raise InvalidTiming(
                f"SCHED_LEADER_RENEW_MS is {self.renew_ms}; it must be positive and leave room for"
                f" one retry within the {self.window_ms} ms that a lease of SCHED_LEADER_TTL_MS"
                f" ({self.ttl_ms}) lasts less its margin: try {self.ttl_ms // 6}"
            )

    @property
    def window_ms(self) -> int:
        """How long a holder may believe in its lease after sending the request."""
        return self.ttl_ms - self.ttl_ms * MARGIN_PERCENT // 100

    @property
    def retry_ms(self) -> int:
        """Pause before a renewal that got no answer is tried again."""
        return max(self.renew_ms // 5, 10)

    @property
    def jitter_ms(self) -> int:
        """Over how long candidates that know the same expiry spread their attempts."""
        return max(self.renew_ms // 10, 10)


@dataclass(frozen=True, slots=True)
class Granted:
    epoch: int


@dataclass(frozen=True, slots=True)
class Held:
    """Another candidate leads; its lease ends in `remaining_ms` unless renewed."""

    instance_id: str
    epoch: int
    remaining_ms: int


Acquisition = Granted | Held


@dataclass(frozen=True, slots=True)
class Tenure:
    """The right to lead under `epoch`, until `until_ms` on the holder's own monotonic clock."""

    epoch: int
    until_ms: int

    def stands(self, *, now_ms: int) -> bool:
        return now_ms < self.until_ms


def tenure(epoch: int, *, sent_ms: int, timing: LeaseTiming) -> Tenure:
    """The tenure that a grant or renewal gives when its request was sent at `sent_ms`."""
    return Tenure(epoch, sent_ms + timing.window_ms)


def standby_ms(remaining_ms: int, *, timing: LeaseTiming, chance: float) -> int:
    """How long a standby waits: the known expiry plus jitter (`chance` from 0 to 1).

    The jitter spreads candidates that all know the same expiry; a tenth of the renewal interval
    keeps takeover well under a fifth of a lease.
    """
    return max(remaining_ms, 0) + 1 + int(chance * timing.jitter_ms)
