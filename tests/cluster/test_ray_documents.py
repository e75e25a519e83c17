"""The blocks of the documents that need a stack, run on one: what a reader types does what the page says."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airside import Stack
from tests.on_ray import BOUND_S, until
from tests.test_documents import ROOT, Block, blocks, name_of

pytestmark = pytest.mark.ray

README, INJECTION = ROOT / "README.md", ROOT / "docs" / "guide" / "provenance.md"


def run(page: list[Block], names: dict[str, Any]) -> None:
    """Run blocks one after the other, as a reader would type them."""
    for block in page:
        exec(compile(block.text, name_of(block), "exec"), names)


def play(page: Path, here: Path, decide: Callable[[Stack, str], object]) -> list[str]:
    """Run a page's blocks while a person decides about the one call that waits; return what that person was shown."""
    (here / "examples").symlink_to(ROOT / "examples")
    names: dict[str, Any] = {"__name__": "a_page"}
    shown: list[str] = []

    def look() -> None:
        (waiting,) = until(lambda: names["stack"].approvals() if "stack" in names else [], "the question")
        shown.extend(waiting.lines())
        decide(names["stack"], waiting.approval_id)

    person = threading.Thread(target=look, daemon=True)
    person.start()
    run([block for block in blocks("python") if block.page == page], names)
    person.join(BOUND_S)
    return shown


def test_the_readmes_example_waits_for_a_person_and_tells_the_run(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A lead approves the refund that a model proposes, which then writes to the customer; by recorded answers."""
    monkeypatch.chdir(tmp_path)
    shown = play(README, tmp_path, lambda stack, approval: stack.approve(approval, principal="lea"))
    out, readme = capsys.readouterr().out, README.read_text("utf-8")
    assert len(shown) > 3 and all(f"    {line}\n" in readme for line in shown[2:]), shown
    assert (
        out.startswith("Order L-1007 was lost by the carrier; 49.00 was refunded")
        and f"    {out.splitlines()[0]}\n" in readme
    )
    assert "recall: 1 records" in out
    for said in ("approved by lea", "gate: allow by rule mails", "ended: completed [completed]"):
        assert said in out and said in readme, said


@pytest.mark.slow
def test_the_example_of_an_injection_waits_for_a_person_who_is_shown_it(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It shows the planted address beside the one that was asked for; rejected, it writes to the latter alone."""
    monkeypatch.chdir(tmp_path)
    shown = play(INJECTION, tmp_path, lambda stack, name: stack.reject(name, principal="lea", note="who is eve?"))
    out, page = capsys.readouterr().out, INJECTION.read_text("utf-8")
    assert len(shown) > 4 and all(f"    {line}\n" in page for line in shown[1:]), shown
    assert out.startswith("sent to bob@corp.example\n")
    for said in ("rejected by lea: who is eve?", "gate: allow by rule effects", "ended: completed [completed]"):
        assert said in out and said in page, said


SAID = {"running-jobs.md": "completed", "memory.md": "Deliveries to Kim"}
"""What a page's blocks print, among others."""

OTHERWISE = {README, INJECTION, ROOT / "docs" / "guide" / "models.md", ROOT / "docs" / "guide" / "replay.md"}
"""Played above, or in need of a provider's key, or of somebody's run on record."""

PAGES = sorted({block.page for block in blocks("python", kinds=["stack"])} - OTHERWISE)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_pages_blocks_run_on_a_stack(
    page: Path, local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of them, in order, in one folder; none raises, and what was asked for completed."""
    monkeypatch.chdir(tmp_path)
    run([block for block in blocks("python") if block.page == page], {"__name__": "a_page"})
    assert SAID[page.name] in capsys.readouterr().out
