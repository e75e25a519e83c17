"""From a record with columns to a job: which column, or which constant, each of its fields is.

    {"request": "question", "tenant": "=acme", "inputs.order": "order_no"}

A field is one of a job's own (`request`, `tenant`, `labels`, ...), `inputs.NAME`, or one that the app's `job_inputs`
has. Columns that a mapping does not name are dropped; without a mapping every column is the field of its name, and
the job's own check says which are none.  A null is a field that is absent.  Where a column or a constant is text,

- `labels`, `limits` and `inputs` are read as JSON, for they are never text;
- everything else stays text.

A whole number in a column for a field that is text (an id, as tables have it) becomes text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson

from airside.actors.job_inputs import Fields
from airside.actors.jobs import MAX_LINE_BYTES, OWN_FIELDS
from airside.batches.rows import MAX_ORIGINAL_BYTES
from airside.stack.calling import close_names
from airside.stack.canonical import as_text, check_bounds, parse_bounded
from airside.stack.errors import InvalidInput
from airside.stack.input.sentences import name_hint

_JSON_FIELDS = frozenset({"labels", "limits", "inputs"})
_TEXT_FIELDS = OWN_FIELDS - _JSON_FIELDS
_SHOWN_COLUMNS = 40
_MAX_ID_CHARS = 256
"""As of a job's id: what is longer makes a row no job, and its id is shown."""

FIRST_ROWS = 100
"""Of rows that have no header: a column that is in none of so many is not there."""

FIRST_S = 1.0
"""How long the first rows of what is read once are taken for their columns: who makes them may be slow."""


@dataclass(frozen=True, slots=True)
class Columns:
    """A mapping of a job's fields to columns and constants; with none, every column is the field of its name."""

    given: dict[str, str] | None
    """As it was given: field to column, or to `=constant`."""

    constants: dict[str, Any]
    """What the constants make of a job, by field."""

    @classmethod
    def of(cls, given: Mapping[str, str] | None) -> Columns:
        """Read a mapping; raise `InvalidInput` for what is none."""
        if given is None:
            return cls(None, {})
        if not isinstance(given, Mapping) or not all(isinstance(x, str) for pair in given.items() for x in pair):
            raise InvalidInput(
                "columns: give a mapping of a job's fields to columns, or to =constants, all of them text"
            )
        for field, column in given.items():
            if not field or field == "inputs." or not column:
                raise InvalidInput(f"columns: {field!r:.60} = {column!r:.60}: a field and a column have a name each")
        made = {field: _value(field, column[1:]) for field, column in given.items() if column.startswith("=")}
        return cls(dict(given), made)

    @property
    def read(self) -> dict[str, str]:
        """The columns that are read, by the field each is."""
        return {field: column for field, column in (self.given or {}).items() if not column.startswith("=")}

    def check(self, there: Iterable[str], where: str) -> None:
        """Raise `InvalidInput` for columns that stand twice, for one that is mapped and not there, and for no
        request."""
        names = list(there)
        twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if twice:
            raise InvalidInput(f"{where}: the column {twice[0]!r:.80} is there twice")
        for field, column in self.read.items():
            if column not in names:
                raise InvalidInput(
                    f"{where}: no column {column!r:.80}, which {field} is to be read from{_there(names)}"
                )
        if self._lacks_request(names):
            raise _unmapped(where, names)

    def check_first(self, records: Iterable[Mapping[str, Any]], where: str) -> None:
        """Raise `InvalidInput` for a column that is mapped, or the request, which is in none of the first rows of what
        has no header.

        It takes no more of them than it needs.  A null stands for a column that is there.
        """
        missing, there, count = self.read, dict[str, None](), 0
        for record in islice(records if missing or self._lacks_request(()) else (), FIRST_ROWS):
            count += 1
            missing = {field: column for field, column in missing.items() if column not in record}
            there |= dict.fromkeys(record)
            if not missing and not self._lacks_request(there):
                return
        if count and missing:
            field, column = next(iter(missing.items()))
            rows = "its first row" if count == 1 else f"its first {count} rows"
            raise InvalidInput(
                f"{where}: no column {column!r:.80} in {rows}, which {field} is to be read from{_there(there)}"
            )
        if count and self._lacks_request(there):
            raise _unmapped(where, there)

    def _lacks_request(self, there: Iterable[str]) -> bool:
        """Whether no row can be a job: none of these columns is its request, nor is a constant."""
        return "request" not in (there if self.given is None else self.given)

    def check_fields(self, further: Fields) -> None:
        """Raise `InvalidInput` for a field that is none of a job's, nor of the `further` ones that the app has."""
        known = OWN_FIELDS | further.names
        for field in self.given or ():
            if field in known or field.startswith("inputs.") or further.has(field, OWN_FIELDS):
                continue
            head, _, rest = field.partition(".")
            hint = f" (do you mean inputs.{rest}?)" if rest and close_names(head, ["inputs"], alike=0.6) else ""
            hint = hint or name_hint(field, known)
            raise InvalidInput(f"columns: a job has no field {field!r:.60}{hint}; what is the app's own is inputs.NAME")

    def without_token(self, original: bytes, record: Mapping[str, Any]) -> bytes:
        """Return a row as it was read without the token of its job, whatever the column is called."""
        token = record.get("token" if self.given is None else self.read.get("token", ""))
        if not isinstance(token, str) or not token:
            return original
        return original.replace(token.encode("utf-8", "surrogateescape"), b"...")

    def id_of(self, record: Mapping[str, Any]) -> str:
        """Return the id that a record's job has, or would have if it were one; empty if it has none."""
        column = "job_id" if self.given is None else self.read.get("job_id")
        value = None if column is None else record.get(column)
        is_id = isinstance(value, str | int) and not isinstance(value, bool)
        return as_text(str(value)[:_MAX_ID_CHARS]) if is_id else ""

    def job_of(self, record: Mapping[str, Any]) -> bytes:
        """Return the job a record is, as JSON; raise `InvalidInput` for what cannot be one."""
        if self.given is None:
            fields = [(name, value) for name, value in record.items() if value is not None]
        else:
            fields = [(field, record.get(column)) for field, column in self.read.items()]
            fields = [(field, value) for field, value in fields if value is not None]
        job = dict(self.constants) | {field: _value(field, value) for field, value in fields}
        if "request" not in job and "request" in self.read:
            column = self.read["request"]
            raise InvalidInput(f"request: the row has nothing in the column {column!r:.80}{_there(record)}")
        inside = {name: job.pop(name) for name in [*job] if name.startswith("inputs.")}
        if inside:
            inputs = job.get("inputs", {})
            if not isinstance(inputs, dict):
                raise InvalidInput(f"inputs: an object of names and values, not {type(inputs).__name__}")
            job["inputs"] = {**inputs, **{name.removeprefix("inputs."): value for name, value in inside.items()}}
        return json_of(job)


