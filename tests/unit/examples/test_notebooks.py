"""The notebooks as they are committed: outputs in every cell that has some, and nothing of whoever made them."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from tests.notebooks import NOTEBOOKS, kinds, texts


def test_there_are_notebooks() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["first_run", "load", "policy_approvals_budgets"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_has_outputs_without_errors_and_paths(path: Path) -> None:
    """A reader sees what comes out without playing it; no folder of the machine it was made on is in it."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    found = kinds(notebook)
    assert sum(map(bool, found)) > len(found) // 2
    assert not [kind for cell in found for kind in cell if kind.startswith("error")]
    assert not [each for cell in notebook.cells for each in cell.get("outputs", ()) if each.get("name") == "stderr"]
    paths = re.compile(r"(?<![\w.<])/(?:tmp|home|root|work|usr|opt|Users)\b")
    assert [text[:200] for text in texts(notebook) if paths.search(text)] == []
