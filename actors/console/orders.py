"""Orders: each has a page that says what it will do, and to what, before anything is sent.

That page's form does it, and what came of it is said on the next one.
"""

from __future__ import annotations

from urllib.parse import quote

from airside.actors.client.display.drawing import Fact, facts
from airside.actors.console.order_kinds import ORDERS, OrderKind
from airside.actors.console.visits import Elsewhere, Shown, Visit
from airside.stack.errors import InvalidInput, Misuse, Refused

MAX_WHY_CHARS = 1_000
MAX_TARGET_CHARS = 300


async def confirm(visit: Visit) -> Shown:
    """Show what an order will do, before it is given."""
    name, kind = _kind_of(visit.query.get("order"))
    target = _target(visit.query.get("target"))
    about: tuple[Fact, ...] = ()
    if target or not kind.asks_target:
        about = await kind.about(visit, target)
    return _page(visit, name, kind, target, about)


async def perform(visit: Visit) -> Shown | Elsewhere:
    """Give an order, and say what came of it; what it lacks is said on its own page again."""
    name, kind = _kind_of(visit.form.get("order"))
    target, why = _target(visit.form.get("target").strip()), visit.form.get("why").strip()
    try:
        if kind.asks_target and not target and visit.form.get("scope") != "all":
            raise InvalidInput(f"say which: {kind.asks_target}")
        if kind.needs_why and not why:
            raise InvalidInput("say why: it stands in the journal beside your name")
        if len(why) > MAX_WHY_CHARS:
            raise InvalidInput(f"the reason has {len(why):,} characters; at most {MAX_WHY_CHARS:,} are taken")
        happened = await kind.perform(visit, target, why)
    except (Refused, Misuse) as error:
        if isinstance(error, Refused) and error.reason not in ("invalid", "conflict", "unknown"):
            raise
        about = await _about_if(visit, kind, target)
        return _page(visit, name, kind, target, about, problem=error.message, status=422)
    visit.session.say("good", happened)
    return Elsewhere(kind.back.replace("{}", quote(target)))


async def _about_if(visit: Visit, kind: OrderKind, target: str) -> tuple[Fact, ...]:
    """Return what an order is about, its name alone where nothing is known of it."""
    try:
        return await kind.about(visit, target)
    except (Refused, Misuse):
        return facts(("about", target))


def _page(
    visit: Visit,
    name: str,
    kind: OrderKind,
    target: str,
    about: tuple[Fact, ...],
    *,
    problem: str = "",
    status: int = 200,
) -> Shown:
    context = {
        "name": name,
        "kind": kind,
        "target": target,
        "about": about,
        "problem": problem,
        "given": {each.name: visit.form.get(each.name) or visit.query.get(each.name) for each in kind.inputs},
        "why": visit.form.get("why"),
        "may": visit.may(kind.access),
        "back_path": kind.back.replace("{}", target),
    }
    return Shown("order.html", context, status=status)


def _kind_of(name: str) -> tuple[str, OrderKind]:
    kind = ORDERS.get(name)
    if kind is None:
        raise Refused(f"there is no order {name!r:.60}", reason="unknown")
    return name, kind


def _target(text: str) -> str:
    if len(text) > MAX_TARGET_CHARS or not text.isprintable():
        raise InvalidInput(f"{text!a:.80} names nothing")
    return text