def _value(field: str, value: Any) -> Any:
    if isinstance(value, str):
        if field in _JSON_FIELDS:
            return parse_bounded(value.encode("utf-8", "surrogatepass"), max_bytes=MAX_LINE_BYTES, where=field)
    elif isinstance(value, int) and field in _TEXT_FIELDS and not isinstance(value, bool):
        return str(value)
    return value


def _unmapped(where: str, names: Iterable[str]) -> InvalidInput:
    return InvalidInput(
        f"{where}: no column is the request, which every job has{_there(names)}. Map one: --column request=COLUMN "
        "(in Python columns={'request': COLUMN})"
    )


def _there(names: Iterable[str]) -> str:
    shown = list(names)
    more = f", and {len(shown) - _SHOWN_COLUMNS} more" if len(shown) > _SHOWN_COLUMNS else ""
    return as_text(f"; there are: {', '.join(name[:80] for name in shown[:_SHOWN_COLUMNS])}{more}")


def json_of(job: dict[str, Any]) -> bytes:
    """Encode a job; raise `InvalidInput` naming the field whose value is no JSON, or for one that is too large."""
    for name, value in job.items():
        check_bounds(name, where="a column's name")
        check_bounds(value, where=name[:80])
    data = orjson.dumps(job)
    if len(data) > MAX_LINE_BYTES:
        raise InvalidInput(f"{len(data):,} bytes are over the bound of {MAX_LINE_BYTES:,}")
    return data


def original_of(record: Mapping[str, Any]) -> bytes:
    """Return a record for the file of rejects: JSON, and what JSON cannot hold as the text it reads as."""
    try:
        data = orjson.dumps(record, default=lambda value: repr(value)[:200], option=orjson.OPT_NON_STR_KEYS)
    except (TypeError, ValueError):  # a lone surrogate, or a number that is too large
        data = as_text(repr(record)[:MAX_ORIGINAL_BYTES]).encode()
    return data[:MAX_ORIGINAL_BYTES]
