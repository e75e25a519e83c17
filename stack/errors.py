"""The one tree of errors.

    AirsideError
    |-- Refused              somebody may not do this: carries a ReasonCode
    |   |-- AuthRefused
    |   |-- AdmissionRefused     with retry_after_s
    |   `-- VotesRefused         with the approvals on which a vote on several would not have counted
    |-- Failed               a layer could not do its work
    |   |-- LayerUnavailable     retryable: the actor is down or being restarted
    |   |-- ItemFailed           a layer that is up could not read, handle or answer this one item
    |   |-- MemoryFailed         a tenant's memory cannot be read or written; says which file
    |   |-- Unreadable           a journal's file cannot be opened or read; says which
    |   |-- NotWritten           the journal can write nothing now; tried again it may
    |   |-- SyncFailed           the journal's disk failed: its process must end, and the next one reads what is durable
    |   `-- Behind               the journal's projection lacks entries of the log: queries would miss them
    |-- Misuse               the caller's input or configuration is wrong: says what, where and what to do
    |   |-- InvalidId
    |   |-- InvalidInput
    |   |-- InvalidConfig
    |   `-- WrongCall            an argument that does not exist, is missing or has no name; both of the above
    `-- InternalError        a promise of ours is broken: report this
        |-- IllegalTransition
        |-- InvariantBroken
        `-- Fenced               a newer activation of this run exists; this one must stop

Inside the stack a denial is a value (`Decision`), never an exception; errors are for the edges.  Every error is
built from one message and keyword details, and pickles through `__reduce__` here, so that it survives a Ray call.

What other people's code raises becomes text through `text_of` alone: its own methods may raise, and what they return
may be of any length, or no text that can be encoded.
"""

from __future__ import annotations

from traceback import StackSummary, walk_tb
from types import FrameType
from typing import Any, ClassVar

MAX_TEXT_CHARS = 4_000
"""Of an error, as journaled and shown: a sentence and some context, not a dump."""


def plain(value: object, limit: int | None = None) -> str:
    """Return anything as text that can be encoded, whatever its own methods do; a lone surrogate is escaped."""
    try:
        text = str.__str__(str(value))[:limit]
    except BaseException as worse:
        text = f"its text cannot be had ({_name(worse)})"
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def text_of(error: BaseException, limit: int = MAX_TEXT_CHARS) -> str:
    """Return an error as text, at most `limit` characters of it, which can be encoded; never raises.

    One of ours is its message; any other begins with its type.
    """
    if issubclass(type(error), AirsideError):
        message = plain(error.__dict__.get("message", ""), limit)
        if message:
            return message[:limit]
    text = plain(error, limit)
    return (f"{_name(error)}: {text}" if text else _name(error))[:limit]


_NOT_THE_CALLERS = frozenset({"airside", "IPython", "asyncio", "ray"})
"""Whose frames are neither of the notebook's own code nor of a library that it uses: ours, and what runs or waits."""


def _is_callers(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] not in _NOT_THE_CALLERS


def notebook_traceback(error: BaseException, *, is_whole: bool = False) -> list[str]:
    """Return what a notebook shows of an error: what it says, and where in the notebook's own code, or all of where.

    IPython asks an error for it, by `_render_traceback_`:
    https://ipython.readthedocs.io/en/stable/config/integrating.html#custom-exception-tracebacks
    """
    frames = [each for each in walk_tb(error.__traceback__) if is_whole or _is_callers(each[0])]
    where = ["Traceback (most recent call last):", *StackSummary.extract(iter(frames)).format()] if frames else []
    text, cause = plain(error), error.__cause__
    what = [f"{_name(error)}: {text}" if text else _name(error), *getattr(error, "__notes__", ())]
    why = [f"because of {_name(cause)}: {text_of(cause)}"] if cause is not None else []
    return [line.rstrip("\n") for line in (*where, *what, *why)]


def _name(error: BaseException) -> str:
    return plain(type.__dict__["__name__"].__get__(type(error)))


class AirsideError(Exception):
    """Base of everything Airside raises on purpose.

    The message may be anything that says what is wrong, an exception too: what is kept of it is its text.
    """

    def __init__(self, message: object = "", *more: object, **details: Any) -> None:
        parts = [_said(part) for part in (message, *more) if part is not None]
        self.message = " ".join(part for part in parts if part)
        super().__init__(self.message)
        self.details = details

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.details)

    def _render_traceback_(self) -> list[str]:
        return notebook_traceback(self, is_whole=self._is_internal)

    _is_internal: ClassVar[bool] = False
    """Whether where in our own code it was raised is of use to whoever sees it."""


def _said(part: object) -> str:
    return text_of(part) if isinstance(part, BaseException) else plain(part)


def _rebuild(kind: type[AirsideError], message: str, details: dict[str, Any]) -> AirsideError:
    return kind(message, **details)


class Refused(AirsideError):
    """Refused by policy, budget, identity or admission; `details["reason"]` is the `ReasonCode`'s value."""

    @property
    def reason(self) -> str:
        return str(self.details.get("reason", "internal_error"))


class AuthRefused(Refused):
    """Nobody we know sent this."""


class AdmissionRefused(Refused):
    """The tenant's queue is full; `retry_after_s` says when to try again."""

    @property
    def retry_after_s(self) -> float:
        return float(self.details.get("retry_after_s", 1.0))


class VotesRefused(Refused):
    """A vote on several approvals counts on none of them.

    `refused` are those on which it would not have counted: the approval's id, the code, and why.
    """

    @property
    def refused(self) -> tuple[tuple[str, str, str], ...]:
        return tuple(self.details.get("refused", ()))


class Failed(AirsideError):
    """A layer could not do its work."""


class LayerUnavailable(Failed):
    """An actor did not answer; it may be restarting.  Retryable."""


class ItemFailed(Failed):
    """A layer that is up could not read, handle or answer one item.  Sent again it fails again."""


class MemoryFailed(Failed):
    """A tenant's memory cannot be read or written."""


class Unreadable(Failed):
    """A journal cannot be opened or read: it is in use, no journal, cut or damaged."""


class Unreachable(Unreadable):
    """The server that keeps a journal does not answer now."""


class NotWritten(Failed):
    """The journal cannot be written now: its disk is full, its server is away, or somebody else writes to it."""


class SyncFailed(Failed):
    """A write of the journal's failed in a way that leaves open what is durable."""


class Behind(Failed):
    """The journal's projection cannot take in what the log has."""


class Misuse(AirsideError):
    """The caller's input or configuration is wrong."""


class InvalidId(Misuse):
    """Text that is not an id of the kind asked for."""


class InvalidInput(Misuse):
    """A job, a request or an argument that breaks its contract."""


class InvalidConfig(Misuse):
    """A policy bundle, a directory or a setting that breaks its contract."""


class WrongCall(InvalidConfig, InvalidInput, TypeError):
    """A call of ours with an argument that does not exist, is missing, or has no name."""


class InternalError(AirsideError):
    """A promise of ours is broken: report this with the story it carries."""

    _is_internal = True


class IllegalTransition(InternalError):
    """An event the run's phase has no row for; the run's state is unchanged."""


class InvariantBroken(InternalError):
    """A numbered invariant of `RunMachine` does not hold."""


class Fenced(InternalError):
    """A newer activation of this run exists: this one stops and writes nothing more."""
