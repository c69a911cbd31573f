"""Operators' actions between two instances over memory stores, and the dry run."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from pools.domain.generation import PoolRules
from pools.domain.index import PoolIndex
from pools.domain.news import Wanted
from pools.domain.pool import Pool, PoolKind
from pools.store.memory import MemoryCatalogStore
from registry.domain.capability import (
    Capabilities,
    LanguageCapabilities,
    LanguagePair,
    ServiceCapability,
    ServiceType,
)
from registry.domain.errors import StoreUnavailable
from registry.domain.node import Hardware, Liveness, NodeLoad, NodeSnapshot, NodeStatus
from registry.services.membership import LocalNode, Membership, Registration
from registry.services.views import NodeViews
from registry.store.memory import (
    MemoryInstanceStore,
    MemoryLeaseStore,
    MemoryNodeStore,
    MemoryServer,
)
from routing.domain.operators import AlreadySo, AuditRecord, Done, NotFound, Operator, Source
from routing.domain.outcome import Envelope, EnvelopeKind, Full, Reserved
from routing.domain.selection import SelectionRules
from routing.services.actions import Actions, NodeControl
from routing.services.delivery import Delivery
from routing.services.draining import Draining
from routing.services.placement import Placement
from routing.services.rehearsal import Rehearsal
from routing.store.memory import MemoryInboxStore, MemorySlotStore
from tests.support.waiting import eventually

BY = Operator("root", Source.API, "10.0.0.1")
LONG_MS = 60_000


@dataclass
class Link:
    """A node's socket."""

    frames: list[dict[str, Any]] = field(default_factory=list)

    def send(self, frame: bytes) -> bool:
        self.frames.append(msgspec.json.decode(frame))
        return True

    def close(self, code: int, reason: str) -> None: ...

    @property
    def commands(self) -> list[str]:
        return [frame["command"] for frame in self.frames]


@dataclass
class Audit:
    """An audit log; `away` while its database is."""

    records: list[AuditRecord] = field(default_factory=list)
    away: bool = False

    async def record(self, record: AuditRecord) -> None:
        if self.away:
            raise StoreUnavailable("the database cannot be used")
        self.records.append(record)


class Waiting:
    """Takes note of the nodes that it is to fill."""

    def __init__(self) -> None:
        self.filled: list[str] = []

    async def fill(self, node: LocalNode) -> None:
        self.filled.append(node.snapshot.node_id)


@dataclass
class Leaving:
    """Whether the instance drains."""

    draining: bool = False


class Instance:
    """As much of an instance as actions need."""

    def __init__(self, server: MemoryServer, name: str, audit: Audit) -> None:
        nodes = MemoryNodeStore(
            server, instance_id=name, owner_ttl_ms=LONG_MS, presence_ttl_ms=LONG_MS
        )
        life = Liveness(
            heartbeat_ms=1_000, presence_ttl_ms=LONG_MS, owner_ttl_ms=LONG_MS, snapshot_sync_ms=100
        )
        self.name = name
        self.membership = Membership(
            nodes, NodeViews(), instance_id=name, liveness=life, clock=server.clock
        )
        self.inbox = MemoryInboxStore(server, instance_id=name)
        self.delivery = Delivery(self.inbox, instance_id=name)
        self.catalog = MemoryCatalogStore(server, config_ttl_ms=LONG_MS)
        self.leases = MemoryLeaseStore(server, ttl_ms=LONG_MS)
        self.slots = MemorySlotStore(server)
        self.waiting = Waiting()
        self.leaving = Leaving()
        self.instances = MemoryInstanceStore(server, presence_ttl_ms=LONG_MS)
        self.actions = Actions(
            self.membership,
            self.delivery,
            self.catalog,
            self.leases,
            self.instances,
            audit,
            instance_id=name,
        )
        NodeControl(
            self.delivery,
            self.membership,
            self.waiting,  # type: ignore[arg-type]  # only `fill` of it
            Draining(
                self.membership,
                self.slots,  # type: ignore[arg-type]  # not used before a time is over
                None,  # type: ignore[arg-type]
                timeout_ms=LONG_MS,
                clock=server.clock,
            ),
            self.leaving,  # type: ignore[arg-type]  # only `draining` of it
            instance_id=name,
        )

    async def register(self, node_id: str, link: Link) -> LocalNode:
        node = await self.membership.register(registration(node_id), link)
        assert isinstance(node, LocalNode)
        return node

    async def read_inbox(self) -> None:
        """Act on what others have put there."""
        pump = asyncio.create_task(self.delivery.pump())
        for _ in range(20):
            await asyncio.sleep(0)
        pump.cancel()

    def status(self, node_id: str) -> NodeStatus | None:
        view = self.membership.views.get(node_id)
        return view.snapshot.status if view is not None else None


