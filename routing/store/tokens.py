"""Operators' tokens in the database."""

import hmac
from datetime import timedelta

from django.contrib.auth import get_user_model
from django.db.models import Q
from django.utils import timezone

from registry.store.history import in_database
from routing.models import OperatorToken

USE_NOTED_EVERY = timedelta(minutes=1)
"""A token that is used all the time is written to no more often than this."""


class DjangoOperatorTokens:
    """Implements `OperatorTokens`."""

    async def holder(self, token: str) -> str | None:
        if not token.startswith(OperatorToken.HEAD) or not (
            token.isascii() and token.isprintable()
        ):
            return None  # PostgreSQL would not even take it into a question.
        return await in_database(_holder, token)

    async def issue(self, *, user: str, name: str, days: int | None) -> str | None:
        return await in_database(_issue, user, name, days)


def _holder(secret: str) -> str | None:
    given = OperatorToken.hash_of(secret)
    # Found by what is no secret, then compared in constant time.
    rows = OperatorToken.good().filter(prefix=secret[: OperatorToken.PREFIX_LENGTH])
    for row in rows:
        if hmac.compare_digest(row.sha256, given):
            _note_use(row)
            return f"{row.user.get_username()}, token {row.name}"
    return None


def _note_use(row: OperatorToken) -> None:
    now = timezone.now()
    long_ago = Q(last_used_at__isnull=True) | Q(last_used_at__lt=now - USE_NOTED_EVERY)
    if row.last_used_at is None or row.last_used_at < now - USE_NOTED_EVERY:
        OperatorToken.objects.filter(long_ago, pk=row.pk).update(last_used_at=now)


def _issue(username: str, name: str, days: int | None) -> str | None:
    users = get_user_model()._default_manager
    user = users.filter(
        **{get_user_model().USERNAME_FIELD: username}, is_active=True, is_staff=True
    ).first()
    if user is None:
        return None
    secret = OperatorToken.new_secret()
    OperatorToken.objects.create(
        name=name,
        prefix=secret[: OperatorToken.PREFIX_LENGTH],
        sha256=OperatorToken.hash_of(secret),
        user=user,
        expires_at=timezone.now() + timedelta(days=days) if days is not None else None,
    )
    return secret
