"""What the sections found: for each figure one value a round, in the order of the rounds."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence

from bench.report import Row, percentile

PERCENTILES = (50, 99, 99.9)


class Figures:
    """Values by name and round; and all single values where percentiles of the run are asked."""

    def __init__(self) -> None:
        self.rounds: dict[str, list[float]] = defaultdict(list)
        self.pooled: dict[str, list[float]] = defaultdict(list)
        self.notes: list[str] = []

    def add(self, name: str, value: float) -> None:
        self.rounds[name].append(value)

    def add_all(self, name: str, values: Sequence[float]) -> None:
        """One round's single values: noted as NAME p50, p99 and p99.9."""
        for percent in PERCENTILES:
            self.add(f"{name} p{percent:g}", percentile(values, percent))
        self.pooled[name] += values

    def note_refused(self, where: str, refused: dict[str, int]) -> None:
        """What did not end as it should; a figure with such a note is worth nothing."""
        self.notes += [f"{where}: {count} x {what}" for what, count in refused.items()]

    def has(self, *names: str) -> bool:
        return all(name in self.rounds for name in names)

    def by_round(self, work_out: Callable[..., float], *names: str) -> list[float]:
        """`work_out` of what these figures were in each round."""
        together = zip(*(self.rounds[name] for name in names), strict=True)
        return [work_out(*values) for values in together]

    def pooled_percentiles(self) -> dict[str, dict[str, float]]:
        """Of all rounds' single values together, where one round has too few."""
        return {
            name: {f"p{percent:g}": percentile(values, percent) for percent in PERCENTILES}
            | {"count": float(len(values))}
            for name, values in self.pooled.items()
        }


def spread_text(values: Sequence[float], unit: str = "") -> str:
    """Median (least..greatest)."""
    middle = shown(statistics.median(values)) + unit
    if len(values) == 1:
        return middle
    return f"{middle} ({shown(min(values))}..{shown(max(values))})"


def shown(value: float) -> str:
    """Three digits that count; no fraction from a hundred on."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def row(name: str, values: Sequence[float], *, unit: str = "") -> Row:
    """A figure without a target."""
    return Row(name, spread_text(values, unit))


def at_most(name: str, values: Sequence[float], limit: float) -> Row:
    """Reached when the median is not above the limit."""
    return Row(name, spread_text(values), f"<= {limit:g}", statistics.median(values) <= limit)


def at_least(name: str, values: Sequence[float], limit: float) -> Row:
    """Reached when the median is not below the limit."""
    return Row(name, spread_text(values), f">= {limit:g}", statistics.median(values) >= limit)
