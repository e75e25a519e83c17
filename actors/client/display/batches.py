"""Batches, drawn: how one came out, or how it stands, as bars by outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from airside.actors.client.display.drawing import (
    MAX_ROWS,
    Bar,
    Bars,
    Cell,
    Drawing,
    Table,
    Tone,
    brief,
    code_cell,
    facts,
    number_cell,
    table,
    text_cell,
)
from airside.actors.client.display.runs import tone_of
from airside.actors.journal.batches import BatchSummary
from airside.stack.operations.overview import ACTIVE
from airside.stack.operations.quantities import clock, counted, money

_TAKEN_UP = "by run_batch(..., resume=True) or `airside run --resume`, which writes the results that are not there yet"


_NAMED = 5


def named(approvals: Sequence[str]) -> str:
    """Return the first of the approvals that something waits for, and how many more there are."""
    more = f" and {len(approvals) - _NAMED:,} more" if len(approvals) > _NAMED else ""
    return ", ".join(approvals[:_NAMED]) + more


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
    otherwise = ended - completed
    if state == "finished":
        tone = "off" if not ended else "good" if not otherwise else "wait" if completed else "bad"
    rows = f"{ended:,} of {of:,}" if of is not None else f"{ended:,}"
    return Drawing(
        title=f"batch {brief(name, 80)}",
        status=brief(state, 40) + (f", {otherwise:,} not completed" if state == "finished" and otherwise else ""),
        tone=tone,
        facts=facts(("ended", rows), ("used", f"{tokens:,} tokens, {money(cost_microusd)}"), *(more or {}).items()),
        parts=(
            *((Bars(("outcome", counted), tuple(bars[:MAX_ROWS]), max(0, len(bars) - MAX_ROWS)),) if bars else ()),
            *((draw_problems(problems),) if problems else ()),
        ),
    )


def draw_problems(problems: Sequence[tuple[str, int]]) -> Table:
    """Draw problems, each with how many rows it is said of."""
    return table("problems", ("first of them", "rows"), problems, _problem)


def _problem(given: tuple[str, int]) -> tuple[Cell, Cell]:
    said, count = given
    return text_cell(said), number_cell(count)


def draw_summary(found: BatchSummary, waiting: Sequence[str] = ()) -> Drawing:
    """Draw a batch as the journal has it, and the approvals that its runs wait for."""
    return draw_batch(
        found.id,
        found.phase,
        {(each.status, each.reason_code): each.runs for each in found.outcomes},
        ended=_runs(found, lambda status: status != ACTIVE),
        completed=_runs(found, lambda status: status == "completed"),
        cost_microusd=sum(each.cost_microusd for each in found.outcomes),
        tokens=sum(each.tokens for each in found.outcomes),
        more={
            "input": input_of(found),
            "results": output_of(found),
            "last order": found.last_order,
            "waits for people": named(waiting),
            "taken up": _TAKEN_UP if found.phase == "stopped" else "",
        },
    )


def draw_batches(found: Sequence[BatchSummary]) -> Drawing:
    """Draw a list of batches."""
    head = ("batch", "phase", "opened", "runs", "ended", "completed", "input", "results")
    return Drawing(
        title=counted(len(found), "batch", "batches"),
        parts=(table("", head, found, _batch),) if found else (),
        notes=("stack.batch(name) shows one.",) if found else (),
    )


def _batch(found: BatchSummary) -> Iterable[Cell]:
    yield code_cell(found.id)
    yield text_cell(found.phase)
    yield text_cell(clock(found.opened_us))
    yield number_cell(_runs(found, lambda status: True))
    yield number_cell(_runs(found, lambda status: status != ACTIVE))
    yield number_cell(_runs(found, lambda status: status == "completed"))
    yield text_cell(input_of(found))
    yield text_cell(output_of(found))


def _runs(found: BatchSummary, counts: Callable[[str], bool]) -> int:
    return sum(each.runs for each in found.outcomes if counts(each.status))


def input_of(found: BatchSummary) -> str:
    """Return what a batch was read from, as its manifest has it."""
    given = found.manifest.get("input")
    if not isinstance(given, dict):
        return ""
    files = given.get("files")
    if isinstance(files, list) and files and isinstance(files[0], dict):
        more = f" and {len(files) - 1:,} more" if len(files) > 1 else ""
        return f"{files[0].get('file', '')}{more}"
    return str(given.get("kind", ""))


def output_of(found: BatchSummary) -> str:
    """Return where a batch's results went when it began; empty for one of which that is not on record."""
    return str(found.manifest.get("out", ""))
