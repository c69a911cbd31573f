"""The contract of `NodeStore`: ownership, snapshots, and the changes that readers follow."""

from registry.domain.node import NodeLoad, NodeSnapshot, NodeStatus
from registry.domain.ownership import TAKEOVERS, Claimed, Conflict, Gone, Position
from registry.services.ports import NodeStore
from registry.store.streams import BATCH
from routing.domain.outcome import Full, NodeGone, Reserved
from tests.contract.backends import LONG_MS, SHORT_MS, Backend, RedisBackend

MACHINE = "machine"


def snapshot(node_id: str = "n", *, epoch: int = 1, revision: int = 0) -> NodeSnapshot:
    return NodeSnapshot(
        node_id=node_id,
        instance_id="one",
        connection_epoch=epoch,
        revision=revision,
        status=NodeStatus.READY,
        max_concurrent_jobs=2,
        accept_public_jobs=True,
        capability_by_type=(),
        language_capabilities=None,
        registered_at_ms=1_000,
        labels={"zone": "ä"},
    )


async def claim(
    store: NodeStore,
    *,
    fingerprint: str = MACHINE,
    floor: int = 0,
    capacity: int = 1,
    own: int = 0,
) -> Claimed | Conflict:
    return await store.claim("n", fingerprint=fingerprint, floor=floor, capacity=capacity, own=own)


async def contend(backend: Backend) -> int:
    """Let two instances take the node from each other as often as they may; its epoch then."""
    epoch = 0
    for number in range(TAKEOVERS + 1):
        claimed = await claim(backend.nodes(("one", "two")[number % 2]))
        assert isinstance(claimed, Claimed)
        epoch = claimed.epoch
    return epoch


async def keep(store: NodeStore, *, epoch: int, capacity: int = 1) -> bool:
    return await store.keep("n", epoch=epoch, fingerprint=MACHINE, capacity=capacity)


async def gone(store: NodeStore) -> bool:
    return not await store.present(["n"])


async def capacity(backend: Backend) -> int:
    """How many reservations the node takes now; -1 when it is gone."""
    slots, taken = backend.slots(), 0
    while True:
        match await slots.reserve("n", job_id="s:0", attempt=taken, lease_ms=LONG_MS):
            case Reserved():
                taken += 1
            case outcome:
                break
    for attempt in range(taken):
        await slots.release("n", job_id="s:0", attempt=attempt)
    return -1 if isinstance(outcome, NodeGone) else taken


