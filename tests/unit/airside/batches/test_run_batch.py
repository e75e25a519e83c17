"""A batch without Ray: every row has one disposition whatever dies, and nothing is run twice that need not be."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import re
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, cast

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from pydantic import BaseModel

import airside
from airside.actors.client.client import Stack
from airside.actors.client.known_principals import write_people
from airside.batches import output
from airside.batches.dry_run import CheckedRows, Premises, check_rows
from airside.batches.manifest import read_manifest
from airside.batches.options import BatchOptions
from airside.batches.parts import REJECTS, Parts, read_parts
from airside.batches.pilot import extrapolated, run_pilot
from airside.batches.progress import Pace, described
from airside.batches.row_states import RowStates, standing_of
from airside.batches.run import BatchInterrupted, BatchReport, run_batch
from airside.batches.runner import BatchRunner, TakenOver
from airside.batches.sources import open_source
from airside.run_cli import _what_is_left
from airside.stack.directory import load_directory
from airside.stack.errors import Failed, InvalidInput
from airside.stack.operations.batches import BatchChange
from airside.stack.policy.kill_switches import KillSwitchChanged
from airside.stack.reasons import ReasonCode, RunStatus
from tests.unit.airside.batches.fake_stack import Died, FakeStack

FREE = "{version: v, rules: [{id: all, outcome: allow}]}"


def _look() -> str:
    """Look."""
    return "text"


def job(number: int, **inputs: Any) -> dict[str, Any]:
    """Return a row that is a job."""
    return {"job_id": f"j{number}", "request": "r", "tenant": "acme", "principal": "ana", "inputs": inputs}


def run(stack: FakeStack, jobs: Any, out: Path | str, **more: Any) -> BatchReport:
    """Run a batch on a stack that is none."""
    return run_batch(cast("Stack", stack), jobs, out=out, **more)


def results(out: Path) -> list[tuple[int, int, str]]:
    """Return row, attempt and reason of every result."""
    columns = ("row", "attempt", "reason_code")
    found = [
        each
        for batch in read_parts(out, columns)
        for each in zip(*(batch.column(n).to_pylist() for n in columns), strict=True)
    ]
    return sorted(found)


def test_every_row_has_a_disposition_and_what_is_none_is_a_reject(tmp_path: Path) -> None:
    lines = [
        json.dumps(job(0)),
        "not json",
        json.dumps({**job(2), "bogus": 1}),
        json.dumps({**job(3), "tenant": "nobody"}),
    ]
    (tmp_path / "jobs.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    report = run(FakeStack(), tmp_path / "jobs.jsonl", tmp_path / "out")
    assert (report.rows, report.completed, report.failed, report.state) == (4, 1, 3, "finished") and not report.ok
    drawn = report._repr_mimebundle_()
    assert ("refused · request_invalid" in drawn["text/plain"] and "<svg" in drawn["text/html"]) or "<table" in drawn[
        "text/html"
    ]
    invalid = "request_invalid"
    assert results(tmp_path / "out") == [
        (0, 1, "completed"),
        (1, 1, invalid),
        (2, 1, invalid),
        (3, 1, "tenant_unknown"),
    ]
    rejects = [json.loads(line) for line in (tmp_path / "out" / REJECTS).read_text(encoding="utf-8").splitlines()]
    assert (
        sorted(each["row"] for each in rejects) == [1, 2, 3]
        and "bogus" in rejects[1]["problem"] + rejects[0]["problem"]
    )


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 7), st.integers(1, 30))
def test_whenever_it_dies_taken_up_again_it_ends_and_no_job_is_two_runs(
    seed: int, count: int, every: int, window: int
) -> None:
    draw = random.Random(seed)
    stack = FakeStack()
    rows = [job(i, fails=draw.choice([0, 0, 0, 1])) for i in range(count)]
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "out"
        for turn in itertools.count():
            left = draw.randrange(1, 12) if turn < 20 else 10**9

            def dies() -> None:
                nonlocal left
                left -= 1
                if left <= 0:
                    raise Died

            stack.dies = dies
            try:
                report = run(
                    stack,
                    rows,
                    out,
                    batch="b",
                    resume=turn > 0 and read_manifest(out) is not None,
                    part_results=every,
                    concurrency=window,
                )
                break
            except Died:
                continue
        assert report.state == "finished" and report.rows == count
        assert [row for row, _, _ in results(out)] == list(range(count)), "one disposition each"
        assert len(stack.runs) == count, "and no job is two runs"
        stack.dies = lambda: None
        again = run(stack, rows, out, retry_failed=True)
        failed = sum(row["inputs"]["fails"] for row in rows)
        assert (again.failed, again.completed, len(stack.runs)) == (0, count, count + failed)


def test_what_failed_after_it_changed_something_is_not_run_again_unless_it_is_named(tmp_path: Path) -> None:
    stack = FakeStack()
    rows = [job(0, fails=1), job(1, fails=1), job(2)]
    run(stack, rows, tmp_path / "out")
    (changed,) = (run_id for run_id, its in stack.jobs.items() if its.job_id == "j1")
    stack.changed = [changed]
    report = run(stack, rows, tmp_path / "out", retry_failed=True)
    assert (report.completed, report.failed, report.left_out) == (2, 1, 1)
    report = run(stack, rows, tmp_path / "out", rerun=["j1"])
    assert report.ok and report.completed == 3
    assert Counter(row for row, _, _ in results(tmp_path / "out")) == {0: 2, 1: 2, 2: 1}


def test_another_job_on_the_same_output_is_an_error_that_says_what_differs(tmp_path: Path) -> None:
    stack = FakeStack()
    (tmp_path / "a.jsonl").write_text(json.dumps(job(0)) + "\n", encoding="utf-8")
    out = tmp_path / "out"
    run(stack, tmp_path / "a.jsonl", out, batch="one")
    with pytest.raises(InvalidInput, match=r"of the same: --resume \(resume=True\) takes it up"):
        run(stack, tmp_path / "a.jsonl", out)
    with pytest.raises(InvalidInput, match="there is batch one, not two"):
        run(stack, tmp_path / "a.jsonl", out, batch="two", resume=True)
    stack.described = {**stack.described, "policy": "other"}
    with pytest.raises(InvalidInput, match="the policy changed: it was 'p', and now is 'other'"):
        run(stack, tmp_path / "a.jsonl", out, resume=True)
    stack.described = {**stack.described, "policy": "p", "models": {"agent clerk": "two"}}
    with pytest.raises(InvalidInput, match="agent clerk changed: it was one, and now is two"):
        run(stack, tmp_path / "a.jsonl", out, resume=True)
    stack.described = {**stack.described, "models": {"agent clerk": "one"}}
    (tmp_path / "a.jsonl").write_text(json.dumps(job(7)) + "\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"the input: .*changed"):
        run(stack, tmp_path / "a.jsonl", out, resume=True)
    with pytest.raises(InvalidInput, match="no batch to take up"):
        run(stack, tmp_path / "a.jsonl", tmp_path / "new", resume=True)
    with pytest.raises(InvalidInput, match="the stack has one of this name, of another input"):
        run(stack, tmp_path / "a.jsonl", tmp_path / "new", batch="one")


def test_a_batch_goes_on_under_another_policy_or_app_where_that_is_said(tmp_path: Path) -> None:
    """What it changed to, who said so and when is on record; nothing else of it may be another."""
    stack, rows, out = FakeStack(), [job(0), job(1, fails=1)], tmp_path / "out"
    stack.described = {**stack.described, "policy_version": "v1"}
    run(stack, rows, out, batch="one")
    stack.described = {**stack.described, "policy": "q", "policy_version": "v2"}
    said = r"now is 'q' \(versions 'v1' and 'v2'\)\. --accept-changes policy \(accept_changes=\['policy'\]\)"
    with pytest.raises(InvalidInput, match=said):
        run(stack, rows, out, retry_failed=True)
    with pytest.raises(InvalidInput, match="the policy changed"):
        run(stack, rows, out, retry_failed=True, accept_changes=["app"])
    with pytest.raises(InvalidInput, match="'input' is none of policy, app"):
        run(stack, rows, out, retry_failed=True, accept_changes=["input"])
    with pytest.raises(InvalidInput, match="of something else: the input") as refused:
        run(stack, [job(7)], out, resume=True, accept_changes=["policy", "app"])
    assert "--accept-changes" not in str(refused.value)
    report = run(stack, rows, out, retry_failed=True, accept_changes=["policy"])
    assert (report.completed, report.turn.passed_over, report.turn.ended) == (2, 1, 1)
    manifest, state = read_manifest(out), stack.batch("one").state()
    assert manifest is not None and (manifest.policy, manifest.policy_version) == ("q", "v2")
    assert msgspec.json.decode(state.manifest, type=type(manifest)) == manifest and state.opened_by == "op"
    (change,) = manifest.changes
    assert re.match(r"\d{4}-.*Z: the policy changed: .*, and now is 'q' \(versions 'v1' and 'v2'\)$", change)
    taken = map(msgspec.json.decode, stack.streams["batch:one"])
    assert any("the policy changed" in each.get("why", "") and each["by"] == "op" for each in taken)
    assert run(stack, rows, out, resume=True).ok, "from here on it is of these"
    stack.described = {**stack.described, "app_version": "2", "models": {}}
    assert run(stack, rows, out, resume=True, accept_changes=["app"]).ok


def test_an_input_that_has_grown_is_read_on(tmp_path: Path) -> None:
    stack, path = FakeStack(), tmp_path / "a.jsonl"
    path.write_text(json.dumps(job(0)) + "\n", encoding="utf-8")
    run(stack, path, tmp_path / "out")
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(job(1)) + "\n")
    report = run(stack, path, tmp_path / "out", resume=True)
    assert (report.rows, report.completed, report.turn.passed_over, stack.sent) == (2, 2, 1, 2)


def test_a_job_that_never_ends_is_withdrawn_when_its_time_is_over(tmp_path: Path) -> None:
    report = run(FakeStack(), [job(0, hangs=True), job(1)], tmp_path / "out", item_deadline_s=0.0)
    assert report.state == "finished" and results(tmp_path / "out") == [(0, 1, "cancelled"), (1, 1, "completed")]
    assert standing_of(RunStatus.CANCELLED, ReasonCode.CANCELLED, "") == "final", "it would hang again"


def test_too_many_errors_stop_it_and_the_rest_is_taken_up_again(tmp_path: Path) -> None:
    stack, rows = FakeStack(), [job(i, fails=1 if i < 30 else 0) for i in range(200)]
    report = run(stack, rows, tmp_path / "out", stop_after_errors="50%", concurrency=10)
    assert report.state == "errors" and 20 <= report.completed + report.failed < 100
    report = run(stack, rows, tmp_path / "out", retry_failed=True)
    assert report.ok and report.completed == 200 and len(stack.runs) == 230


def test_answers_are_held_against_their_schema(tmp_path: Path) -> None:
    rows = [job(0, answer={"cents": 5}), job(1, answer={"cents": "five"})]
    schema = {"type": "object", "properties": {"cents": {"type": "integer"}}}
    report = run(FakeStack(), rows, tmp_path / "out", answer_schema=schema)
    assert (report.completed, report.failed, report.may_pass) == (1, 1, 1)
    (reject,) = map(json.loads, (tmp_path / "out" / REJECTS).read_text(encoding="utf-8").splitlines())
    assert reject["row"] == 1 and "cents" in reject["problem"] and "five" in reject["original"]


def test_orders_are_followed_while_it_runs(tmp_path: Path) -> None:
    stack, orders = FakeStack(), iter(["retune", "requeue", "cancel"])
    moment = itertools.count()

    def turn(runner: BatchRunner) -> None:
        if next(moment) % 40 == 20 and (order := next(orders, None)):
            handle = stack.batch("b")
            if order == "retune":
                handle.retune(concurrency=3, why="slower")
            elif order == "requeue":
                handle.requeue(["j0"])
            else:
                handle.cancel(why="enough")
            runner._looked_s = -1e9

    rows = [job(i) for i in range(100_000)]
    report = run(stack, rows, tmp_path / "out", batch="b", concurrency=50, on_turn=turn)
    assert report.state == "cancelled" and 0 < report.completed < 100_000
    assert max(stack.entered[:20]) == 50 and max(stack.entered[30:]) <= 3, "fewer at once after it was retuned"
    with pytest.raises(InvalidInput, match=r"was cancelled \(op: enough\): `airside batch resume b` takes that back"):
        run(stack, rows, tmp_path / "out", resume=True)


def test_who_is_taken_over_from_leaves_the_batch_to_the_other(tmp_path: Path) -> None:
    stack = FakeStack()

    def turn(runner: BatchRunner) -> None:
        if stack.batch("b").state().owner != "other":
            stack.batch("b").change(BatchChange(action="take_up", owner="other"))
            runner._looked_s = -1e9

    with pytest.raises(TakenOver, match="taken up by another process"):
        run(stack, [job(0, hangs=True)], tmp_path / "out", batch="b", on_turn=turn)
    assert stack.batch("b").state().phase == "running"


def test_an_interrupt_says_how_to_go_on(tmp_path: Path) -> None:
    stack = FakeStack()

    def turn(runner: BatchRunner) -> None:
        if runner.counts.ended:
            raise KeyboardInterrupt

    said = r"1 rows have a result .* 1 runs are under way: they go on while the stack is up.*out\.csv', resume=True\)"
    with pytest.raises(BatchInterrupted, match=said) as caught:
        run(stack, [job(0), job(1, hangs=True)], tmp_path / "out.csv", batch="b", on_turn=turn)
    assert caught.value.report.state == "interrupted" and stack.batch("b").state().left == "interrupted"
    assert len((tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()) == 2, "what there is, is there"
    assert "; no run is under way. `run_batch(" in str(BatchInterrupted(caught.value.report, 0))


def test_a_file_has_the_last_result_of_each_row_in_order(tmp_path: Path) -> None:
    stack, rows = FakeStack(), [job(i, fails=i % 2) for i in range(10)]
    run(stack, rows, tmp_path / "out.parquet")
    run(stack, rows, tmp_path / "out.parquet", retry_failed=True)
    found = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [(each["row"], each["attempt"], each["status"]) for each in found] == [
        (i, 1 + i % 2, "completed") for i in range(10)
    ]


def test_a_pilot_is_the_beginning_of_its_batch(tmp_path: Path) -> None:
    stack, rows = FakeStack(), [job(i) for i in range(500)]
    estimate = run_pilot(cast("Stack", stack), open_source(rows), out=tmp_path / "out", rows=50)
    assert (estimate["rows"], estimate["left"], estimate["pilot_rows"]) == (500, 450, 50)
    assert estimate["cost_microusd"] == {"estimate": 45_000, "low": 45_000, "high": 45_000}
    report = run(stack, rows, tmp_path / "out", resume=True)
    assert report.ok and report.completed == 500 and len(stack.runs) == 500


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=60), st.integers(0, 10_000))
def test_an_estimate_is_within_its_interval(values: list[float], left: int) -> None:
    found = extrapolated(values, left)
    assert found["low"] - 1 <= found["estimate"] <= found["high"] + 1


def test_a_field_that_jobs_do_not_have_is_said_before_anything_is_run(tmp_path: Path) -> None:
    """Row by row it would be said a thousand times, and the output would be taken."""
    rows = [{"question": "r", "sku": "lamp"}]
    for field, hint in (("input.sku", "do you mean inputs.sku?"), ("tennant", "do you mean tenant?")):
        with pytest.raises(InvalidInput, match=re.escape(f"a job has no field {field!r} ({hint})")):
            run(FakeStack(), rows, tmp_path / "out", columns={"request": "question", field: "sku"})
    assert not (tmp_path / "out").exists()


def test_errors_that_are_alike_are_said_once(tmp_path: Path) -> None:
    rows = [{"request": "r", "nothing": 1}] * 300 + [{"request": 5}]
    report = run(FakeStack(), rows, tmp_path / "out")
    assert [each.count for each in report.problems.kinds] == [300, 1]
    assert report.turn.rejected == report.turn.errors == 301


def test_a_batch_in_which_nothing_completed_says_why_and_is_not_green(tmp_path: Path) -> None:
    """The commonest problem first, in words, and where the rows are, whoever looks at the report."""
    rows = [{"request": 5}] + [{"request": "r", "nothing": 1}] * 3
    report = run(FakeStack(), rows, tmp_path / "out")
    assert report.state == "finished" and report.rejects == str(tmp_path / "out" / REJECTS)
    assert "nothing" in report.problems.kinds[0].first and report.problems.kinds[0].count == 3
    drawn = report.drawn()
    assert drawn.tone == "bad"
    text = report._repr_mimebundle_()["text/plain"]
    assert report.rejects in text and "nothing: " in text
    fine = run(FakeStack(), [job(0)], tmp_path / "fine")
    assert fine.drawn().tone == "good" and not fine.rejects and not fine.problems.kinds


def test_a_batch_that_is_taken_up_says_again_what_failed_before(tmp_path: Path) -> None:
    """Only the last attempt at a row counts, and an answer that does not fit is a problem, too."""
    stack, rows = FakeStack(), [job(0, fails=1), job(1, fails=9), job(2), {"request": 5}]
    run(stack, rows, tmp_path / "out")
    again = run(stack, rows, tmp_path / "out", resume=True)
    assert again.turn.ended == 0 and sum(each.count for each in again.problems.kinds) == 3
    retried = run(stack, rows, tmp_path / "out", retry_failed=True)
    assert {each.first.partition(" ")[0] for each in retried.problems.kinds} == {"j1:", "row-3:"}


def test_a_row_that_is_no_job_keeps_its_id_and_is_mended_by_another(tmp_path: Path) -> None:
    """Run again by its id it would be the same: the message says so, until the mended row follows."""
    stack, path = FakeStack(), tmp_path / "q.csv"
    path.write_text("id,question\nq-0,r\nq-1,\nq-2,r,more\n", encoding="utf-8")
    mapping = {"columns": {"request": "question", "job_id": "id", "tenant": "=acme", "principal": "=ana"}}
    report = run(stack, path, tmp_path / "out", **mapping)
    rejects = [json.loads(line) for line in (tmp_path / "out" / REJECTS).read_text(encoding="utf-8").splitlines()]
    assert [each["job_id"] for each in rejects] == ["q-1", "row-2"], "which cell is whose is not known of the last"
    assert (report.failed, report.may_pass, report.problems.no_jobs) == (2, 0, 2)
    assert list(_what_is_left(report)) == [
        "2 have not completed: 0 may pass (--retry-failed), 2 are no jobs: append the mended row to the input, and "
        "--resume"
    ]
    again = run(stack, path, tmp_path / "out", rerun=["q-1", "row-2", "q-9"], **mapping)
    assert again.turn.unknown == ["q-9"] and [*again.turn.no_jobs] == ["q-1", "row-2"]
    assert "nothing in the column 'question'" in again.turn.no_jobs["q-1"]
    with path.open("a", encoding="utf-8") as file:
        file.write("q-1,r\n")
    assert run(stack, path, tmp_path / "out", resume=True, **mapping).completed == 2
    again = run(stack, path, tmp_path / "out", rerun=["q-1"], **mapping)
    assert again.turn.ended == 1 and not again.turn.no_jobs and not again.turn.unknown, "now there is a job of it"


def test_a_column_without_a_name_is_no_id(tmp_path: Path) -> None:
    """As the index is that pandas writes."""
    (tmp_path / "q.csv").write_text(",question\n7,\n", encoding="utf-8")
    source = open_source(tmp_path / "q.csv", columns={"request": "question", "tenant": "=acme"})
    assert [(row.job_id, bool(row.problem)) for row in source.rows()] == [("", True)]


@pytest.mark.parametrize("kind", ["jsonl", "records", "table"])
def test_a_reject_has_the_id_that_its_row_has(kind: str, tmp_path: Path) -> None:
    rows: Any = [{"id": "q-0", "question": "r"}, {"id": "q-1", "question": None}]
    if kind == "jsonl":
        (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    given = {"jsonl": tmp_path / "q.jsonl", "records": rows, "table": pa.Table.from_pylist(rows)}[kind]
    source = open_source(given, columns={"request": "question", "job_id": "id"})
    assert [(row.job_id, bool(row.problem)) for row in source.rows()] == [("q-0", False), ("q-1", True)]


@pytest.mark.parametrize("name", ["out", "out.csv"])
def test_where_results_cannot_be_written_it_says_how_many_are_and_how_to_go_on(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack, rows, commit = FakeStack(), [job(i) for i in range(9)], Parts.commit
    committed = itertools.count()

    def full(parts: Parts) -> None:
        if parts.unwritten and next(committed) >= 2:
            raise Failed(f"{tmp_path / name}/part: it cannot be written: No space left on device")
        commit(parts)

    def no_file(*_: Any) -> int:
        raise Failed(f"{tmp_path / name}: it cannot be written: No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Parts, "commit", full)
        with pytest.raises(
            Failed, match=r"No space left on device\. 4 rows have a result in .*: make room, then --res"
        ):
            run(stack, rows, tmp_path / name, part_results=2, concurrency=1)
    if name == "out.csv":
        with monkeypatch.context() as patched:
            patched.setattr(output, "assemble", no_file)
            with pytest.raises(
                Failed, match=r"left on device\. 9 rows have a result in .*out.csv.batch: make room, then"
            ):
                run(stack, rows, tmp_path / name, resume=True)
    assert run(stack, rows, tmp_path / name, resume=True).completed == 9 and len(stack.runs) == 9


def test_whom_the_directory_did_not_list_may_be_listed_now(tmp_path: Path) -> None:
    """And its row is among the rejects as it was read."""
    stack = FakeStack()
    rows = [{**job(0), "tenant": "nobody"}, job(1)]
    report = run(stack, rows, tmp_path / "out")
    (reject,) = map(json.loads, (tmp_path / "out" / REJECTS).read_text(encoding="utf-8").splitlines())
    assert '"nobody"' in reject["original"] and report.turn.rejected == 1
    assert (report.failed, report.may_pass) == (1, 1)
    report = run(stack, rows, tmp_path / "out", retry_failed=True)
    assert report.turn.passed_over == 1 and report.turn.ended == 1
    again = [json.loads(line) for line in (tmp_path / "out" / REJECTS).read_text(encoding="utf-8").splitlines()]
    assert [(each["row"], each["attempt"]) for each in again] == [(0, 1), (0, 2)], "a line says of which attempt it is"


def test_what_was_rejected_is_counted_of_the_whole_batch(tmp_path: Path) -> None:
    """Whichever turn did so; what failed is none of it, and neither is what was rejected and has completed since."""
    stack, schema = FakeStack(), {"type": "string"}
    rows = [{"job_id": "j0", "request": 7}, {**job(1), "tenant": "nobody"}, job(2, answer=1), job(3, fails=1)]
    rows.append(job(4, answer="yes"))
    assert run(stack, rows, tmp_path / "out", answer_schema=schema).rejected == 3
    assert run(stack, rows, tmp_path / "out", answer_schema=schema, resume=True).rejected == 3
    report = run(stack, rows, tmp_path / "out", answer_schema=schema, retry_failed=True)
    assert (report.rejected, report.turn.rejected, report.failed) == (4, 3, 4)


def test_a_batch_that_has_no_room_to_begin_says_so_and_has_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack, fsync = FakeStack(), os.fsync

    def full(descriptor: int) -> None:
        if ".tmp" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        said = r"out/_manifest\.json: it cannot be written: No space .*\. No job has run: make room, then run it again$"
        with pytest.raises(Failed, match=said):
            run(stack, [job(0)], tmp_path / "out", batch="one")
    assert not stack.runs
    assert run(stack, [job(0)], tmp_path / "out", batch="one").completed == 1


def test_a_refused_batch_has_taken_nothing_of_an_iterator(tmp_path: Path) -> None:
    """Neither where results are already, nor where there is no batch to take up, nor of a cancelled one."""
    stack, columns = FakeStack(), {name: name for name in job(0)}
    rows = iter([job(0), job(1)])
    run(stack, iter([job(0)]), tmp_path / "out", batch="one", columns=columns)
    refused: list[tuple[str, dict[str, Any]]] = [
        ("out", {}),
        ("new", {"resume": True}),
        ("new", {"batch": "one", "lane": "provider_batch"}),
        ("a.txt", {}),
    ]
    for out, more in refused:
        with pytest.raises(InvalidInput):
            run(stack, rows, tmp_path / out, columns=columns, **more)
    stack.batch("one").change(BatchChange(action="take_up", owner="o"))
    stack.batch("one").cancel()
    with pytest.raises(InvalidInput, match="was cancelled"):
        run(stack, rows, tmp_path / "out", columns=columns, resume=True)
    assert run(stack, rows, tmp_path / "new", columns=columns).completed == 2
    with pytest.raises(InvalidInput, match="no column 'requets'"):
        run(stack, iter([job(0)]), tmp_path / "third", columns={"request": "requets"})
    assert not (tmp_path / "third").exists()


def test_a_dry_run_says_what_would_be_refused(tmp_path: Path) -> None:
    stack = FakeStack()
    stack.state_dir = tmp_path  # type: ignore[attr-defined]
    rows = [job(0), {**job(1), "route": "nowhere"}, {"request": 5}]
    checked = check_rows(Premises.of_stack(cast("Stack", stack)), open_source(rows))
    assert checked.rows == 3 and checked.bad == 2 and not stack.sent
    assert "no route 'nowhere'" in checked.problems[0]
    alike = check_rows(Premises.of_stack(cast("Stack", stack)), open_source([{"request": "r", "nothing": 1}] * 300))
    assert alike.bad == 300 and len(alike.problems) == 1 and alike.problems[0].endswith("(and 299 more like it)")
    off = {"scope": "tenant", "target": "acme", "off": True, "by": "op", "why": "the shop is down", "at_us": 1}
    stack.thrown, stack.warnings = [KillSwitchChanged(**off)], ("nobody may approve refunds",)
    checked = check_rows(Premises.of_stack(cast("Stack", stack)), open_source([job(0)]))
    assert checked.bad == 1 and checked.problems[0] == "nobody may approve refunds"
    assert "tenant acme is switched off by op: the shop is down" in checked.problems[1]


def test_a_dry_run_prices_every_row_and_names_the_tools_that_nobody_lets_it_call(tmp_path: Path) -> None:
    stack = FakeStack()
    stack.state_dir = tmp_path  # type: ignore[attr-defined]
    people = "{ana: {limits: {max_cost_microusd: 300}}, bob: {}}"
    directory = load_directory(f"tenants: {{acme: {{limits: {{max_cost_microusd: 500}}, principals: {people}}}}}")
    write_people(tmp_path, directory, {"acme": {"ana": ["refund"]}})
    rows = [job(0), {**job(1), "principal": "bob"}, {**job(2), "limits": {"max_cost_microusd": 7}}]
    figures = check_rows(Premises.of_stack(cast("Stack", stack)), open_source(rows)).figures()
    assert figures["most_cost_microusd"] == 300 + 500 + 7 and figures["rows_of_unknown_cost"] == 0
    assert figures["denied_tools"] == {"acme/ana": ["refund"]} and figures["would_be_refused"] == 0
    assert figures["priced"] is None, "of a stack that does not say it"


class Order(BaseModel):
    """Further fields of a job."""

    number: int


def test_a_dry_run_of_an_app_needs_no_stack_and_prices_nothing_that_is_free(tmp_path: Path) -> None:
    """It knows whom the app's directory lists, and what the journal there has switched off."""
    directory = "tenants: {acme: {limits: {max_cost_microusd: 500}, principals: {ana: {}, bob: {}}}}"
    app = partial(airside.App, agents={"clerk": lambda view: None}, policy=FREE, directory=directory, job_inputs=Order)

    def checked(tools: list[Any]) -> CheckedRows:
        rows = [{**job(0), "number": 5}, {**job(1), "principal": "eve", "number": 5}, job(2)]
        return check_rows(Premises.of_app(app(tools=tools).checked(), tmp_path / "state"), open_source(rows))

    found = checked([airside.tool(effect="read", name="look")(_look)])
    assert (found.rows, found.bad) == (3, 2) and "'eve'" in found.problems[0] and "number" in found.problems[1]
    assert found.figures()["most_cost_microusd"] == 0 == found.unbounded and found.figures()["priced"] == []
    found = checked([airside.tool(effect="read", name="look", cost_microusd=2)(_look)])
    assert found.figures()["most_cost_microusd"] == 500 and found.figures()["priced"] == ["tool look"]
    assert not (tmp_path / "state").exists()


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5000), st.integers(1, 9), st.sampled_from(["completed", "may_pass", "final", "unsure"])
        )
    )
)
def test_row_states_have_the_last_attempt(noted: list[tuple[int, int, Any]]) -> None:
    states, last = RowStates(), dict[int, tuple[int, str]]()
    for row, attempt, standing in noted:
        states.note(row, attempt, standing, bytes(8))
        if attempt >= last.get(row, (0, ""))[0]:
            last[row] = attempt, standing
    assert states.ended == len(last)
    assert {row: (states.attempts(row), states.standing(row)) for row in last} == last
    assert set(states.that_may_pass()) == {
        row for row, (_, standing) in last.items() if standing in ("may_pass", "unsure")
    }


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": 0},
        {"rate_per_s": -1.0},
        {"priority": 101},
        {"stop_after_errors": "5"[:0] or "many"},
        {"stop_after_errors": "0%"},
        {"item_deadline_s": "soon"},
        {"limits": {"max_steps": -1}},
        {"answer_schema": {"type": "nothing"}},
        {"lane": "fast"},
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        BatchOptions(**options)


def test_progress_says_how_far_it_is_and_who_waits_for_people(tmp_path: Path) -> None:
    (tmp_path / "jobs.jsonl").write_text("".join(json.dumps(job(i, hangs=i == 4)) + "\n" for i in range(5)))
    source, said = open_source(tmp_path / "jobs.jsonl"), list[dict[str, Any]]()
    pace, stack = Pace(lambda: source.total), FakeStack()

    def turn(runner: BatchRunner) -> None:
        runner._asked_s = runner._looked_s = -1e9
        stack.problem = "the disk is full" if runner.counts.ended else ""
        said.append(pace.of(runner))
        if said[-1]["waiting_for_people"]:
            stack.cancelled.add(next(run for run, its in stack.jobs.items() if its.job_id == "j4"))

    report = run(stack, source, tmp_path / "out", on_turn=turn)
    assert report.completed == 4 and said[-1]["of"] == 5
    assert {each["waiting_for_people"] for each in said} == {0, 1}
    assert "STANDS STILL: the disk is full" in described(said[-1]) and not said[0]["problem"]
    assert "1 under way (1 waits for people)" in described(next(each for each in said if each["waiting_for_people"]))
