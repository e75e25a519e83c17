"""A turn of LangGraph with its SQLite checkpointer; run in the environment of `langgraph.txt`.

The graph is one node that an edge leads back to, as its documentation draws an agent's loop: decision, check and call
together are one superstep, so that a step costs one checkpoint and not two.  Durability is `sync`: the checkpoint is
on disk before the next step begins (LangGraph's default, `async`, lets the next begin before).  The saver sets
`journal_mode=WAL` itself; `synchronous` is SQLite's default, FULL, and set here.

Each superstep is two commits: of the node's writes, and of the checkpoint.  A saver holds one lock round its one
connection, so tenants are spread over several savers, each with a file, which is faster than the one that the
documentation shows; a saver a tenant is no faster, nor is a node that is no coroutine.

The Functional API makes one commit of each task's result, but in the background: nothing waits for it before the next
task begins, so its steps are less durable than these.
"""

from __future__ import annotations

import asyncio
import operator
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph

from benchmarks.peers.ledger import STEPS, Json, Run, checked_run, governed_step
from benchmarks.peers.turn import measured, show

FILES = 4


class State(TypedDict):
    """What a run's checkpoints hold."""

    steps: int
    history: Annotated[list[Json], operator.add]


async def step(state: State) -> dict[str, Any]:
    """Make one governed step."""
    return {"history": [governed_step(len(state["history"]), state["steps"])]}


def following(state: State) -> str:
    """Return what comes after a step."""
    return "step" if len(state["history"]) < state["steps"] else END


async def compiled(exit_stack: AsyncExitStack, file: Path) -> Any:
    """Return the graph with checkpoints in a file."""
    saver = await exit_stack.enter_async_context(AsyncSqliteSaver.from_conn_string(str(file)))
    await saver.setup()
    await saver.conn.execute("PRAGMA synchronous = FULL")
    graph = StateGraph(State)
    graph.add_node("step", step)
    graph.add_edge(START, "step")
    graph.add_conditional_edges("step", following, ["step", END])
    return graph.compile(checkpointer=saver)


async def one_run(graph: Any, run: Run) -> None:
    """Make a run to its end."""
    config = {"configurable": {"thread_id": run.id}}
    state = await graph.ainvoke({"steps": STEPS, "history": []}, config, durability="sync")
    checked_run(state["history"])


def main() -> None:
    """Play one turn."""
    with ExitStack() as at_end:
        folder = Path(tempfile.mkdtemp(prefix="peers-langgraph-"))
        at_end.callback(shutil.rmtree, folder, ignore_errors=True)
        runner = at_end.enter_context(asyncio.Runner())
        savers = AsyncExitStack()

        async def start() -> list[Any]:
            return [await compiled(savers, folder / f"{i}.sqlite") for i in range(FILES)]

        graphs = runner.run(start())
        at_end.callback(lambda: runner.run(savers.aclose()))

        async def together(runs: Sequence[Run]) -> None:
            await asyncio.gather(*(one_run(graphs[run.tenant % FILES], run) for run in runs))

        show(measured(lambda runs: runner.run(together(runs))))


if __name__ == "__main__":
    main()
