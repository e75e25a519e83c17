"""`airside up` and `airside down`: keeping a stack up, and stopping it from another terminal."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
import time
from typing import Annotated

import typer

from airside.options import HERE, AppArgs, AppName, Mode, StateDir, starting
from airside.stack.errors import LayerUnavailable, Misuse

_LOOK_S = 0.5
_GONE_S = 60.0
"""Longest a stack's own Ray, which the process that keeps it up ends with itself, may take to end."""


def up(
    app_name: AppName,
    app_arg: AppArgs = None,
    state_dir: StateDir = HERE,
    mode: Mode = "dedicated",
    address: Annotated[str, typer.Option(help="a Ray cluster to run on: auto, or HOST:PORT; else one of its own")] = "",
    detach: Annotated[bool, typer.Option("--detach", help="with --address: leave it up and return")] = False,
    journal: Annotated[str, typer.Option(help="a PostgreSQL database for the journal: postgresql://...")] = "",
) -> None:
    """Start a stack and keep it up until Ctrl-C, SIGTERM or `airside down`; other processes attach to it."""
    import airside
    from airside.actors.client.stack_record import is_recorded, keep
    from airside.actors.process.logs import LINK
    from airside.cli import load_app

    if detach and not address:
        raise Misuse("--detach: a Ray of the stack's own ends with this command: give --address too")
    stop = threading.Event()
    at_terminal = sys.stderr.isatty()
    if at_terminal:
        typer.echo("starting ...", err=True)
    made = load_app(app_name, app_arg or [])
    try:
        kept = {"journal": journal} if journal else {}
        with starting():
            stack = airside.start(made, state_dir=state_dir, mode=mode, address=address or None, **kept)
    except Misuse as error:
        raise _in_a_shell(error) from None
    folder = stack.state_dir
    if detach:
        typer.echo(f"up; state in {folder}, logs in {folder / LINK}; stop it with `airside down`")
        return stack.close()
    try:
        keep(folder, stack.stack_id)
        for number in (signal.SIGINT, signal.SIGTERM):  # after the start: Ray sets handlers of its own
            signal.signal(number, lambda *_: stop.set())
        typer.echo(f"up; state in {folder}, logs in {folder / LINK}")
        if made.http:
            typer.echo(f"serving on {', '.join(sorted(set(stack.http_urls)))}")
        while not stop.wait(_LOOK_S):
            if not is_recorded(folder, stack.stack_id):
                break  # `airside down` stopped it
    finally:
        stack.shutdown()
    if at_terminal:
        typer.echo("stopped", err=True)
    return None


def _in_a_shell(error: Misuse) -> Misuse:
    """Return what is wrong with a start, for a shell: of a stack that runs already which commands are for it."""
    if (folder := error.details.get("running")) is None:
        return error
    of_it = f"--state-dir {shlex.quote(folder)}"
    said = error.message.partition(": use ")[0]
    return Misuse(f"{said}: `airside status {of_it}` shows it, `airside down {of_it}` stops it")


def down(state_dir: StateDir = HERE) -> None:
    """Stop the stack of a state directory in good order; what is unfinished is taken up by the next start."""
    from airside.actors.client.stack_record import kept_by, read_record
    from airside.cli import attached

    with attached(state_dir) as stack:
        record = read_record(stack.state_dir)
        stack.shutdown()
    until = time.monotonic() + _GONE_S
    while pid := kept_by(record):
        if time.monotonic() > until:
            raise LayerUnavailable(f"the stack is stopped, but process {pid}, which kept it up, has not ended")
        time.sleep(_LOOK_S / 5)
    typer.echo("stopped")
