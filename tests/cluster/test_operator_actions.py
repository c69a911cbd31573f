"""What operators may do, over real processes: drain, resume, shut down, step down, regenerate."""

import asyncio
import http.cookiejar
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator

import pytest

from tests.support.agents import Node, Session, translating
from tests.support.cluster import Cluster, Instance, named
from tests.support.operators import (
    PASSWORD,
    add_token,
    ask,
    audit,
    database,
    look,
    new_token,
    operated_cluster,
    pools,
    set_up,
)
from tests.support.waiting import eventually

ACTIONS = [
    "nodes/n1/drain",
    "nodes/n1/resume",
    "nodes/n1/shutdown",
    "leader/step-down",
    "pools/regenerate",
]


@pytest.fixture(scope="module")
def operated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two instances for debugging, one that is not, and a database with a staff user "root"."""
    with operated_cluster(
        tmp_path_factory.mktemp("actions"),
        # Nothing expires here, and calls of the API hold the nodes of a test up.
        SCHED_PRESENCE_TTL_MS="20000",
        SCHED_OWNER_TTL_MS="20000",
        SCHED_QUEUE_TIMEOUT_MS="60000",
    ) as cluster:
        yield cluster


@pytest.fixture
def a(operated: Cluster) -> Instance:
    return named(operated, "a")


@pytest.fixture
def b(operated: Cluster) -> Instance:
    return named(operated, "b")


@pytest.fixture
def guarded(operated: Cluster) -> Instance:
    return named(operated, "guarded")


@pytest.fixture(scope="module")
def token(operated: Cluster) -> str:
    return new_token(operated, "tests")


def status_of(instance: Instance, node_id: str) -> str | None:
    found = ask(instance, f"nodes/{node_id}", method="GET")[1].get("status")
    return str(found) if found is not None else None


async def everywhere(instances: tuple[Instance, ...], node_id: str, status: str) -> None:
    await eventually(
        lambda: all(status_of(instance, node_id) == status for instance in instances),
        what=f"{node_id} to be {status} everywhere",
    )


# Nodes.


async def test_a_drained_node_gets_nothing_new_and_finishes_what_it_has(
    operated: Cluster, a: Instance, b: Instance, token: str
) -> None:
    async with (
        Node(a.node_url, "drained", "zh-en", slots=2) as node,
        Session(b.session_url, "zh", "en") as session,
    ):
        await everywhere((a, b), "drained", "ready")
        await eventually(lambda: "zh-en" in pools(b), what="the node's pool")
        await session.say(0)
        job = await node.expect("job_assign")
        answer = ask(b, "nodes/drained/drain", token=token, body={"reason": "new disk"})
        assert answer == (
            200,
            {
                "outcome": "done",
                "subject": "drained",
                "detail": "node drained gets nothing new and finishes what it has",
            },
        )
        # From the answer on nothing is reserved: no waiting here.
        await session.say(1)
        assert (await session.expect("utterance_ack", utterance_index=1))["status"] == "queued"
        control = await node.expect("node_control")
        assert (control["command"], control["reason"]) == ("drain", "new disk")
        await everywhere((a, b), "drained", "draining")
        await node.finish(job)
        await session.translated(0)
        await node.beat()
        assert ask(a, "nodes/drained/drain", token=token)[1]["outcome"] == "already so"
        waiting = look(b, f"jobs/{session.session_id}:1")
        assert (waiting["state"], waiting["node_id"]) == ("queued", None)
        assert len(node.jobs) == 1

        assert ask(a, "nodes/drained/resume", token=token)[1]["outcome"] == "done"
        await node.expect("node_control", command="resume")
        job = await node.expect("job_assign", utterance_index=1)
        await node.finish(job)
        await session.translated(1)
        await everywhere((a, b), "drained", "ready")
        assert ask(b, "nodes/drained/resume", token=token)[1]["outcome"] == "already so"

    entries = audit(operated, "drained")
    assert [(entry["action"], entry["outcome"]) for entry in entries] == [
        ("drain node", "done"),
        ("drain node", "already so"),
        ("resume node", "done"),
        ("resume node", "already so"),
    ]
    first = entries[0]
    assert (first["actor"], first["source"]) == ("root, token tests", "api")
    assert (first["address"], first["detail"]["reason"]) == ("127.0.0.1", "new disk")


async def test_a_drain_survives_that_the_node_reconnects_elsewhere(
    a: Instance, b: Instance, token: str
) -> None:
    async with Node(a.node_url, "moving", "zh-en") as node:
        await everywhere((a, b), "moving", "ready")
        assert ask(b, "nodes/moving/drain", token=token)[0] == 200
        await node.expect("node_control", command="drain")
    async with (
        Node(b.node_url, "moving", "zh-en", answer=translating("moving")) as node,
        Session(a.session_url, "zh", "en") as session,
    ):
        assert (await node.expect("node_register_ack"))["status"] == "draining"
        await everywhere((a, b), "moving", "draining")
        await session.say(0)
        assert (await session.expect("utterance_ack"))["status"] == "queued"
        assert node.jobs == []
        assert ask(a, "nodes/moving/resume", token=token)[0] == 200
        await session.translated(0)
        await everywhere((a, b), "moving", "ready")


async def test_a_node_that_was_told_to_end_gets_nothing_new_until_it_comes_back(
    operated: Cluster, a: Instance, b: Instance, token: str
) -> None:
    async with (
        Node(a.node_url, "ending", "zh-en") as node,
        Session(b.session_url, "zh", "en") as session,
    ):
        await everywhere((a, b), "ending", "ready")
        answer = ask(b, "nodes/ending/shutdown", token=token, body={"reason": "sold"})
        assert answer[1]["outcome"] == "done"
        control = await node.expect("node_control")
        assert (control["command"], control["reason"]) == ("shutdown", "sold")
        await everywhere((a, b), "ending", "draining")
        await session.say(0)
        assert (await session.expect("utterance_ack"))["status"] == "queued"
        await node.beat()
        await node.close()
        async with Node(b.node_url, "ending", "zh-en", answer=translating("ending")) as back:
            assert (await back.expect("node_register_ack"))["status"] == "ready"
            await session.translated(0)
        assert node.jobs == []
    assert [entry["action"] for entry in audit(operated, "ending")] == ["shut down node"]


async def test_two_operators_who_disagree_leave_what_the_last_one_said(
    a: Instance, b: Instance, token: str
) -> None:
    async with Node(a.node_url, "torn", "zh-en") as node:
        await everywhere((a, b), "torn", "ready")
        for _ in range(5):
            ask(b, "nodes/torn/drain", token=token)
            ask(a, "nodes/torn/resume", token=token)
        ask(b, "nodes/torn/drain", token=token)
        ask(b, "nodes/torn/resume", token=token)
        await node.expect("node_control", command="resume", nth=6)
        await everywhere((a, b), "torn", "ready")


def test_an_unknown_node_is_a_404_with_a_sentence_and_an_entry(
    operated: Cluster, a: Instance, token: str
) -> None:
    for action in ("drain", "resume", "shutdown"):
        assert ask(a, f"nodes/nobody/{action}", token=token) == (
            404,
            {"detail": "no node of this id is connected to the cluster"},
        )
    assert {entry["outcome"] for entry in audit(operated, "nobody")} == {"not found"}
    assert ask(a, "nodes/%00%7B/drain", token=token)[0] == 404


def test_a_reason_that_is_too_long_is_refused(a: Instance, token: str) -> None:
    assert ask(a, "nodes/nobody/drain", token=token, body={"reason": "x" * 501})[0] == 422


# The leader and the pools.


async def test_after_a_step_down_the_leader_has_a_higher_epoch(
    operated: Cluster, a: Instance, token: str
) -> None:
    await eventually(lambda: a.state().get("leader"), what="a leader")
    before = a.state()["leader"]
    status, answer = ask(a, "leader/step-down", token=token)
    assert (status, answer["outcome"]) == (200, "done")
    assert before["instance_id"] in answer["detail"]
    after = await eventually(
        lambda: (a.state()["leader"] or {}).get("epoch", 0) > before["epoch"] and a.state(),
        what="a higher epoch",
    )
    await eventually(
        lambda: a.state()["pool_config"]["epoch"] >= after["leader"]["epoch"],
        what="the configuration under it",
    )
    assert [entry["action"] for entry in audit(operated, "leader")] == ["step down"]


async def test_regenerating_what_has_not_changed_publishes_nothing(
    operated: Cluster, a: Instance, b: Instance, token: str
) -> None:
    async with Node(a.node_url, "still", "zh-en"):
        # Exactly these: what the tests before left behind is swept away.
        await eventually(lambda: pools(b) == {"zh-en", "*-en"}, what="only this node's pools")
        before = b.state()["pool_config"]["version"]
        status, answer = ask(b, "pools/regenerate", token=token)
        assert (status, answer["outcome"]) == (200, "done")
        # What changes afterwards is published as the very next version.
        async with Node(a.node_url, "other", "ja-en"):
            await eventually(lambda: "ja-en" in pools(b), what="the pool of the other node")
            assert b.state()["pool_config"]["version"] == before + 1
    entry = audit(operated, "pools")[-1]
    assert (entry["action"], entry["outcome"]) == ("regenerate", "done")


# Who may.


@pytest.mark.parametrize("path", ACTIONS)
def test_an_anonymous_action_is_refused_even_in_debug(a: Instance, path: str) -> None:
    assert ask(a, path) == (401, {"detail": "Unauthorized"})
    assert ask(a, path, token="sched_" + "x" * 43)[0] == 401
    assert ask(a, path, headers={"Authorization": "Basic cm9vdDpyb290"})[0] == 401
    assert ask(a, path, headers={"Cookie": "sessionid=nonsense"})[0] == 401


@pytest.mark.parametrize("path", ["state", "nodes", "pools", "simulate?src_lang=a&tgt_lang=b"])
def test_a_token_opens_the_state_routes(guarded: Instance, token: str, path: str) -> None:
    assert ask(guarded, path, token=token, method="GET")[0] == 200
    assert ask(guarded, path, token=token + "x", method="GET")[0] == 401
    assert ask(guarded, path, method="GET")[0] == 401


def test_a_revoked_or_expired_token_or_one_of_a_former_colleague_is_refused(
    operated: Cluster, guarded: Instance
) -> None:
    tokens = [add_token(operated, name) for name in ("revoked", "expired", "left")]
    for good in tokens:
        assert ask(guarded, "pools/regenerate", token=good)[0] == 200
    change = "UPDATE routing_operatortoken SET"
    database(operated, f"{change} revoked_at = datetime('now') WHERE name = 'revoked'")
    database(operated, f"{change} expires_at = datetime('now') WHERE name = 'expired'")
    database(
        operated,
        "INSERT INTO auth_user (username, password, is_superuser, is_staff, is_active, first_name,"
        " last_name, email, date_joined) VALUES ('left', '', 0, 1, 0, '', '', '', datetime('now'))",
    )
    database(
        operated,
        f"{change} user_id = (SELECT id FROM auth_user WHERE username = 'left')"
        " WHERE name = 'left'",
    )
    for bad in tokens:
        assert ask(guarded, "pools/regenerate", token=bad) == (401, {"detail": "Unauthorized"})
        assert ask(guarded, "state", token=bad, method="GET")[0] == 401


def test_a_staff_session_needs_the_csrf_token_too(guarded: Instance) -> None:
    jar = http.cookiejar.CookieJar()
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    login = guarded.url("/admin/login/")
    with browser.open(login, timeout=10) as page:
        form_token = re.search(r'csrfmiddlewaretoken" value="(\w+)"', page.read().decode())
    assert form_token
    form = {"csrfmiddlewaretoken": form_token[1], "username": "root", "password": PASSWORD}
    form["next"] = "/api/v1/pools"
    browser.open(login, urllib.parse.urlencode(form).encode(), timeout=10).close()
    cookies = {cookie.name: cookie.value or "" for cookie in jar}
    sent = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
    status, refused = ask(guarded, "pools/regenerate", headers=sent)
    assert status == 403
    assert "CSRF" in refused["detail"]
    assert ask(guarded, "pools", headers=sent, method="GET")[0] == 200
    sent["X-CSRFToken"] = cookies["csrftoken"]
    assert ask(guarded, "pools/regenerate", headers=sent)[0] == 200


# Looking.


async def test_a_job_and_its_session_can_be_looked_up_without_their_secrets(
    a: Instance, b: Instance
) -> None:
    async with (
        Node(a.node_url, "looked", "zh-en") as node,
        Session(b.session_url, "zh", "en", tenant_id="t1") as session,
    ):
        await everywhere((a, b), "looked", "ready")
        await session.say(3)
        job = await node.expect("job_assign")
        job_id = f"{session.session_id}:3"
        shown = look(a, f"jobs/{job_id}")
        assert shown["state"] in ("assigned", "running")
        assert shown["node_id"] == "looked"
        assert (shown["attempt"], shown["tenant"], shown["seq"]) == (1, "t1", None)
        assert (shown["src_lang"], shown["tgt_lang"], shown["priority"]) == ("zh", "en", 5)
        assert shown["trace_id"] == job["trace_id"]
        assert shown["deadline_ms"] > shown["accepted_at_ms"]
        assert job["audio"] not in json.dumps(shown)
        assert look(a, f"sessions/{session.session_id}") == {
            "id": session.session_id,
            "instance_id": "b",
            "connection_epoch": 1,
            "seq": 0,
            "closed": False,
            "open_jobs": [job_id],
        }
        await node.finish(job)
        await session.translated(3)
        assert look(b, f"jobs/{job_id}")["state"] == "succeeded"
        assert look(a, f"sessions/{session.session_id}")["open_jobs"] == []
    for path in ("jobs/s-x:0", "jobs/nonsense", "sessions/s-x", "sessions/%00", "jobs/%7B:1"):
        status, problem = ask(a, path, method="GET")
        assert (status, problem["detail"].split()[0]) == (404, "no")


async def test_a_dry_run_explains_every_node_and_reserves_nothing(
    a: Instance, b: Instance, token: str
) -> None:
    async with (
        Node(a.node_url, "sim-1", "zh-en", slots=1),
        Node(b.node_url, "sim-2", "zh-en", slots=2),
        Node(a.node_url, "sim-3", "ja-en"),
        Node(a.node_url, "sim-4", "zh-en") as drained,
        Node(a.node_url, "sim-5", "zh-en", accept_public_jobs=False),
    ):
        ids = {f"sim-{number}" for number in range(1, 6)}
        await eventually(lambda: {n["id"] for n in look(b, "nodes")["nodes"]} == ids)
        await eventually(lambda: {"zh-en", "ja-en"} <= pools(b))
        assert ask(a, "nodes/sim-4/drain", token=token)[0] == 200
        await drained.expect("node_control")
        await everywhere((a, b), "sim-4", "draining")
        run = look(b, "simulate?src_lang=zh&tgt_lang=en&n=4")
        assert (run["pool"], run["filtered"]) == ("zh-en", False)
        placed = [(each["outcome"], each["node"]) for each in run["placements"]]
        assert [outcome for outcome, _ in placed] == ["accepted"] * 3 + ["queued"]
        assert sorted(node for _, node in placed[:3]) == ["sim-1", "sim-2", "sim-2"]
        assert placed[3] == ("queued", None)
        assert {c["id"] for c in run["placements"][0]["candidates"]} == {"sim-1", "sim-2"}
        reasons = {each["id"]: each["reason"] for each in run["passed_over"]}
        assert set(reasons) == {"sim-3", "sim-4", "sim-5"}
        assert reasons["sim-4"] == "it is draining"
        assert reasons["sim-5"] == "it takes no public jobs"
        assert reasons["sim-3"]
        assert all(node["reserved"] == 0 for node in look(b, "nodes")["nodes"])
        none = look(b, "simulate?src_lang=xx&tgt_lang=yy")
        assert none["pool"] is None
        assert [each["outcome"] for each in none["placements"]] == ["NO_AVAILABLE_NODE"]
        assert {each["id"] for each in none["passed_over"]} == ids
        for query in ("", "src_lang=zh", "src_lang=zh&tgt_lang=en&n=21", "src_lang=%00&tgt_lang=b"):
            assert ask(b, f"simulate?{query}", method="GET")[0] == 422
        assert ask(a, "nodes/sim-4/resume", token=token)[0] == 200


# Commands.


async def test_commands_reach_a_node_wherever_it_is(
    operated: Cluster, a: Instance, b: Instance
) -> None:
    async with Node(b.node_url, "called", "zh-en") as node:
        await everywhere((a, b), "called", "ready")
        for word, status in (("drain", "draining"), ("resume", "ready"), ("shutdown", "draining")):
            done = await asyncio.to_thread(
                operated.run, "node", word, "called", "--reason", "because"
            )
            assert done.returncode == 0, done.stderr
            assert done.stdout.startswith("node called ")
            assert done.stdout.count("\n") == 1
            control = await node.expect("node_control", command=word)
            assert control["reason"] == "because"
            await everywhere((a, b), "called", status)
    entries = audit(operated, "called")
    assert [entry["outcome"] for entry in entries] == ["done"] * 3
    assert {entry["source"] for entry in entries} == {"command"}
    assert all(entry["actor"] and entry["address"] for entry in entries)


def test_a_command_that_cannot_be_done_says_so_in_one_sentence(operated: Cluster) -> None:
    done = operated.run("node", "drain", "nobody-2")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no node of this id is connected to the cluster" in done.stderr
    assert "Traceback" not in done.stderr
    done = operated.run("create_operator_token", "--user", "nobody", "--name", "x")
    assert done.returncode == 1
    assert "there is no active staff user 'nobody'" in done.stderr


async def test_the_leader_and_the_pools_have_commands_too(operated: Cluster, a: Instance) -> None:
    before = (await eventually(lambda: a.state().get("leader"), what="a leader"))["epoch"]
    done = await asyncio.to_thread(operated.run, "pools", "regenerate")
    assert done.returncode == 0, done.stderr
    assert "asked to generate the pools" in done.stdout
    done = await asyncio.to_thread(operated.run, "leader", "step-down")
    assert done.returncode == 0, done.stderr
    assert "asked to step down" in done.stdout
    await eventually(
        lambda: (a.state().get("leader") or {}).get("epoch", 0) > before, what="a higher epoch"
    )


async def test_while_the_store_is_away_an_action_is_a_503_that_is_audited(
    cluster: Cluster,
) -> None:
    cluster.settings |= {
        "DJANGO_SUPERUSER_USERNAME": "root",
        "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
        "DJANGO_SUPERUSER_EMAIL": "root@example.com",
    }
    set_up(cluster)
    token = new_token(cluster, "tests")
    (instance,) = await cluster.start_instances("a")
    async with Node(instance.node_url, "n1", "zh-en"):
        await everywhere((instance,), "n1", "ready")
        cluster.server.stop(kill=True)
        for path in ("nodes/n1/drain", "leader/step-down", "pools/regenerate"):
            status, problem = await asyncio.to_thread(ask, instance, path, token=token)
            assert (status, problem["detail"][:22]) == (503, "Redis is not available")
        assert (await asyncio.to_thread(ask, instance, "jobs/s-x:0", method="GET"))[0] == 503
        done = await asyncio.to_thread(cluster.run, "node", "drain", "n1")
        assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert [entry["outcome"] for entry in audit(cluster, "n1")] == ["failed"]
