"""Programs of agents run in sandboxes, with the workspace of their tenant, and what they print comes back in bounds."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airside.stack.errors import InvalidConfig
from airside.stack.reasons import ReasonCode
from airside.stack.values import ToolResult
from airside.tools import SandboxLimits, python_sandbox, shell_sandbox, workspace_tools
from airside.tools.dispatch import Dispatcher
from airside.tools.runners import sandbox as lane
from airside.tools.sandbox.probe import Reached
from airside.tools.sandbox.programs import run_program
from airside.tools.tool import Tool
from tests.helpers import EXECUTOR, KEY, SECOND, granted
from tests.unit.tools.builtin.contexts import context

NOW = 10 * SECOND


class Bench:
    """Tools in a dispatcher, on a machine that was probed."""

    def __init__(self) -> None:
        self.made: list[Dispatcher] = []

    async def run(self, found: Tool, **arguments: Any) -> ToolResult:
        """Run a tool once."""
        dispatcher = Dispatcher([found], seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: NOW)
        self.made.append(dispatcher)
        encoded = msgspec.json.encode(arguments)
        request = granted(found.spec, encoded, timeout_ms=found.spec.timeout_ms, nonce=os.urandom(12), key="k")
        return (await dispatcher.execute(request)).result


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """Dispatchers that end with the test, and keep no sandbox ready."""

    async def probe() -> Reached:
        return Reached("full")

    monkeypatch.setattr(lane, "reached_level", probe)
    monkeypatch.setattr(lane.SandboxRunner, "_prepare", lambda self, key: None)
    made = Bench()
    yield made
    for dispatcher in made.made:
        dispatcher.close()
    await asyncio.sleep(0)


async def test_a_python_program_says_what_it_prints(bench: Bench) -> None:
    """With the packages that are installed."""
    code = "import orjson, sys\nprint(orjson.dumps([1]).decode())\nprint('oh', file=sys.stderr)\nsys.exit(3)"
    result = await bench.run(python_sandbox(), code=code)
    assert result.value() == {"exit_code": 3, "stdout": "[1]\n", "stderr": "oh\n", "truncated": False}
    assert result.sandbox == "full"


async def test_a_program_that_is_wrong_shows_where(bench: Bench) -> None:
    found = (await bench.run(python_sandbox(), code="x = 1\n1/0")).value()
    assert found["exit_code"] == 1 and 'File "<stdin>", line 2' in found["stderr"]


async def test_a_command_says_what_it_prints(bench: Bench) -> None:
    found = (await bench.run(shell_sandbox(), command="cat; echo $((6 * 7)) | tee /tmp/x; id -u >&2")).value()
    assert (found["exit_code"], found["stdout"]) == (0, "42\n") and found["stderr"].strip() != "0"


async def test_output_is_cut_and_ends(bench: Bench) -> None:
    result = await bench.run(
        shell_sandbox(max_output_bytes=100), command="yes | head -c 5000000; printf '\\033[2J' >&2"
    )
    found = result.value()
    assert found["truncated"] and len(found["stdout"]) == 100 and found["stderr"] == "\ufffd[2J"


async def test_a_program_that_hangs_is_ended(bench: Bench) -> None:
    result = await bench.run(python_sandbox(timeout=0.5), code="while True: pass")
    assert result.reason_code is ReasonCode.TOOL_TIMEOUT


@pytest.mark.skipif(os.geteuid() != 0, reason="another owner is given by root")
async def test_it_reads_what_its_tenant_wrote(bench: Bench, tmp_path: Path) -> None:
    _, write, _ = workspace_tools(tmp_path)
    write(context("run_1:1"), "notes/a.txt", "from a tool")
    (tmp_path / "other").mkdir()
    reading = shell_sandbox(limits=SandboxLimits(workspace=str(tmp_path)))
    found = (await bench.run(reading, command="cat notes/a.txt; ls ..; echo no > notes/a.txt")).value()
    assert found["stdout"].startswith("from a tool") and "other" not in found["stdout"] and found["exit_code"] != 0
    assert reading.spec.effect == "read"


@pytest.mark.skipif(os.geteuid() != 0, reason="another owner is given by root")
async def test_what_it_writes_its_tenant_reads(bench: Bench, tmp_path: Path) -> None:
    read, write, _ = workspace_tools(tmp_path)
    write(context("run_1:1"), "a.txt", "one")
    writing = shell_sandbox(limits=SandboxLimits(workspace=str(tmp_path), access="write"))
    assert writing.spec.effect == "write"
    command = "echo two >> a.txt; mkdir b; echo three > b/c; ln -s /etc/shadow out; echo $?"
    assert (await bench.run(writing, command=command)).value()["exit_code"] == 0
    assert read(context("run_1:2"), "a.txt")["text"] == "onetwo\n"
    assert read(context("run_1:3"), "b/c")["text"] == "three\n"
    write(context("run_1:4"), "a.txt", "four", overwrite=True)
    assert (await bench.run(writing, command="cat a.txt")).value()["stdout"] == "four"


@pytest.mark.skipif(os.geteuid() != 0, reason="another owner is given by root")
async def test_it_does_not_fill_the_machines_disk(bench: Bench, tmp_path: Path) -> None:
    limits = SandboxLimits(workspace=str(tmp_path), access="write", workspace_bytes=1_000_000, disk_bytes=4_000_000)
    result = await bench.run(shell_sandbox(limits=limits), command="for i in 1 2 3 4; do yes > $i; done; sleep 100")
    assert result.reason_code is ReasonCode.TOOL_IN_DOUBT and "filled its workspace" in result.error


def test_a_program_that_left_something_behind_is_not_waited_for() -> None:
    found = run_program(["/bin/sh", "-c", "(exec sleep 3) & echo done"], "", 100)
    assert (found["stdout"], found["exit_code"]) == ("done\n", 0)


def test_a_program_that_reads_nothing_of_a_long_input_ends() -> None:
    assert run_program([sys.executable, "-c", "print(1)"], "x" * 1_000_000, 100)["stdout"] == "1\n"


@pytest.mark.parametrize("options", [{"limits": 5}, {"max_output_bytes": 0}, {"max_output_bytes": "much"}])
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    for factory in (python_sandbox, shell_sandbox):
        with pytest.raises(InvalidConfig, match=next(iter(options))):
            factory(**options)


@pytest.mark.skipif(os.geteuid() != 0, reason="another owner is given by root")
@pytest.mark.parametrize("path", ["full", "d/" * 100 + "full"])
async def test_a_workspace_that_is_too_full_or_too_deep_is_told(bench: Bench, tmp_path: Path, path: str) -> None:
    """However short a call is; the next that would write does not begin, and one that reads does."""
    limits = SandboxLimits(workspace=str(tmp_path), access="write", workspace_bytes=1_000_000)
    command = f"mkdir -p $(dirname {path}); head -c 2000000 /dev/zero > {path}"
    result = await bench.run(shell_sandbox(limits=limits), command=command)
    assert result.reason_code is ReasonCode.TOOL_IN_DOUBT and "its workspace" in result.error
    again = await bench.run(shell_sandbox(limits=limits), command="true")
    assert again.reason_code is ReasonCode.SANDBOX_UNAVAILABLE and "delete some of it" in again.error
    reading = shell_sandbox(limits=SandboxLimits(workspace=str(tmp_path)))
    assert (await bench.run(reading, command="ls")).ok
