"""Which nodes are tried, in which order: never one with an objection, and not all the same one."""

from collections import Counter
from collections.abc import Callable
from math import ceil
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from registry.domain.node import NodeLoad, NodeSnapshot, NodeStatus
from routing.domain.selection import (
    CANDIDATES,
    DRAWS,
    FEW,
    LAST_RESORTS,
    LOOKS,
    Candidate,
    Chance,
    Draw,
    SelectionRules,
    objection,
    prefer,
)

RULES = SelectionRules(resource_threshold=85)


def candidate(
    *,
    status: NodeStatus = NodeStatus.READY,
    public: bool = True,
    slots: int = 4,
    reserved: int = 0,
    **load: float,
) -> Candidate:
    snapshot = NodeSnapshot("n", "i", 1, 0, status, slots, public, (), None, 0)
    return Candidate(snapshot, ceil(NodeLoad(**load).peak_percent), reserved)


def named(nodes: dict[str, Candidate]) -> dict[str, Candidate]:
    """The same nodes, each with the id it has here."""
    return {
        name: node and replace(node, snapshot=replace(node.snapshot, node_id=name))
        for name, node in nodes.items()
    }


def draw(nodes: dict[str, Candidate], chance: Chance, *, near: str = "") -> Draw:
    return prefer(list(nodes), look=named(nodes).get, rules=RULES, chance=chance, near=near)


def choose(nodes: dict[str, Candidate], seed: int = 1) -> list[str]:
    return [node.node_id for node in draw(nodes, Random(seed).random).candidates]


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (candidate(), None),
        (candidate(status=NodeStatus.DEGRADED), None),
        (candidate(status=NodeStatus.REGISTERING), "it is registering"),
        (candidate(status=NodeStatus.DRAINING), "it is draining"),
        (candidate(status=NodeStatus.OFFLINE), "it is offline"),
        (candidate(public=False), "it takes no public jobs"),
        (candidate(cpu_percent=85), None),
        (
            candidate(cpu_percent=86),
            "its resources are used to 86 %, above the threshold of 85 %",
        ),
        (
            candidate(cpu_percent=1, gpu_mem_percent=99.6),
            "its resources are used to 100 %, above the threshold of 85 %",
        ),
        (candidate(reserved=4), None),
        (candidate(reserved=3, mem_percent=84.9), None),
    ],
)
def test_an_objection_says_why_a_node_is_passed_over(node: Candidate, words: str | None):
    assert objection(node, RULES) == words


@pytest.mark.parametrize("status", NodeStatus)
def test_only_ready_and_degraded_nodes_may_be_tried(status: NodeStatus):
    may = objection(candidate(status=status), RULES) is None
    assert may == (status in {NodeStatus.READY, NodeStatus.DEGRADED})


@pytest.mark.parametrize(("reserved", "full"), [(0, False), (3, False), (4, True), (5, True)])
def test_a_node_is_full_when_all_its_slots_are_reserved(reserved: int, full: bool):
    assert candidate(slots=4, reserved=reserved).full is full


def test_a_smaller_share_of_slots_is_less_pressure_and_ties_go_to_the_less_busy_machine():
    assert candidate(slots=8, reserved=2).pressure < candidate(slots=4, reserved=2).pressure
    idle, busy = candidate(reserved=1, cpu_percent=5), candidate(reserved=1, cpu_percent=80)
    assert idle.pressure < busy.pressure < candidate(reserved=2).pressure


def test_how_busy_a_machine_is_never_outweighs_a_slot_of_a_large_one():
    busy = candidate(slots=100, reserved=1, cpu_percent=85)
    assert busy.pressure < candidate(slots=100, reserved=2).pressure


def test_machines_about_equally_busy_are_equal_as_the_figures_are_old():
    assert candidate(cpu_percent=1).pressure == candidate(cpu_percent=24).pressure
    assert candidate(cpu_percent=24).pressure < candidate(cpu_percent=26).pressure


