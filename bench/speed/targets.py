"""The table of `bench dispatch`: each figure as a ratio inside its round, beside its target.

D is from a session's frame sent to the node's frame received. C is the p50 of an echo of the empty
consumer, and of a stream hop, and of the reserve script, added up. A row is left out when the
sections that it needs were not run.
"""

import json
from pathlib import Path

from bench.report import Row
from bench.speed.figures import Figures, at_least, at_most, row

US = " us"
ECHO, BARE, HOP, RESERVE = "echo consumer p50", "echo bare p50", "hop p50", "reserve p50"
FLOORS = (ECHO, HOP, RESERVE)


def rows(found: Figures, peers: Path | None) -> list[Row]:
    """Everything that was measured, in the order of the sections."""
    parts = (_floors, _dispatch, _load, _cycles, _accepts, _decision, _memory, _switches, _beats)
    table = [line for part in parts for line in part(found)]
    return table + (_taskiq(found, peers) if peers is not None else [])


def _floors(found: Figures) -> list[Row]:
    if not found.has("ping p50"):
        return []
    names = {
        "Redis: PING": "ping",
        "Redis: XADD to blocked XREADGROUP (hop)": "hop",
        "Redis: reserve script": "reserve",
        "socket: echo, empty consumer": "echo consumer",
        "socket: echo, bare ASGI loop": "echo bare",
    }
    return [
        row(f"{text}: {part}", found.rounds[f"{name} {part}"], unit=US)
        for text, name in names.items()
        for part in ("p50", "p99")
    ]


def _dispatch(found: Figures) -> list[Row]:
    if not found.has("D here p50"):
        return []
    table = [
        row(f"D {name}: {part}", found.rounds[f"D {name} {part}"], unit=US)
        for name in ("here", "across")
        for part in ("p50", "p99")
    ]
    pooled = found.pooled_percentiles()
    table += [
        row(f"D {name}: p99.9, of all rounds", [pooled[f"D {name}"]["p99.9"]], unit=US)
        for name in ("here", "across")
    ]
    table += [row(f"cycle {n}: p50", found.rounds[f"cycle {n} p50"], unit=US) for n in PLACES]
    return table + (_dispatch_ratios(found) if found.has(ECHO) else [])


PLACES = ("here", "across")


def _dispatch_ratios(found: Figures) -> list[Row]:
    def over_c(d: float, *parts: float) -> float:
        return d / sum(parts)

    own_here = found.by_round(lambda d, echo: d - echo, "D here p50", BARE)
    own_across = found.by_round(lambda d, echo: d - echo, "D across p50", BARE)
    return [
        row("C", found.by_round(lambda *parts: sum(parts), *FLOORS), unit=US),
        at_most("D across p50 / C", found.by_round(over_c, "D across p50", *FLOORS), 1.5),
        at_most("D across p99 / C (of p50)", found.by_round(over_c, "D across p99", *FLOORS), 3),
        at_most(
            "D here p50 / (echo + reserve)",
            found.by_round(over_c, "D here p50", ECHO, RESERVE),
            1.3,
        ),
        row("scheduler's own part here: D p50 - bare echo p50", own_here, unit=US),
        row("scheduler's own part across: D p50 - bare echo p50", own_across, unit=US),
    ]


def _load(found: Figures) -> list[Row]:
    if not found.has("most here"):
        return []
    table: list[Row] = []
    for name in PLACES:
        at_half = f"D {name} at half"
        table += [
            row(f"load {name}: most", found.rounds[f"most {name}"], unit="/s"),
            *(
                row(f"{at_half}: {part}", found.rounds[f"{at_half} {part}"], unit=US)
                for part in ("p50", "p99", "p99.9")
            ),
            row(f"load {name}: client late, p99", found.rounds[f"late {name} p99"], unit=US),
            row(f"load {name}: client's share of a core", found.rounds[f"client {name}"]),
        ]
        if found.has(f"D {name} p99"):
            ratio = found.by_round(lambda a, b: a / b, f"{at_half} p99", f"D {name} p99")
            table.append(at_most(f"{at_half} p99 / unloaded p99", ratio, 8))
    return table


