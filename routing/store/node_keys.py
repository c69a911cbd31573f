"""Nodes' credentials in the database."""

import hmac
from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db.models import Q
from django.utils import timezone

from registry.store.history import in_database
from routing.domain.credentials import NodeGrant
from routing.models import NodeCredential

USE_NOTED_EVERY = timedelta(minutes=1)
AT_ONCE = 500
"""Rows asked for in one question; databases limit how many values that may have."""


class DjangoNodeCredentials:
    """Implements `NodeCredentials`."""

    async def find(self, secret: str) -> NodeGrant | None:
        if not NodeCredential.looks_like_one(secret):
            return None  # PostgreSQL would not even take it into a question.
        return await in_database(_find, secret)

    async def bound(self, node_id: str) -> bool:
        return await in_database(NodeCredential.good().filter(node_id=node_id).exists)

    async def good(self, key_ids: Iterable[int]) -> set[int]:
        return await in_database(_good, sorted(key_ids))

    async def issue(self, *, node_id: str | None, name: str, days: int | None, by: str) -> str:
        return await in_database(_issue, node_id, name, days, by)

    async def revoke(self, begins_with: str) -> list[tuple[int, str]]:
        return await in_database(_revoke, begins_with)


def _find(secret: str) -> NodeGrant | None:
    given = NodeCredential.hash_of(secret)
    # Found by what is no secret, then compared in constant time.
    rows = NodeCredential.good().filter(prefix=secret[: NodeCredential.PREFIX_LENGTH])
    for row in rows:
        if hmac.compare_digest(row.sha256, given):
            _note_use(row)
            return NodeGrant(row.pk, row.name, row.node_id or None, _ms(row.expires_at))
    return None


def _note_use(row: NodeCredential) -> None:
    now = timezone.now()
    if row.last_used_at is None or row.last_used_at < now - USE_NOTED_EVERY:
        long_ago = Q(last_used_at__isnull=True) | Q(last_used_at__lt=now - USE_NOTED_EVERY)
        NodeCredential.objects.filter(long_ago, pk=row.pk).update(last_used_at=now)


def _good(key_ids: list[int]) -> set[int]:
    good: set[int] = set()
    for start in range(0, len(key_ids), AT_ONCE):
        some = key_ids[start : start + AT_ONCE]
        good.update(NodeCredential.good().filter(pk__in=some).values_list("pk", flat=True))
    return good


def _issue(node_id: str | None, name: str, days: int | None, by: str) -> str:
    row, secret = NodeCredential.new(node_id=node_id or "", name=name, issued_by=by[:300])
    if days is not None:
        row.expires_at = timezone.now() + timedelta(days=days)
    row.full_clean()
    row.save()
    return secret


def _revoke(begins_with: str) -> list[tuple[int, str]]:
    rows = list(NodeCredential.objects.filter(prefix=begins_with, revoked_at__isnull=True))
    NodeCredential.objects.filter(pk__in=[row.pk for row in rows]).update(revoked_at=timezone.now())
    return [(row.pk, str(row)) for row in rows]


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1000)
