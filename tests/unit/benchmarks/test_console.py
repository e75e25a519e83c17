"""A journal that is written again has as many runs as are wanted, and is whole."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from airside.actors.journal.store import JournalStore
from airside.stack.ids import TenantId
from airside.stack.journal.stream import append_of
from airside.stack.operations.batches import BatchChange, BatchChanged, stream_of
from airside.stack.run.events import RunSubmitted
from airside.stack.security.keyring import KeyRing
from benchmarks.console import BATCH, TENANTS, write_again
from tests.unit.actors.client.display.samples import APPROVED, played


def test_what_was_played_is_written_again_under_other_names(tmp_path: Path) -> None:
    """Each run is of one tenant, and all that names it is of its own."""
    events = played(APPROVED)
    assert isinstance(events[0], RunSubmitted)
    run_id, tenant = events[0].run_id, events[0].identity.tenant
    opened = BatchChanged(at_us=events[0].at_us, by=events[0].identity.principal, change=BatchChange(action="open"))
    with closing(JournalStore(tmp_path, KeyRing.open(tmp_path / "keys").chain)) as store:
        appends = [append_of(tenant, run_id, events), append_of(TenantId("airside"), stream_of(BATCH), [opened])]
        assert {reply.verdict for reply in store.commit(appends)} == {"ok"}
    written = write_again(tmp_path, [run_id], 40)
    with closing(JournalStore(tmp_path, KeyRing.open(tmp_path / "keys").chain)) as store:
        ((runs,),) = store.rows("row_count")
        listed = store.rows("listed", "", "", "", 0, False, 99, "", "", 0, "")
        assert len(listed) == 41 and runs == written.entries
        assert {row[1] for row in listed} <= {*TENANTS, tenant}
        assert all(store.bodies([row[0]])[row[0]] for row in listed)
        assert store.verify() == []