@dataclass
class Pair:
    """Two instances over one server."""

    one: Instance
    two: Instance
    audit: Audit

    async def sync(self) -> None:
        await self.one.membership.sync()
        await self.two.membership.sync()

    async def reserve(self, job_id: str) -> Reserved | Full:
        held = await self.one.slots.reserve("n", job_id=job_id, attempt=1, lease_ms=LONG_MS)
        assert isinstance(held, Reserved | Full)
        return held


@pytest.fixture
async def pair() -> Pair:
    server, audit = MemoryServer(clock=lambda: 1_790_000_000_000), Audit()
    made = Pair(Instance(server, "one", audit), Instance(server, "two", audit), audit)
    await made.one.inbox.open()
    await made.two.inbox.open()
    return made


def registration(node_id: str, *, slots: int = 2) -> Registration:
    return Registration(
        node_id=node_id,
        capabilities=capabilities("zh", "en"),
        max_concurrent_jobs=slots,
        accept_public_jobs=True,
        version="1",
        platform="linux",
        hardware=Hardware(cpu_cores=1, memory_gb=1),
        labels={},
        registered_at_ms=0,
    )


def capabilities(src: str, tgt: str) -> Capabilities:
    services = tuple(
        ServiceCapability(type=kind, ready=True)
        for kind in (ServiceType.ASR, ServiceType.NMT, ServiceType.TTS, ServiceType.SEMANTIC)
    )
    pairs = (LanguagePair(src, tgt),)
    return Capabilities(services, LanguageCapabilities(supported_language_pairs=pairs))


# Nodes.


async def test_a_drain_closes_the_slots_before_the_node_has_heard_it(pair: Pair) -> None:
    link = Link()
    await pair.two.register("n", link)
    await pair.sync()
    assert isinstance(await pair.one.actions.drain("n", by=BY, reason="disk"), Done)
    assert isinstance(await pair.reserve("s:1"), Full)
    assert link.frames == []
    await pair.two.read_inbox()
    await pair.sync()
    assert link.frames == [{"type": "node_control", "command": "drain", "reason": "disk"}]
    assert pair.one.status("n") is pair.two.status("n") is NodeStatus.DRAINING
    assert pair.two.waiting.filled == []


async def test_a_resumed_node_is_filled(pair: Pair) -> None:
    link = Link()
    await pair.two.register("n", link)
    await pair.sync()
    await pair.one.actions.drain("n", by=BY)
    await pair.two.read_inbox()
    await pair.sync()
    assert isinstance(await pair.one.actions.resume("n", by=BY), Done)
    assert isinstance(await pair.reserve("s:1"), Reserved)
    await pair.two.read_inbox()
    await pair.sync()
    assert link.commands == ["drain", "resume"]
    assert pair.one.status("n") is NodeStatus.READY
    assert pair.two.waiting.filled == ["n"]


async def test_doing_it_twice_is_doing_it_once(pair: Pair) -> None:
    await pair.one.register("n", Link())
    assert isinstance(await pair.one.actions.resume("n", by=BY), AlreadySo)
    assert isinstance(await pair.one.actions.drain("n", by=BY), Done)
    assert isinstance(await pair.one.actions.drain("n", by=BY), AlreadySo)
    assert pair.one.status("n") is NodeStatus.DRAINING
    assert isinstance(await pair.one.actions.resume("n", by=BY), Done)
    assert pair.one.status("n") is NodeStatus.READY


async def test_who_sees_the_drain_of_a_moment_ago_as_not_done_yet_resumes_all_the_same(
    pair: Pair,
) -> None:
    await pair.two.register("n", Link())
    await pair.sync()
    await pair.one.actions.drain("n", by=BY)
    assert isinstance(await pair.one.actions.resume("n", by=BY), AlreadySo), "as it sees the node"
    await pair.two.read_inbox()
    assert pair.two.status("n") is NodeStatus.READY
    assert isinstance(await pair.reserve("s:1"), Reserved)


