"""Approvals that wait, drawn: what a person must see before they vote, and how they vote."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from airside.actors.client.display.drawing import (
    MAX_FACT,
    Cell,
    Drawing,
    Part,
    Table,
    brief,
    code_cell,
    content,
    facts,
    table,
    text_cell,
)
from airside.stack.operations.quantities import clock
from airside.stack.values import ValueOrigin

if TYPE_CHECKING:
    from airside.actors.client.results import PendingApproval

STOOD_FOR = frozenset({"approved", "request", "person", "configuration"})
"""Origins of values that a principal or an operator stands for; any other is marked."""

SHOWN_CONTENTS = 20
_IN_BRIEF = 6
"""Values of a call that its row in a list has: it is drawn alone with all of them."""


def draw_approval(approval: PendingApproval) -> Drawing:
    """Draw one call that waits: each of its values with where it comes from, and what it says."""
    contents = approval.contents()
    parts: list[Part] = [_values(approval.origins)] if approval.origins else []
    parts += [content(f"{path}, {len(text):,} characters:", text) for path, text in contents[:SHOWN_CONTENTS]]
    left = len(contents) - SHOWN_CONTENTS
    return Drawing(
        title=brief(_call(approval), 120),
        status="a question" if approval.is_question else "waits for approval",
        tone="wait",
        facts=facts(
            ("approval", approval.approval_id),
            ("asked by", f"{approval.requester}@{approval.tenant}"),
            ("the request", approval.request),
            ("needs", _needs(approval)),
            ("rule", approval.rule),
            ("until", clock(approval.expires_us)),
            ("group", approval.group),
            ("!!", approval.rejected_before),
            ("about", "; ".join(str(each) for each in approval.resources[:10])),
            ("more", f"{left} more arguments are not shown" if left > 0 else ""),
        ),
        parts=tuple(parts),
        notes=_how(approval),
    )


def _call(approval: PendingApproval) -> str:
    return f"{approval.tool} ({approval.effect})"


def _needs(approval: PendingApproval) -> str:
    roles = ", ".join(approval.roles)
    if approval.is_question:
        return f"an answer of one of {roles}"
    return f"{approval.quorum} of {roles}, has {approval.votes}"


def _how(approval: PendingApproval) -> tuple[str, ...]:
    own = repr(brief(approval.approval_id, 120))
    more = "stack.reject" if approval.is_question else "stack.reject, stack.edit(id, arguments, ...)"
    vote = (
        f"stack.answer({own}, answer, principal=...)"
        if approval.is_question
        else f"stack.approve({own}, principal=...)"
    )
    marked = any(each.origin not in STOOD_FOR for each in approval.origins)
    warning = ("!! marks what no principal and no operator stands for.",) if marked else ()
    return (*warning, f"To vote: {vote}, or {more}.")


def _values(origins: Sequence[ValueOrigin]) -> Table:
    def row(each: ValueOrigin) -> Iterable[Cell]:
        stood_for = each.origin in STOOD_FOR
        says = " says" if each.part == "content" else ""
        yield Cell("" if stood_for else "!!", "" if stood_for else "bad", "code")
        yield code_cell(f"{each.path}{says}")
        yield code_cell(each.value, most=MAX_FACT)  # the tracer has cut it: people see all of that
        yield text_cell(each.source, "" if stood_for else "bad")

    return table("Values, and where they come from", ("", "argument", "value", "comes from"), origins, row)


def draw_approvals(approvals: Sequence[PendingApproval]) -> Drawing:
    """Draw what waits, oldest first, each call in a row: one alone is drawn with all that it says."""
    head = ("approval", "call", "asked by", "values", "needs", "until")
    wait = "waits" if len(approvals) == 1 else "wait"
    return Drawing(
        title=f"{len(approvals):,} {wait} for people" if approvals else "nothing waits for people",
        parts=(table("", head, approvals, _row),) if approvals else (),
        notes=("One by itself shows all of it: approvals[0].",) if approvals else (),
    )


def _row(approval: PendingApproval) -> Iterable[Cell]:
    marked = any(each.origin not in STOOD_FOR for each in approval.origins)
    yield code_cell(approval.approval_id)
    yield text_cell(_call(approval))
    yield text_cell(f"{approval.requester}@{approval.tenant}")
    yield code_cell(_in_brief(approval), "bad" if marked else "", most=400)
    yield text_cell(_needs(approval))
    yield text_cell(clock(approval.expires_us))


def _in_brief(approval: PendingApproval) -> str:
    """Return the values of a call, those that nobody stands for first; without origins its arguments."""
    if not approval.origins:
        return brief(approval.arguments, 300)
    order = sorted(approval.origins, key=lambda each: each.origin in STOOD_FOR)
    shown = [
        f"{'' if each.origin in STOOD_FOR else '!! '}{brief(each.path, 40)}: {brief(each.value, 60)} <- {each.origin}"
        for each in order[:_IN_BRIEF]
    ]
    more = len(order) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")
