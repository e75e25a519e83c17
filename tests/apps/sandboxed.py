"""Tools that run in sandboxes, and say of themselves what they are asked."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from airside.tools.sandbox.limits import SandboxLimits
from airside.tools.tool import NOT_DONE, InDoubt, Tool, ToolContext, ToolError, tool

GREETING = "hello"
SMALL = SandboxLimits(processes=12, memory_bytes=96 * 1024 * 1024, disk_bytes=1024 * 1024)


def greeting() -> str:
    """Return what a function of the same module says."""
    return GREETING


@tool(effect="read", sandbox=True)
def greet(name: str) -> str:
    """Greet, by what else the module has."""
    return f"{greeting()}, {name}"


@tool(effect="read", sandbox=True)
async def greet_later(name: str) -> str:
    """Greet, after a moment."""
    await asyncio.sleep(0)
    return f"{greeting()}, {name}"


@tool(effect="read", sandbox=True)
def look(context: ToolContext) -> dict[str, Any]:
    """Return what it sees."""
    return {
        "tenant": context.tenant,
        "key": context.idempotency_key,
        "pid": os.getpid(),
        "uid": os.getuid(),
        "environment": sorted(os.environ),
        "files": [entry.name for entry in os.scandir("/tmp") if entry.is_file()],
        "descriptors": [
            os.readlink(f"/proc/self/fd/{fd}").partition(":")[0] for fd in os.listdir("/proc/self/fd")[:-1]
        ],
    }


@tool(effect="read", sandbox=True)
def leave(text: str) -> str:
    """Leave a file and a program behind, and print."""
    Path("/tmp/left").write_text(text)
    subprocess.Popen(["/bin/sh", "-c", "trap '' TERM; sleep 1000"], start_new_session=True)
    print(f"printed {text}", flush=True)
    return text


@tool(effect="write", sandbox=True)
def fail(how: str) -> str:
    """Fail in a way."""
    if how == "tool_error":
        raise ToolError("nothing was changed")
    if how == "in_doubt":
        raise InDoubt("who knows")
    if how == "die":
        os._exit(3)
    if how == "unfit":
        return {1, 2}  # type: ignore[return-value]
    raise ValueError("it broke")


@tool(effect="read", sandbox=SMALL, timeout=0.5)
def spin() -> None:
    """Never end."""
    while True:
        pass


@tool(effect="read", sandbox=SMALL, timeout=20)
def use(what: str) -> str:
    """Take more than it may."""
    if what == "output":
        return "x" * (2 * 1024 * 1024)
    if what == "log":
        for _ in range(64):
            print("x" * 1024 * 1024)
        return "printed"
    if what == "files":
        for number in range(1_000_000):
            Path(f"/tmp/{number}").touch()
        return "made"
    if what == "memory":
        held = []
        for _ in range(8):
            if os.fork() == 0:
                held.append(bytearray(os.urandom(1024) * 20 * 1024))
                time.sleep(1000)
        time.sleep(1000)
    if what == "processes":
        while True:
            if os.fork() == 0:
                time.sleep(1000)
    return "nothing"


@tool(effect="write", sandbox=True, reconcile=lambda context: NOT_DONE if context.tenant != "acme" else "known")
def keyed(context: ToolContext) -> str:
    """Do it once."""
    return "done"


def _undo(context: ToolContext, arguments: dict[str, Any], output: Any) -> str:
    return f"took back {output} of {arguments['what']}"


@tool(effect="write", sandbox=True, idempotent=True, undo=_undo)
def change(what: str) -> str:
    """Change something."""
    return f"changed {what}"


@tool(effect="read", sandbox=True, secrets=("token",), retries=1)
def confess(how: str, context: ToolContext) -> list[str]:
    """Show its secret."""
    secret = context.secrets["token"]
    match how:
        case "raise":
            raise ValueError("x" * 1_980 + f" {secret}" * 1_000)
        case "busy":
            raise ToolError(f"busy with {secret}", retry_after_s=1.5)
    print(f"printed {secret}", flush=True)
    return [secret]


TOOLS: list[Tool] = [confess, greet, greet_later, look, leave, fail, spin, use, keyed, change]
