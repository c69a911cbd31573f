"""How much a run measures."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """Counts and spans of one round, and of the sections that are measured once."""

    rounds: int
    singles: int
    span_s: float
    decisions: int
    handshakes: int
    held: int
    beating: int
    beats_s: float


def usual(rounds: int) -> Sizes:
    return Sizes(rounds, 600, 4, 5_000, 600, 1_000, 10_000, 30)


def quick(rounds: int) -> Sizes:
    return Sizes(rounds, 200, 1.5, 2_000, 200, 300, 1_000, 15)
