"""Nodes and sessions in one cheap client: `python -m bench.speed.fleet SRC TGT`, a worker.

Nodes answer each job at once. D is what the product is measured by: from the moment a session's
utterance is due until the node has its job_assign, in microseconds. Both ends are in this process,
so one clock is read. Nodes say neither job_ack nor job_started, sessions no result_ack.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from bench.speed.pacing import Alarm, schedule
from bench.speed.payload import Pair, decode, job_result, session_init, utterance
from bench.speed.sockets import Socket, connect
from bench.stage import cpu_s
from bench.workers import serve
from tests.support.agents import heartbeat, registration

HEARTBEAT_S = 15.0
READY_WITHIN_S = 60.0
DRAIN_WITHIN_S = 30.0
TOGETHER = 16


class Tally:
    """When each utterance was due, and what came of it."""

    def __init__(self) -> None:
        self.due: dict[tuple[str, int], int] = {}
        self.dispatch_us: list[float] = []
        self.cycle_us: list[float] = []
        self.late_us: list[float] = []
        self.ended = 0
        self.refused: Counter[str] = Counter()

    def begin(self) -> None:
        """Forget the figures, not what is under way."""
        self.dispatch_us, self.cycle_us, self.late_us = [], [], []
        self.ended = 0
        self.refused = Counter()


class Node(Socket):
    """Answers each job at once."""

    def __init__(self, node_id: str, pair: Pair, slots: int, tally: Tally) -> None:
        super().__init__(self._take)
        self.node_id = node_id
        self._tally = tally
        name = "-".join(pair)
        self._registration = json.dumps(registration(node_id, name, slots=slots)).encode()
        self._beat = json.dumps(heartbeat(node_id, name)).encode()
        self.ready = asyncio.get_running_loop().create_future()

    def register(self) -> None:
        self.send(self._registration)

    def beat(self) -> None:
        self.send(self._beat)

    def _take(self, text: bytes) -> None:
        came = time.monotonic_ns()
        frame = decode(text)
        if frame.type == "job_assign":
            self.send(job_result(frame, self.node_id))
            due = self._tally.due.get((frame.session_id, frame.utterance_index))
            if due is not None and frame.attempt_id == 1:
                self._tally.dispatch_us.append((came - due) / 1000)
        elif frame.type == "node_register_ack":
            self.ready.set_result(None)
        else:
            self._tally.refused[f"node: {frame.type} {frame.code} {frame.message}"] += 1


class Session(Socket):
    """Says utterances when told; `on_end` is called at each end."""

    def __init__(self, pair: Pair, tally: Tally) -> None:
        super().__init__(self._take)
        self._pair = pair
        self._tally = tally
        self.session_id = ""
        self._index = 0
        self.on_end: Any = None
        self.ready = asyncio.get_running_loop().create_future()

    def begin(self) -> None:
        self.send(session_init(self._pair))

    def say(self, due_ns: int | None = None) -> None:
        now = time.monotonic_ns()
        due = now if due_ns is None else due_ns
        self._tally.due[self.session_id, self._index] = due
        self._tally.late_us.append((now - due) / 1000)
        self.send(utterance(self.session_id, self._index, self._pair))
        self._index += 1

    def _take(self, text: bytes) -> None:
        came = time.monotonic_ns()
        frame = decode(text)
        if frame.type == "utterance_ack":
            return
        if frame.type == "session_init_ack":
            self.session_id = frame.session_id
            self.ready.set_result(None)
            return
        due = self._tally.due.pop((frame.session_id, frame.utterance_index), None)
        if frame.type == "translation_result" and due is not None:
            self._tally.ended += 1
            self._tally.cycle_us.append((came - due) / 1000)
        else:
            self._tally.refused[f"session: {frame.type} {frame.code} {frame.message}"] += 1
        if self.on_end is not None:
            self.on_end(self)


class Fleet:
    """The verbs."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._tally = Tally()
        self._nodes: list[Node] = []
        self._sessions: list[Session] = []
        self._beating: asyncio.Task[None] | None = None

    async def join(self, nodes: list[str], slots: int, name: str) -> None:
        """Register a node at each of these addresses."""

        async def join_one(number: int) -> None:
            node = Node(f"{name}-{number}", self._pair, slots, self._tally)
            await connect(nodes[number], node)
            node.register()
            await asyncio.wait_for(asyncio.shield(node.ready), READY_WITHIN_S)
            self._nodes.append(node)

        await _few_at_a_time(join_one, len(nodes))
        self._beating = self._beating or asyncio.create_task(self._beat())

    async def leave(self) -> None:
        """Close the sessions' sockets."""
        while self._sessions:
            self._sessions.pop().transport.disconnect()

    async def open(self, sessions: list[str]) -> None:
        """Open a session at each of these addresses."""

        async def open_one(number: int) -> None:
            session = Session(self._pair, self._tally)
            await connect(sessions[number], session)
            session.begin()
            await asyncio.wait_for(asyncio.shield(session.ready), READY_WITHIN_S)
            self._sessions.append(session)

        await _few_at_a_time(open_one, len(sessions))

    async def one_by_one(self, count: int) -> dict[str, Any]:
        """Utterances one at a time over the first session; each waits for its result."""
        self._tally.begin()
        watch = Watch({})
        session, ended = self._sessions[0], asyncio.Event()
        session.on_end = lambda _: ended.set()
        for _ in range(count):
            ended.clear()
            session.say()
            await asyncio.wait_for(ended.wait(), READY_WITHIN_S)
        return self._figures(watch)

    async def closed_loop(self, seconds: float, pids: dict[str, list[int]]) -> dict[str, Any]:
        """Every session says its next utterance when its last one has ended.

        `pids` names groups of processes whose CPU seconds are told too, as is this one's own.
        """
        self._talk()
        await asyncio.sleep(seconds / 4)  # What is built up at the beginning is not counted.
        self._tally.begin()
        watch = Watch(pids)
        await asyncio.sleep(seconds)
        figures = self._figures(watch)
        await self._fall_silent()
        return figures

    async def open_loop(self, rate: float, seconds: float) -> dict[str, Any]:
        """Utterances at scheduled times, by turns, whether earlier ones have ended or not."""
        self._tally.begin()
        watch = Watch({})
        await _at_each(schedule(rate, seconds), self._by_turns())
        await self._drained()
        return self._figures(watch)

    async def beats(self, seconds: float, pids: dict[str, list[int]]) -> dict[str, Any]:
        """Only let the nodes beat for a while; what it cost."""
        watch = Watch(pids)
        await asyncio.sleep(seconds)
        spent_s, cpu = watch.spent()
        return {"cpu": cpu, "seconds": spent_s, "closed": sum(n.closed for n in self._nodes)}

    def _talk(self) -> None:
        for session in self._sessions:
            session.on_end = Session.say
            session.say()

    async def _fall_silent(self) -> None:
        for session in self._sessions:
            session.on_end = None
        await self._drained()

    async def _drained(self) -> None:
        async with asyncio.timeout(DRAIN_WITHIN_S):
            while self._tally.due:  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    def _by_turns(self) -> Any:
        turns = iter(range(10**9))

        def say(due_ns: int) -> None:
            self._sessions[next(turns) % len(self._sessions)].say(due_ns)

        return say

    def _figures(self, watch: "Watch") -> dict[str, Any]:
        tally = self._tally
        spent_s, cpu = watch.spent()
        return {
            "dispatch_us": tally.dispatch_us,
            "cycle_us": tally.cycle_us,
            "late_us": tally.late_us,
            "ended": tally.ended,
            "rate": tally.ended / spent_s,
            "cpu": cpu,
            "seconds": spent_s,
            "refused": dict(tally.refused),
        }

    async def _beat(self) -> None:
        """Each node once in an interval, spread evenly over it."""
        clock, done = asyncio.get_running_loop().time, 0
        began = clock()
        while True:
            await asyncio.sleep(0.02)
            due = int((clock() - began) / HEARTBEAT_S * len(self._nodes))
            for number in range(done, due):
                node = self._nodes[number % len(self._nodes)]
                if not node.closed:
                    node.beat()
            done = due


