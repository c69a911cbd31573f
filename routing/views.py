"""Probes, as plain ASGI: they must answer fast and while Django or Redis do not.

`/healthz` is about the event loop only, `/readyz` about Redis and sync, `/metrics` tells figures.
Restarting an instance because Redis is away would close every socket for nothing: liveness
checks belong on `/healthz`.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from routing.instance import Routing
from routing.metrics import CONTENT_TYPE, render

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Probe = Callable[[Routing, dict[str, Any], Receive, Send], Awaitable[None]]


async def healthz(routing: Routing, scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await _answer(scope, send, 200, b'{"status":"serving"}\n')


async def readyz(routing: Routing, scope: dict[str, Any], receive: Receive, send: Send) -> None:
    reasons = routing.unready()
    body = msgspec.json.encode({"ready": not reasons, "reasons": reasons}) + b"\n"
    await _answer(scope, send, 503 if reasons else 200, body)


async def metrics(routing: Routing, scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await _answer(scope, send, 200, render(routing), content_type=CONTENT_TYPE)


PROBES: dict[str, Probe] = {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics}


async def _answer(
    scope: dict[str, Any],
    send: Send,
    status: int,
    body: bytes,
    *,
    content_type: str = "application/json",
) -> None:
    headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if scope["method"] not in ("GET", "HEAD"):
        status, body = 405, b""
        headers = [(b"allow", b"GET, HEAD"), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    shown = b"" if scope["method"] == "HEAD" else body
    await send({"type": "http.response.body", "body": shown})
