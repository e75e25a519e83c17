"""An app of agents that resist being ended, and of tools with a process of their own that do."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from airside import Action, App, Finish, View
from airside.stack.directory import Directory, Principal, Tenant
from airside.stack.run.topology import SingleAgent
from airside.tools.tool import tool
from tests.apps import unruly

LEFT = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
open(sys.argv[1] + "/left-%d" % os.getpid(), "w").close()
time.sleep(1e6)
"""


def stubborn(view: View) -> Any:
    """Never yield, and catch whatever is raised meanwhile."""
    while True:
        try:
            while True:
                time.sleep(0.001)
        except BaseException:
            continue


def disarming(view: View) -> Any:
    """Start threads, reset timers, mask signals, then hold the interpreter in C code."""
    for _ in range(8):
        threading.Thread(target=lambda: [time.sleep(0.001) for _ in iter(int, 1)], daemon=True).start()
    signal.setitimer(signal.ITIMER_REAL, 0)
    with contextlib.suppress(ValueError):  # it is not the main thread
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    re.match("(a+)+$", "a" * 64 + "b")


def leave(place: str) -> None:
    """Start a program that forks twice, has a session of its own, and heeds no SIGTERM."""
    subprocess.Popen([sys.executable, "-c", LEFT, place])


def leaver(view: View) -> Any:
    """Start such a program from an agent."""
    leave(view.inputs()["place"])
    return Finish(answer=1)


def caller(view: View) -> Action | Finish:
    """Call the tool that the inputs name, once."""
    inputs = view.inputs()
    return Finish(answer=1) if view.history else Action(tool=inputs["tool"], arguments={"place": inputs["place"]})


def create_app(work: str | Path) -> App:
    """Return the app; `narrow` is a tenant that has one run at work at a time."""
    agents = {agent.__name__: agent for agent in (stubborn, disarming, caller, leaver)}
    people = {"ana": Principal()}
    unending = [
        tool(effect="write", process=True, timeout=600)(each.function) for each in (unruly.daemon, unruly.disguised)
    ]
    return App(
        agents=agents,
        routes={name: SingleAgent(name) for name in agents},
        tools=[*unending, tool(effect="write")(leave)],
        policy="version: killing-1\nrules: [{id: all, outcome: allow}]\n",
        directory=Directory(
            tenants={"acme": Tenant(principals=people), "narrow": Tenant(principals=people, concurrency=1)}
        ),
    )
