"""How fast a task gets from its session to a node and back, beside what its parts cost alone.

Starts one Valkey server, clusters of one, two and three instances on it, daphne with an empty
application, and clients in processes of their own. Sections take turns within a round, so that
what else the machine does meets all of them; a ratio is worked out in each round, and the table
shows the median of the rounds with the least and the greatest.

  floors     Redis: PING, a stream hop, the reserve script; echoes of an empty daphne
  dispatch   D, session frame sent to node frame received, one at a time: on one instance (here),
             and with session and node on two (across)
  load       D at half of the most that a closed loop brings, counted from the time each utterance
             was due, so that waiting behind others counts
  cycles     utterance to translation_result, a second, and CPU for each, by 1, 2, 3 instances
  accepts    WebSocket handshakes a second
  decision   choosing among 10, 1,000, 10,000 nodes in 200 pools, in memory
  memory     resident memory of an idle node, session, and empty consumer (once)
  switches   cycles with metrics scraped or not, with AOF or not
  beats      10,000 nodes beating every 15 s on three instances (once; --quick: 1,000, scaled)
  profile    only when asked for: which functions of an instance take its CPU, by py-spy

Ratios that need a section which is not run are left out: D / C needs floors and dispatch. Results
of `make bench-peers`, if there are any, are read from var/bench-peers.json.
"""

import argparse
import asyncio
import contextlib
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from bench.report import finish, plain, say
from bench.speed import targets
from bench.speed.capacity import accepts, cycles, decision, switches
from bench.speed.figures import Figures
from bench.speed.footprint import beats, memory
from bench.speed.hall import Hall
from bench.speed.latency import dispatch, floors, load
from bench.speed.profile import profile
from bench.speed.sizes import Sizes, quick, usual
from bench.stage import ROOT

Section = Callable[[Hall, Sizes, Figures], Awaitable[None]]

EACH_ROUND: dict[str, Section] = {
    "floors": floors,
    "dispatch": dispatch,
    "load": load,
    "cycles": cycles,
    "accepts": accepts,
    "decision": decision,
    "switches": switches,
}
WHEN_ASKED: dict[str, Section] = {"profile": profile}
AT_THE_END: dict[str, Section] = {"memory": memory, "beats": beats}
PEERS = ROOT / "var" / "bench-peers.json"


def add_options(parser: argparse.ArgumentParser) -> None:
    names = ",".join([*EACH_ROUND, *AT_THE_END])
    parser.add_argument("--rounds", type=int, help="how many (5; 3 with --quick)")
    parser.add_argument("--beating", type=int, metavar="N",
                        help="nodes of beats (10000; 1000 with --quick)")  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true", help="about three minutes: less of everything"
    )
    parser.add_argument("--only", type=_sections, default=_sections(names), metavar="A,B",
                        help=f"some of {names}; or profile")  # fmt: skip
    parser.add_argument("--peers", type=Path, default=PEERS, metavar="FILE",
                        help="results of bench-peers (var/bench-peers.json)")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    sizes = quick(options.rounds or 3) if options.quick else usual(options.rounds or 5)
    sizes = replace(sizes, beating=options.beating or sizes.beating)
    with tempfile.TemporaryDirectory(prefix="bench-dispatch-") as folder:
        found = asyncio.run(measure(Path(folder), sizes, options.only))
    rows = targets.rows(found, options.peers)
    rows += [plain("NOT AS IT SHOULD BE", note) for note in found.notes]
    raw = {"rounds": found.rounds, "pooled": found.pooled_percentiles(), "notes": found.notes}
    title = f"dispatch: {sizes.rounds} rounds; median (least..greatest)"
    return finish(title, rows, json_path=options.json, raw=raw)


async def measure(folder: Path, sizes: Sizes, only: list[str]) -> Figures:
    """Run the sections."""
    found = Figures()
    async with contextlib.AsyncExitStack() as stack:
        hall = Hall(folder, stack)
        for number in range(1, sizes.rounds + 1):
            for name, section in EACH_ROUND.items():
                if name in only:
                    say(f"round {number} of {sizes.rounds}: {name}")
                    await section(hall, sizes, found)
        for name, section in {**AT_THE_END, **WHEN_ASKED}.items():
            if name in only:
                say(name)
                try:
                    await section(hall, sizes, found)
                except (TimeoutError, AssertionError, RuntimeError) as error:
                    # What the rounds found is not thrown away for it.
                    found.notes.append(f"{name} failed: {type(error).__name__} {error}")
    return found


def _sections(text: str) -> list[str]:
    chosen = text.split(",")
    unknown = set(chosen) - EACH_ROUND.keys() - AT_THE_END.keys() - WHEN_ASKED.keys()
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no section {', '.join(sorted(unknown))}")
    return chosen
