"""A call in a process of its own is dead when it is over, with all it started, whatever it does and whoever dies."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from airside.stack.canonical import digest
from airside.stack.errors import InvalidConfig
from airside.stack.ids import RunId
from airside.stack.reasons import ReasonCode
from airside.stack.values import ToolResult
from airside.tools.dispatch import Dispatcher
from airside.tools.tool import Tool, Toolset, flatten, tool
from tests.apps import unruly
from tests.helpers import EXECUTOR, KEY, RUN, SECOND, granted
from tests.on_ray import alive, until

NOW = 10 * SECOND


@pytest.fixture
async def dispatcher() -> AsyncIterator[Dispatcher]:
    """A dispatcher of the unruly tools, whose launcher ends with the test."""
    made = Dispatcher(unruly.TOOLS, seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: NOW)
    yield made
    made.close()


async def run(dispatcher: Dispatcher, found: Tool, place: Path, **more: object) -> ToolResult:
    """Have a tool executed, under a key of its own."""
    key = more.pop("key", os.urandom(4).hex())
    arguments = msgspec.json.encode({"place": str(place)} | more)
    request = granted(found.spec, arguments, timeout_ms=found.spec.timeout_ms, nonce=os.urandom(12), key=key)
    return (await dispatcher.execute(request)).result


def processes(place: Path) -> list[int]:
    """Return the processes that left their number."""
    return [int(path.name.rpartition("-")[2]) for path in place.iterdir()]


def launchers() -> list[int]:
    """Return the launchers this process started."""
    children = map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
    return [pid for pid in children if b"airside.tools.runners.launcher" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def launcher() -> tuple[int, int]:
    """Return the one launcher there is, and its inner process."""
    (outer,) = launchers()
    (inner,) = map(int, Path(f"/proc/{outer}/task/{outer}/children").read_text().split())
    return outer, inner


async def test_it_answers_with_what_the_tool_returned_in_another_process(
    dispatcher: Dispatcher, tmp_path: Path
) -> None:
    result = await run(dispatcher, unruly.context_of, tmp_path, key="run_1:7")
    assert result.ok and result.value() == ["acme", "run_1:7", str(tmp_path)]


@pytest.mark.parametrize("name", ["spin", "sleep", "backtrack", "deaf", "daemon", "stopped", "disguised"])
async def test_at_its_deadline_nothing_of_a_call_is_left(dispatcher: Dispatcher, tmp_path: Path, name: str) -> None:
    result = await run(dispatcher, getattr(unruly, name), tmp_path)
    assert result.reason_code is ReasonCode.TOOL_TIMEOUT and "its process is dead" in result.error
    found = processes(tmp_path)
    assert found and not any(map(alive, found))


async def test_what_a_call_left_behind_ends_with_it(dispatcher: Dispatcher, tmp_path: Path) -> None:
    result = await run(dispatcher, unruly.left_behind, tmp_path)
    assert result.ok and not any(map(alive, processes(tmp_path)))


async def test_a_fork_bomb_is_ended_at_its_limit(dispatcher: Dispatcher, tmp_path: Path) -> None:
    result = await run(dispatcher, unruly.bomb, tmp_path)
    assert result.reason_code is ReasonCode.TOOL_FAILED and "more than 20 processes" in result.error
    found = processes(tmp_path)
    assert len(found) > 1 and not any(map(alive, found))  # some are killed before they can leave word


async def test_memory_is_bounded(dispatcher: Dispatcher, tmp_path: Path) -> None:
    assert "MemoryError" in (await run(dispatcher, unruly.hoard, tmp_path)).error


@pytest.mark.parametrize(("how", "text"), [("signal", "signal 11"), ("exit", "exited with 7")])
async def test_a_process_that_ends_without_an_answer_leaves_doubt(
    dispatcher: Dispatcher, tmp_path: Path, how: str, text: str
) -> None:
    result = await run(dispatcher, unruly.crash, tmp_path, how=how)
    assert result.reason_code is ReasonCode.TOOL_IN_DOUBT and text in result.error


@pytest.mark.parametrize(
    ("wrote", "then"),
    [
        (b"ok\n1", "signal"),
        (b"no_namespaces\nx", "exit"),
        (b"\xff\xfe\nx", "exit"),
        (b"died\nx", "exit"),
        (b"o", "exit"),
    ],
)
async def test_a_tool_that_answers_in_the_launchers_stead_leaves_doubt_and_its_neighbours_alone(
    dispatcher: Dispatcher, tmp_path: Path, wrote: bytes, then: str
) -> None:
    beside = asyncio.ensure_future(run(dispatcher, unruly.sleep, tmp_path))
    await asyncio.to_thread(until, lambda: processes(tmp_path), "its neighbour to begin")
    forged = await run(dispatcher, unruly.forge, tmp_path, hexadecimal=wrote.hex(), then=then)
    assert forged.reason_code is ReasonCode.TOOL_IN_DOUBT and "its process is gone" in forged.error
    assert (await beside).reason_code is ReasonCode.TOOL_TIMEOUT
    assert (await run(dispatcher, unruly.context_of, tmp_path)).ok and len(launchers()) == 1


@pytest.mark.parametrize(
    ("name", "text"), [("flood", "over the bound"), ("close_everything", "exited with 0"), ("twice", "JSON")]
)
async def test_an_answer_that_is_none_leaves_doubt(
    dispatcher: Dispatcher, tmp_path: Path, name: str, text: str
) -> None:
    result = await run(dispatcher, getattr(unruly, name), tmp_path)
    assert result.reason_code is ReasonCode.TOOL_IN_DOUBT and text in result.error
    assert (await run(dispatcher, unruly.context_of, tmp_path)).ok and len(launchers()) == 1


async def test_a_launcher_that_does_not_say_that_a_call_is_dead_is_killed_with_all_its_calls(
    dispatcher: Dispatcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airside.tools.runners.processes.DEATH_S", 0.2)
    call = asyncio.ensure_future(run(dispatcher, unruly.daemon, tmp_path))
    await asyncio.to_thread(until, lambda: len(processes(tmp_path)) == 2, "the tool to begin")
    _, inner = launcher()
    os.kill(inner, signal.SIGSTOP)
    result = await call
    assert result.reason_code is ReasonCode.TOOL_TIMEOUT and not any(map(alive, [inner, *processes(tmp_path)]))
    assert (await run(dispatcher, unruly.context_of, tmp_path)).ok


@pytest.mark.parametrize(("attempt", "reason"), [(1, ReasonCode.TOOL_FAILED), (2, ReasonCode.TOOL_IN_DOUBT)])
async def test_a_call_that_gets_no_process_certainly_did_not_happen_and_an_earlier_one_may_have(
    dispatcher: Dispatcher, tmp_path: Path, attempt: int, reason: ReasonCode
) -> None:
    assert (await run(dispatcher, unruly.context_of, tmp_path)).ok
    outer, inner = launcher()
    resource.prlimit(inner, resource.RLIMIT_NOFILE, (3, 4096))
    write = tool(effect="write", idempotent=True, process=True, name="crash")(unruly.crash.function)
    dispatcher._tools["crash"] = write
    arguments = msgspec.json.encode({"place": str(tmp_path)})
    refused = (await dispatcher.execute(granted(write.spec, arguments, attempt=attempt))).result
    assert refused.reason_code is reason and "no process could be started" in refused.error
    resource.prlimit(inner, resource.RLIMIT_NOFILE, (4096, 4096))
    assert (await run(dispatcher, unruly.context_of, tmp_path)).ok and launchers() == [outer]


@pytest.mark.parametrize(("attempt", "reason"), [(1, ReasonCode.TOOL_FAILED), (2, ReasonCode.TOOL_IN_DOUBT)])
async def test_a_call_for_which_no_launcher_can_be_started_certainly_did_not_happen_either(
    dispatcher: Dispatcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempt: int, reason: ReasonCode
) -> None:
    """And the next one finds a launcher, once the machine has a process for it."""

    def no_process(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    write = tool(effect="write", idempotent=True, process=True, name="crash")(unruly.crash.function)
    dispatcher._tools["crash"] = write
    arguments = msgspec.json.encode({"place": str(tmp_path)})
    with monkeypatch.context() as broken:
        broken.setattr(subprocess, "Popen", no_process)
        refused = (await dispatcher.execute(granted(write.spec, arguments, attempt=attempt))).result
    assert refused.reason_code is reason and "could not be started: BlockingIOError" in refused.error
    assert (await run(dispatcher, unruly.context_of, tmp_path)).ok


async def test_an_undo_has_a_process_of_its_own_too(dispatcher: Dispatcher, tmp_path: Path) -> None:
    async def undo(timeout_ms: int, **more: object) -> ToolResult:
        arguments = msgspec.json.encode({"place": str(tmp_path)} | more)
        fields = {"undo": True, "output_sha256": digest(b"7"), "timeout_ms": timeout_ms, "nonce": os.urandom(12)}
        request = granted(unruly.undoable.spec, arguments, key=f"{os.urandom(4).hex()}/undo", **fields)
        return (await dispatcher.execute(msgspec.structs.replace(request, output=b"7"))).result

    assert (await undo(20_000, stuck=False)).ok and (tmp_path / f"undone-7-{processes(tmp_path)[0]}").exists()
    assert processes(tmp_path) != [os.getpid()]
    late = await undo(1_500, stuck=True)
    assert late.reason_code is ReasonCode.TOOL_TIMEOUT and "its process is dead" in late.error
    assert len(processes(tmp_path)) == 2 and not any(map(alive, processes(tmp_path)))


BACKWARDS = """
import selectors
class Backwards(selectors.DefaultSelector):
    def select(self, timeout=None):
        return super().select(timeout)[::-1]
