"""The audit log and operators' tokens in the admin, to read and to revoke; tenants, to weigh."""

from typing import TYPE_CHECKING

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from pools.admin import ReadOnly
from routing.admin_nodes import NodeCredentialAdmin  # noqa: F401 (importing registers it)
from routing.domain.operators import Source
from routing.models import AuditEntry, OperatorToken, Tenant

if TYPE_CHECKING:
    AuditAdminBase = admin.ModelAdmin[AuditEntry]
    TokenAdminBase = admin.ModelAdmin[OperatorToken]
    TenantAdminBase = admin.ModelAdmin[Tenant]
else:
    AuditAdminBase = TokenAdminBase = TenantAdminBase = admin.ModelAdmin


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnly, AuditAdminBase):
    list_display = ["at", "actor", "source", "action", "subject", "outcome", "sentence"]
    list_filter = ["action", "outcome", "source", "at"]
    search_fields = ["actor", "subject", "address"]
    search_help_text = "Who, on what, or from which address"
    date_hierarchy = "at"
    fields = ["at", "actor", "source", "address", "action", "subject", "outcome", "detail"]

    @admin.display(description="in words")
    def sentence(self, entry: AuditEntry) -> str:
        return str(entry.detail.get("sentence", ""))


@admin.register(OperatorToken)
class OperatorTokenAdmin(ReadOnly, TokenAdminBase):
    list_display = ["name", "user", "begins_with", "state", "expires_at", "last_used_at"]
    list_filter = [
        ("revoked_at", admin.EmptyFieldListFilter),
        ("expires_at", admin.DateFieldListFilter),
        "user",
    ]
    list_select_related = ["user"]
    search_fields = ["name", "prefix", "user__username"]
    search_help_text = "Name, user, or how the token begins"
    fields = ["name", "user", "prefix", "created_at", "expires_at", "revoked_at", "last_used_at"]
    actions = ["revoke"]

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("routing.change_operatortoken")

    @admin.display(description="begins with", ordering="prefix")
    def begins_with(self, token: OperatorToken) -> str:
        return f"{token.prefix}\N{HORIZONTAL ELLIPSIS}"

    @admin.display(description="state")
    def state(self, token: OperatorToken) -> str:
        if token.revoked_at is not None:
            return "revoked"
        if token.expires_at is not None and token.expires_at <= timezone.now():
            return "expired"
        return "good" if token.user.is_active and token.user.is_staff else "its user may not act"

    @admin.action(description="Revoke the selected tokens", permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: "QuerySet[OperatorToken]") -> None:
        with transaction.atomic():
            tokens = list(queryset.filter(revoked_at__isnull=True))
            queryset.filter(revoked_at__isnull=True).update(revoked_at=timezone.now())
            for token in tokens:
                _note_revocation(request, token)
        messages.success(request, f"Revoked: {len(tokens)}.")


def _note_revocation(request: HttpRequest, token: OperatorToken) -> None:
    AuditEntry.objects.create(
        actor=request.user.get_username(),
        source=Source.ADMIN,
        address=request.META.get("REMOTE_ADDR", ""),
        action="revoke token",
        subject=str(token),
        outcome="done",
        detail={"user": token.user.get_username()},
    )


@admin.register(Tenant)
class TenantAdmin(TenantAdminBase):
    list_display = ["name", "weight", "note"]
    list_editable = ["weight"]
    search_fields = ["name", "note"]
    search_help_text = "Name or note"
