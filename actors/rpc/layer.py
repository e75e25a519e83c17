"""What every actor has: a light constructor, a `start` that runs once, `health()`, and `stats()`.

An exception in an actor's constructor would defeat Ray's restarts, so constructors only keep their arguments, and
`start` opens files and loads keys at the first call after any (re)start.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from airside.actors.process.logs import log_folder, log_to_stderr
from airside.actors.rpc.names import CellAddress
from airside.actors.rpc.serving import TICKET, services_of
from airside.actors.rpc.transport import Address, Listener, sockets_folder
from airside.actors.settings import Settings
from airside.stack.cycle.agent_call import UNWATCHED, Pulse
from airside.stack.scheduling.clocks import SteadyClock
from airside.tools.runners.output import say_written

logger = logging.getLogger("airside")

CONTROL = "ctl"
"""The concurrency group with a loop and a thread of its own, which answers while the layer's loop is busy."""


GRACE_S = 0.02
"""How long a batch waits for its slowest item: about what a second Ray call for it would cost several times over."""

LONGEST_GRACE_S = 0.2
FEW_TICKETS = 4
"""How long a large batch is waited for while some of it gets done, and of how many items left it is not."""

TICKET_LIFE_S = 60.0
"""How long an answer that is there waits to be collected."""

BEAT_S = 0.2
"""How often a watched event loop shows that it turns: several times within the default `stall_s`, cheap when idle."""

_BEGIN_AGAIN_S = 0.5


@dataclass(frozen=True, slots=True)
class LayerConfig:
    """What an actor is made with.  `seal_key` is empty for those that may not make or check seals.

    `secret_env` are the environment variables that hold keys of models: no process of the stack keeps them.
    `stack_id` is of one start of the stack: names come again, it does not.
    """

    settings: Settings
    state_dir: Path
    seal_key: bytes = field(default=b"", repr=False)
    stack_id: str = ""
    secret_env: tuple[str, ...] = ()

    @property
    def cell(self) -> CellAddress:
        """Where the other layers are."""
        return CellAddress.of(self.settings)


@dataclass(frozen=True, slots=True)
class StackIdentity:
    """Of which stack an actor is."""

    stack_id: str
    state_dir: str


def _begin_with_retry(actor: Any) -> None:
    """Have an actor begin: while Ray takes it for dead, or what it needs is away, it is asked again."""
    while True:
        try:
            actor.begin.remote().future().result()  # `ray.get` would warn of a blocked loop: this thread has none
        except RayError:
            time.sleep(_BEGIN_AGAIN_S)
        else:
            return


async def _done_soon(tasks: Sequence[asyncio.Future[bytes]]) -> None:
    """Return when a batch is done, or what is left of it is little, or none of it was done within `GRACE_S`.

    Each ticket is a call of its own to collect it: a large batch that is merely busy is waited for, a slow item is not.
    """
    await asyncio.sleep(0)  # every item has begun: to begin a large batch takes longer than the grace
    clock = asyncio.get_running_loop().time
    until = clock() + LONGEST_GRACE_S
    left = set(tasks)
    while left:
        done, left = await asyncio.wait(left, timeout=GRACE_S)
        if not done or len(left) <= FEW_TICKETS or clock() > until:
            return


