"""Prints name, version and licence of each package that is installed: `make licences`."""

import sys
from importlib.metadata import Distribution, distributions


def licence_of(package: Distribution) -> str:
    """As the package says it: an SPDX expression, or its classifiers, or the first line of text."""
    said = package.metadata
    if expression := said.get("License-Expression"):
        return str(expression)
    words = [
        line.rpartition(" :: ")[2]
        for line in said.get_all("Classifier") or []
        if line.startswith("License ::")
    ]
    return "; ".join(words) or str(said.get("License") or "not said").splitlines()[0]


def main() -> None:
    rows = {(p.metadata["Name"], p.version, licence_of(p)) for p in distributions()}
    for name, version, licence in sorted(rows, key=lambda row: row[0].lower()):
        sys.stdout.write(f"{name} {version}: {licence}\n")


if __name__ == "__main__":
    main()