selectors.DefaultSelector = Backwards
"""


async def test_it_does_not_matter_in_which_order_the_launcher_hears_of_an_answer_and_of_a_death(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(BACKWARDS)
    monkeypatch.syspath_prepend(str(tmp_path))
    dispatcher = Dispatcher(unruly.TOOLS, seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: NOW)
    assert (await run(dispatcher, unruly.context_of, tmp_path)).ok
    outer, inner = launcher()
    os.kill(inner, signal.SIGSTOP)  # so that all it is to hear is there when it looks
    calls = [asyncio.ensure_future(run(dispatcher, unruly.context_of, tmp_path)) for _ in range(5)]
    os.kill(inner, signal.SIGCONT)
    assert all(result.ok for result in await asyncio.gather(*calls)) and launchers() == [outer]
    dispatcher.close()


async def test_the_calls_of_a_run_that_is_over_are_dead_when_it_is_released(
    dispatcher: Dispatcher, tmp_path: Path
) -> None:
    deaf = tool(effect="write", process=True, timeout=60)(unruly.deaf.function)
    dispatcher = Dispatcher([deaf], seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: NOW)
    call = asyncio.ensure_future(run(dispatcher, deaf, tmp_path))
    await asyncio.to_thread(until, lambda: processes(tmp_path), "the tool to begin")
    await dispatcher.release(RunId(RUN))
    assert not any(map(alive, processes(tmp_path))) and call.done()
    assert call.result().reason_code is ReasonCode.TOOL_TIMEOUT
    dispatcher.close()


async def test_calls_run_beside_each_other(dispatcher: Dispatcher, tmp_path: Path) -> None:
    slow = asyncio.ensure_future(run(dispatcher, unruly.sleep, tmp_path))
    assert (await run(dispatcher, unruly.context_of, tmp_path)).ok and not slow.done()
    await slow


async def test_a_launcher_that_dies_takes_its_calls_along_and_another_one_serves(
    dispatcher: Dispatcher, tmp_path: Path
) -> None:
    deaf = tool(effect="write", process=True, timeout=60)(unruly.deaf.function)
    dispatcher = Dispatcher([deaf, unruly.context_of], seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: NOW)
    call = asyncio.ensure_future(run(dispatcher, deaf, tmp_path))
    await asyncio.to_thread(until, lambda: processes(tmp_path), "the tool to begin")
    for pid in launchers():
        os.kill(pid, signal.SIGKILL)
    result = await call
    assert result.reason_code is ReasonCode.TOOL_IN_DOUBT and "launcher" in result.error
    await asyncio.to_thread(until, lambda: not any(map(alive, processes(tmp_path))), "its process to end")
    assert (await run(dispatcher, unruly.context_of, tmp_path)).ok
    dispatcher.close()


EXECUTES = """
import asyncio, sys
from pathlib import Path
from airside.tools.dispatch import Dispatcher
from tests.apps import unruly
from tests.unit.tools import test_processes as t

