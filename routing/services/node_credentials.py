"""Nodes' credentials as operators use them: issued once, revoked everywhere, both audited."""

import structlog

from registry.domain.errors import StoreUnavailable
from registry.services.ports import InstanceStore
from routing.domain.operators import AuditRecord, Operator
from routing.domain.outcome import Envelope, EnvelopeKind
from routing.services.delivery import Delivery
from routing.services.ports import AuditLog, NodeCredentials

log = structlog.get_logger(__name__)


class Issuing:
    """Gives credentials out."""

    def __init__(self, store: NodeCredentials, audit: AuditLog) -> None:
        self._store = store
        self._audit = audit

    async def issue(self, *, node_id: str | None, name: str, days: int | None, by: Operator) -> str:
        """A new credential, to be shown once."""
        secret = await self._store.issue(node_id=node_id, name=name, days=days, by=by.name)
        detail = {"name": name} if days is None else {"name": name, "days": str(days)}
        subject = node_id or "any node"
        await self._audit.record(AuditRecord(by, "create node credential", subject, "done", detail))
        return secret

    async def revoke(self, begins_with: str, *, by: Operator) -> list[int]:
        """Revoke the good ones that begin so; returns which, for `Revoking.announce`."""
        revoked = await self._store.revoke(begins_with)
        for key_id, subject in revoked:
            await self._audit.record(
                AuditRecord(by, "revoke node credential", subject, "done", {"id": str(key_id)})
            )
        return [key_id for key_id, _ in revoked]


class Revoking:
    """Tells every instance that credentials were revoked."""

    def __init__(self, instances: InstanceStore, delivery: Delivery) -> None:
        self._instances = instances
        self._delivery = delivery

    async def announce(self, key_ids: list[int]) -> bool:
        """False where some may not have heard: they find out by themselves, a little later."""
        try:
            for report in await self._instances.reports():
                if not report.serves:
                    continue
                for key_id in key_ids:
                    envelope = Envelope(EnvelopeKind.REVOKED, str(key_id), number=key_id)
                    await self._delivery.send(report.instance_id, envelope)
        except StoreUnavailable as error:
            log.warning("revocation not announced", reason=str(error))
            return False
        return True
