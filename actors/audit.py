"""Reading a journal, whether its stack runs or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import duckdb
import pyarrow as pa

from airside.actors.journal_store import JournalStore
from airside.actors.launch import connect
from airside.stack.errors import InvalidInput, Misuse
from airside.stack.events import decode_event
from airside.stack.ids import parse_run
from airside.stack.keyring import KeyRing
from airside.stack.story import tell


class Audit(Protocol):
    """What can be asked of a journal."""

    def verify(self) -> list[str]:
        """Return what is wrong with the chains and checkpoints."""

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """Answer one SELECT."""

    def story(self, run_id: str) -> str:
        """Tell a run."""


class JournalFile:
    """A journal whose stack does not run."""

    def __init__(self, store: JournalStore) -> None:
        self._store = store

    def verify(self) -> list[str]:
        """Return what is wrong with the chains and checkpoints."""
        return self._store.verify()

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """Answer one SELECT."""
        return pa.ipc.open_stream(self._store.query(sql, parameters)).read_all()

    def story(self, run_id: str) -> str:
        """Tell a run; raise `InvalidInput` if the journal has no such run."""
        bodies = self._store.bodies([parse_run(run_id)])[run_id]
        if not bodies:
            raise InvalidInput(f"the journal has no run {run_id}")
        return tell([decode_event(body) for body in bodies])


@contextmanager
def open_audit(state_dir: Path) -> Iterator[Audit]:
    """Yield the journal of a state directory: through the stack if it runs, else from the file."""
    if (state_dir / "stack.json").exists():
        try:
            stack = connect(state_dir)
        except Misuse:
            pass  # it was killed and left its record behind
        else:
            with stack:
                yield stack
            return
    if not (state_dir / "journal.duckdb").exists():
        raise Misuse(f"{state_dir} has no journal")
    try:
        store = JournalStore(state_dir, KeyRing.open(state_dir / "keys").chain)
    except duckdb.IOException as error:
        raise Misuse(f"{state_dir / 'journal.duckdb'} is in use: {error}") from None
    yield JournalFile(store)
    store.release()
