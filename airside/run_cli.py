"""`airside run`: a batch from its input to its results, begun or taken up again."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from airside.options import HERE, INTERRUPTED, AppArgs, AppName, Mode, StateDir, limits_of, path_of, starting
from airside.output import json_line
from airside.stack.errors import InvalidInput, Misuse
from airside.stack.run.story import printable

if TYPE_CHECKING:
    from airside.actors.app import App
    from airside.batches.rows import Source
    from airside.batches.run import BatchReport

_MENDED = "append the mended row to the input, and --resume"
"""What is done about a row that is no job: the one that is there has its result, and must stay as it is."""

_INPUT = "files of jobs (.jsonl, .csv, .parquet, .gz), folders, patterns or URIs; - for stdin"
_OUT = "where the results go: a folder or URI of Parquet parts, or a .parquet, .csv or .jsonl file"


def run(
    jobs: Annotated[list[str], typer.Argument(help=_INPUT)],
    out: Annotated[str, typer.Option(help=_OUT)],
    app_name: AppName = "",
    app_arg: AppArgs = None,
    state_dir: StateDir = HERE,
    mode: Mode = "dedicated",
    batch: Annotated[str, typer.Option(help="what the batch is called; else a name is made")] = "",
    column: Annotated[
        list[str] | None, typer.Option(help="FIELD=COLUMN of a job, or FIELD==CONSTANT; repeatable")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="take up the batch that is there")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="and run again what failed, changed nothing and may pass")
    ] = False,
    rerun: Annotated[str, typer.Option(help="and run these jobs again, whatever they did: ID,...")] = "",
    accept_changes: Annotated[
        str, typer.Option(help="take it up under the present policy, app, or both, though it began under another")
    ] = "",
    pilot: Annotated[int, typer.Option(help="run so many rows, and say what all will take; 0: run all")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only check every row, and say what is wrong")] = False,
    owned_by: Annotated[
        str, typer.Option(help="whose the batch is: TENANT, or TENANT/PRINCIPAL; else whose all jobs are by --column")
    ] = "",
    concurrency: Annotated[int, typer.Option(help="jobs under way at once")] = 10_000,
    rate: Annotated[float, typer.Option(help="submissions a second; 0: as many as there is room for")] = 0.0,
    priority: Annotated[int, typer.Option(help="before which of its tenant's runs a job begins: -100 to 100")] = 0,
    limit: Annotated[
        list[str] | None, typer.Option(help="NAME=AMOUNT of a run's limits, which lowers each run's; repeatable")
    ] = None,
    lane: Annotated[str, typer.Option(help="provider_batch: models are asked in batches, for about half")] = "",
    stop_after_errors: Annotated[str, typer.Option(help="submit no more after so many errors: 20, or 5%")] = "",
    item_deadline: Annotated[float, typer.Option(help="withdraw a job that has not ended after so many seconds")] = 0.0,
    deadline: Annotated[float, typer.Option(help="submit no more after so many seconds, and withdraw the rest")] = 0.0,
    answer_schema: Annotated[str, typer.Option(help="a JSON Schema that answers must meet: a file")] = "",
    part_results: Annotated[int, typer.Option(help="commit a part of the results every so many of them")] = 1000,
    part_seconds: Annotated[float, typer.Option(help="or every so many seconds")] = 5.0,
    follow: Annotated[float, typer.Option(help="read on as the file grows, until nothing comes for so long")] = 0.0,
) -> None:
    """Run a batch: on a stack of its own with --app, else on the one that runs in --state-dir.

    JOBS are files, folders, patterns or URIs, a pipe, or - for what comes on stdin:
    `make-jobs | airside run - --out results/`.
    Where rows have other names than jobs: `--column request=question --column tenant==acme`.

    Exit code 0 if every job completed, 1 if some did not or are left, 130 after Ctrl-C; the results say which and why.
    Ctrl-C ends the command, not the runs (`airside runs --active` lists them): `--resume` takes the batch up, and pays
    for nothing twice.
    Rows that are no jobs are in _rejects.jsonl beside the parts.  From any terminal: `airside batch --help`.
    """
    import airside
    from airside.batches.run import BatchInterrupted, run_batch
    from airside.batches.sources import open_source
    from airside.cli import load_app

    given: Any = jobs[0] if len(jobs) == 1 else jobs
    columns = _columns(column or [])
    source = open_source(given, columns=columns, follow_s=follow or None)
    if app_name:
        _check_apart(state_dir)
    made = load_app(app_name, app_arg or []) if app_name else None
    options: dict[str, Any] = {
        "concurrency": concurrency,
        "rate_per_s": rate,
        "priority": priority,
        "limits": limits_of(limit),
        "lane": lane or None,
        "stop_after_errors": stop_after_errors or None,
        "item_deadline_s": item_deadline or None,
        "deadline_s": deadline or None,
        "answer_schema": _schema(answer_schema),
        "part_results": part_results,
        "part_s": part_seconds,
    }
    taken_up = resume or retry_failed or bool(rerun)
    accepted = [each for each in accept_changes.split(",") if each]
    _check_early(source, made, out, options)
    if not dry_run:
        made = _check_batch(source, made, out, batch, options, accepted, takes_up=taken_up)
    if dry_run:
        _say_checked(made, state_dir, source)
    with starting():
        stack = airside.start(made, state_dir=state_dir, mode=mode) if made else airside.connect(state_dir)
    with stack, _ended_by_sigterm():
        try:
            if pilot:
                _say_pilot(stack, source, out, pilot, batch, {**options, "owned_by": owned_by})
            report = run_batch(
                stack,
                source,
                out=out,
                batch=batch,
                resume=resume,
                retry_failed=retry_failed,
                rerun=[each for each in rerun.split(",") if each],
                accept_changes=accepted,
                owned_by=owned_by,
                **options,
            )
        except BatchInterrupted as stop:
            _say_problems(stop.report)
            typer.echo(_left_behind(stop, state_dir, goes_on=made is None), err=True)
            raise typer.Exit(INTERRUPTED) from None
        problems = stack.verify()
    _report(report, problems)


def _check_apart(state_dir: Path) -> None:
    """Raise `Misuse` if a stack runs where that of --app would."""
    from airside.actors.client.stack_record import started_by
    from airside.actors.journal.log import is_written

    if is_written(state_dir) and (pid := started_by(state_dir)):
        raise Misuse(
            f"the stack of {state_dir} runs already, in process {pid}: leave --app out to run the batch on it, or give "
            "another --state-dir"
        )


def _check_early(source: Source, made: App | None, out: str, options: dict[str, Any]) -> None:
    """Raise `InvalidInput` for what can be seen before a stack is started, which takes seconds."""
    from airside.actors.job_inputs import Fields, fields_of
    from airside.batches.options import BatchOptions
    from airside.batches.output import Output

    BatchOptions(**options)
    if made is not None:
        source.columns.check_fields(fields_of(made.job_inputs) if made.job_inputs is not None else Fields())
    Output.of(out, source.paths)


def _check_batch(
    source: Source,
    made: App | None,
    out: str,
    batch: str,
    options: dict[str, Any],
    accepted: list[str],
    *,
    takes_up: bool,
) -> App | None:
    """Raise `InvalidInput` for a batch that is at the output and should not be, or is of something else.

    Raise `Failed` for an output that cannot be written now.  Return the app, with its tools read from where they come
    from.
    """
    from airside.batches.manifest import accepted_of
    from airside.batches.options import BatchOptions
    from airside.batches.output import Output
    from airside.batches.run import check_taken_up, find_batch

    output = Output.of(out, source.paths)
    there = find_batch(output, source, batch, takes_up=takes_up)
    output.check_room()
    if there is None:
        source.check_first()
        return made
    checked = made.checked() if made is not None else None
    check_taken_up(output, source, there, BatchOptions(**options), checked, accepted_of(accepted))
    source.check_first()
    return checked.app if checked is not None else None


def _columns(given: list[str]) -> dict[str, str] | None:
    found: dict[str, str] = {}
    for each in given:
        field, equals, column = each.partition("=")
        if not equals or not field or not column:
            raise InvalidInput(f"--column {each!r:.80}: write FIELD=COLUMN, or FIELD==CONSTANT")
        found[field] = column
    return found or None


def _schema(name: str) -> Any:
    from airside.stack.canonical import parse_bounded

    if not name:
        return None
    try:
        data = path_of(name).read_bytes()
    except OSError as error:
        raise InvalidInput(f"--answer-schema {name}: {error.strerror}") from None
    found = parse_bounded(data, max_bytes=2**20, where=f"--answer-schema {name}")
    if not isinstance(found, dict):
        raise InvalidInput(f"--answer-schema {name}: a JSON Schema is an object")
    return found


def _say_checked(made: App | None, state_dir: Path, source: Source) -> None:
    """Say what a dry run finds; with --app no stack is started for it, which would go on with what others left."""
    import airside
    from airside.batches.dry_run import Premises, check_rows

    with contextlib.ExitStack() as opened:
        if made is not None:
            premises = Premises.of_app(made.checked(), state_dir)
        else:
            premises = Premises.of_stack(opened.enter_context(airside.connect(state_dir)))
        checked = check_rows(premises, source)
    for problem in checked.problems:
        typer.echo(printable(problem), err=True)
    if checked.priced == ():
        typer.echo("no agent and no tool of the app costs anything, by what they name", err=True)
    typer.echo(json_line(checked.figures()))
    raise typer.Exit(0 if checked.bad == 0 else 1)


def _say_pilot(stack: Any, source: Any, out: str, rows: int, batch: str, options: dict[str, Any]) -> None:
    from airside.batches.pilot import run_pilot

    estimate = run_pilot(stack, source, out=out, rows=rows, batch=batch, **options)
    typer.echo(json_line(estimate))
    raise typer.Exit(0)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Take SIGTERM, by which schedulers end a job, as Ctrl-C: what there is is written, and said.

    Within a stack: joining Ray sets a handler of its own, which leaves at once.
    """

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _left_behind(stop: Any, state_dir: Path, *, goes_on: bool) -> str:
    """Say what became of a batch that was interrupted, and how to get at the rest."""
    report = stop.report
    there = report.completed + report.failed
    said = f"interrupted: {there} jobs have ended, and {report.out} has their results. "
    if stop.under_way and goes_on:
        said += (
            f"{stop.under_way} runs go on: `airside runs --active --state-dir {state_dir}` lists them, `airside kill` "
            "ends them. "
        )
    elif stop.under_way:
        said += (
            f"{stop.under_way} runs had not ended: what does not end while the stack goes down stays in the journal of "
            f"{state_dir}, and goes on with it. "
        )
    return f"{said}The same command with --resume takes batch {report.batch} up, and pays for nothing twice"


