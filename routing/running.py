"""The instance that this process runs, for the edges that Django calls: views and the admin."""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from registry.domain.errors import StoreUnavailable
from routing.domain.operators import ActionOutcome
from routing.instance import Routing
from routing.services.actions import Actions
from routing.services.letter_actions import LetterActions

Answer = TypeVar("Answer")

_running: Routing | None = None


def running() -> Routing | None:
    """The instance of this process, if it runs one."""
    return _running


def set_running(routing: Routing | None) -> None:
    global _running  # One instance a process, set once by its composer.
    _running = routing


LIVE_TIMEOUT_S = 5.0


def live_state() -> dict[str, Any] | None:
    """`Overview.state` as builtins, for synchronous callers in other threads than the loop's.

    None when this process runs no instance; raises StoreUnavailable.
    """
    state = _ask(lambda routing: routing.overview.state())
    return msgspec.to_builtins(state) if state is not None else None


def act(
    action: Callable[[Actions], Coroutine[Any, Any, ActionOutcome]],
) -> ActionOutcome | None:
    """Do one of the `Actions`, for the same callers, with the same answers.

    Raises StoreUnavailable also when no answer came in time: the action then goes on by itself.
    """
    return _ask(lambda routing: action(routing.actions))


def ask_letters(
    question: Callable[[LetterActions], Coroutine[Any, Any, Answer]],
) -> Answer | None:
    """Ask something of the dead letters, or do something to them, for the same callers."""
    return _ask(lambda routing: question(routing.letter_actions))


def announce_revoked(key_ids: list[int]) -> bool:
    """Tell every instance that nodes' credentials were revoked, for the same callers.

    False where nobody could be told: instances then find out by themselves, within seconds.
    """
    try:
        return bool(_ask(lambda routing: routing.revoking.announce(key_ids)))
    except StoreUnavailable:
        return False


def _ask(question: Callable[[Routing], Coroutine[Any, Any, Answer]]) -> Answer | None:
    routing = _running
    if routing is None or routing.loop is None:
        return None
    # In a context of its own: in the request's, database work would wait for the request's thread,
    # which waits here.
    asked = contextvars.Context().run(
        asyncio.run_coroutine_threadsafe, question(routing), routing.loop
    )
    try:
        return asked.result(LIVE_TIMEOUT_S)
    except TimeoutError:
        asked.cancel()
        raise StoreUnavailable("the instance did not answer in time") from None
