"""`/ws/ops` over a real instance: who may watch, and what they see."""

import asyncio
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support.agents import Node
from tests.support.cluster import Cluster, Instance

LOG_IN = """
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
for name, staff in (("vera", True), ("mallory", False)):
    user = User.objects.create_user(name, password="tests-only", is_staff=staff)
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    print(settings.SESSION_COOKIE_NAME + "=" + session.session_key)
"""


MAY_SEE_LETTERS = """
from django.contrib.auth.models import Group, User
User.objects.get(username="vera").groups.add(Group.objects.get(name="viewer"))
"""


@pytest.fixture
def cookies(cluster: Cluster) -> dict[str, str]:
    """The cookies of a member of staff and of one who is not."""
    assert cluster.run("migrate", "-v", "0").returncode == 0
    done = cluster.run("shell", "-v", "0", "-c", LOG_IN)
    assert done.returncode == 0, done.stderr
    vera, mallory = done.stdout.strip().splitlines()[-2:]
    return {"vera": vera, "mallory": mallory}


def watching(instance: Instance, *, cookie: str = "", origin: str | None = "") -> Any:
    return connect(
        instance.url("/ws/ops", "ws"),
        origin=instance.url("") if origin == "" else origin,  # type: ignore[arg-type]
        additional_headers={"Cookie": cookie} if cookie else {},
        max_size=None,
    )


async def test_only_staff_with_a_session_on_a_page_of_ours_may_watch(
    cluster: Cluster, cookies: dict[str, str]
) -> None:
    (instance,) = await cluster.start_instances("one", ALLOWED_HOSTS="127.0.0.1", DEBUG="false")
    for refused in (
        watching(instance),
        watching(instance, cookie="sessionid=made-up"),
        watching(instance, cookie=cookies["mallory"]),
        watching(instance, cookie=cookies["vera"], origin="https://evil.example"),
        watching(instance, cookie=cookies["vera"], origin=None),
    ):
        with pytest.raises(InvalidStatus) as error:
            await refused
        assert error.value.response.status_code == 403
    async with watching(instance, cookie=cookies["vera"]) as socket:
        await socket.send(json.dumps({"watch": ["bar"]}))
        frame = json.loads(await asyncio.wait_for(socket.recv(), 10))
        assert frame["topic"] == "bar"
        assert frame["whole"]


async def test_a_viewer_gets_all_nodes_then_what_changed(
    cluster: Cluster, cookies: dict[str, str]
) -> None:
    (instance,) = await cluster.start_instances("one")
    async with (
        Node(instance.node_url, "gpu-1", "zh-en") as node,
        watching(instance, cookie=cookies["vera"]) as socket,
    ):
        await socket.send(json.dumps({"watch": ["nodes"]}))

        async def next_with(node_id: str) -> list[Any]:
            while True:
                frame = json.loads(await asyncio.wait_for(socket.recv(), 10))
                await socket.send('{"got":1}')
                for row in frame["rows"]:
                    if row[0] == node_id:
                        return [bool(frame.get("whole")), *row]

        node.silent = True
        assert (await next_with("gpu-1"))[:4] == [True, "gpu-1", "ready", "one"]
        await node.beat(resource_usage={"cpu_percent": 44.0, "mem_percent": 5.0, "running_jobs": 0})
        while (await next_with("gpu-1"))[6] != 44:
            pass
        async with Node(instance.node_url, "gpu-2", "zh-en"):
            assert (await next_with("gpu-2"))[1:3] == ["gpu-2", "ready"]


