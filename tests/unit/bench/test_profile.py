"""The summary of sampled stacks."""

from bench.speed.profile import summary

FOLDED = [
    "run (asyncio/runners.py:7);frame (/a/routing/consumers/node.py:3);decode (/a/wire.py) 30",
    "run (asyncio/runners.py:7);frame (/a/routing/consumers/node.py:9) 10",
    "run (asyncio/runners.py:7);walk (tree.py);walk (tree.py) 60",
]


def shares() -> dict[str, tuple[float, float]]:
    lines = summary(FOLDED).splitlines()[1:]
    cells = [line.split(maxsplit=4) for line in lines]
    return {name: (float(alone), float(called)) for alone, _, called, _, name in cells}


def test_a_function_is_told_alone_and_with_what_it_calls() -> None:
    assert shares()["frame (consumers/node.py)"] == (10, 40)
    assert shares()["run (asyncio/runners.py)"] == (0, 100)


def test_a_function_that_calls_itself_counts_once() -> None:
    assert shares()["walk (tree.py)"] == (60, 60)
