"""The load benchmark as a command: small, but whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airside.bench.latencies import merged, read_histograms
from tests.on_ray import airside_cli
from tests.pages import Page

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SMALL = ("--tenants", "4", "--duration", "2", "--probe", "1", "--people", "0.1", "--slo", "p99<20s,p50<10s")

FEW = {"AIRSIDE_EXECUTORS": "1", "AIRSIDE_POOL_SIZE": "1"}
"""Processes, for they take the time of a start."""


def test_a_benchmark_finds_a_capacity_and_measures_below_it(tmp_path: Path) -> None:
    """Its last line, results, histograms and page agree; compared with itself nothing differs."""
    out = tmp_path / "out"
    done = airside_cli("bench", *SMALL, "--out", str(out), env=FEW)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert 0 < found["capacity_runs_per_s"] < found["ceiling_runs_per_s"]
    assert found["slo_met"] and not found["void"] and found["victim_p99_ratio"] > 0
    assert found["unexpected"] == found["refused"] == found["lost"] == 0 and 0.9 < found["jain"] <= 1

    results = json.loads((out / "results.json").read_text())
    assert results["summary"] == found
    phase = results["phases"]["aggressed"]
    assert phase["aggressors"]["asked"] > 0 and phase["usual"]["done"] == phase["usual"]["asked"]
    assert {"queueing", "decide", "gate", "execute", "conclude"} <= set(phase["phases"])
    assert {"client", "driver", "journal", "policy", "runtime"} <= set(phase["layers"])

    histograms = read_histograms(out / "aggressed.hlog")
    whole = merged(each for tag, each in histograms.items() if tag.startswith("tenant-") and tag.endswith("/whole"))
    assert whole.count == histograms["all/whole"].count == phase["usual"]["latency"]["count"]

    page = Page((out / "report.html").read_text("utf-8"))
    assert page.active == [] and page.tags.count("svg") == 6

    same = airside_cli("bench", "--compare", str(out), str(out))
    differences = json.loads(same.stdout.splitlines()[-1])
    assert same.returncode == 0 and differences and not any(each["is_certain"] for each in differences.values())


def test_models_make_the_decisions_and_take_as_long_as_on_record(tmp_path: Path) -> None:
    """Whatever the plan: runs end as they should, and a decision takes what the file says."""
    latencies = tmp_path / "latencies.txt"
    latencies.write_text("0.2\n0.3\n")
    out = tmp_path / "out"
    options = ("--tenants", "4", "--duration", "4", "--capacity", "5", "--slo", "p99<20s", "--people", "0.1")
    done = airside_cli("bench", *options, "--models", str(latencies), "--out", str(out), env=FEW)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["unexpected"] == found["refused"] == found["lost"] == 0
    phase = json.loads((out / "results.json").read_text())["phases"]["alone"]
    assert phase["phases"]["decide"]["p50_s"] > 0.2 and "model-server" in phase["layers"]
