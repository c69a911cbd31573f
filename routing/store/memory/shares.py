"""Tenants' unfinished jobs in memory."""

from registry.store.memory import MemoryServer
from routing.domain.outcome import Share


class ShareState:
    """When each job of each tenant is counted no longer."""

    def __init__(self, server: MemoryServer) -> None:
        self.open: dict[str, dict[str, int]] = {}


class MemoryShareStore:
    """Implements `ShareStore`."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    async def hold(self, tenant: str, *, job_id: str, life_ms: int, limit: int) -> Share:
        now_ms, held = self._server.clock(), self._open(tenant)
        for expired in [job for job, expires_ms in held.items() if expires_ms <= now_ms]:
            del held[expired]
        if job_id in held:
            return Share.ALREADY
        if len(held) >= limit:
            return Share.FULL
        held[job_id] = now_ms + life_ms
        return Share.HELD

    async def release(self, tenant: str, *, job_id: str) -> None:
        self._open(tenant).pop(job_id, None)

    def _open(self, tenant: str) -> dict[str, int]:
        return self._server.state(ShareState).open.setdefault(tenant, {})
