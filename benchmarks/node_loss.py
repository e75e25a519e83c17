"""What becomes of a load when a node, or Ray's control service, fails; on several nodes of this machine.

    python -m benchmarks.node_loss [--case CASE] [--out node_loss.json]

Three nodes; six tenants' runs make calls, half of a tool that must not be sent twice and half of an idempotent one,
both counted by key in a database outside.  Meanwhile, by case:

- `killed`: SIGKILL of a node's raylet.
- `frozen`: SIGSTOP of a node's raylet; its workers go on, and must end with their leases.
- `partition`: the nodes are network namespaces, and one node's link is cut (needs root and `ip`).
- `gcs_down`: SIGSTOP of Ray's control service while a run on another node that holds its loop is ordered to be killed.
- `gcs_restart`: SIGKILL and restart of it, with its state in RocksDB.
- `rpc_faults`: Ray drops one in twenty requests and one in twenty answers of actor calls, 40 in each process.

Every case prints one JSON line: runs, how they ended, calls that happened twice, calls on record that did not happen,
calls of an old activation after a newer one's (`overlaps`), and `recovery_s`, the time from the fault until every run
that was on the lost node was taken up elsewhere (for `gcs_down`: until the killed process was confirmed dead).
Not measured: the loss of the head node, which is a restart of the stack.
"""

from __future__ import annotations

import os
import sys
import tempfile

CASES = ("killed", "frozen", "partition", "gcs_down", "gcs_restart", "rpc_faults")
CASE = next((sys.argv[i + 1] for i, word in enumerate(sys.argv[:-1]) if word == "--case"), "")

