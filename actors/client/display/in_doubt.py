"""Calls of which nobody knows whether they happened, drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from airside.actors.client.display.drawing import Cell, Drawing, brief, code_cell, number_cell, table, text_cell
from airside.stack.operations.quantities import clock, counted
from airside.stack.recovery.in_doubt import InDoubtCall


def draw_in_doubt(calls: Sequence[InDoubtCall]) -> Drawing:
    """Draw them in their order, a row each."""
    if not calls:
        return Drawing(title="no call is in doubt")
    head = ("call", "arguments", "since", "its run", "run", "step", "tenant", "key", "why")
    return Drawing(
        title=f"{counted(len(calls), 'call')} in doubt",
        tone="wait",
        parts=(table("", head, calls, _row),),
        notes=("To say what became of one: stack.resolve(call, happened=True or False, why=...).",),
    )


def _row(call: InDoubtCall) -> Iterable[Cell]:
    yield text_cell(f"{'the undo of ' if call.undo else ''}{call.tool}")
    yield text_cell(brief(call.arguments, 200))
    yield text_cell(clock(call.since_us))
    yield text_cell(f"waits until {clock(call.until_us)}" if call.until_us else "has ended")
    yield code_cell(call.run_id)
    yield number_cell(call.step)
    yield text_cell(call.tenant)
    yield code_cell(call.key)
    yield text_cell(call.cause)
