"""Headers that every Django response carries, and which pages may open a browser's socket.

The policy allows no inline script or style and nothing from elsewhere: what a page shows of what
nodes or clients said can then not run, even where it was not escaped. `connect-src 'self'` covers
the sockets of the page's own host.
"""

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import sync_and_async_middleware

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}

Answer = Callable[[HttpRequest], Any]


@sync_and_async_middleware
def security_headers(get_response: Answer) -> Answer:
    """Middleware: the headers that Django's own `SecurityMiddleware` does not set."""
    if iscoroutinefunction(get_response):

        async def later(request: HttpRequest) -> HttpResponse:
            return _with_headers(await get_response(request))

        return later

    def now(request: HttpRequest) -> HttpResponse:
        return _with_headers(get_response(request))

    return now


def _with_headers(response: HttpResponse) -> HttpResponse:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def origin_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The Origin of a handshake; None for clients that are no browsers, which send none."""
    return _header(headers, b"origin")


def comes_from_our_pages(headers: Iterable[tuple[bytes, bytes]], trusted: Iterable[str]) -> bool:
    """Whether a browser's socket, let in by a cookie, was opened by a page of this site.

    Browsers send cookies with any page's handshake; only the Origin tells whose page it was. So
    there must be one, of the host that was asked or one of CSRF_TRUSTED_ORIGINS.
    """
    kept = list(headers)
    origin, host = origin_of(kept), _header(kept, b"host")
    if origin is None or host is None:
        return False
    parts = urlsplit(origin)
    return parts.scheme in ("http", "https") and (parts.netloc == host or origin in set(trusted))


def origin_is_listed(headers: Iterable[tuple[bytes, bytes]], listed: Iterable[str]) -> bool:
    """Whether pages of this origin may open sessions: all may where no origin is listed."""
    origin, allowed = origin_of(headers), set(listed)
    return origin is None or not allowed or origin in allowed


def _header(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> str | None:
    found = next((value for name, value in headers if name.lower() == wanted), None)
    return None if found is None else found.decode("latin-1")
