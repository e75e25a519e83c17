"""A running stack behind the API: found by its state directory, again where it was started anew, without its keys."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from airside.actors.client.connection import Connection
from airside.actors.client.input_reader import read_jobs_inputs
from airside.actors.client.steps import drive_async
from airside.actors.jobs import BadLine, Job
from airside.actors.rpc.methods import OFFER, Method, Reply, Request
from airside.stack.errors import AirsideError, InvalidInput, LayerUnavailable, Misuse
from airside.stack.operations.messages import OfferRequest

ANSWER_S = 60.0
"""Longest wait for an answer of the stack: whoever asked has given up by then."""

_LOOK_S = 2.0
_KNOWN_S = 1.0
"""How long it is believed which layers are there: everybody may ask, and each look is a question to the stack."""

_NEEDED = ("driver", "journal")
"""The layers without which no run begins, beside Ingress."""


class StackConnection:
    """`StackPort` of a stack that runs; `attach` finds the one that was started in its place."""

    def __init__(self, attach: Callable[[], Connection]) -> None:
        self._attach = attach
        self._connection = attach()
        self._connecting = asyncio.Lock()
        self._looking = asyncio.Lock()
        self._seen_s, self._is_there = -_KNOWN_S, False
        self._intake_seen_s, self._has_intake = -_KNOWN_S, False

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()

    async def ask(self, method: Method[Request, Reply], request: Request) -> Reply:
        """Return a layer's reply, of the stack that is there now."""
        return await self._asked(method, request, ANSWER_S)

    async def _asked(self, method: Method[Request, Reply], request: Request, within_s: float) -> Reply:
        connection = self._connection
        try:
            return await drive_async(connection.call(method, request, within_s=within_s))
        except InvalidInput:  # what cannot be sent is no sign that the stack is gone
            raise
        except Misuse:
            connection = await self._attached_anew(connection)
            return await drive_async(connection.call(method, request, within_s=within_s))

    async def _attached_anew(self, gone: Connection) -> Connection:
        """Attach to the stack that is there now, once for all who find that theirs is gone."""
        async with self._connecting:
            if self._connection is gone:
                try:
                    self._connection = await asyncio.to_thread(self._attach)
                except (Misuse, LayerUnavailable) as error:
                    raise LayerUnavailable(f"the stack is gone: {error.message}") from None
                gone.close()
            return self._connection

    async def read_inputs(self, job: Job) -> Job:
        """Return a job with its inputs as the app's model reads them, where it has one."""
        connection = self._connection
        if time.monotonic() - self._intake_seen_s >= _KNOWN_S:  # an app that was reloaded may have inputs that none had
            self._has_intake = await asyncio.to_thread(connection.has, "intake")
            self._intake_seen_s = time.monotonic()
        if not self._has_intake:
            return job
        (found,) = await drive_async(read_jobs_inputs(connection, [job]))
        if isinstance(found, BadLine):
            raise InvalidInput(found.message.replace("jobs[0]", "job", 1))
        return found

    async def is_ready(self) -> bool:
        """Whether the layers answer without which no run begins; looked at once a second at most."""
        async with self._looking:
            if time.monotonic() - self._seen_s >= _KNOWN_S:
                self._is_there = await self._looked()
                self._seen_s = time.monotonic()
            return self._is_there

    async def _looked(self) -> bool:
        """Ask Ingress who nobody is, which also finds a stack that was started anew; then look at the others."""
        try:
            await self._asked(OFFER, OfferRequest(credential=""), _LOOK_S)
            layers = await asyncio.to_thread(self._connection.stats, _NEEDED, within_s=_LOOK_S)
        except (AirsideError, TimeoutError):
            return False
        return not any("down" in stats for stats in layers.values())
