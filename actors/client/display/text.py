"""A `Drawing` as plain text: what a terminal shows, and a front end without HTML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from airside.actors.client.display.drawing import Bars, Cell, Drawing, Lines, Part, Table, Timeline

_COLUMN = 60
"""Widest column: a cell that is longer is cut, for a terminal wraps what is wider than it is."""


def to_text(drawing: Drawing) -> str:
    """Return a drawing as lines of text."""
    return "\n".join(line.rstrip() for line in _lines(drawing))


def _lines(drawing: Drawing) -> Iterator[str]:
    yield f"{drawing.title}: {drawing.status}" if drawing.status else drawing.title
    for fact in drawing.facts:
        yield f"  {fact.name}: {fact.text}"
    for part in drawing.parts:
        yield from (f"  {line}" for line in _part(part))
    yield from (f"  {note}" for note in drawing.notes)


def _part(part: Part) -> Iterator[str]:
    match part:
        case Table():
            yield from [part.title] if part.title else []
            yield from _columns(part.head, [[cell.text for cell in row] for row in part.rows])
            yield from _more(part.more)
        case Bars():
            rows = [[bar.label, f"{bar.count:,}", *(cell.text for cell in bar.cells)] for bar in part.bars]
            yield from _columns(part.head, rows)
            yield from _more(part.more)
        case Timeline():
            rows = [[lane.phase, str(lane.count), lane.took] for lane in part.lanes]
            yield from _columns(("phase", "times", "took"), rows)
            yield from [part.note] if part.note else []
        case Lines():
            yield from [part.title] if part.title else []
            yield from _with_gap(part.lines, part)


def _with_gap(shown: Sequence[Cell], part: Lines) -> Iterator[str]:
    for place, line in enumerate(shown):
        if part.gap and place == part.gap_at:
            yield f"... {part.gap:,} lines are not shown"
        yield line.text


def _more(count: int) -> list[str]:
    return [f"... and {count:,} more"] if count else []


def _columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    cut = [[cell if len(cell) <= _COLUMN else f"{cell[: _COLUMN - 1]}…" for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cut if i < len(row)) for i in range(len(head))]
    for row in cut:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
