"""The documents say what the code says, where that can be compared."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from docs.print_tables import render
from registry.store import keys
from routing.domain import wire
from routing.domain.errors import CloseCode, ErrorCode

ROOT = Path(__file__).resolve().parent.parent.parent


def text(path: str) -> str:
    return (ROOT / path).read_text()


def section(document: str, heading: str) -> str:
    """What stands under a heading of the second level."""
    return document.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def frames_in(markdown: str) -> Iterator[dict[str, Any]]:
    """The JSON objects of a page's examples."""
    for block in re.findall(r"```json\n(.*?)```", markdown, re.DOTALL):
        rest = block.strip()
        while rest:
            frame, end = json.JSONDecoder().raw_decode(rest)
            yield frame
            rest = rest[end:].lstrip()


def test_the_state_machines_are_printed_from_their_tables() -> None:
    assert text("docs/state-machines.md") == render(), (
        "run: python -m docs.print_tables > docs/state-machines.md"
    )


def test_the_readme_lists_every_setting_and_no_other() -> None:
    read = re.findall(
        r'(?:env\.\w+|_integer|_positive|_choice|_boolean)\(\s*"([A-Z_]+)"',
        text("schedsite/settings.py"),
    )
    rows = section(text("README.md"), "Configuration")
    listed = re.findall(r"^\| `([A-Z_]+)` \|", rows, re.MULTILINE)
    assert sorted(listed) == sorted(read)


def test_the_protocol_shows_every_frame() -> None:
    source = text("routing/domain/wire.py")
    frames = set(re.findall(r'tag="(\w+)"', source)) | set(re.findall(r'"type": ?"(\w+)"', source))
    assert len(frames) > 15
    shown = set(re.findall(r"`(\w+)`", text("docs/protocol.md")))
    assert frames - shown == set()


@pytest.mark.parametrize(
    ("heading", "decoder"),
    [
        ("`/ws/node`: node to scheduler", wire.NODE_FRAMES),
        ("`/ws/session`: session to scheduler", wire.SESSION_FRAMES),
    ],
)
def test_the_protocols_examples_are_frames_that_are_taken(
    heading: str, decoder: wire.FrameDecoder
) -> None:
    examples = list(frames_in(section(text("docs/protocol.md"), heading)))
    kinds = {type(decoder.decode(json.dumps(example)).message) for example in examples}
    assert len(kinds) == len(examples) > 5


def test_the_protocol_explains_every_error_and_close_code() -> None:
    protocol = text("docs/protocol.md")
    close_codes = {str(code) for name, code in vars(CloseCode).items() if name.isupper()}
    for code in {*ErrorCode, *close_codes}:
        assert f"| `{code}` |" in protocol, code


def test_the_architecture_names_every_key() -> None:
    names = re.findall(r"^\| `(\S+)` \|", keys.__doc__ or "", re.MULTILINE)
    assert len(names) > 15
    architecture = text("docs/architecture.md")
    assert [name for name in names if f"`{name}`" not in architecture] == []


def test_the_operations_page_has_every_metric() -> None:
    metrics = set(re.findall(r'"(sched_\w+)"', text("routing/metrics.py")))
    shown = re.findall(r"^\| `(sched_\w+)` \|", text("docs/operations.md"), re.MULTILINE)
    assert {name.removesuffix("_total") for name in shown} == metrics


def test_the_architecture_names_every_script() -> None:
    architecture = text("docs/architecture.md")
    scripts = {path.stem for path in ROOT.glob("*/store/lua/*.lua")}
    assert {name for name in scripts if f"`{name}`" not in architecture} == set()


@pytest.mark.parametrize(
    "path",
    [
        "README.md",
        "CONTRIBUTING.md",
        *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md")),
    ],
)
def test_links_between_the_documents_lead_somewhere(path: str) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", text(path)):
        assert (ROOT / path).parent.joinpath(target).exists(), target
