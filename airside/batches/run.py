"""`run_batch`: a batch from its input to its parts, begun or taken up again."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from airside.actors.app import ValidatedApp
from airside.actors.client.batch_handle import BatchHandle
from airside.actors.client.client import Stack
from airside.actors.client.display.batches import draw_batch
from airside.actors.client.display.bundle import bundle
from airside.actors.client.display.drawing import Drawing
from airside.actors.client.display.listed import Kinds
from airside.actors.job_inputs import Fields
from airside.actors.jobs import batch_job
from airside.batches.manifest import (
    ACCEPTED,
    Manifest,
    accepted_of,
    read_manifest,
    rewrite_manifest,
    write_manifest,
)
from airside.batches.options import BatchOptions, owner_of
from airside.batches.output import Output
from airside.batches.parts import Parts, has_parts, rejects_of
from airside.batches.problems import Problems, problems_of
from airside.batches.progress import shown
from airside.batches.retry import rows_to_retry
from airside.batches.row_states import RowStates
from airside.batches.rows import Source
from airside.batches.runner import NEW, BatchCounts, BatchRunner, Pass, TakenOver, new_owner
from airside.batches.sources import open_source
from airside.stack.errors import AirsideError, Failed, InvalidInput, notebook_traceback
from airside.stack.ids import PrincipalId, TenantId
from airside.stack.operations.batches import BatchChange
from airside.stack.operations.quantities import clock

FINISHED = "finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReport:
    """How one turn at a batch came out.

    `state` is `finished`, or why jobs are left: `errors`, `deadline`, `cancelled`, `interrupted`, `pilot`.
    `completed`, `failed` (of which `may_pass` may end otherwise when run again, and `rejected` are among the rejects)
    and `rows` are of the whole batch; `turn` is what this turn did.  `left_out` rows were not run again because their
    runs had changed something.
    `problems` are the commonest of the rows that have not completed; `rejects` is where rows that are no jobs, and what
    else was rejected, stand as they were read (empty if there are none).
    """

    batch: str
    state: str
    out: str
    rows: int
    completed: int
    failed: int
    may_pass: int
    left_out: int
    seconds: float
    turn: BatchCounts = field(repr=False)
    problems: Problems = field(default=Problems(), repr=False)
    rejects: str = ""

    @property
    def rejected(self) -> int:
        """How many rows are among the rejects by their last attempt, of the whole batch."""
        return self.problems.rejected

    @property
    def ok(self) -> bool:
        """Whether every row has completed."""
        return self.state == FINISHED and not self.failed

    def drawn(self) -> Drawing:
        """Return how it came out, to be seen: this turn's results as bars."""
        return draw_batch(
            self.batch,
            self.state,
            self.turn.outcomes,
            ended=self.completed + self.failed,
            completed=self.completed,
            of=self.rows,
            cost_microusd=self.turn.cost_microusd,
            tokens=self.turn.tokens,
            counted="results of this turn",
            more={
                "completed": f"{self.completed:,}",
                "failed": f"{self.failed:,}",
                "results": self.out,
                "rejects": self.rejects,
            },
            problems=[(each.first, each.count) for each in self.problems.kinds],
        )

    def _repr_mimebundle_(self, include: Kinds = None, exclude: Kinds = None) -> dict[str, str]:
        return bundle(self.drawn, include, exclude)


class BatchInterrupted(KeyboardInterrupt):
    """Somebody interrupted a batch: what it wrote stays, and it can be taken up again.

    What was submitted goes on while the stack is up: one that was started in a `with` goes down where that is left.
    """

    def __init__(self, report: BatchReport, under_way: int) -> None:
        going = "no run is under way"
        if under_way:
            going = (
                f"{under_way:,} runs are under way: they go on while the stack is up, and what is left of them when it "
                "goes down goes on when it is started again"
            )
        super().__init__(
            f"batch {report.batch}: {report.completed + report.failed:,} rows have a result in {report.out}; {going}. "
            f"`run_batch(..., out={report.out!r}, resume=True)` with the same jobs, or `airside run --resume`, takes "
            "it up where it was, and pays for nothing twice"
        )
        self.report = report
        self.under_way = under_way

    _render_traceback_ = notebook_traceback