async def main():
    long = [t.tool(effect="read", process=True, timeout=60)(f.function) for f in (unruly.daemon, unruly.deaf)]
    d = Dispatcher(long, seal_key=t.KEY, executor_id=t.EXECUTOR, now_us=lambda: t.NOW)
    await asyncio.gather(*(t.run(d, found, Path(sys.argv[1])) for found in long))

asyncio.run(main())
"""


def test_no_process_outlives_an_executor_that_is_killed(tmp_path: Path) -> None:
    executor = subprocess.Popen([sys.executable, "-c", EXECUTES, str(tmp_path)], cwd=Path(__file__).parents[3])
    until(lambda: len(processes(tmp_path)) >= 3, "the tools to begin")
    assert all(map(alive, processes(tmp_path)))
    executor.kill()
    executor.wait()
    began = time.monotonic()
    until(lambda: not any(map(alive, processes(tmp_path))), "their processes to end")
    assert time.monotonic() - began < 2


async def test_where_no_namespace_can_be_made_the_tool_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "sitecustomize.py"
    blocked.write_text(
        "import ctypes, errno\n"
        "class Refusing(ctypes.CDLL):\n"
        "    def __getattr__(self, name):\n"
        "        if name == 'unshare':\n"
        "            def unshare(flags):\n"
        "                ctypes.set_errno(errno.EPERM)\n"
        "                return -1\n"
        "            return unshare\n"
        "        return super().__getattr__(name)\n"
        "ctypes.CDLL = Refusing\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    place = tmp_path / "place"
    place.mkdir()
    dispatcher = Dispatcher(unruly.TOOLS, seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: NOW)
    result = await run(dispatcher, unruly.crash, place)
    assert result.reason_code is ReasonCode.TOOL_FAILED and "no PID namespace" in result.error
    dispatcher.close()


def test_a_tool_with_a_process_of_its_own_cannot_share_a_state() -> None:
    with pytest.raises(InvalidConfig, match="cannot share a state"):
        flatten([Toolset("set", (unruly.spin,), open=lambda context: None)])
