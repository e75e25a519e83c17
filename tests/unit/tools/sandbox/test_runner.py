"""A call of a tool with a sandbox runs in one of its own, used once, or does not begin."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airside.stack.canonical import digest
from airside.stack.errors import InvalidConfig
from airside.stack.reasons import ReasonCode
from airside.stack.values import ToolResult
from airside.tools.dispatch import Dispatcher
from airside.tools.runners import sandbox as lane
from airside.tools.runners.sandbox import SandboxRunner
from airside.tools.sandbox import watching
from airside.tools.sandbox.command import package_folders, python_there
from airside.tools.sandbox.limits import SandboxLimits
from airside.tools.sandbox.own_code import AIRSIDE_FOLDER
from airside.tools.sandbox.probe import Reached
from airside.tools.sandbox.process import SandboxProcess
from airside.tools.tool import ProcessLimits, Tool, Toolset, flatten, tool
from tests.apps import sandboxed
from tests.helpers import EXECUTOR, KEY, RUN, SECOND, granted
from tests.unit.tools.sandbox.test_command import alive, descendants, wait_gone

NOW = 10 * SECOND


@pytest.fixture
async def dispatcher(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Dispatcher]:
    """A dispatcher of the sandboxed tools, on a machine that was probed."""

    async def probe() -> Reached:
        return Reached("full")

    monkeypatch.setattr(lane, "reached_level", probe)
    made = Dispatcher(sandboxed.TOOLS, seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: NOW)
    yield made
    made.close()
    await asyncio.sleep(0)


async def run(dispatcher: Dispatcher, found: Tool, **arguments: Any) -> ToolResult:
    """Have a tool executed, under a key of its own."""
    fields: dict[str, Any] = {"key": os.urandom(4).hex()} | arguments.pop("grant", {})
    request = granted(
        found.spec,
        msgspec.json.encode(arguments),
        timeout_ms=found.spec.timeout_ms,
        nonce=os.urandom(12),
        **fields,
    )
    return (await dispatcher.execute(request)).result


async def test_it_answers_with_what_the_function_returned(dispatcher: Dispatcher) -> None:
    """Which uses what its module has, though the sandbox has no such file; the level is told with the result."""
    result = await run(dispatcher, sandboxed.greet, name="Ada")
    assert (result.ok, result.sandbox, result.value()) == (True, "full", "hello, Ada")
    assert (await run(dispatcher, sandboxed.greet_later, name="Ada")).value() == "hello, Ada"


async def test_it_sees_its_context_and_nothing_of_the_executor(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "hidden")
    found = (await run(dispatcher, sandboxed.look, grant={"key": "run_1:7"})).value()
    assert (found["tenant"], found["key"], found["files"]) == ("acme", "run_1:7", [])
    assert found["environment"] == ["HOME", "LANG", "PATH", "PWD", "TMPDIR"]
    assert found["uid"] not in (0, os.getuid()) or os.geteuid() != 0
    assert sorted(set(found["descriptors"])) == ["/dev/null", "socket"]


async def test_no_sandbox_has_two_calls(dispatcher: Dispatcher) -> None:
    """What one left behind the next one does not find, and it is dead."""
    for text in ("first", "second"):
        assert (await run(dispatcher, sandboxed.leave, text=text)).ok
    assert (await run(dispatcher, sandboxed.look)).value()["files"] == []
    assert not [pid for pid in descendants(os.getpid()) if b"sleep\x001000" in _command_line(pid)]


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


async def test_what_it_prints_is_printed_here(dispatcher: Dispatcher, capsys: pytest.CaptureFixture[str]) -> None:
    await run(dispatcher, sandboxed.leave, text="a line")
    assert capsys.readouterr().out == "[leave] printed a line\n"


class Vault:
    """Has one secret."""

    def secret(self, tenant: str, name: str) -> str:
        """Return it."""
        return "sk_live_51H8xyzABCDEFGHIJKL"


async def test_nothing_that_leaves_it_shows_a_secret_and_it_may_say_when_to_come_back(
    dispatcher: Dispatcher, capsys: pytest.CaptureFixture[str]
) -> None:
    given = Dispatcher(sandboxed.TOOLS, seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: NOW, secrets=Vault())
    try:
        left = {"left_ms": 60_000}
        results = {how: await run(given, sandboxed.confess, how=how, grant=left) for how in ("return", "raise", "busy")}
    finally:
        given.close()
        await asyncio.sleep(0)
    assert results["return"].value() == ["[redacted]"] and capsys.readouterr().out == "[confess] printed [redacted]\n"
    assert "[redacted]" in results["raise"].error and "sk_live" not in results["raise"].error
    assert (results["busy"].error, results["busy"].retry_after_ms) == ("busy with [redacted]", 1500)


@pytest.mark.parametrize(
    ("how", "reason", "text"),
    [
        ("tool_error", ReasonCode.TOOL_FAILED, "nothing was changed"),
        ("in_doubt", ReasonCode.TOOL_IN_DOUBT, "who knows"),
        ("raise", ReasonCode.TOOL_IN_DOUBT, "ValueError: it broke"),
        ("unfit", ReasonCode.TOOL_OUTPUT_INVALID, "not JSON serializable"),
        ("die", ReasonCode.TOOL_IN_DOUBT, "its sandbox is gone"),
    ],
)
async def test_what_went_wrong_is_told_as_of_any_tool(
    dispatcher: Dispatcher, how: str, reason: ReasonCode, text: str
) -> None:
    result = await run(dispatcher, sandboxed.fail, how=how)
    assert result.reason_code is reason and text in result.error and result.sandbox == "full"


async def test_at_its_deadline_nothing_of_it_is_left(dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    end = SandboxProcess.end

    async def ending(self: SandboxProcess) -> None:
        ended.extend(descendants(self.pid))
        await end(self)

    monkeypatch.setattr(SandboxProcess, "end", ending)
    result = await run(dispatcher, sandboxed.spin, grant={"left_ms": 60_000})  # it may wait for its sandbox
    assert result.reason_code is ReasonCode.TOOL_TIMEOUT and "its sandbox is dead" in result.error
    assert len(ended) > 3 and not any(map(alive, ended))


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("memory", "bytes of memory"),
        ("files", "more than 2,000 files"),
        ("output", "output is over the bound"),
        ("processes", "BlockingIOError"),
    ],
)
async def test_what_takes_too_much_is_ended(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch, what: str, text: str
) -> None:
    monkeypatch.setattr(watching, "MAX_INODES", 2000)
    result = await run(dispatcher, sandboxed.use, what=what)
    assert result.reason_code is ReasonCode.TOOL_FAILED and text in result.error


async def test_of_what_it_prints_no_more_is_kept_than_a_bound(
    dispatcher: Dispatcher, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (await run(dispatcher, sandboxed.use, what="log")).value() == "printed"
    assert len(capsys.readouterr().out) == len("[use] ") + 64 * 1024 + len("\n")


async def test_it_is_asked_there_what_became_of_a_key(dispatcher: Dispatcher) -> None:
    result = await run(dispatcher, sandboxed.keyed, grant={"attempt": 2})
    assert result.value() == "known"


async def test_it_is_taken_back_there(dispatcher: Dispatcher) -> None:
    arguments = msgspec.json.encode({"what": "it"})
    output = b'"changed it"'
    request = granted(
        sandboxed.change.spec,
        arguments,
        nonce=os.urandom(12),
        key="k/undo",
        undo=True,
        output_sha256=digest(output),
    )
    reply = await dispatcher.execute(msgspec.structs.replace(request, output=output))
    assert reply.result.ok and reply.result.value() == "took back changed it of it"


@pytest.mark.parametrize("level", ["none", "namespaces"])
async def test_a_call_that_needs_more_than_there_is_does_not_begin(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch, level: Any
) -> None:
    async def probe() -> Reached:
        return Reached(level, "Landlock is off")

    async def start(*_: object) -> SandboxProcess:
        raise AssertionError("it was begun")

    monkeypatch.setattr(lane, "reached_level", probe)
    monkeypatch.setattr(SandboxProcess, "start", start)
    result = await run(dispatcher, sandboxed.fail, how="raise")
    assert result.reason_code is ReasonCode.SANDBOX_UNAVAILABLE and "Landlock is off" in result.error
    assert result.sandbox == level
    again = await run(dispatcher, sandboxed.fail, how="raise", grant={"attempt": 2})
    assert again.reason_code is ReasonCode.TOOL_UNAVAILABLE  # an earlier attempt may have begun elsewhere


async def test_a_function_that_cannot_be_sent_is_said_to_be_none() -> None:
    lock = asyncio.Lock
    import threading

    held = threading.Lock()

    @tool(effect="read", sandbox=True)
    def holding() -> bool:
        """Use what no sandbox can have."""
        return held.locked() and bool(lock)

    made = Dispatcher([holding], seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: NOW)
    result = await run(made, holding)
    made.close()
    assert result.reason_code is ReasonCode.SANDBOX_UNAVAILABLE and "cannot pickle" in result.error


async def test_a_call_takes_a_sandbox_that_waits(dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is started for the next call when one is taken; what waits longest makes room."""
    await run(dispatcher, sandboxed.greet, name="Ada")
    runner = dispatcher._runners._sandboxes
    await runner._spare["greet", None]
    monkeypatch.setattr(lane, "MAX_SPARE", 1)

    async def start(*_: object) -> SandboxProcess:
        raise OSError("no more")

    monkeypatch.setattr(SandboxProcess, "start", start)
    assert (await run(dispatcher, sandboxed.greet, name="Eva")).value() == "hello, Eva"
    assert (await run(dispatcher, sandboxed.look)).reason_code is ReasonCode.SANDBOX_UNAVAILABLE


