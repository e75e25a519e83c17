"""What apps import: the names of `airside` and of its public modules, and what importing them costs."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import airside

ROOT = Path(__file__).parents[1]
MAX_NAMES = 30
MODULES = (
    "airside",
    "airside.adapters",
    "airside.audit",
    "airside.batches",
    "airside.client",
    "airside.directory",
    "airside.http",
    "airside.jobs",
    "airside.mcp",
    "airside.memory",
    "airside.models",
    "airside.ray_data",
    "airside.resources",
    "airside.tools",
    "airside.webhooks",
)
"""What the documents teach; whatever else can be imported is how it is made, and may change."""


@pytest.mark.parametrize("name", MODULES)
def test_the_public_names_are_few_and_resolve(name: str) -> None:
    """Each name of `__all__` is once there, in order, and leads to something."""
    module = importlib.import_module(name)
    assert 0 < len(module.__all__) <= MAX_NAMES
    assert len(set(module.__all__)) == len(module.__all__)
    assert all(getattr(module, public) is not None for public in module.__all__)


@pytest.mark.parametrize("package", ["airside", "airside.batches", "airside.memory", "airside.tools"])
def test_a_lazy_packages_names_are_those_type_checkers_see(package: str) -> None:
    """What is imported under TYPE_CHECKING is what is found at run time, from the same modules."""
    module = importlib.import_module(package)
    tree = ast.parse(Path(module.__file__ or "").read_text("utf-8"))
    (guarded,) = (node for node in tree.body if isinstance(node, ast.If))
    typed = {
        str(node.module): sorted(alias.name for alias in node.names)
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
    }
    assert typed == {home: sorted(names) for home, names in module._HOME.items()}
    assert sorted(module.__all__) == sorted(name for names in typed.values() for name in names) == dir(module)


def test_a_name_that_is_none_is_said_to_be_none() -> None:
    """As any module says it, so that `from airside import X` is an ImportError with the name."""
    with pytest.raises(AttributeError, match="module 'airside' has no attribute 'Apq'"):
        airside.Apq  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'remembr'"):
        exec("from airside.memory import remembr")


def test_a_folders_public_names_are_imported_when_they_are_asked_for() -> None:
    """So that `memory`, which stands below `tools`, offers a tool and does not depend on it."""
    code = (
        "import sys, airside.memory, airside.tools\n"
        "own = sorted(m for m in sys.modules if m.startswith('airside.') and not m.startswith('airside.stack'))\n"
        "assert own == ['airside.memory', 'airside.tools'], own\n"
        "from airside.memory import remember\n"
        "assert remember.spec.name == 'remember'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
