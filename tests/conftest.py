"""Fixtures the modules share.  Only a test that asks for `local_ray` starts Ray."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

# A machine that others use stalls an example of a microsecond for longer than Hypothesis allows one (200 ms).
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One Ray on this machine for every stack the tests' own process starts."""
    import ray

    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    ray.init(
        address="local",
        namespace="airside",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
    )
    yield
    ray.shutdown()