def run_batch(
    stack: Stack,
    jobs: Any,
    *,
    out: Path | str,
    batch: str = "",
    columns: Mapping[str, str] | None = None,
    follow_s: float | None = None,
    resume: bool = False,
    retry_failed: bool = False,
    rerun: Iterable[str] = (),
    accept_changes: Iterable[str] = (),
    only: frozenset[int] | None = None,
    owned_by: str = "",
    progress: bool = True,
    on_turn: Callable[[BatchRunner], None] = lambda runner: None,
    **options: Any,
) -> BatchReport:
    """Run every row of an input as a job, write results to `out` as runs end, and return how it came out.

    `jobs` and `columns` are what `airside.batches.open_source` takes: files, folders, URIs, tables, frames, iterables.
    `out` is a folder or a URI, where the results come in parts (`airside.batches.result_schema`); or a file ending in
    `.parquet`, `.csv` or `.jsonl`, which is made of the parts at the end, in the order of the rows.  `options` are
    those of `BatchOptions`.

    Where `out` has a batch already, `resume` takes it up: rows with a result are passed over, and what was under way is
    paid for once.  `retry_failed` also runs again what failed and may pass, but for runs that had changed something
    (take these back first, by a rollback, or name them); `rerun` runs jobs again by their ids, whatever they did.
    `accept_changes` = go on though `"policy"`, `"app"` or both are not those it was run under, which else is refused:
    rows with a result keep it, and what is run from here on is under the present ones, which is put on record.
    `owned_by` = whose a new batch is, a tenant (`acme`) or a principal of it (`acme/ana`): that tenant's operators see
    it, by credential, and may pause, retune and cancel it.  Without, it is of the tenant and the principal that
    `columns` have as constants, else the house's.
    `only` = run these rows and leave the batch; the others are taken up by the next to resume.
    `progress` is shown on stderr: a bar in a terminal or a notebook, else a JSON line now and then.

    Raises `InvalidInput` for an input, an output or an option that is none, and for a batch at `out` that is of
    something else, saying what differs; `Failed` where results cannot be written, saying how many are; `TakenOver`
    when another process takes it up; `BatchInterrupted`.
    """
    began = time.monotonic()
    chosen = BatchOptions(**options)
    source: Source = open_source(jobs, columns=columns, follow_s=follow_s)
    source.columns.check_fields(stack.job_inputs.fields if stack.job_inputs else Fields())
    output = Output.of(out, source.paths)
    again = frozenset(rerun)
    whose = owner_of(owned_by, source.columns)
    takes_up = resume or retry_failed or bool(again)
    accepted = accepted_of(accept_changes)
    manifest, is_new = _manifest(stack, source, output, chosen, batch, accepted, takes_up=takes_up)
    owner = new_owner()
    handle = stack.batch(manifest.batch)
    _begin(handle, manifest, owner, output, source, whose if is_new else None, accepted, takes_up=takes_up)
    try:
        states = RowStates() if is_new else RowStates.of(output.place)
    except BaseException:
        _leave(handle, owner, "interrupted")
        raise
    left_out = 0

    def retried() -> Pass:
        nonlocal left_out
        rows, left_out = rows_to_retry(stack, manifest, states, output.place)
        return Pass("retry", rows=rows)

    passes: list[Callable[[], Pass]] = [lambda: NEW if only is None else Pass("new", rows=only)]
    passes += [retried] if retry_failed else []
    passes += [lambda: Pass("again", job_ids=again)] if again else []
    with (
        Parts(output.place, owner, every=chosen.part_results, seconds=chosen.part_s) as parts,
        shown(lambda: source.total, show=progress) as draw,
    ):

        def turn(runner: BatchRunner) -> None:
            draw(runner)
            on_turn(runner)

        runner = BatchRunner(stack, source, parts, manifest, states, chosen, owner=owner, on_turn=turn)

        def report(state: str) -> BatchReport:
            return BatchReport(
                batch=manifest.batch,
                state=state,
                out=output.shown,
                rows=runner.counts.read,
                completed=states.count("completed"),
                failed=states.failed,
                may_pass=states.may_pass,
                left_out=left_out,
                seconds=round(time.monotonic() - began, 3),
                turn=runner.counts,
                problems=problems_of(output.place, states),
                rejects=rejects_of(output.place),
            )

        state = "interrupted"
        try:
            runner.run(passes)
            state = runner.state or (FINISHED if only is None else "pilot")
        except KeyboardInterrupt:
            parts.commit()
            output.assemble()
            raise BatchInterrupted(report(state), runner.not_ended) from None
        except TakenOver:
            state = ""
            raise
        except Failed as error:
            raise _not_written(error, states.ended - parts.unwritten, output) from None
        finally:
            _leave(handle, owner, state)
    try:
        output.assemble()
    except Failed as error:
        raise _not_written(error, states.ended, output) from None
    return report(state)


