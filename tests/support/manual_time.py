"""Event loops whose time a test moves: nothing here ever sleeps.

A `ManualLoop` runs what is due and comes back. Its time is what its clock says, so a process that
a test stops for a while is a loop that is not run while its clock goes on: when it is run again,
overdue timers and waiting replies are there at once, as after SIGSTOP and SIGCONT.

`in_virtual_time` makes a test of a coroutine whose loop jumps to the next timer whenever nothing
else is left to do.

Not promised: input and output. A coroutine that waits for a socket or a thread waits for ever.
"""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from math import ceil
from typing import Any, ParamSpec

Parameters = ParamSpec("Parameters")

_START_MS = 1_000_000
_NOW_S = 2e-6
"""Less than this is no time: what is left of a ms in a float."""


class ManualLoop(asyncio.BaseEventLoop):
    """A loop without input and output, at the time that `clock` gives in ms."""

    def __init__(self, clock: Callable[[], int]) -> None:
        super().__init__()
        self._clock = clock
        self._selector = self
        self._clock_resolution = _NOW_S
        self.next_ms: int | None = None
        """When the next timer is due, on the loop's clock; None when there is none."""
        self.complaints: list[str] = []
        self.set_exception_handler(lambda _, context: self.complaints.append(str(context)))

    def time(self) -> float:
        return self._clock() / 1000

    def select(self, timeout: float | None) -> list[Any]:
        """What the base class calls when it has run all there was: with what time is left."""
        if timeout is None:
            self._idle(None)
        elif timeout > _NOW_S:
            self._idle(ceil((self.time() + timeout - _NOW_S) * 1000))
        return []

    def settle(self) -> None:
        """Run all that is due now."""
        self.run_forever()

    def end(self) -> None:
        """Cancel what still runs, and close."""
        for task in asyncio.all_tasks(self):
            task.cancel()
        self.settle()
        self.close()

    def _idle(self, next_ms: int | None) -> None:
        self.next_ms = next_ms
        self.stop()

    def _process_events(self, events: list[Any]) -> None: ...

    def _write_to_self(self) -> None: ...


class VirtualLoop(ManualLoop):
    """A loop that moves its own time to the next timer whenever all else is done."""

    def __init__(self) -> None:
        self.now_ms = _START_MS
        super().__init__(lambda: self.now_ms)

    def _idle(self, next_ms: int | None) -> None:
        if next_ms is None:
            raise AssertionError("everything waits, and nothing is going to happen")
        self.now_ms = next_ms


def now_ms() -> int:
    """The running loop's time: the clock to give to services in virtual time."""
    return round(asyncio.get_running_loop().time() * 1000)


async def pass_ms(ms: int) -> None:
    """Let `ms` pass, and what is due by then happen."""
    await asyncio.sleep(ms / 1000)
    await settled()


async def settled() -> None:
    """Let everything happen that needs no time."""
    for _ in range(50):
        await asyncio.sleep(0)


def in_virtual_time(
    test: Callable[Parameters, Coroutine[Any, Any, None]],
) -> Callable[Parameters, None]:
    """Run a test on a `VirtualLoop` of its own, and end what it left running."""

    @functools.wraps(test)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        loop = VirtualLoop()
        try:
            loop.run_until_complete(test(*args, **kwargs))
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(_nothing())
            loop.close()
        assert not loop.complaints, loop.complaints

    return run


async def _nothing() -> None:
    await settled()
