"""The admin's page of dead letters: those of all instances, as one of them reads them now.

The letters are not in the database, so this is no model's page; its rights are those of
`DeadLetterRights`. Replaying and dropping is audited like by the API.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.sites import AdminSite
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from registry.domain.errors import StoreUnavailable
from routing import running
from routing.domain.letters import DeadLetter, LetterFilter
from routing.domain.operators import Operator, Source
from routing.services.deadletters import LetterPage
from routing.services.letter_actions import Chosen, LetterActions, Tally

FILTERS = ("tenant", "code", "src", "tgt")
WORDS = {"replay": "Replay the selected letters", "drop": "Drop the selected letters for good"}
NO_SCHEDULER = (
    "This process runs no scheduler instance, so it cannot read dead letters. Open this page at"
    " one that does, or use manage.py deadletters."
)


def letter_urls(site: AdminSite) -> list[URLPattern]:
    """The page, for `path("admin/deadletters/", include(letter_urls(admin.site)))`."""
    return [path("", site.admin_view(letters_view), name="deadletters")]


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def letters_view(request: HttpRequest) -> HttpResponse:
    """A page of letters; a POST does something to those selected, and comes back here."""
    if not _may(request, "view"):
        raise PermissionDenied
    if request.method == "POST":
        _act(request)
        return HttpResponseRedirect(request.get_full_path())
    return TemplateResponse(request, "admin/deadletters.html", _context(request))


def _context(request: HttpRequest) -> dict[str, Any]:
    chosen = {name: request.GET.get(name, "") for name in FILTERS}
    page, message = _page(chosen, request.GET.get("cursor", ""))
    following = page.next if page is not None else None
    return {
        **admin.site.each_context(request),
        "title": "Dead letters",
        "message": message,
        "filters": chosen,
        "filtered": any(chosen.values()),
        "rows": [_row(letter) for letter in page.items] if page is not None else [],
        "words": {word: text for word, text in WORDS.items() if _may(request, word)},
        "next": f"?{urlencode(chosen | {'cursor': following})}" if following else "",
        "first": request.GET.get("cursor", "") == "",
    }


def _page(chosen: Mapping[str, str], cursor: str) -> tuple[LetterPage | None, str]:
    """The page that was asked for, or why there is none."""
    wanted = LetterFilter(**chosen)
    try:
        page = running.ask_letters(lambda on: on.letters.page(wanted, cursor=cursor))
    except StoreUnavailable as error:
        return None, f"The shared store cannot be read now: {error}."
    except ValueError as error:
        return None, f"There is no such page: {error}."
    return page, NO_SCHEDULER if page is None else ""


def _row(letter: DeadLetter) -> dict[str, Any]:
    at = datetime.fromtimestamp(letter.buried_at_ms / 1000, UTC)
    return {
        "letter": letter,
        "at": f"{at:%Y-%m-%d %H:%M:%S} UTC",
        "pair": f"{letter.src} \N{RIGHTWARDS ARROW} {letter.tgt}" if letter.src else "",
    }


def _act(request: HttpRequest) -> None:
    word, ids = request.POST.get("action", ""), request.POST.getlist("ids")
    if word not in WORDS or not ids:
        # Without ids all letters would be meant.
        messages.warning(request, "Nothing was done: select letters and an action.")
        return
    if not _may(request, word):
        raise PermissionDenied
    by = Operator(request.user.get_username(), Source.ADMIN, request.META.get("REMOTE_ADDR", ""))

    async def act(on: LetterActions) -> Tally:
        many = on.replay_many if word == "replay" else on.drop_many
        return await many(Chosen(ids=ids), by=by)

    try:
        tally = running.ask_letters(act)
    except StoreUnavailable as error:
        messages.error(request, f"Not all was done, or is not known to be: {error}.")
        return
    if tally is None:
        messages.error(request, NO_SCHEDULER)
    else:
        _tell(request, word, tally)


def _tell(request: HttpRequest, word: str, tally: Tally) -> None:
    done = "Replayed" if word == "replay" else "Dropped"
    if tally.done:
        messages.success(request, f"{done}: {tally.done}.")
    if tally.already_so or tally.not_found:
        gone = tally.already_so + tally.not_found
        messages.warning(request, f"Replayed or dropped before: {gone}.")
    if tally.left:
        messages.warning(
            request, f"Still there: {tally.left}. No node may take them now; see the audit log."
        )


def _may(request: HttpRequest, word: str) -> bool:
    return request.user.has_perm(f"routing.{word}_deadletters")
