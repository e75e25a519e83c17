"""ModelCaller: asks models for all runs of the stack.  The one layer that is given providers' keys.

There is one of it, so that what a provider allows of an account holds for the whole cluster; one that was restarted
counts what the one before it sent, from the journal.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Mapping
from typing import Any

from airside.actors.models.blobs import BLOBS, FileBlobs
from airside.actors.models.ports import ports_of
from airside.actors.rpc.layer import LayerConfig, control, now_us
from airside.actors.rpc.methods import ASK_MODEL, RESERVED, WATCH
from airside.actors.rpc.remote import Remote
from airside.actors.rpc.serving import Denial, serves
from airside.actors.rpc.stubs import RemoteJournal
from airside.actors.wardens.watched import WatchedLayer
from airside.stack.contracts.models import ModelReply, ModelRequest
from airside.stack.contracts.streams import WatchPage, WatchRequest
from airside.stack.models.batches import ModelBatches
from airside.stack.models.calls import ModelCalls
from airside.stack.models.endpoints import ModelEndpoint
from airside.stack.models.recent_attempts import count_recent
from airside.stack.models.streams import AnswerStreams
from airside.stack.reasons import ReasonCode


def _no(reason: ReasonCode) -> Denial:
    def refuse(_: object, why: str) -> ModelReply:
        return ModelReply(reason_code=reason, error=why)

    return refuse


class ModelCaller(WatchedLayer):
    """Asks models within what is reserved."""

    def __init__(
        self,
        config: LayerConfig,
        endpoints: Mapping[str, ModelEndpoint],
        keys: Mapping[str, str],
        blob_key: bytes,
    ) -> None:
        """`blob_key` encrypts the prompts that are kept, if the setting `model_content` says so."""
        super().__init__(config)
        self._blob_key = blob_key
        self._endpoints = endpoints
        self._keys = keys

    async def start(self) -> None:
        """Make the models ready to be asked; providers' clients are made when they are asked first.

        Begins when the journal says what was sent in the last minute: without it nothing could be sent anyhow.
        """
        journal, policy = RemoteJournal(self.config.cell), Remote(self.config.cell, "policy")
        models = ports_of(self._endpoints, self._keys)
        await count_recent(models, rows=journal.rows, now_us=now_us, now_s=time.monotonic)
        self._streams = AnswerStreams(born=secrets.token_hex(8), now_s=time.monotonic)
        keeps_prompts = self.config.settings.model_content == "full"
        self._calls = ModelCalls(
            models,
            reserved=lambda question: policy.call(RESERVED, question),
            append=journal.append,
            bodies=journal.bodies,
            now_us=now_us,
            now_s=time.monotonic,
            sleep=asyncio.sleep,
            streams=self._streams,
            batches=ModelBatches(
                append=journal.append,
                bodies=journal.bodies,
                now_us=now_us,
                now_s=time.monotonic,
                sleep=asyncio.sleep,
                mint=lambda: secrets.token_hex(16),
            ),
            prompts=FileBlobs(self.config.state_dir / BLOBS, self._blob_key) if keeps_prompts else None,
        )

    @serves(ASK_MODEL, unreadable=_no(ReasonCode.MODEL_UNAVAILABLE), failed=_no(ReasonCode.MODEL_UNAVAILABLE))
    def ask(self, request: ModelRequest) -> Awaitable[ModelReply]:
        """Answer a run's question, or say why not."""
        return self._calls.ask(request)

    @serves(WATCH)
    async def watch(self, asked: WatchRequest) -> WatchPage:
        """Return what models say for a run while they say it."""
        return await self._streams.page(asked)

    async def stats(self) -> dict[str, Any]:
        """Return the requests that were sent since this process began, those that were answered, and how many ends of
        attempts wait for the journal.
        """
        if not self._started:
            return {}
        calls = self._calls
        return {"asked": calls.asked, "answered": calls.answered, "unwritten": calls.unwritten}


control(ModelCaller.stats)
