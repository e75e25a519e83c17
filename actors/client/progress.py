"""A progress bar for batches, where somebody watches: in a terminal or a notebook."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from airside.actors.client.display.bundle import bundle, print_drawing
from airside.actors.client.display.drawing import Drawing
from airside.actors.client.display.listed import Kinds
from airside.actors.client.display.results import draw_progress
from airside.stack.errors import text_of

logger = logging.getLogger("airside")

Shown = TypeVar("Shown")

SHOWN_S = 0.25
"""Between two looks of who watches: in a notebook each is a message to the front end."""


class Progress(NamedTuple):
    """How far a batch is: `ended` of `total` jobs (None: not known), by status, and a line of further figures."""

    ended: int
    total: int | None
    statuses: Mapping[str, int]
    line: str = ""

    def _repr_mimebundle_(self, include: Kinds = None, exclude: Kinds = None) -> dict[str, str]:
        return bundle(self._drawn, include, exclude)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        print_drawing(self, self._drawn, printer)  # else IPython's printer of tuples comes before the bundle's text

    def _drawn(self) -> Drawing:
        return draw_progress(self.ended, self.total, self.statuses, self.line)


def is_in_notebook() -> bool:
    """Whether this process is a notebook's kernel: that something has imported what makes one does not make it one."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


def is_watched() -> bool:
    """Whether somebody sees a bar: stderr is a terminal, or this is a notebook."""
    return sys.stderr.isatty() or is_in_notebook()


def never_failing(show: Callable[[Shown], None]) -> Callable[[Shown], None]:
    """Have what shows how far a batch is fail no batch: what went wrong is logged, the same again once."""
    last = ""

    def shown(it: Shown) -> None:
        nonlocal last
        try:
            show(it)
        except Exception as error:
            if (said := text_of(error)) != last:
                last = said
                logger.warning("how far it is cannot be shown: %s", said, extra={"action": "progress_failed"})

    return shown


@contextmanager
def progress_of(total: int, *, show: bool) -> Iterator[Callable[[str], None]]:
    """Yield `advance(status)`, which moves the bar by one run; silent where nobody watches."""
    counts: Counter[str] = Counter()
    with progress_bar(total, show=show and is_watched()) as draw:

        def advance(status: str) -> None:
            counts[status] += 1
            draw(lambda: Progress(counts.total(), total, counts))

        yield advance


@contextmanager
def progress_bar(total: int | None, *, show: bool) -> Iterator[Callable[[Callable[[], Progress]], None]]:
    """Yield what draws how far a batch is, as often as somebody can see it, and a last time at the end."""
    if not show:
        yield lambda progress: None
        return
    latest: Callable[[], Progress] | None = None
    drawn_s = time.monotonic()
    with _notebook(total) if is_in_notebook() else _terminal(total) as put:
        show_now: Callable[[Callable[[], Progress]], None] = never_failing(lambda progress: put(progress()))

        def draw(progress: Callable[[], Progress]) -> None:
            nonlocal latest, drawn_s
            latest = progress
            if time.monotonic() - drawn_s >= SHOWN_S:
                drawn_s = time.monotonic()
                show_now(progress)

        try:
            yield draw
        finally:
            if latest is not None:
                show_now(latest)


@contextmanager
def _terminal(total: int | None) -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total)

        def put(now: Progress) -> None:
            statuses = sorted(now.statuses.items(), key=lambda item: -item[1])
            line = now.line or ", ".join(f"{n} {status}" for status, n in statuses)
            bar.update(task, completed=now.ended, total=now.total, description=line)

        yield put


@contextmanager
def _notebook(total: int | None) -> Iterator[Callable[[Progress], None]]:
    """An output that is drawn anew: Rich's own needs widgets that a notebook may not have."""
    from IPython.display import display

    shown: Any = display(Progress(0, total, {}), display_id=True)  # type: ignore[no-untyped-call]
    yield shown.update
