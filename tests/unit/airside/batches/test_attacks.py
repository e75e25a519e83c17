"""What is done to a batch from outside, and what it must not lead to: paying twice, orders unheard, ends unknown."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import duckdb
import msgspec
import pyarrow as pa
import pytest

from airside.actors.client import job_stream
from airside.actors.client.batch_handle import BatchHandle
from airside.actors.client.steps import Steps
from airside.actors.jobs import Job
from airside.batches.coming import as_they_come
from airside.batches.manifest import NAME, Manifest, write_manifest
from airside.batches.options import BatchOptions
from airside.batches.parts import REJECTS, Parts, read_parts
from airside.batches.retry import QUERIES
from airside.batches.row_states import standing_of
from airside.batches.rows import Row
from airside.batches.runner import BatchRunner
from airside.batches.sources import open_source
from airside.stack.errors import InvalidInput
from airside.stack.ids import RunId, undo_key
from airside.stack.operations.batches import BatchChange
from airside.stack.operations.messages import Ticket
from airside.stack.reasons import ReasonCode, RunStatus
from airside.stack.recovery.rollback import RollbackOrdered, UndoEnded, calls_of, rollback_stream
from tests.unit.airside.batches.fake_stack import FakeStack
from tests.unit.airside.batches.test_run_batch import job, results, run
from tests.unit.stack.recovery.test_rollback import FINE, begun, called, ended

# Nothing is paid for twice, and nothing is done twice.


def test_what_completed_with_a_wrong_answer_may_have_changed_something_too() -> None:
    """Run again, it would do again what it did."""
    tables = duckdb.connect()
    tables.execute("CREATE TABLE runs (run_id VARCHAR, batch VARCHAR)")
    tables.execute("CREATE TABLE outcomes (run_id VARCHAR, status VARCHAR)")
    tables.execute("CREATE TABLE events (stream VARCHAR, seq BIGINT, type VARCHAR, step BIGINT, body VARCHAR)")
    for name, status, effect in (("a", "completed", "write"), ("b", "failed", "write"), ("c", "completed", "read")):
        tables.execute("INSERT INTO runs VALUES (?, 'b')", [name])
        tables.execute("INSERT INTO outcomes VALUES (?, ?)", [name, status])
        body = json.dumps({"effect": effect, "intent": True})
        tables.execute("INSERT INTO events VALUES (?, 1, 'ActionGated', 1, ?)", [f"{name}.1", body])
    tables.execute("INSERT INTO events VALUES ('rollback/a', 1, 'RollbackOrdered', 0, '{}')")
    found = {any_may: tables.execute(QUERIES["changed"], ["b", any_may]).fetchall() for any_may in (False, True)}
    assert found[False] == [("b",)] and sorted(found[True]) == [("a",), ("b",)]
    assert tables.execute(QUERIES["rolled_back"], ["b"]).fetchall() == [("a",)]
    assert [name for name, _ in tables.execute(QUERIES["story"], ["rollback/a", "a", "a."]).fetchall()] == [
        "a.1",
        "rollback/a",
    ]


def test_runs_that_completed_are_asked_for_where_answers_have_a_schema(tmp_path: Path) -> None:
    stack, schema = FakeStack(), {"type": "string"}
    run(stack, [job(0, answer=7)], tmp_path / "out", answer_schema=schema)
    stack.changed = [*stack.jobs]
    report = run(stack, [job(0, answer=7)], tmp_path / "out", answer_schema=schema, retry_failed=True)
    assert stack.queries[0] == (QUERIES["changed"], [report.batch, True])
    assert (report.left_out, len(stack.runs)) == (1, 1)


@pytest.mark.parametrize(("outcome", "attempts"), [("undone", 2), ("nothing", 1), ("in_doubt", 1), (None, 1)])
def test_what_was_taken_back_is_run_again(tmp_path: Path, outcome: Any, attempts: int) -> None:
    stack, rows = FakeStack(), [job(0, fails=1)]
    run(stack, rows, tmp_path / "out")
    (name,) = stack.jobs
    driven = begun()
    called(driven, FINE)
    story = ended(driven)
    (call,) = calls_of(story, {})
    undone: list[Any] = [RollbackOrdered(at_us=1, run_id=RunId(name), by=cast("Any", "op"))]
    if outcome is not None:
        fields = {"run_id": call.run_id, "step": call.step, "key": undo_key(call.key), "attempt": 1}
        undone.append(UndoEnded(at_us=2, outcome=outcome, **fields))
    stack.changed = [name]
    stack.streams[name] = [msgspec.json.encode(each).decode() for each in story]
    stack.streams[rollback_stream(RunId(name))] = [msgspec.json.encode(each).decode() for each in undone]
    report = run(stack, rows, tmp_path / "out", retry_failed=True)
    assert (len(stack.runs), report.left_out, report.ok) == (attempts, 2 - attempts, attempts == 2)


def test_a_name_that_was_given_before_is_no_batch_of_other_settings(tmp_path: Path) -> None:
    """Its jobs are the runs there were: their results would be taken for those of another app, policy or schema."""
    stack, rows = FakeStack(), [job(0)]
    run(stack, rows, tmp_path / "one", batch="nightly")
    stack.described = {**stack.described, "app_version": "2"}
    with pytest.raises(InvalidInput, match=r"one of this name, the app's version changed: it was '1', and now is '2'"):
        run(stack, rows, tmp_path / "two", batch="nightly")
    assert not (tmp_path / "two").exists()
    stack.described = {**stack.described, "app_version": "1"}
    report = run(stack, rows, tmp_path / "two", batch="nightly", resume=True)
    assert report.ok and len(stack.runs) == 1, "an output that was lost is written again"


def test_a_name_that_was_given_before_is_no_new_batch_at_another_output(tmp_path: Path) -> None:
    """Nothing would run: who believes that it did reads yesterday's answers."""
    stack, rows = FakeStack(), [job(0)]
    run(stack, rows, tmp_path / "one", batch="nightly")
    said = r"one of this name already, with results in .*/one\. The same jobs .*another name .*--resume .* in .*two"
    with pytest.raises(InvalidInput, match=said):
        run(stack, rows, tmp_path / "two", batch="nightly")
    assert not (tmp_path / "two").exists()
    with pytest.raises(InvalidInput, match="no batch to take up, and the stack has none called nighty"):
        run(stack, rows, tmp_path / "two", batch="nighty", resume=True)
    assert run(stack, rows, tmp_path / "two", batch="nightly-2").ok and len(stack.runs) == 2