def _not_written(error: Failed, rows: int, output: Output) -> Failed:
    """Return what is said where results cannot be written: what there is, and how to go on."""
    if type(error) is not Failed:  # a layer's
        return error
    there = output.place if output.file is not None else output.shown
    return Failed(
        f"{error.message}. {rows:,} rows have a result in {there}: {_mend(error)}, then --resume (resume=True)"
    )


def _mend(error: Failed) -> str:
    return "make room" if "No space left" in error.message else "mend that"


def _manifest(
    stack: Stack,
    source: Source,
    output: Output,
    options: BatchOptions,
    batch: str,
    accepted: frozenset[str],
    *,
    takes_up: bool,
) -> tuple[Manifest, bool]:
    """Return the manifest of the batch at the output, or a new one, and whether it is new."""
    there = find_batch(output, source, batch, takes_up=takes_up)
    name = batch_job(batch or (there.batch if there else f"b-{new_owner()}"), 1, 0).id
    present = _present(name, stack.described, stack.job_schema, options)
    if there is None:
        return msgspec.structs.replace(present, input=source.describe(), out=output.whole), True
    differences = there.differences(source, present, accepted)
    if differences:
        raise _is_another(output, there, differences, present)
    return there.taken_up(present, accepted, clock(time.time_ns() // 1000)), False


def _present(batch: str, described: Mapping[str, Any], job_schema: Any, options: BatchOptions) -> Manifest:
    """Return the manifest of a batch as it would be now, but for its input."""
    return Manifest(
        batch=batch,
        input={},
        app_version=described.get("app_version", ""),
        policy=described.get("policy", ""),
        policy_version=described.get("policy_version", ""),
        models=described.get("models", {}),
        job_schema=job_schema,
        lane=options.lane or "",
        answer_schema=json.loads(json.dumps(options.answer_schema)) if options.answer_schema else None,
    )


def check_taken_up(
    output: Output,
    source: Source,
    there: Manifest,
    options: BatchOptions,
    app: ValidatedApp | None,
    accepted: frozenset[str] = frozenset(),
) -> None:
    """Raise `InvalidInput` for a batch that is of something else than what is to be run, without a stack.

    Without the `app` that will be started only the input is compared: the rest is asked of the stack that runs.
    """
    present = None if app is None else _present(there.batch, app.described(), app.job_schema, options)
    if present is not None:
        differences = there.differences(source, present, accepted)
    else:
        differences = there.input_differences(source)
    if differences:
        raise _is_another(output, there, differences, present)


def find_batch(output: Output, source: Source, batch: str, *, takes_up: bool) -> Manifest | None:
    """Return the batch at an output, None if there is none; what can be said of it without a stack is checked.

    Raises `InvalidInput` where there is one and none is to be taken up, or the other way round; one that is taken up by
    its name may be known to the journal alone.
    """
    there = read_manifest(output.place)
    if there is None:
        if takes_up and not batch:
            raise InvalidInput(
                f"{output.shown}: there is no batch to take up: run it without --resume (resume=True) first"
            )
        if has_parts(output.place):
            raise InvalidInput(
                f"{output.shown}: there are parts without a manifest: give another --out, or remove them"
            )
        return None
    if batch and batch != there.batch:
        raise InvalidInput(f"{output.shown}: there is batch {there.batch}, not {batch}: give another --out")
    if takes_up:
        return there
    if differences := there.input_differences(source):
        raise _is_another(output, there, differences)
    raise InvalidInput(
        f"{output.shown}: there is batch {there.batch} already, of the same: --resume (resume=True) takes it up, "
        "--retry-failed (retry_failed=True) runs again what failed and may pass; remove it, or give another --out, to "
        "begin anew"
    )


def _is_another(
    output: Output, there: Manifest, differences: list[str], present: Manifest | None = None
) -> InvalidInput:
    """Return what is said of a batch that is of something else, with how to go on where that is its policy or app."""
    lines = {name: there.other_settings(there.taken_up(present, frozenset({name}), "")) for name in ACCEPTED if present}
    changed = [name for name, said in lines.items() if said]
    given = "" if set(differences) - set(chain.from_iterable(lines.values())) else ",".join(changed)
    goes_on = (
        f"--accept-changes {given} (accept_changes={changed}) goes on with it under the present one: rows that have a "
        "result keep it, unless they are run again. "
    )
    return InvalidInput(
        f"{output.shown}: there is batch {there.batch} of something else: {'; '.join(differences)}. "
        f"{goes_on if given else ''}Give another --out for another batch, or remove this one if it is not wanted"
    )


def _begin(
    handle: BatchHandle,
    manifest: Manifest,
    owner: str,
    output: Output,
    source: Source,
    whose: tuple[TenantId, PrincipalId] | None,
    accepted: frozenset[str],
    *,
    takes_up: bool,
) -> None:
    """Have the journal know of a batch, and of who runs it from here on; of a new one, `whose` it is.

    The journal has a batch before its output has: an output whose batch it does not know is of another stack.  A job is
    known by the batch's name and its id: one of a name that was run has its runs, which somebody must have asked for.
    """
    state = handle.state()
    if state.is_cancelled:
        last = f" ({state.last.by}: {state.last.why})" if state.last else ""
        raise InvalidInput(
            f"batch {manifest.batch} was cancelled{last}: `airside batch resume {manifest.batch}` takes that back"
        )
    written, changed = msgspec.json.encode(manifest), list[str]()
    if state.length:
        there, now = (msgspec.json.decode(each, type=Manifest) for each in (state.manifest, written))
        changed = there.other_settings(now)
        left = there.other_settings(there.under(now, accepted)) if whose is None else changed
        differences = ["of another input"] if there.input != now.input else left
        if differences:
            raise InvalidInput(
                f"batch {manifest.batch}: the stack has one of this name, {'; '.join(differences)}: give this one "
                "another name"
            )
        if whose is not None and state.owner and not takes_up:
            raise InvalidInput(
                f"batch {manifest.batch}: the stack has run one of this name already, with results in {there.out}. The "
                "same jobs under the same name are the same runs: to run them anew, give it another name (--batch, "
                f"batch=...); --resume (resume=True) has the results of these runs in {output.shown}, too"
            )
    elif whose is not None and takes_up:
        raise InvalidInput(
            f"{output.shown}: there is no batch to take up, and the stack has none called {manifest.batch}"
        )
    elif whose is None:
        raise InvalidInput(
            f"{output.shown}: this stack's journal has no batch {manifest.batch}: it was run with another --state-dir, "
            "and its runs are there; taken up here, what was under way would be paid for twice"
        )
    source.check_first()  # when nothing else is left to refuse: what an iterator has given is gone
    if whose is not None:
        tenant, principal = whose
        if not state.length:
            opened = BatchChange(action="open", manifest=msgspec.Raw(written), tenant=tenant, principal=principal)
            handle.change(opened)
        try:
            write_manifest(output.place, manifest)
        except Failed as error:
            raise Failed(f"{error.message}. No job has run: {_mend(error)}, then run it again") from None
    if not changed:
        handle.change(BatchChange(action="take_up", owner=owner))
    else:  # on record before it is on the output: whoever dies in between says it again
        handle.change(BatchChange(action="take_up", owner=owner, manifest=msgspec.Raw(written)), "; ".join(changed))
    if accepted and whose is None:
        rewrite_manifest(output.place, manifest)


def _leave(handle: BatchHandle, owner: str, state: str) -> None:
    """Have the journal know why this process runs a batch no more; where it cannot be told, the next owner says so."""
    if state:
        with contextlib.suppress(AirsideError):
            handle.change(BatchChange(action="leave", owner=owner, state=state))
