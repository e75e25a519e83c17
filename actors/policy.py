"""Policy: the gate behind a list method.  Holds tool specs, the bundle and the seal key; runs nobody's code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from airside.actors.layer import Layer, LayerConfig, control, now_us
from airside.stack.gate import Gate, GateRequest
from airside.stack.ids import Buffered
from airside.stack.policy import load_bundle
from airside.stack.toolspec import ToolSpec


class Policy(Layer):
    """Decides about calls."""

    def __init__(self, config: LayerConfig, bundle_yaml: str, tools: Sequence[ToolSpec]) -> None:
        super().__init__(config)
        self._bundle_yaml = bundle_yaml
        self._tools = tools
        self._decisions = {"allow": 0, "deny": 0, "require_approval": 0}

    async def start(self) -> None:
        """Compile the bundle and the tools' validators."""
        self._decoder = msgspec.msgpack.Decoder(GateRequest)
        self._encoder = msgspec.msgpack.Encoder()
        self._gate = Gate(
            bundle=load_bundle(self._bundle_yaml),
            tools=self._tools,
            seal_key=self.config.seal_key,
            now_us=now_us,
            random=Buffered(),
        )

    async def decide(self, batch: list[bytes]) -> list[bytes]:
        """Decide about each call of a batch."""
        await self.ready()
        answers = []
        for item in batch:
            reply = self._gate.decide(self._decoder.decode(item))
            self._decisions[reply.decision.outcome] += 1
            answers.append(self._encoder.encode(reply))
        return answers

    async def stats(self) -> dict[str, Any]:
        """Return the decisions made since this incarnation began."""
        return dict(self._decisions)


control(Policy.stats)