class Layer:
    """Base of the actors."""

    pulse: Pulse = UNWATCHED

    def __init__(self, config: LayerConfig) -> None:
        self.config = config
        for name in config.secret_env:
            os.environ.pop(name, None)
        self._started = False
        self._starting: asyncio.Lock | None = None
        self._born = time.time()
        self._node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""
        self._pending: dict[bytes, asyncio.Future[bytes]] = {}
        self.services = services_of(self)
        self._listening: asyncio.Future[Address] | None = None
        self._address: Address | None = None
        # After a restart nobody may call for a while: the layer asks itself to begin, again if Ray loses that.
        if ray.is_initialized() and ray.get_runtime_context().get_actor_id():
            log_to_stderr(logger)
            actor = ray.get_runtime_context().current_actor
            threading.Thread(target=_begin_with_retry, args=(actor,), name="begin", daemon=True).start()

    async def ready(self) -> None:
        """Start once; a failed start is tried again at the next call."""
        if self._started:
            return
        if self._starting is None:
            self._starting = asyncio.Lock()
        async with self._starting:
            if not self._started:
                # Thousands of live runs are few cycles to collect and much to look through: look less often.
                gc.freeze()
                gc.set_threshold(20_000, 20, 50)
                await self.start()
                self.begun()
                self._started = True

    async def start(self) -> None:
        """Open what the layer needs."""

    def begun(self) -> None:
        """Take in that it has opened it."""

    async def begin(self) -> int:
        """Start if need be; return the process id.  Launch calls it to know that the layer works."""
        await self.ready()
        return os.getpid()

    async def forever(self, work: Awaitable[None]) -> None:
        """Run a loop the layer cannot do without: should it fail, the process ends, and the restarted one recovers."""
        try:
            await work
        except Exception:
            logger.exception("%s cannot go on", type(self).__name__, extra={"action": "layer_failed"})
            os._exit(1)

    async def address(self) -> Address:
        """Return where this process is asked; the first call starts the layer."""
        await self.ready()
        if self._address is None:
            if self._listening is None:
                self._listening = asyncio.ensure_future(self._listen())
            self._address = await asyncio.shield(self._listening)
        return self._address

    async def _listen(self) -> Address:
        if self.config.settings.transport == "ray":
            return Address(self._node, os.getpid(), "", b"")
        listener = self._listener = Listener(self.services, self._kept_answer)
        path, secret = await listener.listen(lambda: sockets_folder(self.config.stack_id))
        return Address(self._node, os.getpid(), path, secret)

    async def serve(self, number: int, batch: Sequence[bytes], whole: bool = False) -> list[bytes]:
        """Answer requests of one method that came in one Ray call, each by itself.

        What is not done soon (`_done_soon`) is answered with a ticket for `collect`, so that a slow request neither
        holds back its neighbours' answers nor occupies one of the caller's two places; with `whole` it is waited for.
        """
        await self.ready()
        loop = asyncio.get_running_loop()
        answers: list[asyncio.Future[bytes]] = []
        for data in batch:
            answer: asyncio.Future[bytes] = loop.create_future()
            self.services[number].handle(data, answer.set_result)
            answers.append(answer)
        if whole and answers:
            await asyncio.wait(answers)
        elif not any(answer.done() for answer in answers):
            await _done_soon(answers)
        return [answer.result() if answer.done() else self._ticket(answer) for answer in answers]

    def _kept_answer(self, answer: bytes) -> bytes:
        kept: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        kept.set_result(answer)
        return self._ticket(kept)

    def _ticket(self, answer: asyncio.Future[bytes]) -> bytes:
        ticket = TICKET + secrets.token_bytes(12)
        self._pending[ticket] = answer
        answer.add_done_callback(lambda _: self._forget_later(ticket))
        return ticket

    def _forget_later(self, ticket: bytes) -> None:
        """Whoever was to collect it may have died."""
        asyncio.get_running_loop().call_later(TICKET_LIFE_S, self._pending.pop, ticket, None)

    async def collect(self, ticket: bytes) -> bytes:
        """Return the answer a ticket was given for, when it is there."""
        try:
            return await asyncio.shield(self._pending[ticket])
        finally:
            self._pending.pop(ticket, None)

    async def whose(self) -> StackIdentity:
        """Return of which stack this is, as a client must know before it asks for more."""
        return StackIdentity(self.config.stack_id, str(self.config.state_dir))

    async def health(self) -> dict[str, Any]:
        """Return who and how this is; answered by the control loop even when the layer is busy."""
        return {
            "layer": type(self).__name__,
            "pid": os.getpid(),
            "node": self._node,
            "ready": self._started,
            "up_s": time.time() - self._born,
            "logs": log_folder(),
            "asked": {each.method.name: each.asked for each in self.services.values() if each.asked},
        }

    async def stats(self) -> dict[str, Any]:
        """Return the layer's counts."""
        return {}

    async def say_written(self, name: str) -> int:
        """Say in the process's files, to who follows them, that all it printed is there; return in how many."""
        return say_written(name)


def now_us() -> int:
    """Return UTC microseconds."""
    return time.time_ns() // 1000


def _running_us() -> int:
    """Return microseconds since the machine booted, sleep included: a clock that nobody sets."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


def _stepped(by_us: int) -> None:
    logger.warning("the machine's clock was set by %.1f s", by_us / 1e6, extra={"action": "clock_set"})


steady_us = SteadyClock(now_us, _running_us, _stepped)
"""UTC microseconds for what counts by windows or ends at a time: a clock that was wrong for a moment moves nothing."""


def control(*methods: Callable[..., Any]) -> None:
    """Mark methods to be answered by the control group."""
    for method in methods:
        ray.method(concurrency_group=CONTROL)(method)


control(Layer.health, Layer.stats, Layer.whose, Layer.say_written)


def as_actor(kind: type) -> Any:
    """Return a layer as a Ray actor class, with the control group."""
    return ray.remote(concurrency_groups={CONTROL: 8})(kind)
