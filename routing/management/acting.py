"""What the commands that act on the cluster have in common."""

import asyncio
import getpass
import os
import socket
from collections.abc import Awaitable, Callable

from django.core.management.base import CommandError

from registry.domain.errors import StoreUnavailable
from routing.domain.operators import ActionOutcome, NotFound, Operator, Source
from routing.services.actions import Actions
from routing.wiring import build_actions

Action = Callable[[Actions, Operator], Awaitable[ActionOutcome]]


def act(action: Action) -> str:
    """Do one action on the cluster that the environment names; returns a sentence.

    Raises CommandError with a sentence when it could not be done.
    """
    try:
        outcome = asyncio.run(_act(action))
    except StoreUnavailable as error:
        raise CommandError(str(error)) from None
    if isinstance(outcome, NotFound):
        raise CommandError(outcome.sentence)
    return outcome.sentence


async def _act(action: Action) -> ActionOutcome:
    async with build_actions() as actions:
        return await action(actions, whoever_calls())


def whoever_calls() -> Operator:
    """The user of this machine who runs the command, as the audit log is to name them."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    return Operator(user, Source.COMMAND, socket.gethostname())
