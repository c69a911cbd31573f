"""What a benchmark says: progress while it runs, one table at its end, the same as JSON."""

import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `target` and `reached` are None where there is nothing to reach."""

    name: str
    value: str
    target: str | None = None
    reached: bool | None = None


def say(line: str) -> None:
    """A progress line."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def at_most(name: str, value: float, limit: float, *, unit: str = "") -> Row:
    """A row that is reached when `value` is not above `limit`."""
    return Row(name, _text(value) + unit, f"<= {limit:g}{unit}", value <= limit)


def at_least(name: str, value: float, limit: float, *, unit: str = "") -> Row:
    """A row that is reached when `value` is not below `limit`."""
    return Row(name, _text(value) + unit, f">= {limit:g}{unit}", value >= limit)


def plain(name: str, value: float | str, *, unit: str = "") -> Row:
    """A row without a target."""
    return Row(name, (value if isinstance(value, str) else _text(value)) + unit)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of all are not above (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(math.ceil(len(ordered) * percent / 100) - 1, 0)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """p50, p99 and max."""
    return {"p50": percentile(values, 50), "p99": percentile(values, 99), "max": max(values)}


def finish(title: str, rows: Sequence[Row], *, json_path: Path | None, raw: object) -> int:
    """Print the table, write the JSON; returns the exit status: 1 when a target was missed."""
    load = ", ".join(f"{part:.1f}" for part in os.getloadavg())
    sys.stdout.write(f"\n{title} (load average at the end: {load})\n\n{table(rows)}\n")
    sys.stdout.flush()
    if json_path is not None:
        content = {"title": title, "load": load, "rows": [asdict(row) for row in rows], "raw": raw}
        json_path.write_text(json.dumps(content, indent=1) + "\n")
    return 1 if any(row.reached is False for row in rows) else 0


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    verdicts = {None: "", True: "yes", False: "NO"}
    cells = [("figure", "value", "target", "reached")]
    cells += [(row.name, row.value, row.target or "", verdicts[row.reached]) for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
        for line in cells
    ]
    rule = "| " + " | ".join("-" * width for width in widths) + " |"
    return "\n".join([lines[0], rule, *lines[1:]])


def _text(value: float) -> str:
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"
