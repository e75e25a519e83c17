"""Memory: the memory service behind list methods; the single writer of the LanceDB tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from airside.actors.layer import Layer, LayerConfig, control, now_us
from airside.memory.embedder import Embedder
from airside.memory.service import MemoryService
from airside.stack.ports import Candidate, LearnReply, RecallRequest


class Memory(Layer):
    """Recalls and learns."""

    def __init__(self, config: LayerConfig, embedder: Callable[[], Embedder]) -> None:
        super().__init__(config)
        self._embedder = embedder

    async def start(self) -> None:
        """Make the service; the model is loaded when the first text needs it."""
        self._recall = msgspec.msgpack.Decoder(RecallRequest).decode
        self._candidate = msgspec.msgpack.Decoder(Candidate).decode
        self._encode = msgspec.msgpack.Encoder().encode
        self._service = MemoryService(self.config.state_dir / "memory", self._embedder, now_us)

    async def retrieve(self, batch: list[bytes]) -> list[bytes]:
        """Answer each query of a batch."""
        await self.ready()

        async def one(item: bytes) -> bytes:
            return self._encode(await self._service.retrieve(self._recall(item)))

        return await self.answer_each(batch, one)

    async def write_if_useful(self, batch: list[bytes]) -> list[bytes]:
        """Keep each candidate of a batch that is worth it."""
        await self.ready()

        async def one(item: bytes) -> bytes:
            try:
                return self._encode(await self._service.write_if_useful(self._candidate(item)))
            except Exception as error:
                return self._encode(LearnReply(code=f"error: {type(error).__name__}: {error}"[:300]))

        return await self.answer_each(batch, one)

    async def stats(self) -> dict[str, Any]:
        """Return the open tenants, their records, and cached queries."""
        return dict(self._service.stats()) if self._started else {}


control(Memory.stats)
