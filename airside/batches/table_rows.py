"""Rows of Arrow tables as jobs, a few at a time.

What JSON has no form for has one here, the same for every table:

| in the table | in the job |
|---|---|
| timestamp, with a zone or without | UTC in ISO 8601, with `Z`; one without a zone is taken to be UTC |
| date, time, duration | ISO 8601 |
| decimal | its digits, as text |
| UUID, dictionary (categories) | text, the value |
| struct, map | an object; a null field of a struct is absent |
| list | a list; a null in it stays null |
| null | a field that is absent |
| NaN, infinity, binary, anything else | what is wrong with the row |
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import types

from airside.batches.columns import Columns, original_of
from airside.batches.rows import Read
from airside.stack.errors import InvalidInput

ROWS_AT_ONCE = 256
"""Made Python values of at a time: with requests of 64 KiB that is some tens of megabytes."""

_EPOCH = dt.date(1970, 1, 1)
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


class _Form(NamedTuple):
    """How values of a type are read: cast to `plain`, made Python values, each then made what JSON holds."""

    plain: pa.DataType
    convert: Callable[[Any], Any] | None


def table_rows(batches: Iterable[Any], columns: Columns, name: str) -> Iterator[Read]:
    """Yield what each row of record batches, or of tables, is read as."""
    number = 0
    for batch in batches:
        for start in range(0, batch.num_rows, ROWS_AT_ONCE):
            for record, problem in _records(batch.slice(start, ROWS_AT_ONCE)):
                data = b""
                if not problem:
                    try:
                        data = columns.job_of(record)
                    except InvalidInput as error:
                        problem = error.message
                original, place = columns.without_token(original_of(record), record), f"{name} row {number}"
                yield Read(data, original, place, problem, columns.id_of(record))
                number += 1


def _records(batch: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield each row as a record, and what of it cannot be one."""
    names: list[str] = batch.schema.names
    forms = {field.name: _form(field.type) for field in batch.schema}
    lists = [_values(batch.column(at), forms[name]) for at, name in enumerate(names)]
    converting = [(name, form.convert) for name, form in forms.items() if form.convert is not None]
    for values in zip(*lists, strict=True) if lists else ((),) * batch.num_rows:
        record = dict(zip(names, values, strict=True))
        problem = ""
        for name, convert in converting:
            if record[name] is None:
                continue
            try:
                record[name] = convert(record[name])
            except InvalidInput as error:
                problem = problem or f"{name}: {error.message}"
            except (OverflowError, ValueError):  # a date before the year 1, or after 9999
                problem = problem or f"{name}: {record[name]} is a time that has no year of four digits"
        yield record, problem


def _values(column: Any, form: _Form) -> list[Any]:
    if isinstance(column.type, pa.BaseExtensionType) and not isinstance(column.type, pa.UuidType):
        column = pa.chunked_array([c.storage for c in column.chunks]) if hasattr(column, "chunks") else column.storage
    values: list[Any] = (column if column.type == form.plain else column.cast(form.plain)).to_pylist()
    return values


@lru_cache(maxsize=512)
def _form(kind: pa.DataType) -> _Form:
    """Return how values of a type are read."""
    if isinstance(kind, pa.UuidType):
        return _Form(kind, str)
    if isinstance(kind, pa.BaseExtensionType):
        return _form(kind.storage_type)
    if types.is_dictionary(kind):
        return _form(kind.value_type)
    if types.is_string_view(kind) or types.is_large_string(kind):
        return _Form(pa.string() if types.is_string_view(kind) else kind, None)
    if types.is_null(kind) or types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind):
        return _Form(kind, None)
    if types.is_string(kind):
        return _Form(kind, None)
    if types.is_decimal(kind):
        return _Form(kind, _decimal)
    if types.is_temporal(kind) and not types.is_interval(kind):
        return _temporal(kind)
    return _nested(kind)


