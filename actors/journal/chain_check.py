"""Checking every tenant's chain while the journal is written: links and checkpoints, beside whatever else is done.

What was found is kept until the next check, so that whoever asks is answered at once, and asking costs nothing.  A
check reads the log from its beginning, at half the pace at which it could: appends go first.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from airside.actors.journal.checkpoints import read_checkpoints
from airside.actors.journal.log_port import LogReader
from airside.actors.journal.verify import Chains
from airside.stack.errors import Unreadable
from airside.stack.operations.questions import ChainStanding

ANEW_US = 60_000_000
"""Between the end of a check and the beginning of the next one."""

_PIECE = 500
"""Entries between two pauses: some milliseconds of work, for which an append may have to wait."""


@dataclass(frozen=True, slots=True)
class ChainsFound:
    """What a check found, and when it began: of each tenant how many entries are whole, and what is wrong."""

    at_us: int = 0
    whole: dict[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def problem_of(self, tenant: str) -> str:
        """Return what is wrong with a tenant's chain; of what is wrong with all of the log, that."""
        ours = [each for each in self.problems if each.startswith(f"tenant {tenant}: ")]
        others = [each for each in self.problems if not each.startswith("tenant ")]
        return "; ".join([*ours, *others])


class ChainCheck:
    """One check at a time, of one log, in a thread of its own."""

    def __init__(self, folder: Path, key: bytes, log: LogReader, now_us: Callable[[], int]) -> None:
        self._folder = folder
        self._key = key
        self._log = log
        self._now_us = now_us
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self.found = ChainsFound()

    @property
    def is_under_way(self) -> bool:
        """Whether chains are being checked."""
        return self._thread is not None and self._thread.is_alive()

    def begin(self) -> None:
        """Begin to check, if that is not under way, or was done just now."""
        with self._starting:
            just_now = self.found.at_us and self._now_us() - self.found.at_us < ANEW_US
            if not (self.is_under_way or just_now or self._over.is_set()):
                self._thread = threading.Thread(target=self._run, name="chains", daemon=True)
                self._thread.start()

    def standing(self, tenant: str, entries: int) -> ChainStanding:
        """Return how a tenant's chain stands, which has so many entries."""
        found = self.found
        return ChainStanding(
            tenant=tenant,
            entries=entries,
            checked=found.whole.get(tenant, 0),
            checked_us=found.at_us,
            problem=found.problem_of(tenant),
            checking=self.is_under_way,
        )

    def close(self) -> None:
        """End a check that is under way."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        began_us = self._now_us()
        problems: list[str] = []
        wanted = read_checkpoints(self._folder, self._key, problems)
        chains = Chains(self._key, wanted)
        try:
            for rows in self._log.chunks(0, self._log.last(), tolerant=True):
                for place in range(0, len(rows), _PIECE):
                    began = time.perf_counter()
                    chains.take(row[1:] for row in rows[place : place + _PIECE])
                    if self._over.wait(time.perf_counter() - began):
                        return
            chains.end()
        except Unreadable:  # where it lies is told to who runs the stack
            problems.append("the log cannot be read: `airside audit verify` says why")
        whole = {tenant: number + 1 for tenant, (number, _) in chains.heads.items()}
        self.found = ChainsFound(began_us, whole, tuple(problems + chains.problems))
