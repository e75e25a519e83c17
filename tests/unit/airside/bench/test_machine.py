"""What is read of the machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airside.bench.machine import busy_seconds, cpu_seconds, memory_mib, tree


def test_a_machine_is_busy_with_all_but_idling_and_waiting_for_disks(tmp_path: Path) -> None:
    """What its host took is part of it; guests are in what users use already."""
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 20 30 9000 500 1 2 3 50 0\ncpu0 1 2 3 4 5 6 7 8 9 0\n")
    assert busy_seconds(stat) == pytest.approx(156 / os.sysconf("SC_CLK_TCK"))


def test_a_process_has_used_time_and_memory_and_one_that_is_gone_none() -> None:
    """Of this one, which is the root of its own tree."""
    assert tree()[0] == os.getpid() and cpu_seconds([os.getpid()]) > 0 and memory_mib([os.getpid()]) > 1
    assert cpu_seconds([2**30]) == 0 and memory_mib([2**30]) == 0
