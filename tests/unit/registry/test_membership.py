"""Membership of two or three instances over one memory server whose time the tests move."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from structlog.testing import capture_logs

from registry.domain.capability import Capabilities, ServiceCapability, ServiceType
from registry.domain.errors import StoreUnavailable
from registry.domain.node import Hardware, Liveness, NodeLoad, NodeStatus
from registry.domain.ownership import TAKEOVER_WINDOW_MS, TAKEOVERS, Conflict, Position
from registry.services.membership import REPLACED, SILENT, LocalNode, Membership, Registration
from registry.services.views import NodeViews
from registry.store import memory
from registry.store.memory import MemoryNodeStore, MemoryServer

LIVENESS = Liveness(
    heartbeat_ms=1_000, presence_ttl_ms=3_000, owner_ttl_ms=9_000, snapshot_sync_ms=500
)
CHECK_MS = LIVENESS.silence_check_ms
ASR = Capabilities((ServiceCapability(ServiceType.ASR, ready=True),))
TTS = Capabilities((ServiceCapability(ServiceType.TTS, ready=True),))


def registration(
    node_id: str = "n", *, platform: str = "linux", capabilities: Capabilities = ASR
) -> Registration:
    return Registration(
        node_id=node_id,
        capabilities=capabilities,
        max_concurrent_jobs=4,
        accept_public_jobs=True,
        version="1",
        platform=platform,
        hardware=Hardware(cpu_cores=8, memory_gb=16.0),
        labels={},
        registered_at_ms=0,
    )


@dataclass
class Link:
    """A socket that notes how it was closed."""

    closed: list[int] = field(default_factory=list)

    def send(self, frame: bytes) -> bool:
        return not self.closed

    def close(self, code: int, reason: str) -> None:
        self.closed.append(code)


class Store:
    """One instance's way to the memory server; the verbs in `failing` do not get through."""

    def __init__(self, inner: MemoryNodeStore) -> None:
        self._inner = inner
        self.failing: set[str] = set()

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        operation = getattr(self._inner, verb)

        async def call(*args: Any, **kwargs: Any) -> Any:
            if verb in self.failing or "everything" in self.failing:
                raise StoreUnavailable(f"{verb} did not get through")
            return await operation(*args, **kwargs)

        return call


class Instance:
    def __init__(self, cluster: "Cluster", name: str) -> None:
        inner = MemoryNodeStore(
            cluster.server,
            instance_id=name,
            owner_ttl_ms=LIVENESS.owner_ttl_ms,
            presence_ttl_ms=LIVENESS.presence_ttl_ms,
        )
        self.store = Store(inner)
        self.views = NodeViews()
        self.membership = Membership(
            self.store,  # type: ignore[arg-type]
            self.views,
            instance_id=name,
            liveness=LIVENESS,
            clock=lambda: cluster.now_ms,
        )

    def sees(self) -> dict[str, NodeStatus]:
        return {view.snapshot.node_id: view.snapshot.status for view in self.views}

    async def join(self, node_id: str = "n", **said: Any) -> LocalNode:
        node = await self.membership.register(registration(node_id, **said), Link())
        assert isinstance(node, LocalNode)
        return node

    async def beat(
        self, node: LocalNode, *, load: NodeLoad | None = None, says: Capabilities | None = None
    ) -> bool:
        self.membership.heard(node)
        return await self.membership.heartbeat(node, load=load or NodeLoad(), capabilities=says)


class Cluster:
    def __init__(self) -> None:
        self.now_ms = 1_000_000
        self.server = MemoryServer(clock=lambda: self.now_ms)
        self.one, self.two, self.three = (Instance(self, n) for n in ("one", "two", "three"))
        self.all = (self.one, self.two, self.three)

    async def sync(self, *, rounds: int = 1) -> None:
        for _ in range(rounds):
            for instance in self.all:
                await instance.membership.sync()

    def look(self, *, for_ms: int, every_ms: int = CHECK_MS) -> None:
        """Let time pass while the first instance looks for silent nodes."""
        until_ms = self.now_ms + for_ms
        while self.now_ms + every_ms <= until_ms:
            self.now_ms += every_ms
            self.one.membership.close_silent()

    def agree_on(self, nodes: dict[str, NodeStatus]) -> bool:
        return all(instance.sees() == nodes for instance in self.all)


def closed(node: LocalNode) -> list[int]:
    assert isinstance(node.link, Link)
    return node.link.closed


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


