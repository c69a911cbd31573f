"""Every page has the headers, works under them, and a deployment that is set up has no warnings."""

import os
import re
import subprocess
import sys

import pytest
from django.test import AsyncClient, Client
from django.urls import reverse

from schedsite.security import HEADERS, comes_from_our_pages, origin_is_listed
from tests.support.cluster import ROOT

pytestmark = pytest.mark.django_db
EVENT_ATTRIBUTE = re.compile(r"<[^>]+\son[a-z]+\s*=", re.IGNORECASE)
INLINE_SCRIPT = re.compile(r"<script(?![^>]*\bsrc=)(?![^>]*application/json)[^>]*>", re.IGNORECASE)
INLINE_STYLE = re.compile(r"<style\b|<[^>]+\sstyle\s*=", re.IGNORECASE)
ELSEWHERE = re.compile(r'(?:src|href)="(?:https?:)?//', re.IGNORECASE)


def pages() -> list[str]:
    """Addresses of the admin's pages that need no row."""
    found = [reverse("admin:index"), "/api/v1/docs"]
    for admin_url in ("changelist", "add"):
        for app, model in (
            ("registry", "node"),
            ("pools", "pool"),
            ("pools", "poolversion"),
            ("pools", "poolwish"),
            ("routing", "auditentry"),
            ("routing", "operatortoken"),
            ("routing", "nodecredential"),
            ("auth", "user"),
            ("auth", "group"),
        ):
            found.append(reverse(f"admin:{app}_{model}_{admin_url}"))
    return [*found, reverse("admin:password_change"), reverse("live"), reverse("deadletters")]


def test_every_page_carries_the_headers_and_needs_nothing_that_they_forbid(
    admin_client: Client,
) -> None:
    seen = 0
    for address in pages():
        page = admin_client.get(address)
        assert page.status_code in (200, 403), address
        for name, value in HEADERS.items():
            assert page.headers[name] == value, (address, name)
        assert page.headers["X-Frame-Options"] == "DENY"
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        assert page.headers["Referrer-Policy"] == "same-origin"
        text = page.content.decode()
        for forbidden in (EVENT_ATTRIBUTE, INLINE_SCRIPT, INLINE_STYLE, ELSEWHERE):
            assert forbidden.search(text) is None, (address, forbidden.search(text))
        seen += page.status_code == 200
    assert seen > 12


@pytest.mark.parametrize("address", ["/admin/login/", "/nothing/here", "/api/v1/openapi.json"])
async def test_answers_of_every_kind_carry_them(address: str) -> None:
    page = await AsyncClient().get(address)
    for name, value in HEADERS.items():
        assert page.headers[name] == value


SET_UP = {
    "DEBUG": "false",
    "SECRET_KEY": "".join(chr(33 + (index * 7) % 90) for index in range(64)),
    "HTTPS_ONLY": "true",
    "ALLOWED_HOSTS": "sched.example.org",
    "SCHED_SESSION_KEYS": "k1:" + "x" * 48,
    "SCHED_NODE_AUTH": "required",
    "SCHED_SESSION_AUTH": "required",
}


def check_deploy(**changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=ROOT,
        env={**os.environ, **SET_UP, **changes},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_deployment_that_is_set_up_has_no_warnings() -> None:
    done = check_deploy()
    assert done.returncode == 0, done.stderr


def test_what_is_missing_or_wrong_is_said_with_its_cure_and_without_the_secret() -> None:
    assert "SCHED_SESSION_KEYS is empty" in check_deploy(SCHED_SESSION_KEYS="").stderr
    wrong = check_deploy(SCHED_SESSION_KEYS="k1:hunter22").stderr
    assert "scheduler.E008" in wrong
    assert "token_urlsafe" in wrong
    assert "hunter22" not in wrong
    assert "scheduler.E009" in check_deploy(SCHED_GREETING_MS="-1").stderr


def headers(**named: str) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in named.items()]


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://sched.example.org", True),
        ("http://sched.example.org", True),
        ("https://ops.example.org", True),
        ("https://evil.example.org", False),
        ("https://sched.example.org.evil.org", False),
        ("https://sched.example.org:8443", False),
        ("null", False),
        ("", False),
        ("file://sched.example.org", False),
    ],
)
def test_a_socket_that_a_cookie_lets_in_is_opened_by_our_own_pages_only(
    origin: str, allowed: bool
) -> None:
    trusted = ["https://ops.example.org"]
    shown = headers(host="sched.example.org", origin=origin)
    assert comes_from_our_pages(shown, trusted) is allowed
    assert not comes_from_our_pages(headers(host="sched.example.org"), trusted)


def test_sessions_may_be_opened_by_listed_pages_and_by_clients_that_are_no_browsers() -> None:
    listed = ["https://app.example.org"]
    assert origin_is_listed(headers(host="x"), listed)
    assert origin_is_listed(headers(origin="https://app.example.org"), listed)
    assert not origin_is_listed(headers(origin="https://evil.example.org"), listed)
    assert not origin_is_listed(headers(origin="null"), listed)
    assert origin_is_listed(headers(origin="https://evil.example.org"), [])
