"""Withdrawing jobs whose time is over: each order waits until its run has ended, so they are given side by side."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from airside.actors.client.client import Stack
from airside.stack.errors import AirsideError, LayerUnavailable

THREADS = 8


class Withdrawals:
    """The runs of a batch that are being withdrawn, each ordered until it was heard."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._runs: dict[str, str] = {}
        """With why, if it is for their batch's sake."""

        self._threads = ThreadPoolExecutor(THREADS, "airside-withdraw")

    def note(self, runs: Iterable[str], with_batch: str) -> None:
        """Take in that somebody else withdraws runs, for their batch's sake."""
        for run in runs:
            self._runs.setdefault(run, with_batch)

    def order(self, runs: Iterable[str], why: str, *, with_batch: str = "") -> None:
        """Have runs withdrawn that were not yet; `with_batch` = not for what they did themselves."""
        for run in runs:
            if run not in self._runs:
                self._runs[run] = with_batch
                self._threads.submit(self._cancel, run, why)

    def _cancel(self, run: str, why: str) -> None:
        try:
            self._stack.cancel(run, why)
        except LayerUnavailable:
            self._runs.pop(run, None)  # ordered again at the next look
        except AirsideError:
            pass  # it has ended meanwhile: its result says how

    def ended(self, run: str) -> str:
        """Take in that a run has ended; return why it was withdrawn with its batch, if it was."""
        return self._runs.pop(run, "")

    def close(self) -> None:
        """Order nothing more; what is ordered goes on."""
        self._threads.shutdown(wait=False, cancel_futures=True)
