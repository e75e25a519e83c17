"""What the tests on Ray share: waiting with a bound, stacks that leave nothing behind, jobs for `tests.apps.notes`."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import airside
from airside.actors.client.client import RunHandle, Stack
from airside.actors.client.results import PendingApproval
from airside.actors.rpc.methods import LIVE, Method, Reply, Request
from airside.actors.rpc.names import NAMESPACE
from tests import on_wire
from tests.apps.ledger import Ledger
from tests.apps.notes import create_app

ROOT = Path(__file__).parents[1]
AIRSIDE = Path(sys.executable).with_name("airside")
BOUND_S = 60.0
"""Longest wait for anything: several times what the slowest takes on two busy cores."""

Found = TypeVar("Found")


def until(look: Callable[[], Found], what: str, bound_s: float = BOUND_S) -> Found:
    """Look until something is found, and return it; fail after `bound_s` saying what was waited for."""
    deadline, pause = time.monotonic() + bound_s, threading.Event()
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {bound_s:.0f} s for {what}"
        pause.wait(0.05)


def alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def pids(stack: Stack, prefix: str = "") -> list[int]:
    """Return the processes of the stack's layers whose name begins with `prefix`."""
    return [layer["pid"] for name, layer in stack.status().items() if name.startswith(prefix) and "pid" in layer]


def sigkill(stack: Stack, prefix: str = "") -> list[int]:
    """Kill those processes and return them; they are dead when this returns."""
    found = pids(stack, prefix)
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not any(map(alive, found)), f"{found} to die")
    return found


@contextlib.contextmanager
def a_stack(folder: Path, name: str, *, memory: bool = False, **options: Any) -> Iterator[Stack]:
    """Start a stack of the notes app; its state lies in `folder`, and none of its processes survives the block."""
    stack = airside.start(create_app(folder, "yes" if memory else ""), stack=name, state_dir=folder, **options)
    seen: set[int] = set()
    try:
        yield stack
        seen |= set(pids(stack))
    finally:
        stack.shutdown()
    until(lambda: not any(map(alive, seen)), f"processes of {name} to end")


def ledger_of(stack: Stack) -> Ledger:
    """Return what the stack's tools did."""
    return Ledger(stack.state_dir / "ledger.sqlite")


def call(name: str, **arguments: Any) -> dict[str, Any]:
    """Return an item of a job's `actions`."""
    return {"tool": name, "args": arguments}


def submit(stack: Stack, *actions: dict[str, Any], who: str = "ana@acme", **fields: Any) -> RunHandle:
    """Submit a run that makes these calls."""
    principal, _, tenant = who.partition("@")
    fields.setdefault("inputs", {"actions": list(actions)})
    return stack.submit(fields.pop("request", "do it"), tenant=tenant, principal=principal, **fields)


def waiting(stack: Stack, run_id: str, *, bound_s: float = BOUND_S) -> PendingApproval:
    """Wait until a run waits for people, and return for what."""

    def look() -> list[PendingApproval]:
        return [approval for approval in stack.approvals() if approval.run_id == run_id]

    return until(look, f"an approval of {run_id}", bound_s)[0]


def told(stack: Stack, layer: str, method: Method[Request, Reply], *requests: Request) -> Reply:
    """Send requests straight to a layer's actor, as any code on the cluster can; return the reply to the last."""
    return all_told(stack, layer, method, *requests)[-1]


def all_told(stack: Stack, layer: str, method: Method[Request, Reply], *requests: Request) -> list[Reply]:
    """As `told`, in one batch; return every reply."""
    import ray

    actor = ray.get_actor(stack.cell.actor_name(layer), NAMESPACE)
    batch = [method.request.encode(request) for request in requests]
    return [on_wire.replied(method, answer) for answer in ray.get(actor.serve.remote(method.number, batch, True))]


def parked(stack: Stack, run_id: str) -> None:
    """Wait until the driver knows that a run waits for a person."""

    def look() -> bool:
        return any(run == run_id and waits for run, _, _, waits in told(stack, "driver", LIVE, None))

    until(look, f"{run_id} to be parked")


def events_of(stack: Stack, run_id: str, kind: str) -> int:
    """Return how many events of a kind a run has."""
    sql = "SELECT count(*) AS n FROM events WHERE stream = ? AND type = ?"
    return int(stack.query(sql, [run_id, kind]).to_pylist()[0]["n"])


class Owner:
    """A process of its own that keeps a stack of the notes app up: `airside up`."""

    def __init__(self, state: Path, *, wait: bool = True) -> None:
        self.state = state
        app = ["--app", "tests.apps.notes", "--app-arg", f"work={state}"]
        self.process = subprocess.Popen(
            [str(AIRSIDE), "up", *app, "--state-dir", str(state)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if wait:
            assert self.process.stdout is not None and self.process.stderr is not None
            line = self.process.stdout.readline()
            assert line.startswith("up; "), line + self.process.stderr.read()

    @property
    def ledger(self) -> Ledger:
        """What the stack's tools did."""
        return Ledger(self.state / "ledger.sqlite")

    def stop(self) -> None:
        """End it as an operator does; safe to call twice."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.communicate(timeout=BOUND_S)

    def __enter__(self) -> Owner:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@contextlib.contextmanager
def serving(state: Path) -> Iterator[str]:
    """Run `airside serve` before the stack of a directory; its address, as long as the block lasts."""
    command = [AIRSIDE, "serve", "--port", "0", "--state-dir", str(state)]
    with tempfile.NamedTemporaryFile() as log, subprocess.Popen(command, cwd=ROOT, stderr=log, stdout=log) as server:
        said = Path(log.name)
        try:
            found = until(lambda: re.search(r"serving on (http://[0-9.:]+)/v1", said.read_text()), "the server")
            assert found is not None
            yield found[1]
        finally:
            server.kill()


_COMMANDS = multiprocessing.get_context("forkserver")
_COMMANDS.set_forkserver_preload(["airside.cli", "airside.actors.launch"])
"""Commands have processes of their own, forked of one that has imported what takes seconds to import."""


def airside_cli(*args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, "stdout"), Path(folder, "stderr")
        process = _COMMANDS.Process(target=_run_command, args=(args, {**os.environ, **(env or {})}, *files))
        process.start()
        process.join(2 * BOUND_S)
        if process.exitcode is None:
            process.kill()
            process.join()
        out, err = (file.read_text("utf-8") for file in files)
    return subprocess.CompletedProcess(args, process.exitcode, out, err)


def _run_command(args: Sequence[str], env: dict[str, str], stdout: Path, stderr: Path) -> None:
    from ray._raylet import Config  # type: ignore[attr-defined]

    from airside.cli import main

    for stream, file in ((sys.stdout, stdout), (sys.stderr, stderr)):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(descriptor, stream.fileno())
        os.close(descriptor)
    os.environ |= env
    Config.initialize("")  # Ray read its environment when it was imported
    os.chdir(ROOT)
    sys.argv = [str(AIRSIDE), *args]
    main()


def in_doubt(stack: Stack, run_id: str) -> None:
    """Wait until the journal says that the outcome of a run's call is not known."""
    sql = "SELECT 1 FROM events WHERE stream = ? AND type IN ('ToolExecuted', 'ExecutionLost')"
    until(lambda: stack.query(sql, [run_id]).num_rows, f"{run_id} to be in doubt")
