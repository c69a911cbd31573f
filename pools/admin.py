"""Pools and their published versions in the admin: to read, never to write."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from pools.models import Pool, PoolFreeze, PoolVersion, PoolWish
from registry.admin import KeptByScheduler

if TYPE_CHECKING:
    PoolAdminBase = admin.ModelAdmin[Pool]
    PoolVersionAdminBase = admin.ModelAdmin[PoolVersion]
    PoolWishAdminBase = admin.ModelAdmin[PoolWish]
else:
    PoolAdminBase = PoolVersionAdminBase = PoolWishAdminBase = admin.ModelAdmin

SOON = "The leader hears of it from the pool mirror (run_pool_sync) within a second or two."


class ReadOnly(KeptByScheduler):
    """Rows that only the scheduler writes."""

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(Pool)
class PoolAdmin(ReadOnly, PoolAdminBase):
    list_display = ["name", "kind", "src", "tgt", "pool_id", "since_version", "retired_at"]
    list_filter = ["kind", ("retired_at", admin.EmptyFieldListFilter), "tgt"]
    search_fields = ["name"]
    search_help_text = "Name"
    fields = ["name", "kind", "src", "tgt", "pool_id", "since_version", "retired_at"]


@admin.register(PoolVersion)
class PoolVersionAdmin(ReadOnly, PoolVersionAdminBase):
    list_display = [
        "version",
        "epoch",
        "generated_at",
        "generated_by",
        "reason",
        "summary",
    ]
    search_fields = ["=version", "=epoch", "generated_by", "reason", "digest", "summary"]
    search_help_text = "Version, epoch, by whom, why, digest, or a pool that came or went"
    date_hierarchy = "generated_at"
    fieldsets = [
        (
            None,
            {
                "fields": [
                    "version",
                    "epoch",
                    "generated_at",
                    "generated_by",
                    "reason",
                    "digest",
                ]
            },
        ),
        ("Difference to the version before", {"fields": ["difference"]}),
        ("Pools", {"fields": ["pool_table"]}),
    ]
    readonly_fields = ["difference", "pool_table"]
    actions = ["go_back", "follow_nodes"]

    class Media:
        css = {"all": ["registry/live.css"]}

    @admin.action(description="Go back to this version and stay there", permissions=["freeze"])
    def go_back(self, request: HttpRequest, chosen: QuerySet[PoolVersion]) -> None:
        """Put the pools of one version in force, whatever the nodes do."""
        if len(chosen) != 1:
            self.message_user(request, "Choose exactly one version to go back to.", messages.ERROR)
            return
        PoolFreeze.objects.update_or_create(
            only=True, defaults={"version": chosen[0], "created_by": request.user.get_username()}
        )
        self.message_user(request, f"The pools are to stay as in {chosen[0]}. {SOON}")

    @admin.action(description="Follow the nodes again", permissions=["freeze"])
    def follow_nodes(self, request: HttpRequest, chosen: QuerySet[PoolVersion]) -> None:
        """End the freeze, whichever versions are chosen."""
        ended, _ = PoolFreeze.objects.all().delete()
        said = f"The pools follow the nodes again. {SOON}" if ended else "No version was frozen."
        self.message_user(request, said)

    def has_freeze_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("pools.change_poolfreeze"))

    @admin.display(description="pools")
    def difference(self, row: PoolVersion) -> SafeString | str:
        parts = [
            _names("added", "+", row.added),
            _names("removed", "\N{MINUS SIGN}", row.removed),
            _names("changed", "~", row.changed),
        ]
        lists = [(part,) for part in parts if part]
        if not lists:
            return "No pool came, went or changed: the version was published under a new epoch."
        return format_html('<div class="difference">{}</div>', format_html_join("", "{}", lists))

    @admin.display(description="in this version")
    def pool_table(self, row: PoolVersion) -> SafeString | str:
        if not row.pools:
            return "None: no node supported a pair of languages."
        lines = format_html_join(
            "",
            '<tr><th scope="row">{}</th><td>{}</td><td>{}</td><td>{}</td>'
            '<td class="number">{}</td></tr>',
            (
                (pool["name"], pool["kind"], pool["src"], pool["tgt"], pool["id"])
                for pool in row.pools
            ),
        )
        return format_html(
            '<table class="pool-table"><caption>{} pools</caption><thead><tr>'
            '<th scope="col">Pool</th><th scope="col">Kind</th><th scope="col">Source</th>'
            '<th scope="col">Target</th><th scope="col" class="number">Id</th>'
            "</tr></thead><tbody>{}</tbody></table>",
            len(row.pools),
            lines,
        )


@admin.register(PoolWish)
class PoolWishAdmin(PoolWishAdminBase):
    list_display = ["__str__", "wish", "note", "created_by", "created_at"]
    list_filter = ["wish"]
    search_fields = ["src", "tgt", "note"]
    fields = ["src", "tgt", "wish", "note"]

    def save_model(
        self, request: HttpRequest, obj: PoolWish, form: "ModelForm[PoolWish]", change: bool
    ) -> None:
        obj.created_by = request.user.get_username()
        super().save_model(request, obj, form, change)
        self.message_user(request, SOON)


def _names(word: str, sign: str, names: Sequence[str]) -> SafeString | None:
    """A list of pools under its word; the sign tells them apart without colour."""
    if not names:
        return None
    items = format_html_join("", "<li>{} {}</li>", ((sign, name) for name in names))
    return format_html('<p>{} {}</p><ul class="names {}">{}</ul>', len(names), word, word, items)
