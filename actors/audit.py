"""Reading a journal, whether its stack runs or not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import duckdb
import msgspec
import pyarrow as pa

from airside.actors.client.batch_handle import BatchHandle
from airside.actors.client.client import Stack
from airside.actors.client.display.formatters import as_answer
from airside.actors.client.display.listed import BatchList, InDoubtList, Listed, RunList, Story
from airside.actors.client.display.timeline import timeline_of
from airside.actors.driver.in_doubt import list_in_doubt
from airside.actors.driver.spend_in_doubt import list_spend_in_doubt
from airside.actors.jobs import batch_job
from airside.actors.journal.batches import BatchSummary, list_batches
from airside.actors.journal.log import JOURNAL
from airside.actors.journal.overview import list_runs, show_run
from airside.actors.journal.place import has_journal
from airside.actors.journal.reader import JournalReader
from airside.actors.journal.run_names import RunName, whole_run
from airside.actors.journal.story import read_story
from airside.actors.launch import connect
from airside.stack.errors import Misuse, Unreadable
from airside.stack.ids import RunId
from airside.stack.operations.batches import BatchChange
from airside.stack.operations.overview import RunDetail, RunSummary
from airside.stack.recovery.in_doubt import InDoubtCall
from airside.stack.recovery.spend_in_doubt import SpendInDoubt
from airside.stack.security.keyring import read_chain_key


class Audit(Protocol):
    """What can be asked of a journal."""

    def verify(self) -> list[str]:
        """Return what is wrong with the chains and checkpoints."""

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """Answer one SELECT."""

    def story(self, run_id: RunName) -> str:
        """Tell a run."""

    def runs(self, **filters: Any) -> list[RunSummary]:
        """List runs, newest first."""

    def inspect(self, run_id: RunName) -> RunDetail:
        """Return one run with each of its steps and waits."""

    def batches(self, *, limit: int = 100) -> list[BatchSummary]:
        """Return batches, newest first."""

    def batch(self, batch: str) -> BatchHandle:
        """Return a batch by its name."""

    def in_doubt(self, tenant: str | None = None) -> list[InDoubtCall]:
        """Return the calls in doubt, oldest first."""

    def spend_in_doubt(self, tenant: str | None = None) -> list[SpendInDoubt]:
        """Return the attempts at questions to models of which nobody knows what they cost, oldest first."""


def run_named(journal: Audit, given: RunName) -> RunId:
    """Return the id of the run that is meant, as `whole_run`, by whatever `open_audit` yields."""
    if isinstance(journal, Stack):
        return RunId(journal.handle(given).run_id)
    assert isinstance(journal, JournalFile)
    return journal.run_named(given)


class JournalFile:
    """The journal of a directory on which no stack runs: nothing in the directory is changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reader = JournalReader.open(folder, b"")

    def bodies(self, streams: Sequence[str]) -> dict[str, list[str]]:
        """Return the events of streams as JSON, oldest first; raise `Unreadable` for a damaged file."""
        with self._readable():
            return self._reader.bodies(list(streams))

    def read(self, name: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a named query; raise `Unreadable` for a damaged file."""
        with self._readable():
            return self._reader.read(name, parameters)

    def verify(self) -> list[str]:
        """Return what is wrong with the chains and checkpoints; raise `Misuse` without the key they are made with."""
        self._reader.chain_key = read_chain_key(self._folder / "keys")
        return self._reader.verify()

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """Answer one SELECT."""
        return as_answer(pa.ipc.open_stream(self._reader.query(sql, parameters)).read_all())

    def run_named(self, given: RunName) -> RunId:
        """Return the id of the run that is meant; raise `InvalidId` for what names none, or may name several."""
        with self._readable():
            return whole_run(self, given)

    def story(self, run_id: RunName) -> str:
        """Tell a run; raise `InvalidInput` if the journal has no such run."""
        with self._readable():
            text, events = read_story(self, whole_run(self, run_id))
            return Story(text, timeline_of(events))

    def runs(self, **filters: Any) -> list[RunSummary]:
        """List runs, newest first, as `Stack.runs`."""
        with self._readable():
            return RunList(list_runs(self, **filters))

    def inspect(self, run_id: RunName) -> RunDetail:
        """Return one run with each of its steps and waits."""
        with self._readable():
            return show_run(self, whole_run(self, run_id))

    def batches(self, *, limit: int = 100) -> list[BatchSummary]:
        """Return batches, newest first."""
        with self._readable():
            return BatchList(list_batches(self, limit))

    def batch(self, batch: str) -> BatchHandle:
        """Return a batch by its name, to look at it: orders are a running stack's."""
        return BatchHandle(batch_job(batch, 1, 0).id, self, self._no_order)

    def _no_order(self, batch: str, change: BatchChange, why: str) -> None:
        raise Misuse(f"batch {batch}: no stack is up in {self._folder}, and a batch is changed where it runs")

    def in_doubt(self, tenant: str | None = None) -> list[InDoubtCall]:
        """Return the calls in doubt, oldest first."""
        with self._readable():
            return InDoubtList(list_in_doubt(self, tenant))

    def spend_in_doubt(self, tenant: str | None = None) -> list[SpendInDoubt]:
        """Return the attempts at questions to models of which nobody knows what they cost, oldest first."""
        with self._readable():
            return Listed(list_spend_in_doubt(self, tenant))

    def close(self) -> None:
        """Close the file."""
        self._reader.release()

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (duckdb.Error, msgspec.MsgspecError) as error:
            raise Unreadable(f"{self._folder / JOURNAL}: it is damaged, or no journal: {error}") from None


def journal_file(state_dir: Path) -> JournalFile:
    """Open the journal of a directory on which no stack runs.

    Raises `Misuse` if there is none, and `Unreadable` if the file is no journal, is cut, or is in use.
    """
    if not has_journal(state_dir):
        raise Misuse(f"{state_dir} has no journal")
    return JournalFile(state_dir)


@contextmanager
def open_audit(state_dir: Path | str) -> Iterator[Audit]:
    """Yield the journal of a state directory: through the stack that runs on it, else from the file itself."""
    state_dir = Path(state_dir)
    with contextlib.ExitStack() as opened:
        journal: Audit
        try:
            journal = opened.enter_context(connect(state_dir))
        except Misuse:  # no stack runs on it; of a copy, whatever its record says
            journal = opened.enter_context(contextlib.closing(journal_file(state_dir)))
        yield journal
