"""What a record derives from: what whoever wrote it had been shown of memory, so that erasing can follow.

A lineage is a bounded set of marks.  An id is a record that was shown itself; from there one goes on through that
record's own lineage, as long as it is kept.  A subject's mark (a digest, no name) is taken over from every record that
was shown, with those of its own lineage: so a subject is reached also when what was said about it has expired since.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from airside.memory.records import Record
from airside.memory.text import normal
from airside.stack.canonical import digest
from airside.stack.contracts.memory import MAX_SHOWN
from airside.stack.errors import InvalidId
from airside.stack.ids import parse_run

MAX_LINEAGE = 2 * MAX_SHOWN
"""Marks of one record: those of a run that was shown the most it may be, and as many subjects; 20 bytes each."""

UNTRACED = "unknown"
"""Its run wrote it before lineage was kept, or derives from what one wrote then."""

MANY = "many"
"""There were more marks than are kept: it may derive from anything."""

_FLAGS = (UNTRACED, MANY)
_MARK = re.compile(rf"mem_[0-9a-f]{{24}}|sub_[0-9a-f]{{16}}|{UNTRACED}|{MANY}")


def subject_mark(subject: str) -> str:
    """Return the mark of a subject, however it is written: 64 bits that do not say the name."""
    return "sub_" + digest(normal(subject).encode())[:16]


def lineage_of(shown: Iterable[Record]) -> tuple[str, ...]:
    """Return the lineage of what is said by somebody who was shown records."""
    found: dict[str, None] = {}
    for record in shown:
        found[record.record_id] = None
        if record.subject:
            found[subject_mark(record.subject)] = None
        found |= dict.fromkeys(mark for mark in record.lineage if not mark.startswith("mem_"))
    return _bounded(found)


def united(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    """Return the lineage of what both say; the first as it is if it has all of the other."""
    return one if set(other) <= set(one) else _bounded(dict.fromkeys((*one, *other)))


def _bounded(found: Iterable[str]) -> tuple[str, ...]:
    marks = [mark for mark in found if mark not in _FLAGS]
    flags = {flag for flag in _FLAGS if flag in found} | ({MANY} if len(marks) > MAX_LINEAGE else set())
    return (*marks[:MAX_LINEAGE], *sorted(flags))


def is_lineage(marks: tuple[str, ...]) -> bool:
    """Whether this can be a record's lineage: so many marks at most, each of a form there is."""
    return len(marks) <= MAX_LINEAGE + len(_FLAGS) and all(map(_MARK.fullmatch, marks))


def is_by_a_run(record: Record) -> bool:
    """Whether a run said it, or one of those who did."""
    return any(map(_is_step, record.sources))


def _is_step(source: str) -> bool:
    run_id, _, step = source.partition("#")
    try:
        return bool(parse_run(run_id)) and step.isdigit()
    except InvalidId:
        return False
