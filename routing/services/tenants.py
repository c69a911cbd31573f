"""The weights of tenants: from the setting, and over it from operators.

They are read now and then; whoever asks gets what was read last. While the database is away the
last known ones stay in force.
"""

from collections.abc import Mapping

import structlog

from registry.domain.errors import StoreUnavailable
from routing.services.ports import TenantStore

log = structlog.get_logger(__name__)


class Tenants:
    """What each tenant counts; one that is not named counts 1."""

    def __init__(self, store: TenantStore, *, configured: Mapping[str, int]) -> None:
        self._store = store
        self._configured = dict(configured)
        self._away = False
        self.weights: Mapping[str, int] = self._configured

    async def read(self) -> None:
        """Take in what operators changed. To be called again and again."""
        try:
            chosen = await self._store.weights()
        except StoreUnavailable as error:
            if not self._away:
                log.warning("tenant weights not read", reason=str(error))
            self._away = True
            return
        if self._away:
            log.info("tenant weights read again")
        self._away = False
        weights = {**self._configured, **chosen}
        if weights != self.weights:
            log.info("tenant weights changed", tenants=len(weights))
        self.weights = weights