def _temporal(kind: pa.DataType) -> _Form:
    """Times are read as the whole numbers they are: Python's have no nanoseconds, and need a list of zones."""
    if types.is_date32(kind):
        return _Form(pa.int32(), lambda days: (_EPOCH + dt.timedelta(days=days)).isoformat())
    if types.is_date64(kind):
        return _Form(pa.int64(), lambda ms: (_EPOCH + dt.timedelta(days=ms // 86_400_000)).isoformat())
    per_s = _PER_SECOND[kind.unit]
    if types.is_timestamp(kind):
        return _Form(pa.int64(), lambda value: _timestamp(value, per_s))
    if types.is_duration(kind):
        return _Form(pa.int64(), lambda value: _duration(value, per_s))
    return _Form(pa.int32() if types.is_time32(kind) else pa.int64(), lambda value: _time(value, per_s))


def _fraction(part: int, per_s: int) -> str:
    """Return what is left of a second, in three, six or nine digits; nothing if nothing is."""
    if not part:
        return ""
    digits = f"{part:0{len(str(per_s)) - 1}d}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f".{digits}"


def _timestamp(value: int, per_s: int) -> str:
    seconds, part = divmod(value, per_s)
    whole = dt.datetime(1970, 1, 1) + dt.timedelta(seconds=seconds)
    return f"{whole.isoformat()}{_fraction(part, per_s)}Z"


def _time(value: int, per_s: int) -> str:
    seconds, part = divmod(value, per_s)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{_fraction(part, per_s)}"


def _duration(value: int, per_s: int) -> str:
    seconds, part = divmod(abs(value), per_s)
    return f"{'-' if value < 0 else ''}PT{seconds}{_fraction(part, per_s)}S"


def _decimal(value: Decimal) -> str:
    return format(value, "f")


def _nested(kind: pa.DataType) -> _Form:
    if types.is_struct(kind):
        return _struct(kind)
    if types.is_map(kind):
        return _map(kind)
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        inner = _form(kind.value_type)
        if inner.plain == kind.value_type:  # Arrow's cast of a view loses what is in it
            return _Form(kind, _each(inner.convert))
    elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        inner = _form(kind.value_type)
        make = pa.large_list if types.is_large_list(kind) else pa.list_
        return _Form(kind if inner.plain == kind.value_type else make(inner.plain), _each(inner.convert))
    return _Form(kind, _refusing(kind))


def _each(convert: Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
    if convert is None:
        return None
    return lambda values: [None if value is None else convert(value) for value in values]


def _struct(kind: Any) -> _Form:
    forms = {field.name: _form(field.type) for field in kind}
    if len(forms) < kind.num_fields:
        return _Form(kind, _refusing(kind))
    plain = pa.struct([pa.field(name, form.plain) for name, form in forms.items()])

    def convert(value: dict[str, Any]) -> dict[str, Any]:
        return {
            name: inner if forms[name].convert is None else forms[name].convert(inner)  # type: ignore[misc]
            for name, inner in value.items()
            if inner is not None
        }

    return _Form(plain, convert)


def _map(kind: Any) -> _Form:
    keys, items = _form(kind.key_type), _form(kind.item_type)
    inner = items.convert

    def convert(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
        made = {name: item if item is None or inner is None else inner(item) for name, item in pairs}
        if len(made) < len(pairs):
            raise InvalidInput("a map has a key twice")
        return made

    is_text = types.is_string(keys.plain) or types.is_large_string(keys.plain)
    return _Form(pa.map_(keys.plain, items.plain), convert) if is_text else _Form(kind, _refusing(kind))


def _refusing(kind: pa.DataType) -> Callable[[Any], Any]:
    def refuse(value: Any) -> Any:
        size = f" of {len(value):,} bytes" if isinstance(value, bytes) else ""
        raise InvalidInput(f"a value of the type {kind}{size}, which has no form in JSON")

    return refuse
