"""What waiting costs: a freed slot's next job, a flooded tenant's neighbour, three times the load.

Two instances; clients in this process, so their work is in the figures. "Freed" compares, at the
clients, the time from a node's result to its next job with that from an utterance to its job while
nothing waits. "Neighbour" compares one tenant's utterances, sent one by one, alone and beside
another tenant that keeps its queue full. "Overload" sends three times what the nodes can do.
"""

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from bench.report import Row, at_least, at_most, finish, percentile, plain, say
from tests.support.agents import heartbeat, registration, result
from tests.support.cluster import Cluster, Instance

_decode, _encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode
Frame = dict[str, Any]
SETTLE_S = 2.0
BEAT_S = 5.0
QUEUE_LIMIT = 400


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", choices=[*PARTS], help="one part instead of all")
    parser.add_argument("--rounds", type=int, default=300, help="jobs of a latency figure (300)")
    parser.add_argument("--nodes", type=int, default=8, help="with four slots each (8)")
    parser.add_argument("--work-ms", type=int, default=200, help="a node's work on a job (200)")
    parser.add_argument("--span-s", type=float, default=10, help="length of a rate's span (10)")


def run(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="bench-queueing-") as folder:
        return asyncio.run(_run(options, Path(folder)))


async def _run(options: argparse.Namespace, folder: Path) -> int:
    cluster = Cluster(
        folder,
        SCHED_QUEUE_LIMIT=str(QUEUE_LIMIT),
        SCHED_QUEUE_TIMEOUT_MS="30000",
        SCHED_HEARTBEAT_MS="15000",
        SCHED_PRESENCE_TTL_MS="45000",
        SCHED_OWNER_TTL_MS="45000",
        PYTHONWARNINGS="ignore",
    )
    cluster.start_server()
    rows: list[Row] = []
    try:
        instances = await cluster.start_instances("one", "two")
        for name in [options.only] if options.only else PARTS:
            say(name)
            rows += await PARTS[name](options, instances)
    finally:
        cluster.end()
    return finish("queueing", rows, json_path=options.json, raw={})


class Client:
    """One socket; `on_frame` is called with each frame that comes."""

    def __init__(self) -> None:
        self.socket: ClientConnection
        self._reader: asyncio.Task[None]

    async def open(self, url: str, hello: Frame, answer: str) -> Frame:
        self.socket = await connect(url, max_size=None, compression=None)
        await self.send(hello)
        while (frame := _decode(await self.socket.recv()))["type"] != answer:
            pass
        self._reader = asyncio.create_task(self._read())
        return dict(frame)

    async def send(self, frame: Frame) -> None:
        await self.socket.send(_encode(frame), text=True)

    async def close(self) -> None:
        self._reader.cancel()
        await self.socket.close()

    async def _read(self) -> None:
        async for text in self.socket:
            await self.on_frame(_decode(text))

    async def on_frame(self, frame: Frame) -> None:
        raise NotImplementedError


