"""The report: one page with its drawings in it, which runs nothing and takes nobody's text for its own."""

from __future__ import annotations

from typing import Any

from airside.bench.figures import summary
from airside.bench.report import report
from tests.pages import Page

LATENCY = {"count": 90, "p50_s": 0.1, "p90_s": 0.2, "p95_s": 0.3, "p99_s": 0.4, "p99.9_s": 0.5, "max_s": 0.6}
EVIL = "</td><script>alert(1)</script>"


def tally(asked: int) -> dict[str, Any]:
    """Return what became of so many runs."""
    counts: dict[str, Any] = {"asked": asked, "done": asked, "refused": {}, "unexpected": {EVIL: 1}, "lost": 0}
    return counts | {"kinds": {"read": asked}, "latency": LATENCY}


def phase(aggressors: int) -> dict[str, Any]:
    """Return one phase's figures."""
    window = {"runs_per_s": 9.0, "p50_s": 0.1, "p99_s": 0.4, "generator_lag_p99_ms": 5.0, "cpu_s_per_1000_steps": 1.0}
    tenant = {"asked": 9, "done": 9, "steps": 36, "p50_s": 0.1, "p99_s": 0.4, "cpu_s": 0.1, "most_mib": 0.0}
    return {
        "offered_runs_per_s": 9.0,
        "seconds": 10.0,
        "usual": tally(90),
        "aggressors": tally(aggressors),
        "generator_lag": LATENCY,
        "runs_per_s": 9.0,
        "steps_per_s": 40.0,
        "jain": 0.99,
        "phases": {"gate": LATENCY, "people": LATENCY},
        "cpu_s_per_1000_steps": 1.0,
        "cpu_cores": 1.0,
        "other_cores": 0.1,
        "layers": {"runtime": {"cpu_s": 3.0, "most_mib": 100.0}, "journal": {"cpu_s": 1.0, "most_mib": 100.0}},
        "tenants": {"tenant-0": tenant, "aggressor-0": tenant, EVIL: tenant},
        "windows": [window, window],
        "missed": [f"p99<2s is missed {EVIL}"],
        "void": [],
    }


def results(phases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return a benchmark's results."""
    probe = {"runs_per_s": 10.0, "passed": True, "p99_s": 0.4, "why": []}
    return {
        "machine": {"cores": 2, "kernel": EVIL},
        "options": {"objectives": ["p99<2s"], "tenants": 2, "aggressors": 1, "mode": "pooled", "mix": EVIL},
        "startup": {"stack_s": 5.0},
        "ceiling_runs_per_s": 20.0,
        "ceiling": [{"in_flight": 8, "runs_per_s": 20.0}],
        "capacity_runs_per_s": 15.0,
        "probes": [probe, probe | {"passed": False, "runs_per_s": 15.0, "why": [EVIL]}],
        "phases": phases,
        "summary": summary(15.0, 20.0, 5.0, phases),
    }


def test_a_page_runs_nothing_and_asks_for_nothing() -> None:
    """Its drawings stand in it; what is said in options, reasons and names is text."""
    page = Page(report(results({"alone": phase(0), "aggressed": phase(9)})))
    assert page.active == [] and page.tags.count("svg") == 6
    assert page.text.count("alert(1)") >= 4 and "script" not in page.tags
    assert "p99<2s: missed." in page.text


def test_a_search_that_found_nothing_has_a_page_too() -> None:
    """It says so, with what was tried."""
    page = Page(report(results({})))
    assert page.active == [] and "No rate below the ceiling meets p99<2s." in page.text and page.tags.count("svg") == 1


def test_the_summary_is_of_the_phase_with_aggressors_beside_the_one_without() -> None:
    """Without a rate that passes there is no phase, and no objective was met."""
    found = summary(15.0, 20.0, 5.0, {"alone": phase(0), "aggressed": phase(9)})
    assert found["victim_p99_ratio"] == 1 and found["p99_s"] == 0.4 and not found["slo_met"] and not found["void"]
    assert found["unexpected"] == 4 and found["generator_lag_p99_ms"] == 400
    assert summary(15.0, 20.0, 5.0, {"alone": phase(0)})["victim_p99_ratio"] is None
    assert summary(0.0, 20.0, 5.0, {})["slo_met"] is False
