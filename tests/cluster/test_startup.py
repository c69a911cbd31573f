"""How processes begin and end: bad settings, a Redis that is away or goes away, signals."""

import asyncio
import json
import os
import re
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from registry.store.embedded import EmbeddedServer
from tests.support.agents import Frame, Node, Session, translating
from tests.support.cluster import Cluster, Instance, Process
from tests.support.waiting import eventually


@pytest.fixture
def unserved(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster whose Redis was not started. No log may hold a stack."""
    cluster = Cluster(tmp_path)
    try:
        yield cluster
    finally:
        cluster.end()
    cluster.check_logs()


async def serves(instance: Instance, *names: str) -> None:
    def there() -> bool:
        found = {pool["name"]: pool["nodes"] for pool in instance.state().get("pools", [])}
        return all(found.get(name) for name in names)

    await eventually(there, within_ms=15_000, what=f"{names} at {instance.name}")


def reasons(instance: Instance) -> list[str]:
    """Why it is not ready; empty when it is."""
    status, body = instance.get("/readyz")
    found = json.loads(body)
    assert (status, found["ready"]) == ((503, False) if found["reasons"] else (200, True))
    return list(found["reasons"])


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# Settings.

DAPHNE = ("-m", "daphne", "-b", "127.0.0.1", "-p", "0", "schedsite.asgi:application")
LEADER = ("manage.py", "run_leader_loop")
BAD: dict[str, tuple[str, dict[str, str]]] = {
    "no secret key": ("SECRET_KEY", {"SECRET_KEY": "", "DEBUG": ""}),
    "address without a scheme": ("SCHED_REDIS_URL", {"SCHED_REDIS_URL": "localhost:6379"}),
    "a port that is none": ("SCHED_REDIS_URL", {"SCHED_REDIS_URL": "redis://host:port/0"}),
    "not a number": ("SCHED_LEADER_TTL_MS", {"SCHED_LEADER_TTL_MS": "soon"}),
    "renewed after it ran out": ("SCHED_LEADER_RENEW_MS", {"SCHED_LEADER_RENEW_MS": "1600"}),
    "presence below heartbeat": ("SCHED_PRESENCE_TTL_MS", {"SCHED_PRESENCE_TTL_MS": "400"}),
    "pools of none": ("SCHED_MIN_NODES_PER_POOL", {"SCHED_MIN_NODES_PER_POOL": "0"}),
    "threshold of none": ("SCHED_RESOURCE_THRESHOLD", {"SCHED_RESOURCE_THRESHOLD": "0"}),
    "unknown mode": ("SCHED_REDIS_MODE", {"SCHED_REDIS_MODE": "nonsense"}),
    "id with a blank": ("SCHED_INSTANCE_ID", {"SCHED_INSTANCE_ID": "a b"}),
}


async def refusal(
    cluster: Cluster, entry: tuple[str, ...], setting: str, env: dict[str, str]
) -> str:
    """What is wrong with how a process answered a bad setting; empty when nothing is."""
    name = f"{entry[0].strip('-.')}-{setting}-{len(cluster.processes)}"
    process = Process(name, list(entry), cluster.env | env, cluster.folder)
    cluster.processes.append(process)
    try:
        await eventually(lambda: not process.alive, within_ms=30_000)
    except AssertionError:
        return f"{name} goes on"
    lines = process.log.splitlines()
    status = process.ended()
    if status == 1 and len(lines) == 1 and re.match(rf"error: {setting} \S.*", lines[0]):
        return ""
    return f"{name} ended with {status} and said:\n{process.log}"


@pytest.mark.slow
async def test_a_bad_setting_is_refused_in_one_sentence_that_names_it(unserved: Cluster) -> None:
    at_once = asyncio.Semaphore(os.cpu_count() or 1)

    async def tried(entry: tuple[str, ...], setting: str, env: dict[str, str]) -> str:
        async with at_once:
            return await refusal(unserved, entry, setting, env)

    # The commands share the code behind the settings; some of them show that they use it.
    some = [BAD[name] for name in ("no secret key", "a port that is none", "pools of none")]
    answers = [tried(DAPHNE, *bad) for bad in BAD.values()]
    answers += [tried(LEADER, *bad) for bad in some]
    complaints = list(filter(None, await asyncio.gather(*answers)))
    assert not complaints, "\n".join(complaints)


async def test_a_bad_database_address_is_refused_in_one_sentence(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    try:
        env = {"DATABASE_URL": "nonsense"}
        assert await refusal(cluster, DAPHNE, "DATABASE_URL", env) == ""
    finally:
        cluster.end()


# Redis.


def warned(instance: Instance) -> Counter[str]:
    """How often each loop warned that it waits for the store."""
    return Counter(re.findall(r'event="loop waits for the store" loop="?([a-z ]+)', instance.log))


async def test_an_instance_starts_without_redis_and_is_ready_as_soon_as_there_is_one(
    unserved: Cluster,
) -> None:
    port = free_port()
    server = EmbeddedServer(
        unserved.folder / "valkey", options=("--port", str(port), "--bind", "127.0.0.1")
    )
    unserved.server = server
    by_socket = unserved.start_instance("by-socket")
    by_port = unserved.start_instance("by-port", SCHED_REDIS_URL=f"redis://127.0.0.1:{port}/0")
    instances = [by_socket, by_port]
    for instance in instances:
        await eventually(
            lambda i=instance: i.get("/healthz")[0] == 200, within_ms=30_000, what="healthz"
        )
        await eventually(
            lambda i=instance: sum("Redis" in reason for reason in reasons(i)) >= 6,
            what="the failing loops",
        )
    await asyncio.sleep(
        2.5
    )  # Time for each loop to fail a few times more: the longest pause is 1 s.
    for instance in instances:
        assert instance.get("/healthz")[0] == 200
        assert set(warned(instance).values()) == {1}, warned(instance)
    unserved.start_server()
    for instance in instances:
        await synced(instance)
        assert set(warned(instance).values()) == {1}, warned(instance)


async def synced(instance: Instance) -> None:
    """Wait until it follows the store (again); a loop that waits for news needs 5 s to notice."""
    await eventually(
        lambda: not any(reason.startswith(("node", "pool")) for reason in reasons(instance)),
        within_ms=15_000,
        what=f"{instance.name} to follow the store",
    )


async def insists(session: Session, index: int) -> Frame:
    """Say an utterance, again and again while it is refused, until its result is there."""

    async def said() -> Frame | None:
        await session.say(index)
        try:
            async with asyncio.timeout(0.3):
                return await session.translated(index)
        except TimeoutError:
            return None

    frame: Frame = await eventually(said, within_ms=15_000, what=f"utterance {index}")
    return frame


async def test_an_instance_started_without_redis_is_ready_once_there_is_one(
    unserved: Cluster,
) -> None:
    a = unserved.start_instance("a")
    await eventually(lambda: a.get("/healthz")[0] == 200, within_ms=30_000, what="healthz")
    await eventually(lambda: any("Redis" in reason for reason in reasons(a)))
    unserved.start_server()
    await synced(a)
    await eventually(lambda: reasons(a) == [], within_ms=6_000, what="a to be ready")


async def test_an_instance_is_ready_again_when_redis_comes_back(cluster: Cluster) -> None:
    (a,) = await cluster.start_instances("a")
    cluster.server.stop(kill=True)
    await eventually(lambda: any("Redis" in reason for reason in reasons(a)))
    assert a.state()["instance"]["degraded"] is True
    assert a.state()["leader"] is None
    cluster.start_server()
    await synced(a)
    await eventually(lambda: reasons(a) == [], within_ms=6_000, what="a to be ready")
    await eventually(lambda: a.state()["leader"], what="a leader to be seen")
    assert a.state()["instance"]["degraded"] is False


async def test_redis_may_die_and_come_back_under_a_running_instance(cluster: Cluster) -> None:
    (a,) = await cluster.start_instances("a")
    async with (
        Node(a.node_url, "n1", "zh-en", answer=translating("n1")) as node,
        Node(a.node_url, "slow", "ja-en") as slow,
        Session(a.session_url, "zh", "en") as session,
        Session(a.session_url, "ja", "en") as waiting,
    ):
        await serves(a, "zh-en", "ja-en")
        await session.say(0)
        await session.translated(0)
        await waiting.say(0)
        job = await slow.expect("job_assign")

        cluster.server.stop(kill=True)
        await eventually(lambda: any("Redis" in reason for reason in reasons(a)))
        assert a.get("/healthz")[0] == 200
        # What is new is served without it, what it knows of waits for it.
        await session.say(1)
        assert (await session.translated(1))["seq"] == 2
        await session.say(0)
        refused = await session.expect("error")
        assert refused["code"] == "INTERNAL_ERROR"
        assert refused["details"]["retry_after_ms"] > 0
        assert refused["utterance_index"] == 0
        assert "seq" not in refused
        # What a node finishes meanwhile is not lost.
        await slow.finish(job)

        cluster.start_server()
        await synced(a)
        await serves(a, "zh-en", "ja-en")
        assert a.get("/api/v1/nodes/n1")[0] == 200
        await session.say(1)
        await session.expect("utterance_ack", utterance_index=1, status="duplicate")
        await session.say(2)
        assert (await session.translated(2))["seq"] == 3
        await waiting.translated(0)
        assert [peer.close_code for peer in (node, slow, session, waiting)] == [None] * 4
        assert len(session.terminals) == 3
        assert len(waiting.terminals) == 1


# Ending.


async def test_sigterm_ends_idle_processes_at_once(cluster: Cluster) -> None:
    (a,) = await cluster.start_instances("a")
    leader = cluster.start_leader("leader")
    await eventually(lambda: "event=started" in leader.log, what="the candidate's start")
    assert leader.stop(within_s=3) == 0
    assert a.stop(within_s=3) == 0
    assert "event=stopped" in a.log


async def test_sigterm_ends_an_instance_with_requests_on_the_way(cluster: Cluster) -> None:
    (a,) = await cluster.start_instances("a")
    with closing(socket.create_connection(("127.0.0.1", a.port))) as half:
        half.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        assert a.get("/healthz")[0] == 200
        assert a.stop(within_s=8) == 0


async def test_sigterm_ends_an_instance_while_redis_does_not_answer(cluster: Cluster) -> None:
    (a,) = await cluster.start_instances("a")
    cluster.server._process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
    try:
        with closing(socket.create_connection(("127.0.0.1", a.port))) as held:
            held.sendall(b"GET /api/v1/state HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert (await asyncio.to_thread(a.get, "/healthz"))[0] == 200
            assert await asyncio.to_thread(a.stop, within_s=12) == 0
    finally:
        cluster.server._process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]


# Without a Redis of one's own.


async def test_one_instance_works_without_any_redis(unserved: Cluster) -> None:
    (a,) = await unserved.start_instances("a", SCHED_REDIS_MODE="off", SCHED_REDIS_URL="")
    async with (
        Node(a.node_url, "n1", "zh-en") as node,
        Session(a.session_url, "zh", "en") as session,
    ):
        await serves(a, "zh-en", "*-en")
        for index in range(3):
            await session.say(index)
            await node.finish(await node.expect("job_assign", utterance_index=index))
            assert (await session.translated(index))["seq"] == index + 1
        await session.say(3)
        job = await node.expect("job_assign", utterance_index=3)
        session.break_off()
        await node.finish(job)
        resumed = await session.resume_at(a.session_url)
        try:
            assert (await resumed.translated(3))["seq"] == 4
        finally:
            await resumed.close()
        assert a.state()["leader"]["instance_id"] == "a"
    assert not unserved.server.answers()
    assert a.stop() == 0


async def test_instances_without_an_address_share_an_embedded_server_and_revive_it(
    unserved: Cluster,
) -> None:
    folder = unserved.folder / "embedded"
    own = {"SCHED_REDIS_URL": "", "SCHED_EMBEDDED_DIR": str(folder)}
    server = EmbeddedServer(folder)
    a = unserved.start_instance("a", **own)
    await a.ready()
    b = unserved.start_instance("b", **own)
    await b.ready()
    await eventually(lambda: {peer["id"] for peer in b.state()["instances"]} == {"a", "b"})
    async with (
        Node(b.node_url, "n1", "zh-en", answer=translating("n1")),
        Session(b.session_url, "zh", "en") as session,
    ):
        await serves(b, "zh-en")
        await session.say(0)
        await session.translated(0)
        version = b.state()["pool_config"]["version"]
        a.kill()  # And with it the server, its child.
        await eventually(server.answers, what="b to start the server again")
        await synced(b)
        await serves(b, "zh-en")
        assert b.state()["pool_config"]["version"] >= version
        assert (await insists(session, 1))["seq"] == 2
    assert b.stop() == 0
    assert not server.answers()