READY, DEGRADED, DRAINING = NodeStatus.READY, NodeStatus.DEGRADED, NodeStatus.DRAINING


class TestFollowing:
    async def test_a_node_is_seen_at_once_here_and_after_a_sync_elsewhere(
        self, cluster: Cluster
    ) -> None:
        await cluster.sync()
        await cluster.one.join()
        assert cluster.one.sees() == {"n": READY}
        assert cluster.two.sees() == {}
        await cluster.sync()
        assert cluster.agree_on({"n": READY})

    async def test_an_instance_that_starts_later_sees_all(self, cluster: Cluster) -> None:
        await cluster.one.join("n")
        await cluster.two.join("m")
        await cluster.three.membership.sync()
        assert cluster.three.sees() == {"n": READY, "m": READY}
        assert cluster.three.membership.full_syncs == 1

    async def test_changes_are_followed_without_reading_all_again(self, cluster: Cluster) -> None:
        await cluster.sync()
        node = await cluster.one.join()
        await cluster.sync()
        await cluster.one.membership.lose(node)
        await cluster.sync(rounds=3)
        assert cluster.agree_on({})
        assert [instance.membership.full_syncs for instance in cluster.all] == [1, 1, 1]

    async def test_a_gap_is_made_good_by_reading_all(
        self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(memory, "NODE_CHANGES_KEPT", 2)
        await cluster.sync()
        node = await cluster.one.join("lost")
        await cluster.sync()
        await cluster.one.membership.lose(node)
        for number in range(5):
            await cluster.one.join(f"n{number}")
        await cluster.two.membership.sync()
        assert cluster.two.sees() == {f"n{number}": READY for number in range(5)}
        assert cluster.two.membership.full_syncs == 2

    async def test_i4_views_that_drifted_are_read_anew(self, cluster: Cluster) -> None:
        await cluster.one.join()
        await cluster.sync(rounds=2)
        cluster.two.views.remove("n", epoch=1)
        await cluster.sync(rounds=2)
        assert cluster.agree_on({"n": READY})

    async def test_a_changed_capability_travels(self, cluster: Cluster) -> None:
        node = await cluster.one.join()
        await cluster.sync()
        assert await cluster.one.beat(node, says=TTS)
        assert await cluster.one.beat(node, says=TTS)
        await cluster.sync()
        view = cluster.two.views.get("n")
        assert view is not None
        assert (view.snapshot.capabilities, view.snapshot.revision) == (TTS, 1)

    async def test_synced_at_is_the_clock_of_the_last_round(self, cluster: Cluster) -> None:
        assert cluster.one.membership.synced_at_ms is None
        await cluster.sync()
        cluster.now_ms += 700
        cluster.one.store.failing = {"everything"}
        with pytest.raises(StoreUnavailable):
            await cluster.one.membership.sync()
        assert cluster.one.membership.synced_at_ms == cluster.now_ms - 700

    async def test_the_digests_of_instances_that_agree_are_equal(self, cluster: Cluster) -> None:
        await cluster.one.join("n")
        await cluster.two.join("m")
        await cluster.sync(rounds=2)
        assert len({instance.views.digest for instance in cluster.all}) == 1


class TestOwnership:
    async def test_i5_a_node_that_reconnects_elsewhere_closes_its_old_socket(
        self, cluster: Cluster
    ) -> None:
        old = await cluster.one.join()
        await cluster.sync()
        new = await cluster.two.join()
        assert new.snapshot.connection_epoch == 2
        assert closed(old) == []
        await cluster.sync()
        assert closed(old) == [REPLACED]
        assert closed(new) == []

    async def test_i5_the_end_of_the_old_socket_takes_nothing_from_the_new(
        self, cluster: Cluster
    ) -> None:
        old = await cluster.one.join()
        new = await cluster.two.join()
        await cluster.sync()
        assert not await cluster.one.membership.lose(old)
        await cluster.sync()
        assert cluster.agree_on({"n": READY})
        assert await cluster.two.beat(new)

    async def test_i5_a_heartbeat_over_the_old_socket_closes_it(self, cluster: Cluster) -> None:
        old = await cluster.one.join()
        await cluster.two.join()
        assert not await cluster.one.beat(old)
        assert closed(old) == [REPLACED]

    async def test_i5_a_second_socket_to_the_same_instance_closes_the_first_at_once(
        self, cluster: Cluster
    ) -> None:
        old = await cluster.one.join()
        new = await cluster.one.join()
        assert closed(old) == [REPLACED]
        assert not await cluster.one.membership.lose(old)
        assert cluster.one.membership.local("n") is new
        assert cluster.one.sees() == {"n": READY}

    async def test_registering_again_over_the_same_socket_closes_nothing(
        self, cluster: Cluster
    ) -> None:
        node = await cluster.one.join()
        again = await cluster.one.membership.register(registration(), node.link)
        assert isinstance(again, LocalNode)
        assert closed(node) == []
        assert cluster.one.membership.local("n") is again

    async def test_another_machine_with_the_id_is_refused_and_changes_nothing(
        self, cluster: Cluster
    ) -> None:
        node = await cluster.one.join()
        outcome = await cluster.two.membership.register(registration(platform="mac"), Link())
        assert outcome == Conflict()
        await cluster.sync()
        assert cluster.agree_on({"n": READY})
        assert await cluster.one.beat(node)

    async def test_losing_a_node_twice_is_no_harm(self, cluster: Cluster) -> None:
        node = await cluster.one.join()
        assert await cluster.one.membership.lose(node)
        await cluster.one.membership.lose(node)
        await cluster.sync()
        assert cluster.agree_on({})


class TestLossOfData:
    async def test_i6_local_nodes_are_written_again_and_everyone_sees_them(
        self, cluster: Cluster
    ) -> None:
        mine = await cluster.one.join("n")
        await cluster.two.join("m")
        await cluster.sync()
        cluster.server.lose_everything()
        await cluster.sync(rounds=4)
        assert cluster.agree_on({"n": READY, "m": READY})
        assert closed(mine) == []
        assert await cluster.three.store.present(["n", "m"]) == {"n", "m"}

    async def test_i5_the_epoch_of_a_connection_grows_across_the_loss(
        self, cluster: Cluster
    ) -> None:
        await cluster.one.join()
        await cluster.two.join()
        await cluster.sync()
        cluster.server.lose_everything()
        third = await cluster.three.join()
        assert third.snapshot.connection_epoch == 3

    async def test_a_node_whose_instance_is_gone_is_forgotten(self, cluster: Cluster) -> None:
        await cluster.one.join("n")
        await cluster.two.join("m")
        await cluster.sync()
        cluster.server.lose_everything()
        cluster.now_ms += LIVENESS.owner_ttl_ms
        for _ in range(4):
            for instance in (cluster.two, cluster.three):
                await instance.membership.sync()
        assert cluster.three.sees() == {"m": READY}

    async def test_a_position_ahead_of_the_new_data_is_a_gap(self, cluster: Cluster) -> None:
        for number in range(4):
            await cluster.one.join(f"n{number}")
        await cluster.sync()
        cluster.server.lose_everything()
        await cluster.three.join("late")
        await cluster.sync(rounds=4)
        assert cluster.agree_on({**{f"n{number}": READY for number in range(4)}, "late": READY})


class TestStoreAway:
    async def test_a_claim_that_does_not_get_through_registers_nothing(
        self, cluster: Cluster
    ) -> None:
        cluster.one.store.failing = {"claim"}
        with pytest.raises(StoreUnavailable):
            await cluster.one.join()
        assert cluster.one.sees() == {}
        assert cluster.one.membership.local_nodes() == []

    async def test_a_snapshot_that_did_not_get_through_is_written_by_the_next_sync(
        self, cluster: Cluster
    ) -> None:
        await cluster.sync()
        cluster.one.store.failing = {"put"}
        await cluster.one.join()
        await cluster.two.membership.sync()
        assert cluster.two.sees() == {}
        cluster.one.store.failing = set()
        await cluster.sync()
        assert cluster.agree_on({"n": READY})

    async def test_a_changed_capability_that_did_not_get_through_is_made_good(
        self, cluster: Cluster
    ) -> None:
        node = await cluster.one.join()
        await cluster.sync()
        cluster.one.store.failing = {"put"}
        with pytest.raises(StoreUnavailable):
            await cluster.one.beat(node, says=TTS)
        cluster.one.store.failing = set()
        assert await cluster.one.beat(node, says=TTS)
        await cluster.sync(rounds=4)
        view = cluster.two.views.get("n")
        assert view is not None
        assert view.snapshot.capabilities == TTS

    async def test_a_node_lost_while_the_store_is_away_is_swept_when_its_time_is_up(
        self, cluster: Cluster
    ) -> None:
        node = await cluster.one.join()
        await cluster.sync()
        cluster.one.store.failing = {"everything"}
        with capture_logs() as logs:
            assert await cluster.one.membership.lose(node)
        assert [entry["event"] for entry in logs] == [
            "node lost",
            "node not removed from the store",
        ]
        cluster.one.store.failing = set()
        cluster.now_ms += LIVENESS.presence_ttl_ms
        assert await cluster.two.membership.sweep() == ["n"]
        await cluster.sync()
        assert cluster.agree_on({})

    async def test_i6_a_store_that_was_away_for_long_closes_no_socket(
        self, cluster: Cluster
    ) -> None:
        node = await cluster.one.join()
        await cluster.sync()
        cluster.one.store.failing = {"everything"}
        for _ in range(20):
            cluster.look(for_ms=LIVENESS.heartbeat_ms)
            with pytest.raises(StoreUnavailable):
                await cluster.one.beat(node)
        cluster.one.store.failing = set()
        assert await cluster.one.beat(node)
        assert closed(node) == []
        await cluster.sync()
        assert cluster.agree_on({"n": READY})

    async def test_i6_a_connected_node_that_was_swept_while_its_presence_lapsed_comes_back(
        self, cluster: Cluster
    ) -> None:
        node = await cluster.one.join()
        await cluster.sync()
        # The store was away, or the instance stopped, for longer than the presence TTL; when it
        # is over the leader sweeps before the node's next heartbeat.
        cluster.now_ms += LIVENESS.presence_ttl_ms
        assert await cluster.two.membership.sweep() == ["n"]
        for _ in range(10):
            assert await cluster.one.beat(node)
            await cluster.sync()
            cluster.now_ms += LIVENESS.heartbeat_ms
        assert closed(node) == []
        assert cluster.agree_on({"n": READY})


class TestDraining:
    async def test_a_drain_set_elsewhere_closes_the_slots_and_shows_here(
        self, cluster: Cluster
    ) -> None:
        node = await cluster.one.join()
        await cluster.sync()
        assert await cluster.two.membership.drain("n", draining=True)
        await cluster.one.membership.follow_drain(node, draining=True)
        await cluster.sync()
        assert cluster.agree_on({"n": DRAINING})
        assert node.capacity == 0

    async def test_a_drain_survives_the_reconnect(self, cluster: Cluster) -> None:
        node = await cluster.one.join()
        await cluster.one.membership.drain("n", draining=True)
        await cluster.one.membership.lose(node)
        again = await cluster.two.join()
        assert again.snapshot.status is DRAINING
        await cluster.sync()
        assert cluster.agree_on({"n": DRAINING})

    async def test_a_resumed_node_is_ready_and_its_failures_are_forgotten(
        self, cluster: Cluster
    ) -> None:
        node = await cluster.one.join()
        for _ in range(3):
            await cluster.one.membership.record_outcome(node, succeeded=False)
        await cluster.one.membership.follow_drain(node, draining=True)
        await cluster.one.membership.follow_drain(node, draining=False)
        await cluster.sync()
        assert cluster.agree_on({"n": READY})
        assert node.failures.outcomes == []
        assert node.capacity == 4

    async def test_an_unknown_node_cannot_be_drained(self, cluster: Cluster) -> None:
        assert not await cluster.one.membership.drain("n", draining=True)


class TestFailures:
    async def test_failures_degrade_and_successes_restore(self, cluster: Cluster) -> None:
        node = await cluster.one.join()
        seen = []
        for succeeded in (False, False, False, True, True, True):
            await cluster.one.membership.record_outcome(node, succeeded=succeeded)
            await cluster.sync()
            seen.append(cluster.two.sees()["n"])
        assert seen == [READY, READY, DEGRADED, DEGRADED, DEGRADED, READY]

    async def test_a_change_of_status_is_told_once(self, cluster: Cluster) -> None:
        node = await cluster.one.join()
        with capture_logs() as logs:
            for _ in range(6):
                await cluster.one.membership.record_outcome(node, succeeded=False)
        assert [entry["event"] for entry in logs] == ["node status"]
        assert node.snapshot.revision == 1

    async def test_outcomes_do_not_move_a_draining_node(self, cluster: Cluster) -> None:
        node = await cluster.one.join()
        await cluster.one.membership.follow_drain(node, draining=True)
        for _ in range(5):
            await cluster.one.membership.record_outcome(node, succeeded=False)
        assert node.snapshot.status is DRAINING

    async def test_a_new_connection_starts_over(self, cluster: Cluster) -> None:
        node = await cluster.one.join()
        for _ in range(3):
            await cluster.one.membership.record_outcome(node, succeeded=False)
        again = await cluster.two.join()
        assert again.snapshot.status is READY


class TestContention:
    async def test_two_agents_with_one_id_end_with_one_of_them_connected(
        self, cluster: Cluster
    ) -> None:
        up: LocalNode | None = None
        refused = 0
        for number in range(10 * TAKEOVERS):
            instance = (cluster.one, cluster.two)[number % 2]
            outcome = await instance.membership.register(registration(), Link())
            if isinstance(outcome, Conflict):
                assert outcome.contested
                assert "two nodes use one node_id" in outcome.reason("n")
                refused += 1
            else:
                up = outcome
            await cluster.sync()
            cluster.now_ms += LIVENESS.heartbeat_ms
            if up is not None:
                owner = cluster.one if cluster.one.membership.local("n") is up else cluster.two
                await owner.beat(up)
        assert up is not None
        assert closed(up) == []
        assert refused == 10 * TAKEOVERS - (TAKEOVERS + 1)

    async def test_nodes_that_come_back_now_and_then_are_not_refused(
        self, cluster: Cluster
    ) -> None:
        for _ in range(3 * TAKEOVERS):
            node = await cluster.one.join()
            for _ in range(TAKEOVER_WINDOW_MS // TAKEOVERS // LIVENESS.heartbeat_ms):
                cluster.now_ms += LIVENESS.heartbeat_ms
                await cluster.one.beat(node)

    async def test_one_socket_may_register_as_often_as_it_likes(self, cluster: Cluster) -> None:
        link = Link()
        for _ in range(3 * TAKEOVERS):
            outcome = await cluster.one.membership.register(registration(), link)
            assert isinstance(outcome, LocalNode)
        assert link.closed == []


class TestSilence:
    async def test_only_a_node_that_said_nothing_for_a_presence_ttl_is_closed(
        self, cluster: Cluster
    ) -> None:
        silent = await cluster.one.join("n")
        talking = await cluster.one.join("m")
        cluster.look(for_ms=LIVENESS.presence_ttl_ms)
        assert closed(silent) == []
        cluster.one.membership.heard(talking)
        cluster.look(for_ms=CHECK_MS)
        assert (closed(silent), closed(talking)) == ([SILENT], [])

    async def test_a_half_open_node_is_found_within_six_fifths_of_its_time(
        self, cluster: Cluster
    ) -> None:
        node = await cluster.one.join()
        cluster.look(for_ms=LIVENESS.presence_ttl_ms * 6 // 5)
        assert closed(node)

    async def test_half_open_nodes_are_found_in_time_by_a_process_that_is_always_a_little_late(
        self, cluster: Cluster
    ) -> None:
        node = await cluster.one.join()
        cluster.look(for_ms=LIVENESS.presence_ttl_ms * 6 // 5, every_ms=CHECK_MS + CHECK_MS // 10)
        assert closed(node)

    @pytest.mark.parametrize("stall_ms", [2_000, 10 * LIVENESS.presence_ttl_ms])
    @pytest.mark.parametrize("silent_ms", [0, LIVENESS.heartbeat_ms, LIVENESS.presence_ttl_ms])
    async def test_no_node_is_closed_for_the_stall_of_its_own_instance(
        self, cluster: Cluster, stall_ms: int, silent_ms: int
    ) -> None:
        node = await cluster.one.join()
        cluster.look(for_ms=silent_ms)
        cluster.now_ms += stall_ms
        # The look may come before what the node said meanwhile is read from its socket.
        cluster.one.membership.close_silent()
        assert closed(node) == []
        await cluster.one.beat(node)
        cluster.look(for_ms=LIVENESS.presence_ttl_ms)
        assert closed(node) == []

    async def test_a_node_that_is_half_open_since_before_a_stall_is_found_after_it(
        self, cluster: Cluster
    ) -> None:
        node = await cluster.one.join()
        cluster.now_ms += 10 * LIVENESS.presence_ttl_ms
        cluster.look(for_ms=LIVENESS.presence_ttl_ms * 6 // 5)
        assert closed(node)

    async def test_the_sweep_takes_only_nodes_that_are_absent(self, cluster: Cluster) -> None:
        await cluster.one.join("absent")
        present = await cluster.one.join("present")
        await cluster.three.join("own")
        await cluster.sync()
        cluster.now_ms += LIVENESS.presence_ttl_ms - 1
        assert await cluster.three.membership.sweep() == []
        await cluster.one.beat(present)
        cluster.now_ms += 1
        assert await cluster.three.membership.sweep() == ["absent"]
        await cluster.two.membership.sync()
        assert cluster.two.sees() == {"present": READY, "own": READY}

    async def test_the_sweep_leaves_a_node_that_came_back_meanwhile(self, cluster: Cluster) -> None:
        await cluster.one.join()
        await cluster.sync()
        cluster.now_ms += LIVENESS.owner_ttl_ms
        await cluster.two.join()
        assert await cluster.three.membership.sweep() == []
        await cluster.sync()
        assert cluster.agree_on({"n": READY})


class TestLoads:
    async def test_a_load_travels_with_the_reservations_its_owner_counts(
        self, cluster: Cluster
    ) -> None:
        node = await cluster.one.join()
        await cluster.sync()
        load = NodeLoad(cpu_percent=30.0, running_jobs=1, reserved=2)
        await cluster.one.beat(node, load=load)
        await cluster.sync()
        view = cluster.two.views.get("n")
        assert view is not None
        assert (view.load, view.reserved) == (load, 2)

    async def test_reservations_made_since_the_heartbeat_travel_too(self, cluster: Cluster) -> None:
        await cluster.one.join()
        await cluster.sync()
        here, there = cluster.one.views.get("n"), cluster.two.views.get("n")
        assert here is not None
        assert there is not None
        here.reserved = 3
        await cluster.sync()
        assert there.reserved == 3

    async def test_a_load_that_stays_is_not_told_again(self, cluster: Cluster) -> None:
        node = await cluster.one.join()
        await cluster.sync()
        await cluster.one.beat(node, load=NodeLoad(cpu_percent=30.0))
        await cluster.one.membership.sync()
        position, _ = await cluster.one.store.everything()
        await cluster.one.beat(node, load=NodeLoad(cpu_percent=30.0))
        await cluster.one.membership.sync()
        assert (await cluster.one.store.everything())[0] == position

    async def test_a_load_that_did_not_get_through_is_told_by_the_next_sync(
        self, cluster: Cluster
    ) -> None:
        node = await cluster.one.join()
        await cluster.sync()
        await cluster.one.beat(node, load=NodeLoad(cpu_percent=30.0))
        cluster.one.store.failing = {"publish_loads"}
        with pytest.raises(StoreUnavailable):
            await cluster.one.membership.sync()
        cluster.one.store.failing = set()
        await cluster.sync()
        view = cluster.two.views.get("n")
        assert view is not None
        assert view.load.cpu_percent == 30.0

    async def test_a_load_does_not_change_the_snapshot(self, cluster: Cluster) -> None:
        node = await cluster.one.join()
        await cluster.one.beat(node, load=NodeLoad(cpu_percent=90.0), says=ASR)
        assert node.snapshot.revision == 0

    async def test_an_instance_that_starts_later_learns_of_loads_that_stay(
        self, cluster: Cluster
    ) -> None:
        node = await cluster.one.join()
        load = NodeLoad(cpu_percent=99.0, reserved=4)
        for instance in (cluster.one, cluster.two):
            await instance.membership.sync()
        await cluster.one.beat(node, load=load)
        await cluster.one.membership.sync()
        await cluster.three.membership.sync()
        cluster.now_ms += LIVENESS.presence_ttl_ms
        await cluster.one.beat(node, load=load)
        await cluster.sync()
        view = cluster.three.views.get("n")
        assert view is not None
        assert view.reserved == 4


async def test_the_views_forget_only_the_connection_that_is_gone(cluster: Cluster) -> None:
    await cluster.one.join()
    again = await cluster.one.join()
    assert not cluster.one.views.remove("n", epoch=1)
    assert cluster.one.views.remove("n", epoch=again.snapshot.connection_epoch)
    assert len(cluster.one.views) == 0


async def test_an_older_snapshot_changes_no_view(cluster: Cluster) -> None:
    node = await cluster.one.join()
    older = node.snapshot
    await cluster.one.beat(node, says=TTS)
    told: list[object] = []
    cluster.one.views.subscribe(lambda before, after: told.append((before, after)))
    assert not cluster.one.views.put(older)
    assert told == []


async def test_a_position_starts_before_everything(cluster: Cluster) -> None:
    await cluster.one.join()
    changes = await cluster.one.store.changes(Position())
    assert changes.complete
