"""The live page of the admin: what one running instance sees, refreshed every two seconds.

Python words every text once; the template shows them first and `live.js` puts newer ones in their
place. Not promised: that other instances see the same. The page says where they differ.
"""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypedDict

from django.contrib import admin
from django.contrib.admin.sites import AdminSite
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from registry.domain.errors import StoreUnavailable

NO_SCHEDULER = (
    "This process runs no scheduler instance, so it has nothing live to show. Start one with"
    " 'daphne -p 8000 schedsite.asgi:application' and open this page there."
)
NONE = "\N{EN DASH}"


class Cell(TypedDict):
    """One text under its label. `badge` is "good", "bad" or ""; `style` "code", "number" or ""."""

    label: str
    style: str
    text: str
    badge: str


class Card(TypedDict):
    key: str
    title: str
    cells: list[Cell]


class Table(TypedDict):
    key: str
    caption: str
    columns: Mapping[str, str]  # label to style
    rows: list[list[Cell]]
    empty: str


class LiveContext(TypedDict):
    """What the page shows. With a `message` there is no state, and the message says why."""

    message: str
    cards: list[Card]
    tables: list[Table]


def live_urls(site: AdminSite) -> list[URLPattern]:
    """The page and its data, for `path("admin/live/", include(live_urls(admin.site)))`."""
    return [
        path("", site.admin_view(live_view), name="live"),
        path("state", site.admin_view(state_view), name="live-state"),
    ]


@require_safe
def live_view(request: HttpRequest) -> HttpResponse:
    """The page."""
    context: dict[str, Any] = {**admin.site.each_context(request), **_context_now()}
    return TemplateResponse(request, "admin/live.html", {**context, "title": "Live state"})


@never_cache
@require_safe
def state_view(request: HttpRequest) -> HttpResponse:
    """The page's texts as JSON. No state is a 200 too: a 503 would be logged for each request."""
    return JsonResponse(_context_now())


def live_context(state: Mapping[str, Any] | None, *, message: str = "") -> LiveContext:
    """Word a state of `/api/v1/state`; None when there is none, for the reason in `message`."""
    shown = state or {}
    return LiveContext(
        message="" if state is not None else message or NO_SCHEDULER,
        cards=[
            _leader_card(shown.get("leader"), known=state is not None),
            _config_card(shown.get("pool_config")),
            _nodes_card(shown.get("nodes")),
            _instance_card(shown.get("instance")),
        ],
        tables=[
            _instances_table(_with_own(shown)),
            _pools_table(shown.get("pools", [])),
        ],
    )


def _context_now() -> LiveContext:
    from routing import running  # it stands on models, which are not loaded yet

    try:
        return live_context(running.live_state())
    except StoreUnavailable as error:
        return live_context(None, message=f"The shared store cannot be read now: {error}.")


def _leader_card(leader: Mapping[str, Any] | None, *, known: bool) -> Card:
    if leader is None:
        texts: list[object] = ["nobody" if known else NONE, NONE, NONE]
        badges = ["bad" if known else "", "", ""]
    else:
        left_ms = leader["expires_in_ms"]
        lease = f"{left_ms / 1000:.0f} s left" if left_ms > 0 else "run out"
        texts = [leader["instance_id"], leader["epoch"], lease]
        badges = ["", "", "" if left_ms > 0 else "bad"]
    return _card("leader", "Leader", ["Instance", "Epoch", "Lease"], texts, badges)


def _config_card(config: Mapping[str, Any] | None) -> Card:
    texts: list[object] = [NONE] * 5
    if config is not None and config["generated_at_ms"]:
        texts = [
            config["version"],
            config["epoch"],
            config["generated_by"],
            _moment(config["generated_at_ms"]),
            config["digest"],
        ]
    labels = ["Version", "Epoch", "By", "Published", "Digest"]
    return _card("config", "Pool configuration", labels, texts)


def _nodes_card(nodes: Mapping[str, Any] | None) -> Card:
    if nodes is None:
        return _card("nodes", "Nodes", ["Ready", "Total"], [NONE, NONE])
    none_ready = nodes["total"] > 0 and not nodes["ready"]
    texts = [nodes["ready"], nodes["total"]]
    return _card("nodes", "Nodes", ["Ready", "Total"], texts, ["bad" if none_ready else "", ""])


