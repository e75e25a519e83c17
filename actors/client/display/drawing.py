"""`Drawing`: what is to be seen of something, before it is text or HTML.  Its parts are bounded when they are made.

Whatever stands in one is taken for hostile: tools' outputs, requests, names.  A text is cut before anything else looks
at it, so that one of a megabyte costs what a short one does; what is left out is counted.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import msgspec

from airside.stack.errors import text_of
from airside.stack.text.entities import visible

MAX_ROWS = 50
"""Rows of a table: what fits on two screens.  A list has them all, and says how many are not shown."""

MAX_FACTS = 24
MAX_CELL = 160
MAX_FACT = 400
MAX_CONTENT = 2_000
"""Characters of a mail's text and the like, which people must see before they approve of it."""

Tone = Literal["", "good", "bad", "wait", "off"]
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table: a text that has been cut, how it strikes the eye, and whether it is a number or code."""

    text: str
    tone: Tone = ""
    kind: Literal["text", "number", "code"] = "text"


@dataclass(frozen=True, slots=True)
class Fact:
    """What something is called, and what it is."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a head, and how many more there are; `is_folded` = it is shown when it is asked for."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    more: int = 0
    is_folded: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of bars: its share of the longest is its length."""

    label: str
    count: int
    tone: Tone
    cells: tuple[Cell, ...] = ()


@dataclass(frozen=True, slots=True)
class Bars:
    """Counts by what is counted, with further columns; and how many more there are."""

    head: tuple[str, ...]
    bars: tuple[Bar, ...]
    more: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a lane, from `start` to `end` of the whole drawing's [0, 1]; `label` says what it was."""

    start: float
    end: float
    label: str
    is_shortened: bool = False


@dataclass(frozen=True, slots=True)
class TimelineLane:
    """What a run did in one phase, and for how long in all."""

    phase: str
    pieces: tuple[Piece, ...]
    count: int
    took: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """A run's time, lane by lane; `note` says what is not to scale."""

    lanes: tuple[TimelineLane, ...]
    total: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines of text as they stand, each with how it strikes the eye; `gap` = how many are left out after `gap_at`."""

    title: str
    lines: tuple[Cell, ...]
    gap_at: int = 0
    gap: int = 0


Part = Table | Bars | Timeline | Lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """What is to be seen of one thing: a title, how it stands, facts, parts, and what to do next."""

    title: str
    status: str = ""
    tone: Tone = ""
    facts: tuple[Fact, ...] = ()
    parts: tuple[Part, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", brief(self.title, MAX_FACT))
        object.__setattr__(self, "status", brief(self.status, MAX_CELL))
        object.__setattr__(self, "notes", tuple(brief(note, MAX_FACT) for note in self.notes))


def brief(value: Any, most: int = MAX_CELL) -> str:
    """Return a value as one line of at most `most` characters that hides nothing, and says how much was left out.

    What is no text is its JSON, else what `str` makes of it.
    """
    text = value if isinstance(value, str) else _as_text(value)
    shown = one_line(text[:most])
    if len(text) <= most and len(shown) <= most:
        return shown
    return f"{shown[:most]}… ({len(text):,} characters)"


def _as_text(value: Any) -> str:
    if isinstance(value, int | float):
        return str(value)
    try:
        return msgspec.json.encode(value).decode()
    except Exception:  # whatever an encoder finds in what it does not know
        try:
            return str(value)
        except Exception as error:
            return f"(not shown: {text_of(error, 100)})"


def one_line(text: str) -> str:
    """Return a text as one line in which what is hidden, turns the writing round or is no Unicode is an escape."""
    seen = visible(text)
    if seen.isprintable():
        return seen
    return "".join(map(_shown, seen))


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character.isspace() else f"\\u{{{ord(character):x}}}"


def text_cell(value: Any, tone: Tone = "", *, most: int = MAX_CELL) -> Cell:
    """Return a cell of text."""
    return Cell(brief(value, most), tone)


def code_cell(value: Any, tone: Tone = "", *, most: int = MAX_CELL) -> Cell:
    """Return a cell of an id, or of arguments."""
    return Cell(brief(value, most), tone, "code")


def number_cell(value: int | str) -> Cell:
    """Return a cell of a number, or of what is said as one (`1.2s`)."""
    return Cell(f"{value:,}" if isinstance(value, int) else brief(value), "", "number")


def facts(*pairs: tuple[str, Any]) -> tuple[Fact, ...]:
    """Return those facts that say something."""
    found = (Fact(brief(name, 60), brief(value, MAX_FACT)) for name, value in pairs[:MAX_FACTS])
    return tuple(fact for fact in found if fact.text)


def table(
    title: str,
    head: Sequence[str],
    items: Iterable[Item],
    row_of: Callable[[Item], Iterable[Cell]],
    *,
    total: int | None = None,
    is_folded: bool = False,
) -> Table:
    """Return the first rows of a table; no more items are looked at than are shown."""
    rows = tuple(_row(item, row_of, len(head)) for item in itertools.islice(items, MAX_ROWS))
    there = total if total is not None else len(items) if isinstance(items, Sized) else len(rows)
    return Table(title, tuple(head), rows, max(0, there - len(rows)), is_folded)


def _row(item: Item, row_of: Callable[[Item], Iterable[Cell]], width: int) -> tuple[Cell, ...]:
    """Return the cells of an item; of one that is not what it should be, what it is, and the other rows are there."""
    try:
        return tuple(row_of(item))
    except Exception:
        return (code_cell(item), *[Cell("")] * (width - 1))


def lines(title: str, given: Sequence[str], tone_of: Callable[[str], Tone] = lambda _: "") -> Lines:
    """Return lines of text: of many, the first and the last, for the end says why."""
    half, gap = MAX_ROWS // 2, max(0, len(given) - MAX_ROWS)
    kept = given if not gap else [*given[:half], *given[-half:]]
    return Lines(title, tuple(Cell(brief(line, 2 * MAX_CELL), tone_of(line), "code") for line in kept), half, gap)


def content(title: str, text: str) -> Lines:
    """Return a text that says something, as much of it as people must see."""
    left = len(text) - MAX_CONTENT
    shown = [Cell(one_line(line), "", "code") for line in _wrapped(text[:MAX_CONTENT])]
    if left > 0:
        shown.append(Cell(f"({left:,} more characters are not shown)", "off", "code"))
    return Lines(brief(title, 100), tuple(shown))


def _wrapped(text: str) -> Iterator[str]:
    """Yield the lines of a text; no more than a reader would scroll past."""
    found = text.splitlines()
    yield from found[: 4 * MAX_ROWS]
    if len(found) > 4 * MAX_ROWS:
        yield f"({len(found) - 4 * MAX_ROWS:,} more lines are not shown)"
