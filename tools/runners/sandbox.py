"""`SandboxRunner`: a sandbox for each call, used once.  A call that is cancelled has none left when that is told.

What makes a sandbox takes a tenth of a second, so that the next one of a tool is started when a call of it is over, or
takes long, with the tool's function loaded: it waits for a call a while, and then ends.  It is not started beside a
short call, which would take twice as long for it.  No sandbox is given a second call.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import sys
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import orjson

from airside.stack.errors import AirsideError, text_of
from airside.stack.ids import TenantId
from airside.stack.run.story import printable
from airside.stack.values import SandboxLevel
from airside.tools.runners.fair_slots import FairSlots
from airside.tools.runners.jobs import ToolCall
from airside.tools.runners.outcomes import InvalidArguments, InvalidOutput, NoSandbox, ToolRaised
from airside.tools.sandbox.command import SandboxUnavailable, package_folders, python_there, sandboxed_command
from airside.tools.sandbox.limits import SandboxLimits
from airside.tools.sandbox.own_code import AIRSIDE_FOLDER, CODE_FOLDERS
from airside.tools.sandbox.probe import Reached, reached_level
from airside.tools.sandbox.process import SandboxProcess, kill_orphans
from airside.tools.sandbox.tenant_folder import folder_bytes, give_folder
from airside.tools.secrets.redaction import Redactor
from airside.tools.tool import NOT_DONE, InDoubt, Tool, ToolContext, ToolError

START_S = 30.0
"""Longest wait for a sandbox to have its tool loaded; that takes a tenth of a second and what the tool imports."""

MAX_SPARE = 4
"""Sandboxes of an executor that wait for a call: each takes some tens of megabytes."""

SPARE_S = 300.0
"""How long one waits: a tool that is not called for minutes does without."""

PREPARE_AFTER_S = 0.05
"""How long a call takes until the next sandbox is started beside it: others of its tool may come meanwhile."""

_WORKER = Path(__file__).parents[1] / "sandbox" / "worker.py"
_OF_A_MESSAGE = 65_536
"""Bytes a message may have beside the output: its word, or a sentence."""

_PICKLING = threading.Lock()
"""Which modules go along is said for the whole process: two threads would take it back from each other."""


_ELSEWHERE: dict[str, ModuleType] = {}
"""Modules that were found not to be an app's: there are a thousand, and each call asks."""


class SandboxDied(RuntimeError):
    """The tool's sandbox ended without an answer: killed, crashed, or over one of its limits."""


@dataclass(frozen=True, slots=True)
class _Ready:
    """A sandbox that waits for a call, since when."""

    process: SandboxProcess
    since_s: float


_Key = tuple[str, TenantId | None]
_Spare = asyncio.Task[_Ready | AirsideError]


