"""Pools of this process's own making, for as long as the store is away.

They are put into the index without a version: the configuration in force stays what it is, and
takes the index back as soon as the store answers again.
"""

import structlog

from pools.domain.generation import PoolRules, generate
from pools.services.sync import PoolSync
from registry.services.views import NodeViews

log = structlog.get_logger(__name__)


class Fallback:
    """Generates locally while the store is away."""

    def __init__(self, sync: PoolSync, views: NodeViews, *, rules: PoolRules) -> None:
        self._sync = sync
        self._views = views
        self._rules = rules

    def turn(self, *, store_away: bool) -> None:
        """Do what is due. To be called at every sync interval."""
        if not store_away:
            if self._sync.local:
                self._sync.leave_local()
            return
        config = self._sync.config
        generated = generate(
            (view.snapshot.capabilities for view in self._views),
            rules=self._rules,
            previous=config.pools,
            next_pool_id=config.next_pool_id,
            keep=config.pools,
        )
        self._sync.put_local(generated.pools)
