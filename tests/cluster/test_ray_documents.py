"""The blocks of the documents that need a stack, run on one: what a reader types does what the page says."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.on_ray import BOUND_S, until
from tests.test_documents import ROOT, Block, blocks, name_of

pytestmark = pytest.mark.ray

STORY = (
    "needs 1 of approver",
    "rejected by lea: who is eve?",
    "gate: allow by rule effects",
    "ended: completed [completed]",
)


def run(page: list[Block], names: dict[str, Any]) -> None:
    """Run blocks one after the other, as a reader would type them."""
    for block in page:
        exec(compile(block.text, name_of(block), "exec"), names)


def test_the_readmes_example_waits_for_a_person_and_tells_the_run(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It shows the planted address beside the one that was asked for; rejected, it writes to the latter alone."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "a_page"}
    shown: list[str] = []

    def decide() -> None:
        (waiting,) = until(lambda: names["stack"].approvals() if "stack" in names else [], "the question")
        shown.extend(waiting.lines())
        names["stack"].reject(waiting.approval_id, principal="lea", note="who is eve?")

    person = threading.Thread(target=decide, daemon=True)
    person.start()
    run([block for block in blocks("python") if block.page == ROOT / "README.md"], names)
    person.join(BOUND_S)
    readme = (ROOT / "README.md").read_text("utf-8")
    assert len(shown) > 4
    assert all(f"    {line}\n" in readme for line in shown[1:]), shown
    out = capsys.readouterr().out
    assert out.startswith("sent to bob@corp.example\n")
    assert all(said in out for said in STORY)


SAID = {"running-jobs.md": "completed", "memory.md": "Deliveries to Kim"}
"""What a page's blocks print, among others."""

PAGES = sorted({block.page for block in blocks("python", kinds=["stack"])} - {ROOT / "README.md"})


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_pages_blocks_run_on_a_stack(
    page: Path, local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of them, in order, in one folder; none raises, and what was asked for completed."""
    monkeypatch.chdir(tmp_path)
    run([block for block in blocks("python") if block.page == page], {"__name__": "a_page"})
    assert SAID[page.name] in capsys.readouterr().out
