"""The demo's own operator: signs in like a person and reads the live state."""

import asyncio
import http.cookiejar
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

TIMEOUT_S = 5.0


class Operator:
    """Reads one instance's pages, off the event loop."""

    def __init__(self, base_url: str, user: str, password: str) -> None:
        self._base_url = base_url
        self._user = user
        self._password = password
        self._signed_in = False
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self._opener = urllib.request.build_opener(cookies)

    async def state(self) -> dict[str, Any]:
        """`/api/v1/state`; empty while it cannot be had."""
        return await asyncio.to_thread(self._state)

    async def figures(self, port: int) -> dict[str, float]:
        """`/metrics` of the instance at this port, by name and labels; empty where none answers."""
        return await asyncio.to_thread(self._figures, port)

    def _state(self) -> dict[str, Any]:
        try:
            if not self._signed_in:
                self._sign_in()
            found: dict[str, Any] = json.loads(self._get("/api/v1/state"))
        except (OSError, ValueError):
            self._signed_in = False
            return {}
        return found

    def _sign_in(self) -> None:
        page = self._get("/admin/login/")
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
        form = {
            "csrfmiddlewaretoken": token[1] if token else "",
            "username": self._user,
            "password": self._password,
            "next": "/admin/live/",
        }
        self._get("/admin/login/", urllib.parse.urlencode(form).encode())
        self._signed_in = True

    def _get(self, path: str, body: bytes | None = None) -> str:
        with self._opener.open(self._base_url + path, body, TIMEOUT_S) as answer:
            text: str = answer.read().decode()
            return text

    def _figures(self, port: int) -> dict[str, float]:
        try:
            url = f"http://127.0.0.1:{port}/metrics"
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return {}
        pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}
