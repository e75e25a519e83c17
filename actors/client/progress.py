"""A progress bar for batches, where somebody watches."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_of(total: int, *, show: bool) -> Iterator[Callable[[str], None]]:
    """Yield `advance(status)`, which moves the bar by one run; silent unless stderr is a terminal or a notebook."""
    if not show or not (sys.stderr.isatty() or "ipykernel" in sys.modules):
        yield lambda status: None
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
