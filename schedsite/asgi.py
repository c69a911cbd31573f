"""The ASGI application: sockets to their consumers, probes answered here, the rest by Django."""

import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import django
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "schedsite.settings")
try:
    django.setup()
    from django.core.asgi import get_asgi_application

    from schedsite.process import Process

    process = Process()
except ImproperlyConfigured as error:
    sys.exit(f"error: {error}")

from channels.auth import AuthMiddlewareStack
from channels.security.websocket import AllowedHostsOriginValidator

from routing.consumers.node import NodeConsumer
from routing.consumers.ops import OpsConsumer
from routing.consumers.session import SessionConsumer
from routing.views import PROBES
from schedsite import urls  # noqa: F401 (now, and not in the first request: it takes a while)
from schedsite.daphne_fit import fit_daphne, use_uvloop
from schedsite.daphne_flow import bound_daphne
from schedsite.security import comes_from_our_pages, origin_is_listed

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_django: Any = get_asgi_application()
_SOCKETS = {"/ws/node": NodeConsumer, "/ws/session": SessionConsumer}

_BY_COOKIE = {"/ws/ops"}
"""Sockets that a cookie lets in."""


async def _watch(scope: Scope, receive: Receive, send: Send) -> None:
    await OpsConsumer(process.routing, process.feed)(scope, receive, send)


# A browser's socket carries its cookies, whoever opened it: only pages of our own may. Agents and
# clients send no Origin, and none is asked of them.
_ops_socket: Any = AllowedHostsOriginValidator(AuthMiddlewareStack(_watch))


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one connection, or the server's own life."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    process.start()
    if scope["type"] == "websocket":
        await _serve_socket(scope, receive, send)
    elif (probe := PROBES.get(scope["path"])) is not None:
        await probe(process.routing, scope, receive, send)
    else:
        await _django(scope, receive, send)


async def _serve_socket(scope: Scope, receive: Receive, send: Send) -> None:
    path = scope["path"].rstrip("/")
    if path == "/ws/ops" and _may_come_from(scope, path):
        await _ops_socket(scope, receive, send)
        return
    consumer = _SOCKETS.get(path)
    if consumer is None or not _may_come_from(scope, path):
        # Closed before it was accepted: the client sees its handshake refused.
        await receive()
        await send({"type": "websocket.close"})
        return
    await consumer(process.routing)(scope, receive, send)


def _may_come_from(scope: Scope, path: str) -> bool:
    """Whether a page of this origin may open the socket; clients without one are no browsers."""
    if path in _BY_COOKIE:
        return comes_from_our_pages(scope["headers"], settings.CSRF_TRUSTED_ORIGINS)
    return origin_is_listed(scope["headers"], settings.SCHED_SESSION_ORIGINS)


async def _live(receive: Receive, send: Send) -> None:
    while True:
        event = await receive()
        if event["type"] == "lifespan.startup":
            process.start()
            await send({"type": "lifespan.startup.complete"})
        elif event["type"] == "lifespan.shutdown":
            await process.stop()
            await send({"type": "lifespan.shutdown.complete"})
            return


if "daphne.server" in sys.modules:
    use_uvloop()
    process.start_with_daphne()
    fit_daphne(max_frame_bytes=process.routing.max_frame_bytes)
    bound_daphne()
