"""The console's benchmark, in small: every page is there, votes have their effects, and streams their events."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.on_ray import ROOT

BOUND_S = 600.0

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_the_console_serves_every_page_of_a_journal_that_was_written_again() -> None:
    size = ["--runs", "300", "--waiting", "5", "--rounds", "2"]
    command = [sys.executable, "-m", "benchmarks.console", *size]
    played = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=BOUND_S, check=False)
    assert played.returncode == 0, played.stderr[-4000:]
    found = json.loads(played.stdout.splitlines()[-1])
    assert found["entries"] > 300, found
    assert min(found[name] for name in ("page_p99_ms", "approve_to_effect_p99_ms", "sse_lag_p99_ms", "rss_mb")) > 0
