"""How the operator pages word times, numbers and states."""

from datetime import UTC, datetime

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()

TONES = {
    "ready": "good",
    "succeeded": "good",
    "running": "good",
    "accepted": "good",
    "done": "good",
    "already so": "quiet",
    "degraded": "warn",
    "draining": "warn",
    "queued": "warn",
    "assigned": "info",
    "registering": "info",
    "warning": "warn",
    "cancelled": "quiet",
    "not found": "warn",
    "failed": "bad",
    "expired": "bad",
    "offline": "bad",
    "critical": "bad",
    "NO_AVAILABLE_NODE": "bad",
}


@register.filter
def tone(state: str) -> str:
    """The colour of a state; its word stands beside it, so that no one needs the colour."""
    return TONES.get(str(state), "quiet")


@register.filter
def span(ms: int | float | str | None) -> str:
    """A duration in the unit that people would choose; a dash where it is not known."""
    if ms is None or isinstance(ms, str):  # a template's word for what is not there is ""
        return "\N{EN DASH}"
    if ms < 1000:
        return f"{ms:.0f} ms"
    seconds = ms / 1000
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


@register.filter
def precise(ms: float | str | None) -> str:
    """A short duration, to tell 2 ms from 2.4; a dash where nothing was measured."""
    if ms is None or isinstance(ms, str):
        return "\N{EN DASH}"
    return f"{ms:.1f} ms" if ms < 100 else span(ms)


@register.filter
def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


@register.filter
def quarters(step: int) -> str:
    """How busy a machine is, as it was compared: in quarters."""
    return f"{25 * step} % +" if step else "below 25 %"


@register.filter
def moment(ms: int | datetime | None) -> SafeString | str:
    """A time of day, with the date for those who ask."""
    if not ms:
        return "\N{EN DASH}"
    at = ms if isinstance(ms, datetime) else datetime.fromtimestamp(ms / 1000, UTC)
    today = at.date() == datetime.now(UTC).date()
    return format_html(
        '<time datetime="{}" title="{} UTC">{}</time>',
        at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        at.strftime("%Y-%m-%d %H:%M:%S"),
        at.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M"),
    )


@register.filter
def short(text: str) -> str:
    """The beginning of a digest."""
    return str(text)[:10] or "\N{EN DASH}"


@register.simple_tag
def badge(word: str, shown: str = "") -> SafeString:
    """A state, as a coloured dot and its word."""
    return format_html('<span class="badge {}">{}</span>', tone(word), shown or word)