def test_a_degraded_node_is_under_more_pressure_than_any_ready_one():
    full = candidate(reserved=4, cpu_percent=85)
    assert full.pressure < candidate(status=NodeStatus.DEGRADED).pressure


@pytest.mark.parametrize("percent", [0, -1, 101])
def test_a_threshold_that_is_no_percentage_is_refused_by_its_setting(percent: int):
    with pytest.raises(ValueError, match=f"SCHED_RESOURCE_THRESHOLD is {percent}"):
        SelectionRules(resource_threshold=percent)


@pytest.mark.parametrize("percent", [1, 100])
def test_the_bounds_of_a_percentage_are_a_threshold(percent: int):
    assert SelectionRules(resource_threshold=percent).resource_threshold == percent


any_node = st.builds(
    candidate,
    status=st.sampled_from([NodeStatus.READY, *NodeStatus]),
    public=st.sampled_from([True, True, False]),
    slots=st.integers(1, 5),
    reserved=st.integers(0, 6),
    cpu_percent=st.sampled_from([0.0, 50.0, 85.0, 90.0]),
)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.none() | any_node, max_size=40), st.integers(0, 2**32))
def test_what_is_named_may_be_tried_is_named_once_and_stands_in_order(found, seed: int):
    nodes = {f"n{number}": node for number, node in enumerate(found)}
    chosen = choose(nodes, seed)
    assert len(chosen) == len(set(chosen)) <= DRAWS
    assert all(nodes[name] is not None for name in chosen)
    assert all(objection(nodes[name], RULES) is None for name in chosen)
    degraded = [nodes[name].snapshot.status is NodeStatus.DEGRADED for name in chosen]
    assert degraded == sorted(degraded)
    pressures = [nodes[name].pressure for name in chosen]
    assert pressures == sorted(pressures)
    possible = {name for name, node in nodes.items() if node and objection(node, RULES) is None}
    assert bool(chosen) == bool(possible)
    if any(nodes[name].full for name in chosen):
        assert all(nodes[name].full for name in chosen)
        assert len(chosen) <= LAST_RESORTS


@settings(deadline=None, max_examples=200)
@given(st.lists(any_node, max_size=FEW), st.integers(0, 2**32))
def test_of_a_small_pool_all_that_have_room_are_named_and_the_full_only_without_them(found, seed):
    nodes = {f"n{number}": node for number, node in enumerate(found)}
    possible = {name for name, node in nodes.items() if objection(node, RULES) is None}
    free = {name for name in possible if not nodes[name].full}
    chosen = choose(nodes, seed)
    if free:
        assert set(chosen) == free
    else:
        assert len(chosen) == min(len(possible), LAST_RESORTS)
        assert set(chosen) <= possible


@pytest.mark.parametrize("seed", range(20))
def test_the_degraded_come_last_even_when_they_are_idle(seed: int):
    nodes = {
        "d1": candidate(status=NodeStatus.DEGRADED),
        "d2": candidate(status=NodeStatus.DEGRADED),
        "r1": candidate(reserved=3),
        "r2": candidate(reserved=2),
    }
    chosen = choose(nodes, seed)
    assert set(chosen[:2]) == {"r1", "r2"}
    assert set(chosen[2:]) == {"d1", "d2"}


@pytest.mark.parametrize("seed", range(20))
def test_of_two_nodes_the_less_loaded_is_always_first(seed: int):
    nodes = {"busy": candidate(reserved=3), "idle": candidate(reserved=2)}
    assert choose(nodes, seed) == ["idle", "busy"]


def test_a_degraded_node_does_not_take_the_place_of_one_to_compare_with():
    nodes = {
        "degraded": candidate(status=NodeStatus.DEGRADED),
        "busy": candidate(reserved=3),
        "idle": candidate(),
    }
    assert all(choose(nodes, seed)[0] == "idle" for seed in range(20))


def test_a_degraded_node_is_chosen_when_no_ready_one_is_left():
    nodes = {"d": candidate(status=NodeStatus.DEGRADED), "o": candidate(status=NodeStatus.OFFLINE)}
    assert choose(nodes) == ["d"]


