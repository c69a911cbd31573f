"""The pages of dead letters: see them, and replay or drop one, some, or all that fit.

Seeing, replaying and dropping are rights of their own. What is asked for is shown once more before
it is done; done twice, it finds that things are so.
"""

from dataclasses import dataclass

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from registry.domain.errors import StoreUnavailable
from routing.domain.letters import LONGEST_ID, LetterFilter, replay_job_id
from routing.domain.operators import Done
from routing.ops.access import asked_by, staff_page, tell, told
from routing.ops.pages import VIEW_LETTERS
from routing.ops.views import show
from routing.ops.work import FILTERS, letter_topic
from routing.ops_wiring import Ops
from routing.services.letter_actions import MOST_AT_ONCE, Chosen, Tally

NAMED = 12
LONGEST_WORD = 60
"""Of a filter: with all of them a page's topic stays short enough to be watched."""


@dataclass(frozen=True, slots=True)
class LetterAct:
    """One thing to do to letters, in words."""

    button: str
    done: str
    right: str
    says: str
    danger: bool = False


LETTER_ACTS = {
    "replay": LetterAct(
        "Replay",
        "Replayed",
        "routing.replay_deadletters",
        "Each runs again as a task of its own, from what it carried; its letter goes as soon as"
        " that is accepted. The session that asked first has had its answer and gets no other.",
    ),
    "drop": LetterAct(
        "Drop",
        "Dropped",
        "routing.drop_deadletters",
        "Removed for good, with what they carried. This cannot be undone.",
        danger=True,
    ),
}


@require_safe
@staff_page
async def letters(request: HttpRequest, ops: Ops) -> HttpResponse:
    if not await _may(request, VIEW_LETTERS):
        return _refused(request, VIEW_LETTERS)
    chosen, cursor = _filters(request.GET), request.GET.get("cursor", "")[:LONGEST_ID]
    return await show(
        request,
        ops,
        "letters",
        letter_topic(chosen | {"cursor": cursor}),
        title="Dead letters",
        filters=chosen,
        filtered=any(chosen.values()),
        cursor=cursor,
        longest=LONGEST_WORD,
        acts=await _acts(request),
    )


@require_safe
@staff_page
async def letter(request: HttpRequest, ops: Ops, letter_id: str) -> HttpResponse:
    if not await _may(request, VIEW_LETTERS):
        return _refused(request, VIEW_LETTERS)
    topic, acts = f"letter:{letter_id}", await _acts(request)
    return await show(
        request, ops, "letter", topic, title="Dead letter", letter_id=letter_id, acts=acts
    )


@require_http_methods(["GET", "HEAD", "POST"])
@staff_page
async def act_on_letters(request: HttpRequest, ops: Ops, action: str) -> HttpResponse:
    """Show what is about to be done to which letters; the form of that page does it."""
    act = LETTER_ACTS.get(action)
    if act is None:
        return told(request, "There is no such action.", status=404)
    for right in (VIEW_LETTERS, act.right):
        if not await _may(request, right):
            return _refused(request, right)
    asked = request.POST if request.method == "POST" else request.GET
    chosen = _chosen(asked)
    if chosen is None:
        messages.warning(request, "Nothing was done: select letters first.")
        return redirect("ops:letters")
    if request.method == "POST" and "confirmed" in request.POST:
        return await _do(request, ops, action, chosen)
    return await _confirm(request, ops, act, chosen, asked)


async def _confirm(
    request: HttpRequest, ops: Ops, act: LetterAct, chosen: Chosen, asked: QueryDict
) -> HttpResponse:
    on, error, named, count = ops.routing.letters, "", [], len(chosen.ids)
    try:
        if chosen.ids:
            found = [await on.get(letter_id) for letter_id in chosen.ids[:NAMED]]
            named = [each for each in found if each is not None]
        else:
            page = await on.page(chosen.fitting, cursor=chosen.cursor, limit=NAMED)
            named, count = page.items, await on.count(chosen.fitting, cursor=chosen.cursor)
    except (StoreUnavailable, ValueError) as failure:
        error = str(failure)
    return await show(
        request,
        ops,
        "letter_act",
        title=f"{act.button} {count} dead letter{'' if count == 1 else 's'}",
        act=act,
        named=named,
        count=count,
        error=error,
        most=MOST_AT_ONCE,
        hidden=[(name, value) for name in _FIELDS for value in asked.getlist(name)],
    )


_FIELDS = ("id", "all", "cursor", *FILTERS)


async def _do(request: HttpRequest, ops: Ops, action: str, chosen: Chosen) -> HttpResponse:
    actions, by = ops.routing.letter_actions, asked_by(request)
    try:
        if len(chosen.ids) == 1:
            one = actions.replay if action == "replay" else actions.drop
            outcome = await one(chosen.ids[0], by=by)
            tell(request, outcome)
            if action == "replay" and isinstance(outcome, Done):
                return redirect("ops:task", job_id=replay_job_id(chosen.ids[0]))
            return redirect("ops:letter", letter_id=chosen.ids[0])
        many = actions.replay_many if action == "replay" else actions.drop_many
        tally = await many(chosen, by=by)
    except (StoreUnavailable, ValueError) as error:
        messages.error(request, f"Not all was done, or not known whether: {error}.")
        return redirect("ops:letters")
    _tell_many(request, LETTER_ACTS[action], tally)
    where = QueryDict(mutable=True)
    for name, value in _filters(request.POST).items():
        if value:
            where[name] = value
    if tally.next:
        where["cursor"] = tally.next
    query = where.urlencode()
    return redirect(reverse("ops:letters") + (f"?{query}" if query else ""))


def _tell_many(request: HttpRequest, act: LetterAct, tally: Tally) -> None:
    if tally.done:
        messages.success(request, f"{act.done}: {tally.done}.")
    if gone := tally.already_so + tally.not_found:
        messages.info(request, f"Replayed or dropped before: {gone}.")
    if tally.not_now:
        messages.warning(
            request, f"Not possible now: {tally.not_now}. The audit log says why of each."
        )
    if tally.next:
        messages.warning(
            request, f"{tally.left - tally.not_now} more are left; they are listed here."
        )


def _chosen(asked: QueryDict) -> Chosen | None:
    """The letters that are meant; None where nothing was selected."""
    ids = [letter_id[:LONGEST_ID] for letter_id in asked.getlist("id")[:MOST_AT_ONCE]]
    if ids:
        return Chosen(ids=ids)
    if asked.get("all") != "1":
        return None
    cursor = asked.get("cursor", "")[:LONGEST_ID]
    return Chosen(fitting=LetterFilter(**_filters(asked)), cursor=cursor)


def _filters(asked: QueryDict) -> dict[str, str]:
    return {name: asked.get(name, "").strip()[:LONGEST_WORD] for name in FILTERS}


async def _acts(request: HttpRequest) -> dict[str, LetterAct]:
    return {word: act for word, act in LETTER_ACTS.items() if await _may(request, act.right)}


async def _may(request: HttpRequest, right: str) -> bool:
    return bool(await request.user.ahas_perm(right))


def _refused(request: HttpRequest, right: str) -> HttpResponse:
    sentence = f"Ask an admin for the permission '{right}'."
    return told(request, sentence, status=403)
