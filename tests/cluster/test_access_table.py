"""Every line of the tables in docs/security.md holds, for every kind of caller."""

import asyncio
import base64
import contextlib
import json
import re
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from django.urls import get_resolver

from routing.api import api
from routing.views import PROBES
from tests.sockets.access import credential, token
from tests.support.agents import Node, Peer, Session, registration, translating
from tests.support.cluster import ROOT, Cluster, Instance
from tests.support.waiting import eventually

PAGE = (ROOT / "docs" / "security.md").read_text()
KEYS = "k1:" + "key-of-tests-" * 4
STAFF = "from django.contrib.auth.models import User; User.objects.create_superuser('root')"
LOCKED = {
    "DEBUG": "false",
    "SCHED_NODE_AUTH": "required",
    "SCHED_SESSION_AUTH": "required",
    "SCHED_SESSION_KEYS": KEYS,
    "LOG_LEVEL": "DEBUG",
}
LOGIN = """
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
user, session = User.objects.get(), SessionStore()
session[SESSION_KEY] = str(user.pk)
session[BACKEND_SESSION_KEY] = 'django.contrib.auth.backends.ModelBackend'
session[HASH_SESSION_KEY] = user.get_session_auth_hash()
session.create()
print(session.session_key)
"""
CSRF = "c" * 32
BODIES = {
    "/api/v1/deadletters/replay": {"ids": ["x"]},
    "/api/v1/deadletters/drop": {"ids": ["x"]},
}
"""What a route asks for; all others take nothing."""


