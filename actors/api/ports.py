"""What the API needs of a stack."""

from __future__ import annotations

from typing import Protocol

from airside.actors.jobs import Job
from airside.actors.rpc.methods import Method, Reply, Request


class StackPort(Protocol):
    """A stack, asked by credential: every request that matters carries one, and the stack says what it is worth."""

    async def ask(self, method: Method[Request, Reply], request: Request) -> Reply:
        """Return a layer's reply; raise `LayerUnavailable` or `TimeoutError` where there is none in time."""
        ...

    async def read_inputs(self, job: Job) -> Job:
        """Return a job with its inputs as the app's model reads them; raise `InvalidInput` for what it refuses."""
        ...

    async def is_ready(self) -> bool:
        """Whether the stack answers; never raises, and is soon there."""
        ...
