"""`python -m bench leader|push|sync|outage|viewers`."""

import argparse
import sys
from pathlib import Path

from bench import leader, outage, push, sync, viewers


def main() -> int:
    """Run one benchmark; exit 1 when it missed a target."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure one promise. Starts a server of its own, in a folder of its own.",
    )
    verbs = parser.add_subparsers(required=True, metavar="leader|push|sync|outage|viewers")
    parts = (
        ("leader", leader),
        ("push", push),
        ("sync", sync),
        ("outage", outage),
        ("viewers", viewers),
    )
    for name, part in parts:
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
