"""`airside in-doubt`: calls of which nobody knows whether they happened, with all that a person needs to find out."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import typer

from airside.options import (
    HERE,
    OfTenant,
    StateDir,
    bounded,
    brief,
    nothing_before,
    renamed,
    say_none,
)
from airside.output import json_line
from airside.stack.operations.quantities import clock, money, span
from airside.stack.recovery.in_doubt import InDoubtCall
from airside.stack.recovery.spend_in_doubt import SpendInDoubt

in_doubt = typer.Typer(help="Calls of which nobody knows whether they happened, and why.")


@in_doubt.callback(invoke_without_command=True)
def in_doubt_show(context: typer.Context, tenant: OfTenant = "", state_dir: StateDir = HERE) -> None:
    """Show them, oldest first: the call, since when and why it is in doubt, and how that is resolved.

    Behind them stand attempts at questions to models of which nobody knows what they cost.
    """
    renamed(context, "doubts", "in-doubt")
    if context.invoked_subcommand is not None:
        return nothing_before(context)
    found, spend = _listed(state_dir, tenant), _spend(state_dir, tenant)
    for doubt in found:
        typer.echo("\n".join(lines_of(doubt, state_dir)))
    for each in spend:
        typer.echo("\n".join(spend_lines(each, state_dir)))
    say_none([*found, *spend], "nothing is in doubt")


@in_doubt.command("spend")
def in_doubt_spend(tenant: OfTenant = "", state_dir: StateDir = HERE) -> None:
    """List attempts at questions to models of which nobody knows what they cost, one JSON object a line.

    Each counts in full, as much as it could cost at most, until somebody says what it did cost.
    """
    found = _spend(state_dir, tenant)
    for doubt in found:
        typer.echo(json_line({**msgspec.to_builtins(doubt), "cause": brief(doubt.cause, 1000)}))
    say_none(found, "no spend is in doubt")


@in_doubt.command("list")
def in_doubt_list(tenant: OfTenant = "", state_dir: StateDir = HERE) -> None:
    """List them, oldest first, one JSON object a line; what is long in the arguments is cut."""
    found = _listed(state_dir, tenant)
    for doubt in found:
        shown = {**msgspec.to_builtins(doubt), "arguments": bounded(doubt.arguments)}
        typer.echo(json_line({**shown, "cause": brief(doubt.cause, 1000), "who_may_say": _who(state_dir)}))
    say_none(found, "nothing is in doubt")


def _listed(state_dir: Path, tenant: str) -> list[InDoubtCall]:
    from airside.actors.audit import open_audit

    with open_audit(state_dir) as journal:
        return journal.in_doubt(tenant or None)


def _spend(state_dir: Path, tenant: str) -> list[SpendInDoubt]:
    from airside.actors.audit import open_audit

    with open_audit(state_dir) as journal:
        return journal.spend_in_doubt(tenant or None)


def spend_lines(doubt: SpendInDoubt, state_dir: Path) -> list[str]:
    """Return spend in doubt as lines."""
    most = f"{money(doubt.reserved.cost_microusd)} and {doubt.reserved.tokens} tokens"
    return [
        f"{doubt.key}: what {brief(doubt.model, 60)} cost, tenant {doubt.tenant}, since {clock(doubt.since_us)}",
        f"     counts as {most}, the most it could cost",
        f"     why: {brief(doubt.cause, 1000)}",
        f"     airside in-doubt resolve-spend {doubt.key} --cost USD --why ... --state-dir {state_dir}",
    ]


def _who(state_dir: Path) -> str:
    return f"an operator: whoever can read {state_dir / 'keys'}"


def lines_of(doubt: InDoubtCall, state_dir: Path) -> list[str]:
    """Return a call in doubt as lines."""
    age = span(int(datetime.now(UTC).timestamp() * 1e6) - doubt.since_us)
    what = "the undo of " if doubt.undo else ""
    waits = f"the run waits until {clock(doubt.until_us)}" if doubt.until_us else "the run has ended"
    lines = [f"{doubt.key}: {what}{doubt.tool}, tenant {doubt.tenant}, in doubt since {clock(doubt.since_us)} ({age})"]
    lines += [f"     {brief(name, 60)}: {brief(value, 200)}" for name, value in doubt.arguments.items()]
    lines.append(f"     why: {brief(doubt.cause, 1000) or 'not on record'}")
    lines.append(f"     {waits}; who may say: {_who(state_dir)}")
    lines.append(
        f"     airside in-doubt resolve {doubt.key} --happened (or --not-happened) --why ... --state-dir {state_dir}"
    )
    return lines
