"""`airside record` and `airside audit questions`: what models were told and answered, by a journal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from airside.options import HERE, RunOrPart, StateDir, path_of, say_none
from airside.output import json_line
from airside.stack.ids import TenantId
from airside.stack.models.blobs import prompt_of_blob
from airside.stack.models.events import ModelAsked, ModelEvent, read_events
from airside.stack.values import tag_of


def record(
    out: Annotated[Path, typer.Option(parser=path_of, help="the cassette to write; an existing one is replaced")],
    run_ids: Annotated[
        list[str] | None, typer.Argument(help="runs, by their ids or parts of them; all if left out")
    ] = None,
    state_dir: StateDir = HERE,
) -> None:
    """Write what models answered, by the journal, as a cassette that `ModelEndpoint(cassette=...)` plays back."""
    from airside.stack.errors import Misuse
    from airside.stack.models.cassettes import recorded

    found = _questions_of(state_dir, run_ids or ())
    lines = list(recorded({stream: events for stream, _, events in found}))
    if not lines:
        raise Misuse(f"no model answered in the journal of {state_dir}" + (" in these runs" if run_ids else ""))
    out.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    typer.echo(f"{len(lines)} answers in {out}")


def _questions_of(
    state_dir: Path, named: Sequence[str], *, branches: bool = False
) -> list[tuple[str, TenantId, list[ModelEvent]]]:
    """Return the streams of questions to models of some runs, or of all, whose each is, and its events."""
    from airside.actors.audit import open_audit, run_named
    from airside.stack.models.spans import run_of_stream

    sql = "SELECT stream, tenant, body FROM events WHERE starts_with(stream, 'model/') ORDER BY stream, seq"
    found: dict[str, tuple[TenantId, list[ModelEvent]]] = {}
    with open_audit(state_dir) as journal:
        wanted = [run_named(journal, each) for each in named]
        for row in journal.query(sql).to_pylist():
            run = run_of_stream(row["stream"])
            if not named or run in wanted or (branches and any(run.startswith(f"{each}.") for each in wanted)):
                _, events = found.setdefault(row["stream"], (TenantId(row["tenant"]), []))
                events.extend(read_events([row["body"]]))
    return [(stream, tenant, events) for stream, (tenant, events) in found.items()]


def questions(run_id: RunOrPart, state_dir: StateDir = HERE) -> None:
    """Show what models were asked for a run and its branches, and what they answered: a JSON object an entry.

    What they were told is there if the stack keeps it (setting `model_content`). It takes the stack's key files.
    """
    from airside.stack.models.spans import run_of_stream

    found = _questions_of(state_dir, [run_id], branches=True)
    for stream, tenant, events in found:
        for event in events:
            shown = {"run_id": run_of_stream(stream), "type": tag_of(event), **msgspec.to_builtins(event)}
            if isinstance(event, ModelAsked) and event.prompt_blob:
                shown["prompt"] = _kept_prompt(state_dir, tenant, event.prompt_blob)
            typer.echo(json_line(shown))
    say_none(found, "no model was asked")


def _kept_prompt(state_dir: Path, tenant: TenantId, name: str) -> dict[str, Any]:
    """Return a prompt that was kept, with the names of its fields, which it is kept without."""
    from airside.actors.models.blobs import BLOBS, FileBlobs
    from airside.stack.security.keyring import read_blob_key

    blobs = FileBlobs(state_dir / BLOBS, read_blob_key(state_dir / "keys"))
    prompt = prompt_of_blob(blobs.read(tenant, name))
    turns = [
        {**msgspec.structs.asdict(turn), "calls": [msgspec.structs.asdict(call) for call in turn.calls]}
        for turn in prompt.turns
    ]
    tools = [
        {"name": tool.name, "description": tool.description, "parameters": msgspec.json.decode(tool.parameters)}
        for tool in prompt.tools
    ]
    return {**msgspec.structs.asdict(prompt), "turns": turns, "tools": tools}
