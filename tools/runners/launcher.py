"""The process that starts tools' processes for one executor: `python -m airside.tools.runners.launcher SOCKET PARENT`.

An executor has threads, so it must not fork; this program has one thread and has the tools imported, so that a call
costs a fork.  Every call is the first process of a PID namespace of its own: when it ends or is killed, the kernel ends
whatever it started, a daemon that forked twice and heeds no signal too, and only then is its death reported.

Nobody outlives anybody: the outer process dies with the executor, the inner one (which is the first of a namespace that
holds all the calls) with the outer, and with the inner one everything in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import inspect
import os
import resource
import selectors
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import cloudpickle
import msgspec
import orjson

from airside.stack.canonical import check_bounds
from airside.stack.cycle.output_source import output_from
from airside.stack.errors import text_of
from airside.stack.ids import RunId, TenantId
from airside.tools.runners.outcomes import own_error
from airside.tools.runners.output import finish_output, mark_like_parent, redact_output
from airside.tools.secrets.known import KnownSecrets, Secrets
from airside.tools.secrets.redaction import NO_SECRETS, Redactor
from airside.tools.tool import NOT_DONE, InDoubt, ProcessLimits, Tool, ToolContext, ToolError, as_undo

_CLONE_NEWPID, _CLONE_NEWUSER = 0x20000000, 0x10000000
_PR_SET_PDEATHSIG = 1

TERM_GRACE_S = 0.1
"""Between SIGTERM, which a tool may use to clean up, and SIGKILL."""

COUNT_EVERY_S = 0.02
"""How often a call's processes are counted: a fork bomb makes some hundreds meanwhile."""

_READ_BYTES = 1 << 16

Answer = Literal["ok", "not_done", "tool_error", "not_now", "in_doubt", "invalid", "unfit", "error"]
_ANSWERS = frozenset(get_args(Answer))
EndKind = Literal[Answer, "died", "not_started", "no_namespaces", "ready"]


class ProcessCall(msgspec.Struct, tag=True, array_like=True):
    """Run a tool, its `reconcile`, or the undo of its call that returned `output`, in a process of its own."""

    tool: str
    what: Literal["call", "reconcile", "undo"]
    arguments: bytes = b""
    output: bytes = b""
    call_id: int = 0
    context: dict[str, Any] = {}
    max_output_bytes: int = 0


class ProcessKill(msgspec.Struct, tag=True, array_like=True):
    """End a call, whatever it does."""

    call_id: int


class ProcessEnded(msgspec.Struct, array_like=True):
    """A call is over, and everything it started is dead.  `data` is JSON if `ok`, else a sentence, which in `not_now`
    follows the seconds after which it may go well.

    `no_namespaces` and `ready` (with the launcher's process id as `/proc` shows it) are no call's.
    """

    call_id: int
    kind: EndKind
    data: bytes


@dataclass
class _Child:
    """A call at work; `pid` is as this process sees it, `shown` as `/proc` does (0: it has not said so yet)."""

    call: ProcessCall
    limits: ProcessLimits
    pid: int
    pidfd: int
    pipe: int
    output: bytearray = field(default_factory=bytearray)
    kill_at_s: float | None = None
    reason: str = ""

    def take(self, data: bytes) -> None:
        """Keep what it wrote, unless it is being ended: then nothing it says counts any more."""
        if self.kill_at_s is None or not self.shown:
            self.output += data

    @property
    def shown(self) -> int:
        """Its process id in `/proc`."""
        line, newline, _ = bytes(self.output[:32]).partition(b"\n")
        return int(line) if newline else 0


_libc = ctypes.CDLL(None, use_errno=True)


def _must(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), what)


def die_with_parent() -> None:
    """Have the kernel end this process when the one that made it ends."""
    _must(_libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0), "prctl")


