"""An instance: one scheduler process, as it reports itself to its peers."""

import msgspec


class InstanceReport(msgspec.Struct, frozen=True):
    """What an instance says of itself, once per sync interval.

    `degraded` tells of an outage that is not over for it yet; during one it can tell nothing.
    """

    instance_id: str
    started_at_ms: int
    nodes: int = 0
    sessions: int = 0
    pools: int = 0
    pool_config_epoch: int = 0
    pool_config_version: int = 0
    pool_config_digest: str = ""
    pool_index_digest: str = ""
    sync_delay_ms: int = 0
    draining: bool = False
    candidate: bool = False
    serves: bool = True
    degraded: bool = False
    last_seen_ms: int = 0