async def test_a_drained_node_that_comes_back_is_drained(pair: Pair) -> None:
    node = await pair.one.register("n", Link())
    await pair.one.actions.drain("n", by=BY)
    await pair.one.membership.lose(node)
    await pair.two.register("n", Link())
    assert pair.two.status("n") is NodeStatus.DRAINING
    assert isinstance(await pair.reserve("s:1"), Full)


async def test_commands_that_cross_end_in_what_was_said_last(pair: Pair) -> None:
    link = Link()
    await pair.two.register("n", link)
    await pair.sync()
    await pair.one.membership.drain("n", draining=True)
    await pair.one.membership.drain("n", draining=False)
    resume = CONTROL.replace(b"drain", b"resume")
    # The words arrive the other way round.
    await pair.one.inbox.send("two", Envelope(EnvelopeKind.CONTROL, "n", resume))
    await pair.one.inbox.send("two", Envelope(EnvelopeKind.CONTROL, "n", CONTROL))
    await pair.two.read_inbox()
    assert pair.two.status("n") is NodeStatus.READY
    assert link.commands == ["resume", "resume"]
    assert isinstance(await pair.reserve("s:1"), Reserved)


async def test_a_shutdown_closes_the_slots_of_one_connection(pair: Pair) -> None:
    link = Link()
    node = await pair.two.register("n", link)
    await pair.sync()
    assert isinstance(await pair.one.actions.shut_down("n", by=BY), Done)
    await pair.two.read_inbox()
    assert link.commands == ["shutdown"]
    assert pair.two.status("n") is NodeStatus.DRAINING
    assert isinstance(await pair.reserve("s:1"), Full)
    await pair.two.membership.lose(node)
    await pair.two.register("n", Link())
    assert pair.two.status("n") is NodeStatus.READY
    assert isinstance(await pair.reserve("s:2"), Reserved)


async def test_a_command_follows_a_node_that_moved(pair: Pair) -> None:
    await pair.one.register("n", Link())
    await pair.sync()
    link = Link()
    await pair.two.register("n", link)
    await pair.sync()
    await pair.two.membership.drain("n", draining=True)
    await pair.two.inbox.send("one", Envelope(EnvelopeKind.CONTROL, "n", CONTROL))
    pair.one.membership._local.clear()  # its old socket is gone
    await pair.one.read_inbox()
    await pair.two.read_inbox()
    assert link.commands == ["drain"]


CONTROL = b'{"type":"node_control","command":"drain","reason":""}'


async def test_a_command_for_a_node_that_left_is_dropped(pair: Pair) -> None:
    await pair.two.inbox.send("one", Envelope(EnvelopeKind.CONTROL, "gone", CONTROL))
    with capture_logs() as logs:
        await pair.one.read_inbox()
    assert [entry["event"] for entry in logs] == ["node did not hear a command"]
    assert await pair.one.inbox.left_by("one") == []


async def test_an_unknown_node_is_not_found(pair: Pair) -> None:
    for action in (pair.one.actions.drain, pair.one.actions.resume, pair.one.actions.shut_down):
        assert isinstance(await action("nobody", by=BY), NotFound)
    assert [record.outcome for record in pair.audit.records] == ["not found"] * 3


async def test_a_shutdown_that_nobody_can_deliver_is_told(pair: Pair) -> None:
    await pair.two.register("n", Link())
    await pair.sync()
    await pair.two.inbox.close()
    outcome = await pair.one.actions.shut_down("n", by=BY)
    assert isinstance(outcome, NotFound)
    assert "is gone" in outcome.sentence


# The leader and the pools.


async def test_nobody_steps_down_where_nobody_leads(pair: Pair) -> None:
    assert isinstance(await pair.one.actions.step_down(by=BY), NotFound)
    assert await pair.one.catalog.position() == "0"


async def test_the_leader_is_asked_in_the_operators_name(pair: Pair) -> None:
    await pair.one.leases.acquire("two", floor=0)
    assert isinstance(await pair.one.actions.step_down(by=BY), Done)
    assert isinstance(await pair.one.actions.regenerate(by=BY), Done)
    _, news = await pair.two.catalog.news("0", within_ms=1)
    assert news == [Wanted("step-down", "root"), Wanted("regenerate", "root")]


async def test_regenerating_without_a_leader_waits_for_the_next_one(pair: Pair) -> None:
    outcome = await pair.one.actions.regenerate(by=BY)
    assert isinstance(outcome, Done)
    assert "next leader" in outcome.sentence


