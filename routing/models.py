"""What the database keeps of operators, of who may come in, and of tenants.

Not promised: that the audit log can bear witness against whoever may write to the database.
"""

import hashlib
import re
import secrets
from typing import Any, NoReturn

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils import timezone

from registry.domain.errors import InvalidIdentifier
from registry.domain.ids import MAX_LENGTH, check_identifier
from routing.domain.operators import Source
from routing.domain.queueing import DEFAULT_WEIGHT, HIGHEST_WEIGHT


class AuditEntry(models.Model):
    """One action of an operator. It is written once, and neither changed nor deleted."""

    at = models.DateTimeField(default=timezone.now, db_index=True)
    actor = models.CharField(
        max_length=300, db_index=True, help_text="A user, or a user and the token that was used."
    )
    source = models.CharField(max_length=10, choices=[(s.value, s.value) for s in Source])
    address = models.CharField(max_length=200, blank=True)
    action = models.CharField(max_length=50)
    subject = models.CharField(max_length=300, db_index=True)
    outcome = models.CharField(max_length=20)
    detail = models.JSONField(default=dict, blank=True)

    class Meta:
        verbose_name = "audit entry"
        verbose_name_plural = "audit log"
        ordering = ["-at", "-pk"]

    def __str__(self) -> str:
        return f"{self.action} {self.subject}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            _refuse()
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse()


def _refuse() -> NoReturn:
    raise TypeError("the audit log is only ever added to")


class Cluster(models.Model):
    """No table: it stands for what operators act on, so that there is a permission for it."""

    class Meta:
        managed = False
        default_permissions = ()
        permissions = [("act", "Can act on nodes, the leader and the pools")]

    def __str__(self) -> str:
        return "the cluster"


class OperatorToken(models.Model):
    """A token that lets a program act for a staff user. Only its hash is kept."""

    HEAD = "sched_"
    PREFIX_LENGTH = len(HEAD) + 8

    name = models.CharField(max_length=100, help_text="What uses it, for people.")
    prefix = models.CharField(
        max_length=20, db_index=True, help_text="How the token begins, to tell it from others."
    )
    sha256 = models.CharField(max_length=64, unique=True)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="operator_tokens"
    )
    created_at = models.DateTimeField("created", default=timezone.now)
    expires_at = models.DateTimeField("expires", null=True, blank=True)
    revoked_at = models.DateTimeField("revoked", null=True, blank=True)
    last_used_at = models.DateTimeField(
        "last used", null=True, blank=True, help_text="To the minute."
    )

    class Meta:
        verbose_name = "operator token"
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}\N{HORIZONTAL ELLIPSIS})"

    @classmethod
    def new_secret(cls) -> str:
        """A token of 256 random bits."""
        return cls.HEAD + secrets.token_urlsafe(32)

    @staticmethod
    def hash_of(secret: str) -> str:
        """What is kept of a token. With so many random bits a slow hash would add nothing."""
        return hashlib.sha256(secret.encode()).hexdigest()

    @classmethod
    def good(cls) -> "models.QuerySet[OperatorToken]":
        """Tokens that are good now, each with its user."""
        return cls.objects.select_related("user").filter(
            models.Q(expires_at__isnull=True) | models.Q(expires_at__gt=timezone.now()),
            revoked_at__isnull=True,
            user__is_active=True,
            user__is_staff=True,
        )


class DeadLetterRights(models.Model):
    """Who may do what on the admin's page of dead letters. The letters are not in the database."""

    class Meta:
        managed = False
        default_permissions = ()
        permissions = [
            ("view_deadletters", "Can view dead letters"),
            ("replay_deadletters", "Can replay dead letters"),
            ("drop_deadletters", "Can drop dead letters"),
        ]


class Tenant(models.Model):
    """A tenant whose waiting jobs count more than others'. Its weight wins over the setting's."""

    name = models.CharField(
        max_length=512, unique=True, help_text="As sessions say it in `tenant_id`."
    )
    weight = models.PositiveSmallIntegerField(
        default=DEFAULT_WEIGHT,
        validators=[MinValueValidator(DEFAULT_WEIGHT), MaxValueValidator(HIGHEST_WEIGHT)],
        help_text=f"Its share where tenants wait side by side: 1 to {HIGHEST_WEIGHT}.",
    )
    note = models.CharField(max_length=300, blank=True, help_text="For people.")

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(weight__gte=DEFAULT_WEIGHT, weight__lte=HIGHEST_WEIGHT),
                name="routing_tenant_weight",
            )
        ]

    def __str__(self) -> str:
        return self.name


def validate_node_id(value: str) -> None:
    """Refuse what no node could register under."""
    try:
        check_identifier(value, what="node id")
    except InvalidIdentifier as error:
        raise ValidationError(str(error)) from None


class NodeCredential(models.Model):
    """A secret by which a node may connect. Only its hash is kept; a node may have several."""

    HEAD = "node_"
    PREFIX_LENGTH = len(HEAD) + 8
    _SHAPE = re.compile(r"node_[A-Za-z0-9_-]{43}")

    name = models.CharField(max_length=100, help_text="What has it, for people.")
    node_id = models.CharField(
        "node",
        max_length=MAX_LENGTH,
        blank=True,
        db_index=True,
        validators=[validate_node_id],
        help_text=(
            "The id that the node registers under. Empty: any id that has no credential of its own."
        ),
    )
    prefix = models.CharField(
        max_length=20, db_index=True, help_text="How it begins, to tell it from others."
    )
    sha256 = models.CharField(max_length=64, unique=True)
    issued_by = models.CharField("issued by", max_length=300)
    created_at = models.DateTimeField("created", default=timezone.now)
    expires_at = models.DateTimeField("expires", null=True, blank=True)
    revoked_at = models.DateTimeField("revoked", null=True, blank=True)
    last_used_at = models.DateTimeField(
        "last used", null=True, blank=True, help_text="To the minute."
    )

    class Meta:
        verbose_name = "node credential"
        ordering = ["-created_at", "-pk"]

    def __str__(self) -> str:
        return f"{self.node_id or 'any node'}: {self.name} ({self.prefix}\N{HORIZONTAL ELLIPSIS})"

    @classmethod
    def new(cls, **fields: Any) -> "tuple[NodeCredential, str]":
        """A credential of 256 random bits, not saved yet, and its secret."""
        row = cls(**fields)
        return row, row.draw()

    def draw(self) -> str:
        """Give this row a new secret; returns it, and keeps what it begins with and its hash."""
        secret = self.HEAD + secrets.token_urlsafe(32)
        self.prefix = secret[: self.PREFIX_LENGTH]
        self.sha256 = self.hash_of(secret)
        return secret

    @staticmethod
    def hash_of(secret: str) -> str:
        """What is kept of it. With so many random bits a slow hash would add nothing."""
        return hashlib.sha256(secret.encode()).hexdigest()

    @classmethod
    def looks_like_one(cls, secret: str) -> bool:
        return cls._SHAPE.fullmatch(secret) is not None

    @classmethod
    def good(cls) -> "models.QuerySet[NodeCredential]":
        """Those that are good now."""
        return cls.objects.filter(
            models.Q(expires_at__isnull=True) | models.Q(expires_at__gt=timezone.now()),
            revoked_at__isnull=True,
        )
