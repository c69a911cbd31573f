"""How patient dispatch is with nodes, and slots that no job uses; over memory stores."""

from dataclasses import dataclass

import pytest

from registry.services.views import NodeViews
from registry.store.memory import MemoryServer
from routing.domain.job import JobState
from routing.domain.outcome import Brief
from routing.domain.patience import Patience
from routing.services.slotcheck import SlotCheck
from routing.services.slots import Slots
from routing.store.memory import MemoryJobStore, MemorySessionStore, MemorySlotStore

BRIEF = Brief(src="zh", tgt="en", priority=5, tenant="t", trace_id="tr", queue="zh>en")
PATIENCE = {
    "job_timeout_ms": 30_000,
    "ack_timeout_ms": 5_000,
    "node_grace_ms": 0,
    "drain_timeout_ms": 30_000,
}


@pytest.mark.parametrize(
    ("field_name", "value", "setting"),
    [
        ("ack_timeout_ms", 30_000, "SCHED_ACK_TIMEOUT_MS"),
        ("ack_timeout_ms", 0, "SCHED_ACK_TIMEOUT_MS"),
        ("node_grace_ms", -1, "SCHED_NODE_GRACE_MS"),
        ("node_grace_ms", 30_000, "SCHED_NODE_GRACE_MS"),
        ("drain_timeout_ms", -1, "SCHED_DRAIN_TIMEOUT_MS"),
    ],
)
def test_a_patience_that_cannot_be_is_refused_by_its_setting(
    field_name: str, value: int, setting: str
) -> None:
    with pytest.raises(ValueError, match=setting):
        Patience(**{**PATIENCE, field_name: value})


def test_a_node_that_was_sent_away_has_five_seconds_at_the_least() -> None:
    assert Patience(**PATIENCE).return_ms == 5_000
    assert Patience(**{**PATIENCE, "node_grace_ms": 9_000}).return_ms == 9_000


@dataclass
class Dispatch:
    """A session `s` and its jobs, and the slots of a node `n`."""

    jobs: MemoryJobStore
    slots: MemorySlotStore
    check: SlotCheck

    async def accept(self, job_id: str, *, node_id: str = "n") -> None:
        await self.jobs.accept(
            job_id, attempt=1, node_id=node_id, brief=BRIEF, payload=b"{}", life_ms=60_000
        )

    async def hold(self, job_id: str, attempt: int = 1) -> None:
        held = self.slots._slots("n")  # no node is registered, so none could be reserved
        held[job_id, attempt] = 10**15

    async def beat(self, *, running: int) -> None:
        held = set(await self.slots.held("n"))
        await self.check.repair("n", self.check.doubtful("n", held, running=running))


@pytest.fixture
async def dispatch() -> Dispatch:
    server = MemoryServer(clock=lambda: 1_790_000_000_000)
    sessions = MemorySessionStore(server, retention_ms=60_000)
    await sessions.open("s", instance_id="one", token_hash="h", init=b"{}")
    jobs = MemoryJobStore(server, retention_ms=60_000, open_limit=100, outbox_limit=100)
    slots = MemorySlotStore(server)
    checked = SlotCheck(jobs, Slots(slots, NodeViews(), lease_ms=1, clock=lambda: 0))
    return Dispatch(jobs, slots, checked)


async def test_a_slot_whose_job_ended_or_moved_on_is_freed_at_the_second_beat(
    dispatch: Dispatch,
) -> None:
    for index in range(4):
        await dispatch.accept(f"s:{index}")
        await dispatch.hold(f"s:{index}")
    await dispatch.hold("s:9")
    await dispatch.jobs.finish("s:1", attempt=0, node_id="", state=JobState.SUCCEEDED, body=b"end")
    await dispatch.jobs.fail_attempt("s:2", attempt=1, max_attempts=3, reason="x")
    await dispatch.beat(running=2)
    assert len(await dispatch.slots.held("n")) == 5, "one beat proves nothing"
    await dispatch.beat(running=2)
    assert sorted(await dispatch.slots.held("n")) == [("s:0", 1), ("s:3", 1)]
    assert dispatch.check.repaired == 3


async def test_a_slot_that_is_younger_than_a_beat_is_left_alone(dispatch: Dispatch) -> None:
    await dispatch.beat(running=1)
    await dispatch.hold("s:7")  # Its job is about to be written.
    await dispatch.beat(running=5)
    assert await dispatch.slots.held("n") == [("s:7", 1)]


async def test_numbers_that_agree_in_between_begin_the_comparison_anew(
    dispatch: Dispatch,
) -> None:
    await dispatch.hold("s:7")
    await dispatch.beat(running=0)
    await dispatch.beat(running=1)
    await dispatch.beat(running=0)
    assert await dispatch.slots.held("n") == [("s:7", 1)]
    await dispatch.beat(running=0)
    assert await dispatch.slots.held("n") == []
