"""The page that places jobs which there are not, and says why."""

import re
from collections import defaultdict
from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from routing.ops.access import staff_page
from routing.ops.views import show
from routing.ops_wiring import Ops
from routing.services.rehearsal import PassedOver

NAMED = 12
MOST = 20
_LANGUAGE = re.compile(r"[A-Za-z0-9_-]{1,35}")


@dataclass(frozen=True, slots=True)
class PassedOverFor:
    """Nodes that one reason keeps from being candidates; of many only the first are named."""

    reason: str
    count: int
    names: list[str]


@require_safe
@staff_page
async def simulate(request: HttpRequest, ops: Ops) -> HttpResponse:
    src, tgt = request.GET.get("src", "").strip(), request.GET.get("tgt", "").strip()
    count = _count(request.GET.get("n", ""))
    asked, error, found = bool(src or tgt), "", None
    if asked and not (_LANGUAGE.fullmatch(src) and _LANGUAGE.fullmatch(tgt)):
        error = "Give both languages as codes, such as zh and en; the source may be auto."
    elif asked:
        found = ops.routing.rehearsal.simulate(src, tgt, count=count)
    return await show(
        request,
        ops,
        "simulate",
        title="Simulate",
        src=src,
        tgt=tgt,
        n=count,
        error=error,
        found=found,
        passed_over=_grouped(found.passed_over) if found is not None else [],
        pairs=sorted({(p.src, p.tgt) for p in ops.routing.pools.index.pools}),
    )


def _count(text: str) -> int:
    return min(max(int(text), 1), MOST) if text.isascii() and text.isdigit() else 1


def _grouped(passed_over: list[PassedOver]) -> list[PassedOverFor]:
    """By reason, the commonest first: thousands of nodes have a handful of reasons."""
    names = defaultdict(list)
    for each in passed_over:
        names[each.reason].append(each.id)
    ranked = sorted(names.items(), key=lambda item: (-len(item[1]), item[0]))
    return [PassedOverFor(reason, len(ids), ids[:NAMED]) for reason, ids in ranked]
