"""Run the retail jobs as one governed batch and check every run's final state: `python -m examples.retail`."""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import airside
from airside.jobs import read_jobs
from examples.retail.app import OWN_DATA, create_app, run_file
from examples.retail.store import build_base, state_hash

UNGOVERNED = """
WITH allowed AS (
    SELECT stream, step, seq, json_extract_string(body, '$.attempt') AS attempt FROM events
    WHERE type = 'ActionGated' AND json_extract_string(body, '$.decision.outcome') = 'allow')
SELECT count(*) FROM events e WHERE e.type = 'ToolExecuted' AND NOT EXISTS (
    SELECT 1 FROM allowed a WHERE a.stream = e.stream AND a.step = e.step AND a.seq < e.seq
                              AND a.attempt = json_extract_string(e.body, '$.attempt'))
"""
"""Results of calls without a decision before them to allow exactly that attempt."""

CALLS = "SELECT count(DISTINCT (stream, step)) FROM events WHERE type = 'ToolExecuted'"
ERRORS = """
SELECT count(DISTINCT (stream, step)) FROM events
WHERE type = 'ToolExecuted' AND json_extract_string(body, '$.result.reason_code') = 'tool_failed'
"""


def count(stack: airside.Stack, sql: str) -> int:
    """Return the number a query answers."""
    return int(stack.query(sql).column(0)[0].as_py())


def states_ok(lines: Sequence[dict[str, Any]], run_ids: dict[str, str], data: Path, work: Path) -> int:
    """Return how many jobs' final state hashes to what their line expects."""
    base = work / "base.sqlite"
    if not base.exists():
        build_base(data, base)
    good = 0
    for line in lines:
        path = run_file(work, run_ids.get(line["job_id"], ""))
        # A job without a call never opened its state: it is the initial one.
        connection = sqlite3.connect(path if path.exists() else base)
        good += state_hash(connection) == line["final_state_sha256"]
        connection.close()
    return good


def report(stack: airside.Stack, ok: int, jobs: int, began: float) -> dict[str, Any]:
    """Return the figures of a finished batch."""
    return {
        "jobs": jobs,
        "state_ok": ok,
        "calls": count(stack, CALLS),
        "business_errors": count(stack, ERRORS),
        "audit_ok": stack.verify() == [],
        "ungoverned_effects": count(stack, UNGOVERNED),
        "seconds": round(time.monotonic() - began, 2),
    }


def main() -> int:
    """Run all jobs, print the figures as one JSON line, and return 0 if all is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=OWN_DATA, help="folder with users, orders, products and jobs")
    parser.add_argument("--state", type=Path, help="state directory to keep (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="airside-retail-") as scratch:
        state = options.state or Path(scratch)
        work = state / "retail"
        app = create_app(options.data, work)
        lines = [json.loads(line) for line in (options.data / "jobs.jsonl").read_text().splitlines()]
        with airside.start(app, state_dir=state) as stack:
            began = time.monotonic()
            results = stack.map(read_jobs(options.data / "jobs.jsonl", app.job_inputs))
            completed = {r.job_id: r.run_id for r in results if r.ok}
            for result in results:
                if not result.ok:
                    print(f"{result.job_id}: {result.status} [{result.reason_code}] {result.detail}", file=sys.stderr)
            ok = states_ok([line for line in lines if line["job_id"] in completed], completed, options.data, work)
            expected = {line["job_id"]: line["business_errors"] for line in lines}
            errors_ok = sum(r.ok and r.answer["failed"] == expected[r.job_id] for r in results)
            figures = report(stack, ok, len(lines), began)
    print(json.dumps(figures))
    right = figures["state_ok"] == figures["jobs"] and figures["audit_ok"] and not figures["ungoverned_effects"]
    right = right and errors_ok == len(lines)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
