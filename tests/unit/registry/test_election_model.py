"""A model check of the election: invariants I3 and I8, whatever the network and the server do.

Three candidates and one reader run the real `Election`, `PoolSync` and `Generator`, each on an
event loop of its own whose clock has its own offset and speed. Between them and one memory server
lies a network that delays, loses, and refuses by the rules' word; the rules also stop processes
for a while, kill them, move the server's clock and take its data. No time is slept.

What is promised, and what only while the server keeps a lease for its TTL, is in the docstring of
`registry.domain.lease`; `World.check` and `Ledger` say the same in code. `test_the_model_catches`
breaks one thing at a time and expects to be told.
"""

import heapq
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from itertools import combinations, count
from random import Random
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from pools.domain.generation import PoolRules
from pools.domain.index import PoolIndex
from pools.domain.news import Publication
from pools.domain.snapshot import EMPTY, PoolConfig, digest
from pools.services.generator import Generator
from pools.services.ports import CatalogStore
from pools.services.sync import PoolSync
from pools.store.memory import MemoryCatalogStore
from pools.wiring import Pools
from registry.domain.capability import (
    LanguageCapabilities,
    LanguagePair,
    ServiceCapability,
    ServiceType,
)
from registry.domain.errors import StoreUnavailable
from registry.domain.lease import Acquisition, Granted, Held, LeaseTiming, Tenure
from registry.domain.node import NodeSnapshot, NodeStatus
from registry.services.election import Election
from registry.services.membership import Membership
from registry.services.ports import LeaseStore
from registry.services.views import NodeViews
from registry.store.memory import MemoryLeaseStore, MemoryServer
from tests.support.manual_time import ManualLoop

TTL_MS = 1_000
TIMING = LeaseTiming(ttl_ms=TTL_MS, renew_ms=150)
CONFIG_TTL_MS = 2_000
TURN_MS = 120
POLL_MS = 500
LEAST_FAULTS = 1_000
RULES = PoolRules(enable_mixed_pools=False, require_semantic=False)
RATES_PERMILLE = (960, 1_000, 1_040)
"""Speeds of clocks. The slowest candidate and the fastest server stay within the lease's margin."""

faults: Counter[str] = Counter()


@dataclass(frozen=True)
class Weather:
    """What the network does to one call. The process may be stopped right after sending it."""

    request_ms: int = 1
    reply_ms: int = 1
    loses: str = ""
    patience_ms: int = 400
    stopped_ms: int = 0

    def faults(self) -> list[str]:
        found = [f"lost {self.loses}"] if self.loses else []
        found += ["slow request"] * (self.request_ms > 50)
        found += ["slow reply"] * (self.reply_ms > 50)
        found += ["stopped between two awaits"] * (self.stopped_ms > 0)
        return found


FAIR = Weather()


@dataclass(eq=False)
class Call:
    """One request to the server and what became of it."""

    process: "Process"
    life: int
    verb: str
    operation: Callable[[], Coroutine[Any, Any, Any]]
    arguments: dict[str, Any]
    future: Any
    sent_local_ms: int
    known_epoch: int
    processed_ms: int = -1
    on_its_way: bool = True


