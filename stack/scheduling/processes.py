"""The runtime processes of a cell: one a group of runs, never more at once than there may be.  Pure.

A group is a tenant, a member of the pool, or runs that are kept apart.  A process that died is never started again
under its key: its group gets another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from airside.stack.scheduling.placement_state import ProcessState, RuntimeProcess


class ProcessTable:
    """`most` bounds those that run or are being started; `mint` makes what no other key ever had."""

    def __init__(self, most: int, mint: Callable[[], str]) -> None:
        self._most = most
        self._mint = mint
        self._all: dict[str, RuntimeProcess] = {}
        self._by_group: dict[str, RuntimeProcess] = {}
        self._waiting: deque[RuntimeProcess] = deque()

    def get(self, key: str) -> RuntimeProcess | None:
        """Return a process, if it is not known dead."""
        return self._all.get(key)

    def of_group(self, group: str) -> RuntimeProcess:
        """Return the process that new runs of a group go to; where there is none, one that waits for room."""
        process = self._by_group.get(group)
        if process is None:
            process = self._add(f"{group}/{self._mint()}", ProcessState.WAITING)
            self._waiting.append(process)
        return process

    def _add(self, key: str, state: ProcessState) -> RuntimeProcess:
        process = RuntimeProcess(key, key.partition("/")[0], state)
        self._all[key] = self._by_group[process.group] = process
        return process

    def find(self, key: str) -> None:
        """Take in a process that lives already."""
        self._add(key, ProcessState.LIVE)

    def start_next(self) -> RuntimeProcess | None:
        """Return a process that is to be started now: somebody waits for it, and there is room."""
        while self._waiting:
            process = self._waiting[0]
            if process.runs and self.running >= self._most:
                return None
            self._waiting.popleft()
            if process.runs:
                process.state = ProcessState.STARTING
                return process
            self.forget(process.key)  # who waited for it is over
        return None

    @property
    def lacks_room(self) -> bool:
        """Whether more processes wait for room than are about to give theirs."""
        leaving = sum(process.state is ProcessState.LEAVING for process in self._all.values()) if self._waiting else 0
        return len(self._waiting) > leaving

    @property
    def running(self) -> int:
        """How many run or are being started."""
        return len(self._all) - len(self._waiting)

    def leave(self, process: RuntimeProcess) -> None:
        """Take in that a process was ordered to end: its group gets another."""
        process.state = ProcessState.LEAVING
        self._drop_group(process)

    def forget(self, key: str) -> RuntimeProcess | None:
        """Take in that a process is gone, and return it."""
        process = self._all.pop(key, None)
        if process is not None:
            self._drop_group(process)
        return process

    def _drop_group(self, process: RuntimeProcess) -> None:
        if self._by_group.get(process.group) is process:
            del self._by_group[process.group]

    def live(self) -> Iterator[RuntimeProcess]:
        """Yield those that are up and to stay."""
        return (process for process in list(self._all.values()) if process.state is ProcessState.LIVE)

    def __iter__(self) -> Iterator[RuntimeProcess]:
        return iter(list(self._all.values()))
