"""The HTTP routes of an instance: probes, figures, live state, and who may see it."""

import asyncio
import http.cookiejar
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.agents import Node, Session, translating
from tests.support.cluster import Cluster, Instance, all_ready, named
from tests.support.waiting import eventually

PASSWORD = "correct horse battery staple"
PLAIN_USER = """
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.sessions.backends.db import SessionStore
user = get_user_model().objects.create_user("plain", password="x")
session = SessionStore()
session[SESSION_KEY] = str(user.pk)
session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
session[HASH_SESSION_KEY] = user.get_session_auth_hash()
session.create()
print("session=" + session.session_key)
"""


@pytest.fixture(scope="module")
def api_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two instances: one for debugging, open to all, and one that is not."""
    cluster = Cluster(
        tmp_path_factory.mktemp("api"),
        DJANGO_SUPERUSER_USERNAME="root",
        DJANGO_SUPERUSER_PASSWORD=PASSWORD,
        DJANGO_SUPERUSER_EMAIL="root@example.com",
    )
    cluster.start_server()
    try:
        both = [cluster.start_instance("open"), cluster.start_instance("guarded", DEBUG="false")]
        asyncio.run(all_ready(both))
        yield cluster
    finally:
        cluster.end()
    cluster.check_logs()


@pytest.fixture
def instance(api_cluster: Cluster) -> Instance:
    return named(api_cluster, "open")


@pytest.fixture
def guarded(api_cluster: Cluster) -> Instance:
    return named(api_cluster, "guarded")


@pytest.fixture(scope="module")
def plain_session(api_cluster: Cluster) -> str:
    """A database with a staff user "root" in it; returns the cookie of a user without rights."""
    for command in (("migrate", "-v", "0"), ("createsuperuser", "--noinput")):
        done = api_cluster.run(*command)
        assert done.returncode == 0, done.stderr
    done = api_cluster.run("shell", "-v", "0", "-c", PLAIN_USER)
    found = re.search(r"session=(\w+)", done.stdout)
    assert found, done.stderr
    return found[1]


def answer(instance: Instance, path: str) -> Any:
    status, body = instance.get(path)
    assert status == 200, body
    return json.loads(body)


def request(instance: Instance, path: str, **options: Any) -> tuple[int, str, str]:
    """Status, content type and body."""
    asked = urllib.request.Request(instance.url(path), **options)
    try:
        with urllib.request.urlopen(asked, timeout=5) as got:
            return got.status, got.headers.get("Content-Type", ""), got.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers.get("Content-Type", ""), error.read().decode()


# Probes.


def test_healthz_and_readyz_say_that_it_serves(instance: Instance) -> None:
    assert answer(instance, "/healthz") == {"status": "serving"}
    assert answer(instance, "/readyz") == {"ready": True, "reasons": []}


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_probes_need_no_login_and_take_only_get_and_head(guarded: Instance, path: str) -> None:
    assert request(guarded, path)[0] == 200
    assert request(guarded, path, method="HEAD")[0::2] == (200, "")
    assert request(guarded, path, method="POST", data=b"x")[0] == 405


async def test_metrics_are_prometheus_text_and_count_the_work(instance: Instance) -> None:
    async with (
        Node(instance.node_url, "m1", "zh-en", answer=translating("m1")),
        Session(instance.session_url, "zh", "en") as session,
    ):
        await eventually(lambda: pools(instance).get("zh-en") == 1)
        before = figures(instance)
        await session.say(0)
        await session.translated(0)
        after = figures(instance)
    assert after["sched_jobs_accepted_total"] == before["sched_jobs_accepted_total"] + 1
    assert after["sched_jobs_finished_total"] == before["sched_jobs_finished_total"] + 1
    assert after["sched_dispatch_seconds_count"] == before["sched_dispatch_seconds_count"] + 1
    assert 0 < after["sched_dispatch_seconds_sum"] - before["sched_dispatch_seconds_sum"] < 10
    assert after["sched_local_nodes"] == 1
    assert after["sched_sessions"] == 1
    assert after["sched_sockets"] == 2
    assert after["sched_ready"] == 1
    assert after["sched_loops_failing"] == 0
    assert after["sched_pools"] == 2
    assert request(instance, "/metrics")[1].startswith("text/plain")


def figures(instance: Instance) -> dict[str, float]:
    families = list(text_string_to_metric_families(instance.get("/metrics")[1]))
    assert all(family.documentation for family in families)
    assert all(family.name.startswith("sched_") for family in families)
    return {sample.name: sample.value for family in families for sample in family.samples}


def pools(instance: Instance) -> dict[str, int]:
    return {pool["name"]: pool["nodes"] for pool in instance.state().get("pools", [])}


async def sees(instance: Instance, *, nodes: int) -> None:
    """Wait until the nodes of the test before are gone, and these are there."""
    await eventually(lambda: instance.state()["nodes"]["total"] == nodes, what=f"{nodes} nodes")


# State.

STATE = {
    "instance": {"id": str, "started_at_ms": int, "degraded": bool},
    "leader": {"instance_id": str, "epoch": int, "expires_in_ms": int},
    "pool_config": {
        "version": int,
        "epoch": int,
        "generated_by": str,
        "generated_at_ms": int,
        "digest": str,
    },
    "pool_index_digest": str,
    "nodes": {"total": int, "ready": int},
    "pools": [{"id": int, "name": str, "kind": str, "nodes": int}],
    "instances": [
        {
            "id": str,
            "nodes": int,
            "sessions": int,
            "last_seen_ms": int,
            "pool_config_version": int,
            "pool_index_digest": str,
            "degraded": bool,
        }
    ],
}
"""Section 4 of the contract."""


def shape(value: Any) -> Any:
    """What is where, without the values; all members of a list must be alike."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        shapes = [shape(inner) for inner in value]
        assert all(each == shapes[0] for each in shapes), shapes
        return shapes[:1]
    return type(value)


