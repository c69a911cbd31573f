"""The background work of one process: steps that are done again and again until it stops.

A step that raises StoreUnavailable is tried again after a pause, with one warning when it begins
to fail and one line when it works again; `failing` says which steps fail now, and why. A loop
never dies of an error: what it did not expect is logged with its stack, and tried again.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from random import Random
from typing import Any

import structlog

from registry.domain.errors import StoreUnavailable

log = structlog.get_logger(__name__)

Step = Callable[[], Awaitable[object]]

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 0.5


class Loops:
    """The loops of one process."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._tasks: set[asyncio.Task[Any]] = set()
        self.failing: dict[str, str] = {}

    def every(self, name: str, interval_ms: int, step: Step) -> Callable[[], None]:
        """Do `step` at this interval, and at once whenever the returned function is called."""
        wake = asyncio.Event()

        async def woken_step() -> None:
            wake.clear()
            await step()

        async def rest() -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval_ms / 1000):
                    await wake.wait()

        self.spawn(self._repeat(name, woken_step, rest), name=name)
        return wake.set

    def again(self, name: str, step: Step) -> None:
        """Do `step`, which does its own waiting, over and over."""
        self.spawn(self._repeat(name, step, _no_rest), name=name)

    def spawn(self, work: Coroutine[Any, Any, object], *, name: str) -> "asyncio.Task[object]":
        """Run something in the background that ends when the loops stop, or before."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self.adopt(task)
        return task

    def adopt(self, task: "asyncio.Task[Any]") -> None:
        """Let a task that was begun elsewhere end with these, or before."""
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """End all of them."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _repeat(self, name: str, step: Step, rest: Step) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                await step()
            except StoreUnavailable as error:
                self._note_failure(name, str(error))
            except Exception as error:
                log.exception("loop failed", loop=name)
                self.failing[name] = f"{type(error).__name__}: {error}"
            else:
                pause_s = FIRST_PAUSE_S
                if self.failing.pop(name, None) is not None:
                    log.info("loop works again", loop=name)
                await rest()
                continue
            await asyncio.sleep(pause_s * (0.5 + self._random.random()))
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    def _note_failure(self, name: str, reason: str) -> None:
        if name not in self.failing:
            log.warning("loop waits for the store", loop=name, reason=reason)
        self.failing[name] = reason

    def _ended(self, task: "asyncio.Task[object]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("background work failed", work=task.get_name(), reason=str(task.exception()))


async def _no_rest() -> None:
    pass
