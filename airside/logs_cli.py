"""`airside logs`: where the layers' logs lie, and what is in them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from airside.options import HERE, StateDir, table
from airside.stack.errors import InvalidInput, Misuse

if TYPE_CHECKING:
    from airside.actors.process.logs import LogFile

_FOLLOW_S = 0.3
_PIECE_BYTES = 1 << 20


def logs(
    layer: Annotated[
        str, typer.Argument(help="a layer or its beginning: driver, executor, runtime/acme; all if left out")
    ] = "",
    tail: Annotated[int, typer.Option(help="print so many lines of each file's end")] = 0,
    follow: Annotated[bool, typer.Option("--follow", help="print what is written from now on, until Ctrl-C")] = False,
    state_dir: StateDir = HERE,
) -> None:
    """Show where the logs of the stack's processes lie; with --tail or --follow, what is in them.

    Also of a stack that is gone, as long as Ray's folder of it is there.
    """
    if tail < 0:
        raise InvalidInput(f"--tail {tail}: a number of lines is at least 0")
    folders, live = _found(state_dir)
    there = [file for folder in folders for file in _of(folder, live)]
    files = [file for file in there if file.layer.startswith(layer)]
    if not files:
        layers = ", ".join(dict.fromkeys(file.layer for file in there)) or "none"
        raise Misuse(f"no layer {layer!r:.60} has a log in {', '.join(map(str, folders))}; there are {layers}")
    if not tail and not follow:
        rows = [[f.layer, str(f.pid), "up" if f.is_live else "gone", str(f.size), str(f.path)] for f in files]
        typer.echo("\n".join(table(["LAYER", "PID", "", "BYTES", "FILE"], rows)))
        for folder in folders:
            typer.echo(f"Ray's own: {folder} (raylet.out, gcs_server.out)")
        return
    for file in files:
        if tail and file.size:
            typer.echo("\n".join([f"==> {file.layer} (pid {file.pid}) {file.path} <==", *_last(file.path, tail)]))
    if follow:
        _follow(files)


def _found(state_dir: Path) -> tuple[list[Path], dict[int, str]]:
    """Return the folders that hold logs of a state directory's stack, and its live processes by pid."""
    from airside.actors.process.logs import LINK
    from airside.cli import attached

    try:
        with attached(state_dir) as stack:
            layers = stack.status()
    except Misuse:
        folder = state_dir / LINK
        if not folder.is_dir():
            raise
        return [folder.resolve()], {}
    here = [Path(str(each["logs"])) for each in layers.values() if each.get("logs")]
    live = {int(each["pid"]): name for name, each in layers.items() if "pid" in each}
    return sorted({folder for folder in here if folder.is_dir()}), live


def _of(folder: Path, live: dict[int, str]) -> list[LogFile]:
    from airside.actors.process.logs import log_files

    return log_files(folder, live)


def _last(path: Path, count: int) -> list[str]:
    """Return the last lines of a file, as many as fit into a piece of it."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _PIECE_BYTES))
        return file.read().decode(errors="replace").splitlines()[-count:]


def _follow(files: list[LogFile]) -> None:
    """Print what is appended to files, line by line with whose it is, until interrupted."""
    places = {file.path: file.size for file in files}
    rests = dict.fromkeys(places, b"")
    while True:
        for file in files:
            with file.path.open("rb") as opened:
                opened.seek(places[file.path])
                data = opened.read(_PIECE_BYTES)
            places[file.path] += len(data)
            *lines, rests[file.path] = (rests[file.path] + data).split(b"\n")
            for line in lines:
                typer.echo(f"{file.layer}: {line.decode(errors='replace')}")
        time.sleep(_FOLLOW_S)
