"""What a peer may ask of an instance, over real sockets of one that allows little."""

import asyncio
import itertools
import json
import signal
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.support.agents import Frame, Node, Peer, Session, heartbeat, registration
from tests.support.cluster import Cluster, Instance
from tests.support.waiting import eventually

SOCKETS = 6
RATE = 50
TIGHT = {
    "SCHED_GREETING_MS": "700",
    "SCHED_SESSION_IDLE_MS": "1500",
    "SCHED_SOCKETS_PER_ADDRESS": str(SOCKETS),
    "SCHED_SESSION_FRAME_RATE": str(RATE),
    "SCHED_NODE_FRAME_RATE": str(RATE),
    "SCHED_TENANT_IN_FLIGHT": "2",
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two instances that allow little; no log may hold a stack."""
    cluster = Cluster(tmp_path_factory.mktemp("limits"), **TIGHT)
    cluster.start_server()
    try:
        for name in ("one", "two"):
            cluster.start_instance(name)
        yield cluster
    finally:
        cluster.end()
    cluster.check_logs()


@pytest.fixture
async def tight(cluster: Cluster) -> AsyncIterator[Instance]:
    one, two = cluster.processes
    assert isinstance(one, Instance)
    assert isinstance(two, Instance)
    await one.ready()
    await two.ready()
    yield one
    await eventually(partial(_has_no_sockets, one), what="the sockets of the test to be gone")


def _has_no_sockets(instance: Instance) -> bool:
    return "\nsched_sockets 0.0\n" in instance.get("/metrics")[1]


def other(cluster: Cluster) -> Instance:
    two = cluster.processes[1]
    assert isinstance(two, Instance)
    return two


def beat(session: Session) -> Frame:
    return {"type": "client_heartbeat", "session_id": session.session_id, "timestamp": 0}


@pytest.mark.parametrize("path", ["/ws/node", "/ws/session"])
async def test_who_does_not_greet_is_put_out(tight: Instance, path: str) -> None:
    async with Peer(tight.url(path, "ws")) as peer:
        await peer.send('{"type": "nonsense"}')
        assert await peer.closed() == 4408


async def test_an_idle_session_is_closed_and_one_that_beats_is_not(tight: Instance) -> None:
    idle = Session(tight.session_url, "zh", "en")
    lively = Session(tight.session_url, "zh", "en")
    async with idle, lively:
        ended = asyncio.create_task(idle.closed())
        while not (await asyncio.wait({ended}, timeout=0.2))[0]:
            await lively.send(beat(lively))
        assert idle.close_code == 4408
        assert lively.close_code is None
        again = await idle.resume_at(tight.session_url)
        await again.close()


async def test_an_address_has_so_many_sockets(tight: Instance) -> None:
    peers = [Session(tight.session_url, "zh", "en") for _ in range(SOCKETS)]
    for peer in peers:
        await peer.open()
    one_more = Peer(tight.session_url)
    await one_more.open()
    error = await one_more.expect("error", code="RATE_LIMITED")
    assert error["details"]["retry_after_ms"] > 0
    assert await one_more.closed() == 4429
    assert all(peer.close_code is None for peer in peers)
    await peers[0].close()

    async def comes_in() -> bool:
        async with Peer(tight.session_url) as peer:
            await peer.send(json.dumps({"type": "x"}))
            return (await peer.expect("error"))["code"] == "INVALID_MESSAGE"

    await eventually(comes_in, what="a place for another socket")
    for peer in peers[1:]:
        await peer.close()


async def test_frames_over_the_rate_are_refused_and_who_goes_on_is_put_out(
    tight: Instance,
) -> None:
    async with Session(tight.session_url, "zh", "en") as calm:
        async with Session(tight.session_url, "zh", "en") as hasty:
            for _ in range(RATE * 3):
                await hasty.send(beat(hasty))
            error = await hasty.expect("error", code="RATE_LIMITED")
            assert error["details"]["retry_after_ms"] > 0
            assert hasty.close_code is None
            for _ in range(RATE * 4):
                await hasty.send(beat(hasty))
            assert await hasty.closed() == 4429
        await calm.send(beat(calm))
        await calm.expect("server_heartbeat")


async def test_a_tenant_has_so_many_unfinished_utterances_over_all_instances(
    tight: Instance, cluster: Cluster
) -> None:
    node = Node(tight.node_url, "n1", "zh-en", slots=8)
    here = Session(tight.session_url, "zh", "en", tenant_id="acme")
    there = Session(other(cluster).session_url, "zh", "en", tenant_id="acme")
    umbrella = Session(tight.session_url, "zh", "en", tenant_id="umbrella")
    async with node, here, there, umbrella:
        for instance in (tight, other(cluster)):
            await eventually(partial(_serves, instance), what="the pool")
        await here.say(0)
        await here.expect("utterance_ack", utterance_index=0)
        await there.say(0)
        await there.expect("utterance_ack", utterance_index=0)
        for session in (here, there):
            await session.say(1)
            error = await session.expect("error", utterance_index=1)
            assert error["code"] == "RATE_LIMITED"
            assert "seq" not in error
        await here.say(0)
        await here.expect("utterance_ack", utterance_index=0, status="duplicate")
        await umbrella.say(0)
        await umbrella.expect("utterance_ack", utterance_index=0)
        job = await node.expect("job_assign", session_id=here.session_id)
        await node.finish(job)
        await here.translated(0)

        async def is_taken() -> bool:
            await there.say(1)
            return any(f["type"] == "utterance_ack" for f in there._words_on(1))

        await eventually(is_taken, what="a place for the tenant")
        await here.say(2)
        assert (await here.answered(2))["code"] == "RATE_LIMITED"


def _serves(instance: Instance) -> bool:
    return _has_pool(instance, "zh-en")


async def test_who_writes_and_never_stops_is_held_back_in_the_network(
    tight: Instance, cluster: Cluster
) -> None:
    """While its first frame waits for the store, 100 MB more are not piled up in memory."""
    async with Session(tight.session_url, "zh", "en") as calm:
        flood = await connect(tight.session_url, max_size=None, max_queue=None)
        before_kb = _resident_kb(tight)
        cluster.pause_server(signal.SIGSTOP)
        try:
            await flood.send(json.dumps(GREETING))
            pouring = asyncio.create_task(_pour(flood, "x" * 10_000, times=10_000))
            for beats in range(1, 6):
                await asyncio.wait({pouring}, timeout=0.1)
                await calm.send(beat(calm))
                await calm.expect("server_heartbeat", nth=beats)
            assert not pouring.done()
            assert _resident_kb(tight) - before_kb < 40_000
        finally:
            cluster.pause_server(signal.SIGCONT)
            flood.transport.abort()
        await asyncio.gather(pouring, return_exceptions=True)
        assert calm.close_code is None


async def test_a_node_that_never_reads_is_cut_off_and_harms_only_itself(
    instance: Instance, node_id: str, pair: str
) -> None:
    """Beats go on, so that only its not reading can be the reason."""
    deaf = await connect(instance.node_url, max_size=None, max_queue=1)
    await deaf.send(json.dumps(registration(node_id, pair, slots=500)))
    await deaf.recv()
    beating = asyncio.create_task(_beat_on(deaf, node_id, pair))
    session = Session(instance.session_url, *pair.split("-"))
    async with session:
        await eventually(partial(_has_pool, instance, pair), what="the pool")
        index = itertools.count()

        async def is_cut_off() -> bool:
            await session.say(said := next(index), audio="A" * 900_000)
            await session.answered(said)
            return "node lost" in _lines_of(instance, node_id)

        await eventually(is_cut_off, within_ms=30_000, what="the deaf node's end")
        assert session.close_code is None
        assert next(index) * 900_000 < 150_000_000
    beating.cancel()
    deaf.transport.abort()
    await asyncio.gather(beating, return_exceptions=True)


GREETING: Frame = {
    "type": "session_init",
    "client_version": "1",
    "platform": "web",
    "src_lang": "zh",
    "tgt_lang": "en",
}


async def _pour(socket: ClientConnection, frame: str, *, times: int) -> None:
    for _ in range(times):
        await socket.send(frame)


async def _beat_on(socket: ClientConnection, node_id: str, pair: str) -> None:
    while True:
        await socket.send(json.dumps(heartbeat(node_id, pair)))
        await asyncio.sleep(0.5)


def _lines_of(instance: Instance, word: str) -> str:
    return "\n".join(line for line in instance.log.splitlines() if word in line)


def _has_pool(instance: Instance, pair: str) -> bool:
    return any(p["name"] == pair and p["nodes"] for p in instance.state().get("pools", []))


async def test_a_node_over_its_rate_is_told(tight: Instance) -> None:
    async with Peer(tight.node_url) as peer:
        await peer.send(registration("n9", "zh-en"))
        await peer.expect("node_register_ack")
        for _ in range(RATE * 3):
            await peer.send({"type": "node_error", "node_id": "n9", "code": "x", "message": "y"})
        await peer.expect("error", code="RATE_LIMITED")


def _resident_kb(instance: Instance) -> int:
    status = Path(f"/proc/{instance.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])
