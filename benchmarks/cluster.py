"""Several Ray nodes on this machine, for what only shows with more than one.

Import it before anything else of Airside or Ray: Ray reads its environment when it is imported.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile

FOLDER = tempfile.mkdtemp(prefix="as-", dir="/tmp")

atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)

if "ray" in sys.modules:
    raise ImportError("benchmarks.cluster must be imported before ray")

os.environ |= {
    "RAY_TMPDIR": FOLDER,
    "RAY_AUTH_MODE": "disabled",
    "RAY_worker_niceness": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # A node that does not answer is dead after about three seconds; Ray's own defaults take 16 s and more.
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "500",
    "RAY_health_check_failure_threshold": "4",
    # Executors and runtimes are a few at a time.
    "RAY_enable_worker_prestart": "0",
}

from collections.abc import Iterator  # noqa: E402 - see above
from contextlib import contextmanager  # noqa: E402
from typing import Any  # noqa: E402

from ray.cluster_utils import Cluster  # noqa: E402

OBJECT_STORE_BYTES = 100 * 2**20


@contextmanager
def several_nodes(count: int) -> Iterator[Any]:
    """Start `count` nodes and yield Ray's `Cluster`, whose first node is the head; nothing is left of it afterwards."""
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 2,
            "object_store_memory": OBJECT_STORE_BYTES,
            "include_dashboard": False,
            "_system_config": {"max_direct_call_object_size": 4 * 2**20},
        },
    )
    try:
        for _ in range(count - 1):
            cluster.add_node(num_cpus=2, object_store_memory=OBJECT_STORE_BYTES)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()
