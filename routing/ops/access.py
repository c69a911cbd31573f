"""Who may look at the operator pages, and under which policy browsers show them.

Staff may look; who acts needs the permission `routing.act`. Dead letters have rights of their own.
The groups `viewer`, `operator` and `admin` are made by `manage.py migrate`; what their permissions
are changed to stays so.
"""

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from django.contrib import messages
from django.contrib.auth.models import AbstractUser
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from routing.domain.operators import (
    ActionOutcome,
    AlreadySo,
    NotFound,
    NotNow,
    Operator,
    Source,
)
from routing.ops_wiring import Ops, running_ops

ACT = "routing.act"

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "font-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)

Arguments = ParamSpec("Arguments")
View = Callable[Concatenate[HttpRequest, Ops, Arguments], Coroutine[Any, Any, HttpResponse]]

NO_INSTANCE = (
    "This process runs no scheduler instance, so it has nothing to show. Start one with"
    " 'daphne -p 8000 schedsite.asgi:application' and open this page there."
)


def staff_page(view: View[Arguments]) -> Callable[..., Coroutine[Any, Any, HttpResponse]]:
    """Show a page to staff, to others the login; with the policy against foreign code."""

    @wraps(view)
    async def guarded(request: HttpRequest, **named: Any) -> HttpResponse:
        response = await _answer(request, view, named)
        response["Content-Security-Policy"] = POLICY
        response["Referrer-Policy"] = "same-origin"
        response["Cache-Control"] = "no-store"
        return response

    return guarded


async def _answer(request: HttpRequest, view: Any, named: dict[str, Any]) -> HttpResponse:
    user = await request.auser()
    if not isinstance(user, AbstractUser) or not (user.is_active and user.is_staff):
        return redirect_to_login(request.get_full_path(), reverse("admin:login"))
    # Loaded by now, so that a template may ask without a query.
    request.user = user
    ops = running_ops()
    if ops is None:
        return told(request, NO_INSTANCE, status=503)
    response: HttpResponse = await view(request, ops, **named)
    return response


async def may_act(request: HttpRequest) -> bool:
    return bool(await request.user.ahas_perm(ACT))


def asked_by(request: HttpRequest) -> Operator:
    """Who acts, for the audit log."""
    address = str(request.META.get("REMOTE_ADDR") or "")
    return Operator(request.user.get_username(), Source.PAGE, address)


def tell(request: HttpRequest, outcome: ActionOutcome) -> None:
    """Say on the next page what came of an action."""
    sentence = f"{outcome.sentence[:1].upper()}{outcome.sentence[1:]}."
    if isinstance(outcome, NotFound):
        messages.error(request, sentence)
    elif isinstance(outcome, NotNow):
        messages.warning(request, sentence)
    elif isinstance(outcome, AlreadySo):
        messages.info(request, sentence)
    else:
        messages.success(request, sentence)


def told(request: HttpRequest, sentence: str, *, status: int) -> HttpResponse:
    """A page with one sentence."""
    return render(request, "ops/told.html", {"sentence": sentence, "title": ""}, status=status)
