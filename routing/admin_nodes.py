"""Nodes' credentials in the admin: to issue, and to revoke. A secret is shown once, on one page."""

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone

from routing.domain.operators import Source
from routing.models import AuditEntry, NodeCredential
from routing.running import announce_revoked

if TYPE_CHECKING:
    CredentialAdminBase = admin.ModelAdmin[NodeCredential]
else:
    CredentialAdminBase = admin.ModelAdmin


@admin.register(NodeCredential)
class NodeCredentialAdmin(CredentialAdminBase):
    list_display = ["whose", "name", "begins_with", "state", "expires_at", "last_used_at"]
    list_filter = [
        ("revoked_at", admin.EmptyFieldListFilter),
        ("expires_at", admin.DateFieldListFilter),
    ]
    search_fields = ["node_id", "name", "prefix", "issued_by"]
    search_help_text = "Node, name, who issued it, or how it begins"
    actions = ["revoke"]

    def get_fields(self, request: HttpRequest, obj: NodeCredential | None = None) -> Any:
        asked = ["node_id", "name", "expires_at"]
        if obj is None:
            return asked
        return [*asked, "prefix", "issued_by", "created_at", "revoked_at", "last_used_at"]

    def has_change_permission(
        self, request: HttpRequest, obj: NodeCredential | None = None
    ) -> bool:
        return False  # What it is good for was said when it was issued.

    def has_delete_permission(
        self, request: HttpRequest, obj: NodeCredential | None = None
    ) -> bool:
        return False

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("routing.change_nodecredential")

    def save_model(
        self, request: HttpRequest, obj: NodeCredential, form: "ModelForm[Any]", change: bool
    ) -> None:
        obj.secret = obj.draw()  # type: ignore[attr-defined]  # for the one answer that shows it
        obj.issued_by = request.user.get_username()
        with transaction.atomic():
            super().save_model(request, obj, form, change)
            _audit(request, "create node credential", obj)

    def response_add(
        self, request: HttpRequest, obj: NodeCredential, post_url_continue: str | None = None
    ) -> HttpResponse:
        # Not by a message: those are kept in a cookie or the session until they are shown.
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Node credential",
            "credential": obj,
            "secret": obj.secret,  # type: ignore[attr-defined]
        }
        answer = TemplateResponse(request, "admin/node_credential_issued.html", context)
        answer["Cache-Control"] = "no-store"
        return answer

    @admin.display(description="node", ordering="node_id")
    def whose(self, credential: NodeCredential) -> str:
        return credential.node_id or "any node"

    @admin.display(description="begins with", ordering="prefix")
    def begins_with(self, credential: NodeCredential) -> str:
        return f"{credential.prefix}\N{HORIZONTAL ELLIPSIS}"

    @admin.display(description="state")
    def state(self, credential: NodeCredential) -> str:
        if credential.revoked_at is not None:
            return "revoked"
        expired = credential.expires_at is not None and credential.expires_at <= timezone.now()
        return "expired" if expired else "good"

    @admin.action(description="Revoke the selected credentials", permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: "QuerySet[NodeCredential]") -> None:
        with transaction.atomic():
            good = list(queryset.filter(revoked_at__isnull=True))
            chosen = NodeCredential.objects.filter(pk__in=[row.pk for row in good])
            chosen.update(revoked_at=timezone.now())
            for row in good:
                _audit(request, "revoke node credential", row)
        # After the commit: who is put out and comes back must find it revoked.
        if good and not announce_revoked([row.pk for row in good]):
            messages.warning(request, "Sockets that came in by them close within seconds.")
        messages.success(request, f"Revoked: {len(good)}.")


def _audit(request: HttpRequest, action: str, credential: NodeCredential) -> None:
    AuditEntry.objects.create(
        actor=request.user.get_username(),
        source=Source.ADMIN,
        address=request.META.get("REMOTE_ADDR", ""),
        action=action,
        subject=str(credential),
        outcome="done",
        detail={"id": str(credential.pk)},
    )
