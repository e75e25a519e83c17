"""The journal's actor without Ray: what may be sent again, what never need be, and who is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pytest

from airside.actors.journal import journal as journal_module
from airside.actors.journal.journal import Journal
from airside.actors.journal.log import SqliteLog
from airside.actors.journal.projection import Projection
from airside.actors.rpc.layer import LayerConfig
from airside.actors.rpc.methods import Sql
from airside.actors.rpc.names import CellAddress
from airside.actors.rpc.stubs import RemoteJournal
from airside.actors.settings import Settings
from airside.stack.cycle.run_log import RunLog
from airside.stack.errors import InternalError, LayerUnavailable, NotWritten, SyncFailed
from airside.stack.ids import TenantId
from airside.stack.journal.journaling import Append, AppendReply, Entry
from airside.stack.operations.messages import Ticket
from airside.stack.policy.kill_switches import KillSwitches
from airside.stack.reasons import ReasonCode
from tests import on_wire
from tests.helpers import RUN, submitted
from tests.journals import KEY, note
from tests.unit.actors.driver.test_driver import LoneDriver

BAD = Append(
    tenant=TenantId("acme"),
    stream="run_b",
    epoch=0,
    first_seq=0,
    entries=(Entry(type="Note", step=1, at_us=1, cause=0, body=b"\xff"),),
)


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    """A journal that has begun."""
    made = Journal(LayerConfig(Settings(state_dir=tmp_path), tmp_path), KEY)
    await made.ready()
    yield made
    await made.stop()


@pytest.fixture
def remote(journal: Journal) -> RemoteJournal:
    """Its stub, which calls it in this process."""
    made = RemoteJournal(CellAddress.of(Settings()))
    made._remote = on_wire.Here(journal, CellAddress.of(Settings(layer_patience_s=0.01)))
    return made


def refuse(error: Exception) -> Any:
    """Return what raises in place of a method."""

    def raising(*_: Any) -> Any:
        raise error

    return raising


async def test_what_was_acknowledged_is_seen_by_every_question(journal: Journal, remote: RemoteJournal) -> None:
    """At once, of the streams and of the tables."""
    replies = await asyncio.gather(*(remote.append(note(f"run_{n}", 0, 2)) for n in range(20)))
    assert {reply.verdict for reply in replies} == {"ok"}
    found = await journal.bodies(["run_3"])
    assert len(found["run_3"]) == 2
    assert (
        len(await remote.rows("unfinished"))
        == len(await remote.rows("listed", "", "", "", 0, True, 99, "", "", 0, ""))
        == 20
    )
    data, problem = await journal.query(Sql("SELECT count(*) AS n FROM events"))
    assert pa.ipc.open_stream(data).read_all().to_pylist() == [{"n": 40}] and problem == ""
    assert await journal.verify(None) == []
    assert (await journal.stats())["behind"] == 0 and (await journal.health())["path"].endswith("journal.sqlite")


async def test_what_can_never_be_written_ends_its_run_and_is_not_sent_again(remote: RemoteJournal) -> None:
    """It comes back as an error that is no layer's being away; its neighbours go in."""
    good, bad = await asyncio.gather(remote.append(note("run_a", 0, 2)), remote.append(BAD))
    assert (good.verdict, bad.verdict) == ("ok", "error") and "can never be journaled" in bad.detail
    log = RunLog(remote, TenantId("acme"), RUN, 0, durable=0)
    log._kept.append(BAD.entries[0])
    with pytest.raises(InternalError, match="can never be journaled"):
        await log.durable()


