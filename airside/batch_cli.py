"""`airside batch`: batches that are run, looked at and changed from any terminal."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from airside.options import HERE, AsJson, StateDir, Why, limits_of, nothing_before, say_none, table
from airside.output import json_line
from airside.stack.errors import InvalidInput
from airside.stack.operations.quantities import clock, counted, money
from airside.stack.run.story import printable

if TYPE_CHECKING:
    from airside.actors.audit import Audit
    from airside.actors.client.batch_handle import BatchHandle
    from airside.actors.client.client import Stack
    from airside.actors.journal.batches import BatchSummary

batch = typer.Typer(no_args_is_help=True, help="Batches: how they stand, pausing, retuning, cancelling.")

_NAME = "the batch's name, as `airside batch list` shows it, or what it was given as --out"
Name = Annotated[str, typer.Argument(help=_NAME)]


@batch.callback()
def _before(context: typer.Context) -> None:
    nothing_before(context)


@batch.command("list")
def list_(
    limit: Annotated[int, typer.Option(help="at most so many")] = 100,
    as_json: AsJson = False,
    state_dir: StateDir = HERE,
) -> None:
    """List batches, newest first; asks the stack if it runs, else the journal's file."""
    from airside.actors.audit import open_audit
    from airside.actors.client.display.batches import input_of, output_of

    with open_audit(state_dir) as journal:
        found = journal.batches(limit=limit)
    if as_json:
        for each in found:
            typer.echo(json_line(msgspec.to_builtins(each)))
        return
    say_none(found, "there are no batches")
    rows = [
        [
            *(each.id, each.phase, clock(each.opened_us), str(_runs(each)), str(_ended(each)), str(_completed(each))),
            *(printable(input_of(each)), printable(output_of(each))),
        ]
        for each in found
    ]
    head = ["batch", "phase", "opened", "runs", "ended", "completed", "input", "results"]
    for line in table(head, rows) if rows else ():
        typer.echo(line)


@batch.command()
def show(name: Name, as_json: AsJson = False, state_dir: StateDir = HERE) -> None:
    """Show how a batch stands: its runs by how they ended, what they used, and the last order.

    Asks the stack if it runs, else the journal's file.
    """
    from airside.actors.audit import JournalFile, open_audit
    from airside.actors.client.display.batches import input_of, named, output_of

    with open_audit(state_dir) as journal:
        handle = _named(journal, name)
        found = handle.show()
        waiting = handle.waiting(found)
        is_up = not isinstance(journal, JournalFile)
    if as_json:
        typer.echo(json_line(msgspec.to_builtins(found)))
        return
    counts = f"{counted(_runs(found), 'run')}, {_ended(found)} ended"
    typer.echo(f"{found.id}: {found.phase}, opened {clock(found.opened_us)}, {counts}")
    if found.phase == "running" and not is_up:
        typer.echo("  its stack is not up: it was running when that went down; `airside run --resume` takes it up")
    if found.phase == "stopped":
        typer.echo("  `airside run --resume` takes it up, and writes the results that are not there yet")
    if waiting:
        typer.echo(f"  waits for people: {named(waiting)}")
    settings = msgspec.to_builtins(found.settings)
    if settings:
        typer.echo(f"  retuned: {json_line(settings)}")
    typer.echo(f"  of {_whose(found)}, opened by {printable(found.opened_by)}")
    for what, place in (("read from", input_of(found)), ("results in", output_of(found))):
        if place:
            typer.echo(f"  {what} {printable(place)}")
    if found.last_order:
        typer.echo(f"  last order: {printable(found.last_order)}")
    rows = [
        [each.status, each.reason_code, str(each.runs), str(each.steps), str(each.tokens), money(each.cost_microusd)]
        for each in found.outcomes
    ]
    for line in table(["status", "reason", "runs", "steps", "tokens", "cost"], rows) if rows else ():
        typer.echo(f"  {line}")


@batch.command()
def pause(name: Name, why: Why = "", state_dir: StateDir = HERE) -> None:
    """Submit no more jobs of a batch; what is under way goes on."""
    from airside.cli import attached

    with attached(state_dir) as stack:
        found = _named(stack, name)
        found.pause(why=why)
    typer.echo(f"{found.id}: paused")


@batch.command()
def resume(name: Name, why: Why = "", state_dir: StateDir = HERE) -> None:
    """Take a pause or a cancellation back; one that its process has left is taken up by `airside run --resume`."""
    from airside.cli import attached

    with attached(state_dir) as stack:
        found = _named(stack, name)
        found.resume(why=why)
    typer.echo(f"{found.id}: resumed")


@batch.command()
def retune(
    name: Name,
    concurrency: Annotated[int, typer.Option(help="jobs under way at once")] = 0,
    rate: Annotated[float, typer.Option(help="submissions a second; 0: as many as there is room for")] = -1.0,
    priority: Annotated[int, typer.Option(help="before which of its tenant's runs: -100 to 100")] = -1000,
    limit: Annotated[list[str] | None, typer.Option(help="NAME=VALUE of each further run; repeatable")] = None,
    why: Why = "",
    state_dir: StateDir = HERE,
) -> None:
    """Change how the further jobs of a batch are submitted; what is not given stays."""
    from airside.cli import attached

    with attached(state_dir) as stack:
        found = _named(stack, name)
        found.retune(
            concurrency=concurrency or None,
            rate_per_s=None if rate == -1.0 else rate,
            priority=None if priority == -1000 else priority,
            limits=limits_of(limit),
            why=why,
        )
    typer.echo(f"{found.id}: retuned")


@batch.command()
def requeue(
    name: Name,
    job_ids: Annotated[list[str], typer.Argument(help="ids of jobs that have ended")],
    why: Why = "",
    state_dir: StateDir = HERE,
) -> None:
    """Run jobs of a batch again, whatever they did, once the others have begun."""
    from airside.cli import attached

    with attached(state_dir) as stack:
        found = _named(stack, name)
        found.requeue(job_ids, why=why)
    typer.echo(f"{found.id}: {len(job_ids)} requeued")


@batch.command()
def cancel(name: Name, why: Why = "", state_dir: StateDir = HERE) -> None:
    """Submit no more jobs of a batch, and withdraw those under way."""
    from airside.cli import attached

    with attached(state_dir) as stack:
        found = _named(stack, name)
        found.cancel(why=why)
    typer.echo(f"{found.id}: cancelled")


def _named(stack: Stack | Audit, name: str) -> BatchHandle:
    """Return the batch of a name; where there is none, the one whose results are in the folder or file of that name."""
    from airside.batches.manifest import read_manifest
    from airside.batches.output import PARTS

    with contextlib.suppress(InvalidInput):  # of what is no batch's name
        if (found := stack.batch(name)).state().length:
            return found
    there = read_manifest(name) or read_manifest(name.rstrip("/") + PARTS) if name else None
    return stack.batch(there.batch if there is not None else name)


def _whose(found: BatchSummary) -> str:
    return "/".join(each for each in (found.tenant, found.principal) if each) or "the house"


def _runs(found: BatchSummary) -> int:
    return sum(each.runs for each in found.outcomes)


def _ended(found: BatchSummary) -> int:
    return sum(each.runs for each in found.outcomes if each.status != "active")


def _completed(found: BatchSummary) -> int:
    return sum(each.runs for each in found.outcomes if each.status == "completed")
