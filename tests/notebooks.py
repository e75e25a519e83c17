"""The notebooks of `examples/notebooks`, played in kernels of this interpreter.

    python -m tests.notebooks            # says which outputs are of another kind than those that are committed
    python -m tests.notebooks --write    # commits to the files what comes out

What is compared is the kind of each output: ids, times and counts are others every time.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "examples" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
CELL_S = 90
"""Longest one cell may take."""

JOIN = """
import airside.actors
import ray
joined = ray.init(address={address!r}, namespace="airside", log_to_driver=False, logging_level="error")
"""
"""Puts a kernel into a Ray that is there, so that what its notebook starts takes that one."""


def played(path: Path, folder: Path, *, address: str = "") -> Any:
    """Return a notebook as it is after it was played in `folder`, on the Ray at `address` or one of its own.

    Raises `CellExecutionError` for a cell that fails.
    """
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    if address:
        notebook.cells.insert(0, nbformat.v4.new_code_cell(JOIN.format(address=address)))
    where = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=CELL_S, kernel_name="python3", resources=where, record_timing=False)
    client.coalesce_streams = True
    client.execute()
    return tidied(notebook, skipped=1 if address else 0)


def tidied(notebook: Any, *, skipped: int) -> Any:
    """Return a notebook without what differs from machine to machine, and without its first cells."""
    del notebook.cells[:skipped]
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.execution_count -= skipped
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = cell.execution_count
                if output.output_type == "display_data":
                    output.pop("transient", None)
    return notebook


def kinds(notebook: Any) -> list[list[str]]:
    """Return what each code cell puts out, by kind: a stream's name, an error, or an output's types.

    What is on stderr is left out: Ray warns there of a machine that is slow, which no cell has asked for.
    """
    found = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            said = [kind for kind in map(_kind, cell.outputs) if kind != "stream stderr"]
            found.append([kind for kind, _ in itertools.groupby(said)])
    return found


def _kind(output: Any) -> str:
    if output.output_type == "stream":
        return f"stream {output.name}"
    if output.output_type == "error":
        return f"error {output.ename}"
    return f"{output.output_type} {' '.join(sorted(output.data))}"


def texts(notebook: Any) -> list[str]:
    """Return everything that outputs say, as text."""
    found: list[str] = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            found += [str(output.get("text", "")), *map(str, output.get("data", {}).values())]
    return found


def main() -> None:
    """Play them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write what comes out into the files")
    parser.add_argument("names", nargs="*", help="of these alone: first_run, ...")
    given = parser.parse_args()
    for path in NOTEBOOKS:
        if given.names and path.stem not in given.names:
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            notebook = played(path, Path(folder))
        if given.write:
            nbformat.write(notebook, path)
        same = kinds(notebook) == kinds(nbformat.read(path, as_version=4))
        print(f"{path.name}: {'as committed' if same else 'outputs of other kinds'}, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
