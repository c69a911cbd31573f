"""The words and figures of the parts of pages about the cluster, by template; `work` has the rest.

Not promised: one moment for all parts. Each is as fresh as its source.
"""

from collections import Counter
from typing import Any

from routing.domain.alerts import AlertRules
from routing.ops_wiring import Ops
from routing.services.overview import PeerState

Drawn = dict[str, dict[str, Any]]

NEWS_SHOWN = 12


async def bar(ops: Ops, _: str) -> Drawn:
    alerts = ops.pulse.alerts
    return {
        "bar": {
            "instance_id": ops.routing.instance_id,
            "critical": sum(alert.severity == "critical" for alert in alerts),
            "alerts": len(alerts),
            "degraded": ops.routing.overview.degraded,
        }
    }


async def cluster(ops: Ops, _: str) -> Drawn:
    state = await ops.routing.overview.state()
    figures = {found.instance_id: found for found in ops.pulse.latest}
    agreed = _agreed(state.instances)
    rows = [
        {
            "peer": peer,
            "figures": figures.get(peer.id),
            "leads": state.leader is not None and state.leader.instance_id == peer.id,
            "here": peer.id == state.instance.id,
            "agrees": _held(peer) == agreed,
        }
        for peer in state.instances
    ]
    return {
        "summary": {
            "state": state,
            "unready": ops.routing.unready(),
            "by_status": {k: v for k, v in sorted(ops.watch.by_status.items()) if v},
            "standby": [f.instance_id for f in ops.pulse.latest if not f.serves],
            "waiting": ops.queues.total,
            "agree": all(row["agrees"] for row in rows),
        },
        "instances": {"rows": rows, "trouble": ops.boards.trouble()},
        "alert_list": {"alerts": ops.pulse.alerts},
        "news": {"news": ops.watch.latest(NEWS_SHOWN)},
    }


async def node(ops: Ops, node_id: str) -> Drawn:
    view = ops.routing.registry.views.get(node_id)
    news = ops.watch.of(node_id)
    if view is None:
        return {"node": {"id": node_id, "node": None}, "held": {}, "news": {"news": news}}
    local = ops.routing.membership.local(node_id)
    held = await ops.routing.stores.slots.held(node_id)
    return {
        "node": {
            "id": node_id,
            "node": ops.routing.overview.node(node_id),
            "snapshot": view.snapshot,
            "load": view.load,
            "passed_over": ops.boards.passed_over(view),
            "outcomes": local.failures.outcomes if local is not None else None,
            "languages": _languages(view.snapshot.language_capabilities),
        },
        "held": {"held": sorted(held), "slots": view.snapshot.max_concurrent_jobs},
        "news": {"news": news},
    }


async def pools(ops: Ops, _: str) -> Drawn:
    found = ops.boards.pools()
    config = ops.routing.pools.sync.config
    return {
        "pools": {
            "pools": found,
            "config": config,
            "digest": ops.routing.pools.sync.digest,
            "local": ops.routing.pools.sync.local,
        }
    }


async def pool(ops: Ops, name: str) -> Drawn:
    found = ops.boards.pool(name)
    if found is None:
        return {"pool": {"name": name, "pool": None}}
    return {
        "pool": {
            "name": name,
            "pool": found,
            "why": ops.boards.why("auto" if found.src == "*" else found.src, found.tgt),
        }
    }


async def sessions(ops: Ops, _: str) -> Drawn:
    rows = ops.boards.sessions()
    by_instance = [(f.instance_id, f.sessions) for f in ops.pulse.latest if f.serves]
    return {
        "sessions": {
            "rows": rows,
            "here": len(ops.routing.sessions),
            "instance_id": ops.routing.instance_id,
            "by_instance": by_instance,
            "tenants": ops.boards.tenants(),
        }
    }


async def session(ops: Ops, session_id: str) -> Drawn:
    found = await ops.routing.overview.session(session_id)
    local = ops.routing.sessions.get(session_id)
    return {
        "session": {
            "id": session_id,
            "session": found,
            "init": local.init if local is not None else None,
            "connected": local is not None and local.link is not None,
        }
    }


async def alerts(ops: Ops, _: str) -> Drawn:
    return {
        "alert_list": {"alerts": ops.pulse.alerts, "full": True},
        "rules": {"rules": rules(ops.pulse.rules)},
    }


def rules(chosen: AlertRules) -> list[tuple[str, str]]:
    """The thresholds in words."""
    minutes = f"{chosen.window_ms / 60_000:g} minutes"
    return [
        ("no leader", f"nobody leads for {chosen.no_leader_for_ms / 1000:g} s"),
        ("no instance", f"none serves for {chosen.no_instance_for_ms / 1000:g} s"),
        ("pools differ", f"between instances, for {chosen.pools_differ_for_ms / 1000:g} s"),
        ("sync delay", f"above {chosen.sync_delay_ms / 1000:g} s"),
        ("leader changes", f"more than {chosen.leader_changes} in {minutes}"),
        (
            "queue age",
            f"jobs wait in a queue for {chosen.queue_standing_ms / 1000:g} s without a break",
        ),
        (
            "error rate",
            (
                f"more than {chosen.error_percent:g} % of attempts fail in {minutes},"
                f" of at least {chosen.error_sample}"
            ),
        ),
        ("dead letters", f"more than {chosen.dead_letters}"),
        ("node flapping", f"more than {chosen.flaps} connections in {minutes}"),
        (
            "slots leaking",
            (
                f"more than {chosen.leaked_slots} of an instance's,"
                f" for {chosen.leaked_slots_for_ms / 1000:g} s"
            ),
        ),
    ]


def _held(peer: PeerState) -> tuple[int, str]:
    return peer.pool_config_version, peer.pool_index_digest


def _agreed(peers: list[PeerState]) -> tuple[int, str] | None:
    """What more instances hold than anything else; None on a tie."""
    ranked = Counter(_held(peer) for peer in peers).most_common(2)
    if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return None
    return ranked[0][0]


def _languages(found: Any) -> list[str]:
    if found is None or found.supported_language_pairs is None:
        return []
    return sorted(f"{pair.src}-{pair.tgt}" for pair in found.supported_language_pairs)
