"""Actions of operators, each written to the audit log with what came of it.

An action whose entry cannot be written is told as failed: it raises StoreUnavailable, although
the action itself may have been done. Every action may be repeated.
"""

import asyncio
from collections.abc import Awaitable

import structlog

from registry.domain.errors import StoreUnavailable
from routing.domain.operators import OUTCOME_WORDS, ActionOutcome, AuditRecord, Operator
from routing.services.ports import AuditLog

log = structlog.get_logger(__name__)


class Auditor:
    """Sees to it that no action goes unaudited."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit
        self._under_way: set[asyncio.Future[ActionOutcome]] = set()

    async def audited(
        self,
        work: Awaitable[ActionOutcome],
        action: str,
        subject: str,
        *,
        by: Operator,
        reason: str = "",
    ) -> ActionOutcome:
        # Who hangs up half-way must not get away with an action that is not audited.
        task = asyncio.ensure_future(self._do(work, action, subject, by=by, reason=reason))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def _do(
        self,
        work: Awaitable[ActionOutcome],
        action: str,
        subject: str,
        *,
        by: Operator,
        reason: str,
    ) -> ActionOutcome:
        detail = {"reason": reason} if reason else {}
        try:
            outcome = await work
        except StoreUnavailable as error:
            await self._keep(AuditRecord(by, action, subject, "failed", detail | _why(str(error))))
            raise
        detail |= outcome.facts | _why(outcome.sentence)
        if not await self._keep(
            AuditRecord(by, action, subject, OUTCOME_WORDS[type(outcome)], detail)
        ):
            raise StoreUnavailable(
                f"{outcome.sentence}; but that could not be written to the audit log"
            )
        return outcome

    async def _keep(self, record: AuditRecord) -> bool:
        by = record.operator
        event = log.bind(
            action=record.action, subject=record.subject, by=by.name, source=by.source.value
        )
        try:
            await self._audit.record(record)
        except StoreUnavailable as error:
            event.error("action not audited", outcome=record.outcome, reason=str(error))
            return False
        event.info("operator action", outcome=record.outcome)
        return True


def _why(sentence: str) -> dict[str, str]:
    return {"sentence": sentence}