def _instance_card(instance: Mapping[str, Any] | None) -> Card:
    labels = ["Instance", "Started", "Shared store"]
    if instance is None:
        return _card("instance", "Seen by", labels, [NONE] * 3)
    away = instance["degraded"]
    texts = [instance["id"], _moment(instance["started_at_ms"]), _store_word(away)]
    return _card("instance", "Seen by", labels, texts, ["", "", "bad" if away else "good"])


def _store_word(degraded: bool) -> str:
    return "away: goes on alone" if degraded else "in step"


def _with_own(state: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The instances that reported, this one by what it knows of itself, reported or not."""
    own, found = state.get("instance"), list(state.get("instances", []))
    if own is None:
        return found
    if all(instance["id"] != own["id"] for instance in found):
        if not own["degraded"]:
            return found  # It reports in a moment.
        config = state.get("pool_config") or {}
        found.append(
            {
                "id": own["id"],
                "nodes": NONE,
                "sessions": NONE,
                "last_seen_ms": int(time.time() * 1000),
                "pool_config_version": config.get("version", 0),
                "pool_index_digest": state.get("pool_index_digest", ""),
            }
        )
    return [
        {**instance, "degraded": own["degraded"]} if instance["id"] == own["id"] else instance
        for instance in found
    ]


def _instances_table(instances: Sequence[Mapping[str, Any]]) -> Table:
    agreed = _agreed(instances)
    return _table(
        "instances",
        "Instances",
        {
            "Instance": "",
            "Nodes": "number",
            "Sessions": "number",
            "Last seen": "number",
            "Config version": "number",
            "Index digest": "code",
            "Shared store": "",
            "Pools": "",
        },
        [
            (
                [
                    instance["id"],
                    instance["nodes"],
                    instance["sessions"],
                    _ago(instance["last_seen_ms"]),
                    instance["pool_config_version"],
                    instance["pool_index_digest"][:12] or NONE,
                    _store_word(instance.get("degraded", False)),
                    "consistent" if _pools(instance) == agreed else "differs",
                ],
                "good" if _pools(instance) == agreed else "bad",
            )
            for instance in instances
        ],
        empty="No instance has reported yet. One does so within a second of its start; if none"
        " comes, check that all use the same SCHED_REDIS_URL and SCHED_REDIS_KEY_PREFIX.",
    )


def _pools_table(pools: Sequence[Mapping[str, Any]]) -> Table:
    return _table(
        "pools",
        "Pools",
        {"Pool": "", "Kind": "", "Nodes": "number"},
        [
            ([pool["name"], pool["kind"], pool["nodes"]], "" if pool["nodes"] else "bad")
            for pool in pools
        ],
        empty="No pools yet. They come once there is a leader, and a node registers that is ready"
        " for all required services and supports a pair of languages.",
    )


def _pools(instance: Mapping[str, Any]) -> tuple[int, str]:
    return instance["pool_config_version"], instance["pool_index_digest"]


def _agreed(instances: Sequence[Mapping[str, Any]]) -> tuple[int, str] | None:
    """What more instances hold than anything else; None on a tie, when all differ."""
    ranked = Counter(_pools(instance) for instance in instances).most_common(2)
    if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return None
    return ranked[0][0]


def _card(
    key: str,
    title: str,
    labels: Sequence[str],
    texts: Sequence[object],
    badges: Sequence[str] | None = None,
) -> Card:
    rows = zip(labels, texts, badges or [""] * len(texts), strict=True)
    cells = [
        Cell(label=label, style="", text=str(text), badge=badge) for label, text, badge in rows
    ]
    return Card(key=key, title=title, cells=cells)


def _table(
    key: str,
    caption: str,
    columns: Mapping[str, str],
    rows: Iterable[tuple[Sequence[object], str]],
    *,
    empty: str,
) -> Table:
    """Each row is its texts, and the badge of the last one."""
    cells = []
    for texts, badge in rows:
        row = [
            Cell(label=label, style=style, text=str(text), badge="")
            for (label, style), text in zip(columns.items(), texts, strict=True)
        ]
        row[-1]["badge"] = badge
        cells.append(row)
    return Table(key=key, caption=caption, columns=columns, rows=cells, empty=empty)


def _moment(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _ago(ms: int) -> str:
    """How long ago by this host's clock, which may be a little off the store's: for people."""
    seconds = max(int(time.time() - ms / 1000), 0)
    if seconds < 120:
        return f"{seconds} s ago"
    return f"{seconds // 60} min ago" if seconds < 7200 else _moment(ms)
