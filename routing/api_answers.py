"""What the routes of the API have in common: who asks, of which instance, and the answers."""

from django.http import HttpRequest
from ninja import Schema
from ninja.errors import HttpError

from routing.domain.operators import OUTCOME_WORDS, ActionOutcome, NotFound, NotNow, Operator
from routing.instance import Routing
from routing.running import running


class Problem(Schema):
    """What went wrong, in one sentence."""

    detail: str


class ActionAnswer(Schema):
    """What came of an action. `outcome` is "done" or "already so"; `detail` says it in words."""

    outcome: str
    subject: str
    detail: str


ACTION = {200: ActionAnswer, 401: Problem, 403: Problem, 404: Problem, 409: Problem, 503: Problem}


def asked_by(request: HttpRequest) -> Operator:
    operator: Operator = request.auth  # type: ignore[attr-defined]  # ninja sets it
    return operator


def answered(outcome: ActionOutcome) -> ActionAnswer:
    if isinstance(outcome, NotFound):
        raise HttpError(404, outcome.sentence)
    if isinstance(outcome, NotNow):
        raise HttpError(409, outcome.sentence)
    return ActionAnswer(
        outcome=OUTCOME_WORDS[type(outcome)], subject=outcome.subject, detail=outcome.sentence
    )


def instance() -> Routing:
    """The instance of this process; without one, the answer is a 503."""
    routing = running()
    if routing is None:
        raise HttpError(503, "this process runs no scheduler instance")
    return routing