# The audit log.


async def test_every_action_is_audited_with_who_from_where_and_why(pair: Pair) -> None:
    await pair.one.register("n", Link())
    await pair.one.actions.drain("n", by=BY, reason="disk")
    (record,) = pair.audit.records
    assert record.operator == BY
    assert (record.action, record.subject, record.outcome) == ("drain node", "n", "done")
    assert record.detail["reason"] == "disk"


async def test_who_hangs_up_half_way_is_audited_all_the_same(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(what: str, *, by: str) -> None:
        asked.set()
        await go_on.wait()

    monkeypatch.setattr(pair.one.catalog, "ask", slowly)
    request = asyncio.create_task(pair.one.actions.regenerate(by=BY))
    await asked.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    go_on.set()
    await eventually(lambda: pair.audit.records, what="the entry")
    assert pair.audit.records[0].outcome == "done"


async def test_a_failure_is_audited_too(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away() -> None:
        raise StoreUnavailable("it does not answer")

    monkeypatch.setattr(pair.one.leases, "holder", away)
    with pytest.raises(StoreUnavailable, match="does not answer"):
        await pair.one.actions.step_down(by=BY)
    assert [record.outcome for record in pair.audit.records] == ["failed"]


async def test_what_cannot_be_audited_is_told_and_logged(pair: Pair) -> None:
    link = Link()
    await pair.one.register("n", link)
    pair.audit.away = True
    with (
        capture_logs() as logs,
        pytest.raises(StoreUnavailable, match="could not be written to the audit log"),
    ):
        await pair.one.actions.drain("n", by=BY)
    assert link.commands == ["drain"]
    assert logs[-1]["event"] == "action not audited"
    assert (logs[-1]["by"], logs[-1]["subject"]) == ("root", "n")


# The dry run.


def rehearsal(*nodes: tuple[str, int]) -> tuple[Rehearsal, NodeViews]:
    """One over nodes with so many slots, all in the pool zh-en."""
    index, views = PoolIndex(PoolRules()), NodeViews()
    index.configure([Pool(1, "zh-en", PoolKind.EXACT, "zh", "en")])
    for node_id, slots in nodes:
        views.put(snapshot(node_id, slots))
        index.put(node_id, capabilities("zh", "en"))
    placement = Placement(index, views, rules=SelectionRules(), chance=lambda: 0.0, clock=lambda: 0)
    return Rehearsal(index, views, placement), views


def snapshot(node_id: str, slots: int) -> NodeSnapshot:
    able = capabilities("zh", "en")
    return NodeSnapshot(
        node_id=node_id,
        instance_id="one",
        connection_epoch=1,
        revision=0,
        status=NodeStatus.READY,
        max_concurrent_jobs=slots,
        accept_public_jobs=True,
        capability_by_type=able.capability_by_type,
        language_capabilities=able.language_capabilities,
        registered_at_ms=0,
    )


def test_a_rehearsal_counts_its_own_picks_and_leaves_the_views_alone() -> None:
    run, views = rehearsal(("a", 1), ("b", 2))
    shown = run.simulate("zh", "en", count=5)
    assert [placed.outcome for placed in shown.placements] == ["accepted"] * 3 + ["queued"] * 2
    assert sorted(placed.node or "" for placed in shown.placements) == ["", "", "a", "b", "b"]
    assert [view.reserved for view in views] == [0, 0]
    assert shown.passed_over == []
    again = run.simulate("zh", "en", count=5)
    assert again == shown


def test_a_rehearsal_shows_what_is_compared() -> None:
    run, views = rehearsal(("a", 4), ("b", 4))
    views.set_load("a", NodeLoad(cpu_percent=60, reserved=3), now_ms=0)
    (placed,) = run.simulate("zh", "en").placements
    assert placed.node == "b"
    assert [candidate.id for candidate in placed.candidates] == ["b", "a"]
    pressure = placed.candidates[1].pressure
    assert (pressure.degraded, pressure.share, pressure.load_step) == (False, 0.75, 2)


def test_a_rehearsal_says_who_was_only_not_drawn() -> None:
    run, _ = rehearsal(*((f"n{number}", 4) for number in range(10)))
    shown = run.simulate("zh", "en")
    tried = {candidate.id for candidate in shown.placements[0].candidates}
    assert len(tried) + len(shown.passed_over) == 10
    assert {each.reason for each in shown.passed_over} == {"others were drawn before it"}