def test_the_batch_of_another_stack_is_not_taken_up(tmp_path: Path) -> None:
    rows = [job(0, hangs=True)]

    def interrupt(_: BatchRunner) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(FakeStack(), rows, tmp_path / "out", on_turn=interrupt)
    other = FakeStack()
    with pytest.raises(InvalidInput, match="was run with another --state-dir"):
        run(other, rows, tmp_path / "out", resume=True)
    assert not other.streams and not other.sent


def test_of_two_that_begin_at_an_output_at_once_one_is_refused(tmp_path: Path) -> None:
    stack = FakeStack()

    def meanwhile() -> None:
        if not (tmp_path / "out").exists():
            write_manifest(tmp_path / "out", Manifest(batch="theirs", input={}))

    stack.dies = meanwhile
    with pytest.raises(InvalidInput, match="another process has begun a batch there"):
        run(stack, [job(0)], tmp_path / "out")
    assert not stack.sent and sorted(os.listdir(tmp_path / "out")) == [NAME]
    assert b"theirs" in (tmp_path / "out" / NAME).read_bytes()


# Orders and bounds are heard, whatever the input does.


def test_rows_are_run_as_they_come(tmp_path: Path) -> None:
    """Of a pipe that nobody writes to for now, the rows there are have their results, and orders are followed."""
    stack, pipe = FakeStack(), tmp_path / "pipe"
    os.mkfifo(pipe)
    first, cancelled = threading.Event(), list[int]()

    def write() -> None:
        with pipe.open("w") as file:
            file.write(json.dumps(job(0)) + "\n")
            file.flush()
            first.wait(20)

    writer = threading.Thread(target=write)
    writer.start()

    def turn(runner: BatchRunner) -> None:
        if runner.counts.ended and not cancelled:
            cancelled.append(runner.counts.ended)
            stack.batch("b").cancel()

    report = run(stack, pipe, tmp_path / "out", batch="b", on_turn=turn)
    assert writer.is_alive() and (report.state, report.completed) == ("cancelled", 1)
    first.set()
    writer.join()


def test_an_iterable_that_raises_has_the_results_of_what_it_gave(tmp_path: Path) -> None:
    stack = FakeStack()

    def broken() -> Iterator[Any]:
        yield from (job(number) for number in range(300))
        raise OSError("the database is gone")

    with pytest.raises(OSError, match="the database is gone"):
        run(stack, broken(), tmp_path / "out")
    assert len(results(tmp_path / "out")) == 300
    with pytest.raises(OSError, match="gone"):
        list(as_they_come(iter(cast("Iterator[Row]", broken()))))


