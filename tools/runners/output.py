"""What agents and tools print and log: each line gets a mark and whose it is, within a bound a run.

The mark is what a process that follows a stack's output (`actors/process/console.py`) picks out of the workers' log
files; the stack's own lines and Ray's have none.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections import OrderedDict
from typing import TextIO

from airside.stack.cycle.output_source import OutputSource, current_source
from airside.stack.ids import RunId

MAX_LINES = 200
"""Lines of one run that are shown, of one process; the rest is in the process's log file alone."""

MAX_CHARACTERS = 2_000
"""Characters of a line that are shown: Ray's log monitor passes over lines that are much longer."""

_RUNS_KEPT = 1_000

_MARK = "AIRSIDE_OUTPUT_MARK"
"""Where a tool's process of its own finds the mark."""


def mark_of(stack: str) -> str:
    """Return what begins every line that agents and tools of this stack print."""
    return f"::airside {stack}:: "


class MarkedStream(io.TextIOBase):
    """A standard stream of a process that runs other people's code; never fails its writer."""

    def __init__(self, stream: TextIO, mark: str) -> None:
        self._stream = stream
        self._mark = mark
        self._lock = threading.Lock()
        self._begun: OrderedDict[OutputSource, str] = OrderedDict()
        self._lines: OrderedDict[RunId, int] = OrderedDict()

    def write(self, text: str) -> int:
        """Write the stack's own text as it is, other code's line by line with its mark and name."""
        who = current_source()
        if who is None:
            return self._stream.write(text)
        with self._lock:
            *whole, rest = (self._begun.pop(who, "") + text).split("\n")
            for line in whole:
                self._line(who, line)
            if rest:
                self._begun[who] = rest[: MAX_CHARACTERS + 1]  # of a line without end no more is kept than is shown
                if len(self._begun) > _RUNS_KEPT:
                    self._line(*self._begun.popitem(last=False))
        return len(text)

    def _line(self, who: OutputSource, line: str) -> None:
        name, tenant, run_id = who
        count = self._lines.get(run_id, 0) + 1
        self._lines[run_id] = count
        self._lines.move_to_end(run_id)
        if len(self._lines) > _RUNS_KEPT:
            self._lines.popitem(last=False)
        mark = self._mark if count <= MAX_LINES else ""
        shown = line[:MAX_CHARACTERS] + ("... (cut)" if len(line) > MAX_CHARACTERS else "")
        self._out(f"{mark}[{name} {tenant}/{run_id}] {shown}\n")
        if count == MAX_LINES:
            self._out(f"{mark}[{name} {tenant}/{run_id}] (what else this run prints is in the log files only)\n")

    def _out(self, line: str) -> None:
        # A file with an encoding of its own cannot hold every text, and no print of a tool's may fail for that.
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        self._stream.write(line.encode(encoding, errors="backslashreplace").decode(encoding))

    def flush(self) -> None:
        """Flush what stands in whole lines."""
        self._stream.flush()

    def fileno(self) -> int:
        """Return the file beneath, for code that hands it to a child process."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """Say that it can be written to."""
        return True

    def isatty(self) -> bool:
        """Say that nobody sits here."""
        return False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream beneath."""
        return getattr(self._stream, "encoding", None) or "utf-8"


def mark_output(stack: str) -> None:
    """Have what other people's code prints in this process from now on marked; once is enough."""
    os.environ[_MARK] = mark_of(stack)
    mark_like_parent()


def mark_like_parent() -> None:
    """Have what is printed in this process marked as in the one that started it, if it is there."""
    mark = os.environ.get(_MARK, "")
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if mark and not isinstance(stream, MarkedStream):
            setattr(sys, name, MarkedStream(stream, mark))
