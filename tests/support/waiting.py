"""Waiting for a condition, never for a time."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

_PAUSE_S = 0.005


async def eventually(
    condition: Callable[[], object],
    *,
    within_ms: int = 15_000,
    what: str = "the condition",
) -> Any:
    """Return the first true value of a sync or async condition; AssertionError if none comes."""
    give_up_at = time.monotonic() + within_ms / 1000
    while True:
        found = condition()
        value = await found if inspect.isawaitable(found) else found
        if value:
            return value
        if time.monotonic() > give_up_at:
            raise AssertionError(f"{what} did not come true within {within_ms} ms, last: {value!r}")
        await asyncio.sleep(_PAUSE_S)
