"""The notebooks of the examples, played: they come out as they are committed, and leave nothing of this machine."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from airside.actors.client.ray_membership import list_stacks
from tests.notebooks import NOTEBOOKS, kinds, played

pytestmark = pytest.mark.ray


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_comes_out_as_it_is_committed(path: Path, tmp_path: Path, local_ray: None) -> None:
    """Each cell puts out what the committed one has, by kind, and no error; its stack is shut down at the end."""
    import ray

    before = list_stacks()
    committed = nbformat.read(path, as_version=4)
    assert kinds(played(path, tmp_path, address=ray.get_runtime_context().gcs_address)) == kinds(committed)
    assert list_stacks() <= before
