"""Dead letters over real processes: kept with their history, replayed once, seen from anywhere."""

import asyncio
import base64
import json
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.agents import Frame, Node, Session, translating
from tests.support.cluster import Cluster, Instance, named
from tests.support.operators import (
    ROOT_USER,
    add_token,
    ask,
    audit,
    look,
    operated_cluster,
    pools,
    set_up,
)
from tests.support.waiting import eventually

AUDIO = base64.b64encode(bytes(range(256)) * 40).decode()
RULES = {
    "SCHED_JOB_MAX_ATTEMPTS": "2",
    "SCHED_JOB_TIMEOUT_MS": "600",
    "SCHED_QUEUE_TIMEOUT_MS": "5000",
    "SCHED_POOL_CLEANUP_MS": "60000",
    # Nothing expires here but what is killed.
    "SCHED_PRESENCE_TTL_MS": "20000",
    "SCHED_OWNER_TTL_MS": "20000",
}
OWN = ("job_id", "attempt_id", "session_id", "utterance_index")


@pytest.fixture(scope="module")
def lettered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two instances for debugging, one that is not, and a database with a staff user "root"."""
    with operated_cluster(tmp_path_factory.mktemp("letters"), **RULES) as cluster:
        yield cluster


@pytest.fixture
def a(lettered: Cluster) -> Instance:
    return named(lettered, "a")


@pytest.fixture
def b(lettered: Cluster) -> Instance:
    return named(lettered, "b")


@pytest.fixture(scope="module")
def token(lettered: Cluster) -> str:
    return add_token(lettered, "letters")


class Dropping(Node):
    """Loses its connection whenever it gets a job, and comes back."""

    async def took(self, frame: Frame) -> None:
        if frame["type"] == "job_assign":
            self.break_off()


async def pool_of(pair: str, *instances: Instance) -> None:
    await eventually(lambda: all(pair in pools(i) for i in instances), what=f"a pool {pair}")


async def dead(
    instance: Instance, src: str, *, at: Instance | None = None, **more: Any
) -> tuple[Session, list[Frame]]:
    """A session from `src` to English that was told its job failed, and what its nodes got.

    The first node loses its connection over the job, the second never answers.
    """
    at = at or instance
    async with Dropping(at.node_url, f"drops-{src}", f"{src}-en") as first:
        await pool_of(f"{src}-en", instance, at)
        session = Session(instance.session_url, src, "en", tenant_id=f"tenant-{src}")
        await session.open()
        await session.say(0, audio=AUDIO, odd=[1, "\u00e9", None], **more)
        await first.expect("job_assign")
        async with Node(at.node_url, f"mute-{src}", f"{src}-en") as second:
            await second.expect("job_assign")
            terminal = await session.terminal(0)
            assert terminal["type"] == "error", terminal
            return session, [*first.jobs, *second.jobs]


def listed(instance: Instance, **query: str) -> list[dict[str, Any]]:
    asked = urllib.parse.urlencode(query)
    return look(instance, f"deadletters?{asked}")["items"]


def act(
    instance: Instance, word: str, letter: dict[str, Any], token: str
) -> tuple[int, dict[str, Any]]:
    return ask(instance, f"deadletters/{letter['id']}/{word}", token=token)


async def test_a_job_that_failed_for_good_is_kept_with_all_that_was_tried(
    a: Instance, b: Instance
) -> None:
    session, jobs = await dead(a, "k1", at=b, priority=7, trace_id="trace-k1")
    [letter] = listed(b, src="k1")
    assert letter == look(a, f"deadletters/{letter['id']}")
    assert letter["kind"] == "job"
    assert letter["job_id"] == f"{session.session_id}:0" == jobs[0]["job_id"]
    assert (letter["session_id"], letter["utterance_index"]) == (session.session_id, 0)
    assert (letter["tenant"], letter["src"], letter["tgt"]) == ("tenant-k1", "k1", "en")
    assert (letter["priority"], letter["trace_id"]) == (7, "trace-k1")
    assert letter["code"] == session.terminals[0]["code"] == "JOB_TIMEOUT"
    assert [(one["attempt"], one["node"]) for one in letter["history"]] == [
        (1, "drops-k1"),
        (2, "mute-k1"),
    ]
    assert letter["replay_of"] is None
    # What it carries is not shown.
    assert letter["payload_bytes"] > len(AUDIO)
    assert AUDIO[:100] not in json.dumps(letter)
    await session.close()


async def test_a_replay_is_a_job_of_its_own_with_the_same_bytes(
    lettered: Cluster, a: Instance, b: Instance, token: str
) -> None:
    session, jobs = await dead(a, "k2", at=b)
    [letter] = listed(a, src="k2")
    async with Node(a.node_url, "good-k2", "k2-en", answer=translating("good-k2")) as good:
        await eventually(lambda: look(b, "nodes/good-k2")["pools"], what="the good node at b")
        status, answer = act(b, "replay", letter, token)
        assert (status, answer["outcome"]) == (200, "done"), answer
        again = await good.expect("job_assign")
        assert again["audio"] == AUDIO
        told = {key: value for key, value in again.items() if key not in OWN}
        assert told == {key: value for key, value in jobs[0].items() if key not in OWN}
        assert again["session_id"] != session.session_id
        path = f"jobs/{again['job_id']}"
        await eventually(lambda: look(a, path)["state"] == "succeeded", what="the replay's end")
        assert look(a, path)["tenant"] == "tenant-k2"
        assert answer["detail"] == f"replayed as job {again['job_id']}"
        assert listed(a, src="k2") == []
        assert ask(a, f"deadletters/{letter['id']}", method="GET")[0] == 404
        # Once more, and at another instance: it is the same job.
        assert act(a, "replay", letter, token)[1]["outcome"] == "already so"
        assert act(b, "replay", letter, token)[1]["outcome"] == "already so"
        assert len(good.jobs) == 1
    # I1: the session that said it had its message, and gets no other.
    await session.send(
        {"type": "client_heartbeat", "session_id": session.session_id, "timestamp": 1}
    )
    await session.expect("server_heartbeat")
    assert len(session.terminals) == 1
    assert look(a, f"jobs/{session.session_id}:0")["state"] in ("failed", "expired")
    await session.close()
    [first, *rest] = audit(lettered, letter["id"])
    assert (first["action"], first["outcome"], first["source"]) == (
        "replay dead letter",
        "done",
        "api",
    )
    assert letter["job_id"] in first["detail"]["before"]
    assert again["job_id"] in first["detail"]["after"]
    assert [entry["outcome"] for entry in rest] == ["already so", "already so"]


async def test_two_who_replay_at_once_make_one_job(a: Instance, b: Instance, token: str) -> None:
    session, _ = await dead(a, "k3")
    await session.close()
    [letter] = listed(a, src="k3")
    async with Node(a.node_url, "good-k3", "k3-en", answer=translating("good-k3")) as good:
        await eventually(lambda: look(b, "nodes/good-k3")["pools"], what="the good node at b")
        answers = await asyncio.gather(
            *(asyncio.to_thread(act, at, "replay", letter, token) for at in (a, b, a, b))
        )
        assert [status for status, _ in answers] == [200] * 4, answers
        outcomes = sorted(answer["outcome"] for _, answer in answers)
        assert outcomes == ["already so", "already so", "already so", "done"]
        job = await good.expect("job_assign")
        await eventually(lambda: look(a, f"jobs/{job['job_id']}")["state"] == "succeeded")
        assert len(good.jobs) == 1
    assert listed(b, src="k3") == []


async def test_a_replay_that_fails_is_buried_again_with_its_whole_history(
    a: Instance, token: str
) -> None:
    session, _ = await dead(a, "k4")
    await session.close()
    [first] = listed(a, src="k4")
    async with Node(a.node_url, "mute-k4", "k4-en") as mute:
        assert act(a, "replay", first, token)[1]["outcome"] == "done"
        await mute.expect("job_assign", nth=2)
        [second] = await eventually(lambda: listed(a, src="k4"), what="the second letter")
    assert second["id"] != first["id"]
    assert second["replay_of"] == first["id"]
    assert second["history"][:2] == first["history"]
    assert [one["attempt"] for one in second["history"]] == [1, 2, 1, 2]
    assert second["payload_bytes"] > len(AUDIO)


async def test_where_no_node_could_take_it_the_letter_stays(
    lettered: Cluster, a: Instance, token: str
) -> None:
    session, _ = await dead(a, "k5")
    await session.close()
    [letter] = listed(a, src="k5")
    await eventually(lambda: ask(a, "nodes/mute-k5", method="GET")[0] == 404, what="no node")
    status, answer = act(a, "replay", letter, token)
    assert status == 409
    assert answer["detail"] == "no node supports k5 to en; the letter stays"
    assert [one["id"] for one in listed(a, src="k5")] == [letter["id"]]
    assert [entry["outcome"] for entry in audit(lettered, letter["id"])] == ["not now"]


async def test_dropping_is_for_good_and_audited(
    lettered: Cluster, a: Instance, b: Instance, token: str
) -> None:
    session, _ = await dead(a, "k6")
    await session.close()
    [letter] = listed(b, src="k6")
    assert act(b, "drop", letter, token)[0] == 200
    assert listed(a, src="k6") == []
    assert act(a, "drop", letter, token)[0] == 404
    done, missed = audit(lettered, letter["id"])
    assert (done["outcome"], done["detail"]["after"]) == ("done", "gone")
    assert missed["outcome"] == "not found"


async def test_many_are_replayed_and_dropped_by_what_they_have(a: Instance, token: str) -> None:
    async with Node(a.node_url, "mute-k7", "k7-en", slots=8):
        await pool_of("k7-en", a)
        async with Session(a.session_url, "k7", "en", tenant_id="many") as session:
            for index in range(4):
                await session.say(index)
            for index in range(4):
                assert (await session.terminal(index))["type"] == "error"
    letters = listed(a, tenant="many")
    assert len(letters) == 4
    pages = look(a, "deadletters?tenant=many&limit=3")
    rest = look(a, f"deadletters?tenant=many&limit=3&cursor={pages['next']}")
    assert [one["id"] for one in pages["items"] + rest["items"]] == [one["id"] for one in letters]
    assert rest["next"] is None
    # Nothing that fits, and nothing at all, is not everything.
    assert listed(a, tenant="many", code="QUEUE_FULL") == []
    assert ask(a, "deadletters/drop", token=token, body={})[0] == 422
    assert ask(a, "deadletters/drop", token=token, body={"cursor": "x", "all": True})[0] == 422
    await eventually(lambda: ask(a, "nodes/mute-k7", method="GET")[0] == 404, what="no node")
    status, tally = ask(a, "deadletters/replay", token=token, body={"tenant": "many"})
    assert (status, tally["not_now"], tally["left"]) == (200, 4, 4)
    named_two = {"ids": [letters[0]["id"], letters[1]["id"], "job~nobody:0~1"]}
    status, tally = ask(a, "deadletters/drop", token=token, body=named_two)
    assert (tally["done"], tally["not_found"], tally["left"]) == (2, 1, 0)
    async with Node(a.node_url, "good-k7", "k7-en", answer=translating("good-k7")) as good:
        status, tally = ask(a, "deadletters/replay", token=token, body={"src": "k7", "tgt": "en"})
        assert (tally["done"], tally["left"], tally["next"]) == (2, 0, None)
        await good.expect("job_assign", nth=2)
    assert listed(a, tenant="many") == []


async def test_a_job_that_only_waited_or_was_cancelled_leaves_no_letter(a: Instance) -> None:
    async with Node(a.node_url, "slow-k8", "k8-en", slots=1) as slow:
        await pool_of("k8-en", a)
        async with Session(a.session_url, "k8", "en") as session:
            await session.say(0)
            job = await slow.expect("job_assign")
            await session.say(1, deadline_ms=200)
            assert (await session.terminal(1))["code"] == "JOB_TIMEOUT"
            await slow.finish(job)
            await session.translated(0)
            await session.say(2)
            await slow.expect("job_assign", nth=2)
            await session.send(
                {
                    "type": "utterance_cancel",
                    "session_id": session.session_id,
                    "utterance_index": 2,
                }
            )
            assert (await session.terminal(2))["code"] == "JOB_CANCELLED"
    assert listed(a, src="k8") == []


async def test_the_commands_list_show_replay_and_drop(lettered: Cluster, a: Instance) -> None:
    session, _ = await dead(a, "k9")
    await session.close()
    [letter] = listed(a, src="k9")
    shown = await run(lettered, "list", "--src", "k9")
    assert letter["id"] in shown.stdout
    shown = await run(lettered, "show", letter["id"])
    assert json.loads(shown.stdout) == letter
    async with Node(a.node_url, "good-k9", "k9-en", answer=translating("good-k9")) as good:
        done = await run(lettered, "replay", letter["id"])
        assert done.returncode == 0, done.stderr
        job = await good.expect("job_assign")
        assert done.stdout == f"replayed as job {job['job_id']}\n"
        await eventually(lambda: look(a, f"jobs/{job['job_id']}")["state"] == "succeeded")
    dropped = await run(lettered, "drop", letter["id"])
    assert dropped.returncode == 1
    assert "there is no dead letter of this id" in dropped.stderr
    sources = [(entry["source"], entry["outcome"]) for entry in audit(lettered, letter["id"])]
    assert sources == [("command", "done"), ("command", "not found")]


async def run(cluster: Cluster, *words: str) -> Any:
    """The command, while the sockets of this test live on."""
    return await asyncio.to_thread(cluster.run, "deadletters", *words)


@pytest.mark.parametrize("path", ["deadletters/x/replay", "deadletters/x/drop"])
def test_an_action_needs_an_operator_also_in_debug(a: Instance, path: str) -> None:
    assert ask(a, path)[0] == 401


@pytest.mark.parametrize("path", ["deadletters/replay", "deadletters/drop"])
def test_many_need_an_operator_too(a: Instance, path: str) -> None:
    assert ask(a, path, body={"all": True})[0] == 401


@pytest.mark.parametrize("path", ["deadletters", "deadletters/x"])
def test_letters_are_not_for_strangers(lettered: Cluster, path: str) -> None:
    assert ask(named(lettered, "guarded"), path, method="GET")[0] == 401


def test_a_cursor_that_is_none_is_refused(a: Instance) -> None:
    status, answer = ask(a, "deadletters?cursor=x", method="GET")
    assert (status, "cursor" in answer["detail"]) == (422, True)


async def test_letters_of_an_instance_that_was_killed_are_seen_and_replayed_elsewhere(
    cluster: Cluster,
) -> None:
    cluster.settings |= RULES | ROOT_USER
    set_up(cluster)
    token = add_token(cluster, "killed")
    a, b = await cluster.start_instances("a", "b")
    session, _ = await dead(a, "k1")
    [letter] = listed(b, src="k1")
    assert letter["instance_id"] == "a"
    a.kill()
    assert [one["id"] for one in listed(b)] == [letter["id"]]
    async with Node(b.node_url, "good-k1", "k1-en", answer=translating("good-k1")) as good:
        await pool_of("k1-en", b)
        await eventually(lambda: look(b, "nodes/good-k1")["pools"], what="the good node")
        assert act(b, "replay", letter, token)[1]["outcome"] == "done"
        assert (await good.expect("job_assign"))["audio"] == AUDIO
    assert listed(b) == []
    await session.close()
