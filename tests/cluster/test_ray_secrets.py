"""Secrets of a tenant on a real stack: tools get them, agents do not, and nothing that is kept or said shows one."""

from __future__ import annotations

from pathlib import Path

import pytest

import airside
from airside.actors.process.logs import log_folder
from airside.stack.run.events import decode_event
from airside.stack.run.spans import spans_of
from benchmarks.secrets import CALLS, MARK, bytes_of, create_app, in_environment, journal_of, look_through, results_of
from tests.on_ray import pids

pytestmark = pytest.mark.ray


def test_no_secret_is_in_results_journal_state_spans_and_logs(local_ray: None, tmp_path: Path) -> None:
    with in_environment() as secrets, airside.start(create_app(), stack="secrets", state_dir=tmp_path) as stack:
        places = {"results": results_of(stack), "journal": journal_of(stack)}
        (run,) = stack.runs()
        sql = "SELECT CAST(body AS VARCHAR) AS body FROM events WHERE stream = ? ORDER BY seq"
        events = [decode_event(row["body"].encode()) for row in stack.query(sql, [run.run_id]).to_pylist()]
        places["spans"] = f"{MARK} {spans_of(events)}"
        processes = pids(stack)
    places["state"] = bytes_of(list(tmp_path.rglob("*")))
    places["logs"] = bytes_of([path for pid in processes for path in Path(log_folder()).glob(f"*-{pid}.*")])
    found = look_through(places, secrets)
    assert found["leaks"] == [] and len(secrets) == 30 and len(CALLS) == 51
    assert all(place["marks"] for place in found["places"].values()), "the right places were looked through"
