"""Scheduled times that are kept to the microsecond: event loops round theirs to milliseconds."""

import contextlib
import ctypes
import os
import time

CLOCK_MONOTONIC = 1
TFD_TIMER_ABSTIME = 1
TFD_NONBLOCK_CLOEXEC = 0o2004000
_libc = ctypes.CDLL(None, use_errno=True)


class _Times(ctypes.Structure):
    """`struct itimerspec`: interval, then value, each in seconds and nanoseconds."""

    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "at_s", "at_ns")]


class Alarm:
    """A kernel timer (timerfd_create(2)); its file is readable when the time has come."""

    def __init__(self) -> None:
        self.fd: int = _libc.timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def set(self, at_ns: int) -> None:
        """Ring at this moment of `time.monotonic_ns`; at once when it is over."""
        seconds, rest = divmod(max(at_ns, 1), 1_000_000_000)
        times = _Times(0, 0, seconds, rest)
        if _libc.timerfd_settime(self.fd, TFD_TIMER_ABSTIME, ctypes.byref(times), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def clear(self) -> None:
        """To be called when it rang."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 8)

    def close(self) -> None:
        os.close(self.fd)


def schedule(rate: float, seconds: float, *, begin_ns: int | None = None) -> list[int]:
    """Evenly spaced moments of `time.monotonic_ns`, `rate` a second for so many seconds."""
    begin = time.monotonic_ns() + 1_000_000 if begin_ns is None else begin_ns
    return [begin + round(number * 1e9 / rate) for number in range(int(rate * seconds))]
