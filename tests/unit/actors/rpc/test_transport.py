"""Calls over sockets: every fault of the connection is what a dead layer is, nothing is carried out twice."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airside.actors.rpc import remote, transport
from airside.actors.rpc.layer import Layer, LayerConfig
from airside.actors.rpc.methods import EXECUTE, INCARNATION, RELEASE, WITHDRAW
from airside.actors.rpc.names import CellAddress
from airside.actors.rpc.remote import Remote
from airside.actors.rpc.serving import serves
from airside.actors.rpc.stubs import RemoteTools
from airside.actors.rpc.transport import MAX_FRAME_BYTES, Address, Channel, Listener
from airside.actors.settings import Settings
from airside.stack.contracts.execution import ExecuteReply, ExecuteRequest
from airside.stack.errors import ItemFailed, LayerUnavailable
from airside.stack.values import ToolResult
from benchmarks.step_costs import counted_calls
from tests.helpers import RUN

Handler = Callable[[str], Awaitable[int]]


class Asked(Layer):
    """A layer that counts what it was asked, and answers as the test says."""

    def __init__(self) -> None:
        super().__init__(LayerConfig(Settings(), Path("unused")))
        self.asked: Counter[str] = Counter()
        self.handler: Handler = self.length
        self.output = msgspec.Raw(b"null")
        self._started = True

    async def length(self, text: str) -> int:
        """Answer with a text's length."""
        return len(text)

    @serves(WITHDRAW)
    async def withdraw(self, text: str) -> int:
        """What may be sent twice."""
        self.asked[text] += 1
        return await self.handler(text)

    @serves(INCARNATION)
    def incarnation(self, _: None) -> str:
        """Say which process this is."""
        self.asked["incarnation"] += 1
        return f"exe {self.asked['restarts']}"

    @serves(EXECUTE)
    async def execute(self, request: ExecuteRequest) -> ExecuteReply:
        """What may not."""
        text = request.arguments.decode()
        self.asked[text] += 1
        await self.handler(text)
        return ExecuteReply(result=ToolResult(ok=True, output=self.output))


class Process:
    """A layer's process, which dies and is restarted as the test says."""

    def __init__(self, folder: Path) -> None:
        self.layer = Asked()
        self.folder = folder / "stack"
        self.address: Address | None = None

    async def start(self) -> Address:
        """Listen at a new address."""
        self.listener = Listener(self.layer.services, self.layer._kept_answer)
        self.address = Address("", os.getpid(), *await self.listener.listen(lambda: self.folder))
        return self.address

    def die(self) -> None:
        """End every connection."""
        self.listener.close()
        self.address = None


class Caller(Remote):
    """A remote that is told addresses by the process, not by Ray."""

    def __init__(self, process: Process) -> None:
        super().__init__(CellAddress.of(Settings(layer_patience_s=60)), "approvals")
        self._process = process
        self.over: list[str] = []

    async def over_ray(self, name: str, *args: Any) -> Any:
        """Call the layer as Ray would."""
        self.over.append(name)
        if name == "address":
            return self._process.address
        return await getattr(self._process.layer, name)(*args)

    async def _find(self) -> None:
        if self._process.address is None:
            raise LayerUnavailable("it is not there")
        self._channel = await self.open(self._process.address)


class Reached(Caller):
    """A remote that finds the process as it does by Ray."""

    async def _find(self) -> None:
        await Remote._find(self)

    def node_id(self) -> str:
        """Return the test's node."""
        return ""


