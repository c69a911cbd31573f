"""What operators do from the pages: asked for twice, done once, and audited.

An action's page says what it will do and asks for a reason; its form does it. Every action may be
repeated: a form sent twice finds that things are so.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_http_methods

from registry.domain.errors import StoreUnavailable
from routing.domain.operators import ActionOutcome, Operator
from routing.ops.access import asked_by, may_act, staff_page, tell, told
from routing.ops.views import show
from routing.ops_wiring import Ops
from routing.services.actions import LONGEST_REASON, Actions

Do = Callable[[Actions, str, Operator, str], Awaitable[ActionOutcome]]


@dataclass(frozen=True, slots=True)
class Act:
    """One action. `says` tells what comes of it; `takes_reason` where a reason is passed on."""

    title: str
    button: str
    says: str
    do: Do
    danger: bool = False
    takes_reason: bool = True


NODE_ACTS = {
    "drain": Act(
        "Drain node",
        "Drain",
        "It gets nothing new from now on and finishes what it has. It stays so when it connects"
        " again, until someone resumes it.",
        lambda actions, node, by, why: actions.drain(node, by=by, reason=why),
    ),
    "resume": Act(
        "Resume node",
        "Resume",
        "It gets work again, the waiting first.",
        lambda actions, node, by, why: actions.resume(node, by=by, reason=why),
    ),
    "shutdown": Act(
        "Shut node down",
        "Shut down",
        "It gets nothing new and is told to end. What it still works on is tried again elsewhere"
        " if it does not finish it: drain it first to avoid that.",
        lambda actions, node, by, why: actions.shut_down(node, by=by, reason=why),
        danger=True,
    ),
}
CLUSTER_ACTS = {
    "step-down": Act(
        "Step the leader down",
        "Step down",
        "The leader releases its lease, and the candidates hold an election. Work goes on"
        " meanwhile; only changes of pools wait.",
        lambda actions, _, by, why: actions.step_down(by=by),
        danger=True,
        takes_reason=False,
    ),
    "regenerate": Act(
        "Generate the pools anew",
        "Regenerate",
        "The leader works the pools out from the nodes now. It publishes a version only if"
        " something differs.",
        lambda actions, _, by, why: actions.regenerate(by=by),
        takes_reason=False,
    ),
}


@require_http_methods(["GET", "HEAD", "POST"])
@staff_page
async def act_on_node(request: HttpRequest, ops: Ops, node_id: str, action: str) -> HttpResponse:
    if action not in NODE_ACTS:
        return told(request, "There is no such action.", status=404)
    known = ops.routing.registry.views.get(node_id) is not None
    return await _act(request, ops, NODE_ACTS[action], node_id, "ops:node", known=known)


@require_http_methods(["GET", "HEAD", "POST"])
@staff_page
async def act_on_cluster(request: HttpRequest, ops: Ops, action: str) -> HttpResponse:
    if action not in CLUSTER_ACTS:
        return told(request, "There is no such action.", status=404)
    back = "ops:pools" if action == "regenerate" else "ops:cluster"
    return await _act(request, ops, CLUSTER_ACTS[action], "", back, known=True)


async def _act(
    request: HttpRequest, ops: Ops, act: Act, subject: str, back: str, *, known: bool
) -> HttpResponse:
    if not await may_act(request):
        sentence = "You may look, but not act. Ask an admin for the permission 'routing.act'."
        return told(request, sentence, status=403)
    if request.method != "POST":
        title = f"{act.title} {subject}".strip()
        more = {"act": act, "subject": subject, "back": back, "known": known}
        return await show(request, ops, "act", title=title, longest=LONGEST_REASON, **more)
    by = asked_by(request)
    reason = request.POST.get("reason", "").strip()[:LONGEST_REASON]
    try:
        outcome = await act.do(ops.routing.actions, subject, by, reason)
    except StoreUnavailable as error:
        messages.error(request, f"Not done, or not known whether: {error}. You may repeat it.")
    else:
        tell(request, outcome)
    return redirect(back, subject) if subject else redirect(back)