class TestOwnership:
    async def test_a_first_claim_takes_epoch_one_from_nobody(self, backend: Backend) -> None:
        assert await claim(backend.nodes()) == Claimed(1, "", draining=False)

    async def test_a_later_claim_of_the_same_machine_takes_over(self, backend: Backend) -> None:
        await claim(backend.nodes("one"))
        assert await claim(backend.nodes("two")) == Claimed(2, "one", draining=False)

    async def test_another_machine_with_a_living_nodes_id_is_refused(
        self, backend: Backend
    ) -> None:
        one = backend.nodes("one")
        await claim(one)
        assert await claim(backend.nodes("two"), fingerprint="other") == Conflict()
        assert await keep(one, epoch=1)

    async def test_two_that_take_a_node_from_each_other_are_stopped_and_one_keeps_it(
        self, backend: Backend
    ) -> None:
        epoch = await contend(backend)
        owner, other = backend.nodes("two"), backend.nodes("one")
        for _ in range(2):
            assert await claim(other) == Conflict(contested=True)
            assert await claim(backend.nodes("two")) == Conflict(contested=True)
        assert await keep(owner, epoch=epoch)

    async def test_a_contested_node_whose_owner_left_is_never_refused(
        self, backend: Backend
    ) -> None:
        epoch = await contend(backend)
        await backend.nodes("two").drop("n", epoch=epoch)
        for number in range(2 * TAKEOVERS):
            one = backend.nodes("one")
            assert await claim(one) == Claimed(epoch + 1 + number, "", draining=False)
            await one.drop("n", epoch=epoch + 1 + number)

    async def test_a_socket_that_registers_again_takes_nothing_over(self, backend: Backend) -> None:
        epoch = await contend(backend)
        again = await claim(backend.nodes("two"), own=epoch)
        assert again == Claimed(epoch + 1, "two", draining=False)
        # The number alone is not enough: it has to be of the same instance.
        assert await claim(backend.nodes("one"), own=epoch + 1) == Conflict(contested=True)

    async def test_another_machine_may_have_the_id_of_a_node_that_left(
        self, backend: Backend
    ) -> None:
        one = backend.nodes("one")
        await claim(one)
        await one.drop("n", epoch=1)
        assert await claim(one, fingerprint="other") == Claimed(2, "", draining=False)

    async def test_another_machine_may_have_the_id_of_a_node_that_expired(
        self, backend: Backend
    ) -> None:
        one = backend.nodes("one", ttl_ms=SHORT_MS)
        await claim(one)
        await backend.outlast(SHORT_MS, lambda: gone(one))
        assert await claim(one, fingerprint="other") == Claimed(2, "", draining=False)

    async def test_the_floor_lifts_the_epoch_after_the_data_is_gone(self, backend: Backend) -> None:
        store = backend.nodes()
        await claim(store)
        await backend.lose_everything()
        assert await claim(store, floor=7) == Claimed(8, "", draining=False)

    async def test_a_floor_below_the_epoch_changes_nothing(self, backend: Backend) -> None:
        store = backend.nodes()
        await claim(store, floor=7)
        assert await claim(store, floor=3) == Claimed(9, "one", draining=False)

    async def test_the_owner_keeps_its_node(self, backend: Backend) -> None:
        store = backend.nodes()
        await claim(store)
        assert await keep(store, epoch=1, capacity=3)
        assert await capacity(backend) == 3

    async def test_keeping_prolongs_presence(self, backend: Backend) -> None:
        await claim(backend.nodes(ttl_ms=SHORT_MS))
        assert await keep(backend.nodes(ttl_ms=LONG_MS), epoch=1)
        await backend.elapse(SHORT_MS)
        assert not await gone(backend.nodes())

    async def test_an_older_connection_cannot_keep_the_node(self, backend: Backend) -> None:
        one, two = backend.nodes("one"), backend.nodes("two")
        await claim(one)
        await claim(two)
        assert not await keep(one, epoch=1)
        assert await keep(two, epoch=2)

    async def test_an_older_connection_to_the_same_instance_cannot_keep_the_node(
        self, backend: Backend
    ) -> None:
        store = backend.nodes()
        await claim(store)
        await claim(store)
        assert not await keep(store, epoch=1)

    async def test_ownership_that_only_expired_is_taken_back(self, backend: Backend) -> None:
        store = backend.nodes(ttl_ms=SHORT_MS)
        await claim(store)
        await backend.outlast(SHORT_MS, lambda: gone(store))
        assert await keep(backend.nodes(), epoch=1)
        assert await backend.nodes().present(["n"]) == {"n"}

    async def test_expired_ownership_is_not_taken_back_by_an_older_connection(
        self, backend: Backend
    ) -> None:
        one, two = backend.nodes("one"), backend.nodes("two", ttl_ms=SHORT_MS)
        await claim(one)
        await claim(two)
        await backend.outlast(SHORT_MS, lambda: gone(two))
        assert not await keep(one, epoch=1)

    async def test_ownership_is_restored_after_the_data_is_gone(self, backend: Backend) -> None:
        one = backend.nodes("one")
        await claim(one, floor=4)
        await backend.lose_everything()
        assert await keep(one, epoch=5)
        assert await claim(backend.nodes("two"), fingerprint="other") == Conflict()
        assert await claim(backend.nodes("two")) == Claimed(6, "one", draining=False)

    async def test_the_owner_drops_its_node(self, backend: Backend) -> None:
        store = backend.nodes()
        await claim(store)
        assert await store.drop("n", epoch=1)
        assert await gone(store)
        assert await capacity(backend) == -1

    async def test_an_older_connection_cannot_drop_the_node(self, backend: Backend) -> None:
        one, two = backend.nodes("one"), backend.nodes("two")
        await claim(one)
        await claim(two)
        assert not await one.drop("n", epoch=1)
        assert not await two.drop("n", epoch=1)
        assert await one.present(["n"]) == {"n"}

    async def test_dropping_a_node_twice_is_no_harm(self, backend: Backend) -> None:
        store = backend.nodes()
        await claim(store)
        assert await store.drop("n", epoch=1)
        assert await store.drop("n", epoch=1)

    async def test_epochs_grow_across_a_drop(self, backend: Backend) -> None:
        store = backend.nodes()
        await claim(store)
        await store.drop("n", epoch=1)
        assert await claim(store) == Claimed(2, "", draining=False)

    async def test_only_nodes_that_are_there_are_present(self, backend: Backend) -> None:
        store = backend.nodes()
        await claim(store)
        assert await store.present(["n", "m"]) == {"n"}
        assert await store.present([]) == set()