@pytest.fixture
async def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Process]:
    """A process that listens."""
    monkeypatch.setattr(remote, "_FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(remote, "_LONGEST_PAUSE_S", 0.0)
    made = Process(tmp_path)
    await made.start()
    yield made
    made.listener.close()


def write(text: str) -> ExecuteRequest:
    """Return a call that must not be sent twice."""
    return ExecuteRequest(grant=b"g", arguments=text.encode())


async def test_answers_come_when_they_are_there_whatever_their_neighbours_take(process: Process) -> None:
    slow = asyncio.get_running_loop().create_future()

    async def handle(text: str) -> int:
        return int(await slow) if text == "slow" else len(text)

    process.layer.handler = handle
    caller = Caller(process)
    late = asyncio.ensure_future(caller.call(WITHDRAW, "slow"))
    assert await asyncio.gather(*(caller.call(WITHDRAW, "x" * n) for n in range(100))) == list(range(100))
    assert not late.done()
    slow.set_result(7)
    assert await late == 7


async def test_what_may_be_sent_twice_survives_a_restart_and_what_may_not_is_unavailable_at_once(
    process: Process,
) -> None:
    died = asyncio.Event()

    async def handle(text: str) -> int:
        if not died.is_set():
            died.set()
            process.die()
            await process.start()
        return len(text)

    process.layer.handler = handle
    caller = Caller(process)
    answers = await asyncio.gather(
        caller.call(EXECUTE, write("pay")), caller.call(WITHDRAW, "abc"), return_exceptions=True
    )
    assert isinstance(answers[0], LayerUnavailable) and answers[1] == 3
    assert process.layer.asked["pay"] <= 1


@pytest.mark.parametrize(("took_s", "times"), [(61.0, 1), (25.0, 3)])
async def test_a_layer_that_waited_for_one_behind_it_is_not_waited_for_as_long_again(
    process: Process, monkeypatch: pytest.MonkeyPatch, took_s: float, times: int
) -> None:
    """Else what each of a row of layers waits for the next would come one after the other."""
    clock = [0.0]
    monkeypatch.setattr(remote, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    async def handle(text: str) -> int:
        clock[0] += took_s
        raise LayerUnavailable("the journal is away")

    process.layer.handler = handle
    with pytest.raises(LayerUnavailable, match="the journal is away"):
        await Caller(process).call(WITHDRAW, "abc")
    assert process.layer.asked["abc"] == times


async def test_a_layer_that_dies_of_long_work_is_waited_for_from_then_on(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How long it was at work says nothing of how long its restart takes."""
    clock = [0.0]
    monkeypatch.setattr(remote, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    async def handle(text: str) -> int:
        clock[0] += 61
        if process.layer.asked["abc"] == 1:
            process.die()
            await process.start()
        return len(text)

    process.layer.handler = handle
    assert await Caller(process).call(WITHDRAW, "abc") == 3


async def test_an_executor_is_the_same_as_long_as_its_connection_is(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked once; after its death nobody takes its grants for good, however fast it is back."""
    tools = RemoteTools(CellAddress.of(Settings(executors=1)))
    monkeypatch.setattr(tools._pool[0], "remote", Caller(process))
    assert [await tools.executor_for(RUN) for _ in range(3)] == ["exe 0"] * 3
    assert process.layer.asked["incarnation"] == 1
    process.die()
    process.layer.asked["restarts"] += 1
    await process.start()
    while tools._pool[0].remote.channel is not None:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0)
    assert await tools.executor_for(RUN) == "exe 1"


async def test_what_nobody_waits_for_any_more_is_not_sent_to_a_layer_that_died_of_it(process: Process) -> None:
    async def handle(text: str) -> int:
        if text == "deadly":
            process.die()
            await process.start()
            if process.layer.asked["deadly"] == 2:
                guilty.cancel()
        return len(text)

    process.layer.handler = handle
    caller = Caller(process)
    guilty, *others = (asyncio.ensure_future(caller.call(WITHDRAW, text)) for text in ("deadly", "a", "bc"))
    assert await asyncio.gather(*others) == [1, 2]
    with pytest.raises(asyncio.CancelledError):
        await guilty
    assert process.layer.asked["deadly"] == 2


async def test_what_its_caller_gave_up_before_it_was_sent_is_not_sent(process: Process) -> None:
    caller = Caller(process)
    await caller.call(WITHDRAW, "first")
    given_up = asyncio.ensure_future(caller.call(WITHDRAW, "given up"))
    asyncio.get_running_loop().call_soon(given_up.cancel)
    assert await caller.call(WITHDRAW, "second") == 6
    assert given_up.cancelled() and "given up" not in process.layer.asked


async def test_a_method_the_layer_does_not_serve_is_refused_and_the_connection_goes_on(process: Process) -> None:
    caller = Caller(process)
    with pytest.raises(ItemFailed, match="does not serve"):
        await caller.call(RELEASE, "run")
    assert await caller.call(WITHDRAW, "ab") == 2


async def test_what_is_too_long_for_a_frame_goes_over_ray_and_is_carried_out_once(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request does at once, an answer by a ticket: it is there, and nothing is asked twice for it."""
    caller = Caller(process)
    await caller.call(EXECUTE, write("connected"))
    monkeypatch.setattr(transport, "MAX_FRAME_BYTES", 2_000)
    process.layer.output = msgspec.Raw(b'"' + b"y" * 3_000 + b'"')
    assert len((await caller.call(EXECUTE, write("pay"))).result.output) == 3_002
    assert caller.over == ["collect"] and process.layer.asked["pay"] == 1
    assert await caller.call(WITHDRAW, "x" * 3_000) == 3_000
    assert caller.over == ["collect", "serve"]


async def test_a_process_that_answers_but_cannot_be_connected_to_is_asked_over_ray(process: Process) -> None:
    """Somebody may have taken its socket away."""
    assert process.address is not None
    os.unlink(process.address.path)
    caller = Reached(process)
    assert await caller.call(WITHDRAW, "ab") == 2
    assert caller.over == ["address", "serve"]


async def test_a_connection_ends_with_its_process_though_a_child_of_it_has_the_socket(process: Process) -> None:
    """The caller watches the process itself: a child that it forked keeps the socket open."""
    assert process.address is not None
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(1e6)")
    channel = await Channel.open("layer", process.address)
    channel._watch(other.pid)
    asked = asyncio.ensure_future(channel.ask(WITHDRAW.number, WITHDRAW.request.encode("slow")))
    process.layer.handler = lambda text: asyncio.get_running_loop().create_future()
    other.kill()
    with pytest.raises(LayerUnavailable, match="lost"):
        await asked
    await other.wait()


async def test_more_callers_than_the_bound_are_shut_out(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    caller = Caller(process)
    await caller.call(WITHDRAW, "a")
    monkeypatch.setattr(transport, "MAX_PEERS", 1)
    peer = raw(process)
    assert await ends(peer)
    peer.close()
    assert await caller.call(WITHDRAW, "ab") == 2


async def test_what_is_kept_of_unfinished_frames_is_bounded(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "SMALL_BYTES", 100)
    monkeypatch.setattr(transport, "MAX_UNFINISHED_BYTES", 1_000)
    peer = raw(process)
    hello(peer, process)
    peer.sendall(struct.pack("<I", 1 << 20) + b"x" * 2_000)
    assert await ends(peer)
    peer.close()
    assert await Caller(process).call(WITHDRAW, "ab") == 2


@pytest.mark.parametrize("error", [GeneratorExit(), type("Panic", (BaseException,), {})("rust")])
async def test_whatever_a_handler_raises_its_caller_is_answered_and_its_neighbours_too(
    process: Process, error: BaseException
) -> None:
    async def handle(text: str) -> int:
        if text == "bad":
            raise error
        return len(text)

    process.layer.handler = handle
    caller = Caller(process)
    answers = await asyncio.gather(caller.call(WITHDRAW, "bad"), caller.call(WITHDRAW, "ab"), return_exceptions=True)
    assert isinstance(answers[0], ItemFailed) and answers[1] == 2


async def test_a_caller_that_does_not_read_is_not_read_from_and_harms_no_other(process: Process) -> None:
    """What waits for it in the layer is bounded by what sockets hold, whatever it goes on asking; it loses nothing."""
    assert process.address is not None
    process.layer.output = msgspec.Raw(b'"' + b"y" * 100_000 + b'"')
    deaf = await Channel.open("layer", process.address)
    assert deaf.transport is not None
    deaf.transport.pause_reading()
    asked = [
        asyncio.ensure_future(deaf.ask(EXECUTE.number, EXECUTE.request.encode(write(f"{n}" * 50_000))))
        for n in range(100, 200)
    ]
    for n in range(200):
        assert await Caller(process).call(WITHDRAW, "x" * n) == n
    assert not any(answer.done() for answer in asked)
    assert 0 < sum(process.layer.asked.values()) - 200 < 50
    deaf.transport.resume_reading()
    assert len(await asyncio.gather(*asked)) == 100
    deaf.close()


def raw(process: Process) -> socket.socket:
    """Return a bare connection."""
    assert process.address is not None
    made = socket.socket(socket.AF_UNIX)
    made.connect(process.address.path)
    return made


def frame(data: bytes) -> bytes:
    """Return a frame."""
    return struct.pack("<I", len(data)) + data


def hello(peer: socket.socket, process: Process) -> None:
    """Greet as a caller does."""
    assert process.address is not None
    peer.sendall(frame(transport._hello(process.address.secret)))


async def ends(peer: socket.socket) -> bool:
    """Whether the other end ends a connection, without an answer to anything but a greeting."""
    loop = asyncio.get_running_loop()
    peer.setblocking(False)
    greeting = frame(transport._hello(b""))
    got = b""
    while data := await _read(loop, peer):
        got += data
    return got in (b"", greeting)


async def _read(loop: asyncio.AbstractEventLoop, peer: socket.socket) -> bytes:
    try:
        return await loop.sock_recv(peer, 1 << 16)
    except ConnectionError:
        return b""


@pytest.mark.parametrize(
    "said",
    [
        b"\xff\xff\xff\xff",
        struct.pack("<I", 1 << 30) + b"x" * 100,
        struct.pack("<I", 129),
        frame(b""),
        frame(b"airside"),
        frame(transport._hello(b"s" * 32)),
        frame(b"airside" + b"another!" + b"s" * 32),
        b"GET / HTTP/1.1\r\n\r\n" + b"x" * 100,
    ],
)
async def test_who_does_not_greet_rightly_is_shut_out_at_once(process: Process, said: bytes) -> None:
    """Nothing of a frame longer than a greeting is kept for who is not known."""
    peer = raw(process)
    peer.sendall(said)
    assert await ends(peer)
    peer.close()
    assert await Caller(process).call(WITHDRAW, "ab") == 2


@pytest.mark.parametrize("said", [struct.pack("<I", MAX_FRAME_BYTES + 1), frame(b""), frame(b"1234"), b"\xff" * 8])
async def test_what_is_no_frame_ends_that_connection_alone(process: Process, said: bytes) -> None:
    peer = raw(process)
    hello(peer, process)
    peer.sendall(said)
    assert await ends(peer)
    peer.close()
    assert await Caller(process).call(WITHDRAW, "ab") == 2


async def test_who_says_nothing_is_shut_out(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "GREETING_S", 0.0)
    peer = raw(process)
    assert await ends(peer)
    peer.close()


async def test_a_connection_that_ends_within_a_frame_carries_nothing_out(process: Process) -> None:
    peer = raw(process)
    hello(peer, process)
    request = frame(struct.pack("<IB", 1, EXECUTE.number) + EXECUTE.request.encode(write("pay")))
    peer.sendall(request[:-1])
    peer.close()
    assert await Caller(process).call(WITHDRAW, "ab") == 2
    assert process.layer.asked["pay"] == 0


@pytest.mark.parametrize("wrong", ["pid", "secret", "path"])
async def test_a_process_that_is_not_the_one_ray_named_is_not_spoken_to(process: Process, wrong: str) -> None:
    """An old address leads to nobody: its secret died with its process."""
    assert process.address is not None
    given = {"pid": os.getppid(), "secret": b"0" * 32, "path": process.address.path + "-old"}[wrong]
    with pytest.raises(LayerUnavailable):
        await Channel.open("layer", process.address._replace(**{wrong: given}))


@settings(max_examples=50, deadline=None)
@given(cuts=st.lists(st.integers(1, 400), max_size=8), texts=st.lists(st.text(max_size=60), min_size=1, max_size=5))
def test_frames_may_arrive_in_any_pieces(cuts: list[int], texts: list[str]) -> None:
    class Kept(transport._Frames):
        def __init__(self) -> None:
            super().__init__()
            self.longest = MAX_FRAME_BYTES
            self.frames: list[bytes] = []

        def connection_lost(self, error: Exception | None) -> None:
            raise AssertionError(error)

        def frame(self, frame: bytes) -> None:
            self.frames.append(frame)

        def said(self) -> bytes:
            return b""

    async def received() -> list[bytes]:
        kept, data = Kept(), b"".join(frame(text.encode()) for text in texts)
        kept.transport = type("Open", (), {"is_closing": lambda self: False})()
        at = 0
        for cut in [*cuts, len(data)]:
            kept.data_received(data[at : at + cut])
            at += cut
        return kept.frames

    assert asyncio.run(received()) == [text.encode() for text in texts]


async def test_where_no_socket_can_be_the_address_says_so(tmp_path: Path) -> None:
    deep, foreign = tmp_path / ("x" * 100), tmp_path / "open"
    foreign.mkdir()
    foreign.chmod(0o777)
    for folder in (deep, foreign / "stack", tmp_path / "no" / "such" / "folder"):
        assert await Listener({}).listen(lambda folder=folder: folder) == ("", b"")  # type: ignore[misc]

    def nowhere() -> Path:
        raise FileNotFoundError("no usable temporary directory")

    assert await Listener({}).listen(nowhere) == ("", b"")


async def test_sockets_are_where_only_their_user_looks_and_those_of_dead_processes_are_taken_away(
    process: Process, tmp_path: Path
) -> None:
    left = process.folder / "999999999-abcd"
    left.touch()
    again = Listener({})
    await again.listen(lambda: process.folder)
    assert not left.exists() and len(list(process.folder.iterdir())) == 2
    assert process.folder.stat().st_mode & 0o077 == 0
    again.close()
    assert len(list(process.folder.iterdir())) == 1


async def test_a_request_costs_so_many_function_calls(process: Process) -> None:
    """At both ends together, in the package's own code: a step makes five."""
    caller = Caller(process)
    await caller.call(WITHDRAW, "x")
    with counted_calls() as calls:
        await asyncio.gather(*(caller.call(WITHDRAW, "x") for _ in range(200)))
    assert calls.total() / 200 <= 17
