"""Batches, drawn: how one came out, or how it stands, as bars by outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from airside.actors.client.display.drawing import (
    MAX_ROWS,
    Bar,
    Bars,
    Cell,
    Drawing,
    Tone,
    brief,
    facts,
    number_cell,
    table,
    text_cell,
)
from airside.actors.client.display.runs import tone_of
from airside.stack.operations.quantities import money


def draw_batch(
    name: str,
    state: str,
    outcomes: Mapping[tuple[str, str], int],
    *,
    ended: int,
    completed: int,
    of: int | None = None,
    cost_microusd: int = 0,
    tokens: int = 0,
    more: Mapping[str, str] | None = None,
    counted: str = "runs",
    problems: Sequence[tuple[str, int]] = (),
) -> Drawing:
    """Draw a batch: its runs by status and reason, what they used, and whatever else is to be said of it.

    `counted` says what the outcomes are of; `problems` are lines, each with how many rows it is said of.
    """
    bars = [
        Bar(brief(status if reason in ("", status) else f"{status} · {reason}", 80), count, tone_of(status))
        for (status, reason), count in sorted(outcomes.items(), key=lambda item: -item[1])
    ]
    tone: Tone = "off" if state == "cancelled" else "wait"
    if state == "finished":
        tone = "good" if completed else "bad" if ended else "off"
    rows = f"{ended:,} of {of:,}" if of is not None else f"{ended:,}"
    return Drawing(
        title=f"batch {brief(name, 80)}",
        status=brief(state, 40),
        tone=tone,
        facts=facts(("ended", rows), ("used", f"{tokens:,} tokens, {money(cost_microusd)}"), *(more or {}).items()),
        parts=(
            *((Bars(("outcome", counted), tuple(bars[:MAX_ROWS]), max(0, len(bars) - MAX_ROWS)),) if bars else ()),
            *((table("problems", ("first of them", "rows"), problems, _problem),) if problems else ()),
        ),
    )


def _problem(given: tuple[str, int]) -> tuple[Cell, Cell]:
    said, count = given
    return text_cell(said), number_cell(count)
