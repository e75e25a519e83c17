"""From an order to kill, or a deadline, to the confirmed death, and to the neighbours' next step.

    python -m benchmarks.kill [--rounds 3] [--out kill.json]

On two nodes of one machine, what is killed is, in turn: an agent in `while True`, one in `time.sleep(1e6)`, one in C
code that holds the interpreter's lock (the runtime is killed; its other runs are the neighbours and go on in another
process); and calls of tools with a process of their own: one deaf to SIGTERM, a fork bomb below its limit, a daemon
that forked twice (the executor lives on; the runs beside are the neighbours).  Each by `kill` as soon as it holds, and
each by its deadline (an agent's is `stall_s`, counted from where it begins to hold; a tool's its timeout).

Dead is who has no process left, which is looked up in `/proc` besides what `kill` says.  `next_step_s` is the time
until a neighbour's next call is done.  Last line: p50, p99 and maximum of the seconds to death, processes that
survived, neighbours that did not complete.  Not measured: nodes that are cut off (`benchmarks.node_loss`).
"""

from __future__ import annotations

import benchmarks.cluster as nodes  # first: it sets Ray's environment

# isort: split
import argparse
import json
import os
import re
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import airside
from airside import Action, App, Finish, View, tool
from airside.actors.client.client import Stack
from airside.stack.directory import Directory, Principal, Tenant
from airside.stack.run.topology import SingleAgent
from airside.tools.tool import ProcessLimits
from benchmarks.measure import last_line, machine, percentile, result_file

STALL_S = 0.8
TOOL_S = 0.5
"""The deadline of the calls that are ended by it."""

NEIGHBOURS = 4
NEIGHBOUR_CALLS = 20
_CATASTROPHIC = re.compile("(a+)+$")


def _mark(place: str, what: str) -> None:
    """Leave word of this process and the time."""
    pid = os.readlink("/proc/self")
    (Path(place) / f"{what}-{pid}").write_text(repr(time.time()))


def _place(view: View) -> str:
    return str(view.inputs()["place"])


def spin(view: View) -> Any:
    """Hold the loop in Python."""
    _mark(_place(view), "spin")
    while True:
        pass


def doze(view: View) -> Any:
    """Hold the loop asleep."""
    _mark(_place(view), "doze")
    time.sleep(1e6)


def backtrack(view: View) -> Any:
    """Hold the loop and the interpreter in C code."""
    _mark(_place(view), "backtrack")
    _CATASTROPHIC.match("a" * 64 + "b")


def caller(view: View) -> Action | Finish:
    """Call the tool that the inputs name, once."""
    inputs = view.inputs()
    return Finish(answer=1) if view.history else Action(tool=inputs["tool"], arguments={"place": inputs["place"]})


async def neighbour(view: View) -> Action | Finish:
    """Make many short calls."""
    done = len(view.history)
    if done == NEIGHBOUR_CALLS:
        return Finish(answer=done)
    return Action(tool="step", arguments={"place": _place(view), "run": view.run_id, "number": done})


@tool(effect="write", idempotent=True)
def step(place: str, run: str, number: int) -> int:
    """Note that a neighbour made a step."""
    time.sleep(0.02)
    (Path(place) / f"step-{run}-{number}").write_text(repr(time.time()))
    return number


