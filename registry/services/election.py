"""Standing for election: acquire, renew, demote, step down.

One `Election` per process that may lead. It tells its listeners when leading begins and ends, and
`leading()` answers from the local tenure alone, so it is right even while the store is silent.
A renewal that is refused, or not confirmed before the tenure ends, demotes at once.

Not promised: that work begun under a tenure ends within it. The store refuses what carries a
stale epoch; see `registry.domain.lease`.
"""

import asyncio
from collections.abc import Callable
from random import Random

import structlog

from registry.domain.errors import StoreUnavailable
from registry.domain.lease import Granted, Held, LeaseTiming, Tenure, standby_ms, tenure
from registry.services.ports import Clock, LeaseStore

log = structlog.get_logger(__name__)

Listener = Callable[[Tenure | None], None]


class Election:
    """One candidate."""

    def __init__(
        self,
        store: LeaseStore,
        *,
        candidate: str,
        timing: LeaseTiming,
        clock: Clock,
        random: Random,
        seen_epoch: Callable[[], int] = lambda: 0,
    ) -> None:
        self._store = store
        self._candidate = candidate
        self._timing = timing
        self._clock = clock
        self._random = random
        self._seen_epoch = seen_epoch
        self._tenure: Tenure | None = None
        self._listeners: list[Listener] = []
        self._wake = asyncio.Event()
        self._pause_until_ms = 0
        self._heard_epoch = 0
        self.changes = 0

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` with the tenure when leading begins, with None when it ends."""
        self._listeners.append(listener)

    def leading(self) -> Tenure | None:
        """The tenure if this candidate leads now, by its own clock."""
        if self._tenure is not None and self._tenure.stands(now_ms=self._clock()):
            return self._tenure
        return None

    def wake(self) -> None:
        """Look at the lease again now: it was released, or may have been."""
        self._wake.set()

    async def run(self) -> None:
        """Stand for election until cancelled. Cancelling does not release: call `step_down`."""
        while True:
            wait_ms = await self.step()
            try:
                async with asyncio.timeout(wait_ms / 1000):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    async def step(self) -> int:
        """Do what is due, and return how many ms may pass before the next step."""
        try:
            return await (self._renew(self._tenure) if self._tenure else self._acquire())
        except StoreUnavailable as error:
            return self._unconfirmed(str(error))

    async def step_down(self, *, pause_ms: int = 0) -> bool:
        """Release the lease now, and stand aside for `pause_ms`. True when this one led."""
        held = self._tenure
        self._pause_until_ms = self._clock() + pause_ms
        if held is None:
            return False
        log.info("leader stepped down", instance_id=self._candidate, epoch=held.epoch)
        self._end_tenure()
        try:
            return await self._store.release(self._candidate, epoch=held.epoch)
        except StoreUnavailable:
            return False

    async def _acquire(self) -> int:
        sent_ms = self._clock()
        if sent_ms < self._pause_until_ms:
            return self._pause_until_ms - sent_ms
        # What is published lags behind what was granted; after the store lost its data, only a
        # floor over both keeps a token of before the loss from being granted again.
        floor = max(self._seen_epoch(), self._heard_epoch)
        outcome = await self._store.acquire(self._candidate, floor=floor)
        self._heard_epoch = max(self._heard_epoch, outcome.epoch)
        if isinstance(outcome, Held):
            # No time left, and held all the same: at its last moment, or without an end.
            remaining_ms = (
                outcome.remaining_ms if outcome.remaining_ms > 0 else self._timing.jitter_ms
            )
            return standby_ms(remaining_ms, timing=self._timing, chance=self._random.random())
        if self._clock() < self._pause_until_ms:
            return await self._give_back(outcome)
        return self._promote(outcome, sent_ms)

    async def _give_back(self, granted: Granted) -> int:
        """Decline a grant that was under way when this candidate stood aside."""
        await self._store.release(self._candidate, epoch=granted.epoch)
        return max(self._pause_until_ms - self._clock(), 0)

    def _promote(self, granted: Granted, sent_ms: int) -> int:
        won = tenure(granted.epoch, sent_ms=sent_ms, timing=self._timing)
        if not won.stands(now_ms=self._clock()):
            # The reply came too late to trust. The lease in the store runs out by itself.
            return self._timing.retry_ms
        self._tenure = won
        self.changes += 1
        log.info("leader elected", instance_id=self._candidate, epoch=won.epoch)
        self._tell(won)
        return self._timing.renew_ms

    async def _renew(self, held: Tenure) -> int:
        sent_ms = self._clock()
        if not held.stands(now_ms=sent_ms):
            self._demote("the lease ran out before it could be renewed")
            return 0
        left_ms = held.until_ms - sent_ms
        try:
            async with asyncio.timeout(left_ms / 1000):
                renewed = await self._store.renew(self._candidate, epoch=held.epoch)
        except TimeoutError:
            self._demote("the store did not confirm the lease in time")
            return self._timing.retry_ms
        if self._tenure is not held:
            return 0
        if not renewed:
            self._demote("the lease was lost")
            return 0
        self._tenure = tenure(held.epoch, sent_ms=sent_ms, timing=self._timing)
        return max(sent_ms + self._timing.renew_ms - self._clock(), 0)

    def _unconfirmed(self, reason: str) -> int:
        held = self._tenure
        if held is None:
            return self._timing.renew_ms
        left_ms = held.until_ms - self._clock()
        if left_ms <= 0:
            self._demote(reason)
            return self._timing.retry_ms
        return min(self._timing.retry_ms, left_ms)

    def _demote(self, reason: str) -> None:
        if self._tenure is None:
            return
        log.warning(
            "leader demoted", instance_id=self._candidate, epoch=self._tenure.epoch, reason=reason
        )
        self._end_tenure()

    def _end_tenure(self) -> None:
        self._tenure = None
        self._tell(None)

    def _tell(self, held: Tenure | None) -> None:
        for listener in self._listeners:
            listener(held)
