"""ToolExecutor: one dispatcher of the pool.  Holds the tools and their credentials."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import msgspec

from airside.actors.layer import Layer, LayerConfig, control, now_us
from airside.actors.stubs import encode, encode_json
from airside.stack.ids import RunId, mint_executor
from airside.stack.ports import ExecuteRequest
from airside.tools.dispatch import Dispatcher
from airside.tools.tool import Tool, Toolset


class ToolExecutor(Layer):
    """Carries out granted calls; every (re)start is another incarnation, for which old grants are void."""

    def __init__(self, config: LayerConfig, tools: Sequence[Tool | Toolset]) -> None:
        super().__init__(config)
        self._tools = tools

    async def start(self) -> None:
        """Take a new incarnation id."""
        self._request = msgspec.msgpack.Decoder(ExecuteRequest).decode
        self._run_id = msgspec.msgpack.Decoder(str).decode
        self._dispatcher = Dispatcher(
            self._tools, seal_key=self.config.seal_key, executor_id=mint_executor(os.urandom), now_us=now_us
        )

    async def incarnation(self) -> str:
        """Return the id grants must name."""
        await self.ready()
        return self._dispatcher.executor_id

    async def execute(self, batch: list[bytes]) -> list[bytes]:
        """Carry out or refuse each call of a batch."""
        await self.ready()

        async def one(item: bytes) -> bytes:
            return encode_json(await self._dispatcher.execute(self._request(item)))

        return await self.answer_each(batch, one)

    async def release(self, batch: list[bytes]) -> list[bytes]:
        """Close what some runs hold."""
        await self.ready()

        async def one(item: bytes) -> bytes:
            await self._dispatcher.release(RunId(self._run_id(item)))
            return encode(True)

        return await self.answer_each(batch, one)

    async def stats(self) -> dict[str, Any]:
        """Return the calls of this incarnation."""
        return dict(self._dispatcher.stats()) if self._started else {}


control(ToolExecutor.stats)
