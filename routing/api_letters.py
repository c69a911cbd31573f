"""`/api/v1/deadletters`: the dead letters of all instances, and what operators do with them."""

from typing import Annotated, Any

from django.http import HttpRequest
from ninja import Query, Router, Schema
from ninja.errors import HttpError
from pydantic import Field

from routing.api_answers import ACTION, ActionAnswer, Problem, answered, asked_by, instance
from routing.api_auth import OPERATORS
from routing.domain.letters import LONGEST_ID, DeadLetter, LetterFilter
from routing.services.deadletters import LetterPage
from routing.services.letter_actions import Chosen, Tally

router = Router()

Word = Annotated[str, Field(max_length=512)]
Cursor = Annotated[str, Field(max_length=LONGEST_ID)]
MANY = {200: Tally, 401: Problem, 403: Problem, 422: Any, 503: Problem}


class Letters(Schema):
    """Which letters are meant: those of `ids`, or all that fit the rest, newest first.

    `all` must be true where neither ids nor anything to fit is given.
    """

    ids: Annotated[list[Annotated[str, Field(max_length=LONGEST_ID)]], Field(max_length=1_000)] = []
    tenant: Word = ""
    code: Word = ""
    src: Word = ""
    tgt: Word = ""
    cursor: Cursor = ""
    all: bool = False

    def chosen(self) -> Chosen:
        fitting = LetterFilter(self.tenant, self.code, self.src, self.tgt)
        if not (self.ids or self.all or fitting != LetterFilter()):
            raise HttpError(422, "name the letters by ids, by what they have, or say all: true")
        return Chosen(self.ids, fitting, self.cursor)


@router.get("", response={200: LetterPage, 422: Any, 503: Problem})
async def dead_letters(
    request: HttpRequest,
    tenant: Annotated[str, Query(max_length=512)] = "",
    code: Annotated[str, Query(max_length=512)] = "",
    src: Annotated[str, Query(max_length=512)] = "",
    tgt: Annotated[str, Query(max_length=512)] = "",
    cursor: Annotated[str, Query(max_length=LONGEST_ID)] = "",
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> LetterPage:
    """Dead letters of all instances, newest first, page by page; never what they carry."""
    wanted = LetterFilter(tenant, code, src, tgt)
    try:
        return await instance().letters.page(wanted, cursor=cursor, limit=limit)
    except ValueError as error:
        raise HttpError(422, str(error)) from None


# Before the letter of any id, whose path they would be too.
@router.post("/replay", auth=OPERATORS, response=MANY)
async def replay_dead_letters(request: HttpRequest, letters: Letters) -> Tally:
    """Replay many letters, up to a hundred a call; `next` is where to go on."""
    chosen = letters.chosen()
    try:
        return await instance().letter_actions.replay_many(chosen, by=asked_by(request))
    except ValueError as error:
        raise HttpError(422, str(error)) from None


@router.post("/drop", auth=OPERATORS, response=MANY)
async def drop_dead_letters(request: HttpRequest, letters: Letters) -> Tally:
    """Remove many letters for good, up to a hundred a call; `next` is where to go on."""
    chosen = letters.chosen()
    try:
        return await instance().letter_actions.drop_many(chosen, by=asked_by(request))
    except ValueError as error:
        raise HttpError(422, str(error)) from None


@router.get("/{letter_id}", response={200: DeadLetter, 404: Problem, 503: Problem})
async def dead_letter(request: HttpRequest, letter_id: str) -> DeadLetter:
    """One dead letter; never what it carries."""
    found = await instance().letters.get(letter_id)
    if found is None:
        raise HttpError(404, "there is no dead letter of this id")
    return found


@router.post("/{letter_id}/replay", auth=OPERATORS, response=ACTION)
async def replay_dead_letter(request: HttpRequest, letter_id: str) -> ActionAnswer:
    """Run a letter's payload again, as a new job under a session of its own."""
    actions = instance().letter_actions
    return answered(await actions.replay(letter_id, by=asked_by(request)))


@router.post("/{letter_id}/drop", auth=OPERATORS, response=ACTION)
async def drop_dead_letter(request: HttpRequest, letter_id: str) -> ActionAnswer:
    """Remove a letter for good."""
    return answered(await instance().letter_actions.drop(letter_id, by=asked_by(request)))
