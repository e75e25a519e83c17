"""Whole runs as golden text.

`AIRSIDE_REWRITE=1 pytest tests/scenarios/test_scenarios.py` writes what came out as expected.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.simulation.scenario import Scenario

FILES = sorted((Path(__file__).parent).glob("*.txt"))
CUT = "---\n"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_scenario_comes_out_as_written(path: Path) -> None:
    """The commands above the line give the trace below it, and no promise is broken."""
    commands, _, expected = path.read_text().partition(CUT)
    scenario = Scenario()
    trace = scenario.play(commands)
    assert scenario.violations == []
    if os.environ.get("AIRSIDE_REWRITE"):
        path.write_text(commands + CUT + trace)
    else:
        assert trace == expected


def test_there_are_scenarios() -> None:
    """The files are where the test looks for them."""
    assert len(FILES) >= 6
