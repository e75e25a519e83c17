"""A notebook's cell that is run again changes what its names mean, and the stack that runs the old ones is told so."""

from __future__ import annotations

import sys
import types
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

import airside
from airside.actors.client.fingerprint import Drift
from airside.actors.client.owned_stack import OwnedStack

if TYPE_CHECKING:
    from airside.actors.app import ValidatedApp

CELL = """
import airside
LIMIT = 5
TABLE = {"a": [1, 2]}

def helper():
    return LIMIT

def clerk(view):
    return airside.Finish(answer=helper())

@airside.tool(effect="read")
def look() -> int:
    "Look."
    return len(TABLE)

class Planner:
    def __init__(self):
        self.depth = 1
    async def decide(self, view):
        return airside.Finish(answer=self.depth)
"""


@pytest.fixture
def notebook() -> Iterator[types.ModuleType]:
    """Return a module that stands for a notebook's namespace, after its first cell."""
    module = types.ModuleType("notebook")
    module.__file__ = "/home/ana/notebook.ipynb"
    sys.modules["notebook"] = module
    run(module, CELL)
    yield module
    del sys.modules["notebook"]


def run(module: types.ModuleType, cell: str) -> None:
    """Run a cell in the notebook."""
    exec(compile(cell, "cell", "exec"), module.__dict__)


def drift(module: Any) -> Drift:
    """Return what compares an app of this notebook."""
    return Drift(
        airside.App(
            agents={"clerk": module.clerk, "planner": module.Planner()},
            tools=[module.look],
            policy="",
            directory="",
        )
    )


@pytest.mark.parametrize(
    ("cell", "changed"),
    [
        ("x = 1", []),
        (CELL, []),
        ("def clerk(view):\n    return airside.Finish(answer=2)", ["agent clerk"]),
        ("LIMIT = 6", ["agent clerk"]),
        ("def helper():\n    return 1", ["agent clerk"]),
        ("TABLE['a'].append(3)", ["tool look"]),
        ("@airside.tool(effect='read')\ndef look() -> int:\n    'Look.'\n    return 7", ["tool look"]),
        ("@airside.tool(effect='write')\ndef look() -> int:\n    'Look.'\n    return len(TABLE)", ["tool look"]),
        (
            "class Planner:\n    def __init__(self):\n        self.depth = 1\n"
            "    async def decide(self, view):\n        return airside.Finish(answer=0)",
            ["agent planner"],
        ),
    ],
)
def test_what_a_cell_changes_is_named(notebook: Any, cell: str, changed: list[str]) -> None:
    compared = drift(notebook)
    assert compared.changed() == {}
    run(notebook, cell)
    assert [*compared.changed()] == changed


def test_a_name_that_is_an_attribute_or_a_local_somewhere_is_no_global_of_it(notebook: Any) -> None:
    run(notebook, "def helper():\n    import time\n    return time.monotonic() and (lambda done: done.result)(None)")
    compared = drift(notebook)
    run(notebook, "import time\nresult = 7\ndone = 8")
    assert compared.changed() == {}


def test_each_change_is_warned_of_once_where_the_caller_stands(notebook: Any) -> None:
    clock = iter(range(0, 10_000, 10))
    app: Any = airside.App(agents={"clerk": notebook.clerk}, tools=[notebook.look], policy="", directory="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("airside.actors.client.owned_stack.time.monotonic", lambda: float(next(clock)))
        own = OwnedStack(
            "s", cast("ValidatedApp", SimpleNamespace(app=app)), lambda _: None, lambda: None, output=False
        )
        for cell, warned in (("LIMIT = 6", 1), ("", 0), ("LIMIT = 7", 1), ("TABLE['b'] = 1", 1)):
            run(notebook, cell)
            with warnings.catch_warnings(record=True) as found:
                warnings.simplefilter("always")
                own.warn_of_changes()
            assert len(found) == warned and all(each.filename == __file__ for each in found)


def test_another_cell_is_looked_at_however_soon_it_comes(notebook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all cells are run one after the other, less than a second is between a change and what submits."""
    monkeypatch.setattr("airside.actors.client.owned_stack.time.monotonic", lambda: 0.0)
    shell = SimpleNamespace(execution_count=1)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    app: Any = airside.App(agents={"clerk": notebook.clerk}, tools=[notebook.look], policy="", directory="")
    own = OwnedStack("s", cast("ValidatedApp", SimpleNamespace(app=app)), lambda _: None, lambda: None, output=False)
    run(notebook, "LIMIT = 6")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        own.warn_of_changes()
    shell.execution_count = 2
    with pytest.warns(UserWarning, match="defined otherwise now"):
        own.warn_of_changes()


def test_things_that_hold_each_other_and_large_ones_come_to_an_end(notebook: Any) -> None:
    run(notebook, "TABLE['self'] = TABLE\nTABLE['big'] = list(range(10**6))")
    compared = drift(notebook)
    run(notebook, "TABLE['big'] = list(range(10**6))")
    assert [*compared.changed()] == ["tool look"]


def test_the_defaults_of_every_function_on_the_way_count(notebook: Any) -> None:
    """What is looked at is kept meanwhile: another object with the id of one that is gone is no repetition of it."""
    names = "abcdefgh"
    for name, following in zip(names, [*names[1:], ""], strict=True):
        run(notebook, f"def {name}(limit=5):\n    return {(following + '() or ') if following else ''}limit")
    run(notebook, "def clerk(view, more=1):\n    return airside.Finish(answer=a())")
    compared = drift(notebook)
    for name in names:
        following = names[names.index(name) + 1 :][:1]
        run(notebook, f"def {name}(limit=6):\n    return {(following + '() or ') if following else ''}limit")
        assert [*compared.changed()] == ["agent clerk"], name
        run(notebook, f"def {name}(limit=5):\n    return {(following + '() or ') if following else ''}limit")
        assert compared.changed() == {}, name
