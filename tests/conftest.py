"""Fixtures the modules share.  Only a test that asks for `local_ray` starts Ray."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

import pytest
from hypothesis import settings

from airside.stack.canonical import as_text

# A machine that others use stalls an example of a microsecond for longer than Hypothesis allows one (200 ms).
settings.register_profile("shared", deadline=None)
settings.register_profile("ci", parent=settings.get_profile("shared"), derandomize=True, print_blob=True)
settings.load_profile("shared")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Report what was captured as text that can be sent between processes: some tests log what is no Unicode."""
    report = yield
    report.sections = [(name, as_text(text)) for name, text in report.sections]
    return report


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
