"""Run the retail jobs over HTTP, from a process without Ray: `python -m examples.retail.over_http URL TOKENS`.

`URL` is that of `airside serve` before a stack of the example.  `TOKENS` is a JSON object of the customers' tokens, by
"tenant/customer", as `airside token issue TENANT CUSTOMER` prints them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from airside.client import AsyncClient, RunResult

JOBS = Path(__file__).parent / "data" / "jobs.jsonl"


async def run_jobs(url: str, tokens: Mapping[str, str], jobs: Sequence[Mapping[str, Any]]) -> dict[str, RunResult]:
    """Run jobs, each as its customer, all at once; return how they ended, by their ids.

    A job's id is its idempotency key: jobs that are sent again, after a crash of this process, are the same runs.
    """
    async with AsyncExitStack() as stack:
        clients = {who: await stack.enter_async_context(AsyncClient(url, token)) for who, token in tokens.items()}

        async def run(job: Mapping[str, Any]) -> RunResult:
            client = clients[f"{job['tenant']}/{job['principal']}"]
            inputs = {"actions": job["actions"]}
            accepted = await client.submit(job["request"], key=job["job_id"], inputs=inputs)
            return await client.result(accepted.run_id)

        results = await asyncio.gather(*map(run, jobs))
    return {job["job_id"]: result for job, result in zip(jobs, results, strict=True)}


def main() -> int:
    """Print a JSON line a job, and return 0 if each was completed, with the failures that it expects."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="where `airside serve` listens")
    parser.add_argument("tokens", type=Path, help="file with the customers' tokens")
    parser.add_argument("--jobs", type=Path, default=JOBS, help="file with the jobs")
    options = parser.parse_args()
    jobs = [json.loads(line) for line in options.jobs.read_text("utf-8").splitlines()]
    tokens = json.loads(options.tokens.read_text("utf-8"))
    results = asyncio.run(run_jobs(options.url, tokens, jobs))
    right = 0
    for job in jobs:
        result = results[job["job_id"]]
        right += result.status == "completed" and result.answer["failed"] == job["business_errors"]
        told = {"job_id": job["job_id"], "run_id": result.run_id, "status": result.status, "answer": result.answer}
        print(json.dumps(told))
    return 0 if right == len(jobs) else 1


if __name__ == "__main__":
    sys.exit(main())
