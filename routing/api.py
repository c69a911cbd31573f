"""`/api/v1/`: live state and actions for operators and their tools, with an OpenAPI schema."""

from dataclasses import dataclass
from typing import Annotated

from django.db import InterfaceError, OperationalError, ProgrammingError
from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI, Query, Schema
from ninja.errors import HttpError
from pydantic import Field

from registry.domain.errors import StoreUnavailable
from routing.api_answers import ACTION, ActionAnswer, Problem, answered, asked_by, instance
from routing.api_auth import OPERATORS, READERS
from routing.api_letters import router as letters
from routing.domain.operators import Operator
from routing.services.actions import LONGEST_REASON, Actions
from routing.services.overview import JobDetail, NodeState, PoolState, SessionDetail, State
from routing.services.rehearsal import Simulation

MOST = 500

api = NinjaAPI(
    title="Dispatch scheduler",
    version="1",
    description=(
        "Live state of one scheduler instance and of the cluster as it sees it, and what operators"
        " may do to it. Actions need a staff session or an operator's token, and are audited."
    ),
    auth=READERS,
    urls_namespace="api",
)
api.add_router("/deadletters", letters)


class Reason(Schema):
    """Why an operator does something: the node is told, and the audit log keeps it."""

    reason: Annotated[str, Field(max_length=LONGEST_REASON)] = ""


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


@api.exception_handler(OperationalError)
@api.exception_handler(InterfaceError)
@api.exception_handler(ProgrammingError)
def _database_unavailable(request: HttpRequest, error: Exception) -> HttpResponse:
    detail = f"the database cannot be used: {error}"
    return api.create_response(request, {"detail": detail}, status=503)


@api.get("/state", response={200: State, 503: Problem})
async def state(request: HttpRequest) -> State:
    """The cluster as this instance sees it."""
    return await instance().overview.state()


@api.get("/nodes", response={200: NodePage, 503: Problem})
async def nodes(
    request: HttpRequest,
    cursor: Annotated[str, Query(max_length=128)] = "",
    limit: Annotated[int, Query(ge=1, le=MOST)] = 100,
) -> NodePage:
    """All nodes, page by page."""
    found = instance().overview.nodes(after=cursor, limit=limit + 1)
    page = found[:limit]
    return NodePage(page, page[-1].id if len(found) > limit else None)


@api.get("/nodes/{node_id}", response={200: NodeState, 404: Problem, 503: Problem})
async def node(request: HttpRequest, node_id: str) -> NodeState:
    """One node."""
    found = instance().overview.node(node_id)
    if found is None:
        raise HttpError(404, "no node of this id is connected to the cluster")
    return found


@api.get("/pools", response={200: PoolList, 503: Problem})
async def pools(request: HttpRequest) -> PoolList:
    """All pools by name."""
    return PoolList(instance().overview.pools())


# Before the pool of any name, whose path it would be too.
@api.post("/pools/regenerate", auth=OPERATORS, response=ACTION)
async def regenerate_pools(request: HttpRequest) -> ActionAnswer:
    """Have the leader generate the pools now; a new version comes only of a difference."""
    actions, by = _asked(request)
    return answered(await actions.regenerate(by=by))


@api.get("/pools/{name}", response={200: PoolDetail, 404: Problem, 503: Problem})
async def pool(request: HttpRequest, name: str) -> PoolDetail:
    """One pool and its members."""
    overview = instance().overview
    members = overview.pool_members(name)
    if members is None:
        raise HttpError(404, "no pool of this name is in force")
    return PoolDetail(next(p for p in overview.pools() if p.name == name), members)


@api.get("/jobs/{job_id}", response={200: JobDetail, 404: Problem, 503: Problem})
async def job(request: HttpRequest, job_id: str) -> JobDetail:
    """One job, while its session is kept; never what it carries."""
    found = await instance().overview.job(job_id)
    if found is None:
        raise HttpError(404, "no job of this id is kept")
    return found


@api.get("/sessions/{session_id}", response={200: SessionDetail, 404: Problem, 503: Problem})
async def session(request: HttpRequest, session_id: str) -> SessionDetail:
    """One session, while it is kept; never its token."""
    found = await instance().overview.session(session_id)
    if found is None:
        raise HttpError(404, "no session of this id is kept")
    return found


Language = Annotated[str, Query(min_length=1, max_length=35, pattern=r"^[A-Za-z0-9_-]+$")]


@api.get("/simulate", response={200: Simulation, 503: Problem})
async def simulate(
    request: HttpRequest,
    src_lang: Language,
    tgt_lang: Language,
    n: Annotated[int, Query(ge=1, le=20)] = 1,
    label: Annotated[list[str], Query(max_length=64)] = [],  # noqa: B006 (ninja copies it)
) -> Simulation:
    """Where `n` jobs of a pair would go one after the other, and why not elsewhere.

    Each `label` is name=value; a node must have them all. Nothing is reserved. Nodes are drawn by
    lot: asked again, it may name others.
    """
    labels = {name: value for name, _, value in (each.partition("=") for each in label)}
    return instance().rehearsal.simulate(src_lang, tgt_lang, labels=labels, count=n)


@api.post("/nodes/{node_id}/drain", auth=OPERATORS, response=ACTION)
async def drain_node(request: HttpRequest, node_id: str, why: Reason | None = None) -> ActionAnswer:
    """Give a node nothing new and let it finish what it has; it stays so when it reconnects."""
    actions, by = _asked(request)
    return answered(await actions.drain(node_id, by=by, reason=_reason(why)))


@api.post("/nodes/{node_id}/resume", auth=OPERATORS, response=ACTION)
async def resume_node(
    request: HttpRequest, node_id: str, why: Reason | None = None
) -> ActionAnswer:
    """Give a drained node work again."""
    actions, by = _asked(request)
    return answered(await actions.resume(node_id, by=by, reason=_reason(why)))


@api.post("/nodes/{node_id}/shutdown", auth=OPERATORS, response=ACTION)
async def shut_node_down(
    request: HttpRequest, node_id: str, why: Reason | None = None
) -> ActionAnswer:
    """Tell a node to end, and give it nothing new until then."""
    actions, by = _asked(request)
    return answered(await actions.shut_down(node_id, by=by, reason=_reason(why)))


@api.post("/instances/{instance_id}/drain", auth=OPERATORS, response=ACTION)
async def drain_instance(
    request: HttpRequest, instance_id: str, why: Reason | None = None
) -> ActionAnswer:
    """Have an instance take no new sessions and nodes; those it has go on at others.

    Their sockets are closed with 1012 when their work is finished, or its time is over.
    """
    actions, by = _asked(request)
    return answered(await actions.drain_instance(instance_id, by=by, reason=_reason(why)))


@api.post("/instances/{instance_id}/resume", auth=OPERATORS, response=ACTION)
async def resume_instance(
    request: HttpRequest, instance_id: str, why: Reason | None = None
) -> ActionAnswer:
    """Have a drained instance take sessions and nodes again."""
    actions, by = _asked(request)
    return answered(await actions.resume_instance(instance_id, by=by, reason=_reason(why)))


@api.post("/leader/step-down", auth=OPERATORS, response=ACTION)
async def step_leader_down(request: HttpRequest) -> ActionAnswer:
    """Have the leader release its lease, so that another election is held."""
    actions, by = _asked(request)
    return answered(await actions.step_down(by=by))


def _asked(request: HttpRequest) -> tuple[Actions, Operator]:
    return instance().actions, asked_by(request)


def _reason(why: Reason | None) -> str:
    return why.reason if why is not None else ""
