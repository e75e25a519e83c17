"""Announcing approvals: a signed webhook, and a function of the app's, neither of which anything waits for.

A webhook is delivered at least once or given up after about five minutes; its id is the same at every attempt and
after a restart.  No redirect is followed and no proxy used: what is sent goes where the setting says, or nowhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import inspect
import socket
import ssl
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import SplitResult

import msgspec

from airside.actors.rpc.layer import logger, now_us
from airside.stack.approvals.notifications import Notification
from airside.stack.errors import text_of
from airside.stack.webhooks import sign

ANSWER_S = 5.0
"""How long a receiver may take to answer one attempt."""

PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0)
"""Between attempts: a receiver that restarts is reached soon, and one that is gone is not called for ever."""

GIVEN_UP_S = sum(PAUSES_S) + ANSWER_S * (len(PAUSES_S) + 1)
"""After so long nobody tries any more: what a restart announces again need not be older."""

AT_ONCE = 4
"""Attempts under way, each in a thread: a receiver that hangs holds up its own messages and nothing else."""

MAX_WAITING = 10_000
"""Notices kept for a receiver that does not answer; more are dropped, and counted."""

OnApproval = Callable[[dict[str, Any]], object]
"""Is given a notice's `type`, `timestamp` and `data`."""


class Notifier:
    """Tells whoever wants to know; `notify` returns at once and never fails."""

    def __init__(self, target: SplitResult | None, secret: str, on_approval: OnApproval | None) -> None:
        self._target = target
        # Made once: reading the system's certificates takes tens of milliseconds of the layer's loop.
        self._tls = ssl.create_default_context() if target is not None and target.scheme == "https" else None
        self._secret = secret
        self._on_approval = on_approval
        self._posting = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="webhook")
        self._calling = ThreadPoolExecutor(1, thread_name_prefix="on-approval")
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._counts = {"delivered": 0, "given_up": 0, "dropped": 0, "callback_failed": 0}

    @property
    def is_wanted(self) -> bool:
        """Whether there is anybody to tell."""
        return self._target is not None or self._on_approval is not None

    def notify(self, notice: Notification) -> None:
        """Tell everybody, in time."""
        if self._target is not None:
            self._spawn(self._deliver(notice, self._target))
        if self._on_approval is not None:
            self._spawn(self._call(notice, self._on_approval))

    def _spawn(self, work: Any) -> None:
        if len(self._tasks) >= MAX_WAITING:
            self._counts["dropped"] += 1
            work.close()
            return
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call(self, notice: Notification, function: OnApproval) -> None:
        """Call the app's function in its thread, one notice at a time."""
        if not await asyncio.get_running_loop().run_in_executor(self._calling, _call_app, function, notice):
            self._counts["callback_failed"] += 1

    async def _deliver(self, notice: Notification, target: SplitResult) -> None:
        """Try until it is answered with a 2xx, or for the last time."""
        body = notice.body()
        for pause_s in (*PAUSES_S, None):
            headers = sign(self._secret, notice.id, now_us() // 1_000_000, body)
            problem = await self._attempt(target, headers, body)
            if not problem:
                self._counts["delivered"] += 1
                return
            logger.warning("webhook %s: %s", notice.id, problem, extra={"action": "webhook_failed"})
            if pause_s is not None:
                await asyncio.sleep(pause_s)
        self._counts["given_up"] += 1
        logger.error("webhook %s is given up", notice.id, extra={"action": "webhook_given_up"})

    async def _attempt(self, target: SplitResult, headers: dict[str, str], body: bytes) -> str:
        """Send it once; return what is wrong, nothing if it arrived."""
        async with self._turns:
            connection = _connection(target, self._tls)
            sending = asyncio.get_running_loop().run_in_executor(
                self._posting, _post, connection, target, headers, body
            )
            sending.add_done_callback(_look)
            try:
                async with asyncio.timeout(ANSWER_S):
                    status = await asyncio.shield(sending)
            except TimeoutError:
                sending.cancel()  # if all threads hang still, it is not sent when nobody waits for it any more
                _close_connection(connection)  # so that its thread comes back, whatever trickles in
                return f"no answer in {ANSWER_S:.0f} s"
            except Exception as error:
                return text_of(error, 500)
        return "" if 200 <= status < 300 else f"status {status}" + ", which is not followed" * (300 <= status < 400)

    def stats(self) -> dict[str, int]:
        """Return what became of the notices of this incarnation."""
        return {**self._counts, "waiting": len(self._tasks)}


def _call_app(function: OnApproval, notice: Notification) -> bool:
    """Call the app's function; return whether it went well.

    Nothing it raises leaves its thread: `SystemExit` would end the layer's loop, `StopIteration` is lost in a future.
    """
    try:
        answer: object = function(msgspec.json.decode(notice.body()))  # a copy: what is done to it is its own affair
        if inspect.isawaitable(answer):  # `lambda notice: client.post(notice)`
            asyncio.run(_come_to(answer))
    except BaseException:
        logger.exception("on_approval failed for %s", notice.id, extra={"action": "on_approval_failed"})
        return False
    return True


async def _come_to(answer: Awaitable[object]) -> None:
    await answer


def _connection(target: SplitResult, tls: ssl.SSLContext | None) -> http.client.HTTPConnection:
    assert target.hostname is not None
    if tls is not None:
        return http.client.HTTPSConnection(target.hostname, target.port, timeout=ANSWER_S, context=tls)
    return http.client.HTTPConnection(target.hostname, target.port, timeout=ANSWER_S)


def _post(connection: http.client.HTTPConnection, target: SplitResult, headers: dict[str, str], body: bytes) -> int:
    path = (target.path or "/") + (f"?{target.query}" if target.query else "")
    try:
        connection.request("POST", path, body, {"content-type": "application/json", **headers})
        return connection.getresponse().status
    finally:
        connection.close()


def _look(sending: asyncio.Future[int]) -> None:
    """Take note of how an attempt ended that nobody waits for any more."""
    if not sending.cancelled():
        sending.exception()


def _close_connection(connection: http.client.HTTPConnection) -> None:
    sock = connection.sock
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
