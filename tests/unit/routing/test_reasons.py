"""Why a task went where it went, in a sentence: what told the chosen node from the next one."""

from typing import Any

import pytest

from routing.domain.decision import Asked, Considered, Decision
from routing.services.reasons import because, refused, shown

CALM: dict[str, Any] = {
    "reserved": 1,
    "slots": 4,
    "degraded": False,
    "failures": 0,
    "load_step": 1,
    "near": False,
    "avoided": False,
}


def node(node_id: str, **more: Any) -> Considered:
    return Considered(node_id, **(CALM | more))


def told(*candidates: Considered, chosen: str = "a", **more: Any) -> str:
    decision = Decision(attempt=1, pool="zh-en", node=chosen, candidates=list(candidates), **more)
    return because(shown(decision))


@pytest.mark.parametrize(
    ("mine", "its", "sentence"),
    [
        ({}, {"avoided": True, "degraded": True}, "b had failed this very task."),
        ({}, {"degraded": True, "failures": 2}, "b was degraded."),
        ({}, {"failures": 2, "reserved": 3}, "It had fewer failures lately: 0, b 2."),
        ({}, {"reserved": 3}, "Less of it was reserved: 25%, of b 75%."),
        ({"near": True}, {"load_step": 0}, "It had the session's last task."),
        ({"load_step": 0}, {}, "Its machine was less busy than that of b."),
        ({}, {}, "It and b were alike: the lot decided."),
    ],
)
def test_the_first_difference_is_the_reason(
    mine: dict[str, Any], its: dict[str, Any], sentence: str
) -> None:
    assert told(node("a", **mine), node("b", **its)) == sentence


def test_a_node_that_was_asked_before_is_named_with_its_answer() -> None:
    asked = [Asked("b", "busier")]
    sentence = told(node("b"), node("a", reserved=2), asked=asked)
    assert sentence == "Of those that were asked before it, b was busier."


def test_the_only_candidate_needs_no_comparison() -> None:
    assert told(node("a")) == "No other candidate was found."
    assert told(node("a"), waited=True).startswith("It had waited in the queue")


def test_a_task_without_a_node_had_to_wait_or_was_refused() -> None:
    assert "had to wait" in told(node("a", reserved=4), chosen="")
    assert because(refused()) == "No node supports it."
