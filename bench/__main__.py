"""`python -m bench VERB`; without one it prints them."""

import argparse
import sys
from pathlib import Path
from types import ModuleType

from bench import dispatch, evenness, leader, outage, push, queueing, recovery, sync, viewers
from bench.peers import compare

VERBS: dict[str, ModuleType] = {
    "dispatch": dispatch,
    "peers": compare,
    "leader": leader,
    "push": push,
    "sync": sync,
    "outage": outage,
    "evenness": evenness,
    "queueing": queueing,
    "recovery": recovery,
    "viewers": viewers,
}


def main() -> int:
    """Run one benchmark; exit 1 when it missed a target."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure one promise. Starts a server of its own, in a folder of its own.",
    )
    verbs = parser.add_subparsers(required=True, metavar="|".join(VERBS))
    for name, part in VERBS.items():
        text = (part.__doc__ or "").strip()
        verb = verbs.add_parser(
            name,
            help=text.partition("\n")[0],
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
        part.add_options(verb)
        verb.set_defaults(run=part.run)
    options = parser.parse_args()
    status: int = options.run(options)
    return status


if __name__ == "__main__":
    sys.exit(main())
