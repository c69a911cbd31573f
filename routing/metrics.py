"""Figures of one instance for Prometheus: read from its services when asked, not counted twice.

No label has as many values as there are nodes or sessions: a page stays small and cheap.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from routing.domain.spread import BOUNDS_US
from routing.instance import Routing

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


def render(routing: Routing) -> bytes:
    """The metrics page of one instance, in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(routing))
    return generate_latest(registry)


class _Figures:
    def __init__(self, routing: Routing) -> None:
        self._routing = routing

    def collect(self) -> Iterator[Metric]:
        routing = self._routing
        config = routing.pools.sync.config
        yield _labelled("sched_instance_info", "This instance.", "instance", routing.instance_id)
        for name, help_text, value in (
            ("sched_ready", "1 when this instance may take traffic.", not routing.unready()),
            ("sched_sockets", "Open WebSockets.", len(routing.connections)),
            ("sched_local_nodes", "Nodes connected here.", len(routing.membership.local_nodes())),
            ("sched_sessions", "Sessions connected here.", len(routing.sessions)),
            ("sched_running_attempts", "Attempts on nodes here.", routing.assignment.running),
            ("sched_watched_jobs", "Unfinished jobs of sessions here.", len(routing.deadlines)),
            ("sched_dead_letters", "Dead letters buried here, there now.", routing.letters.held),
            ("sched_pools", "Pools in force here.", len(routing.pools.index.pools)),
            ("sched_pools_local", "Pools of this instance's own making.", self._local_pools()),
            ("sched_island", "1 while it serves without the store.", routing.island.active),
            ("sched_pool_config_version", "Version of the pools in force here.", config.version),
            ("sched_pool_config_epoch", "Leader epoch of the pools in force here.", config.epoch),
            ("sched_leading", "1 while this instance leads.", self._leading()),
            ("sched_sync_delay_seconds", "Age of the node view.", self._sync_delay_s()),
            ("sched_loop_lag_seconds", "Lag of the event loop.", routing.lag_ms / 1000),
            ("sched_loops_failing", "Background steps that fail now.", self._failing()),
        ):
            yield GaugeMetricFamily(name, help_text, value=float(value))
        for name, help_text, count in (
            ("sched_jobs_accepted", "Jobs acknowledged here.", routing.intake.accepted),
            ("sched_jobs_finished", "Jobs ended here.", routing.completion.finished),
            ("sched_attempts_retried", "Attempts begun again here.", routing.retries.retried),
            ("sched_dead_letters_buried", "Dead letters buried here.", routing.letters.buried),
            ("sched_dead_letters_dropped", "Letters too many or old.", routing.letters.dropped),
            ("sched_envelopes_sent", "Commands sent to peers.", routing.delivery.crossed),
            ("sched_envelopes_received", "Commands from peers.", routing.delivery.received),
            ("sched_leader_terms", "Times this instance became leader.", self._terms()),
            ("sched_sockets_refused", "Sockets not let in here.", routing.gate.refused),
            ("sched_frames_refused", "Frames over their socket's rate.", routing.gate.hasty),
            ("sched_full_syncs", "Times all nodes were read.", routing.membership.full_syncs),
        ):
            yield CounterMetricFamily(name, help_text, value=float(count))
        yield self._nodes_by_status()
        yield self._dispatch_times()

    def _nodes_by_status(self) -> Metric:
        family = GaugeMetricFamily("sched_nodes", "Nodes in this view.", labels=["status"])
        counts = Counter(view.snapshot.status.value for view in self._routing.registry.views)
        for status, count in sorted(counts.items()):
            family.add_metric([status], count)
        return family

    def _dispatch_times(self) -> Metric:
        times = self._routing.dispatch_times
        bounds = (*(f"{bound_us / 1e6:g}" for bound_us in BOUNDS_US), "+Inf")
        buckets = list(zip(bounds, accumulate(times.counts), strict=True))
        family = HistogramMetricFamily("sched_dispatch_seconds", "From utterance to job_assign.")
        family.add_metric([], buckets, times.total_us / 1e6)
        return family

    def _leading(self) -> bool:
        return self._routing.pools.election.leading() is not None

    def _local_pools(self) -> int:
        pools = self._routing.pools
        return len(pools.index.pools) if pools.sync.local else 0

    def _terms(self) -> int:
        return self._routing.pools.election.changes

    def _failing(self) -> int:
        return len(self._routing.registry.loops.failing)

    def _sync_delay_s(self) -> float:
        synced_at_ms = self._routing.membership.synced_at_ms
        if synced_at_ms is None:
            return 0.0
        return (self._routing.registry.clock() - synced_at_ms) / 1000


def _labelled(name: str, help_text: str, label: str, value: str) -> Metric:
    family = GaugeMetricFamily(name, help_text, labels=[label])
    family.add_metric([value], 1)
    return family
