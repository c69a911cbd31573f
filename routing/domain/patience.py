"""How long dispatch waits for nodes: for their word, their return, their end. Times in ms."""

from dataclasses import dataclass

RETURN_MS = 5_000
"""How long a node whose instance went may take to come back at another one, at the least."""


@dataclass(frozen=True, slots=True)
class Patience:
    """What a node is given before its work is tried elsewhere."""

    job_timeout_ms: int
    ack_timeout_ms: int
    node_grace_ms: int
    drain_timeout_ms: int

    def __post_init__(self) -> None:
        if not 1 <= self.ack_timeout_ms < self.job_timeout_ms:
            raise ValueError(
                f"SCHED_ACK_TIMEOUT_MS is {self.ack_timeout_ms}; it must be at least 1 and less"
                f" than SCHED_JOB_TIMEOUT_MS ({self.job_timeout_ms}), which ends the attempt anyway"
            )
        if not 0 <= self.node_grace_ms < self.job_timeout_ms:
            raise ValueError(
                f"SCHED_NODE_GRACE_MS is {self.node_grace_ms}; it must be at least 0 and less than"
                f" SCHED_JOB_TIMEOUT_MS ({self.job_timeout_ms}), which ends the attempt anyway"
            )
        if self.drain_timeout_ms < 0:
            raise ValueError(
                f"SCHED_DRAIN_TIMEOUT_MS is {self.drain_timeout_ms}; it must be at least 0"
            )

    @property
    def return_ms(self) -> int:
        """The grace of a node that is alive, as far as is known, and lost its instance."""
        return max(self.node_grace_ms, RETURN_MS)