def test_rows_that_are_no_jobs_stop_a_batch_as_other_errors_do(tmp_path: Path) -> None:
    (tmp_path / "jobs.jsonl").write_text("nothing\n" * 5_000, encoding="utf-8")
    stack = FakeStack()
    report = run(stack, tmp_path / "jobs.jsonl", tmp_path / "out", stop_after_errors=20)
    assert report.state == "errors" and report.turn.rejected < 500


def test_a_withdrawal_that_is_not_heard_is_ordered_again(tmp_path: Path) -> None:
    stack = FakeStack()
    stack.cancels_late = True
    report = run(stack, [job(0, hangs=True)], tmp_path / "out", item_deadline_s=0.0)
    assert report.state == "finished" and len(stack.cancels) == 2


def test_a_jobs_time_is_not_begun_anew_by_who_takes_the_batch_up(tmp_path: Path) -> None:
    """It counts from the run's admission, by whichever process that was."""
    stack = FakeStack()

    def dies(runner: BatchRunner) -> None:
        if runner.under_way:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(stack, [job(0, hangs=True)], tmp_path / "out", batch="b", item_deadline_s=3_600.0, on_turn=dies)
    stack.submitted_us = int((time.time() - 3_599) * 1e6)
    (hanging,) = stack.jobs

    def waits(runner: BatchRunner) -> None:
        runner._looked_s = -1e9
        if not stack.cancelled:
            runner._since = {run: since - 2 for run, since in runner._since.items()}

    report = run(stack, [job(0, hangs=True)], tmp_path / "out", resume=True, item_deadline_s=3_600.0, on_turn=waits)
    assert report.state == "finished" and stack.cancelled == {hanging}


def test_what_is_requeued_at_the_last_moment_is_run_again(tmp_path: Path) -> None:
    stack = FakeStack()

    def turn(runner: BatchRunner) -> None:
        if runner.counts.ended == 0:
            stack.batch("b").requeue(["j0"])

    run(stack, [job(0), job(1)], tmp_path / "out", batch="b", on_turn=turn)
    assert results(tmp_path / "out") == [(0, 1, "completed"), (0, 2, "completed"), (1, 1, "completed")]


def test_a_batch_that_was_left_takes_no_orders_that_nobody_follows(tmp_path: Path) -> None:
    stack = FakeStack()
    run(stack, [job(0), job(1)], tmp_path / "out", batch="b", only=frozenset({0}))
    with pytest.raises(InvalidInput, match=r"it is stopped: `airside run --rerun"):
        stack.batch("b").requeue(["j0"])


# What is damaged.


def test_a_part_that_is_damaged_leaves_no_batch_that_is_said_to_run(tmp_path: Path) -> None:
    stack = FakeStack()
    run(stack, [job(0)], tmp_path / "out", batch="b")
    (part,) = (tmp_path / "out").glob("*.parquet")
    part.write_bytes(part.read_bytes()[:40])
    with pytest.raises(InvalidInput, match="part-000001"):
        run(stack, [job(0)], tmp_path / "out", resume=True)
    assert stack.batch("b").state().phase == "stopped"
    part.unlink()
    assert run(stack, [job(0)], tmp_path / "out", resume=True).ok and len(stack.runs) == 1


@pytest.mark.parametrize("data", [b"", b'{"batch": "b", "inp', b'{"batch": "\xff", "input": {}}', b"[" * 100_000])
def test_a_manifest_that_is_damaged_is_said_to_be(tmp_path: Path, data: bytes) -> None:
    (tmp_path / NAME).write_bytes(data)
    with pytest.raises(InvalidInput, match="it is no manifest of a batch"):
        run(FakeStack(), [job(0)], tmp_path)


def test_a_schema_that_refers_to_elsewhere_is_refused_and_not_fetched() -> None:
    for place in ("http://127.0.0.1:9/schema", "file:///etc/hostname"):
        with pytest.raises(InvalidInput, match="Retrieval is disabled"):
            BatchOptions(answer_schema={"$ref": place})


def test_orders_are_typed() -> None:
    stack = FakeStack()
    handle: BatchHandle = stack.batch("b")
    with pytest.raises(InvalidInput, match="there is none of this name"):
        handle.change(BatchChange(action="pause"))
    assert open_source([]).may_wait is False


