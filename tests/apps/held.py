"""An app of agents that hold their runtime's event loop, each in another way, of one whose tool does, and of others."""

from __future__ import annotations

import asyncio
import re
import threading
from pathlib import Path
from typing import Any

from airside import Action, App, Finish, View
from airside.stack.directory import Directory, Principal, Tenant
from airside.stack.run.topology import SingleAgent
from airside.tools.tool import ToolContext, tool
from tests.apps.ledger import Ledger

_CATASTROPHIC = re.compile("(a+)+$")
_ENDLESS = "a" * 64 + "b"


def spin(view: View) -> Any:
    """Never yield, in Python, from the first step on."""
    while True:
        pass


def doze(view: View) -> Any:
    """Never yield, without using the interpreter."""
    threading.Event().wait()


def backtrack(view: View) -> Any:
    """Never yield, in C code that holds the interpreter's lock."""
    _CATASTROPHIC.match(_ENDLESS)


async def spin_later(view: View) -> Any:
    """Yield once, then never again."""
    await asyncio.sleep(0)
    while True:
        pass


async def lock_from_a_thread(view: View) -> Any:
    """Await a thread that holds the interpreter's lock: the loop is held, and by nobody it could name."""
    await asyncio.to_thread(_CATASTROPHIC.match, _ENDLESS)


def worker(view: View) -> Action | Finish:
    """Make five notes, then finish."""
    done = len(view.history)
    return Action(tool="note", arguments={"text": f"{view.request.text} {done}"}) if done < 5 else Finish(answer=done)


def holder(view: View) -> Action:
    """Call the tool that blocks."""
    return Action(tool="hold", arguments={})


def create_app(work: str | Path) -> App:
    """Return the app; notes are counted in `work`."""
    ledger = Ledger(Path(work) / "ledger.sqlite")

    @tool(effect="write", idempotent=True)
    async def note(text: str, context: ToolContext) -> str:
        """Write a note, once a key."""
        await asyncio.to_thread(ledger.once, context.idempotency_key, "note", text)
        return text

    @tool(effect="write", idempotent=True, timeout=4)
    async def hold() -> None:
        """Block in `async def`, for good."""
        threading.Event().wait()

    everybody = (spin, doze, backtrack, spin_later, lock_from_a_thread, worker, holder)
    agents = {agent.__name__: agent for agent in everybody}
    return App(
        agents=agents,
        routes={name: SingleAgent(name) for name in agents},
        tools=[note, hold],
        policy="version: held-1\nrules: [{id: all, outcome: allow}]\n",
        directory=Directory(tenants={name: Tenant(principals={"ana": Principal()}) for name in ("acme", "globex")}),
    )
