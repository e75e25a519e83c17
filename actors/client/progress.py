"""A progress bar for batches, where somebody watches."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from airside.actors.client.display.bundle import bundle
from airside.actors.client.display.listed import Kinds
from airside.actors.client.display.results import draw_progress

SHOWN_S = 0.25
"""Between two looks of who watches a notebook: each is a message to the front end."""


def is_in_notebook() -> bool:
    """Whether this process is a notebook's kernel: that something has imported what makes one does not make it one."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


@contextmanager
def progress_of(total: int, *, show: bool) -> Iterator[Callable[[str], None]]:
    """Yield `advance(status)`, which moves the bar by one run; silent unless stderr is a terminal or a notebook."""
    if not show or not (sys.stderr.isatty() or is_in_notebook()):
        yield lambda status: None
        return
    if is_in_notebook():
        yield from _in_notebook(total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    counts: Counter[str] = Counter()
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total)

        def advance(status: str) -> None:
            counts[status] += 1
            text = ", ".join(f"{n} {name}" for name, n in counts.most_common())
            bar.update(task, advance=1, description=text)

        yield advance


def _in_notebook(total: int) -> Iterator[Callable[[str], None]]:
    """As `progress_of`, in an output that is drawn anew: Rich's own needs widgets that a notebook may not have."""
    from IPython.display import display

    progress = BatchProgress(total)
    shown: Any = display(progress, display_id=True)  # type: ignore[no-untyped-call]
    shown_s = time.monotonic()

    def advance(status: str) -> None:
        nonlocal shown_s
        progress.statuses[status] += 1
        if time.monotonic() - shown_s >= SHOWN_S:
            shown.update(progress)
            shown_s = time.monotonic()

    try:
        yield advance
    finally:
        shown.update(progress)


class BatchProgress:
    """How far a batch is, drawn."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.statuses: Counter[str] = Counter()

    def _repr_mimebundle_(self, include: Kinds = None, exclude: Kinds = None) -> dict[str, str]:
        return bundle(lambda: draw_progress(self.total, self.statuses), include, exclude)
