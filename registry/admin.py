"""Nodes in the admin, and what the operators' admin looks like as a whole."""

from typing import TYPE_CHECKING

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

from registry.models import Node

if TYPE_CHECKING:
    NodeAdminBase = admin.ModelAdmin[Node]
else:
    NodeAdminBase = admin.ModelAdmin

admin.site.site_header = "Scheduler"
admin.site.site_title = "Scheduler"
admin.site.index_title = "Operations"


class KeptByScheduler:
    """Rows that the scheduler adds and nobody deletes."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(Node)
class NodeAdmin(KeptByScheduler, NodeAdminBase):
    list_display = ["node_id", "enabled", "platform", "version", "last_registered_at", "note"]
    list_filter = ["enabled", "platform", "last_registered_at"]
    search_fields = ["node_id", "note", "platform", "version"]
    search_help_text = "Node, note, platform or version"
    date_hierarchy = "last_registered_at"
    fields = [
        "node_id",
        "enabled",
        "note",
        "platform",
        "version",
        "first_seen_at",
        "last_registered_at",
    ]
    readonly_fields = ["node_id", "platform", "version", "first_seen_at", "last_registered_at"]
