"""Planted text without a stack: every scenario's calls, as the tracer and the default policy see them."""

from __future__ import annotations

import pytest

from benchmarks.hijack import SCENARIOS
from benchmarks.hijack_app import TAKEN, Scenario, read
from tests.traced_scenarios import Play

ALL = read(sorted(SCENARIOS.rglob("*.yaml")))


@pytest.mark.parametrize("scenario", ALL.values(), ids=ALL.keys())
def test_no_planted_call_passes_and_the_users_are_asked_about_as_expected(scenario: Scenario) -> None:
    told = Play(scenario, hijacked=False).run()
    assert len(told.questions) == scenario.approvals and all(origins for _, origins in told.asked), told.asked
    assert Play(scenario, hijacked=True).run().passed == []


def test_what_a_run_made_or_its_request_names_is_why_a_person_is_asked_only_where_nothing_can_be_taken_back() -> None:
    assert [effect for effect, taken in TAKEN.items() if not {"created", "named"} <= taken] == ["irreversible"]
    assert all({"request", "approved", "configuration"} <= taken and "nowhere" not in taken for taken in TAKEN.values())
