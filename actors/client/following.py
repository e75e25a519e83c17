"""`Following`: the open runs of one waiter.  The driver is told of each once, and asked for what has ended since."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from itertools import islice

from airside.actors.client.steps import Steps
from airside.actors.rpc.methods import Ends, WaitRequest

Ask = Callable[[WaitRequest, float | None], Steps[Ends]]

RUNS_A_QUESTION = 1_000
"""Runs the driver is told of in one question: what is found of them may carry large answers."""


class Following:
    """Made on `ask`, which puts one question to the driver; of a driver that has been restarted all is asked anew."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._open: set[str] = set()
        self._pending: set[str] = set()
        self._watch = secrets.token_hex(8)
        self._after: int | None = None
        self._born = ""

    def _begin_anew(self) -> None:
        self._watch, self._after, self._pending = secrets.token_hex(8), None, set(self._open)
        self._born = ""

    def add(self, run_ids: Iterable[str]) -> None:
        """Follow runs from the next question on."""
        new = set(run_ids) - self._open
        self._open |= new
        self._pending |= new

    def next_ends(self, wait_s: float, within_s: float | None) -> Steps[dict[str, bytes]]:
        """Return the `RunEnded` of those that have ended, as soon as there is one or the wait is over.

        The driver is told of every run before it has it wait.  Raises what `ask` does; then nothing is lost, and the
        next question is the same.
        """
        while True:
            told, watch = set(islice(self._pending, RUNS_A_QUESTION)), self._watch
            self._pending -= told
            more = bool(self._pending)
            try:
                wanted = WaitRequest(sorted(told), 0.0 if more else wait_s, watch, self._after)
                reply = yield from self._ask(wanted, within_s)
            except BaseException:
                self._pending |= told
                raise
            if watch != self._watch:
                continue  # another question found the watch gone meanwhile, and began anew
            if not reply.known or reply.born != (self._born or reply.born):
                self._begin_anew()
                continue
            self._born = reply.born
            self._after = max(self._after or 0, reply.upto)
            found = {run_id: body for run_id, body in reply.ends.items() if run_id in self._open}
            self._open -= found.keys()
            if found or not more:
                return found