class Launcher:
    """The inner process's loop."""

    def __init__(self, sock: socket.socket, tools: dict[str, Tool]) -> None:
        self._sock = sock
        self._tools = tools
        self._buffer = bytearray()
        self._children: dict[int, _Child] = {}
        self._select = selectors.DefaultSelector()
        self._select.register(sock, selectors.EVENT_READ, None)
        self._namespace = os.open("/proc/self/ns/pid", os.O_RDONLY)
        self._decode = msgspec.msgpack.Decoder(ProcessCall | ProcessKill).decode
        self._counted_s = 0.0

    def run(self) -> None:
        """Serve until the executor closes its end."""
        while True:
            for key, _ in self._select.select(COUNT_EVERY_S if self._children else None):
                if key.data is None:
                    if not self._receive():
                        return
                else:
                    self._hear(key.data, key.fd)
            self._enforce(time.monotonic())

    def _receive(self) -> bool:
        data = self._sock.recv(_READ_BYTES)
        self._buffer += data
        while len(self._buffer) >= 4 and len(self._buffer) >= 4 + (size := int.from_bytes(self._buffer[:4])):
            message = self._decode(bytes(self._buffer[4 : 4 + size]))
            del self._buffer[: 4 + size]
            if isinstance(message, ProcessCall):
                self._start(message)
            elif (child := self._children.get(message.call_id)) is not None:
                self._end(child, "it was stopped")
        return bool(data)

    def _start(self, call: ProcessCall) -> None:
        """Fork; a machine that has no process or file left for this call still serves the others."""
        try:
            read, write = os.pipe()
        except OSError as error:
            self._send(
                ProcessEnded(call.call_id, "not_started", f"no process could be started: {text_of(error)}".encode())
            )
            return
        try:
            pid = self._fork(call, read, write)
        except OSError as error:
            os.close(read)
            self._send(
                ProcessEnded(call.call_id, "not_started", f"no process could be started: {text_of(error)}".encode())
            )
            return
        finally:
            os.close(write)
        self._watch(call, pid, read)

    def _fork(self, call: ProcessCall, read: int, write: int) -> int:
        """Return the process of a call, the first of a namespace of its own."""
        _must(_libc.unshare(_CLONE_NEWPID), "unshare")
        try:
            pid = os.fork()
            if pid == 0:
                os.close(read)
                self._be_child(call, write)
            return pid
        finally:
            _must(_libc.setns(self._namespace, _CLONE_NEWPID), "setns")

    def _watch(self, call: ProcessCall, pid: int, read: int) -> None:
        limits = self._tools[call.tool].process
        assert limits is not None
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:  # no file left: what cannot be watched does not run
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(read)
            self._send(ProcessEnded(call.call_id, "died", f"its process was ended at once: {text_of(error)}".encode()))
            return
        os.set_blocking(read, False)
        child = _Child(call, limits, pid, pidfd, read)
        self._children[call.call_id] = child
        self._select.register(child.pipe, selectors.EVENT_READ, child)
        self._select.register(child.pidfd, selectors.EVENT_READ, child)

    def _be_child(self, call: ProcessCall, write: int) -> None:
        """Run the tool and say what came of it; never returns."""
        found = self._tools[call.tool]
        try:
            die_with_parent()
            os.setsid()
            for child in self._children.values():
                os.close(child.pipe)
                os.close(child.pidfd)
            self._select.close()
            self._sock.close()
            os.close(self._namespace)
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, 0)
            os.dup2(2, 1)  # what it prints is a log, not an answer
            os.write(write, f"{os.readlink('/proc/self')}\n".encode())
            _limit(found.process or ProcessLimits(), call.context["deadline_s"])
            tenant, run_id = TenantId(call.context["tenant"]), RunId(call.context["run_id"])
            mark_like_parent()
            known = KnownSecrets()
            known.learn(tenant, call.context["secrets"].values())
            if redactor := known.of(tenant):
                redact_output(known)
            with output_from(found.name, tenant, run_id):
                kind, data = answer_of(found, call, redactor)
            finish_output((found.name, tenant, run_id))
            sys.stdout.flush()  # what it printed would be lost with the process
            with open(write, "wb") as file:
                file.write(kind.encode() + b"\n" + data)
        finally:
            os._exit(0)

    def _hear(self, child: _Child, fd: int) -> None:
        if self._children.get(child.call.call_id) is not child:
            return  # it was reaped a moment ago, and its files' numbers may be another call's by now
        if fd == child.pidfd:
            self._reap(child)
            return
        data = _read(child.pipe)
        child.take(data)
        if not data:
            self._select.unregister(child.pipe)
        elif len(child.output) > child.call.max_output_bytes + _READ_BYTES and child.kill_at_s is None:
            self._end(child, f"its output is over the bound of {child.call.max_output_bytes:,} bytes")

    def _reap(self, child: _Child) -> None:
        """Report the end of a call: its namespace's first process is gone, and so is everything in it."""
        _, status = os.waitpid(child.pid, 0)
        while data := _read(child.pipe):
            child.take(data)
        with contextlib.suppress(KeyError):
            self._select.unregister(child.pipe)
        self._select.unregister(child.pidfd)
        os.close(child.pipe)
        os.close(child.pidfd)
        del self._children[child.call.call_id]
        self._send(ended_of(child, os.waitstatus_to_exitcode(status)))

    def _send(self, ended: ProcessEnded) -> None:
        body = msgspec.msgpack.encode(ended)
        with contextlib.suppress(BrokenPipeError):  # the executor is gone, and so is this process next
            self._sock.sendall(len(body).to_bytes(4) + body)

    def _end(self, child: _Child, reason: str) -> None:
        if child.kill_at_s is None:
            child.reason = reason
            child.kill_at_s = time.monotonic() + TERM_GRACE_S
            with contextlib.suppress(OSError):
                os.killpg(child.pid, signal.SIGTERM)

    def _enforce(self, now_s: float) -> None:
        """Kill whose grace is over; count the processes of the others."""
        count = now_s - self._counted_s > COUNT_EVERY_S
        for child in self._children.values():
            if child.kill_at_s is not None:
                if now_s >= child.kill_at_s:
                    os.kill(child.pid, signal.SIGKILL)
            elif count and _descendants(child.shown, child.limits.processes) > child.limits.processes:
                child.kill_at_s = now_s
                child.reason = f"it had more than {child.limits.processes} processes"
                os.kill(child.pid, signal.SIGKILL)
        if count:
            self._counted_s = now_s


