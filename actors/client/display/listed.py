"""Lists, a text and a dictionary that draw themselves, and are otherwise what they are.

They compare, pickle and slice as lists do; a slice is one of them.  Whatever else makes a list of one (`sorted`, `+`)
makes a plain one.  What a list or a text is as plain text, IPython decides by itself unless there is a `_repr_pretty_`:
of a thousand results it would print a thousand.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, SupportsIndex, TypeVar, cast, overload

from airside.actors.client.display.approvals import draw_approvals
from airside.actors.client.display.batches import draw_batches
from airside.actors.client.display.bundle import bundle, print_drawing
from airside.actors.client.display.drawing import Drawing, Timeline
from airside.actors.client.display.in_doubt import draw_in_doubt
from airside.actors.client.display.memory import draw_hits, draw_records
from airside.actors.client.display.results import draw_results
from airside.actors.client.display.runs import draw_runs, draw_story
from airside.actors.client.display.stacks import draw_status
from airside.actors.client.display.tables import draw_values
from airside.stack.contracts.memory import Recalled

Item = TypeVar("Item")
Kinds = Collection[str] | None


class Listed(list[Item]):
    """A list that draws itself: as a table of its values' fields, unless a kind of it says otherwise."""

    __slots__ = ()

    @overload
    def __getitem__(self, place: SupportsIndex) -> Item: ...

    @overload
    def __getitem__(self, place: slice) -> list[Item]: ...

    def __getitem__(self, place: SupportsIndex | slice) -> Item | list[Item]:
        found = super().__getitem__(place)
        return type(self)(found) if isinstance(place, slice) and isinstance(found, list) else found

    def drawn(self) -> Drawing:
        """Return what is to be seen of it."""
        return draw_values(cast(Sequence[Any], self))

    def _repr_mimebundle_(self, include: Kinds = None, exclude: Kinds = None) -> dict[str, str]:
        return bundle(self.drawn, include, exclude)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        print_drawing(self, self.drawn, printer)


class ResultList(Listed[Any]):
    """Results of runs."""

    __slots__ = ()

    def drawn(self) -> Drawing:
        """Return bars by outcome, and the results."""
        return draw_results(self)


class RunList(Listed[Any]):
    """Runs, a line each."""

    __slots__ = ()

    def drawn(self) -> Drawing:
        """Return a table of them."""
        return draw_runs(self)


class BatchList(Listed[Any]):
    """Batches, a line each."""

    __slots__ = ()

    def drawn(self) -> Drawing:
        """Return a table of them."""
        return draw_batches(self)


class ApprovalList(Listed[Any]):
    """What waits for people."""

    __slots__ = ()

    def drawn(self) -> Drawing:
        """Return a row for each."""
        return draw_approvals(self)


class InDoubtList(Listed[Any]):
    """Calls in doubt."""

    __slots__ = ()

    def drawn(self) -> Drawing:
        """Return a row for each."""
        return draw_in_doubt(self)


class RecordList(Listed[Any]):
    """Records of memory."""

    __slots__ = ()

    def drawn(self) -> Drawing:
        """Return a table of them."""
        return draw_records(self)


class Hits(tuple[Recalled, ...]):
    """What a question finds in memory, best first."""

    __slots__ = ()

    def _repr_mimebundle_(self, include: Kinds = None, exclude: Kinds = None) -> dict[str, str]:
        return bundle(lambda: draw_hits(self), include, exclude)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        print_drawing(self, lambda: draw_hits(self), printer)


class Status(dict[str, Any]):
    """What every layer says of itself."""

    __slots__ = ()

    def _repr_mimebundle_(self, include: Kinds = None, exclude: Kinds = None) -> dict[str, str]:
        return bundle(lambda: draw_status(self), include, exclude)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        print_drawing(self, lambda: draw_status(self), printer)


class Story(str):
    """A run's story: a text, which knows the run's time by phase."""

    __slots__ = ("timeline",)
    timeline: Timeline | None

    def __new__(cls, text: str, timeline: Timeline | None = None) -> Story:
        """Make one of a text."""
        story = super().__new__(cls, text)
        story.timeline = timeline
        return story

    def __reduce__(self) -> tuple[type[Story], tuple[str, Timeline | None]]:
        return type(self), (str(self), self.timeline)

    def _repr_mimebundle_(self, include: Kinds = None, exclude: Kinds = None) -> dict[str, str]:
        return bundle(lambda: draw_story(str(self), self.timeline), include, exclude)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        print_drawing(self, lambda: draw_story(str(self), self.timeline), printer)
