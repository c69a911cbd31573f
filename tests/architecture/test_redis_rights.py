"""The rights that `manage.py redis_acl` prints are those that the code needs, no more, no less."""

import re
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from registry.store import keys
from registry.store.acl import DIRECT, commands_in, key_patterns
from tests.support.cluster import ROOT

NOT_COMMANDS = {"STREAMS", "EVAL", "EVALSHA", "ASKING", "CLUSTER"}


def printed(*arguments: str) -> list[str]:
    out = StringIO()
    call_command("redis_acl", "--user=sched", *arguments, stdout=out)
    return out.getvalue().split()


def test_the_commands_are_those_of_the_scripts_and_the_stores() -> None:
    sources = "\n".join(path.read_text() for path in ROOT.glob("*/store/*.py"))
    direct = {
        name.lower()
        for name in re.findall(r'\(\s*"([A-Z]{3,})",', sources)
        if name not in NOT_COMMANDS
    }
    assert direct == DIRECT
    scripts = {
        name for path in ROOT.glob("*/store/lua/*.lua") for name in commands_in(path.read_text())
    }
    allowed = {word[1:] for word in printed() if word.startswith("+")}
    assert allowed == direct | scripts | {"eval", "evalsha"}


def test_every_key_is_within_the_patterns() -> None:
    patterns = [pattern[1:-1] for pattern in key_patterns("p")]
    made = keys.Keys("p")
    names = [value for name, value in vars(made).items() if not name.startswith("_")]
    for name, method in vars(keys.Keys).items():
        if not name.startswith("_"):
            count = method.__code__.co_argcount - 1
            names.append(method(made, *["x"] * count))
    assert len(names) > 20
    for name in names:
        if name != "p":
            assert any(name.startswith(pattern) for pattern in patterns), name


def test_a_cluster_needs_a_little_more(settings: object) -> None:
    settings.SCHED_REDIS_MODE = "cluster"  # type: ignore[attr-defined]
    assert {"+asking", "+cluster|slots"} <= set(printed())


def test_a_line_for_a_file_begins_with_user() -> None:
    assert printed("--file")[:3] == ["user", "sched", "on"]
    assert printed()[:4] == ["ACL", "SETUSER", "sched", "on"]
    assert not any(word.startswith((">", "#", "nopass")) for word in printed())


def test_a_name_that_would_be_another_rule_is_refused() -> None:
    with pytest.raises(CommandError):
        call_command("redis_acl", "--user=x on nopass ~* +@all")
