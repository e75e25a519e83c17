"""`airside run`: a batch from a file, and its results in another."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from airside.options import HERE, AppArgs, AppName, Mode, StateDir, path_of
from airside.output import json_line
from airside.stack.errors import InvalidInput

if TYPE_CHECKING:
    from airside.actors.client.results import RunResult

PARQUET = ".parquet"
ENDINGS = (PARQUET, ".csv", ".jsonl")
"""How results can be written, by the end of the file's name; Parquet, if it has none."""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def run(
    jobs: Annotated[Path, typer.Argument(parser=path_of, help="a file with one job (JSON) a line; - for stdin")],
    out: Annotated[Path, typer.Option(parser=path_of, help="where the results go: .parquet, .csv or .jsonl")],
    app_name: AppName = "",
    app_arg: AppArgs = None,
    state_dir: StateDir = HERE,
    mode: Mode = "dedicated",
) -> None:
    """Run a batch: on a stack of its own with --app, else on the one that runs in --state-dir.

    JOBS is a file, a pipe, or - for what comes on stdin: `make-jobs | airside run - --out results.parquet`.

    Exit code 0 if every job completed, 1 if some did not, 130 after Ctrl-C; the results say which and why.

    Ctrl-C ends the command, not the runs: --out has the results there are.  On a stack that is up the runs go on
    (`airside runs --active` lists them, `airside runs show RUN` says how one ended, `airside kill` ends them); of a
    stack of its own they are in the journal, and go on when one is started on --state-dir (`airside up`).
    """
    import airside
    from airside.actors.client.results import BatchInterrupted
    from airside.actors.jobs import parse_lines
    from airside.cli import load_app

    made = load_app(app_name, app_arg or []) if app_name else None
    with opened(jobs) as lines, Target.opened(out, jobs) as target:
        stack = airside.start(made, state_dir=state_dir, mode=mode) if made else airside.connect(state_dir)
        with stack:
            try:
                results = stack.map(parse_lines(lines, stack.job_inputs))
            except BatchInterrupted as stop:
                there = [result for result in stop.results if result is not None]
                target.write([result.row() for result in there])
                typer.echo(_left_behind(stop, out, state_dir, goes_on=made is None), err=True)
                raise typer.Exit(INTERRUPTED) from None
            problems = stack.verify()
        target.write([result.row() for result in results])
    _report(results, problems, out)


def _left_behind(stop: Any, out: Path, state_dir: Path, *, goes_on: bool) -> str:
    """Say what became of a batch that was interrupted, and how to get at the rest."""
    there = sum(result is not None for result in stop.results)
    said = f"interrupted: {there} of {len(stop.results)} jobs have ended, and {out} has their results. "
    if stop.unsubmitted:
        said += f"{stop.unsubmitted} were not submitted. "
    if not stop.places:
        return said.rstrip()
    if goes_on:
        return (
            f"{said}{len(stop.places)} runs go on: `airside runs --active --state-dir {state_dir}` lists them, "
            "`airside runs show RUN` says how one ended, `airside kill` ends them"
        )
    return (
        f"{said}{len(stop.places)} runs have not ended: they are in the journal, and go on when a stack is started on "
        f"{state_dir} (`airside up`)"
    )


def _report(results: list[RunResult], problems: list[str], out: Path) -> None:
    for result in results:
        if not result.ok:
            typer.echo(f"{result.job_id}: {result.status} [{result.reason_code}] {result.detail}", err=True)
    done = sum(result.ok for result in results)
    typer.echo(json_line({"jobs": len(results), "completed": done, "audit_ok": not problems, "out": str(out)}))
    raise typer.Exit(0 if done == len(results) and not problems else 1)


@contextlib.contextmanager
def opened(jobs: Path) -> Iterator[IO[bytes]]:
    """Yield the lines of a jobs file, a pipe, or (`-`) stdin; raise `InvalidInput` for what cannot be read."""
    if str(jobs) == "-":
        yield sys.stdin.buffer
        return
    try:
        file = jobs.open("rb")
    except OSError as error:
        raise InvalidInput(f"{jobs}: {error.strerror}") from None
    with file:
        yield file


@dataclass(frozen=True, slots=True)
class Target:
    """Where results go: a file beside the one that is meant, which replaces it when it is whole."""

    path: Path
    part: Path
    ending: str

    @classmethod
    @contextlib.contextmanager
    def opened(cls, out: Path, jobs: Path) -> Iterator[Target]:
        """Yield a target that can be written, known before the first job runs; raise `InvalidInput` otherwise.

        Only a regular file is replaced: a device, a pipe or a folder is not, and the jobs file is not.
        """
        path = out.resolve()
        ending = (out.suffix or path.suffix).lower() or PARQUET
        if ending not in ENDINGS:
            raise InvalidInput(f"--out {out}: results are written as what the name ends with: {', '.join(ENDINGS)}")
        try:
            if path.exists():
                _check_replaceable(out, path, jobs)
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=".part")
        except OSError as error:
            raise InvalidInput(f"--out {out}: {error.strerror}") from None
        os.close(handle)
        part = Path(name)
        try:
            yield cls(path, part, ending)
        finally:
            part.unlink(missing_ok=True)

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Write rows as what the name ends with, whole or not at all."""
        import pyarrow as pa
        from pyarrow import csv, parquet

        from airside.actors.client.results import COLUMNS

        kinds = {int: pa.int64(), float: pa.float64(), str: pa.string()}
        schema = pa.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
        with self.part.open("wb") as file:  # by a name that is no Unicode, Arrow opens nothing
            match self.ending:
                case ".parquet":
                    parquet.write_table(pa.Table.from_pylist(rows, schema=schema), file)
                case ".csv":
                    csv.write_csv(pa.Table.from_pylist(rows, schema=schema), file)
                case _:
                    file.writelines(
                        f"{json_line({name: row.get(name) for name in COLUMNS})}\n".encode() for row in rows
                    )
        mask = os.umask(0)
        os.umask(mask)
        self.part.chmod(stat.S_IMODE(self.path.stat().st_mode) if self.path.exists() else 0o666 & ~mask)
        self.part.replace(self.path)


def _check_replaceable(out: Path, path: Path, jobs: Path) -> None:
    if path.is_dir():
        raise InvalidInput(f"--out {out}: that is a folder")
    if not path.is_file():
        raise InvalidInput(f"--out {out}: that is no regular file, and is not replaced")
    if not os.access(path, os.W_OK):
        raise InvalidInput(f"--out {out}: it may not be written")
    if jobs.exists() and path.samefile(jobs):
        raise InvalidInput(f"--out {out}: that is the jobs file")
