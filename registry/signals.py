"""Ending processes: in order when they are told to, and for certain when their parent is gone."""

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


async def told_to_stop() -> None:
    """Return when the process gets SIGTERM or SIGINT; a second one ends it the hard way."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    await told.wait()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(number)


def die_with_parent() -> Callable[[], None] | None:
    """A `preexec_fn` that has the kernel end the child when its parent dies, even by SIGKILL.

    Linux only; None elsewhere. The parent must start the child from its main thread.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return ask
