"""The audit log in the database."""

from registry.store.history import in_database
from routing.domain.operators import AuditRecord
from routing.models import AuditEntry


class DjangoAuditLog:
    """Implements `AuditLog`."""

    async def record(self, record: AuditRecord) -> None:
        await in_database(_add, record)


def _add(record: AuditRecord) -> None:
    by = record.operator
    AuditEntry.objects.create(
        actor=_text(by.name, 300),
        source=by.source,
        address=_text(by.address, 200),
        action=record.action,
        subject=_text(record.subject, 300),
        outcome=record.outcome,
        detail={name: _text(str(value), 1_000) for name, value in record.detail.items()},
    )


def _text(value: str, longest: int) -> str:
    """What someone typed, as the database takes it: PostgreSQL has no NUL in texts."""
    return value.replace("\0", "")[:longest]
