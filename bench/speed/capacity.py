"""The sections `cycles`, `accepts`, `decision` and `switches`: how much of it, at what cost."""

import asyncio

from redis.asyncio import Redis

from bench.report import percentile
from bench.speed.figures import Figures
from bench.speed.hall import SESSIONS_AN_INSTANCE, Hall
from bench.speed.latency import here
from bench.speed.payload import HERE
from bench.speed.sizes import Sizes
from bench.stage import MeasuredInstance
from bench.workers import Worker

CLUSTERS = {1: "one", 2: "two", 3: "three"}
DECIDED_AMONG = (10, 1_000, 10_000)
HANDSHAKES_TOGETHER = 16
SCRAPE_EVERY_S = 1.0


async def cycles(hall: Hall, sizes: Sizes, found: Figures) -> None:
    """Full cycles in a closed loop, beside echoes over as many sockets of an empty consumer."""
    sockets, url = await hall.sockets(), hall.empty().url("/consumer")
    rate = await sockets.ask(
        "echo_rate", url=url, sockets=SESSIONS_AN_INSTANCE, seconds=sizes.span_s
    )
    found.add("echoes/s", rate)
    for size, name in CLUSTERS.items():
        instances = await hall.cluster(name, size)
        fleet = await hall.fleet(name, HERE, nodes=instances, sessions=instances)
        pids = {"instances": [i.pid for i in instances], "server": [hall.server_pid]}
        figures = await fleet.ask("closed_loop", seconds=sizes.span_s, pids=pids)
        found.add(f"cycles/s {size}", figures["rate"])
        for part, cpu_s in figures["cpu"].items():
            found.add(f"CPU ms of {part} {size}", cpu_s * 1000 / figures["ended"])
        found.add(f"client share {size}", figures["cpu"]["client"] / figures["seconds"])
        found.note_refused(f"cycles {size}", figures["refused"])


async def accepts(hall: Hall, sizes: Sizes, found: Figures) -> None:
    """Handshakes of an empty consumer, and of a session."""
    sockets, (instance,) = await hall.sockets(), await hall.cluster("one", 1)
    urls = {"consumer": hall.empty().url("/consumer"), "session": instance.session_url}
    for name, url in urls.items():
        rate = await sockets.ask(
            "accept_rate", url=url, count=sizes.handshakes, together=HANDSHAKES_TOGETHER
        )
        found.add(f"accepts/s {name}", rate)


async def decision(hall: Hall, sizes: Sizes, found: Figures) -> None:
    """Choosing a node, in memory, beside a hop of the same round."""
    redis = await hall.worker("redis", "redis_floor", hall.server.url)
    hops = await redis.ask("hop", count=sizes.singles)
    found.add("hop beside decisions", percentile(hops, 50))
    decider = await hall.worker("decision", "decision")
    for nodes in DECIDED_AMONG:
        spent = await decider.ask("decide", nodes=nodes, count=sizes.decisions)
        found.add_all(f"decision {nodes}", spent)


async def switches(hall: Hall, sizes: Sizes, found: Figures) -> None:
    """Cycles with metrics scraped every second and never, with AOF and without."""
    (instance,), fleet = await hall.cluster("one", 1), await here(hall)
    order = (False, True) if len(found.rounds["unscraped"]) % 2 == 0 else (True, False)
    for scraped in order:
        rate = await _scraped(instance, fleet, sizes) if scraped else await _rate(fleet, sizes)
        found.add("scraped" if scraped else "unscraped", rate)
    redis = Redis.from_url(hall.server.url, protocol=2)
    for kept in order:
        await _append_only(redis, on=kept)
        found.add("AOF" if kept else "no AOF", await _rate(fleet, sizes))
    await _append_only(redis, on=True)
    await redis.aclose()


async def _rate(fleet: Worker, sizes: Sizes) -> float:
    figures = await fleet.ask("closed_loop", seconds=sizes.span_s, pids={})
    return float(figures["rate"])


async def _scraped(instance: MeasuredInstance, fleet: Worker, sizes: Sizes) -> float:
    async def scrape() -> None:
        while True:
            status, _ = await asyncio.to_thread(instance.get, "/metrics")
            if status != 200:
                raise RuntimeError(f"/metrics answered {status}")
            await asyncio.sleep(SCRAPE_EVERY_S)

    scraping = asyncio.create_task(scrape())
    try:
        return await _rate(fleet, sizes)
    finally:
        if scraping.done():
            scraping.result()
        scraping.cancel()


async def _append_only(redis: Redis, *, on: bool) -> None:
    """Switch AOF, and wait until the server has rewritten what it rewrites then."""
    await redis.config_set("appendonly", "yes" if on else "no")
    while True:
        state = await redis.info("persistence")
        if not state["aof_rewrite_in_progress"] and not state["aof_rewrite_scheduled"]:
            return
        await asyncio.sleep(0.05)