@pytest.mark.parametrize("takes_long", [False, True])
async def test_the_next_sandbox_is_started_beside_a_call_only_if_that_takes_long(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch, takes_long: bool
) -> None:
    """A short one is over first; then it is."""
    runner, starting, waited = dispatcher._runners._sandboxes, asyncio.Event(), []
    ask, prepare = lane._asked, SandboxRunner._prepare

    def preparing(self: SandboxRunner, key: tuple[str, None]) -> None:
        prepare(self, key)
        starting.set()

    async def asking(process: SandboxProcess, message: bytes, most: int) -> bytes | None:
        if takes_long:
            await starting.wait()
        waited.append(list(runner._spare))
        return await ask(process, message, most)

    monkeypatch.setattr(lane, "PREPARE_AFTER_S", 0.0 if takes_long else 60.0)
    monkeypatch.setattr(lane, "_asked", asking)
    monkeypatch.setattr(SandboxRunner, "_prepare", preparing)
    assert (await run(dispatcher, sandboxed.greet, name="Ada")).ok
    assert waited == [[("greet", None)] if takes_long else []]
    assert isinstance(await runner._spare["greet", None], lane._Ready)


async def test_no_sandbox_is_started_for_a_next_call_where_none_comes(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that ends as the executor does leaves none."""
    ask = lane._asked

    async def asking(process: SandboxProcess, message: bytes, most: int) -> bytes | None:
        answer = await ask(process, message, most)
        dispatcher.close()
        return answer

    monkeypatch.setattr(lane, "_asked", asking)
    await run(dispatcher, sandboxed.greet, name="Ada")
    assert not dispatcher._runners._sandboxes._spare


@pytest.mark.parametrize(
    ("found", "name"), [(sandboxed.look, "airside.tools.tool"), (sandboxed.greet_later, "asyncio")]
)
def test_what_calling_it_takes_is_loaded_before_the_call(found: Tool, name: str) -> None:
    """Its context's type, the loop of a coroutine: with the functions, while the sandbox waits."""
    assert name in _loaded_with(found) and name not in _loaded_with(sandboxed.greet)


def _loaded_with(found: Tool) -> list[str]:
    """Return the modules that are there when a tool's functions were loaded."""
    script = "import json, pickle, sys; sys.path += json.loads(sys.argv[1]); pickle.load(sys.stdin.buffer)"
    folders = json.dumps([*package_folders(), str(AIRSIDE_FOLDER.parent)])
    argv = [python_there(), "-I", "-S", "-c", f"{script}; print(*sys.modules)", folders]
    made = subprocess.run(argv, input=lane._pickled_functions(found), stdout=subprocess.PIPE, check=True)
    return made.stdout.decode().split()


async def test_of_a_sandbox_that_had_its_call_nothing_is_kept(dispatcher: Dispatcher) -> None:
    """What it printed, say, until it would have waited long enough."""
    runner = dispatcher._runners._sandboxes
    runner._prepare(("greet", None))
    found = await runner._spare["greet", None]
    assert isinstance(found, lane._Ready)
    had = weakref.ref(found.process)
    del found
    assert (await run(dispatcher, sandboxed.greet, name="Ada")).ok
    gc.collect()
    assert had() is None


async def test_what_waits_for_long_is_ended(dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten = asyncio.Event()
    forget = SandboxRunner._forget

    def forgetting(self: SandboxRunner, key: tuple[str, None], of: Any) -> None:
        forget(self, key, of)
        forgotten.set()

    monkeypatch.setattr(SandboxRunner, "_forget", forgetting)
    monkeypatch.setattr(lane, "SPARE_S", 0.0)
    runner = dispatcher._runners._sandboxes
    runner._prepare(("greet", None))
    spare = runner._spare["greet", None]
    await forgotten.wait()
    found = await spare
    await asyncio.gather(*runner._ending)
    assert isinstance(found, lane._Ready) and found.process.is_over and not runner._spare


async def test_what_waited_too_long_or_died_is_not_used(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run(dispatcher, sandboxed.greet, name="Ada")
    runner = dispatcher._runners._sandboxes
    found = await runner._spare["greet", None]
    assert isinstance(found, lane._Ready)
    os.kill(found.process.pid, 9)
    assert wait_gone([found.process.pid])
    assert (await run(dispatcher, sandboxed.greet, name="Eva")).value() == "hello, Eva"
    monkeypatch.setattr(lane, "SPARE_S", -1.0)
    found = await runner._spare["greet", None]
    assert isinstance(found, lane._Ready)
    assert (await run(dispatcher, sandboxed.greet, name="Ida")).value() == "hello, Ida"
    assert found.process.is_over


async def test_closing_ends_all_of_them() -> None:
    made = Dispatcher(sandboxed.TOOLS, seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: NOW)
    await run(made, sandboxed.greet, name="Ada")
    runner = made._runners._sandboxes
    found = await runner._spare["greet", None]
    assert isinstance(found, lane._Ready)
    pids = list(descendants(found.process.pid))
    assert len(pids) > 3
    made.close()
    assert wait_gone(pids)


async def test_a_run_that_is_over_has_no_sandbox_left(dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asyncio.Event()
    ask = lane._asked

    async def asking(process: SandboxProcess, message: bytes, most: int) -> bytes | None:
        asked.set()
        return await ask(process, message, most)

    monkeypatch.setattr(lane, "_asked", asking)
    call = asyncio.ensure_future(run(dispatcher, sandboxed.spin, grant={"left_ms": 60_000}))
    await asked.wait()
    await dispatcher.release(RUN)
    assert (await call).reason_code is ReasonCode.TOOL_TIMEOUT


def test_the_lane_is_in_what_policy_sees_and_versions_stay() -> None:
    """Of tools without a sandbox nothing that was recorded changes."""

    def act(name: str) -> str:
        """Act."""
        return name

    plain, apart, boxed = (tool(effect="read", **more)(act).spec for more in ({}, {"process": True}, {"sandbox": True}))
    assert (plain.lane, apart.lane, boxed.lane) == ("shared", "process", "sandbox")
    assert plain.version == apart.version != boxed.version
    assert plain.version == "e4d504103ec06c35"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sandbox": "yes"}, "sandbox 'yes' is neither"),
        ({"sandbox": True, "process": ProcessLimits()}, "give it sandbox, without process"),
    ],
)
def test_declarations_that_say_nothing_clear_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidConfig, match=text):
        tool(effect="read", name="act", **options)(lambda: None)


def test_a_toolsets_tools_share_a_state_that_no_sandbox_has() -> None:
    with pytest.raises(InvalidConfig, match="cannot share a state"):
        flatten([Toolset("set", (sandboxed.greet,), open=lambda context: None)])


def test_the_lanes_are_told_by_the_declaration() -> None:
    made = Dispatcher(sandboxed.TOOLS, seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: NOW)
    assert isinstance(made._runner_of["greet"], SandboxRunner)
    assert sandboxed.greet.sandbox == SandboxLimits()


async def test_the_level_that_is_recorded_is_the_tools_own() -> None:
    """On a machine that reaches more."""

    @tool(effect="read", sandbox=SandboxLimits(level="namespaces"))
    def act() -> str:
        """Act."""
        return "done"

    made = Dispatcher([act], seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: NOW)
    result = await run(made, act)
    made.close()
    assert (result.ok, result.sandbox) == (True, "namespaces")
