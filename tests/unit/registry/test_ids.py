"""Identifiers: what may become part of a key, and the way from a job id and back."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from registry.domain import ids
from registry.domain.errors import InvalidIdentifier, RegistryError
from registry.domain.ids import check_identifier, job_id, split_job_id

shaped = st.from_regex(re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}"), fullmatch=True)


@pytest.mark.parametrize(
    "value", ["a", "0", "node-1", "gpu.rack_3:7@host-2", "A" * 128, "s-9f2c01:extra"]
)
def test_a_well_shaped_identifier_comes_back_as_it_was(value: str):
    assert check_identifier(value, what="node_id") == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "a" * 129,
        "{a}",
        "a{b",
        "a}b",
        "a\n",
        "\na",
        "a\r",
        "a\x00b",
        "a b",
        " a",
        "a ",
        "a\tb",
        "-a",
        ".a",
        ":a",
        "@a",
        "_a",
        "a|b",
        "a*",
        "a/b",
        "a,b",
        "é",
        "a\u0301",
        "\u0661",
        "a\u2028",
        "\ud800",
    ],
)
def test_what_could_not_be_part_of_a_key_is_refused_by_its_name(value: str):
    with pytest.raises(InvalidIdentifier, match=r"^node_id must be 1 to 128 ") as refused:
        check_identifier(value, what="node_id")
    assert isinstance(refused.value, RegistryError)


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=200))
def test_no_accepted_identifier_has_a_brace_a_blank_or_a_control_character(value: str):
    try:
        check_identifier(value, what="x")
    except InvalidIdentifier:
        return
    assert re.search(r"[{}\s|\x00-\x1f\x7f]|[^\x00-\x7f]", value) is None
    assert 1 <= len(value) <= 128


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=100), st.integers(1, 4_194_304))
@example("", 1)
@example("---", 1)
@example("my host\n.example", 2)
def test_an_instance_id_is_an_identifier_whatever_the_host_is_called(host: str, pid: int):
    named = ids.instance_id(host=host, pid=pid, token="9f2c01")
    assert check_identifier(named, what="instance id").endswith(f"-{pid}-9f2c01")


def test_names_made_from_tokens_are_identifiers():
    assert check_identifier(ids.node_id("0f"), what="node id") == "node-0f"
    assert check_identifier(ids.session_id("0f"), what="session id") == "s-0f"


@settings(deadline=None, max_examples=200)
@given(shaped, st.integers(0, 2**53 - 1))
@example("a:b", 0)
def test_a_job_id_leads_back_to_its_session_and_utterance(session: str, index: int):
    assert split_job_id(job_id(session, index)) == (session, index)


@settings(deadline=None, max_examples=200)
@given(shaped, shaped, st.integers(0, 50), st.integers(0, 50))
def test_two_utterances_never_share_a_job_id(one: str, two: str, first: int, second: int):
    assert (job_id(one, first) == job_id(two, second)) == ((one, first) == (two, second))


@pytest.mark.parametrize(
    "job",
    [
        "",
        ":",
        "s",
        "s:",
        ":1",
        "s:x",
        "s:-1",
        "s:+1",
        "s: 1",
        "s:1 ",
        "s:1\n",
        "s:1.0",
        "s:1_0",
        "s:\u0661",
        "s:\u00b2",
        "s:" + "9" * 19,
        "{s}:1",
        "s\n:1",
        "-s:1",
        "s" * 129 + ":1",
    ],
)
def test_what_is_no_job_id_is_refused(job: str):
    with pytest.raises(InvalidIdentifier):
        split_job_id(job)


@pytest.mark.parametrize("job", ["s:007", "s:00"])
def test_a_job_id_has_one_spelling_only(job: str):
    with pytest.raises(InvalidIdentifier):
        split_job_id(job)
