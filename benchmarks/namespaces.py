"""Ray nodes that a network separates: one network namespace each, on a bridge; needs root and `ip` (iproute2)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.cluster import FOLDER, OBJECT_STORE_BYTES

BRIDGE = "as-bridge"
PORT = 6379
START_S = 60.0
RAY = str(Path(sys.executable).with_name("ray"))


def name(index: int) -> str:
    """Return a node's namespace."""
    return f"as-node-{index}"


def address(index: int) -> str:
    """Return a node's address."""
    return f"10.77.0.{index + 1}"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def cut(index: int) -> None:
    """Take a node off the network."""
    _ip("-n", name(index), "link", "set", "eth0", "down")


def mend(index: int) -> None:
    """Put it back."""
    _ip("-n", name(index), "link", "set", "eth0", "up")


@contextlib.contextmanager
def network(count: int) -> Iterator[None]:
    """Make the namespaces and the bridge; take them away afterwards."""
    remove(count)  # what an earlier run that was killed left
    try:
        _ip("link", "add", BRIDGE, "type", "bridge")
        _ip("link", "set", BRIDGE, "up")
        for i in range(count):
            _ip("netns", "add", name(i))
            _ip("link", "add", f"as-v{i}", "type", "veth", "peer", "name", "eth0", "netns", name(i))
            _ip("link", "set", f"as-v{i}", "master", BRIDGE, "up")
            _ip("-n", name(i), "addr", "add", f"{address(i)}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", name(i), "link", "set", device, "up")
        yield
    finally:
        remove(count)


def remove(count: int) -> None:
    """Take away whatever there is of the network."""
    devices = [("link", "del", f"as-v{i}") for i in range(count)]  # a namespace stays while a process is in it
    spaces = [("netns", "del", name(i)) for i in range(count)]
    for words in (*devices, *spaces, ("link", "del", BRIDGE)):
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip(*words)


@contextlib.contextmanager
def ray_nodes(count: int) -> Iterator[None]:
    """Start a Ray node in each namespace, the first as head; end them, by process group, afterwards."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        for i in range(count):
            words = [RAY, "start", "--block", f"--node-ip-address={address(i)}", "--num-cpus=2"]
            words += [f"--object-store-memory={OBJECT_STORE_BYTES}", "--disable-usage-stats"]
            if i == 0:
                words += [
                    "--head",
                    f"--port={PORT}",
                    "--include-dashboard=false",
                    f"--temp-dir={os.environ['RAY_TMPDIR']}",
                ]
                words += ['--system-config={"max_direct_call_object_size": 4194304}']
            else:
                words.append(f"--address={address(0)}:{PORT}")
            log = open(Path(FOLDER) / f"node-{i}.log", "wb")  # noqa: SIM115 - the node's, while it lives
            started.append(
                subprocess.Popen(
                    ["ip", "netns", "exec", name(i), *words], stdout=log, stderr=log, start_new_session=True
                )
            )
            log.close()
            _wait_until_up(i, started[-1])
        yield
    finally:
        for process in reversed(started):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _wait_until_up(index: int, process: subprocess.Popen[bytes]) -> None:
    log = Path(FOLDER) / f"node-{index}.log"
    until = time.monotonic() + START_S
    while b"Ray runtime started." not in log.read_bytes():
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"node {index} does not start:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)
