"""`airside record`: the answers of models in a journal, as a cassette."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from airside.options import HERE, StateDir, path_of


def record(
    out: Annotated[Path, typer.Option(parser=path_of, help="the cassette to write; an existing one is replaced")],
    run_ids: Annotated[list[str] | None, typer.Argument(help="runs; all if left out")] = None,
    state_dir: StateDir = HERE,
) -> None:
    """Write what models answered, by the journal, as a cassette that `ModelEndpoint(cassette=...)` plays back."""
    from airside.actors.audit import open_audit
    from airside.stack.errors import Misuse
    from airside.stack.models.cassettes import recorded
    from airside.stack.models.events import ModelEvent, read_events

    sql = "SELECT stream, body FROM events WHERE stream LIKE 'model/%' ORDER BY stream, seq"
    streams: dict[str, list[ModelEvent]] = {}
    with open_audit(state_dir) as journal:
        for row in journal.query(sql).to_pylist():
            run_id = row["stream"].removeprefix("model/").rpartition(":")[0]
            if not run_ids or run_id in run_ids:
                streams.setdefault(row["stream"], []).extend(read_events([row["body"]]))
    lines = list(recorded(streams))
    if not lines:
        raise Misuse(f"no model answered in the journal of {state_dir}" + (" in these runs" if run_ids else ""))
    out.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    typer.echo(f"{len(lines)} answers in {out}")
