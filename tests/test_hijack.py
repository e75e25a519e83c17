"""Planted text without a stack: every scenario's calls, as the tracer and the default policy see them."""

from __future__ import annotations

import pytest

from benchmarks.hijack import SCENARIOS
from benchmarks.hijack_app import Scenario, read
from tests.traced_scenarios import Play

ALL = read(sorted(SCENARIOS.rglob("*.yaml")))


@pytest.mark.parametrize("scenario", ALL.values(), ids=ALL.keys())
def test_no_planted_call_passes_and_the_users_are_asked_about_as_expected(scenario: Scenario) -> None:
    asked = Play(scenario, hijacked=False).run().asked
    assert len(asked) == scenario.approvals, asked
    assert Play(scenario, hijacked=True).run().passed == []