async def test_what_cannot_be_written_now_is_sent_again(
    journal: Journal, remote: RemoteJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is a layer that is away for a while, and says so."""
    with monkeypatch.context() as patch:
        patch.setattr(SqliteLog, "append", refuse(NotWritten("journal.sqlite: the disk is full")))
        with pytest.raises(LayerUnavailable, match="the disk is full"):
            await remote.append(note("run_a", 0, 2))
        assert (await journal.stats())["problem"] == "journal.sqlite: the disk is full"
    assert (await remote.append(note("run_a", 0, 2))).verdict == "ok"
    assert (await journal.stats())["problem"] == ""


async def test_a_journal_whose_disk_failed_answers_nobody(
    journal: Journal, remote: RemoteJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process ends: only the next one knows what is durable."""

    class Ended(BaseException):
        """The process is gone."""

    def leave(code: int) -> None:
        assert code == 1
        raise Ended

    monkeypatch.setattr(SqliteLog, "append", refuse(SyncFailed("the disk failed")))
    monkeypatch.setattr(journal_module.os, "_exit", leave)
    with pytest.raises(Ended):
        journal_module._committed(journal._store, [note("run_a", 0, 2)])


async def test_a_query_that_cannot_be_answered_in_full_is_no_wrong_query(
    journal: Journal, remote: RemoteJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks learns that the projection is behind; appends go on."""
    with monkeypatch.context() as patch:
        patch.setattr(Projection, "_take_in", refuse(duckdb.IOException("No space left on device")))
        assert (await remote.append(note("run_a", 0, 2))).verdict == "ok"
        for ask in (journal.query(Sql("FROM events")), remote.rows("unfinished")):
            with pytest.raises(LayerUnavailable, match="No space left"):
                await ask
    assert (await journal.query(Sql("SELECT wrong FROM events")))[1].startswith("audit query: ")
    assert len(await remote.rows("unfinished")) == 1


async def test_long_queries_and_checks_hold_up_nothing_that_layers_read(
    journal: Journal, remote: RemoteJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are: they wait for each other, and recovery for none of them."""
    working, go_on = threading.Semaphore(0), threading.Event()

    def long(*_: Any) -> Any:
        working.release()
        assert go_on.wait(60)
        return []

    monkeypatch.setattr(journal._store, "query", long)
    monkeypatch.setattr(journal._store, "verify", long)
    asked = [asyncio.ensure_future(journal.query(Sql("FROM events"))) for _ in range(100)]
    asked += [asyncio.ensure_future(journal.verify(None)) for _ in range(100)]
    await asyncio.to_thread(working.acquire)
    assert (await remote.append(note("run_a", 0, 2))).verdict == "ok"
    read = await asyncio.wait_for(asyncio.gather(remote.rows("unfinished"), journal.bodies(["run_a"])), 60)
    assert len(read[0]) == 1 and len(read[1]["run_a"]) == 2 and not any(each.done() for each in asked)
    go_on.set()
    await asyncio.gather(*asked)


async def test_what_is_sent_to_a_journal_that_stops_is_sent_again(journal: Journal) -> None:
    """It could have been written, and the next process takes it in."""
    await journal.stop()
    reply = await journal.append(note("run_a", 0, 2))
    assert reply.verdict == "later" and "closed" in reply.detail
    journal._started = False


async def test_a_checkpoint_that_cannot_be_written_is_tried_again(
    journal: Journal, remote: RemoteJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk does not end the journal's process over and over."""
    tried, written = asyncio.Event(), asyncio.Event()
    loop, checkpoint = asyncio.get_running_loop(), journal._store.checkpoint
    assert journal._checkpointing is not None
    journal._checkpointing.cancel()
    await remote.append(note("run_a", 0, 2))

    def fails_once(at_us: int) -> None:
        if not tried.is_set():
            loop.call_soon_threadsafe(tried.set)
            raise OSError(28, "No space left on device")
        checkpoint(at_us)
        loop.call_soon_threadsafe(written.set)

    monkeypatch.setattr(journal_module, "CHECKPOINT_S", 0.0)
    monkeypatch.setattr(journal._store, "checkpoint", fails_once)
    journal._checkpointing = asyncio.ensure_future(journal._checkpoints())
    await asyncio.wait_for(written.wait(), 60)
    assert tried.is_set() and not journal._checkpointing.done() and await journal.verify(None) == []


async def test_an_admission_that_can_never_be_written_is_refused() -> None:
    """The driver forgets it, and says so to whoever sends it again meanwhile."""
    it: Any = LoneDriver()
    asked, answer = asyncio.Event(), asyncio.Event()

    class Refusing:
        """A journal that answers late, and never takes it in."""

        async def append(self, append: Append) -> AppendReply:
            """Refuse."""
            asked.set()
            await answer.wait()
            return AppendReply(verdict="error", detail="can never be journaled: it is too large")

    it._journal, it._kill_switches = Refusing(), SimpleNamespace(switches=KillSwitches([]))
    event = msgspec.structs.replace(submitted(), at_us=1)
    first = asyncio.ensure_future(it._enter(event))
    await asyncio.wait_for(asked.wait(), 60)
    again = asyncio.ensure_future(it._enter(event))
    await asyncio.sleep(0)
    answer.set()
    refusals: list[Ticket] = list(await asyncio.gather(first, again))
    assert {refusal.reason_code for refusal in refusals} == {ReasonCode.REQUEST_INVALID}
    assert "too large" in refusals[0].message and it.state() is None and list(it._placement.queue.take()) == []
