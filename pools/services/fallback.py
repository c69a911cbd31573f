"""Pools of this process's own making, for as long as the store is away.

They are put into the index without a version: the configuration in force stays what it is, and
takes the index back as soon as the store answers again. Operators' wishes count as they were last
known here: what is excluded stays so, what is pinned is there, what was frozen is in force.

Not promised: wishes that were told so shortly before the outage that they were not read.
"""

import structlog

from pools.domain.generation import Generation, PoolRules, generate, refreeze
from pools.services.sync import PoolSync

log = structlog.get_logger(__name__)


class Fallback:
    """Generates locally while the store is away."""

    def __init__(self, sync: PoolSync, *, rules: PoolRules) -> None:
        self._sync = sync
        self._rules = rules

    def turn(self, *, store_away: bool) -> None:
        """Do what is due. To be called at every sync interval."""
        if not store_away:
            if self._sync.local:
                self._sync.leave_local()
            return
        self._sync.put_local(self._answer().pools)

    def _answer(self) -> Generation:
        config, wishes = self._sync.config, self._sync.wishes
        if wishes.frozen is not None:
            return refreeze(wishes.frozen.pools, next_pool_id=config.next_pool_id)
        return generate(
            self._sync.index.census(),
            rules=self._rules,
            previous=config.pools,
            next_pool_id=config.next_pool_id,
            pinned=wishes.pinned,
            excluded=wishes.excluded,
            keep=config.pools,
        )