def rows(first: str) -> list[list[str]]:
    """The table whose first column has this heading."""
    table = PAGE.split(f"| {first} | ", 1)[1].split("\n\n", 1)[0]
    lines = [line for line in table.splitlines()[2:] if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@dataclass(frozen=True)
class World:
    """A locked instance, its staff's cookie, and every kind of operator's token."""

    cluster: Cluster
    instance: Instance
    cookie: str
    tokens: dict[str, str]


def ran(cluster: Cluster, *arguments: str) -> str:
    done = cluster.run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    cluster = Cluster(tmp_path_factory.mktemp("table"), **LOCKED)
    cluster.start_server()
    try:
        ran(cluster, "migrate")
        instance = cluster.start_instance("one")
        ran(cluster, "shell", "--no-imports", "-c", STAFF)
        cookie = ran(cluster, "shell", "--no-imports", "-c", LOGIN)
        named = {
            name: ran(cluster, "create_operator_token", "--user=root", f"--name={name}")
            for name in ("good", "revoked", "expired")
        }
        with contextlib.closing(sqlite3.connect(cluster.folder / "db.sqlite3")) as database:
            for column, name in (("revoked_at", "revoked"), ("expires_at", "expired")):
                database.execute(
                    f"UPDATE routing_operatortoken SET {column} = '2020-01-01' WHERE name = ?",
                    (name,),
                )
            database.commit()
        asyncio.run(instance.ready())
        yield World(cluster, instance, cookie, named)
    finally:
        cluster.end()
    cluster.check_logs()


class Stays(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


OPENER = urllib.request.build_opener(Stays)


def status(instance: Instance, method: str, path: str, headers: dict[str, str]) -> int:
    data = json.dumps(BODIES[path]).encode() if path in BODIES else None
    if data is not None:
        headers = headers | {"Content-Type": "application/json"}
    request = urllib.request.Request(instance.url(path), data, headers, method=method)
    try:
        with OPENER.open(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def callers(world: World) -> dict[str, list[dict[str, str]]]:
    """What each column's callers send."""
    bearers = [
        world.tokens["revoked"],
        world.tokens["expired"],
        "sched_" + "A" * 43,
        token(KEYS),
        "node_" + "A" * 43,
    ]
    basic = base64.b64encode(b"root:").decode()
    return {
        "anyone": [
            {},
            {"Cookie": "sessionid=" + "x" * 32},
            {"Authorization": f"Basic {basic}"},
            *({"Authorization": f"Bearer {secret}"} for secret in bearers),
        ],
        "staff": [{"Cookie": f"sessionid={world.cookie}; csrftoken={CSRF}", "X-CSRFToken": CSRF}],
        "operator token": [{"Authorization": f"Bearer {world.tokens['good']}"}],
    }


def test_every_http_route_is_as_its_line_says(world: World) -> None:
    for route, *may in rows("route"):
        method, path = route.strip("`").split(" ")
        path += "?src_lang=zh&tgt_lang=en" if path.endswith("simulate") else ""
        for allowed, (who, shown) in zip(may, callers(world).items(), strict=True):
            for headers in shown:
                code = status(world.instance, method, path, headers)
                what = (route, who, headers, code)
                if allowed == "yes":
                    # Who is signed in is led on from the login.
                    led_on = route == "`GET /admin/login/`" and who == "staff" and code == 302
                    assert code in (200, 404) or led_on, what
                else:
                    assert code in (302, 401, 403), what


def test_staff_without_the_csrf_token_changes_nothing(world: World) -> None:
    path, cookie = "/api/v1/leader/step-down", f"sessionid={world.cookie}"
    assert status(world.instance, "POST", path, {"Cookie": cookie}) == 403


def test_every_route_has_a_line() -> None:
    listed = {row[0].strip("`").split(" ")[1] for row in rows("route")}
    known = {re.sub(r"\{\w+\}", "x", path) for path in api.get_openapi_schema()["paths"]}
    assert known | set(PROBES) <= listed
    prefixes = {str(entry.pattern) for entry in get_resolver("schedsite.urls").url_patterns}
    assert prefixes == {"", "admin/live/", "admin/deadletters/", "admin/", "api/v1/", "ops/"}


async def test_every_first_frame_is_as_its_line_says(world: World) -> None:
    cluster, instance = world.cluster, world.instance
    shown = [
        None,
        await credential(cluster, "own"),
        await credential(cluster, "other"),
        await credential(cluster, "--any"),
        token(KEYS, "acme"),
        token(KEYS, "umbrella"),
    ]
    greeting = {"client_version": "1", "platform": "web", "src_lang": "zh", "tgt_lang": "en"}
    frames = {
        "node_register": (instance.node_url, registration("own", "zh-en"), "node_register_ack"),
        "session_init": (
            instance.session_url,
            {"type": "session_init", "tenant_id": "acme", **greeting},
            "session_init_ack",
        ),
    }
    table = [row for row in rows("frame") if len(row) == len(shown) + 1]
    assert [row[0].strip("`") for row in table] == list(frames)
    for name, *may in table:
        url, frame, answer = frames[name.strip("`")]
        for allowed, secret in zip(may, shown, strict=True):
            peer = Peer(url)
            peer.credential = secret
            async with peer:
                with contextlib.suppress(Exception):
                    await peer.send(frame)
                if allowed == "yes":
                    await peer.expect(answer)
                else:
                    await peer.expect("error", code="UNAUTHORIZED")
                    assert await peer.closed() == 4401


def test_every_frame_is_in_a_line() -> None:
    from routing.domain.wire import NODE_FRAMES, SESSION_FRAMES

    named = set(re.findall(r"`(\w+)`", PAGE))
    assert set(NODE_FRAMES.tags) | set(SESSION_FRAMES.tags) <= named


async def test_the_function_for_backends_makes_tokens_that_are_taken(world: World) -> None:
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert code is not None
    namespace: dict[str, object] = {}
    exec(code.group(1), namespace)
    make = namespace["session_token"]
    assert callable(make)
    made = make("acme", key_id="k1", secret=KEYS.partition(":")[2], pairs=["zh-en"])
    async with Session.bearing(made, world.instance.session_url, "zh", "en"):
        pass


async def test_no_secret_is_in_any_log_metric_or_audit(world: World) -> None:
    """A node, a session and an operator work; then everything that was written is searched."""
    instance, cluster = world.instance, world.cluster
    node_secret, session_secret = await credential(cluster, "n1"), token(KEYS, "acme")
    audio = "UklGRg" + "Q" * 30 + "=="
    node = Node.bearing(node_secret, instance.node_url, "n1", "zh-en", answer=translating("n1"))
    session = Session.bearing(session_secret, instance.session_url, "zh", "en")
    async with node, session:
        said = 0

        async def is_translated() -> bool:
            nonlocal said
            said += 1
            await session.say(said, audio=audio)
            return (await session.answered(said))["type"] == "utterance_ack"

        await eventually(is_translated, what="a pool")
        await session.translated(said)
        for secret in (node_secret[:-1] + "x", session_secret[:-3]):
            for url in (instance.node_url, f"{instance.session_url}?token={secret}"):
                peer = Peer(url)
                peer.credential = secret
                async with peer:
                    await peer.closed()
    bearer = {"Authorization": f"Bearer {world.tokens['good']}"}
    await asyncio.to_thread(status, instance, "POST", "/api/v1/nodes/n1/drain", bearer)
    await asyncio.to_thread(cluster.run, "revoke_node_credential", node_secret[:13])
    with contextlib.closing(sqlite3.connect(cluster.folder / "db.sqlite3")) as database:
        audit = json.dumps(database.execute("SELECT * FROM routing_auditentry").fetchall())
    assert "revoke node credential" in audit
    written = {
        **{process.name: process.log for process in cluster.processes},
        "metrics": instance.get("/metrics")[1],
        "audit": audit,
    }
    assert "session opened" in written["one"]
    key = KEYS.partition(":")[2]
    secrets = (node_secret, session_secret, session.resume_token, world.tokens["good"], key, audio)
    for where, text in written.items():
        for secret in secrets:
            assert secret not in text, where
            assert secret[14:40] not in text, where