class TestDraining:
    async def test_a_drain_closes_the_slots_at_once(self, backend: Backend) -> None:
        store = backend.nodes()
        await claim(store, capacity=2)
        await store.set_draining("n", draining=True, capacity=2)
        slots = backend.slots()
        assert await slots.reserve("n", job_id="s:0", attempt=1, lease_ms=LONG_MS) == Full(0)
        assert await store.present(["n"]) == {"n"}

    async def test_the_end_of_a_drain_opens_them_at_once(self, backend: Backend) -> None:
        store = backend.nodes()
        await claim(store, capacity=2)
        await store.set_draining("n", draining=True, capacity=2)
        await store.set_draining("n", draining=False, capacity=2)
        assert await capacity(backend) == 2

    async def test_a_drain_outlives_the_connection(self, backend: Backend) -> None:
        store = backend.nodes()
        await claim(store)
        await store.set_draining("n", draining=True, capacity=1)
        await store.drop("n", epoch=1)
        assert await claim(store) == Claimed(2, "", draining=True)
        assert await capacity(backend) == 0

    async def test_a_drain_that_ended_does_not(self, backend: Backend) -> None:
        store = backend.nodes()
        await store.set_draining("n", draining=True, capacity=1)
        await store.set_draining("n", draining=False, capacity=1)
        assert await claim(store) == Claimed(1, "", draining=False)

    async def test_a_node_can_be_drained_before_it_comes(self, backend: Backend) -> None:
        store = backend.nodes()
        await store.set_draining("n", draining=True, capacity=1)
        assert await gone(store)
        assert await claim(store) == Claimed(1, "", draining=True)

    async def test_an_owner_that_has_not_heard_of_a_drain_does_not_open_the_slots(
        self, backend: Backend
    ) -> None:
        store = backend.nodes()
        await claim(store, capacity=2)
        await store.set_draining("n", draining=True, capacity=2)
        assert await keep(store, epoch=1, capacity=2)
        assert await capacity(backend) == 0

    async def test_a_drain_does_not_prolong_presence(self, backend: Backend) -> None:
        store = backend.nodes(ttl_ms=SHORT_MS)
        await claim(store)
        await store.set_draining("n", draining=True, capacity=1)
        await backend.outlast(SHORT_MS, lambda: gone(store))


class TestSnapshots:
    async def test_what_was_put_is_in_everything(self, backend: Backend) -> None:
        store = backend.nodes()
        assert await store.put(snapshot("n"))
        assert await store.put(snapshot("m"))
        _, found = await store.everything()
        assert sorted(found, key=lambda s: s.node_id) == [snapshot("m"), snapshot("n")]

    async def test_without_nodes_everything_is_empty(self, backend: Backend) -> None:
        position, found = await backend.nodes().everything()
        assert found == []
        assert (await backend.nodes().changes(position)).complete

    async def test_a_stale_revision_is_refused(self, backend: Backend) -> None:
        store = backend.nodes()
        await store.put(snapshot(revision=2))
        assert not await store.put(snapshot(revision=1))
        assert (await store.everything())[1] == [snapshot(revision=2)]

    async def test_a_stale_connections_snapshot_is_refused(self, backend: Backend) -> None:
        store = backend.nodes()
        await store.put(snapshot(epoch=2))
        assert not await store.put(snapshot(epoch=1, revision=9))

    async def test_a_newer_connection_starts_its_revisions_over(self, backend: Backend) -> None:
        store = backend.nodes()
        await store.put(snapshot(epoch=1, revision=9))
        assert await store.put(snapshot(epoch=2, revision=0))

    async def test_the_same_snapshot_may_be_put_twice(self, backend: Backend) -> None:
        store = backend.nodes()
        await store.put(snapshot())
        assert await store.put(snapshot())

    async def test_a_snapshot_is_removed(self, backend: Backend) -> None:
        store = backend.nodes()
        await store.put(snapshot())
        assert await store.remove("n", epoch=1)
        assert (await store.everything())[1] == []

    async def test_a_newer_connections_snapshot_is_not_removed(self, backend: Backend) -> None:
        store = backend.nodes()
        await store.put(snapshot(epoch=2))
        assert not await store.remove("n", epoch=1)
        assert (await store.everything())[1] == [snapshot(epoch=2)]

    async def test_a_snapshot_that_is_not_there_can_be_removed(self, backend: Backend) -> None:
        assert await backend.nodes().remove("n", epoch=1)


