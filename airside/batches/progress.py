"""How far a batch is: a line that moves in a terminal or a notebook, a JSON line now and then where it is piped."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from airside.actors.client.progress import Progress, is_watched, never_failing, progress_bar
from airside.batches.runner import BatchRunner
from airside.output import json_line

LINE_S = 10.0
"""Between two lines that are written where nobody's terminal is."""

TICK_S = 2.0
"""Without a turn after which the stack is looked at: a submission waits for as long as the journal's disk is full."""

_REASONS = 3


class Pace:
    """What a batch's progress comes to: its rate since it began, and when it is over, where the rows are counted."""

    def __init__(self, total: Callable[[], int | None], clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._clock = clock
        self._began_s = clock()

    def of(self, runner: BatchRunner) -> dict[str, object]:
        """Return the figures of now."""
        counts = runner.counts
        seconds = max(1e-9, self._clock() - self._began_s)
        rate = counts.ended / seconds
        total = self._total()
        left = None if total is None else max(0, total - counts.passed_over - counts.ended)
        why = Counter[str]()
        for (_, reason), n in counts.outcomes.copy().items():  # at once: whoever ticks is another thread
            why[reason] += n if reason != "completed" else 0
        return {
            "ended": counts.ended,
            "of": total,
            "completed": counts.completed,
            "failed": {reason: n for reason, n in why.most_common(_REASONS) if n},
            "under_way": runner.under_way,
            "waiting_for_people": min(runner.waiting_for_people, runner.under_way),  # which was looked at before
            "passed_over": counts.passed_over,
            "rate_per_s": round(rate, 2),
            "eta_s": round(left / rate) if left is not None and rate > 0 else None,
            "cost_usd": round(counts.cost_microusd / 1e6, 6),
            "tokens": counts.tokens,
            "paused": runner.is_paused,
            "problem": runner.problem,
        }

    def drawn(self, runner: BatchRunner) -> Progress:
        """Return the figures of now, to be seen."""
        counts = runner.counts
        statuses = Counter[str]()
        for (status, _), n in counts.outcomes.copy().items():
            statuses[status] += n
        return Progress(counts.ended + counts.passed_over, self._total(), statuses, described(self.of(runner)))


@contextmanager
def shown(total: Callable[[], int | None], *, show: bool = True) -> Iterator[Callable[[BatchRunner], None]]:
    """Yield what is told of each turn, and shows it on stderr: a bar where somebody watches, else JSON lines.

    It goes on where no turn comes, and then says whether the stack stands still.
    """
    if not show:
        yield lambda runner: None
        return
    pace = Pace(total)
    with contextlib.ExitStack() as opened:
        put = never_failing(_lines(pace))
        if is_watched():
            draw = opened.enter_context(progress_bar(total(), show=True))
            put = lambda runner: draw(lambda: pace.drawn(runner))  # noqa: E731 - the other of two
        yield opened.enter_context(_ticking(put))


@contextmanager
def _ticking(put: Callable[[BatchRunner], None]) -> Iterator[Callable[[BatchRunner], None]]:
    """Yield what is told of each turn; where none comes for a while, a thread looks at the stack, and shows it."""
    guard, left = threading.Lock(), threading.Event()
    latest: BatchRunner | None = None
    turned_s = time.monotonic()

    def turn(runner: BatchRunner) -> None:
        nonlocal latest, turned_s
        with guard:
            latest, turned_s = runner, time.monotonic()
            put(runner)

    look = never_failing(BatchRunner.look_at_journal)

    def tick() -> None:
        while not left.wait(TICK_S):
            if latest is None or time.monotonic() - turned_s < TICK_S:
                continue
            look(latest)
            with guard:
                if not left.is_set():
                    put(latest)

    thread = threading.Thread(target=tick, name="airside-progress", daemon=True)
    thread.start()
    try:
        yield turn
    finally:
        left.set()
        thread.join()


def described(figures: dict[str, object]) -> str:
    """Return progress as a line for people."""
    failed = figures["failed"]
    parts = [f"STANDS STILL: {figures['problem']}"] if figures["problem"] else []  # first: a line is cut at its end
    parts += ["PAUSED"] if figures["paused"] else []
    parts.append(f"{figures['completed']} completed")
    parts += [f"{n} {reason}" for reason, n in failed.items()] if isinstance(failed, dict) else []
    waiting = figures["waiting_for_people"]
    of_them = f" ({waiting} {'waits' if waiting == 1 else 'wait'} for people)" if waiting else ""
    parts.append(f"{figures['under_way']} under way{of_them}")
    parts.append(f"{figures['rate_per_s']}/s")
    if figures["eta_s"] is not None:
        parts.append(f"{figures['eta_s']} s left")
    if figures["cost_usd"]:
        parts.append(f"${figures['cost_usd']}")
    return ", ".join(parts)


def _lines(pace: Pace) -> Callable[[BatchRunner], None]:
    last_s, problem = time.monotonic(), ""

    def turn(runner: BatchRunner) -> None:
        nonlocal last_s, problem
        if time.monotonic() - last_s >= LINE_S or runner.problem != problem:
            last_s, problem = time.monotonic(), runner.problem
            print(json_line({"progress": pace.of(runner)}), file=sys.stderr, flush=True)

    return turn
