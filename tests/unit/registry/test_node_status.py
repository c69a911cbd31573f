"""The node's status table, walked whole, and the window of outcomes that degrades it."""

import random
from itertools import product

import pytest

from registry.domain.errors import InvalidTransition, RegistryError
from registry.domain.node import (
    IDLE,
    TRANSITIONS,
    FailureWindow,
    NodeEvent,
    NodeLoad,
    NodeSnapshot,
    NodeStatus,
    advance,
)

# A row per status, a column per event, "." where the step does not exist.
GRID = """
             registered  failed_often  recovered  drain     resume  lost
registering  ready       .             .          draining  .       offline
ready        ready       degraded      .          draining  ready   offline
degraded     ready       degraded      ready      draining  ready   offline
draining     draining    .             .          draining  ready   offline
offline      ready       .             .          .         .       offline
"""


def _steps() -> dict[tuple[NodeStatus, NodeEvent], NodeStatus | None]:
    head, *rows = [line.split() for line in GRID.strip().splitlines()]
    events = [NodeEvent[name.upper()] for name in head]
    return {
        (NodeStatus(status), event): None if cell == "." else NodeStatus(cell)
        for status, *cells in rows
        for event, cell in zip(events, cells, strict=True)
    }


EXPECTED = _steps()
STEPS = sorted(pair for pair, end in EXPECTED.items() if end is not None)
REFUSED = sorted(pair for pair, end in EXPECTED.items() if end is None)


def test_the_grid_above_names_every_pair_of_status_and_event():
    assert set(EXPECTED) == set(product(NodeStatus, NodeEvent))


@pytest.mark.parametrize(("status", "event"), STEPS)
def test_a_step_of_the_table_leads_where_the_grid_says(status: NodeStatus, event: NodeEvent):
    assert advance(status, event) is EXPECTED[status, event]


@pytest.mark.parametrize(("status", "event"), REFUSED)
def test_a_step_the_table_lacks_raises_and_nothing_changes(status: NodeStatus, event: NodeEvent):
    before = dict(TRANSITIONS)
    with pytest.raises(InvalidTransition) as refused:
        advance(status, event)
    assert before == TRANSITIONS
    assert status.value in str(refused.value)
    assert event.value in str(refused.value)
    assert isinstance(refused.value, RegistryError)


def test_every_status_is_reached_from_registering():
    reached = {NodeStatus.REGISTERING}
    for _ in NodeStatus:
        reached |= {end for (start, _), end in TRANSITIONS.items() if start in reached}
    assert reached == set(NodeStatus)


@pytest.mark.parametrize("status", NodeStatus)
def test_a_node_can_be_lost_from_any_status(status: NodeStatus):
    assert advance(status, NodeEvent.LOST) is NodeStatus.OFFLINE


def test_only_resuming_or_being_lost_ends_a_drain():
    ends = {
        event
        for (status, event), end in TRANSITIONS.items()
        if status is NodeStatus.DRAINING and end is not NodeStatus.DRAINING
    }
    assert ends == {NodeEvent.RESUME, NodeEvent.LOST}


def _window(outcomes: str) -> FailureWindow:
    """`+` for a success, `-` for a failure, the oldest first."""
    window = FailureWindow()
    for outcome in outcomes:
        window.add(succeeded=outcome == "+")
    return window


@pytest.mark.parametrize(
    "outcomes", ["---", "+---", "-+-+-", "--+-", "++++---", "-----", "---++", "+++++-+-+-"]
)
def test_three_failures_of_the_last_five_trip_the_window(outcomes: str):
    assert _window(outcomes).tripped


@pytest.mark.parametrize(
    "outcomes", ["", "-", "--", "-+++--", "--+++-", "---+++", "--++", "++++++"]
)
def test_fewer_failures_of_the_last_five_do_not(outcomes: str):
    assert not _window(outcomes).tripped


def test_the_window_agrees_with_the_rule_for_any_history():
    draws = random.Random(5)
    for _ in range(300):
        history = "".join(draws.choices("+-", k=draws.randrange(20)))
        recent = history[-5:]
        assert _window(history).tripped == (recent.count("-") >= 3 or history.endswith("---"))
        assert _window(history).failures == recent.count("-")


def test_the_window_holds_no_more_than_its_size():
    assert len(_window("+" * 100).outcomes) == 5


def test_the_window_of_one_node_is_not_that_of_another():
    _window("---")
    assert not FailureWindow().tripped


def test_the_peak_is_the_scarcest_resource_and_a_node_without_gpu_has_none():
    assert IDLE.peak_percent == 0
    assert NodeLoad(cpu_percent=10, mem_percent=20).peak_percent == 20
    assert NodeLoad(cpu_percent=30, mem_percent=20, gpu_percent=25).peak_percent == 30
    assert NodeLoad(cpu_percent=30, gpu_percent=70).peak_percent == 70
    assert NodeLoad(cpu_percent=30, gpu_percent=70, gpu_mem_percent=95).peak_percent == 95


def _snapshot(*, epoch: int, revision: int) -> NodeSnapshot:
    return NodeSnapshot("n", "i", epoch, revision, NodeStatus.READY, 4, True, (), None, 0)


def test_a_later_connection_is_newer_than_any_revision_of_an_older_one():
    assert _snapshot(epoch=2, revision=0).order > _snapshot(epoch=1, revision=99).order
    assert _snapshot(epoch=2, revision=1).order > _snapshot(epoch=2, revision=0).order
