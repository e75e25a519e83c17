"""Templates made into pages.  Whatever one shows is escaped, cut to a bound that says so, and hides nothing.

That holds for every expression of a template by itself: `_shown` sees each before it is written, so that no page can
forget it.  What is markup already (a macro, a drawing) is left as it is; a form's own value passes `exact`.
"""

from __future__ import annotations

import html
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from msgspec import Raw

from airside.actors.client.display.drawing import Cell, Drawing, brief, content, one_line
from airside.actors.client.display.html import Markup, part_to_html
from airside.actors.client.display.runs import tone_of
from airside.stack.operations.quantities import clock, counted, money, span

MAX_SHOWN = 300
"""Characters of one value; more of it is counted, and stands on a page of its own where that is wanted."""

PREFIX = "/console"

_MAX_PART = 1_000
"""Characters of a part of an address: no name that there is has more."""


def _shown(value: Any) -> Any:
    """Return what is written for an expression of a template, before it is escaped."""
    return value if hasattr(value, "__html__") else brief(value, MAX_SHOWN)


def exact(text: str) -> Markup:
    """Return the value of a form's field, as it is, for an attribute or a text area; it must hide nothing."""
    return Markup(html.escape(text))


def href(path: str, **query: str | int) -> Markup:
    """Return the address of a page of ours; what says nothing in the query is left out."""
    given = {name: str(value)[:_MAX_PART] for name, value in query.items() if value not in ("", 0)}
    return Markup(
        html.escape(
            f"{PREFIX}{quote(path[:_MAX_PART], errors='replace')}"
            + (f"?{urlencode(given, errors='replace')}" if given else "")
        )
    )


def drawn(drawing: Drawing) -> Markup:
    """Return the parts of a drawing as markup."""
    return Markup("".join(part_to_html(part) for part in drawing.parts))


def text_lines(text: str) -> tuple[Cell, ...]:
    """Return a text of many lines as those of it that people must see."""
    return content("", text).lines


def whole(value: Any, most: int = 2_000) -> Markup:
    """Return a value as one line that is longer than others may be."""
    return Markup(html.escape(brief(value, most)))


def ago(at_us: int, now_us: int | None = None) -> str:
    """Return for how long something is so."""
    return span(max(0, (time.time_ns() // 1000 if now_us is None else now_us) - at_us))


def left(until_us: int, now_us: int | None = None) -> str:
    """Return how long there is until a time."""
    rest_us = until_us - (time.time_ns() // 1000 if now_us is None else now_us)
    return span(rest_us) if rest_us > 0 else "no time"


def event_text(event: Raw) -> str:
    """Return an entry of the journal as the text it is there."""
    return bytes(event).decode(errors="replace")


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("airside.actors.console"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (exact, event_text, text_lines, whole, ago, left, clock, counted, span, money, one_line)
    environment.filters |= {each.__name__: each for each in filters} | {"tone": tone_of}
    environment.globals |= {"href": href, "drawn": drawn}
    environment.globals["m"] = environment.get_template("macros.html").module
    return environment


_templates = _environment()


def render(template: str, context: Mapping[str, Any]) -> str:
    """Return a page."""
    return _templates.get_template(template).render(context)
