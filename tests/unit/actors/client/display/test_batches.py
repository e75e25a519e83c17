"""Batches, drawn."""

from __future__ import annotations

from airside.actors.client.display.batches import draw_batch
from airside.actors.client.display.drawing import Bars


def test_what_has_no_reason_is_its_status_alone() -> None:
    drawn = draw_batch("b", "running", {("active", ""): 236, ("failed", "agent_error"): 1}, ended=1, completed=0)
    (bars,) = drawn.parts
    assert isinstance(bars, Bars)
    assert [bar.label for bar in bars.bars] == ["active", "failed · agent_error"]


def test_only_a_batch_in_which_something_completed_is_good() -> None:
    tones = [
        draw_batch("b", state, {}, ended=ended, completed=completed).tone
        for state, ended, completed in (
            ("finished", 2, 1),
            ("finished", 2, 0),
            ("finished", 0, 0),
            ("running", 2, 2),
            ("cancelled", 2, 2),
        )
    ]
    assert tones == ["good", "bad", "off", "wait", "off"]