def test_a_stream_that_is_shorter_when_it_is_taken_up_is_another_input(tmp_path: Path) -> None:
    stack = FakeStack()
    run(stack, iter([job(number) for number in range(5)]), tmp_path / "out")
    with pytest.raises(InvalidInput, match=r"shorter, 1 rows, where batch .* has results of 5"):
        run(stack, iter([job(0)]), tmp_path / "out", resume=True)


def test_a_job_that_is_to_be_run_again_and_is_not_there_is_named(tmp_path: Path) -> None:
    stack = FakeStack()
    run(stack, [job(0)], tmp_path / "out")
    report = run(stack, [job(0)], tmp_path / "out", rerun=["j0", "nobody"])
    assert report.turn.unknown == ["nobody"] and len(stack.runs) == 2


def test_no_reject_has_a_token_whatever_its_column_is_called(tmp_path: Path) -> None:
    mapping = {"request": "q", "token": "key", "labels": "q"}
    (tmp_path / "a.csv").write_text("request,token,other\nr,SECRET,1\nr,SECRET\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text("q,key\nr,SECRET\n", encoding="utf-8")
    (tmp_path / "c.jsonl").write_text('{"q": "r", "key": "SECRET"}\n', encoding="utf-8")
    rows = [{"q": "r", "key": "SECRET"}]
    given: list[tuple[Any, dict[str, str] | None]] = [
        (tmp_path / "a.csv", None), (tmp_path / "b.csv", mapping), (tmp_path / "c.jsonl", mapping),
        (rows, mapping), (pa.Table.from_pylist(rows), mapping),
    ]  # fmt: skip
    for number, (jobs, columns) in enumerate(given):
        report = run(FakeStack(), jobs, tmp_path / str(number), columns=columns)
        assert report.turn.rejected == report.rows > 0
        assert "SECRET" not in (tmp_path / str(number) / REJECTS).read_text(encoding="utf-8")


def test_no_more_jobs_are_held_in_memory_than_an_operator_may_order() -> None:
    with pytest.raises(InvalidInput, match="more than 100,000"):
        BatchOptions(concurrency=10**9)


def test_a_part_of_which_a_bit_was_lost_is_not_read(tmp_path: Path) -> None:
    with Parts(tmp_path, "0a1b2c3d") as parts:
        for row in range(50):
            parts.add({"row": row, "attempt": 1, "answer": f'"refund {row}"', "cost_microusd": row})
    (part,) = tmp_path.glob("*.parquet")
    data = part.read_bytes()
    before = list(read_parts(tmp_path))
    found = list[str]()
    for at in range(8, len(data) // 3, 10):
        part.write_bytes(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :])
        try:
            found.append("same" if list(read_parts(tmp_path)) == before else "other")
        except InvalidInput as error:
            found.append("named" if "part-000001" in error.message else error.message)
    assert set(found) <= {"same", "named", "other"} and found.count("named") > len(found) // 2
    assert found.count("other") <= len(found) // 20, "pages have checksums; their headers, a few bytes, have none"


def test_what_may_have_been_admitted_is_not_tried_as_another_run() -> None:
    """It may be under way, and have changed something, though it has no run that is known."""
    assert standing_of(RunStatus.FAILED, ReasonCode.INTERNAL_ERROR, "it may have been admitted") == "unsure"
    assert standing_of(RunStatus.FAILED, ReasonCode.INTERNAL_ERROR, "") == "may_pass"


def test_what_was_given_up_as_unsure_is_retried_as_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often, and by whichever process: it may have been admitted all the same, and is paid for once."""
    monkeypatch.setattr(job_stream, "MOST_UNSURE", 1)

    class Unsure(FakeStack):
        lost = 3

        def enter(self, jobs: Sequence[Job], within_s: float | None) -> Steps[list[Ticket]]:
            tickets = yield from super().enter(jobs, within_s)
            self.lost -= 1
            if self.lost >= 0:
                return [Ticket(reason_code=ReasonCode.INTERNAL_ERROR, message="it may be admitted") for _ in jobs]
            return tickets

    stack, rows = Unsure(), [job(0, fails=1)]
    report = run(stack, rows, tmp_path / "out")
    assert (report.failed, report.may_pass) == (1, 1)
    for _ in range(2):
        assert run(stack, rows, tmp_path / "out", retry_failed=True).may_pass == 1
    report = run(stack, rows, tmp_path / "out", retry_failed=True)
    assert stack.sent == 4 and len(stack.runs) == 1 and report.problems.kinds[0].first.startswith("j0: failed [tool_")
    assert run(stack, rows, tmp_path / "out", retry_failed=True).ok and len(stack.runs) == 2, "that it failed is known"
