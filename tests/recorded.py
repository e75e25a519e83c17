"""Runs on record, for the tests of what is made of them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from airside.actors.journal.store import JournalStore
from airside.stack.cycle.in_memory import InMemoryJournal
from airside.stack.ids import TenantId
from airside.stack.journal.journaling import Append
from airside.stack.security.keyring import KeyRing


class Queried:
    """A journal in memory that answers the one query of who reads a run's events."""

    def __init__(self, journal: InMemoryJournal) -> None:
        self._journal = journal

    def query(self, sql: str, parameters: object = ()) -> pa.Table:
        assert isinstance(parameters, list)
        bodies = [body.decode() for body in self._journal.bodies_of(parameters[0])]
        return pa.table({"body": pa.array(bodies, pa.string())})


def write(journal: InMemoryJournal, folder: Path) -> None:
    """Write all that a journal in memory has into one of a state directory."""
    store = JournalStore(folder, KeyRing.open(folder / "keys").chain)
    for stream, entries in journal.streams.items():
        append = Append(tenant=TenantId("acme"), stream=stream, epoch=0, first_seq=0, entries=tuple(entries))
        assert store.commit([append])[0].verdict == "ok"
    store.release()
