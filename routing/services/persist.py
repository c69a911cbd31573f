"""Doing a step although the store is away: again until it answers.

Only for steps that change nothing the second time. Cancelling the task gives up.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from registry.domain.errors import StoreUnavailable

log = structlog.get_logger(__name__)

T = TypeVar("T")

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 0.25


async def persist(step: Callable[[], Awaitable[T]], *, what: str) -> T:
    """Run `step` until it does not raise StoreUnavailable; returns its result."""
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            return await step()
        except StoreUnavailable as error:
            if pause_s == FIRST_PAUSE_S:
                log.warning("waiting for the store", what=what, reason=str(error))
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