def test_an_empty_pool_and_a_pool_of_unknown_nodes_name_nobody():
    assert choose({}) == []
    unknown = prefer(["a"] * 50, look=lambda _: None, rules=RULES, chance=Random(1).random)
    assert unknown.candidates == []
    assert unknown.passed_over == {"it has just left": 50}
    assert not unknown.exhausted


@pytest.mark.parametrize("seed", range(30))
def test_the_one_node_of_a_pool_that_may_be_tried_is_found(seed: int):
    nodes = {f"n{number}": candidate(status=NodeStatus.OFFLINE) for number in range(LOOKS)}
    nodes["n121"] = candidate()
    assert choose(nodes, seed) == ["n121"]


@pytest.mark.parametrize("unfit", [{"status": NodeStatus.DRAINING}, {"reserved": 4}])
def test_a_choice_from_a_large_pool_of_unfit_nodes_ends_after_a_bound(unfit):
    node = candidate(**unfit)
    look, looks = _counting(lambda _: node)
    members = [f"n{number}" for number in range(5_000)]
    found = prefer(members, look=look, rules=RULES, chance=Random(2).random)
    assert looks.total() == LOOKS
    assert found.exhausted == (not node.full)


def test_those_passed_over_are_counted_by_reason():
    nodes = {f"d{number}": candidate(status=NodeStatus.DRAINING) for number in range(3)}
    nodes |= {"busy": candidate(cpu_percent=90), "private": candidate(public=False)}
    nodes |= {"full": candidate(reserved=4), "free": candidate()}
    found = draw(nodes, Random(3).random)
    assert [node.node_id for node in found.candidates] == ["free"]
    assert found.passed_over == {
        "it is draining": 3,
        "its resources are used above the threshold": 1,
        "it takes no public jobs": 1,
        "all its slots are reserved": 1,
    }


@pytest.mark.parametrize("seed", range(20))
def test_failed_lately_is_worse_than_loaded_and_better_than_degraded(seed: int):
    nodes = {
        "degraded": candidate(status=NodeStatus.DEGRADED),
        "twice": replace(candidate(), failures=2),
        "once": replace(candidate(), failures=1),
        "loaded": candidate(reserved=3),
    }
    assert choose(nodes, seed) == ["loaded", "once", "twice", "degraded"]


@pytest.mark.parametrize("seed", range(20))
def test_a_node_that_failed_this_job_comes_after_all_others_that_have_room(seed: int):
    nodes = {
        "avoided": replace(candidate(), avoided=True),
        "degraded": candidate(status=NodeStatus.DEGRADED),
    }
    assert choose(nodes, seed) == ["degraded", "avoided"]


@pytest.mark.parametrize("seed", range(20))
def test_of_equals_the_sessions_last_node_is_first_whatever_the_lot(seed: int):
    nodes = {f"n{number}": candidate(cpu_percent=number) for number in range(100)}
    nodes["last"] = replace(candidate(cpu_percent=80), near=True)
    found = draw(nodes, Random(seed).random, near="last")
    assert found.candidates[0].node_id == "last"


@pytest.mark.parametrize("seed", range(20))
def test_a_sessions_last_node_that_is_busier_is_not_preferred(seed: int):
    nodes = {f"n{number}": candidate(reserved=1) for number in range(100)}
    nodes["last"] = replace(candidate(reserved=2), near=True)
    found = draw(nodes, Random(seed).random, near="last")
    assert found.candidates[0].node_id != "last"


def test_what_is_on_its_way_to_a_node_counts_like_what_it_holds():
    assert replace(candidate(reserved=1), pending=2).pressure == candidate(reserved=3).pressure
    assert replace(candidate(reserved=1), pending=3).full


