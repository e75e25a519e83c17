"""A turn of Airside: `python -m benchmarks.peers.on_airside pooled` or `dedicated`, which is the default mode.

The app is that of the load benchmarks, without memory, of which the peers have none.  The journal's log is SQLite in
WAL mode with `synchronous=FULL`, as it always is; entries that wait at the same time are one commit.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import airside
from benchmarks.ledger_app import TEXT, ledger_app
from benchmarks.peers.ledger import STEPS, TENANTS, Run
from benchmarks.peers.turn import measured, show


def job(run: Run) -> dict[str, object]:
    """Return the job of a run."""
    return {
        "job_id": run.id,
        "request": TEXT,
        "tenant": f"tenant-{run.tenant}",
        "principal": "clerk",
        "inputs": {"steps": STEPS},
    }


def main() -> None:
    """Play one turn."""
    mode = "pooled" if sys.argv[1] == "pooled" else "dedicated"
    with ExitStack() as at_end:
        folder = Path(tempfile.mkdtemp(prefix=f"peers-{mode}-"))
        at_end.callback(shutil.rmtree, folder, ignore_errors=True)
        # One executor, as in `benchmarks.governed_steps`: the tools do nothing.
        stack = airside.start(ledger_app(TENANTS, memory=False), state_dir=folder, mode=mode, executors=1)
        at_end.callback(stack.shutdown)

        def load(runs: Sequence[Run]) -> None:
            for result in stack.map([job(run) for run in runs], progress=False):
                if result.answer != STEPS:
                    raise SystemExit(f"a run did not do its {STEPS} steps: {result}")

        show(measured(load))


if __name__ == "__main__":
    main()