async def test_state_has_exactly_the_fields_of_the_contract(
    instance: Instance, guarded: Instance
) -> None:
    async with Node(guarded.node_url, "s1", "zh-en"), Session(guarded.session_url, "zh", "en"):
        await eventually(lambda: pools(instance) == {"zh-en": 1, "*-en": 1})
        await eventually(
            lambda: (
                [
                    (peer["nodes"], peer["sessions"])
                    for peer in instance.state()["instances"]
                    if peer["id"] == "guarded"
                ]
                == [(1, 1)]
            ),
            what="node and session to be reported",
        )
        state = answer(instance, "/api/v1/state")
    assert shape(state) == STATE
    assert state["instance"]["id"] == "open"
    assert state["instance"]["degraded"] is False
    assert state["leader"]["instance_id"] in ("open", "guarded")
    assert state["leader"]["epoch"] >= state["pool_config"]["epoch"] >= 1
    assert state["nodes"] == {"total": 1, "ready": 1}
    assert [(pool["name"], pool["kind"]) for pool in state["pools"]] == [
        ("*-en", "mixed"),
        ("zh-en", "exact"),
    ]
    peers = {peer["id"]: peer for peer in state["instances"]}
    assert set(peers) == {"open", "guarded"}
    assert (peers["guarded"]["nodes"], peers["guarded"]["sessions"]) == (1, 1)


async def test_nodes_come_page_by_page(instance: Instance) -> None:
    ids = [f"p{number}" for number in range(5)]
    async with AsyncExitStack() as nodes:
        for node_id in ids:
            await nodes.enter_async_context(Node(instance.node_url, node_id, "ja-en"))
        seen, cursor, pages = [], "", 0
        while cursor is not None:
            page = answer(instance, f"/api/v1/nodes?limit=2&cursor={cursor}")
            assert set(page) == {"nodes", "next"}
            seen += [node["id"] for node in page["nodes"]]
            cursor, pages = page["next"], pages + 1
        assert seen == ids
        assert pages == 3
        assert answer(instance, "/api/v1/nodes?cursor=p3")["nodes"][0]["id"] == "p4"
        assert answer(instance, "/api/v1/nodes?cursor=zzz") == {"nodes": [], "next": None}


async def test_the_last_page_names_no_next_one(instance: Instance) -> None:
    async with Node(instance.node_url, "p0", "ja-en"), Node(instance.node_url, "p1", "ja-en"):
        await sees(instance, nodes=2)
        page = answer(instance, "/api/v1/nodes?limit=2")
        assert [node["id"] for node in page["nodes"]] == ["p0", "p1"]
        assert page["next"] is None


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=x", "cursor=" + "c" * 200])
def test_a_page_that_cannot_be_is_refused(instance: Instance, query: str) -> None:
    status, kind, body = request(instance, f"/api/v1/nodes?{query}")
    assert status == 422
    assert kind.startswith("application/json")
    assert query.split("=")[0] in body