class SandboxRunner:
    """Runs each call in a sandbox of its own, of the level that its tool needs, or not at all."""

    on_timeout = "; its sandbox is dead"

    def __init__(self, tools: Mapping[str, Tool], slots: FairSlots) -> None:
        self._tools = {name: tool for name, tool in tools.items() if tool.sandbox is not None}
        self._slots = slots
        self._probing: asyncio.Task[Reached] | None = None
        self._spare: OrderedDict[_Key, _Spare] = OrderedDict()
        self._at_work: set[SandboxProcess] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._is_closed = False

    @property
    def level(self) -> SandboxLevel | None:
        """The level this machine reaches; None as long as nobody asked."""
        probing = self._probing
        return probing.result().level if probing is not None and probing.done() else None

    async def ready(self) -> None:
        """Know what this machine reaches."""
        if self._probing is None:
            kill_orphans()
            self._probing = asyncio.ensure_future(reached_level())
        await asyncio.shield(self._probing)

    async def run(self, job: ToolCall) -> Any:
        """Return what a call comes to; if the caller is cancelled, the sandbox is seen dead before that goes on.

        Raises what the tool raised (`ToolError`, `InDoubt`, else `ToolRaised` with its text), `InvalidArguments`,
        `InvalidOutput`, `NoSandbox` and `SandboxDied`.
        """
        try:
            async with self._slots.place(job.tenant, job.waiting):
                return job.finish(await self._outcome(job))
        finally:
            job.over()

    async def _outcome(self, job: ToolCall) -> Any:
        limits = self._tools[job.tool.name].sandbox
        assert limits is not None
        await self.ready()
        assert self._probing is not None
        if problem := self._probing.result().problem_with(limits):
            raise NoSandbox(f"{job.name}: {problem}")
        message = await asyncio.to_thread(_message_of, job)
        key = (job.tool.name, job.tenant if limits.workspace else None)
        with job.waiting():
            process = await self._take(key)
        self._at_work.add(process)
        preparing: asyncio.TimerHandle | None = None
        try:
            if problem := await _fullness(job, limits):
                raise NoSandbox(f"{job.name}: {problem}: delete some of it")
            job.begin()
            preparing = asyncio.get_running_loop().call_later(PREPARE_AFTER_S, self._prepare, key)
            output = await self._answer(process, message, job)
            if problem := await _fullness(job, limits):
                raise SandboxDied(problem)
            return output
        finally:
            try:
                await process.end()
            finally:
                if preparing is not None:
                    preparing.cancel()
                    self._prepare(key)
                self._at_work.discard(process)
                if process.log:
                    text = job.redactor().end(job.redactor().text(process.log.decode(errors="replace")))
                    sys.stdout.writelines(f"[{job.name}] {printable(line)}\n" for line in text.splitlines())

    async def _answer(self, process: SandboxProcess, message: bytes, job: ToolCall) -> Any:
        """Have a call made, and return its output; raise what came of it otherwise."""
        limits = self._tools[job.tool.name].sandbox
        assert limits is not None
        most = job.tool.spec.max_output_bytes + _OF_A_MESSAGE
        folder = _written(job, limits)
        watching = asyncio.ensure_future(process.watch(limits, folder))
        asking = asyncio.ensure_future(_asked(process, message, most))
        try:
            await asyncio.wait({watching, asking}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise SandboxDied(f"its sandbox was ended: {await watching}")
            try:
                said = asking.result()
            except (OSError, asyncio.IncompleteReadError):
                raise SandboxDied("its sandbox is gone: killed, or over one of its limits") from None
        finally:
            for task in (watching, asking):
                task.cancel()
            await asyncio.wait({watching, asking})
            if not asking.cancelled():
                asking.exception()
        if said is None:
            raise SandboxDied(f"its sandbox was ended: its output is over the bound of {most - _OF_A_MESSAGE:,} bytes")
        return _output(said, job.redactor())

    async def _take(self, key: _Key) -> SandboxProcess:
        """Return a sandbox that has loaded its tool and had no call."""
        spare = self._spare.pop(key, None)
        if spare is not None and not await self._is_fit(spare):
            spare = None
        if spare is None:
            spare = asyncio.ensure_future(self._start(key))
        try:
            found = await asyncio.shield(spare)
        except asyncio.CancelledError:
            self._discard(spare)
            raise
        if isinstance(found, AirsideError):
            raise NoSandbox(f"{key[0]}: {text_of(found)}")
        return found.process

    async def _is_fit(self, spare: _Spare) -> bool:
        """Whether a sandbox can still be given a call; one that cannot is ended."""
        if not spare.done():
            return True
        found = spare.result()
        if isinstance(found, AirsideError):
            return False
        if found.process.is_over or time.monotonic() - found.since_s > SPARE_S:
            await found.process.end()
            return False
        return True

    def _prepare(self, key: _Key) -> None:
        """Start a sandbox for the next call of a tool; the one that waits longest makes room."""
        if key in self._spare or self._is_closed:
            return
        while len(self._spare) >= MAX_SPARE:
            self._discard(self._spare.popitem(last=False)[1])
        spare = self._spare[key] = asyncio.ensure_future(self._start(key))
        # What was taken meanwhile, and printed perhaps, is not kept for that.
        asyncio.get_running_loop().call_later(SPARE_S, self._forget, key, weakref.ref(spare))

    def _forget(self, key: _Key, of: weakref.ref[_Spare]) -> None:
        spare = of()
        if spare is not None and self._spare.get(key) is spare:
            del self._spare[key]
            self._discard(spare)

    def _discard(self, spare: _Spare) -> None:
        """End a sandbox that nobody will use, as soon as it stands."""

        async def end() -> None:
            found = await spare
            if not isinstance(found, AirsideError):
                await found.process.end()

        ending = asyncio.ensure_future(end())
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _start(self, key: _Key) -> _Ready | AirsideError:
        """Start a sandbox and have it load its tool; return why not, if it cannot."""
        name, tenant = key
        try:
            found = self._tools[name]
            functions = await asyncio.to_thread(_pickled_functions, found)
            command = await asyncio.to_thread(_command_of, found, tenant)
            process = await SandboxProcess.start(command)
        except AirsideError as error:
            return error
        except Exception as error:  # what is no memory, process or file left, or a function that cannot be sent
            return SandboxUnavailable(f"its sandbox could not be started: {text_of(error)}")
        self._at_work.add(process)
        said: bytes | None = None
        try:
            async with asyncio.timeout(START_S):
                await process.send(functions)
                said = await process.receive(_OF_A_MESSAGE)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass
        finally:
            self._at_work.discard(process)
            if said != b"ready\n":
                await process.end()
        if said == b"ready\n":
            return _Ready(process, time.monotonic())
        text = (said or b"").partition(b"\n")[2] or bytes(process.log) or b"it ended before it was ready"
        return SandboxUnavailable(f"its sandbox could not load it: {text.decode(errors='replace').strip()[:1000]}")

    def close(self) -> None:
        """End every sandbox."""
        self._is_closed = True
        for process in self._at_work:
            process.kill()
        for spare in self._spare.values():
            if spare.done() and isinstance(found := spare.result(), _Ready):
                found.process.kill()
            spare.cancel()
        self._spare.clear()


def _written(job: ToolCall, limits: SandboxLimits) -> str | None:
    """Return the folder of the machine's in which a call may write."""
    return str(Path(limits.workspace, job.tenant)) if limits.workspace and limits.access == "write" else None


async def _fullness(job: ToolCall, limits: SandboxLimits) -> str:
    """Return that what a call may write in is too full, "" if it is not."""
    folder = _written(job, limits)
    if folder is None or await asyncio.to_thread(folder_bytes, folder) <= limits.workspace_bytes:
        return ""
    return f"its workspace holds more than the {limits.workspace_bytes:,} bytes it may, or is too deep to tell"


async def _asked(process: SandboxProcess, message: bytes, most: int) -> bytes | None:
    with contextlib.suppress(OSError):  # it may have answered before it took the whole question
        await process.send(message)
    return await process.receive(most)


def _output(said: bytes, redactor: Redactor) -> Any:
    """Return what a sandbox answered; its word is a tool's own, and is believed as far as a tool is."""
    word, _, data = said.partition(b"\n")
    if word == b"ok":
        try:
            return orjson.loads(data)
        except ValueError as error:
            raise InvalidOutput(f"the sandbox's answer is no JSON: {text_of(error)}") from None
    seconds = b""
    if word == b"not_now":
        seconds, _, data = data.partition(b" ")
    text = redactor.error(ToolRaised(data.decode(errors="replace")))
    match word:
        case b"not_done":
            return NOT_DONE
        case b"tool_error":
            raise ToolError(text)
        case b"not_now":
            raise ToolError(text, retry_after_s=_seconds(seconds))
        case b"in_doubt":
            raise InDoubt(text)
        case b"invalid":
            raise InvalidArguments(text)
        case b"unfit":
            raise InvalidOutput(text)
    raise ToolRaised(text)


def _seconds(text: bytes) -> float | None:
    try:
        return float(text)
    except ValueError:  # not the worker's word, but one of the program's
        return None


def _message_of(job: ToolCall) -> bytes:
    """Return what a sandbox is told of a call: what is called, and its arguments as they are for that."""
    try:
        arguments = {} if job.what == "reconcile" else job.arguments_of()
        by_place = [job.context] if job.what == "reconcile" else []
        return _pickled((job.what, by_place, arguments))
    except Exception as error:
        raise InvalidArguments(text_of(error)) from None


def _pickled_functions(found: Tool) -> bytes:
    """Return a tool's functions, and what calling it takes besides, which is loaded with them: before the call."""
    beside: list[Any] = [ToolContext] if found.context_parameter is not None else []
    beside += [asyncio.run] if inspect.iscoroutinefunction(found.function) else []
    return _pickled(({"call": found.function, "reconcile": found.reconcile, "undo": found.undo}, beside))


def _pickled(value: Any) -> bytes:
    """Return a value as bytes; what it uses of the app's own modules goes with it: the sandbox has not these."""
    there = tuple(f"{folder}{os.sep}" for folder in (sys.base_prefix, *package_folders(), *map(str, CODE_FOLDERS)))
    with _PICKLING:
        apps = list(_apps_modules(there))
        for module in apps:
            cloudpickle.register_pickle_by_value(module)
        try:
            return cloudpickle.dumps(value)  # type: ignore[no-any-return]
        finally:
            for module in apps:
                cloudpickle.unregister_pickle_by_value(module)


def _apps_modules(there: tuple[str, ...]) -> Iterator[ModuleType]:
    """Yield the modules whose files are none that a sandbox has, which are below these folders."""
    for name, module in list(sys.modules.items()):
        if _ELSEWHERE.get(name) is not module:
            file, is_main = getattr(module, "__file__", None), getattr(module, "__name__", name) == "__main__"
            if isinstance(file, str) and not is_main and not os.path.abspath(file).startswith(there):
                yield module
            else:
                _ELSEWHERE[name] = module


def _command_of(found: Tool, tenant: TenantId | None) -> list[str]:
    limits = found.sandbox
    assert limits is not None
    folders = [*package_folders(), str(AIRSIDE_FOLDER.parent)]
    seconds = found.spec.timeout_ms / 1000
    return sandboxed_command(
        [python_there(), "-I", "-S", str(_WORKER), json.dumps(folders)],
        code=[str(_WORKER), *map(str, CODE_FOLDERS)],
        workspace=None if tenant is None else give_folder(limits.workspace, tenant),
        writable=limits.access == "write",
        limits=limits,
        cpu_s=int(seconds) + 5,  # the deadline is kept from outside; this, and what follows, is for when it is not
        wall_s=SPARE_S + seconds + 10,
    )
