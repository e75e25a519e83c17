"""A process that Ray was told to end goes by itself, which Ray takes for no crash; only what stays is killed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from airside.actors.process.pulse import Where, born
from airside.actors.rpc.layer import LayerConfig
from airside.actors.settings import Settings
from airside.actors.wardens.warden import Warden

ENDS_WITH_ITS_INPUT = "import sys; sys.stdin.read(); sys.exit(7)"


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends by itself when its input does."""
    with subprocess.Popen([sys.executable, "-c", ENDS_WITH_ITS_INPUT], stdin=subprocess.PIPE) as started:
        yield started
        started.kill()


def where_of(process: subprocess.Popen[bytes]) -> Where:
    """Return where a process without a pulse is."""
    return Where(pid=process.pid, page_fd=0, dump_fd=0, thread=0, native=0, born=born(process.pid), page_inode=0)


def test_what_goes_by_itself_is_not_killed(process: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """Its own exit code stands, and it is known to be dead."""

    async def end() -> bool:
        killing = asyncio.ensure_future(Warden(LayerConfig(Settings(), tmp_path)).kill(where_of(process), 60.0))
        await asyncio.sleep(0)
        assert process.stdin is not None
        process.stdin.close()
        return await killing

    assert asyncio.run(end()) and process.wait() == 7


@pytest.mark.parametrize("going_s", [0.0, 0.02])
def test_what_stays_is_killed(process: subprocess.Popen[bytes], tmp_path: Path, going_s: float) -> None:
    """Once its time to go is over, at once if it has none."""
    assert asyncio.run(Warden(LayerConfig(Settings(), tmp_path)).kill(where_of(process), going_s))
    assert process.wait() == -9
