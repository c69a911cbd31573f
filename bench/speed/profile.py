"""The section `profile`: which functions an instance spends its CPU in, by py-spy.

Sampled from outside, without a change of the instance, while a closed loop keeps it busy. Shares
are of the samples in which the instance was not idle. Not promised: where a task waits; that is in
the latencies.
"""

import asyncio
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from bench.report import say
from bench.speed.figures import Figures
from bench.speed.hall import Hall
from bench.speed.latency import across, here
from bench.speed.sizes import Sizes
from bench.stage import ROOT, MeasuredInstance
from bench.workers import Worker

SAMPLES_A_SECOND = 250
SHOWN = 22
FOLDER = ROOT / "var" / "profiles"
_PLACE = re.compile(r"^(?P<function>.+) \((?P<file>[^:)]+)(:\d+)?\)$")


async def profile(hall: Hall, sizes: Sizes, found: Figures) -> None:
    """Sample instances under load; says the shares, and keeps the stacks in `var/profiles`."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (one,) = await hall.cluster("one", 1)
    await _sample(await here(hall), {"here": one}, sizes)
    of_sessions, of_nodes = await hall.cluster("two", 2)
    await _sample(
        await across(hall), {"across, sessions": of_sessions, "across, nodes": of_nodes}, sizes
    )


async def _sample(fleet: Worker, instances: dict[str, MeasuredInstance], sizes: Sizes) -> None:
    seconds = max(int(sizes.span_s * 2), 3)
    paths = {name: FOLDER / f"{name.replace(', ', '-')}.folded" for name in instances}
    load = asyncio.create_task(fleet.ask("closed_loop", seconds=seconds * 1.5 + 3, pids={}))
    await asyncio.gather(
        *(_record(instances[name].pid, paths[name], seconds) for name in instances)
    )
    rate = (await load)["rate"]
    for name, path in paths.items():
        say(f"\n{name}: {rate:.0f} cycles/s; stacks in {path.relative_to(ROOT)}")
        say(summary(path.read_text().splitlines()))


async def _record(pid: int, path: Path, seconds: int) -> None:
    tool = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or "py-spy"
    process = await asyncio.create_subprocess_exec(
        *(tool, "record", "--pid", str(pid), "--duration", str(seconds)),
        *("--rate", str(SAMPLES_A_SECOND), "--format", "raw", "--function", "--output", str(path)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"py-spy failed: {output.decode(errors='replace')[-500:]}")


def summary(folded: Iterable[str]) -> str:
    """The functions with most samples, with what they call and alone; `a;b;c 12` a line."""
    alone: Counter[str] = Counter()
    with_called: Counter[str] = Counter()
    total = 0
    for line in folded:
        stack, _, count = line.rpartition(" ")
        names = [_short(place) for place in stack.split(";")]
        total += int(count)
        alone[names[-1]] += int(count)
        for name in set(names):
            with_called[name] += int(count)
    lines = ["  alone   with what it calls"]
    ranked = {*dict(alone.most_common(SHOWN)), *dict(with_called.most_common(SHOWN * 2))}
    for name in sorted(ranked, key=lambda name: -with_called[name]):
        shares = alone[name] / total * 100, with_called[name] / total * 100
        lines.append(f"{shares[0]:5.1f} %  {shares[1]:5.1f} %  {name}")
    return "\n".join(lines)


def _short(place: str) -> str:
    """`function (folder/file.py)`, less what stands before the last two parts of the path."""
    match = _PLACE.match(place)
    if match is None:
        return place
    path = Path(match["file"])
    return f"{match['function']} ({'/'.join(path.parts[-2:])})"