async def test_a_node_and_a_pool_can_be_looked_up(instance: Instance) -> None:
    async with (
        Node(instance.node_url, "l1", "zh-en", slots=7, labels={"zone": "a"}),
        Node(instance.node_url, "l:2@x", "zh-en", "ja-en"),
    ):
        await eventually(lambda: pools(instance) == {"zh-en": 2, "ja-en": 1, "*-en": 2})
        node = answer(instance, "/api/v1/nodes/l1")
        assert (node["id"], node["slots"], node["labels"]) == ("l1", 7, {"zone": "a"})
        assert (node["status"], node["instance_id"]) == ("ready", "open")
        assert sorted(node["pools"]) == ["*-en", "zh-en"]
        assert answer(instance, "/api/v1/nodes/l:2@x")["id"] == "l:2@x"
        listed = answer(instance, "/api/v1/pools")["pools"]
        assert [pool["name"] for pool in listed] == ["*-en", "ja-en", "zh-en"]
        for pool in listed:
            quoted = urllib.parse.quote(pool["name"])
            detail = answer(instance, f"/api/v1/pools/{quoted}")
            assert detail["pool"] == pool
            assert len(detail["members"]) == pool["nodes"]
        assert answer(instance, "/api/v1/pools/ja-en")["members"] == ["l:2@x"]


@pytest.mark.parametrize("path", ["nodes/nobody", "nodes/%7Bx%7D", "pools/xx-yy", "pools/%00"])
def test_what_is_not_there_is_a_404_with_a_sentence(instance: Instance, path: str) -> None:
    status, kind, body = request(instance, f"/api/v1/{path}")
    assert status == 404
    assert kind.startswith("application/json")
    sentence = json.loads(body)["detail"]
    assert sentence.startswith("no " + path.split("/")[0].removesuffix("s"))


def test_the_schema_describes_every_route_that_was_asked_here(instance: Instance) -> None:
    schema = answer(instance, "/api/v1/openapi.json")
    assert schema["openapi"].startswith("3.")
    paths = ("state", "nodes", "nodes/{node_id}", "pools", "pools/{name}")
    for path in paths:
        described = schema["paths"][f"/api/v1/{path}"]["get"]
        assert described["summary"]
        assert "200" in described["responses"]


# Who may see it.

ROUTES = ["state", "nodes", "nodes/n1", "pools", "pools/zh-en"]


@pytest.mark.parametrize("route", ROUTES)
def test_without_debug_an_anonymous_caller_gets_401(
    guarded: Instance, plain_session: str, route: str
) -> None:
    status, kind, body = request(guarded, f"/api/v1/{route}")
    assert status == 401
    assert kind.startswith("application/json")
    assert json.loads(body) == {"detail": "Unauthorized"}


@pytest.mark.parametrize("cookie", ["sessionid=nonsense", "sessionid=", "sessionid=%00"])
def test_a_made_up_session_gets_401(guarded: Instance, plain_session: str, cookie: str) -> None:
    assert request(guarded, "/api/v1/state", headers={"Cookie": cookie})[0] == 401


def test_a_user_without_staff_rights_gets_401(guarded: Instance, plain_session: str) -> None:
    cookie = {"Cookie": f"sessionid={plain_session}"}
    assert request(guarded, "/api/v1/state", headers=cookie)[0] == 401


def test_a_staff_user_logged_in_through_the_admin_gets_the_state(
    guarded: Instance, plain_session: str
) -> None:
    browser = urllib.request.build_opener(
        urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
    )
    login = guarded.url("/admin/login/?next=/api/v1/state")
    with browser.open(login, timeout=10) as page:
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.read().decode())
    assert token
    form = {"csrfmiddlewaretoken": token[1], "username": "root", "password": PASSWORD}
    form["next"] = "/api/v1/state"
    with browser.open(login, urllib.parse.urlencode(form).encode(), timeout=10) as page:
        assert page.url == guarded.url("/api/v1/state")
        assert json.loads(page.read())["instance"]["id"] == "guarded"
    for route in ("nodes", "pools"):
        with browser.open(guarded.url(f"/api/v1/{route}"), timeout=10) as page:
            assert page.status == 200