if CASE == "gcs_restart":
    os.environ |= {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": tempfile.mkdtemp(prefix="as-gcs-")}
if CASE == "rpc_faults":
    os.environ |= {
        "RAY_testing_rpc_failure": '{"CoreWorkerService.grpc_client.PushTask":'
        '{"num_failures":40,"req_failure_prob":5,"resp_failure_prob":5}}'
    }

import benchmarks.cluster as nodes  # noqa: E402 - the environment comes first

# isort: split
import argparse  # noqa: E402
import json  # noqa: E402
import shutil  # noqa: E402
import signal  # noqa: E402
import sqlite3  # noqa: E402
import subprocess  # noqa: E402
import time  # noqa: E402
from collections import Counter  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from contextlib import closing, contextmanager, suppress  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import airside  # noqa: E402
import benchmarks.namespaces as namespaces  # noqa: E402
from airside import Action, App, Finish, View, tool  # noqa: E402
from airside.actors.client.client import RunHandle, Stack  # noqa: E402
from airside.actors.rpc.methods import LIVE  # noqa: E402
from airside.stack.directory import Directory, Principal, Tenant  # noqa: E402
from airside.stack.run.topology import SingleAgent  # noqa: E402
from airside.tools.tool import ToolContext  # noqa: E402
from benchmarks.measure import last_line, machine, result_file  # noqa: E402

LEASE_S = 2.0
"""Shorter than the tuned cluster takes a node for dead."""

TENANTS, RUNS, CALLS = 6, 4, 80
CALL_S = 0.1
BOUND_S = 180.0


def _note(db: str, key: str, run_id: str) -> None:
    """Count an effect, with who had it and when."""
    with closing(sqlite3.connect(db, timeout=60, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("INSERT INTO effects VALUES (?, ?, ?, ?)", [key, run_id, os.getpid(), time.time()])


@tool(effect="external")
def charge(db: str, number: int, context: ToolContext) -> str:
    """Have an effect that must not be had twice."""
    time.sleep(CALL_S)
    _note(db, context.idempotency_key, context.run_id)
    return context.idempotency_key


@tool(effect="write", idempotent=True)
def put(db: str, number: int, context: ToolContext) -> str:
    """Have an effect once a key: a repeat is not counted."""
    time.sleep(CALL_S)
    with closing(sqlite3.connect(db, timeout=60)) as connection:
        if connection.execute("SELECT 1 FROM effects WHERE key = ?", [context.idempotency_key]).fetchone():
            return context.idempotency_key
    _note(db, context.idempotency_key, context.run_id)
    return context.idempotency_key


async def worker(view: View) -> Action | Finish:
    """Call the two tools in turn."""
    done = len(view.history)
    if done == CALLS:
        return Finish(answer=done)
    return Action(tool="charge" if done % 2 else "put", arguments={"db": view.inputs()["db"], "number": done})


def spin(view: View) -> Any:
    """Hold the loop."""
    while True:
        pass


def app() -> App:
    """Return the app."""
    who = Tenant(principals={"ana": Principal()}, limits={"max_steps": 2 * CALLS, "max_tool_calls": 2 * CALLS})
    return App(
        agents={"worker": worker, "spin": spin},
        routes={"default": SingleAgent("worker"), "spin": SingleAgent("spin")},
        tools=[charge, put],
        policy="version: nodes-1\nrules: [{id: all, outcome: allow}]\n",
        directory=Directory(tenants=dict.fromkeys(("held", *(f"t{i}" for i in range(TENANTS))), who)),
    )


def wait_for(look: Any, what: str, bound_s: float = 60.0) -> Any:
    """Return what is found as soon as there is something."""
    until = time.monotonic() + bound_s
    while not (found := look()):
        if time.monotonic() > until:
            raise TimeoutError(f"waited {bound_s:.0f} s for {what}")
        time.sleep(0.01)
    return found


class Load:
    """The runs, what they did outside, and where they were."""

    def __init__(self, stack: Stack, work: Path) -> None:
        self.stack = stack
        self.db = str(work / "effects.sqlite")
        with closing(sqlite3.connect(self.db)) as connection:
            connection.execute("CREATE TABLE effects (key TEXT, run_id TEXT, pid INTEGER, at REAL)")
            connection.commit()
        self.handles: list[RunHandle] = []

    def start(self) -> None:
        """Submit all, and return when they are at work."""
        for i in range(TENANTS * RUNS):
            who = {"tenant": f"t{i % TENANTS}", "principal": "ana"}
            self.handles.append(self.stack.submit("work", inputs={"db": self.db}, **who))
        wait_for(lambda: len(self.effects()) >= 2 * TENANTS * RUNS, "the load to be at work", BOUND_S)

    def effects(self) -> list[tuple[str, str, int, float]]:
        """Return what happened: key, run, process, time."""
        with closing(sqlite3.connect(self.db, timeout=60)) as connection:
            return connection.execute("SELECT * FROM effects").fetchall()

    def victim(self, head: str) -> tuple[str, list[str]]:
        """Return a node other than the head that has runtimes, and the runs that are there."""
        status = self.stack.status()
        places = {name.removeprefix("runtime/"): layer.get("node", "") for name, layer in status.items()}
        runs: dict[str, list[str]] = {}
        for run_id, _, seat, _ in self.stack._connection.ask(LIVE, None):
            node = places.get(seat, "")
            if node and node != head:
                runs.setdefault(node, []).append(run_id)
        found = max(runs, key=lambda node: len(runs[node]))
        return found, runs[found]

    def acting(self, pids: list[int]) -> list[int]:
        """Return those of some processes that are runtimes or executors and not zombies."""
        found = []
        for pid in pids:
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"TenantRuntime" in words or b"ToolExecutor" in words:
                    found.append(pid)
        return found

    def judge(self, fault_s: float, affected: list[str]) -> dict[str, Any]:
        """Wait for all ends, and compare what happened with what is on record."""
        results = [handle.result(timeout=BOUND_S) for handle in self.handles]
        happened = Counter(key for key, *_ in self.effects())
        sql = """SELECT stream, step FROM events WHERE type = 'ToolExecuted'
                 AND CAST(json_extract(body, '$.result.ok') AS BOOLEAN)"""
        done = {f"{row['stream']}:{row['step']}" for row in self.stack.query(sql).to_pylist()}
        doubts = {key for result in results for key in result.in_doubt}
        return {
            "runs": len(results),
            "ended": dict(Counter(str(result.reason_code) for result in results)),
            "doubled": sum(count > 1 for count in happened.values()),
            "lost": len(done - set(happened)) + len(set(happened) - done - doubts),
            "in_doubt": len(doubts),
            "overlaps": self.overlaps(),
            "affected": len(affected),
            "recovery_s": self.recovery_s(fault_s, affected),
            "audit_ok": not self.stack.verify(),
        }

    def activations(self) -> dict[str, list[float]]:
        """Return when each run was activated, oldest first."""
        sql = "SELECT stream, at_us FROM events WHERE type = 'RunActivated' ORDER BY at_us"
        found: dict[str, list[float]] = {}
        for row in self.stack.query(sql).to_pylist():
            found.setdefault(row["stream"], []).append(row["at_us"] / 1e6)
        return found

    def overlaps(self) -> int:
        """Count the effects that a step's earlier activation had after a later one's had begun to act."""
        later, count = self.activations(), 0
        first_acts: dict[tuple[str, int], float] = {}
        for _, run_id, _, at in sorted(self.effects(), key=lambda effect: effect[3]):
            epoch = sum(began <= at - CALL_S for began in later.get(run_id, []))
            newest = max((e for (run, e) in first_acts if run == run_id), default=0)
            first_acts.setdefault((run_id, epoch), at)
            count += epoch < newest
        return count

    def recovery_s(self, fault_s: float, affected: list[str]) -> float | None:
        """Return the time from the fault until the last of the affected runs was taken up again."""
        again = self.activations()
        found = [next((at for at in again.get(run, []) if at > fault_s), None) for run in affected]
        times = [at - fault_s for at in found if at is not None]
        return round(max(times), 2) if times else None


@contextmanager
def started(address: str, work: Path) -> Iterator[Load]:
    """Start a stack on a cluster, and the load on it."""
    stack = airside.start(
        app(), address=address, state_dir=work / "state", executors=3, lease_s=LEASE_S, idle_runtime_s=5
    )
    try:
        load = Load(stack, work)
        load.start()
        yield load
    finally:
        stack.shutdown()


def with_nodes(case: str, work: Path) -> dict[str, Any]:
    """Play a case in which the cluster is Ray's `Cluster`."""
    with nodes.several_nodes(3) as cluster, started(cluster.address, work) as load:
        return FAULTS[case](cluster, load)


def killed(cluster: Any, load: Load) -> dict[str, Any]:
    """Kill a node's raylet."""
    victim, runs = load.victim(cluster.head_node.node_id)
    node = next(node for node in cluster.list_all_nodes() if node.node_id == victim)
    at = time.time()
    cluster.remove_node(node, allow_graceful=False)
    return load.judge(at, runs)


def frozen(cluster: Any, load: Load) -> dict[str, Any]:
    """Stop a node's raylet without killing it."""
    victim, runs = load.victim(cluster.head_node.node_id)
    node = next(node for node in cluster.list_all_nodes() if node.node_id == victim)
    raylet = node.all_processes["raylet"][0].process
    at = time.time()
    os.kill(raylet.pid, signal.SIGSTOP)
    try:
        return load.judge(at, runs)
    finally:
        os.kill(raylet.pid, signal.SIGCONT)
        raylet.poll()


def gcs_down(cluster: Any, load: Load) -> dict[str, Any]:
    """Order a kill while Ray's control service stands still."""
    stack = load.stack
    while True:  # until one is placed on another node
        held = stack.submit("hold", tenant="held", principal="ana", route="spin")
        node, pid = wait_for(lambda: where_is(stack, "held"), "the run that holds its loop", BOUND_S)
        if node != cluster.head_node.node_id:
            break
        stack.kill(run=held.run_id)
    gcs = cluster.head_node.all_processes["gcs_server"][0].process
    os.kill(gcs.pid, signal.SIGSTOP)
    at = time.time()
    try:
        stack.kill(run=held.run_id, why="measured")
        took = round(time.time() - at, 2)
        is_dead = not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3]
    finally:
        os.kill(gcs.pid, signal.SIGCONT)
    found = load.judge(at, [])
    return found | {"recovery_s": took, "confirmed_dead": is_dead, "within_lease": took < LEASE_S}


def where_is(stack: Stack, tenant: str) -> tuple[str, int] | None:
    """Return node and pid of a tenant's runtime that has a run."""
    for name, layer in stack.status().items():
        if name.startswith(f"runtime/{tenant}/") and layer.get("runs"):
            return layer["node"], layer["pid"]
    return None


def gcs_restart(cluster: Any, load: Load) -> dict[str, Any]:
    """Kill Ray's control service and start it again on its stored state."""
    at = time.time()
    cluster.head_node.kill_gcs_server()
    time.sleep(1.0)
    cluster.head_node.start_gcs_server()
    before = len(load.handles)
    for i in range(TENANTS):  # what begins after it: new runs, in runtimes that live and in new ones
        load.handles.append(load.stack.submit("work", tenant=f"t{i}", principal="ana", inputs={"db": load.db}))
    load.handles.append(load.stack.submit("work", tenant="held", principal="ana", inputs={"db": load.db}))
    found = load.judge(at, [])
    return found | {"submitted_after": len(load.handles) - before, "recovery_s": round(time.time() - at, 2)}


def rpc_faults(cluster: Any, load: Load) -> dict[str, Any]:
    """Do nothing more: Ray's calls fail by themselves."""
    return load.judge(time.time(), [])


def partition() -> dict[str, Any]:
    """Cut a node's link; mend it when all runs have ended, and see whether it then does anything."""
    with namespaces.network(3), namespaces.ray_nodes(3):
        command = ["ip", "netns", "exec", namespaces.name(0), sys.executable, "-m", "benchmarks.node_loss"]
        output = subprocess.run([*command, "--case", "inside"], stdout=subprocess.PIPE, text=True, check=True).stdout
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def inside() -> dict[str, Any]:
    """Be the part of `partition` that runs on its head node."""
    work = Path(tempfile.mkdtemp(prefix="airside-nodes-"))
    with started(f"{namespaces.address(0)}:{namespaces.PORT}", work) as load:
        import ray

        head = ray.get_runtime_context().get_node_id()
        addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
        victim, runs = load.victim(head)
        index = int(addresses[victim].rpartition(".")[2]) - 1
        pids = [layer["pid"] for layer in load.stack.status().values() if layer.get("node") == victim]
        at = time.time()
        namespaces.cut(index)
        try:
            found = load.judge(at, runs)
            survivors = len(load.acting(pids))
        finally:
            namespaces.mend(index)
        shutil.rmtree(work, ignore_errors=True)
        return found | {"survivors": survivors}


FAULTS = {
    "killed": killed,
    "frozen": frozen,
    "gcs_down": gcs_down,
    "gcs_restart": gcs_restart,
    "rpc_faults": rpc_faults,
}


def play(case: str) -> dict[str, Any]:
    """Play one case in this process."""
    work = Path(tempfile.mkdtemp(prefix="airside-nodes-"))
    began = time.time()
    try:
        found = partition() if case == "partition" else with_nodes(case, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return {"case": case, **found, "seconds": round(time.time() - began, 1)}


def main() -> None:
    """Play one case, or each in a process of its own, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=(*CASES, "inside"))
    parser.add_argument("--out", type=Path, default=result_file("node_loss"))
    options = parser.parse_args()
    if options.case == "inside":
        last_line(inside())
    elif options.case:
        last_line(play(options.case))
    else:
        play_all(options.out)


def play_all(out: Path) -> None:
    """Play each case in a process of its own, write what was found, and print the summary."""
    played = []
    for case in CASES:
        command = [sys.executable, "-m", "benchmarks.node_loss", "--case", case]
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        played.append(json.loads(output.splitlines()[-1]))
        print(json.dumps(played[-1]), flush=True)
    out.write_text(json.dumps({"machine": machine(), "played": played}, indent=1), encoding="utf-8")
    print(f"every case: {out}")
    last_line(
        {
            "cases": len(played),
            "runs": sum(one["runs"] for one in played),
            "doubled": sum(one["doubled"] for one in played),
            "lost": sum(one["lost"] for one in played),
            "overlaps": sum(one["overlaps"] for one in played),
            "recovery_max_s": max(one["recovery_s"] or 0.0 for one in played),
        }
    )


if __name__ == "__main__":
    main()