def _cycles(found: Figures) -> list[Row]:
    if not found.has("cycles/s 1"):
        return []
    table = [row("echoes of an empty consumer", found.rounds["echoes/s"], unit="/s")]
    for size in (1, 2, 3):
        table += [
            row(f"full cycles, {size} inst.", found.rounds[f"cycles/s {size}"], unit="/s"),
            *(
                row(f"CPU a task, {size} inst.: {part}", found.rounds[f"CPU ms of {part} {size}"],
                    unit=" ms")
                for part in ("instances", "server", "client")
            ),
            row(f"client's share of a core, {size} inst.", found.rounds[f"client share {size}"]),
        ]  # fmt: skip
    one = found.by_round(lambda c, e: c / e, "cycles/s 1", "echoes/s")
    three = found.by_round(lambda a, b: a / b, "CPU ms of instances 3", "CPU ms of instances 1")
    return [
        *table,
        at_least("full cycles of one instance / echoes", one, 0.25),
        at_most("CPU a task, three instances / one", three, 1.15),
    ]


def _accepts(found: Figures) -> list[Row]:
    if not found.has("accepts/s session"):
        return []
    ratio = found.by_round(lambda s, c: s / c, "accepts/s session", "accepts/s consumer")
    return [
        row("handshakes, empty consumer", found.rounds["accepts/s consumer"], unit="/s"),
        row("handshakes, session", found.rounds["accepts/s session"], unit="/s"),
        row("handshakes, session / empty consumer", ratio),
    ]


def _decision(found: Figures) -> list[Row]:
    if not found.has("decision 10 p50"):
        return []
    table = [
        row(f"decision among {nodes:,}: {part}", found.rounds[f"decision {nodes} {part}"], unit=US)
        for nodes in (10, 1_000, 10_000)
        for part in ("p50", "p99")
    ]
    hop = found.by_round(lambda d, h: d / h, "decision 10000 p99", "hop beside decisions")
    growth = found.by_round(lambda a, b: a / b, "decision 10000 p50", "decision 10 p50")
    later = found.by_round(lambda a, b: a / b, "decision 10000 p50", "decision 1000 p50")
    return [
        *table,
        at_most("decision among 10,000 p99 / hop p50", hop, 0.1),
        at_most("decision p50, 10,000 nodes / 10", growth, 1.2),
        row("decision p50, 10,000 nodes / 1,000", later),
    ]


def _memory(found: Figures) -> list[Row]:
    if not found.has("KiB consumer"):
        return []
    kinds = ("consumer", "session", "node")
    session = found.by_round(lambda s, c: s / c, "KiB session", "KiB consumer")
    node = found.by_round(lambda n, c: n / c, "KiB node", "KiB consumer")
    return [
        *(row(f"memory of an idle {k}", found.rounds[f"KiB {k}"], unit=" KiB") for k in kinds),
        at_most("memory, idle session / empty consumer", session, 1.5),
        row("memory, idle node / empty consumer", node),
    ]


def _switches(found: Figures) -> list[Row]:
    if not found.has("scraped"):
        return []
    scraped = found.by_round(lambda a, b: a / b, "scraped", "unscraped")
    kept = found.by_round(lambda a, b: a / b, "AOF", "no AOF")
    return [
        at_least("cycles, metrics scraped every second / never", scraped, 0.95),
        at_least("cycles, AOF everysec / none", kept, 0.95),
    ]


def _beats(found: Figures) -> list[Row]:
    if not found.has("beats"):
        return []
    return [
        row("heartbeats: % of a core, each of 3, as measured", found.rounds["beats measured"],
),
        at_most("heartbeats of 10,000 nodes: % of a core, each of 3", found.rounds["beats"], 15),
        row("nodes that register, three instances", found.rounds["nodes joined/s"], unit="/s"),
        row("heartbeats: client's share of a core", found.rounds["client beats"]),
    ]  # fmt: skip


def _taskiq(found: Figures, peers: Path) -> list[Row]:
    """Own part over taskiq's pickup, each counted in the hops of its own run."""
    if not found.has("D across p50", BARE, HOP) or not peers.is_file():
        return []
    other = json.loads(peers.read_text())["raw"]
    if "taskiq" not in other.get("peers", {}):
        return []
    pickup = other["peers"]["taskiq"]["pickup_us"]["p50"] / other["hop_us"]["p50"]
    own = found.by_round(lambda d, e, h: (d - e) / h, "D across p50", BARE, HOP)
    return [
        row("taskiq's pickup p50, in hops of its own run", [pickup]),
        row("scheduler's own part across, in hops", own),
        at_most("scheduler's own part / taskiq's pickup", [part / pickup for part in own], 0.7),
    ]
