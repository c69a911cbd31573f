"""How many unfinished utterances a tenant may have, over all its sessions and all instances.

Counted as the slots of nodes are: a set in the store with an expiry for each job, so that nothing
is counted for ever that nobody was left to count down. That is one more step for an utterance and
one at its end, and none at all for tenants without a limit. Counting at each instance alone would
give a tenant as many shares as there are instances.

Not promised: that a place is free at once when the result comes while its session is at no
instance; then it is free when the job's time is over.
"""

import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from registry.domain.errors import StoreUnavailable
from registry.services.ports import Clock
from routing.domain.outcome import Share
from routing.services.ports import ShareStore

Spawn = Callable[[Coroutine[Any, Any, None]], object]


class Shares:
    """The places of tenants' utterances that came in here."""

    def __init__(
        self, store: ShareStore, *, limit: int, life_ms: int, clock: Clock, spawn: Spawn
    ) -> None:
        self._store = store
        self._limit = limit
        self._life_ms = life_ms
        self._clock = clock
        self._spawn = spawn
        self._held: dict[str, tuple[str, int]] = {}
        """Job id to tenant, and when the store counts it no longer; the oldest first."""

    async def hold(self, tenant: str, job_id: str, *, limit: int | None) -> Share:
        """Count an utterance, unless that is one too many. `limit` is that of its token."""
        most = min((some for some in (self._limit, limit) if some), default=0)
        if most == 0:
            return Share.ALREADY
        share = await self._store.hold(tenant, job_id=job_id, life_ms=self._life_ms, limit=most)
        if share is Share.HELD:
            self._forget_old()
            self._held[job_id] = (tenant, self._clock() + self._life_ms)
        return share

    async def release(self, job_id: str) -> None:
        """Count it no longer; nothing happens where it was not counted here."""
        tenant, _ = self._held.pop(job_id, (None, 0))
        if tenant is not None:
            with contextlib.suppress(StoreUnavailable):  # then it runs out by itself
                await self._store.release(tenant, job_id=job_id)

    def ended(self, job_id: str) -> None:
        """The job has ended, and nobody is to wait for the count."""
        if job_id in self._held:
            self._spawn(self.release(job_id))

    def _forget_old(self) -> None:
        now_ms = self._clock()
        while self._held:
            oldest = next(iter(self._held))
            if self._held[oldest][1] > now_ms:
                return
            del self._held[oldest]
