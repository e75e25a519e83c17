"""Seven published servers of the Model Context Protocol, approved and called, and then with something wrong.

    python -m benchmarks.mcp_servers [--folder FOLDER]

They are installed with their versions into FOLDER (`benchmarks/results/mcp_servers`), once, which needs pip, npm, Node
20 and the network (`apt-get install nodejs npm`, where there is none), and run in the sandbox, without a network; one
of them needs git there.  Each is approved as it is, and its tools are called by an executor's
dispatcher.  Then three are put behind `data/mcp_filter.py`, which renames a tool, rewrites its description, changes its
schema, hangs, dies at a call, and loses the answer of a call that had its effect.

Last line: servers; tools; calls and calls_ok; `network_refused` (a fetch that the sandbox has no network for);
`rug_pulls_quarantined`, `hung_ended` (its processes are gone), `died_in_doubt`, `lost_reply_in_doubt`, and
`lost_effects` (effects of that call: one, and not two).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airside.stack.canonical import digest
from airside.stack.contracts.execution import ExecuteRequest
from airside.stack.ids import NO_ISSUER, ExecutorId, PrincipalId, RunId, TenantId, effect_key
from airside.stack.security.grants import Grant, mint
from airside.stack.values import ToolResult
from airside.tools.dispatch import Dispatcher
from airside.tools.mcp.offer import ServerOffer
from airside.tools.mcp.pins import ApprovedOffer, write_pin
from airside.tools.mcp.server import McpServer
from airside.tools.mcp.session import McpSession
from airside.tools.sandbox.command import python_there
from benchmarks.measure import last_line, machine

PYTHON = ("mcp-server-time==2026.10.19", "mcp-server-git==2026.10.19", "mcp-server-fetch==2026.10.24")
NODE = tuple(
    f"@modelcontextprotocol/server-{name}@2026.8.31"
    for name in ("everything", "filesystem", "memory", "sequential-thinking")
)
NODE_MEMORY = 64 * 2**30
"""Address space, which Node reserves and does not use."""

FILTER = Path(__file__).parent / "data" / "mcp_filter.py"
KEY = b"k" * 32
RUN = RunId("run_" + "0" * 24)
EXECUTOR = ExecutorId("exe_" + "1" * 24)
_SANDBOX_USER = 12_345
_MARK = "airside-mcp-benchmark"
_INSTALLED = "installed.txt"

Call = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Published:
    """A server: its command, what it is given, the effects of its tools, and calls that should be answered."""

    name: str
    command: Sequence[str]
    calls: Sequence[Call]
    effects: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    memory_bytes: int = 4 * 2**30


def install(folder: Path) -> None:
    """Install the servers, but for what is there of these versions; exit with what is missing on this machine."""
    missing = [name for name in ("node", "npm", "git") if shutil.which(name) is None]
    if missing:
        raise SystemExit(f"{', '.join(missing)}: not on this machine; `apt-get install nodejs npm git` has them")
    folder.mkdir(parents=True, exist_ok=True)
    python, node = folder / "py", folder / "node"
    if not _is_there(python, PYTHON):
        _run(sys.executable, "-m", "venv", "--clear", str(python))
        _run(str(python / "bin/pip"), "install", "--quiet", "--disable-pip-version-check", *PYTHON)
        _note(python, PYTHON)
    if not _is_there(node, NODE):
        node.mkdir(exist_ok=True)
        _run("npm", "install", "--prefix", str(node), "--no-audit", "--no-fund", "--loglevel=error", *NODE)
        _note(node, NODE)


def _run(*command: str) -> None:
    if subprocess.run(command, check=False).returncode:
        raise SystemExit(f"`{' '.join(command)}` failed; the servers cannot be installed without it")


def _is_there(folder: Path, wanted: Sequence[str]) -> bool:
    """Whether all of it was installed: one that was interrupted is not taken for whole."""
    mark = folder / _INSTALLED
    return mark.exists() and mark.read_text().split() == list(wanted)


def _note(folder: Path, done: Sequence[str]) -> None:
    (folder / _INSTALLED).write_text("\n".join(done))


def published(folder: Path) -> list[Published]:
    """Return the servers, with calls that each should answer."""
    packages = sysconfig.get_path("purelib", vars={"base": str(folder / "py"), "platbase": str(folder / "py")})

    def python(name: str, calls: Sequence[Call], **effects: str) -> Published:
        module = f"mcp_server_{name}"
        return Published(name, (python_there(), "-m", module), calls, effects, {"PYTHONPATH": packages})

    def node(name: str, calls: Sequence[Call], *arguments: str, **fields: Any) -> Published:
        script = folder / f"node/node_modules/@modelcontextprotocol/server-{name}/dist/index.js"
        program = shutil.which("node") or "node"
        return Published(name, (program, str(script), *arguments), calls, memory_bytes=NODE_MEMORY, **fields)

    thought = {"thought": "so far so good", "thoughtNumber": 1, "totalThoughts": 1, "nextThoughtNeeded": False}
    entity = {"name": "ann", "entityType": "person", "observations": ["likes tea"]}
    zone = {"timezone": "Europe/Berlin"}
    conversion = {"source_timezone": "Europe/Berlin", "time": "12:00", "target_timezone": "Asia/Tokyo"}
    repo = {"repo_path": "/workspace/repo"}
    file = {"path": "/workspace/a.txt"}
    return [
        python("time", [("get_current_time", zone), ("convert_time", conversion)], get_current_time="read"),
        python("git", [("git_status", repo), ("git_log", repo)], git_status="read", git_log="read"),
        python("fetch", [("fetch", {"url": "https://example.com/"})]),
        node("everything", [("echo", {"message": "hello"}), ("get-sum", {"a": 2, "b": 3})], effects={"echo": "read"}),
        node(
            "filesystem",
            [
                ("write_file", {**file, "content": "hello"}),
                ("read_text_file", file),
                ("list_directory", {"path": "/workspace"}),
            ],
            "/workspace",
            effects={"read_text_file": "read"},
        ),
        node(
            "memory",
            [("create_entities", {"entities": [entity]}), ("read_graph", {})],
            effects={"read_graph": "read"},
            env={"MEMORY_FILE_PATH": "/workspace/memory.jsonl"},
        ),
        node("sequential-thinking", [("sequentialthinking", thought)]),
    ]


class Behind:
    """A server in a workspace of its own, approved as it is now, behind a dispatcher; perhaps one that is wrong."""

    def __init__(
        self, server: Published, folder: Path, work: Path, *, timeout: float = 20.0, wrong: bool = False
    ) -> None:
        self.work = work / f"{server.name}{'-wrong' if wrong else ''}"
        self.work.mkdir()
        _make_repository(self.work / "repo")
        filtered = (python_there(), str(FILTER), "/workspace/mode")
        own = [str(folder), str(FILTER)]
        self.server = McpServer(
            server.name,
            command=(*(filtered if wrong else ()), *server.command),
            mapping={
                "read": own,
                "workspace": str(self.work),
                "memory_bytes": server.memory_bytes,
                "tools": {name: {"effect": effect} for name, effect in server.effects.items()},
            },
            pin=work / "mcp.lock.json",
            env={**server.env, "MARK": _MARK},
            timeout=timeout,
        )
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", str(_SANDBOX_USER), str(self.work)], check=True)
        self.dispatcher: Dispatcher | None = None
        self.tools: dict[str, Any] = {}

    async def approve(self) -> int:
        """Approve the server as it is, and return how many tools it has."""
        offers: list[Any] = []
        address = self.server.address(self.server.read_mapping()[0])
        session = await McpSession.open(address, {}, offers.append, 60)
        await session.close()
        offer: ServerOffer = offers[0]
        pin = ApprovedOffer(digest=offer.digest, approved_at="", approved_by="the benchmark", offer=offer)
        write_pin(self.server.pin, self.server.name, pin)
        toolset = self.server.read_toolset()
        self.tools = {tool.name.partition(".")[2]: tool for tool in toolset.tools}
        self.dispatcher = Dispatcher([toolset], seal_key=KEY, executor_id=EXECUTOR, now_us=_now_us)
        return len(self.tools)

    async def call(self, name: str, arguments: dict[str, Any]) -> ToolResult:
        """Call a tool under a grant of its own."""
        assert self.dispatcher is not None
        data, spec = json.dumps(arguments).encode(), self.tools[name].spec
        grant = Grant(
            tenant=TenantId("acme"),
            principal=PrincipalId("ann"),
            run_id=RUN,
            step=1,
            attempt=1,
            epoch=1,
            tool=spec.name,
            tool_version=spec.version,
            arguments_sha256=digest(data),
            key=effect_key(RUN, int.from_bytes(os.urandom(4), "big")),
            policy_version="v1",
            approval_id="",
            executor=EXECUTOR,
            timeout_ms=spec.timeout_ms,
            expires_us=_now_us() + 600_000_000,
            issuer=NO_ISSUER,
            nonce=os.urandom(12),
        )
        return (await self.dispatcher.execute(ExecuteRequest(grant=mint(KEY, grant), arguments=data))).result

    def become(self, mode: str) -> None:
        """Have the server be wrong from now on, or "" right again."""
        (self.work / "mode").write_text(mode)

    async def close(self) -> None:
        """End its sessions."""
        if self.dispatcher is not None:
            states = self.dispatcher._states
            for state in list(states._states.values()):
                states._close_later(state)
            await asyncio.gather(*states._closing)
            self.dispatcher.close()


def _now_us() -> int:
    return time.time_ns() // 1000


def _make_repository(folder: Path) -> None:
    git = ["git", "-C", str(folder), "-c", "user.name=ann", "-c", "user.email=ann@example.com"]
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "first"], check=True)


def _processes() -> int:
    """Return how many processes of servers there are."""
    found = 0
    for entry in Path("/proc").iterdir():
        try:
            found += entry.name.isdigit() and f"MARK={_MARK}".encode() in (entry / "environ").read_bytes()
        except OSError:
            continue
    return found


async def call_all(servers: list[Published], folder: Path, work: Path) -> dict[str, int]:
    """Approve each server, and call its tools."""
    counts = {"servers": 0, "tools": 0, "calls": 0, "calls_ok": 0, "network_refused": 0}
    for server in servers:
        behind = Behind(server, folder, work)
        counts["tools"] += await behind.approve()
        for name, arguments in server.calls:
            result = await behind.call(name, arguments)
            said = result.value() if result.ok else {"is_error": True, "text": result.error}
            counts["calls"] += 1
            counts["calls_ok"] += not said.get("is_error")
            is_offline = server.name == "fetch" and "connection issue" in str(said.get("text"))
            counts["network_refused"] += is_offline
            meant = "has no network, as is meant: " if is_offline else ""
            print(f"{server.name}.{name}: {meant}{str(said)[:150]!r}", flush=True)
        counts["servers"] += 1
        await behind.close()
    return counts


async def pull_rugs(servers: Mapping[str, Published], folder: Path, work: Path) -> int:
    """Return how many servers that changed what they offer were in quarantine at their next session."""
    quarantined = 0
    for name, mode in (("time", "rename"), ("filesystem", "describe"), ("memory", "schema")):
        behind = Behind(servers[name], folder, work, wrong=True)
        await behind.approve()
        behind.become(mode)
        result = await behind.call(*servers[name].calls[-1])
        print(f"{name}, {mode}: {result.reason_code}: {result.error}", flush=True)
        quarantined += result.reason_code == "tool_quarantined"
        await behind.close()
        shutil.rmtree(behind.work)
    return quarantined


async def fail_calls(server: Published, folder: Path, work: Path) -> dict[str, int]:
    """Have a call hang, one die, and the answer of one be lost; return what became of each."""
    behind = Behind(server, folder, work, timeout=3.0, wrong=True)
    await behind.approve()
    found: dict[str, str] = {}
    for mode in ("hang", "die", "lose"):
        assert (await behind.call("read_graph", {})).ok
        behind.become(mode)
        entity: dict[str, Any] = {"name": mode, "entityType": "mode", "observations": []}
        result = await behind.call("create_entities", {"entities": [entity]})
        found[mode] = str(result.reason_code)
        behind.become("")
        print(f"{server.name}, {mode}: {result.reason_code}: {result.error}", flush=True)
        await behind.call("read_graph", {})  # which finds the session broken, so that it is closed
        assert behind.dispatcher is not None
        await asyncio.gather(*behind.dispatcher._states._closing)
        found[f"{mode} left"] = str(_processes())
    graph = (await behind.call("read_graph", {})).value()
    await behind.close()
    return {
        "hung_ended": int(found["hang"] == "tool_in_doubt" and found["hang left"] == "0"),
        "died_in_doubt": int(found["die"] == "tool_in_doubt"),
        "lost_reply_in_doubt": int(found["lose"] == "tool_in_doubt"),
        "lost_effects": graph["text"].count('"lose"'),
    }


async def measured(folder: Path, work: Path) -> dict[str, Any]:
    """Return all counts."""
    servers = published(folder)
    by_name = {server.name: server for server in servers}
    counts = await call_all(servers, folder, work)
    counts["rug_pulls_quarantined"] = await pull_rugs(by_name, folder, work)
    counts |= await fail_calls(by_name["memory"], folder, work)
    return {**counts, "processes_left": _processes()}


def main() -> None:
    """Install, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--folder", type=Path, default=Path("benchmarks/results/mcp_servers"), help="where they are installed"
    )
    folder = parser.parse_args().folder.resolve()
    install(folder)
    with tempfile.TemporaryDirectory() as work:
        os.chmod(work, 0o755)
        found = asyncio.run(measured(folder, Path(work)))
    last_line({**found, "machine": machine()})


if __name__ == "__main__":
    main()
