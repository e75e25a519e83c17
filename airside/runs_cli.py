"""`airside runs`: which runs there are, and one of them step by step."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer

from airside.options import (
    HERE,
    AsJson,
    OfTenant,
    RunOrPart,
    StateDir,
    brief,
    nothing_before,
    say_none,
    since_of,
    table,
)
from airside.output import json_line
from airside.stack.operations.overview import ACTIVE, RunDetail, RunStep, RunSummary
from airside.stack.operations.quantities import clock, money, span, used

runs = typer.Typer(help="Which runs there are, newest first; and `show RUN`, step by step.")


@runs.callback(invoke_without_command=True)
def runs_list(
    context: typer.Context,
    tenant: OfTenant = "",
    status: Annotated[str, typer.Option(help="completed, refused, stopped, failed, ..., or active")] = "",
    reason: Annotated[str, typer.Option(help="of this reason code only")] = "",
    since: Annotated[str, typer.Option(help="submitted since: 30m, 2h, 7d, or an ISO time (UTC)")] = "",
    active: Annotated[bool, typer.Option("--active", help="only what has not ended")] = False,
    branches: Annotated[bool, typer.Option("--branches", help="branches of runs too")] = False,
    limit: Annotated[int, typer.Option(help="how many at most, up to 1000")] = 20,
    as_json: AsJson = False,
    state_dir: StateDir = HERE,
) -> None:
    """List runs, newest first: one line a run, or with --json one object a line.

    Asks the stack if it runs, else the journal's file.
    """
    from airside.actors.audit import open_audit
    from airside.stack.errors import Misuse

    if context.invoked_subcommand is not None:
        return nothing_before(context)
    if active and status not in ("", ACTIVE):
        raise Misuse(f"--active and --status {status} together match nothing: give one of them")
    filters: dict[str, Any] = {"tenant": tenant, "status": ACTIVE if active else status, "reason": reason}
    with open_audit(state_dir) as journal:
        found = journal.runs(**filters, since=since_of(since), branches=branches, limit=limit)
    if as_json:
        for run in found:
            typer.echo(json_line(msgspec.to_builtins(run)))
    elif found:
        typer.echo("\n".join(table(_HEAD, [_row(run) for run in found])))
    say_none(found, "no runs")
    if len(found) == limit:
        typer.echo(f"the newest {limit}; there may be more: --limit, --since", err=True)


_SHOWN_ARGUMENTS = 12
_HEAD = ["RUN", "SUBMITTED", "WHO", "JOB", "STATUS", "WHY OR WHERE", "STEPS", "COST", "ACTIVE"]


def _row(run: RunSummary) -> list[str]:
    over = run.status != ACTIVE
    who = f"{run.principal}@{run.tenant}"
    figures = [str(run.steps), money(run.cost_microusd), span(run.active_us)] if over else ["", "", ""]
    why = run.reason_code if over else run.phase
    return [run.run_id, clock(run.submitted_us), brief(who, 40), brief(run.job_id, 24), run.status, why, *figures]


@runs.command()
def show(
    run_id: RunOrPart,
    as_json: AsJson = False,
    state_dir: StateDir = HERE,
) -> None:
    """Show one run: what was asked, each step with its decision and outcome, what it waited for, how it ended."""
    from airside.actors.audit import open_audit

    with open_audit(state_dir) as journal:
        found = journal.inspect(run_id)
    typer.echo(json_line(msgspec.to_builtins(found)) if as_json else "\n".join(step_lines(found)))


def step_lines(found: RunDetail) -> list[str]:
    """Return a run as lines."""
    run = found.run
    over = run.status != ACTIVE
    took = f" after {span(run.ended_us - run.submitted_us)}" if over else ""
    lines = [
        f"{run.run_id}: {run.status} [{run.reason_code or run.phase}]{took}",
        f"  asked by {run.principal}@{run.tenant} at {clock(run.submitted_us)}, route {run.route}"
        + (f", job {brief(run.job_id, 60)}" if run.job_id else "")
        + (f", a branch of {run.parent}" if run.parent else ""),
        f"  request: {brief(found.request, 200)}",
    ]
    if found.labels:
        lines.append(f"  labels: {', '.join(found.labels)}")
    for step in found.steps:
        lines += _step(step)
    for wait in found.waits:
        until = f"for {span(wait.until_us - wait.since_us)}" if wait.until_us else "and still does"
        lines.append(f"  waited ({wait.kind}) from {clock(wait.since_us)} {until}  {brief(wait.what, 120)}".rstrip())
    if over:
        lines.append(f"  why: {brief(found.detail, 300)}")
        lines += [f"  in doubt: {key}" for key in found.in_doubt]
        if found.in_doubt:
            lines.append("    while `airside in-doubt` lists it, find out what became of it, and say so:")
            lines += [f"    airside in-doubt resolve {key} --happened (or --not-happened)" for key in found.in_doubt]
            lines.append("    a tool that raises ToolError says that nothing was changed, and there is no doubt")
        if run.status == "completed":
            lines.append(f"  answer: {brief(found.answer, 200)}")
        lines.append(
            f"  used: {used(run.steps, run.tool_calls, run.tokens, run.cost_microusd)}, {span(run.active_us)} active"
        )
    return lines


def _step(step: RunStep) -> list[str]:
    parts = [step.decision and f"{step.decision} by {step.rule}" + (f" [{step.code}]" if step.code else "")]
    parts.append(step.outcome and f"-> {step.outcome}")
    parts.append(f"{step.attempts} attempts" if step.attempts > 1 else "")
    parts.append(f"decided in {span(step.decided_us)}" if step.decided_us else "")
    parts.append(f"took {span(step.took_us)}" if step.took_us else "")
    parts.append(money(step.cost_microusd) if step.cost_microusd else "")
    action = step.action or "(nothing yet)"
    lines = [f"  step {step.step}  {step.agent}: {action} {_arguments(step.arguments)}"]
    lines.append("      " + ", ".join(part for part in parts if part))
    if step.detail:
        lines.append(f"      {brief(step.detail, 200)}")
    return [line for line in lines if line.strip()]


def _arguments(arguments: Any) -> str:
    """Return arguments in brief, each of them to be seen: whom and how much, whatever the text beside it."""
    if not isinstance(arguments, dict):
        return brief(arguments, 200)
    shown = [f"{brief(name, 40)}={brief(value, 60)}" for name, value in list(arguments.items())[:_SHOWN_ARGUMENTS]]
    more = len(arguments) - len(shown)
    return ", ".join(shown) + (f", and {more} more" if more else "")
