"""A notebook's stack: prints come to the cell, a cell that is run again is noticed, `reload` runs the new app."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import airside
from airside.actors.client import owned_stack
from airside.actors.process import console
from airside.stack.errors import InvalidConfig
from tests.on_ray import BOUND_S, waiting

pytestmark = pytest.mark.ray

POLICY = """
version: v1
rules:
  - {id: reads, outcome: allow, when: {effect: [read]}}
  - {id: writes, outcome: require_approval, when: {effect: [write]}, approval: {roles: [lead]}}
"""
DIRECTORY = "tenants: {acme: {principals: {ana: {}, lea: {roles: [lead]}}}}\n"
CELL = """
import airside
SAYS = "old"

def clerk(view):
    print("agent prints", SAYS)
    if view.request.text == "pay" and not view.history:
        return airside.Action(tool="pay", arguments={})
    if not view.history:
        return airside.Action(tool="look", arguments={})
    return airside.Finish(answer=SAYS)

@airside.tool(effect="read")
def look() -> str:
    print("tool prints")
    return "seen"

@airside.tool(effect="write", process=True)
def pay() -> str:
    print("process prints")
    return "paid"
"""


@pytest.fixture(scope="module")
def notebook() -> Iterator[Any]:
    """Return a module that stands for a notebook's namespace; what it defines is sent by value, as a notebook's is."""
    import cloudpickle
    import ray.cloudpickle

    module = types.ModuleType("cells")
    module.__file__ = "/home/ana/cells.ipynb"
    sys.modules["cells"] = module
    for pickler in (cloudpickle, ray.cloudpickle):
        pickler.register_pickle_by_value(module)
    exec(CELL, module.__dict__)
    yield module
    for pickler in (cloudpickle, ray.cloudpickle):
        pickler.unregister_pickle_by_value(module)
    del sys.modules["cells"]


def app(notebook: Any) -> airside.App:
    """Return the app of what the notebook's names mean now."""
    return airside.App(
        agents={"clerk": notebook.clerk}, tools=[notebook.look, notebook.pay], policy=POLICY, directory=DIRECTORY
    )


def test_a_notebook_sees_prints_and_is_told_of_cells_that_were_run_again(
    notebook: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prints are there with the result, as stdout; a run that waited over the reload ends by the new app."""
    who = {"tenant": "acme", "principal": "ana"}
    monkeypatch.setattr(owned_stack, "is_in_notebook", lambda: True)
    monkeypatch.setattr(console, "CAUGHT_UP_S", BOUND_S)
    with airside.start(app(notebook), state_dir=tmp_path / "s", executors=1) as stack:
        run = stack.submit("look", **who)
        assert run.result(BOUND_S).answer == "old"
        agent, tool = f"[clerk acme/{run.run_id}] agent prints old\n", f"[look acme/{run.run_id}] tool prints\n"
        shown = capsys.readouterr().out
        assert agent in shown and tool in shown
        parked = stack.submit("pay", **who)
        approval = waiting(stack, parked.run_id)

        exec("SAYS = 'new'", notebook.__dict__)
        stack._own._looked = (0.0, 0)  # type: ignore[union-attr]
        with pytest.warns(UserWarning, match="agent clerk: defined otherwise now .* stack.reload"):
            assert stack.submit("look", **who).result(BOUND_S).answer == "old"
        with pytest.raises(InvalidConfig):
            stack.reload(airside.App(agents={}, tools=[], policy="", directory=""))
        stack.reload(app(notebook))
        assert stack.submit("look", **who).result(BOUND_S).answer == "new"
        stack.approve(approval.approval_id[-8:], principal="lea")
        assert parked.result(BOUND_S).answer == "new"
        shown = capsys.readouterr().out
        assert f"[pay acme/{parked.run_id}] process prints" in shown and "agent prints new" in shown

        stranded = stack.submit("pay", **who)
        waiting(stack, stranded.run_id)
        stack.reload(replace(app(notebook), routes={"new": airside.SingleAgent("clerk")}))
        assert any("no route 'default', which unfinished runs ask for (1)" in said for said in stack.warnings)
        assert stack.verify() == []
