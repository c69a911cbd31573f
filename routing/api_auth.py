"""Who may call the API: staff with a session, programs with an operator's token.

Where a session's cookie is the credential, whatever changes something is checked against
forgery as in any Django form; a token is sent on purpose and needs no such check.
"""

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from ninja.errors import HttpError
from ninja.security import APIKeyCookie
from ninja.security.http import HttpAuthBase
from ninja.utils import check_csrf

from routing.domain.operators import Operator, Source
from routing.wiring import operator_tokens


class TokenAuth(HttpAuthBase):
    """`Authorization: Bearer sched_...`"""

    openapi_scheme = "bearer"

    def __call__(self, request: HttpRequest) -> Any:
        return self.authenticate(request)

    async def authenticate(self, request: HttpRequest) -> Operator | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        holder = await operator_tokens().holder(token.strip())
        return _operator(request, holder) if holder is not None else None


class StaffAuth(APIKeyCookie):
    """The session of a staff user, as the admin's login gives it."""

    param_name = settings.SESSION_COOKIE_NAME

    def __call__(self, request: HttpRequest) -> Any:
        return self.authenticate(request, None)

    async def authenticate(self, request: HttpRequest, key: str | None) -> Operator | None:
        user = await request.auser()
        if not (user.is_active and user.is_staff):
            return None
        if check_csrf(request) is not None:
            raise HttpError(
                403, "the CSRF token is missing or wrong; send the cookie's value as X-CSRFToken"
            )
        return _operator(request, user.get_username())


async def anyone_in_debug(request: HttpRequest) -> Operator | None:
    """In DEBUG everyone may look, so that `curl` works on a machine of one's own."""
    return _operator(request, "anyone") if settings.DEBUG else None


READERS: list[Callable[..., Any]] = [anyone_in_debug, TokenAuth(), StaffAuth()]
OPERATORS: list[Callable[..., Any]] = [TokenAuth(), StaffAuth()]


def _operator(request: HttpRequest, name: str) -> Operator:
    return Operator(name, Source.API, request.META.get("REMOTE_ADDR") or "")
