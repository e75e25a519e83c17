"""Answers to queries, and lists of any of the stack's values, drawn as tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from airside.actors.client.display.drawing import (
    MAX_ROWS,
    Cell,
    Drawing,
    brief,
    code_cell,
    facts,
    number_cell,
    table,
    text_cell,
)
from airside.stack.operations.quantities import clock

MAX_COLUMNS = 16


def draw_query(answer: pa.Table) -> Drawing:
    """Draw the first rows of what a query answered."""
    names = answer.column_names
    columns = answer.select(list(range(min(MAX_COLUMNS, len(names))))).slice(0, MAX_ROWS)
    rows = zip(*(column.to_pylist() for column in columns.columns), strict=True)
    head = tuple(brief(name, 60) for name in names[:MAX_COLUMNS])
    return Drawing(
        title=f"{answer.num_rows:,} rows of {len(names):,} columns",
        facts=facts(
            ("columns not shown", ", ".join(names[MAX_COLUMNS : 2 * MAX_COLUMNS])),
        ),
        parts=(table("", head, rows, lambda row: map(_cell, row), total=answer.num_rows),) if names else (),
    )


def _cell(value: Any) -> Cell:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number_cell(brief(value))  # as it stands: most are times, places and ids
    return Cell("", "off") if value is None else text_cell(value)


def draw_values(values: Sequence[msgspec.Struct]) -> Drawing:
    """Draw a list of values as a table of their fields."""
    if not values:
        return Drawing(title="nothing")
    names = type(values[0]).__struct_fields__[:MAX_COLUMNS]
    return Drawing(
        title=f"{len(values):,} of {type(values[0]).__name__}",
        parts=(table("", names, values, lambda value: (_field(name, getattr(value, name)) for name in names)),),
    )


def draw_value(value: msgspec.Struct) -> Drawing:
    """Draw one value by its fields; a field that is a list of values is a table."""
    fields = {name: getattr(value, name) for name in type(value).__struct_fields__}
    lists = {name: each for name, each in fields.items() if _is_list_of_values(each)}
    return Drawing(
        title=type(value).__name__,
        facts=facts(*((name, _field(name, each).text) for name, each in fields.items() if name not in lists)),
        parts=tuple(
            table(name, type(each[0]).__struct_fields__[:MAX_COLUMNS], each, _fields_of) for name, each in lists.items()
        ),
    )


def _is_list_of_values(value: object) -> bool:
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], msgspec.Struct)


def _fields_of(value: msgspec.Struct) -> Iterable[Cell]:
    return (_field(name, getattr(value, name)) for name in type(value).__struct_fields__[:MAX_COLUMNS])


def _field(name: str, value: Any) -> Cell:
    if name.endswith("_us") and isinstance(value, int):
        return text_cell(clock(value) if value > 0 else "")
    return code_cell(value) if name.endswith("_id") or name == "key" else text_cell(value)