class Watch:
    """Wall and CPU seconds since it was made, of groups of processes and of the client."""

    def __init__(self, pids: dict[str, list[int]]) -> None:
        self._pids = pids
        self._began, self._client = time.perf_counter(), time.process_time()
        self._cpu = self._read()

    def spent(self) -> tuple[float, dict[str, float]]:
        """CPU seconds of each group; those of this process are the group `client`."""
        cpu = {name: now - self._cpu[name] for name, now in self._read().items()}
        cpu["client"] = time.process_time() - self._client
        return time.perf_counter() - self._began, cpu

    def _read(self) -> dict[str, float]:
        groups = self._pids.items()
        return {name: sum(cpu_s(pid) for pid in pids) for name, pids in groups}


async def _few_at_a_time(act: Callable[[int], Awaitable[None]], count: int) -> None:
    """Call `act` with 0 to `count`, so many at a time that the peer's queue stays short."""

    async def act_on(share: range) -> None:
        for number in share:
            await act(number)

    await asyncio.gather(*(act_on(range(part, count, TOGETHER)) for part in range(TOGETHER)))


async def _at_each(moments: list[int], act: Any) -> None:
    """Call `act` at each of the moments, which ascend."""
    loop, alarm, turn = asyncio.get_running_loop(), Alarm(), 0
    over = loop.create_future()

    def ring() -> None:
        nonlocal turn
        alarm.clear()
        while turn < len(moments) and moments[turn] <= time.monotonic_ns():
            act(moments[turn])
            turn += 1
        if turn < len(moments):
            alarm.set(moments[turn])
        elif not over.done():
            over.set_result(None)

    loop.add_reader(alarm.fd, ring)
    alarm.set(moments[0])
    try:
        await over
    finally:
        loop.remove_reader(alarm.fd)
        alarm.close()


async def main() -> None:
    fleet = Fleet((sys.argv[1], sys.argv[2]))
    verbs = ("join", "open", "leave", "one_by_one", "closed_loop", "open_loop", "beats")
    await serve({verb: getattr(fleet, verb) for verb in verbs})


if __name__ == "__main__":
    uvloop.run(main())
