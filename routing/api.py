"""`/api/v1/`: live state for operators and their tools, with an OpenAPI schema of its own."""

from dataclasses import dataclass
from typing import Annotated, Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI, Query, Schema
from ninja.errors import HttpError

from registry.domain.errors import StoreUnavailable
from routing.services.overview import NodeState, PoolState, State
from routing.wiring import Routing, running

MOST = 500


async def _operator(request: HttpRequest) -> Any:
    """Staff may ask; in DEBUG everyone may, so that `curl` works on a machine of one's own."""
    if settings.DEBUG:
        return True
    user = await request.auser()
    return user if user.is_active and user.is_staff else None


api = NinjaAPI(
    title="Dispatch scheduler",
    version="1",
    description="Live state of one scheduler instance and of the cluster as it sees it.",
    auth=_operator,
    urls_namespace="api",
)


class Problem(Schema):
    """What went wrong, in one sentence."""

    detail: str


@dataclass(frozen=True, slots=True)
class NodePage:
    """Nodes by id. `next` is the cursor of the page after this one; null on the last."""

    nodes: list[NodeState]
    next: str | None


@dataclass(frozen=True, slots=True)
class PoolDetail:
    """A pool, and its member nodes by id."""

    pool: PoolState
    members: list[str]


@dataclass(frozen=True, slots=True)
class PoolList:
    pools: list[PoolState]


@api.exception_handler(StoreUnavailable)
def _store_unavailable(request: HttpRequest, error: StoreUnavailable) -> HttpResponse:
    return api.create_response(request, {"detail": str(error)}, status=503)


@api.get("/state", response={200: State, 503: Problem})
async def state(request: HttpRequest) -> State:
    """The cluster as this instance sees it."""
    return await _routing().overview.state()


@api.get("/nodes", response={200: NodePage, 503: Problem})
async def nodes(
    request: HttpRequest,
    cursor: Annotated[str, Query(max_length=128)] = "",
    limit: Annotated[int, Query(ge=1, le=MOST)] = 100,
) -> NodePage:
    """All nodes, page by page."""
    found = _routing().overview.nodes(after=cursor, limit=limit)
    return NodePage(found, found[-1].id if len(found) == limit else None)


@api.get("/nodes/{node_id}", response={200: NodeState, 404: Problem, 503: Problem})
async def node(request: HttpRequest, node_id: str) -> NodeState:
    """One node."""
    found = _routing().overview.node(node_id)
    if found is None:
        raise HttpError(404, "no node of this id is connected to the cluster")
    return found


@api.get("/pools", response={200: PoolList, 503: Problem})
async def pools(request: HttpRequest) -> PoolList:
    """All pools by name."""
    return PoolList(_routing().overview.pools())


@api.get("/pools/{name}", response={200: PoolDetail, 404: Problem, 503: Problem})
async def pool(request: HttpRequest, name: str) -> PoolDetail:
    """One pool and its members."""
    overview = _routing().overview
    members = overview.pool_members(name)
    if members is None:
        raise HttpError(404, "no pool of this name is in force")
    return PoolDetail(next(p for p in overview.pools() if p.name == name), members)


def _routing() -> Routing:
    routing = running()
    if routing is None:
        raise HttpError(503, "this process runs no scheduler instance")
    return routing
