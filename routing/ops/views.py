"""The operator pages: each is drawn whole by its view, and kept fresh by the feed.

They run on the instance's event loop and read its memory. They change nothing; see `acts`.
"""

from typing import Any
from urllib.parse import quote

from django.db import DatabaseError, InterfaceError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.safestring import SafeString, mark_safe
from django.views.decorators.http import require_safe

from pools.models import PoolFreeze, PoolVersion
from registry.domain.node import NodeStatus
from routing.models import AuditEntry
from routing.ops import pages
from routing.ops.access import may_act, staff_page
from routing.ops.work import STATES
from routing.ops_wiring import Ops
from routing.services.node_list import SORTS, Query

VERSIONS_SHOWN = 50
COLUMNS = (
    ("id", "Node", ""),
    ("status", "State", ""),
    ("reserved", "Slots", "num"),
    ("cpu", "CPU", "num"),
    ("gpu", "GPU", "num"),
    ("mem", "Memory", "num"),
    ("owner", "Owner", ""),
)
"""What the nodes can be sorted by: key, word and style; static/ops/nodes.js draws the same."""
ENTRIES_SHOWN = 100


async def show(
    request: HttpRequest, ops: Ops, page: str, *topics: str, title: str, **more: Any
) -> HttpResponse:
    """A page with the parts of its first topic, which watches all of them."""
    parts = await _safe_parts(ops, topics[0]) if topics and topics[0] not in DATA else {}
    context = {
        "title": title,
        "page": page,
        "topics": " ".join(["bar", *topics]),
        "parts": parts,
        "bar": (await _safe_parts(ops, "bar"))["bar"],
        "may_act": await may_act(request),
        **more,
    }
    return render(request, f"ops/{page}.html", context)


DATA = ("nodes", "history")


async def _safe_parts(ops: Ops, topic: str) -> dict[str, SafeString]:
    parts = await pages.draw(ops, topic)
    return {name: mark_safe(html) for name, html in parts.items()}  # noqa: S308 (by templates)


@require_safe
@staff_page
async def cluster(request: HttpRequest, ops: Ops) -> HttpResponse:
    return await show(request, ops, "cluster", "cluster", "history", title="Cluster")


@require_safe
@staff_page
async def nodes(request: HttpRequest, ops: Ops) -> HttpResponse:
    query = _query(request)
    found = ops.nodes.page(query)
    chosen = {
        "q": " ".join(query.words),
        "status": query.status,
        "pool": query.pool,
        "sort": query.sort,
        "descending": query.descending,
    }
    return await show(
        request,
        ops,
        "nodes",
        "nodes",
        title="Nodes",
        found=found,
        previous=max(found.page - 1, 1),
        next=min(found.page + 1, found.pages),
        columns=COLUMNS,
        chosen=chosen,
        states=[status.value for status in NodeStatus],
        pools=ops.nodes.pools,
    )


@require_safe
@staff_page
async def node(request: HttpRequest, ops: Ops, node_id: str) -> HttpResponse:
    view = ops.routing.registry.views.get(node_id)
    return await show(
        request,
        ops,
        "node",
        f"node:{node_id}",
        title=f"Node {node_id}",
        node_id=node_id,
        status=view.snapshot.status.value if view is not None else "",
        entries=await _entries(node_id),
    )


@require_safe
@staff_page
async def pool_list(request: HttpRequest, ops: Ops) -> HttpResponse:
    return await show(request, ops, "pools", "pools", title="Pools", **await _versions())


@require_safe
@staff_page
async def pool(request: HttpRequest, ops: Ops, name: str) -> HttpResponse:
    found = next((p for p in ops.routing.pools.index.pools if p.name == name), None)
    members = sorted(ops.routing.pools.index.members(name))[:200]
    views = [ops.routing.registry.views.get(node_id) for node_id in members]
    return await show(
        request,
        ops,
        "pool",
        f"pool:{name}",
        "history",
        title=f"Pool {name}",
        name=name,
        pool_id=found.id if found else None,
        members=[view for view in views if view is not None],
        **await _versions(about=name),
    )


@require_safe
@staff_page
async def version(request: HttpRequest, ops: Ops, epoch: int, number: int) -> HttpResponse:
    row, error = None, ""
    try:
        row = await PoolVersion.objects.filter(epoch=epoch, version=number).afirst()
    except (DatabaseError, InterfaceError) as failure:
        error = str(failure)
    title = f"Pool version {number}"
    return await show(request, ops, "version", title=title, row=row, error=error)


@require_safe
@staff_page
async def tasks(request: HttpRequest, ops: Ops) -> HttpResponse:
    if wanted := request.GET.get("id", "").strip():
        return redirect("ops:task", job_id=quote(wanted, safe=":@"))
    state = request.GET.get("state", "")
    state = state if state in STATES else ""
    topic = f"tasks:{state}" if state else "tasks"
    more = {"state": state, "states": STATES}
    return await show(request, ops, "tasks", topic, "history", title="Tasks", **more)


@require_safe
@staff_page
async def task(request: HttpRequest, ops: Ops, job_id: str) -> HttpResponse:
    return await show(request, ops, "task", f"task:{job_id}", title=f"Task {job_id}")


@require_safe
@staff_page
async def sessions(request: HttpRequest, ops: Ops) -> HttpResponse:
    if wanted := request.GET.get("id", "").strip():
        return redirect("ops:session", session_id=quote(wanted, safe=":@"))
    return await show(request, ops, "sessions", "sessions", title="Sessions")


@require_safe
@staff_page
async def session(request: HttpRequest, ops: Ops, session_id: str) -> HttpResponse:
    title = f"Session {session_id}"
    return await show(request, ops, "session", f"session:{session_id}", title=title)


@require_safe
@staff_page
async def queues(request: HttpRequest, ops: Ops) -> HttpResponse:
    return await show(request, ops, "queues", "queues", "history", title="Queues")


@require_safe
@staff_page
async def alerts(request: HttpRequest, ops: Ops) -> HttpResponse:
    return await show(request, ops, "alerts", "alerts", "history", title="Alerts")


@require_safe
@staff_page
async def audit(request: HttpRequest, ops: Ops) -> HttpResponse:
    return await show(request, ops, "audit", title="Audit", entries=await _entries())


def _query(request: HttpRequest) -> Query:
    asked = request.GET
    return Query(
        words=tuple(asked.get("q", "").lower().split()),
        status=asked.get("status", ""),
        pool=_number(asked.get("pool")),
        sort=asked.get("sort", "") if asked.get("sort") in SORTS else "id",
        descending=asked.get("desc") == "1",
        page=_number(asked.get("page")) or 1,
    )


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None


async def _entries(subject: str = "") -> list[AuditEntry] | None:
    """What operators did lately; None where the database cannot be read."""
    found = AuditEntry.objects.all()
    if subject:
        found = found.filter(subject=subject)
    try:
        return [entry async for entry in found[: 20 if subject else ENTRIES_SHOWN]]
    except (DatabaseError, InterfaceError):
        return None


async def _versions(about: str = "") -> dict[str, Any]:
    """The last pool versions, of one pool only those that changed it; None without a database."""
    try:
        rows = [row async for row in PoolVersion.objects.all()[: VERSIONS_SHOWN * 4]]
        freeze = await PoolFreeze.objects.select_related("version").afirst()
    except (DatabaseError, InterfaceError):
        return {"versions": None, "freeze": None}
    if about:
        rows = [r for r in rows if about in (*r.added, *r.removed, *r.changed)]
    return {"versions": rows[:VERSIONS_SHOWN], "freeze": freeze}