class Process:
    """A process: one event loop, killed and started anew without a memory."""

    def __init__(self, world: "World", name: str, *, rate: int, offset_ms: int) -> None:
        self.world, self.name, self.rate, self.offset_ms = world, name, rate, offset_ms
        self.life = 0
        self.weather: list[Weather] = []
        self.climate = FAIR
        self.stopped_until_ms = 0
        self.start()

    def local_ms(self) -> int:
        return self.offset_ms + self.world.now_ms * self.rate // 1000

    @property
    def stopped(self) -> bool:
        return self.world.now_ms < self.stopped_until_ms

    def start(self) -> None:
        self.life += 1
        self.stopped_until_ms = 0
        self.mail: list[tuple[Call, Any]] = []
        self.known_epoch = 0
        self.order = (0, 0)
        self.confirmed_until_ms: dict[int, int] = {}
        self.confirmed_ms: dict[int, int] = {}
        self.loop = ManualLoop(self.local_ms)
        self.election: Election | None = None
        variant, views = self.world.variant, NodeViews()
        catalog = cast(CatalogStore, RemoteCatalog(self))
        self.sync = variant.sync(catalog, PoolIndex(RULES), views, clock=self.local_ms)
        self.views = views
        for node in self.world.nodes.values():
            views.put(node)
        self.loop.create_task(self._every(POLL_MS, self._poll))
        self._begin(catalog)
        self.loop.settle()

    def _begin(self, catalog: CatalogStore) -> None:
        """Nothing more: a reader only follows."""

    async def _poll(self) -> None:
        await self.world.variant.poll(self)

    async def _every(self, interval_ms: int, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            with suppress(StoreUnavailable):
                await step()
            await self.sleep(interval_ms)

    async def sleep(self, ms: int) -> None:
        future = self.loop.create_future()
        self.loop.call_later(ms / 1000, lambda: future.done() or future.set_result(None))
        await future

    def kill(self) -> None:
        self.stopped_until_ms = 0
        self.life += 1
        self.loop.end()

    def next_ms(self) -> int | None:
        """When, in true time, this process has something to do next."""
        if self.stopped:
            return self.stopped_until_ms
        if self.loop.next_ms is None:
            return None
        left_ms = self.loop.next_ms - self.offset_ms
        return max(-(-left_ms * 1000 // self.rate), self.world.now_ms + 1)

    def run_due(self) -> None:
        """Run, unless stopped. Answers that came while it was stopped are all there at once."""
        if self.stopped:
            return
        for call, answer in self.mail:
            self._take(call, answer)
        self.mail = []
        self.loop.settle()
        assert not self.loop.complaints, self.loop.complaints

    def answer(self, call: Call, answer: Any) -> None:
        if call.life != self.life:
            return
        self.mail.append((call, answer))
        self.run_due()

    def _take(self, call: Call, answer: Any) -> None:
        if call.future.done():
            return
        if isinstance(answer, StoreUnavailable):
            call.future.set_exception(answer)
            return
        self.world.ledger.heard(call, answer)
        call.future.set_result(answer)

    async def call(
        self, verb: str, operation: Callable[[], Coroutine[Any, Any, Any]], **arguments: Any
    ) -> Any:
        weather = self.weather.pop(0) if self.weather else self.climate
        call = Call(
            process=self,
            life=self.life,
            verb=verb,
            operation=operation,
            arguments=arguments,
            future=self.loop.create_future(),
            sent_local_ms=self.local_ms(),
            known_epoch=self.known_epoch,
        )
        self.world.send(call, weather)
        return await call.future


class CandidateProcess(Process):
    """One that may lead."""

    def _begin(self, catalog: CatalogStore) -> None:
        self.election = self.world.variant.election(
            cast(LeaseStore, RemoteLeases(self)),
            candidate=self.name,
            timing=self.world.variant.timing,
            clock=self.local_ms,
            random=Random(self.life),
            seen_epoch=lambda: self.sync.config.epoch,
        )
        self.generator = Generator(
            catalog,
            self.sync,
            cast(Membership, SimpleNamespace(views=self.views, synced_at_ms=0)),
            self.election,
            candidate=self.name,
            rules=RULES,
            cleanup_ms=500,
            refresh_ms=CONFIG_TTL_MS // 3,
            clock=self.local_ms,
            wall_clock=lambda: 0,
        )
        self.loop.create_task(self.election.run())
        self.loop.create_task(self._every(TURN_MS, self.generator.turn))

    def step_down(self, pause_ms: int) -> None:
        assert self.election is not None
        self.loop.create_task(self.election.step_down(pause_ms=pause_ms))
        self.loop.call_soon(self.election.wake)
        self.run_due()

    def publish(self, epoch: int, version: int) -> None:
        """Publish as a process would that was held up between looking and acting."""
        config = replace_config(self.sync.config, epoch=epoch, version=version, by=self.name)

        async def work() -> None:
            with suppress(StoreUnavailable):
                await RemoteCatalog(self).publish(config, candidate=self.name)

        self.loop.create_task(work())
        self.run_due()


def replace_config(config: PoolConfig, *, epoch: int, version: int, by: str) -> PoolConfig:
    return PoolConfig(
        version=version,
        epoch=epoch,
        generated_at_ms=0,
        generated_by=by,
        reason="a rule",
        next_pool_id=config.next_pool_id,
        pools=config.pools,
    )


class RemoteLeases:
    """`LeaseStore` over the world's network."""

    def __init__(self, process: Process) -> None:
        self._call, self._store = process.call, process.world.leases

    async def acquire(self, candidate: str, *, floor: int) -> Acquisition:
        return await self._call("acquire", lambda: self._store.acquire(candidate, floor=floor))

    async def renew(self, candidate: str, *, epoch: int) -> bool:
        operation = lambda: self._store.renew(candidate, epoch=epoch)  # noqa: E731
        return await self._call("renew", operation, epoch=epoch)

    async def release(self, candidate: str, *, epoch: int) -> bool:
        return await self._call("release", lambda: self._store.release(candidate, epoch=epoch))

    async def holder(self) -> Held | None:
        raise NotImplementedError

    async def raise_epoch(self, seen: int) -> None:
        await self._call("raise", lambda: self._store.raise_epoch(seen), seen=seen)


class RemoteCatalog:
    """What `PoolSync.poll` and `Generator` need of a `CatalogStore`, over the world's network."""

    def __init__(self, process: Process) -> None:
        self._call, self._store = process.call, process.world.catalog

    async def publish(self, config: PoolConfig, *, candidate: str) -> Publication:
        operation = lambda: self._store.publish(config, candidate=candidate)  # noqa: E731
        return await self._call("publish", operation, config=config)

    async def refresh(self, *, candidate: str, epoch: int) -> bool:
        return await self._call(
            "refresh", lambda: self._store.refresh(candidate=candidate, epoch=epoch)
        )

    async def current(self) -> PoolConfig | None:
        return await self._call("current", self._store.current)

    def __getattr__(self, name: str) -> Any:
        """Any other reading, such as that of operators' wishes: straight from the store."""
        return getattr(self._store, name)


@dataclass
class Ledger:
    """What the server has done since it last lost its data, and what each process was told."""

    world: "World"
    granted: int = 0
    raised: int = 0
    published: PoolConfig = EMPTY
    expired: bool = True
    total: Counter[str] = field(default_factory=Counter)

    def lose(self) -> None:
        self.granted = self.raised = 0
        self.published = EMPTY

    def processed(self, call: Call, result: Any) -> None:
        """The server did this just now."""
        self.total[call.verb] += 1
        match call.verb, result:
            case "acquire", Granted(epoch):
                assert epoch > self.granted, "I3: an epoch was granted twice"
                assert epoch > self.raised, "I3: an epoch that a reader remembers was granted"
                assert epoch > call.known_epoch, "I3: an epoch that its candidate knows was granted"
                self.granted = epoch
                self.total["granted"] += 1
            case "raise", _:
                self.raised = max(self.raised, call.arguments["seen"])
            case "publish", Publication(published=True):
                config = call.arguments["config"]
                highest = max(self.granted, self.raised)
                assert config.epoch == highest, "I3: published under another than the highest epoch"
                # One that expired may be published again.
                again = self.expired and config.order == self.published.order
                newer = config.order > self.published.order
                assert again or newer, "I3: what is published went back"
                self.world.ambiguous |= again and config.pools != self.published.pools
                self.published = config
                self.total["published"] += 1

    def heard(self, call: Call, result: Any) -> None:
        """The process hears of it now."""
        process = call.process
        match call.verb, result:
            case "acquire", Granted(epoch):
                self._confirm(call, epoch)
                process.known_epoch = max(process.known_epoch, epoch)
            case "acquire", Held(_, epoch, _):
                process.known_epoch = max(process.known_epoch, epoch)
            case "renew", True:
                self._confirm(call, call.arguments["epoch"])
            case "renew", False:
                process.confirmed_until_ms[call.arguments["epoch"]] = -(10**12)
            case "current", PoolConfig(epoch=epoch):
                process.known_epoch = max(process.known_epoch, epoch)

    def _confirm(self, call: Call, epoch: int) -> None:
        process = call.process
        process.confirmed_until_ms[epoch] = call.sent_local_ms + self.world.variant.timing.window_ms
        process.confirmed_ms[epoch] = call.processed_ms


async def poll_as_wired(process: Process) -> None:
    registry = SimpleNamespace(leases=RemoteLeases(process))
    await Pools._poll(cast(Pools, SimpleNamespace(sync=process.sync, registry=registry)))


@dataclass(frozen=True)
class Variant:
    """What the world is built of: the real things, or one of them broken."""

    leases: type[MemoryLeaseStore] = MemoryLeaseStore
    catalog: type[MemoryCatalogStore] = MemoryCatalogStore
    election: type[Election] = Election
    sync: type[PoolSync] = PoolSync
    poll: Callable[[Process], Coroutine[Any, Any, None]] = poll_as_wired
    timing: LeaseTiming = TIMING


class World:
    """True time, the server, the network and the processes."""

    def __init__(
        self, variant: Variant, *, rates: list[int], offsets: list[int], server_rate: int
    ) -> None:
        self.variant = variant
        self.now_ms = 0
        self.failed = False
        self._server_rate, self.server_offset_ms = server_rate, 1_790_000_000_000
        self.server = MemoryServer(clock=self.server_ms)
        self.leases = variant.leases(self.server, ttl_ms=TTL_MS)
        self.catalog = variant.catalog(self.server, config_ttl_ms=CONFIG_TTL_MS)
        self.nodes: dict[str, NodeSnapshot] = {}
        self.revisions = count()
        self.ledger = Ledger(self)
        self.broken_ms = -1
        self.ambiguous = False
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = count()
        self._calls: list[Call] = []
        names = ("one", "two", "three")
        clocks = list(zip(rates, offsets, strict=True))
        self.candidates = [
            CandidateProcess(self, name, rate=rate, offset_ms=offset)
            for name, (rate, offset) in zip(names, clocks[:3], strict=True)
        ]
        rate, offset = clocks[3]
        self.reader = Process(self, "reader", rate=rate, offset_ms=offset)

    @property
    def processes(self) -> list[Process]:
        return [*self.candidates, self.reader]

    def server_ms(self) -> int:
        return self.server_offset_ms + self.now_ms * self._server_rate // 1000

    def at(self, when_ms: int, work: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when_ms, next(self._numbers), work))

    def send(self, call: Call, weather: Weather) -> None:
        faults.update(weather.faults())
        gives_up_ms = self.now_ms + weather.patience_ms
        failure = StoreUnavailable("the network")
        self.at(gives_up_ms, lambda: call.process.answer(call, failure))
        if weather.stopped_ms:
            call.process.stopped_until_ms = self.now_ms + weather.stopped_ms
        if weather.loses == "connection":
            self.at(self.now_ms + 1, lambda: call.process.answer(call, failure))
        elif weather.loses != "request":
            self._calls.append(call)
            self.at(self.now_ms + weather.request_ms, lambda: self._process(call, weather))

    def _process(self, call: Call, weather: Weather) -> None:
        if not call.on_its_way:
            return
        self._calls.remove(call)
        call.processed_ms = self.now_ms
        self.ledger.expired = at_once(self.catalog.current()) is None
        result = at_once(call.operation())
        self.ledger.processed(call, result)
        if weather.loses != "reply":
            self.at(self.now_ms + weather.reply_ms, lambda: call.process.answer(call, result))

    def lose_data(self) -> None:
        """The server restarts without its disk: requests on their way to it end with it."""
        for call in self._calls:
            call.on_its_way = False
            self.at(self.now_ms + 1, lambda c=call: c.process.answer(c, StoreUnavailable("reset")))
        self._calls = []
        self.server.lose_everything()
        self.ledger.lose()
        self.broken_ms, self.ambiguous = self.now_ms, True

    def jump(self, ms: int) -> None:
        """The server's clock jumps. Backward it only keeps a lease for longer than its TTL."""
        self.server_offset_ms += ms
        if ms > 0:
            self.broken_ms = self.now_ms

    def pass_ms(self, ms: int) -> None:
        """Let time pass, and all that is due in it happen, each at its time."""
        until_ms = self.now_ms + ms
        while True:
            due_ms = [when for process in self.processes if (when := process.next_ms()) is not None]
            due_ms += [self._events[0][0]] if self._events else []
            if not due_ms or min(due_ms) > until_ms:
                break
            self.now_ms = max(min(due_ms), self.now_ms)
            self._happen()
            self.check()
        self.now_ms = until_ms
        self.check()

    def _happen(self) -> None:
        while self._events and self._events[0][0] <= self.now_ms:
            heapq.heappop(self._events)[2]()
        for process in self.processes:
            when_ms = process.next_ms()
            if process.mail or (when_ms is not None and when_ms <= self.now_ms + 1):
                process.run_due()

    def check(self) -> None:
        leaders = [
            (process, held)
            for process in self.candidates
            if process.election is not None and (held := process.election.leading())
        ]
        for process, held in leaders:
            until_ms = process.confirmed_until_ms.get(held.epoch, -1)
            assert process.local_ms() < until_ms, "I8: a candidate leads beyond what was confirmed"
        for one, two in combinations(leaders, 2):
            (first, old), _ = sorted(
                (one, two), key=lambda each: each[0].confirmed_ms[each[1].epoch]
            )
            kept = self.broken_ms < first.confirmed_ms[old.epoch]
            assert not kept, "I3: two candidates lead at the same time"
        for process in self.processes:
            order = process.sync.config.order
            assert order >= process.order, "I3: the configuration went back at a reader"
            process.order = order

    def come_to_rest(self) -> None:
        """Let everything heal and four leases pass; then one leads, and all agree."""
        for process in self.processes:
            process.weather, process.climate = [], FAIR
            process.stopped_until_ms = self.now_ms
        self.pass_ms(4 * TTL_MS)
        # A server clock that went back keeps the lease of a candidate that is gone for longer.
        held = at_once(self.leases.holder())
        if held is not None:
            self.pass_ms(min(held.remaining_ms, 20 * TTL_MS) + 2 * TTL_MS)
        leaders = [p for p in self.candidates if p.election is not None and p.election.leading()]
        assert len(leaders) == 1, f"at rest {len(leaders)} lead"
        published = at_once(self.catalog.current())
        assert published is not None, "at rest nothing is published"
        for process in self.processes:
            same = digest(process.sync.config) == digest(published)
            assert same, f"at rest {process.name} does not follow the leader"

    def end(self) -> None:
        for process in self.processes:
            process.loop.end()


def at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that does not wait, as a script in Redis does not."""
    try:
        work.send(None)
    except StopIteration as result:
        return result.value
    raise AssertionError("a memory store waited in the middle of a step")


def node(node_id: str, target: str, revision: int) -> NodeSnapshot:
    services = (ServiceType.ASR, ServiceType.NMT, ServiceType.TTS)
    return NodeSnapshot(
        node_id=node_id,
        instance_id="one",
        connection_epoch=1,
        revision=revision,
        status=NodeStatus.READY,
        max_concurrent_jobs=1,
        accept_public_jobs=True,
        capability_by_type=tuple(ServiceCapability(each, ready=True) for each in services),
        language_capabilities=LanguageCapabilities(
            supported_language_pairs=(LanguagePair("de", target),)
        ),
        registered_at_ms=0,
    )


some_ms = st.sampled_from([1, 5, 20, 60, 150, 400, 850, 920, 1_100, 2_000])
weathers = st.builds(
    Weather,
    request_ms=some_ms,
    reply_ms=some_ms,
    loses=st.sampled_from(["", "", "", "request", "reply", "connection"]),
    patience_ms=st.sampled_from([100, 400, 3_000]),
    stopped_ms=st.sampled_from([0, 0, 0, 300, 950, 1_500]),
)
who = st.integers(0, 2)
anyone = st.integers(0, 3)


class ElectionMachine(RuleBasedStateMachine):
    """The rules."""

    # An epoch that was granted again after a loss of data leaves readers of the old one behind,
    # as `test_pool_sync.py` says; with a poll that tells of the loss none needs an excuse.
    variant: ClassVar[Variant] = Variant()
    rests: ClassVar[bool] = True
    totals: ClassVar[Counter[str]] = Counter()

    @initialize(
        rates=st.lists(st.sampled_from(RATES_PERMILLE), min_size=4, max_size=4),
        offsets=st.lists(st.integers(0, 5_000_000), min_size=4, max_size=4),
        server_rate=st.sampled_from(RATES_PERMILLE),
    )
    def build(self, rates: list[int], offsets: list[int], server_rate: int) -> None:
        self.sound = False
        self.world = World(self.variant, rates=rates, offsets=offsets, server_rate=server_rate)
        self.world.pass_ms(50)
        self.sound = True

    def _pass(self, ms: int) -> None:
        self.sound = False
        self.world.pass_ms(ms)
        self.sound = True

    @rule(ms=st.integers(1, 60))
    def a_moment_passes(self, ms: int) -> None:
        self._pass(ms)

    @rule(ms=st.integers(100, 800))
    def a_while_passes(self, ms: int) -> None:
        self._pass(ms)

    @rule(ms=st.integers(TTL_MS, 3 * TTL_MS))
    def more_than_a_lease_passes(self, ms: int) -> None:
        self._pass(ms)

    @rule(process=anyone, weather=st.lists(weathers, min_size=1, max_size=4))
    def the_next_calls_are_disturbed(self, process: int, weather: list[Weather]) -> None:
        self.world.processes[process].weather += weather

    @rule(process=anyone, weather=weathers)
    def the_climate_changes(self, process: int, weather: Weather) -> None:
        self.world.processes[process].climate = replace(weather, stopped_ms=0)

    @rule(process=anyone)
    def the_climate_is_fair_again(self, process: int) -> None:
        self.world.processes[process].climate = FAIR

    @rule(process=anyone, ms=st.integers(TTL_MS // 2, 3 * TTL_MS))
    def a_process_is_stopped_and_goes_on(self, process: int, ms: int) -> None:
        faults["stopped"] += 1
        self.world.processes[process].stopped_until_ms = self.world.now_ms + ms

    @rule(process=who, pause_ms=st.sampled_from([0, 150, 2_000]))
    def a_candidate_steps_down(self, process: int, pause_ms: int) -> None:
        self.world.candidates[process].step_down(pause_ms)

    def _restart(self, process: int) -> None:
        faults["killed"] += 1
        self.world.processes[process].kill()
        self.world.processes[process].start()

    def _holder(self) -> CandidateProcess | None:
        """Who holds the lease by the server's word."""
        held = at_once(self.world.leases.holder())
        names = {process.name: process for process in self.world.candidates}
        return names[held.instance_id] if held is not None else None

    @rule(ms=st.integers(TTL_MS // 2, 2 * TTL_MS))
    def the_leader_is_stopped_and_steps_down_when_it_goes_on(self, ms: int) -> None:
        leader = self._holder()
        if leader is not None:
            faults["stopped"] += 1
            leader.stopped_until_ms = self.world.now_ms + ms
            leader.step_down(0)

    @rule(loses=st.sampled_from(["request", "reply", "connection"]))
    def the_leader_is_cut_off(self, loses: str) -> None:
        leader = self._holder()
        if leader is not None:
            leader.climate = Weather(loses=loses)

    @rule(process=who)
    def a_candidate_is_woken(self, process: int) -> None:
        candidate = self.world.candidates[process]
        assert candidate.election is not None
        candidate.loop.call_soon(candidate.election.wake)
        candidate.run_due()

    @rule(process=anyone)
    def a_process_is_killed_and_started_anew(self, process: int) -> None:
        self._restart(process)

    @rule(ms=st.sampled_from([-5_000, -300, 100, 500, 1_000, 10_000]))
    def the_servers_clock_jumps(self, ms: int) -> None:
        faults["clock jump"] += 1
        self.world.jump(ms)

    @rule(with_it=st.sets(anyone))
    def the_server_loses_all_data(self, with_it: set[int]) -> None:
        """A power cut may end processes with it, and what they remember."""
        faults["data loss"] += 1
        self.world.lose_data()
        for process in sorted(with_it):
            self._restart(process)

    @rule(target_language=st.sampled_from(["en", "fr", "it"]), name=st.sampled_from(["n", "m"]))
    def a_node_changes(self, target_language: str, name: str) -> None:
        snapshot = node(name, target_language, next(self.world.revisions))
        self.world.nodes[name] = snapshot
        for process in self.world.processes:
            process.views.put(snapshot)

    @rule(process=who, behind=st.integers(0, 2), ahead=st.integers(0, 2))
    def a_candidate_publishes_under_an_epoch_it_had(
        self, process: int, behind: int, ahead: int
    ) -> None:
        candidate = self.world.candidates[process]
        epochs = sorted(candidate.confirmed_ms)
        if epochs and not candidate.stopped:
            epoch = epochs[max(len(epochs) - 1 - behind, 0)]
            candidate.publish(epoch, candidate.sync.config.version + ahead)

    def teardown(self) -> None:
        world = getattr(self, "world", None)
        if world is None:
            return
        try:
            if self.sound and self.rests:
                world.come_to_rest()
        finally:
            type(self).totals.update(world.ledger.total)
            world.end()


def run_machine(machine: type[ElectionMachine], **chosen: Any) -> None:
    before = structlog.get_config()
    # Not cached: else the loggers that are first used here would keep silent in later tests.
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        cache_logger_on_first_use=False,
    )
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                report_multiple_bugs=False,
                **chosen,
            ),
        )
    finally:
        structlog.configure(**before)


def test_i3_i8_one_leads_epochs_grow_and_configurations_never_go_back() -> None:
    faults.clear()
    ElectionMachine.totals = Counter()
    run_machine(ElectionMachine, max_examples=150, stateful_step_count=40)
    print(f"{faults.total()} faults: {dict(faults)}; {dict(ElectionMachine.totals)}")  # noqa: T201
    assert faults.total() >= LEAST_FAULTS
    assert ElectionMachine.totals["granted"] > LEAST_FAULTS // 10
    assert ElectionMachine.totals["published"] > LEAST_FAULTS // 10


class RenewsWithoutCompare(MemoryLeaseStore):
    async def renew(self, candidate: str, *, epoch: int) -> bool:
        return self._state.leader.prolong("leader", ttl_ms=self._ttl_ms)


class ReleasesWithoutCompare(MemoryLeaseStore):
    async def release(self, candidate: str, *, epoch: int) -> bool:
        self._state.leader.drop("leader")
        return True


class GrantsWithoutFloor(MemoryLeaseStore):
    async def acquire(self, candidate: str, *, floor: int) -> Acquisition:
        return await super().acquire(candidate, floor=0)


class PublishesWithoutFence(MemoryCatalogStore):
    async def publish(self, config: PoolConfig, *, candidate: str) -> Publication:
        stands = await self.current() or EMPTY
        if config.version < self._state.version or config.order <= stands.order:
            return Publication(published=False, behind=self._state.version)
        self._state.config.put("config", config, ttl_ms=self._config_ttl_ms)
        self._state.version = config.version
        return Publication(published=True)


class PublishesUnderAnyVersion(MemoryCatalogStore):
    async def publish(self, config: PoolConfig, *, candidate: str) -> Publication:
        if not self._lease.held_by(candidate, epoch=config.epoch):
            return Publication(published=False, stale=True)
        self._state.config.put("config", config, ttl_ms=self._config_ttl_ms)
        return Publication(published=True)


class CountsFromTheReply(Election):
    def _promote(self, granted: Granted, sent_ms: int) -> int:
        return super()._promote(granted, self._clock())


class ForgetsWhatItHeard(Election):
    _heard_epoch = property(lambda self: 0, lambda self, epoch: None)  # type: ignore[assignment]


class LeadsUntilTold(Election):
    def leading(self) -> Tenure | None:
        return self._tenure


class LeadsOnWhenRefused(Election):
    async def _renew(self, held: Tenure) -> int:
        wait_ms = await super()._renew(held)
        self._tenure = self._tenure or held
        return max(wait_ms, 50)


class NoMargin(LeaseTiming):
    @property
    def window_ms(self) -> int:
        return self.ttl_ms


class TakesAnyConfiguration(PoolSync):
    def apply(self, config: PoolConfig) -> bool:
        self.config = config
        return True


async def poll_and_lift_to_what_is_seen(process: Process) -> None:
    await process.sync.poll()
    await RemoteLeases(process).raise_epoch(process.sync.config.epoch)


async def poll_only(process: Process) -> None:
    await process.sync.poll()


MUTANTS = {
    "a renewal without a compare": (Variant(leases=RenewsWithoutCompare), "I3: two candidates|I8"),
    "a release without a compare": (Variant(leases=ReleasesWithoutCompare), "I3: two candidates"),
    "a grant without a floor": (Variant(leases=GrantsWithoutFloor), "I3: an epoch"),
    "a candidate that forgets": (Variant(election=ForgetsWhatItHeard), "I3: an epoch"),
    "a publish without a fence": (Variant(catalog=PublishesWithoutFence), "I3: publ"),
    "a publish of any version": (Variant(catalog=PublishesUnderAnyVersion), "I3: what is publ"),
    "a window counted from the reply": (Variant(election=CountsFromTheReply), "I8|I3: two"),
    "a window without an end": (Variant(election=LeadsUntilTold), "I8|I3: two"),
    "a refused renewal that demotes nobody": (Variant(election=LeadsOnWhenRefused), "I8"),
    "a window without a margin": (
        Variant(timing=NoMargin(ttl_ms=TTL_MS, renew_ms=150)),
        "I3: two candidates",
    ),
    "a reader that takes anything": (Variant(sync=TakesAnyConfiguration), "at a reader"),
    "readers that do not lift the epoch": (Variant(poll=poll_only), "does not follow"),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_model_catches(mutant: str) -> None:
    broken, complaint = MUTANTS[mutant]

    class BrokenMachine(ElectionMachine):
        variant = broken
        rests = complaint == "does not follow"

    with pytest.raises(AssertionError, match=complaint):
        run_machine(
            BrokenMachine,
            max_examples=600,
            stateful_step_count=40,
            phases=[Phase.generate],
            derandomize=True,
        )


def test_the_model_catches_readers_that_lift_the_epoch_only_to_what_they_saw() -> None:
    """Else the epoch of before the loss may be granted again, and readers do not follow."""
    for poll, follows in ((poll_and_lift_to_what_is_seen, False), (poll_as_wired, True)):
        world = World(Variant(poll=poll), rates=[1_000] * 4, offsets=[0] * 4, server_rate=1_000)
        for revision, language in enumerate(("en", "fr", "it")):
            world.nodes["n"] = node("n", language, revision)
            for process in world.processes:
                process.views.put(world.nodes["n"])
            world.pass_ms(TTL_MS)
        assert world.reader.order >= (1, 3)
        world.lose_data()
        for candidate in world.candidates:
            candidate.kill()
            candidate.start()
        with nullcontext() if follows else pytest.raises(AssertionError, match="does not follow"):
            world.come_to_rest()
        world.end()