@pytest.mark.parametrize("hot", [{"fresh": True}, {"pending": 3}])
def test_more_nodes_are_compared_in_a_burst_and_where_slots_are_scarce(hot):
    calm = {f"n{number}": candidate() for number in range(100)}
    assert len(choose(calm)) == FEW
    assert len(choose({name: replace(node, **hot) for name, node in calm.items()})) == CANDIDATES


@pytest.mark.parametrize("members", [1, 2, 3, 20, 97, 360])
def test_the_lot_reaches_every_member_once(members: int):
    nodes = {f"n{number}": candidate(status=NodeStatus.OFFLINE) for number in range(members)}
    look, looks = _counting(nodes.get)
    for seed in range(20):
        looks.clear()
        prefer(list(nodes), look=look, rules=RULES, chance=Random(seed).random)
        assert max(looks.values()) == 1
        assert len(looks) == min(members, LOOKS)


def test_when_all_look_full_two_last_resorts_are_named():
    nodes = {f"n{number}": candidate(reserved=4) for number in range(100)}
    assert len(choose(nodes)) == LAST_RESORTS


@pytest.mark.parametrize("seed", range(20))
def test_the_least_full_is_the_first_of_the_last_resorts(seed: int):
    nodes = {"over": candidate(reserved=6), "just": candidate(reserved=4)}
    assert choose(nodes, seed) == ["just", "over"]


def test_a_free_node_among_many_full_ones_is_found():
    nodes = {f"n{number}": candidate(reserved=4) for number in range(200)}
    nodes["n7"] = candidate()
    assert all(choose(nodes, seed)[0] == "n7" for seed in range(20))


def test_equal_nodes_are_each_chosen_first_about_equally_often():
    nodes = {f"n{number}": candidate() for number in range(20)}
    random = Random(7)
    first = Counter(draw(nodes, random.random).candidates[0].node_id for _ in range(2_000))
    assert set(first) == set(nodes)
    assert all(60 <= count <= 145 for count in first.values()), first  # 100 each, 9.7 deviation


@pytest.mark.parametrize("members", [2, 3, 4])
def test_equal_nodes_of_a_small_pool_take_turns_by_lot(members: int):
    nodes = {f"n{number}": candidate() for number in range(members)}
    first = Counter(choose(nodes, seed)[0] for seed in range(1_000))
    assert min(first.values()) > 0.8 * 1_000 / members


def test_a_burst_over_an_old_view_does_not_go_to_the_one_best_node():
    """The view shows one idle node among nodes of one job each, and does not change meanwhile."""
    nodes = {f"n{number}": candidate(reserved=1) for number in range(100)}
    nodes["n0"] = candidate()
    first = Counter(choose(nodes, seed)[0] for seed in range(1_000))
    assert first["n0"] < 100
    assert len(first) > 80


def test_the_less_loaded_half_gets_three_quarters_as_the_better_of_two_would():
    nodes = {
        f"n{number}": candidate(slots=8, reserved=0 if number < 10 else 3) for number in range(20)
    }
    first = Counter(choose(nodes, seed)[0] for seed in range(2_000))
    idle = sum(count for name, count in first.items() if int(name[1:]) < 10)
    assert 1_400 < idle < 1_660  # 3/4 of 2,000 and a bit: the two are two different nodes


def _counting(look: Callable[[str], Candidate | None]) -> tuple[Callable, Counter[str]]:
    looks: Counter[str] = Counter()

    def counted(node_id: str) -> Candidate | None:
        looks[node_id] += 1
        return look(node_id)

    return counted, looks


def test_a_choice_from_a_large_healthy_pool_looks_at_a_few_nodes_only():
    node = candidate()
    look, looks = _counting(lambda _: node)
    prefer(
        [f"n{number}" for number in range(5_000)], look=look, rules=RULES, chance=Random(2).random
    )
    assert looks.total() <= DRAWS


def test_the_same_seed_makes_the_same_choice():
    nodes = {f"n{number}": candidate(reserved=number % 3) for number in range(50)}
    assert choose(nodes, 5) == choose(nodes, 5)
    assert len({tuple(choose(nodes, seed)) for seed in range(20)}) > 10
