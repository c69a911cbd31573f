"""What each process tells its peers of its own work, every few seconds, for operators to see.

Rates are per second over the time since the figures before. Times are of whoever counted them:
they are for people, and no decision compares them.
"""

import msgspec

from routing.domain.alerts import Alert


class ClusterFigures(msgspec.Struct, frozen=True):
    """What only the leader looks at: what waits, what is wrong. `dead_letters` if it is known."""

    queues: dict[str, int]
    alerts: tuple[Alert, ...] = ()
    dead_letters: int | None = None


class Figures(msgspec.Struct, frozen=True):
    """One process's figures. `leading_epoch` is 0 unless it leads; then `cluster` is there too.

    `unfinished` counts the jobs of sessions there that have not ended.
    `held` counts reservations on the nodes connected here, `running` the attempts they have.
    `p50_ms` and `p99_ms` are of what was dispatched within a minute, if something was.
    """

    instance_id: str
    serves: bool = True
    leading_epoch: int = 0
    nodes: int = 0
    sessions: int = 0
    unfinished: int = 0
    held: int = 0
    running: int = 0
    accepted_per_s: float = 0.0
    finished_per_s: float = 0.0
    retried_per_s: float = 0.0
    pools: int = 0
    pool_version: int = 0
    index_digest: str = ""
    sync_delay_ms: int = 0
    lag_ms: float = 0.0
    degraded: bool = False
    p50_ms: float | None = None
    p99_ms: float | None = None
    cluster: ClusterFigures | None = None
