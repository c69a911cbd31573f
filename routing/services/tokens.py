"""Operators' tokens: who holds one, and giving one out, which the audit log keeps."""

from routing.domain.operators import AuditRecord, Operator
from routing.services.ports import AuditLog, OperatorTokens


class Tokens:
    """The credentials of operators' programs."""

    def __init__(self, store: OperatorTokens, audit: AuditLog) -> None:
        self._store = store
        self._audit = audit

    async def holder(self, token: str) -> str | None:
        """Whom to name in the audit log; None unless the token is good now."""
        return await self._store.holder(token)

    async def issue(self, *, user: str, name: str, days: int | None, by: Operator) -> str | None:
        """A new token for a staff user, to be shown once; None when there is no such user."""
        token = await self._store.issue(user=user, name=name, days=days)
        if token is not None:
            detail = {"user": user} if days is None else {"user": user, "days": str(days)}
            await self._audit.record(AuditRecord(by, "create token", name, "done", detail))
        return token
