"""Batches, drawn."""

from __future__ import annotations

import sys
import types

import pytest
from IPython.core.formatters import DisplayFormatter

from airside.actors.client.display.batches import draw_batch, draw_batches, draw_summary
from airside.actors.client.display.bundle import TEXT
from airside.actors.client.display.drawing import Bars, Table
from airside.actors.client.display.formatters import register_formatters
from airside.actors.client.display.listed import BatchList
from tests.unit.actors.client.display.samples import batch


def test_what_has_no_reason_is_its_status_alone() -> None:
    drawn = draw_batch("b", "running", {("active", ""): 236, ("failed", "agent_error"): 1}, ended=1, completed=0)
    (bars,) = drawn.parts
    assert isinstance(bars, Bars)
    assert [bar.label for bar in bars.bars] == ["active", "failed · agent_error"]


def test_only_a_batch_of_which_all_completed_is_good_and_what_did_not_is_said() -> None:
    drawn = [
        draw_batch("b", state, {}, ended=ended, completed=completed)
        for state, ended, completed in (
            ("finished", 2, 2),
            ("finished", 1_001, 1),
            ("finished", 2, 0),
            ("finished", 0, 0),
            ("running", 2, 2),
            ("cancelled", 2, 2),
        )
    ]
    assert [each.tone for each in drawn] == ["good", "wait", "bad", "off", "wait", "off"]
    assert [each.status for each in drawn] == [
        "finished",
        "finished, 1,000 not completed",
        "finished, 2 not completed",
        "finished",
        "running",
        "cancelled",
    ]


def test_batches_are_drawn_and_say_what_they_were_read_from_and_where_their_results_are() -> None:
    (table,) = draw_batches([batch("a"), batch("b", manifest={"input": {"kind": "stdin"}})]).parts
    assert isinstance(table, Table)
    assert [cell.text for cell in table.rows[0]][3:] == ["6", "4", "3", "a and 1 more", "a"]
    assert [cell.text for cell in table.rows[1]][6:] == ["stdin", ""]
    shown = {fact.name: fact.text for fact in draw_summary(batch("a")).facts}
    assert shown["input"] == "a and 1 more" and shown["results"] == "a"


def test_a_batch_in_a_notebook_is_drawn_wherever_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """`stack.batches()` draws itself; IPython is told of what `stack.batch(name).show()` returns."""
    assert "a and 1 more" in BatchList([batch("a")])._repr_mimebundle_()[TEXT]
    formatter = DisplayFormatter()
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace(display_formatter=formatter)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    register_formatters()
    assert formatter.format(batch("a"))[0][TEXT].startswith("batch a")
