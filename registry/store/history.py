"""Nodes in the database, and how a store meets the database from asynchronous code."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.db import (
    InterfaceError,
    OperationalError,
    ProgrammingError,
    close_old_connections,
    transaction,
)

from registry.domain.errors import StoreUnavailable
from registry.domain.node import NodeSnapshot
from registry.models import Node

P = ParamSpec("P")
T = TypeVar("T")


async def in_database(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `work` in the thread of database work, in one transaction.

    Raises StoreUnavailable when the database is away, locked or not migrated.
    """

    def run() -> T:
        close_old_connections()
        try:
            with transaction.atomic():
                return work(*args, **kwargs)
        except (OperationalError, InterfaceError, ProgrammingError) as error:
            raise StoreUnavailable(f"the database cannot be used: {error}") from error
        finally:
            close_old_connections()

    return await sync_to_async(run, thread_sensitive=True)()


def moment(ms: int) -> datetime:
    """The time of so many ms since 1970, as the database keeps it."""
    return datetime.fromtimestamp(ms / 1000, UTC)


class DjangoNodeHistory:
    """Implements `NodeHistory`."""

    async def record(self, registrations: Sequence[NodeSnapshot]) -> None:
        await in_database(_upsert, registrations)


def _upsert(registrations: Sequence[NodeSnapshot]) -> None:
    """Write all in one statement; an operator's `enabled` and `note` are left as they are."""
    Node.objects.bulk_create(
        [
            Node(
                node_id=snapshot.node_id,
                first_seen_at=moment(snapshot.registered_at_ms),
                last_registered_at=moment(snapshot.registered_at_ms),
                platform=_text(snapshot.platform),
                version=_text(snapshot.version),
            )
            for snapshot in registrations
        ],
        update_conflicts=True,
        unique_fields=["node_id"],
        update_fields=["last_registered_at", "platform", "version"],
    )


def _text(value: str) -> str:
    """What a node said, without what PostgreSQL takes in no text."""
    return value.replace("\0", "")