class TestChanges:
    async def test_changes_come_in_order_and_once(self, backend: Backend) -> None:
        store = backend.nodes()
        start, _ = await store.everything()
        await store.put(snapshot("n"))
        await store.put(snapshot("m"))
        await store.remove("n", epoch=1)
        changes = await store.changes(start)
        assert changes.complete
        assert list(changes.nodes) == [snapshot("n"), snapshot("m"), Gone("n", 1)]
        again = await store.changes(changes.position)
        assert (list(again.nodes), again.complete) == ([], True)

    async def test_what_was_refused_is_no_change(self, backend: Backend) -> None:
        store = backend.nodes()
        await store.put(snapshot(epoch=2))
        start, _ = await store.everything()
        await store.put(snapshot(epoch=1))
        await store.remove("n", epoch=1)
        changes = await store.changes(start)
        assert (list(changes.nodes), changes.complete) == ([], True)

    async def test_a_reader_at_the_very_start_gets_all(self, backend: Backend) -> None:
        store = backend.nodes()
        await store.put(snapshot())
        changes = await store.changes(Position())
        assert (list(changes.nodes), changes.complete) == ([snapshot()], True)

    async def test_changes_that_nobody_keeps_any_more_are_a_gap(self, backend: Backend) -> None:
        store = backend.nodes()
        await store.put(snapshot("n"))
        start, _ = await store.everything()
        await store.put(snapshot("m"))
        await store.put(snapshot("k"))
        missed = Position((await store.everything())[0].changes, start.loads, start.sequence)
        assert not (await store.changes(missed)).complete

    async def test_data_that_is_gone_is_a_gap(self, backend: Backend) -> None:
        store = backend.nodes()
        await store.put(snapshot())
        start, _ = await store.everything()
        await backend.lose_everything()
        assert not (await store.changes(start)).complete

    async def test_new_data_after_a_loss_is_a_gap(self, backend: Backend) -> None:
        store = backend.nodes()
        await store.put(snapshot("n"))
        await store.put(snapshot("m"))
        start, _ = await store.everything()
        await backend.lose_everything()
        for revision in range(3):
            await store.put(snapshot("n", revision=revision))
            changes = await store.changes(start)
            # Also when there are as many changes again as there were.
            assert (changes.complete, changes.lost) == (False, True)

    async def test_changes_below_a_readers_position_are_a_gap(self, backend: Backend) -> None:
        # The server lost its data and its clock went back: what is new has older ids.
        store = backend.nodes()
        await store.put(snapshot())
        ahead = Position(changes=f"{2**52}-0", sequence=0)
        assert not (await store.changes(ahead)).complete

    async def test_a_reader_far_behind_catches_up_in_several_reads(
        self, redis_backend: RedisBackend
    ) -> None:
        store = redis_backend.nodes()
        start, _ = await store.everything()
        for revision in range(BATCH + 1):
            await store.put(snapshot(revision=revision))
        first = await store.changes(start)
        assert (len(first.nodes), first.complete) == (BATCH, True)
        second = await store.changes(first.position)
        assert (list(second.nodes), second.complete) == ([snapshot(revision=BATCH)], True)


class TestLoads:
    async def test_the_last_load_of_each_node_counts(self, backend: Backend) -> None:
        store = backend.nodes()
        start, _ = await store.everything()
        await store.publish_loads({"n": NodeLoad(10.0), "m": NodeLoad(20.0, gpu_percent=1.5)})
        await store.publish_loads({"n": NodeLoad(30.0)})
        changes = await store.changes(start)
        assert changes.loads == {"n": NodeLoad(30.0), "m": NodeLoad(20.0, gpu_percent=1.5)}
        assert changes.complete
        assert (await store.changes(changes.position)).loads == {}

    async def test_loads_are_no_change_of_nodes(self, backend: Backend) -> None:
        store = backend.nodes()
        await store.publish_loads({"n": NodeLoad(10.0)})
        position, found = await store.everything()
        assert found == []
        assert (await store.changes(position)).loads == {}
