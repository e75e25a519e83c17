"""What agents and tools print and log: each line gets a mark and whose it is, within a bound a run.

The mark is what a process that follows a stack's output (`actors/process/console.py`) picks out of the workers' log
files; the stack's own lines and Ray's have none.

Where tools are given secrets, none of them is written: a text that may be the beginning of one is held back until more
of it comes, or the call is over.  What a program writes to the files beneath is not seen here.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TextIO

from airside.stack.cycle.output_source import OutputSource, current_source
from airside.stack.ids import RunId
from airside.tools.secrets.known import KnownSecrets
from airside.tools.secrets.redaction import REDACTED, Redactor

MAX_LINES = 200
"""Lines of one run that are shown, of one process; the rest is in the process's log file alone."""

MAX_CHARACTERS = 2_000
"""Characters of a line that are shown: Ray's log monitor passes over lines that are much longer."""

_RUNS_KEPT = 1_000

_MARK = "AIRSIDE_OUTPUT_MARK"
"""Where a tool's process of its own finds the mark."""


_WRITTEN = "written "
"""Begins, after the mark, what no print is: those begin with the `[` of whose they are."""


def mark_of(stack: str) -> str:
    """Return what begins every line that agents and tools of this stack print."""
    return f"::airside {stack}:: "


def seen_written(line: str) -> str:
    """Return the name of a `say_written`, of a line without its mark; "" of a print."""
    return line.removeprefix(_WRITTEN) if line.startswith(_WRITTEN) else ""


class MarkedStream(io.TextIOBase):
    """A standard stream of a process that runs other people's code; never fails its writer."""

    def __init__(self, stream: TextIO, mark: str, known: KnownSecrets | None = None) -> None:
        self._stream = stream
        self._mark = mark
        self.known = known or KnownSecrets()
        self._lock = threading.Lock()
        self._begun: OrderedDict[OutputSource, str] = OrderedDict()
        self._lines: OrderedDict[RunId, int] = OrderedDict()

    def write(self, text: str) -> int:
        """Write the stack's own text as it is, other code's line by line with its mark and name."""
        who = current_source()
        if who is None:
            self._stream.write(self.known.everybody().text(text))
            return len(text)
        redactor = self.known.of(who[1])
        with self._lock:
            text_so_far = self._begun.pop(who, "") + text
            if redactor:
                text_so_far = redactor.text(text_so_far)
                shown = text_so_far.rfind("\n", 0, redactor.held_from(text_so_far)) + 1
            else:
                shown = text_so_far.rfind("\n") + 1
            for line in text_so_far[:shown].split("\n")[:-1]:
                self._line(who, line)
            if rest := text_so_far[shown:]:
                # Of a line without end no more is kept than is shown, and what tells a secret that is cut off there.
                self._begun[who] = rest[: MAX_CHARACTERS + 1 + 4 * redactor.longest]
                if len(self._begun) > _RUNS_KEPT:
                    self._finish(*self._begun.popitem(last=False))
        return len(text)

    def finish(self, who: OutputSource) -> None:
        """Write what is held back of somebody whose call is over."""
        with self._lock:
            if rest := self._begun.pop(who, ""):
                self._finish(who, rest)

    def _finish(self, who: OutputSource, rest: str) -> None:
        for line in self.known.of(who[1]).end(rest).removesuffix("\n").split("\n"):
            self._line(who, line)

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
        if count == MAX_LINES and self._mark:
            self._out(f"{mark}[{name} {tenant}/{run_id}] (what else this run prints is in the log files only)\n")

    def _out(self, line: str) -> None:
        # A file with an encoding of its own cannot hold every text, and no print of a tool's may fail for that.
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        self._stream.write(line.encode(encoding, errors="backslashreplace").decode(encoding))

    def say_written(self, name: str) -> bool:
        """Write a line after all that is written so far, by which who follows the file knows; False without a mark."""
        if self._mark:
            self._out(f"{self._mark}{_WRITTEN}{name}\n")
            self._stream.flush()
        return bool(self._mark)

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


def redact_output(known: KnownSecrets) -> None:
    """Have nothing that is printed or logged in this process from now on show a secret that is known then."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, MarkedStream):
            stream.known = known
        else:
            setattr(sys, name, MarkedStream(stream, "", known))
    logging.Logger.handle = _redacting(known)  # type: ignore[assignment,method-assign]


def finish_output(who: OutputSource) -> None:
    """Have what is held back of what somebody printed written: the call is over."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, MarkedStream):
            stream.finish(who)


def say_written(name: str) -> int:
    """Say in this process's marked streams, by a name, that all before has been written; return in how many."""
    return sum(isinstance(each, MarkedStream) and each.say_written(name) for each in (sys.stdout, sys.stderr))


_HANDLE = logging.Logger.handle


def _redacting(known: KnownSecrets) -> Callable[[logging.Logger, logging.LogRecord], None]:
    """Return what passes log records on without secrets, whatever handler writes them where.

    It is done where a record is whole: its maker does not see its `extra`.
    """

    def handle(logger: logging.Logger, record: logging.LogRecord) -> None:
        who = current_source()
        redactor = known.of(who[1]) if who else known.everybody()
        if redactor:
            _redact(record, redactor)
        _HANDLE(logger, record)

    return handle


_OF_RECORDS = frozenset(vars(logging.makeLogRecord({})))


def _redact(record: logging.LogRecord, redactor: Redactor) -> None:
    """Take secrets out of a record; the text of an exception is made here, so that it can be redacted."""
    for name in vars(record).keys() - _OF_RECORDS:
        setattr(record, name, _redacted(vars(record)[name], redactor))
    if record.stack_info:
        record.stack_info = redactor.text(record.stack_info)
    try:
        message = record.getMessage()
    except Exception:  # of a wrong format: its handler says so, and prints the arguments
        record.msg, record.args = "a log message whose arguments do not fit its text", ()
    else:
        if (shown := redactor.text(message)) != message:
            record.msg, record.args = shown, ()
    if record.exc_info:
        said = logging.Formatter().formatException(record.exc_info)
        if (shown := redactor.text(said)) != said:
            record.exc_text, record.exc_info = shown, None


def _redacted(value: Any, redactor: Redactor) -> Any:
    """Return a value of `extra` without secrets; what is no JSON as a text if that has one."""
    try:
        if type(value) in (str, dict, list, int, float, bool, type(None)):
            return redactor.value(value)
        shown = redactor.text(said := str(value))
    except Exception:  # other people's values, and a log never fails its writer
        return REDACTED
    return value if shown == said else shown