def ended_of(child: _Child, code: int) -> ProcessEnded:
    """Return what to say of a process that is gone.

    An answer is believed of one that ended in good order, and was not told to end: the tool could write to the pipe
    itself, and one that is killed may have written half of it.
    """
    _, _, rest = bytes(child.output).partition(b"\n")
    kind, newline, data = rest.partition(b"\n")
    if not child.reason and code == 0 and newline and (name := kind.decode(errors="replace")) in _ANSWERS:
        return ProcessEnded(child.call.call_id, name, data)  # type: ignore[arg-type]
    how = child.reason or (f"it was killed by signal {-code}" if code < 0 else f"it exited with {code}")
    return ProcessEnded(child.call.call_id, "died", f"its process is gone: {how}".encode())


def answer_of(found: Tool, call: ProcessCall, redactor: Redactor = NO_SECRETS) -> tuple[Answer, bytes]:
    """Call the tool, or ask it what became of its key; return what came of it as a kind and bytes."""
    given = {"labels": tuple(call.context["labels"]), "secrets": Secrets(call.context["secrets"])}
    context = ToolContext(**{**call.context, **given})
    arguments: dict[str, Any] = {}
    if call.what == "undo":
        found = as_undo(found, call.output)
    if call.what != "reconcile":
        try:
            arguments = found.convert(orjson.loads(call.arguments))
        except Exception as error:
            return "invalid", redactor.error(error).encode()
        if found.context_parameter is not None:
            arguments[found.context_parameter] = context
    try:
        if call.what != "reconcile":
            output = _awaited(found.function(**arguments))
        else:
            assert found.reconcile is not None
            output = _awaited(found.reconcile(context))
            if output is NOT_DONE:
                return "not_done", b""
    except ToolError as error:
        own = own_error(error, redactor)
        if isinstance(own, ToolError) and own.retry_after_s is not None:
            return "not_now", f"{own.retry_after_s!r} {own.message}".encode()
        return "tool_error", own.message.encode()
    except InDoubt as error:
        return "in_doubt", redactor.error(error).encode()
    except BaseException as error:
        return "error", redactor.error(error).encode()
    try:
        check_bounds(output, where="output")
        return "ok", orjson.dumps(output)
    except Exception as error:
        return "unfit", redactor.error(error).encode()


def _awaited(answer: Any) -> Any:
    async def wait() -> Any:
        return await answer

    return asyncio.run(wait()) if inspect.isawaitable(answer) else answer


def _limit(limits: ProcessLimits, deadline_s: float) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    cpu_s = int(deadline_s) + 5  # the deadline is kept from outside; this is for a launcher that cannot
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    if limits.memory_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))


def _read(pipe: int) -> bytes:
    try:
        return os.read(pipe, _READ_BYTES)
    except BlockingIOError:
        return b""


def _descendants(shown: int, enough: int) -> int:
    """Count a process and all below it, as far as one more than `enough`."""
    if not shown:
        return 0
    found, look = 0, [str(shown)]
    while look and found <= enough:
        pid = look.pop()
        found += 1
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                look += Path(f"/proc/{pid}/task/{task}/children").read_text().split()
    return found


def _enter_namespace() -> None:
    """Go on as the first process of a PID namespace; the outer process waits for it and then ends.

    Raises `OSError` where this user may not make one.
    """
    uid, gid = os.getuid(), os.getgid()
    if _libc.unshare(_CLONE_NEWPID) != 0:
        _must(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWPID), "unshare")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    outer = os.pidfd_open(os.getpid())
    pid = os.fork()
    if pid:
        os.close(outer)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0x7F)
    die_with_parent()
    if _is_over(outer):
        os._exit(1)
    os.close(outer)


def _is_over(pidfd: int) -> bool:
    with selectors.DefaultSelector() as select:
        select.register(pidfd, selectors.EVENT_READ)
        return bool(select.select(0))


def main() -> None:
    """Take the socket over, import the tools, and serve."""
    die_with_parent()
    if os.getppid() != int(sys.argv[2]):
        sys.exit(1)
    sock = socket.socket(fileno=int(sys.argv[1]))
    try:
        _enter_namespace()
    except OSError as error:
        body = msgspec.msgpack.encode(ProcessEnded(-1, "no_namespaces", text_of(error).encode()))
        sock.sendall(len(body).to_bytes(4) + body)
        sys.exit(1)
    size = int.from_bytes(sock.recv(4, socket.MSG_WAITALL))
    tools: dict[str, Tool] = cloudpickle.loads(sock.recv(size, socket.MSG_WAITALL))
    body = msgspec.msgpack.encode(ProcessEnded(-1, "ready", os.readlink("/proc/self").encode()))
    sock.sendall(len(body).to_bytes(4) + body)
    Launcher(sock, tools).run()


if __name__ == "__main__":
    main()