async def test_a_viewer_that_confirms_nothing_is_sent_no_more_than_the_window(
    cluster: Cluster, cookies: dict[str, str]
) -> None:
    (instance,) = await cluster.start_instances("one")
    async with (
        Node(instance.node_url, "gpu-1", "zh-en") as node,
        watching(instance, cookie=cookies["vera"]) as lazy,
        watching(instance, cookie=cookies["vera"]) as keen,
    ):
        node.silent = True
        for socket in (lazy, keen):
            await socket.send(json.dumps({"watch": ["nodes"]}))
        for percent in range(10, 16):
            await node.beat(resource_usage=usage(percent))
            await until_cpu(keen, percent)
        got = []
        try:
            while True:
                got.append(await asyncio.wait_for(lazy.recv(), 0.1))
        except TimeoutError:
            pass
        assert len(got) == 3
        await lazy.send('{"got":3}')
        await node.beat(resource_usage=usage(50))
        frame = json.loads(await asyncio.wait_for(lazy.recv(), 10))
        assert frame["whole"]


def usage(percent: int) -> dict[str, float]:
    return {"cpu_percent": float(percent), "mem_percent": 5.0, "running_jobs": 0}


async def until_cpu(socket: Any, percent: int) -> None:
    """Read and confirm frames until one says that the node's CPU is used so much."""
    while True:
        frame = json.loads(await asyncio.wait_for(socket.recv(), 10))
        await socket.send('{"got":1}')
        if any(row[5] == percent for row in frame["rows"]):
            return


async def test_a_wrong_message_is_answered_and_the_socket_stays(
    cluster: Cluster, cookies: dict[str, str]
) -> None:
    (instance,) = await cluster.start_instances("one")
    async with watching(instance, cookie=cookies["vera"]) as socket:
        for wrong in ("{", "[]", '{"watch": 5}', json.dumps({"watch": ["x"] * 100})):
            await socket.send(wrong)
            assert json.loads(await asyncio.wait_for(socket.recv(), 10))["type"] == "error"
        await socket.send(json.dumps({"watch": ["no such topic", "bar"]}))
        assert json.loads(await asyncio.wait_for(socket.recv(), 10))["topic"] == "bar"


async def test_dead_letters_are_watched_by_those_who_may_see_them(
    cluster: Cluster, cookies: dict[str, str]
) -> None:
    (instance,) = await cluster.start_instances("one")

    async def told(socket: Any, *, frames: int) -> set[str]:
        await socket.send(json.dumps({"watch": ["letter:x", "letters:code=A", "bar"]}))
        got = [json.loads(await asyncio.wait_for(socket.recv(), 10)) for _ in range(frames)]
        return {frame["topic"] for frame in got}

    async with watching(instance, cookie=cookies["vera"]) as socket:
        assert await told(socket, frames=1) == {"bar"}
    done = await asyncio.to_thread(cluster.run, "shell", "-v", "0", "-c", MAY_SEE_LETTERS)
    assert done.returncode == 0, done.stderr
    async with watching(instance, cookie=cookies["vera"]) as socket:
        assert await told(socket, frames=3) == {"letter:x", "letters:code=A", "bar"}


async def test_pages_are_for_staff_and_carry_the_policy(
    cluster: Cluster, cookies: dict[str, str], tmp_path: Path
) -> None:
    (instance,) = await cluster.start_instances("one")

    def get(path: str, cookie: str = "") -> tuple[int, str, str]:
        request = urllib.request.Request(instance.url(path), headers={"Cookie": cookie})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                policy = answer.headers.get("Content-Security-Policy", "")
                return answer.status, answer.url, policy
        except urllib.error.HTTPError as error:
            return error.code, error.url, error.headers.get("Content-Security-Policy", "")

    for path in ("", "nodes", "pools", "tasks", "sessions", "queues", "simulate", "alerts"):
        status, url, policy = await asyncio.to_thread(get, f"/ops/{path}", cookies["vera"])
        assert (status, url) == (200, instance.url(f"/ops/{path}"))
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        _, url, _ = await asyncio.to_thread(get, f"/ops/{path}", cookies["mallory"])
        assert "/admin/login/" in url
        _, url, _ = await asyncio.to_thread(get, f"/ops/{path}")
        assert "/admin/login/" in url
    for path in ("do/step-down", "dead-letters", "dead-letters/x", "dead-letters/do/drop?all=1"):
        status, _, _ = await asyncio.to_thread(get, f"/ops/{path}", cookies["vera"])
        assert status == 403, path
