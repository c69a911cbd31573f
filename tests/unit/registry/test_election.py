"""Standing for election, on a memory store in virtual time."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import pytest
from structlog.testing import capture_logs

from registry.domain.errors import StoreUnavailable
from registry.domain.lease import Acquisition, Granted, Held, LeaseTiming, Tenure
from registry.services.election import Election
from registry.store.memory import MemoryLeaseStore, MemoryServer
from tests.support.manual_time import in_virtual_time, now_ms, pass_ms, settled

TIMING = LeaseTiming(ttl_ms=6_000, renew_ms=1_000)
RETRY_MS = TIMING.retry_ms


class Chance(Random):
    """A chance that a test chooses."""

    def __init__(self, value: float) -> None:
        super().__init__(0)
        self.value = value

    def random(self) -> float:
        return self.value


@dataclass
class Store:
    """The lease store of one candidate: notes each call, and is away, slow or stuck as told."""

    inner: MemoryLeaseStore
    away: bool = False
    request_ms: int = 0
    reply_ms: int = 0
    calls: list[tuple[str, int]] = field(default_factory=list)

    def times(self, verb: str) -> list[int]:
        return [when for called, when in self.calls if called == verb]

    async def acquire(self, candidate: str, *, floor: int) -> Acquisition:
        await self._before("acquire")
        outcome = await self.inner.acquire(candidate, floor=floor)
        await asyncio.sleep(self.reply_ms / 1000)
        return outcome

    async def renew(self, candidate: str, *, epoch: int) -> bool:
        await self._before("renew")
        renewed = await self.inner.renew(candidate, epoch=epoch)
        await asyncio.sleep(self.reply_ms / 1000)
        return renewed

    async def release(self, candidate: str, *, epoch: int) -> bool:
        await self._before("release")
        return await self.inner.release(candidate, epoch=epoch)

    async def holder(self) -> Held | None:
        return await self.inner.holder()

    async def raise_epoch(self, seen: int) -> None:
        await self.inner.raise_epoch(seen)

    async def _before(self, verb: str) -> None:
        self.calls.append((verb, now_ms()))
        await asyncio.sleep(self.request_ms / 1000)
        if self.away:
            raise StoreUnavailable("the test took the store away")


class Candidate:
    """An election, its store, and what its listener was told and when."""

    def __init__(
        self,
        server: MemoryServer,
        name: str,
        *,
        chance: float = 0.5,
        seen_epoch: Callable[[], int] = lambda: 0,
    ) -> None:
        self.store = Store(MemoryLeaseStore(server, ttl_ms=TIMING.ttl_ms))
        self.election = Election(
            self.store,
            candidate=name,
            timing=TIMING,
            clock=now_ms,
            random=Chance(chance),
            seen_epoch=seen_epoch,
        )
        self.told: list[tuple[int, int | None]] = []
        self.election.subscribe(
            lambda held: self.told.append((now_ms(), held.epoch if held else None))
        )
        self.task: asyncio.Task[None] | None = None

    @property
    def leads(self) -> bool:
        return self.election.leading() is not None

    async def run(self) -> "Candidate":
        self.task = asyncio.get_running_loop().create_task(self.election.run())
        await settled()
        return self

    def die(self) -> None:
        assert self.task is not None
        self.task.cancel()


def new_server() -> MemoryServer:
    return MemoryServer(clock=now_ms)


class TestTakingOver:
    @in_virtual_time
    async def test_the_first_candidate_leads_at_once(self) -> None:
        start_ms = now_ms()
        one = await Candidate(new_server(), "one").run()
        assert one.election.leading() == Tenure(1, start_ms + TIMING.window_ms)
        assert one.election.changes == 1

    @in_virtual_time
    async def test_a_living_leader_is_not_replaced(self) -> None:
        server = new_server()
        one = await Candidate(server, "one").run()
        two = await Candidate(server, "two").run()
        await pass_ms(20 * TIMING.ttl_ms)
        assert (one.leads, two.leads) == (True, False)
        assert one.told == [(one.told[0][0], 1)]
        assert two.told == []

    @in_virtual_time
    async def test_a_leader_renews_at_its_interval(self) -> None:
        one = await Candidate(new_server(), "one").run()
        start_ms = now_ms()
        await pass_ms(5 * TIMING.renew_ms)
        assert one.store.times("renew") == [start_ms + n * TIMING.renew_ms for n in range(1, 6)]

    @in_virtual_time
    async def test_a_slow_renewal_does_not_delay_the_next(self) -> None:
        one = await Candidate(new_server(), "one").run()
        start_ms = now_ms()
        one.store.request_ms = 300
        await pass_ms(3 * TIMING.renew_ms)
        assert one.store.times("renew") == [start_ms + n * TIMING.renew_ms for n in range(1, 4)]

    @pytest.mark.parametrize("chance", [0.0, 0.5, 0.99])
    def test_a_standby_wakes_at_the_expiry_it_knows_and_its_jitter(self, chance: float) -> None:
        @in_virtual_time
        async def check() -> None:
            server = new_server()
            one = await Candidate(server, "one").run()
            start_ms = now_ms()
            two = await Candidate(server, "two", chance=chance).run()
            one.die()
            await pass_ms(TIMING.ttl_ms + TIMING.jitter_ms + 1)
            expected_ms = start_ms + TIMING.ttl_ms + 1 + int(chance * TIMING.jitter_ms)
            assert two.store.times("acquire") == [start_ms, expected_ms]
            assert two.told == [(expected_ms, 2)]

        check()

    @in_virtual_time
    async def test_a_standby_asks_no_oftener_than_leases_end(self) -> None:
        server = new_server()
        await Candidate(server, "one").run()
        two = await Candidate(server, "two").run()
        await pass_ms(10 * TIMING.ttl_ms)
        assert len(two.store.calls) <= 10 * TIMING.ttl_ms // (TIMING.ttl_ms - TIMING.renew_ms) + 1

    @in_virtual_time
    async def test_a_woken_standby_takes_a_released_lease_at_once(self) -> None:
        server = new_server()
        one = await Candidate(server, "one").run()
        two = await Candidate(server, "two").run()
        await pass_ms(10)
        await one.election.step_down()
        two.election.wake()
        await settled()
        assert (one.leads, two.leads) == (False, True)
        assert two.told == [(now_ms(), 2)]

    @in_virtual_time
    async def test_of_two_woken_standbys_one_leads(self) -> None:
        server = new_server()
        one = await Candidate(server, "one").run()
        others = [await Candidate(server, name).run() for name in ("two", "three")]
        await one.election.step_down(pause_ms=1_000)
        for other in others:
            other.election.wake()
        await settled()
        assert [other.leads for other in others].count(True) == 1

    @in_virtual_time
    async def test_a_wake_changes_nothing_for_a_leader_but_renews(self) -> None:
        one = await Candidate(new_server(), "one").run()
        one.election.wake()
        await settled()
        assert one.told == [(now_ms(), 1)]
        assert one.store.times("renew") == [now_ms()]

    @pytest.mark.parametrize("remaining_ms", [0, -1, -2])
    def test_a_standby_does_not_spin_where_a_held_lease_has_no_time_left(
        self, remaining_ms: int
    ) -> None:
        @in_virtual_time
        async def check() -> None:
            one = Candidate(new_server(), "one", chance=0.0)

            async def held(candidate: str, *, floor: int) -> Acquisition:
                one.store.calls.append(("acquire", now_ms()))
                return Held("another", 1, remaining_ms)

            one.store.acquire = held  # type: ignore[method-assign]
            await one.run()
            await pass_ms(TIMING.ttl_ms)
            assert len(one.store.calls) <= TIMING.ttl_ms // TIMING.jitter_ms + 1

        check()

    @in_virtual_time
    async def test_a_grant_that_came_too_late_is_not_led_under(self) -> None:
        server = new_server()
        one = Candidate(server, "one")
        one.store.reply_ms = TIMING.window_ms
        await one.run()
        await pass_ms(TIMING.window_ms)
        assert (one.leads, one.told) == (False, [])
        one.store.reply_ms = 0
        await pass_ms(TIMING.window_ms + RETRY_MS)
        assert one.leads

    @in_virtual_time
    async def test_i8_the_tenure_counts_from_the_sending(self) -> None:
        one = Candidate(new_server(), "one")
        one.store.request_ms, one.store.reply_ms = 700, 500
        start_ms = now_ms()
        await one.run()
        await pass_ms(1_200)
        held = one.election.leading()
        assert held is not None
        assert held.until_ms == start_ms + TIMING.window_ms


class TestEpochs:
    @in_virtual_time
    async def test_i3_a_candidate_takes_more_than_what_it_read(self) -> None:
        one = await Candidate(new_server(), "one", seen_epoch=lambda: 7).run()
        assert one.told == [(now_ms(), 8)]

    @in_virtual_time
    async def test_i3_a_candidate_remembers_a_grant_under_which_nothing_was_published(self) -> None:
        server = new_server()
        one = await Candidate(server, "one", seen_epoch=lambda: 1).run()
        server.lose_everything()
        await pass_ms(TIMING.renew_ms)
        assert [epoch for _, epoch in one.told] == [2, None, 3]

    @in_virtual_time
    async def test_i3_a_standby_remembers_the_epoch_of_whom_it_waits_for(self) -> None:
        server = new_server()
        await MemoryLeaseStore(server, ttl_ms=TIMING.ttl_ms).acquire("gone", floor=6)
        two = await Candidate(server, "two").run()
        server.lose_everything()
        two.election.wake()
        await settled()
        assert two.told == [(now_ms(), 8)]

    @in_virtual_time
    async def test_i3_a_leader_whose_epoch_was_overtaken_takes_a_higher_one(self) -> None:
        server = new_server()
        one = await Candidate(server, "one").run()
        await one.store.raise_epoch(5)
        await pass_ms(TIMING.renew_ms)
        assert [epoch for _, epoch in one.told] == [1, None, 6]


class TestDemotion:
    @in_virtual_time
    async def test_a_refused_renewal_demotes_and_says_so_once(self) -> None:
        server = new_server()
        await Candidate(server, "one").run()
        server.lose_everything()
        await MemoryLeaseStore(server, ttl_ms=TIMING.ttl_ms).acquire("two", floor=1)
        with capture_logs() as logs:
            await pass_ms(2 * TIMING.ttl_ms)
        demoted = [entry for entry in logs if entry["event"] == "leader demoted"]
        assert [(entry["log_level"], entry["reason"]) for entry in demoted] == [
            ("warning", "the lease was lost")
        ]

    @in_virtual_time
    async def test_i8_a_leader_that_cannot_reach_the_store_leads_to_the_end_of_its_window(
        self,
    ) -> None:
        one = await Candidate(new_server(), "one").run()
        start_ms = now_ms()
        one.store.away = True
        with capture_logs() as logs:
            await pass_ms(TIMING.window_ms - 1)
            assert one.leads
            await pass_ms(1)
            assert not one.leads
            await pass_ms(3 * TIMING.ttl_ms)
        assert one.told == [(start_ms, 1), (start_ms + TIMING.window_ms, None)]
        assert [entry["event"] for entry in logs].count("leader demoted") == 1

    @in_virtual_time
    async def test_a_leader_that_cannot_reach_the_store_tries_again_soon(self) -> None:
        one = await Candidate(new_server(), "one").run()
        start_ms = now_ms()
        one.store.away = True
        await pass_ms(TIMING.renew_ms + 2 * RETRY_MS)
        assert one.store.times("renew") == [
            start_ms + TIMING.renew_ms + n * RETRY_MS for n in range(3)
        ]
        one.store.away = False
        await pass_ms(TIMING.ttl_ms)
        assert one.leads
        assert one.told == [(start_ms, 1)]

    @in_virtual_time
    async def test_a_standby_does_not_spin_while_the_store_is_away(self) -> None:
        one = Candidate(new_server(), "one")
        one.store.away = True
        await one.run()
        await pass_ms(10 * TIMING.renew_ms)
        assert len(one.store.calls) == 11
        one.store.away = False
        await pass_ms(TIMING.renew_ms)
        assert one.leads

    @in_virtual_time
    async def test_a_renewal_without_an_answer_demotes_at_the_end_of_the_window(self) -> None:
        one = await Candidate(new_server(), "one").run()
        start_ms = now_ms()
        one.store.reply_ms = 10 * TIMING.ttl_ms
        with capture_logs() as logs:
            await pass_ms(TIMING.window_ms)
        assert one.told == [(start_ms, 1), (start_ms + TIMING.window_ms, None)]
        assert [entry["reason"] for entry in logs] == [
            "the store did not confirm the lease in time"
        ]

    @in_virtual_time
    async def test_who_regains_the_lease_leads_under_a_new_epoch(self) -> None:
        one = await Candidate(new_server(), "one").run()
        one.store.away = True
        await pass_ms(TIMING.window_ms)
        one.store.away = False
        await pass_ms(TIMING.renew_ms)
        assert [epoch for _, epoch in one.told] == [1, None, 2]
        assert one.election.changes == 2


class TestSteppingDown:
    @in_virtual_time
    async def test_stepping_down_releases_and_tells_once(self) -> None:
        one = await Candidate(new_server(), "one").run()
        assert await one.election.step_down(pause_ms=100)
        assert await one.store.holder() is None
        assert not await one.election.step_down(pause_ms=100)
        assert [epoch for _, epoch in one.told] == [1, None]

    @in_virtual_time
    async def test_stepping_down_is_no_warning(self) -> None:
        one = await Candidate(new_server(), "one").run()
        with capture_logs() as logs:
            await one.election.step_down(pause_ms=100)
        assert logs == [
            {"event": "leader stepped down", "log_level": "info", "instance_id": "one", "epoch": 1}
        ]

    @in_virtual_time
    async def test_who_stepped_down_stands_aside_for_the_pause_even_when_woken(self) -> None:
        one = await Candidate(new_server(), "one").run()
        until_ms = now_ms() + 3_000
        await one.election.step_down(pause_ms=3_000)
        for _ in range(5):
            one.election.wake()
            await pass_ms(100)
        assert one.store.times("acquire") == [until_ms - 3_000]
        await pass_ms(3_000)
        assert one.told[-1] == (until_ms, 2)

    @in_virtual_time
    async def test_i3_stepping_down_ends_the_tenure_before_the_release_is_sent(self) -> None:
        one = await Candidate(new_server(), "one").run()
        one.store.request_ms = 500
        leaving = asyncio.create_task(one.election.step_down(pause_ms=2_000))
        await settled()
        assert not one.leads
        assert await one.store.holder() is not None
        assert await leaving

    @in_virtual_time
    async def test_a_renewal_under_way_does_not_bring_back_who_stepped_down(self) -> None:
        one = await Candidate(new_server(), "one").run()
        one.store.reply_ms = 500
        await pass_ms(TIMING.renew_ms + 100)
        await one.election.step_down(pause_ms=60_000)
        await pass_ms(2_000)
        assert not one.leads
        assert [epoch for _, epoch in one.told] == [1, None]

    @in_virtual_time
    async def test_a_grant_under_way_is_given_back_by_who_stepped_down(self) -> None:
        one = Candidate(new_server(), "one")
        one.store.reply_ms = 500
        await one.run()
        assert not await one.election.step_down(pause_ms=60_000)
        await pass_ms(2_000)
        assert (one.leads, one.told) == (False, [])
        assert await one.store.holder() is None

    @in_virtual_time
    async def test_stepping_down_without_a_store_ends_the_tenure_all_the_same(self) -> None:
        one = await Candidate(new_server(), "one").run()
        one.store.away = True
        assert not await one.election.step_down(pause_ms=100)
        assert not one.leads

    @in_virtual_time
    async def test_every_listener_is_told(self) -> None:
        one = Candidate(new_server(), "one")
        also: list[Tenure | None] = []
        one.election.subscribe(also.append)
        await one.run()
        await one.election.step_down(pause_ms=100)
        assert [held.epoch if held else None for held in also] == [1, None]


@in_virtual_time
async def test_cancelling_does_not_release() -> None:
    one = await Candidate(new_server(), "one").run()
    one.die()
    await settled()
    assert await one.store.holder() == Held("one", 1, TIMING.ttl_ms)
    assert one.store.times("release") == []


@in_virtual_time
async def test_a_grant_says_its_epoch() -> None:
    store = MemoryLeaseStore(new_server(), ttl_ms=TIMING.ttl_ms)
    assert await store.acquire("one", floor=3) == Granted(4)
