"""The sections `floors`, `dispatch` and `load`: how long one thing takes."""

from bench.speed.figures import Figures
from bench.speed.hall import Hall
from bench.speed.payload import ACROSS, HERE
from bench.speed.sizes import Sizes
from bench.workers import Worker


async def floors(hall: Hall, sizes: Sizes, found: Figures) -> None:
    """What the parts of a dispatch cost with nothing around them."""
    redis = await hall.worker("redis", "redis_floor", hall.server.url)
    for name in ("ping", "hop", "reserve"):
        found.add_all(name, await redis.ask(name, count=sizes.singles))
    sockets, empty = await hall.sockets(), hall.empty()
    for name in ("consumer", "bare"):
        url = empty.url(f"/{name}")
        found.add_all(f"echo {name}", await sockets.ask("echo", url=url, count=sizes.singles))


async def dispatch(hall: Hall, sizes: Sizes, found: Figures) -> None:
    """D, one utterance at a time."""
    for name, fleet in (("here", await here(hall)), ("across", await across(hall))):
        figures = await fleet.ask("one_by_one", count=sizes.singles)
        found.add_all(f"D {name}", figures["dispatch_us"])
        found.add_all(f"cycle {name}", figures["cycle_us"])
        found.note_refused(f"dispatch {name}", figures["refused"])


async def load(hall: Hall, sizes: Sizes, found: Figures) -> None:
    """D at half of the rate that a closed loop came to just before."""
    for name, fleet in (("here", await here(hall)), ("across", await across(hall))):
        most = (await fleet.ask("closed_loop", seconds=sizes.span_s, pids={}))["rate"]
        figures = await fleet.ask("open_loop", rate=most / 2, seconds=sizes.span_s)
        found.add(f"most {name}", most)
        found.add_all(f"D {name} at half", figures["dispatch_us"])
        found.add_all(f"late {name}", figures["late_us"])
        found.add(f"client {name}", figures["cpu"]["client"] / figures["seconds"])
        found.note_refused(f"load {name}", figures["refused"])


async def here(hall: Hall) -> Worker:
    """Sessions and nodes of one instance."""
    instances = await hall.cluster("one", 1)
    return await hall.fleet("one", HERE, nodes=instances, sessions=instances)


async def across(hall: Hall) -> Worker:
    """Sessions of one instance, nodes of another."""
    first, second = await hall.cluster("two", 2)
    return await hall.fleet("across", ACROSS, nodes=[second], sessions=[first])
