"""The table of `bench dispatch`."""

import json
from pathlib import Path

import pytest

from bench.report import Row
from bench.speed import targets
from bench.speed.figures import Figures, at_least, at_most, row, spread_text


def found_with(**rounds: list[float]) -> Figures:
    found = Figures()
    for name, values in rounds.items():
        found.rounds[name.replace("_", " ")] = values
    return found


def floors_and_dispatch() -> Figures:
    """Two rounds; in the second the machine was twice as slow, D across three times."""
    found = Figures()
    singles = {
        "ping": 50,
        "hop": 200,
        "reserve": 100,
        "echo consumer": 300,
        "echo bare": 100,
        "D here": 400,
        "D across": 600,
        "cycle here": 800,
        "cycle across": 900,
    }
    for name, value in singles.items():
        found.add_all(name, [value])
        found.add_all(name, [value * (3 if name == "D across" else 2)])
    return found


def named(rows: list[Row], name: str) -> Row:
    (found,) = (line for line in rows if line.name == name)
    return found


def test_a_ratio_is_worked_out_within_each_round() -> None:
    found = found_with(a=[10, 40, 90], b=[10, 20, 30])
    assert found.by_round(lambda a, b: a / b, "a", "b") == [1, 2, 3]


def test_figures_of_unequal_rounds_are_not_matched() -> None:
    with pytest.raises(ValueError, match="shorter"):
        found_with(a=[1, 2], b=[1]).by_round(lambda a, b: a / b, "a", "b")


def test_the_median_stands_before_the_least_and_the_greatest() -> None:
    assert spread_text([3, 1, 200]) == "3 (1..200)"


def test_one_round_has_no_spread() -> None:
    assert row("a", [1234.5], unit=" us").value == "1,234 us"


def test_the_median_decides_whether_a_target_is_reached() -> None:
    assert at_most("a", [1, 2, 9], 2).reached is True
    assert at_most("a", [1, 3, 3], 2).reached is False
    assert at_least("a", [1, 2, 9], 2).reached is True
    assert at_least("a", [1, 1, 9], 2).reached is False


def test_d_is_compared_with_the_floors_of_its_own_round() -> None:
    across = named(targets.rows(floors_and_dispatch(), None), "D across p50 / C")
    assert across.value == "1.25 (1..1.5)"
    assert across.reached is True


def test_d_on_one_instance_is_compared_without_the_hop() -> None:
    here = named(targets.rows(floors_and_dispatch(), None), "D here p50 / (echo + reserve)")
    assert here.value == "1 (1..1)"


def test_rows_of_sections_that_were_not_run_are_left_out() -> None:
    assert targets.rows(Figures(), None) == []
    only_floors = Figures()
    for name in ("ping", "hop", "reserve", "echo consumer", "echo bare"):
        only_floors.add_all(name, [1.0])
    names = [line.name for line in targets.rows(only_floors, None)]
    assert names
    assert not any(name.startswith("D ") for name in names)


def test_taskiqs_pickup_is_counted_in_hops_of_its_own_run(tmp_path: Path) -> None:
    peers = tmp_path / "peers.json"
    raw = {"hop_us": {"p50": 50}, "peers": {"taskiq": {"pickup_us": {"p50": 250}}}}
    peers.write_text(json.dumps({"raw": raw}))
    ratio = named(
        targets.rows(floors_and_dispatch(), peers), "scheduler's own part / taskiq's pickup"
    )
    # 500 of 200 us, then 1,600 of 400 us: 2.5 and 4 hops, over taskiq's 5.
    assert ratio.value == "0.65 (0.5..0.8)"
    assert ratio.reached is True


def test_without_results_of_the_peers_they_are_not_compared(tmp_path: Path) -> None:
    rows = targets.rows(floors_and_dispatch(), tmp_path / "none.json")
    assert not any("taskiq" in line.name for line in rows)


def test_percentiles_of_the_run_are_of_all_rounds_together() -> None:
    found = Figures()
    found.add_all("a", [1.0] * 999)
    found.add_all("a", [7.0])
    assert found.pooled_percentiles()["a"] == {"p50": 1, "p99": 1, "p99.9": 1, "count": 1000}
    assert found.rounds["a p99.9"] == [1, 7]


def test_what_was_refused_is_noted() -> None:
    found = Figures()
    found.note_refused("load here", {"session: error QUEUE_FULL": 3})
    assert found.notes == ["load here: 3 x session: error QUEUE_FULL"]