def _deaf(place: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _mark(place, "deaf")
    time.sleep(1e6)


def _bomb(place: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for _ in range(24):
        if os.fork() == 0:
            _mark(place, "bomb")
            while True:
                time.sleep(0.01)
    _mark(place, "bomb")
    while True:
        time.sleep(0.01)


def _daemon(place: str) -> None:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            _mark(place, "daemon")
            time.sleep(1e6)
        os._exit(0)
    time.sleep(1e6)


UNRULY = {"deaf": _deaf, "bomb": _bomb, "daemon": _daemon}
HOLDERS = {"spin": spin, "doze": doze, "backtrack": backtrack}


def tools() -> list[airside.Tool]:
    """Return every unruly tool twice: `NAME` has a long deadline, `NAME_late` a short one."""
    made = [step]
    for name, function in UNRULY.items():
        for suffix, seconds in (("", 600.0), ("_late", TOOL_S)):
            declared = tool(effect="read", process=ProcessLimits(processes=64), timeout=seconds, name=name + suffix)
            made.append(declared(function))
    return made


def app() -> App:
    """Return the app: a tenant a case, so that the neighbours are in the process of who is killed."""
    agents = {**HOLDERS, "caller": caller, "neighbour": neighbour}
    who = Tenant(principals={"ana": Principal()})
    return App(
        agents=agents,
        routes={name: SingleAgent(name) for name in agents},
        tools=tools(),
        policy="version: kill-1\nrules: [{id: all, outcome: allow}]\n",
        directory=Directory(tenants={f"{case}-{i}": who for case in (*HOLDERS, *UNRULY) for i in range(200)}),
    )


def alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def marks(place: Path, what: str) -> dict[int, float]:
    """Return the processes that left word, with the time."""
    found = {}
    for path in place.glob(f"{what}-*"):
        text = path.read_text()
        if text:
            found[int(path.name.rpartition("-")[2])] = float(text)
    return found


def wait_for(look: Any, what: str, bound_s: float = 60.0) -> Any:
    """Return what is found as soon as there is something."""
    until = time.monotonic() + bound_s
    while not (found := look()):
        if time.monotonic() > until:
            raise TimeoutError(f"waited {bound_s:.0f} s for {what}")
        time.sleep(0.002)
    return found


def play(stack: Stack, case: str, number: int, *, by_order: bool, work: Path) -> dict[str, Any]:
    """Kill one; return how long it took and what became of the neighbours."""
    tenant, place = f"{case}-{number}", work / f"{case}-{number}"
    place.mkdir()
    inputs = {"place": str(place), "tool": case if by_order else f"{case}_late"}
    who: dict[str, Any] = {"tenant": tenant, "principal": "ana", "inputs": inputs}
    beside = [stack.submit("beside", route="neighbour", **who) for _ in range(NEIGHBOURS)]
    wait_for(lambda: len(list(place.glob("step-*"))) > NEIGHBOURS, "the neighbours to step")
    guilty = stack.submit("hold", route=case if case in HOLDERS else "caller", **who)
    everybody = 25 if case == "bomb" else 1
    held = wait_for(lambda: len(marks(place, case)) >= everybody and marks(place, case), f"{case} to hold")
    began = time.time()
    if by_order:
        stack.kill(run=guilty.run_id, why="measured")
    else:
        began = max(held.values()) + (STALL_S if case in HOLDERS else 0.0)
        if case in UNRULY:  # its deadline counts from when the call began, just before it left word
            began = min(held.values()) + TOOL_S
    wait_for(lambda: not any(map(alive, held)), f"{case} to die")
    died = time.time()
    result = guilty.result(timeout=60)
    results = [handle.result(timeout=60) for handle in beside]
    after = [float(path.read_text()) for path in place.glob("step-*")]
    status = {name: layer["node"] for name, layer in stack.status().items() if "node" in layer}
    return {
        "case": case,
        "by": "order" if by_order else "deadline",
        "death_s": round(max(0.0, died - began), 4),
        "next_step_s": round(min((at for at in after if at > began), default=began) - began, 4),
        "survivors": sum(map(alive, marks(place, case))),
        "neighbours_lost": sum(not each.ok for each in results),
        "status": str(result.status),
        "head": status.get("driver", "") in {node for name, node in status.items() if tenant in name},
    }


def main() -> None:
    """Play the rounds, write what was measured, and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=result_file("kill"))
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="airside-kill-"))
    played = []
    try:
        with nodes.several_nodes(2) as cluster:
            stack = airside.start(
                app(), address=cluster.address, state_dir=work / "state", stall_s=STALL_S, idle_runtime_s=3
            )
            try:
                for number in range(2 * options.rounds):
                    for case in (*HOLDERS, *UNRULY):
                        played.append(play(stack, case, number, by_order=number % 2 == 0, work=work))
                        print(json.dumps(played[-1]), flush=True)
                problems = stack.verify()
            finally:
                stack.shutdown()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    options.out.write_text(json.dumps({"machine": machine(), "played": played}, indent=1), encoding="utf-8")
    print(f"every kill: {options.out}")
    seconds = [one["death_s"] for one in played]
    last_line(
        {
            "p50_s": percentile(seconds, 0.5),
            "p99_s": percentile(seconds, 0.99),
            "max_s": max(seconds),
            "survivors": sum(one["survivors"] for one in played),
            "neighbours_lost": sum(one["neighbours_lost"] for one in played),
            "next_step_p99_s": percentile([one["next_step_s"] for one in played], 0.99),
            "kills": len(played),
            "audit_ok": not problems,
        }
    )


if __name__ == "__main__":
    main()