class Node(Client):
    """Answers each job after `work_ms`; with None it only notes when it came."""

    def __init__(self, pair: str, *, work_ms: int | None) -> None:
        super().__init__()
        self._pair = pair
        self._work_ms = work_ms
        self._working: set[asyncio.Task[None]] = set()
        self.jobs: asyncio.Queue[tuple[float, Frame]] = asyncio.Queue()

    async def join(self, instance: Instance, node_id: str, *, slots: int) -> "Node":
        self._node_id = node_id
        hello = registration(node_id, self._pair, slots=slots)
        await self.open(instance.node_url, hello, "node_register_ack")
        task = asyncio.create_task(self._beat())
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        return self

    async def _beat(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await asyncio.sleep(BEAT_S)
                await self.send(heartbeat(self._node_id, self._pair))

    async def on_frame(self, frame: Frame) -> None:
        if frame["type"] != "job_assign":
            return
        if self._work_ms is None:
            self.jobs.put_nowait((time.perf_counter(), frame))
            return
        task = asyncio.create_task(self._work(frame, self._work_ms))
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    async def _work(self, job: Frame, work_ms: int) -> None:
        await asyncio.sleep(work_ms / 1000)
        with contextlib.suppress(ConnectionClosed):
            await self.done(job)

    async def done(self, job: Frame) -> None:
        await self.send(result(job, self._node_id))


class Session(Client):
    """Says utterances; knows when each was said and ended, and how many are under way."""

    def __init__(self, pair: str, tenant: str = "one") -> None:
        super().__init__()
        self._src, self._tgt = pair.split("-")
        self._tenant = tenant
        self._index = -1
        self._said: dict[int, float] = {}
        self.took: list[float] = []
        self.ended = 0
        self.open_jobs = 0
        self.codes: Counter[str] = Counter()
        self.changed = asyncio.Event()

    async def join(self, instance: Instance) -> "Session":
        hello = {
            "type": "session_init",
            "client_version": "bench",
            "platform": "web",
            "src_lang": self._src,
            "tgt_lang": self._tgt,
            "tenant_id": self._tenant,
        }
        ack = await self.open(instance.session_url, hello, "session_init_ack")
        self._session_id = ack["session_id"]
        return self

    async def say(self) -> float:
        self._index += 1
        self.open_jobs += 1
        said = self._said[self._index] = time.perf_counter()
        await self.send(
            {
                "type": "utterance",
                "session_id": self._session_id,
                "utterance_index": self._index,
                "manual_cut": False,
                "src_lang": self._src,
                "tgt_lang": self._tgt,
                "audio": "UklGRg==" * 100,
                "audio_format": "wav",
                "sample_rate": 16000,
            }
        )
        return said

    async def on_frame(self, frame: Frame) -> None:
        if frame["type"] not in ("translation_result", "error"):
            return
        said = self._said.pop(frame["utterance_index"])
        self.open_jobs -= 1
        if frame["type"] == "error":
            self.codes[frame["code"]] += 1
        else:
            self.ended += 1
            self.took.append((time.perf_counter() - said) * 1000)
        self.changed.set()

    async def keep(self, open_jobs: int) -> None:
        """Say more whenever fewer than so many are under way."""
        while True:
            self.changed.clear()
            while self.open_jobs < open_jobs:
                await self.say()
            await self.changed.wait()

    async def one_by_one(self, rounds: int) -> list[float]:
        """The ms that each of so many utterances took, said one after the other."""
        self.took.clear()
        while len(self.took) < rounds:
            self.changed.clear()
            await self.say()
            await self.changed.wait()
        return self.took


async def _freed(options: argparse.Namespace, instances: list[Instance]) -> list[Row]:
    node = await Node("aa-en", work_ms=None).join(instances[0], "freed", slots=1)
    await asyncio.sleep(SETTLE_S)
    rows: list[Row] = []
    for where, instance in (("at the same instance", instances[0]), ("elsewhere", instances[1])):
        session = await Session("aa-en").join(instance)
        unloaded, freed = [], []
        for _ in range(options.rounds):
            said = await session.say()
            came, job = await node.jobs.get()
            unloaded.append((came - said) * 1000)
            session.changed.clear()
            await node.done(job)
            await session.changed.wait()
        for _ in range(min(options.rounds, QUEUE_LIMIT)):
            await session.say()
        _, job = await node.jobs.get()
        await asyncio.sleep(SETTLE_S)
        for _ in range(min(options.rounds, QUEUE_LIMIT) - 1):
            began = time.perf_counter()
            await node.done(job)
            came, job = await node.jobs.get()
            freed.append((came - began) * 1000)
            await asyncio.sleep(0.002)  # what follows a job's end is not the next one's delay
        await node.done(job)
        await asyncio.sleep(0.2)
        await session.close()
        p50 = percentile(unloaded, 50)
        rows += [
            plain(f"unloaded dispatch, session {where}, p50", p50, unit=" ms"),
            plain(
                f"slot freed to next job, session {where}, p50", percentile(freed, 50), unit=" ms"
            ),
            plain("the same, p99", percentile(freed, 99), unit=" ms"),
            at_most("freed over unloaded, p50", percentile(freed, 50) / p50, 1.5),
        ]
    await node.close()
    return rows


async def _neighbour(options: argparse.Namespace, instances: list[Instance]) -> list[Row]:
    nodes = await _nodes(options, instances, "bb-en")
    alone_session = await Session("bb-en", "neighbour").join(instances[0])
    await asyncio.sleep(SETTLE_S)
    rounds = max(options.rounds // 3, 1)
    alone = percentile(await alone_session.one_by_one(rounds), 99)
    flood = await Session("bb-en", "flood").join(instances[1])
    flooding = asyncio.create_task(flood.keep(QUEUE_LIMIT))
    await asyncio.sleep(SETTLE_S)
    beside = percentile(await alone_session.one_by_one(rounds), 99)
    flooding.cancel()
    for client in (*nodes, alone_session, flood):
        await client.close()
    return [
        plain("neighbour alone, utterance to result, p99", alone, unit=" ms"),
        plain("beside a flood, p99", beside, unit=" ms"),
        at_most("flooded over alone", beside / alone, 2),
    ]


async def _overload(options: argparse.Namespace, instances: list[Instance]) -> list[Row]:
    nodes = await _nodes(options, instances, "cc-en")
    slots = 4 * options.nodes
    sessions = [await Session("cc-en").join(instances[n % 2]) for n in range(8)]
    await asyncio.sleep(SETTLE_S)

    async def saturate(session: Session) -> None:
        await session.keep(slots * 2 // len(sessions))

    most = await _rate(sessions, saturate, options.span_s)
    for session in sessions:
        while session.open_jobs:
            session.changed.clear()
            await session.changed.wait()
    before = [_rss_mb(instance) for instance in instances]
    for session in sessions:
        session.codes.clear()
    each = 3 * most / len(sessions)

    async def flood(session: Session) -> None:
        began, said = time.perf_counter(), 0
        while True:
            while said < (time.perf_counter() - began) * each:
                await session.say()
                said += 1
            await asyncio.sleep(0.005)

    good = await _rate(sessions, flood, options.span_s)
    codes = sum((session.codes for session in sessions), Counter[str]())
    grown = [_rss_mb(i) - mb for i, mb in zip(instances, before, strict=True)]
    for client in (*nodes, *sessions):
        await client.close()
    return [
        plain("most that is done, per second", most),
        plain("done at three times that, per second", good),
        at_least("goodput over the most", good / most, 0.9),
        plain("refused, by code", ", ".join(f"{k} {v}" for k, v in codes.items()) or "none"),
        plain("memory grown, each instance", " ".join(f"{mb:.0f}" for mb in grown), unit=" MB"),
    ]


async def _nodes(options: argparse.Namespace, instances: list[Instance], pair: str) -> list[Node]:
    return [
        await Node(pair, work_ms=options.work_ms).join(instances[n % 2], f"{pair}-{n}", slots=4)
        for n in range(options.nodes)
    ]


async def _rate(
    sessions: list[Session], work: Callable[[Session], Awaitable[None]], span_s: float
) -> float:
    """What ends per second, once it has settled."""
    tasks = [asyncio.ensure_future(work(session)) for session in sessions]
    await asyncio.sleep(SETTLE_S)
    before, began = sum(session.ended for session in sessions), time.perf_counter()
    await asyncio.sleep(span_s)
    ended = sum(session.ended for session in sessions) - before
    seconds = time.perf_counter() - began
    for task in tasks:
        task.cancel()
    return ended / seconds


def _rss_mb(instance: Instance) -> float:
    pages = int(Path(f"/proc/{instance.pid}/statm").read_text().split()[1])
    return pages * 4096 / 1e6


PARTS = {"freed": _freed, "neighbour": _neighbour, "overload": _overload}
