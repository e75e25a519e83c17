"""A notebook's kernel: cells that are interrupted leave runs that go on, and a restarted one finds its stack again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tests.notebooks import JOIN
from tests.on_ray import BOUND_S

pytestmark = [pytest.mark.ray, pytest.mark.slow]

APP = """
import asyncio
from pathlib import Path
import airside

HERE = Path.cwd()
DIRECTORY = "tenants: {acme: {principals: {ana: {}}}}"
POLICY = "version: v1\\nrules: [{id: reads, outcome: allow, when: {effect: [read]}}]"


class Clerk:
    def decide(self, view):
        if not view.history:
            return airside.Action(tool="wait", arguments={"name": view.request.text})
        return airside.Finish(answer=view.history[-1].result.value())


@airside.tool(effect="read")
async def wait(name: str) -> str:
    (HERE / f"{name}-began").touch()
    while not (HERE / "go").exists():
        await asyncio.sleep(0.05)
    return f"{name} is over"


app = airside.App(agents={"clerk": Clerk()}, tools=[wait], policy=POLICY, directory=DIRECTORY)
who = {"tenant": "acme", "principal": "ana"}


def jobs(*names):
    return [airside.Job(request=name, **who) for name in names]
"""


class Kernel:
    """Runs cells, as a person does."""

    def __init__(self, client: NotebookClient, folder: Path) -> None:
        self._client = client
        self._folder = folder

    async def run(self, source: str) -> Any:
        """Run a cell and return its output, the last if there are several; None if there is none."""
        cell = nbformat.v4.new_code_cell(source)
        self._client.nb.cells.append(cell)
        with contextlib.suppress(CellExecutionError):
            await self._client.async_execute_cell(cell, len(self._client.nb.cells) - 1)
        return cell.outputs[-1] if cell.outputs else None

    async def interrupted(self, source: str, *files: str) -> Any:
        """Run a cell, interrupt it when these files are there, and return the error."""
        running = asyncio.create_task(self.run(source))
        await self.until(lambda: all((self._folder / file).exists() for file in files))
        assert not running.done()
        await self._client.km.interrupt_kernel()
        error = await running
        assert error.output_type == "error", error
        return error

    async def restart(self) -> None:
        """Kill the kernel and start another one."""
        await self._client.km.restart_kernel(now=True)
        await self._client.kc.wait_for_ready(timeout=BOUND_S)

    async def until(self, found: Callable[[], bool]) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(BOUND_S):
            while not found():  # noqa: ASYNC110 - files of another process
                await asyncio.sleep(0.05)


async def test_runs_outlive_the_cells_that_wait_for_them_and_the_kernel(tmp_path: Path, local_ray: None) -> None:
    """What is raised says how to get at them; after a restart `airside.connect` does."""
    import ray

    join = JOIN.format(address=ray.get_runtime_context().gcs_address)
    where = {"metadata": {"path": str(tmp_path)}}
    client = NotebookClient(nbformat.v4.new_notebook(), timeout=int(BOUND_S), kernel_name="python3", resources=where)
    async with client.async_setup_kernel():
        kernel = Kernel(client, tmp_path)
        for source in (join, APP, 'stack = airside.start(app, state_dir="s", executors=1)'):
            assert await kernel.run(source) is None
        assert "up" in (await kernel.run("stack")).data["text/html"]

        await kernel.run('one = stack.submit("one", **who)')
        error = await kernel.interrupted("(HERE / 'waits').touch(); one.result()", "waits", "one-began")
        assert error.ename == "ResultsInterrupted" and "goes on: `stack.handle('run_" in error.evalue
        assert "steps.py" not in "".join(error.traceback), error.traceback
        assert "executing" in (await kernel.run("one")).data["text/plain"]

        error = await kernel.interrupted("stack.map(jobs('a', 'b'), progress=False)", "a-began", "b-began")
        assert error.ename == "MapInterrupted" and "2 runs go on: `stack.results(error.run_ids)`" in error.evalue
        error = await kernel.interrupted("(HERE / 'awaits').touch(); await one", "awaits")
        assert error.ename == "CancelledError" and "goes on: `stack.handle('run_" in "".join(error.traceback)
        error = await kernel.interrupted("await stack.amap(jobs('c'), progress=False)", "c-began")
        assert error.ename == "CancelledError" and "1 runs go on: `stack.results(error.run_ids)`" in error.traceback[-1]
        assert len(error.traceback) < 12 and "steps.py" not in "".join(error.traceback), error.traceback
        shown = await kernel.run("import sys; len(sys.last_value.run_ids)")
        assert shown.data["text/plain"] == "1"
        shown = await kernel.run("stack.runs(status='active')")
        assert shown.data["text/plain"].startswith("4 runs")

        await kernel.restart()
        for source in (join, 'stack = airside.connect("s")'):
            assert await kernel.run(source) is None
        (tmp_path / "go").touch()
        shown = await kernel.run("stack.results(stack.runs(), timeout=60)")
        assert shown.data["text/plain"].startswith("4 results: 4 completed"), shown
        assert "one is over" in shown.data["text/html"]
        await kernel.run("stack.shutdown()")
        assert "this stack is closed" in (await kernel.run("stack")).data["text/plain"]
