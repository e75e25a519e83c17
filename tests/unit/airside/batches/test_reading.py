"""Rows as they come: nobody is held by an input that has none now, and what it raises comes after what was before."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from airside.batches.reading import RowReader
from airside.batches.rows import Row, Source
from airside.stack.errors import InvalidInput


def row(number: int) -> Row:
    """Return a row."""
    return Row(number, b"{}", b"{}", f"row {number}", "")


def reader(rows: Any) -> RowReader:
    """Return a reader of what a function gives."""
    return RowReader(cast(Source, SimpleNamespace(rows=rows)))


def test_rows_come_in_order_and_no_more_at_once_than_wanted() -> None:
    some = list(reader(lambda: iter([row(i) for i in range(2_500)])).some(100))
    assert [each.number for rows in some for each in rows] == list(range(2_500)) and max(map(len, some)) <= 100


def test_where_there_is_none_now_that_is_said() -> None:
    goes_on = threading.Event()

    def rows() -> Iterator[Row]:
        yield row(0)
        goes_on.wait()
        yield row(1)

    some = reader(rows).some(100)
    assert next(some) == [row(0)] and next(some) == []
    goes_on.set()
    assert [each for rows in some for each in rows] == [row(1)]


def test_what_a_source_raises_comes_after_every_row_before_it() -> None:
    def rows() -> Iterator[Row]:
        yield from map(row, range(150))
        raise InvalidInput("cut")

    some, got = reader(rows).some(100), list[Row]()
    while len(got) < 150:
        got += next(some)
    with pytest.raises(InvalidInput, match="cut"):
        next(some)


def test_a_reader_that_is_ended_reads_no_further() -> None:
    read, over = list[int](), threading.Event()

    def rows() -> Iterator[Row]:
        try:
            for i in range(10**9):
                read.append(i)
                yield row(i)
        finally:
            over.set()

    made = reader(rows)
    next(made.some(10))
    made.end()
    assert over.wait(10) and len(read) < 3_000