def _report(report: BatchReport, problems: list[str]) -> None:
    _say_problems(report)
    if report.left_out:
        typer.echo(
            f"{report.left_out} not run again: they had changed something (`airside rollback` them first, or --rerun)",
            err=True,
        )
    for job_id in report.turn.unknown[:20]:
        typer.echo(f"{printable(job_id)}: not run again: no job of this id has a result", err=True)
    for job_id, problem in islice(report.turn.no_jobs.items(), 20):
        typer.echo(f"{printable(job_id)}: not run again: its row is no job ({printable(problem)}): {_MENDED}", err=True)
    for line in _what_is_left(report):
        typer.echo(line, err=True)
    typer.echo(
        json_line(
            {
                "batch": report.batch,
                "state": report.state,
                "jobs": report.rows,
                "completed": report.completed,
                "failed": report.failed,
                "rejected": report.rejected,
                "passed_over": report.turn.passed_over,
                "cost_microusd": report.turn.cost_microusd,
                "audit_ok": not problems,
                "out": report.out,
                "rejects": report.rejects,
            }
        )
    )
    raise typer.Exit(0 if report.ok and not problems else 1)


def _say_problems(report: BatchReport) -> None:
    """Say what is wrong with the rows that have not completed, the commonest first, and where the rejects are."""
    for each in report.problems.kinds:
        typer.echo(printable(str(each)), err=True)
    if report.problems.more:
        typer.echo(f"and {report.problems.more:,} more, in {report.out}", err=True)
    if report.rejects:
        typer.echo(f"what was rejected, as it was read: {report.rejects}", err=True)


def _what_is_left(report: BatchReport) -> Iterator[str]:
    """Yield how to go on with a batch of which something is left."""
    why = {"errors": "after so many errors", "deadline": "at its deadline", "cancelled": "when it was cancelled"}
    if report.state in why:
        yield f"no more was submitted {why[report.state]}: --resume goes on with the rows that have no result"
    if report.failed:
        no_jobs = report.problems.no_jobs
        final = report.failed - report.may_pass - no_jobs
        parts = [f"{report.may_pass} may pass (--retry-failed)"]
        parts += [f"{final} end the same way unless something is changed (--rerun ID,...)"] if final else []
        parts += [f"{no_jobs} are no jobs: {_MENDED}"] if no_jobs else []
        yield f"{report.failed} have not completed: {', '.join(parts)}"
