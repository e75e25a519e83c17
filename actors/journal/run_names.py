"""What people name a run by: its id, six characters or more of that, or something that is of the run."""

from __future__ import annotations

import re
from typing import Protocol, runtime_checkable

from airside.actors.journal.story import ReadableJournal
from airside.stack.errors import InvalidId
from airside.stack.ids import RunId, is_whole_run
from airside.stack.operations.overview import RunDetail
from airside.stack.short_ids import SHORTEST, ends_of, only_one, uncut


@runtime_checkable
class OfRun(Protocol):
    """Something that is of one run: its handle, its line of a list, its result, an approval or a doubt of it."""

    @property
    def run_id(self) -> str:
        """The run's id."""


RunName = str | OfRun | RunDetail

_TYPED = re.compile(r"[a-z0-9_.-]+", re.ASCII)


def whole_run(journal: ReadableJournal, given: RunName) -> RunId:
    """Return the id of the run that is meant; raise `InvalidId` for what names none, or may name several.

    A whole id is returned as it is, and asked about nowhere.  The beginning of one means a run and none of its
    branches.  A branch's id that is cut at its end may be of another branch: `.1-1...` of `.1-12`.
    """
    text = _text_of(given)
    if is_whole_run(whole := uncut(text)) and ("." not in whole or text.endswith(whole)):
        return RunId(whole)
    ends = ends_of(text)
    if ends is None or _TYPED.fullmatch("".join(ends[0])) is None:
        raise InvalidId(
            f"{text!r:.80} is not a run id: that is run_ and 24 hex digits, with .STEP-BRANCH for a branch; of one "
            f"that the journal has, {SHORTEST} characters of its beginning or end are enough"
        )
    one, other = ends
    found = [run for (run,) in journal.read("named", *one, *other, "." in "".join(one))]
    if not (run := only_one(text, found)):
        raise InvalidId(f"{text!r:.80} is not a run id, nor the beginning or end of one that the journal has")
    return RunId(run)


def _text_of(given: RunName) -> str:
    if isinstance(given, RunDetail):
        return given.run.run_id
    text: object = given.run_id if isinstance(given, OfRun) else given
    if not isinstance(text, str):
        of_it = f", whose run_id is of type {type(text).__name__:.40}," if text is not given else ""
        raise InvalidId(
            f"{type(given).__name__:.40}{of_it} names no run: give its id, or what `submit` or `runs` returned"
        )
    return text
