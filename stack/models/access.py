"""`DecisionModels`: the models that one decision of one run may ask, as its agent has them."""

from __future__ import annotations

from collections.abc import Sequence

from airside.stack.contracts.models import ModelReply, ModelRequest, Prompt
from airside.stack.errors import AirsideError
from airside.stack.ids import RunId
from airside.stack.models.pricing import plus
from airside.stack.ports import Models
from airside.stack.reasons import ReasonCode
from airside.stack.values import FREE


class ModelUnanswered(AirsideError):
    """No model answered; `reason` says why, and becomes that of the run unless the agent does without."""

    def __init__(self, reason: ReasonCode, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class DecisionModels:
    """One decision's.  It numbers its questions: the same ones are asked again when the decision is made again.

    `spent` = what they cost, answered or not: the decision's spend is at least that.
    """

    def __init__(
        self,
        models: Models,
        *,
        identity: bytes,
        proof: str,
        run_id: RunId,
        version: str,
        step: int,
        epoch: int,
        seconds: float,
        traceparent: str,
    ) -> None:
        self._models = models
        self._identity = identity
        self._proof = proof
        self._run_id = run_id
        self._version = version
        self._step = step
        self._epoch = epoch
        self._timeout_ms = max(0, int(seconds * 1000))
        self._traceparent = traceparent
        self._asked = 0
        self.spent = FREE

    async def ask(self, models: Sequence[str], prompt: Prompt) -> ModelReply:
        """Ask the first of some models that answers; raise `ModelUnanswered` if none does."""
        nth, self._asked = self._asked, self._asked + 1
        reply = await self._models.ask(
            ModelRequest(
                identity=self._identity,
                proof=self._proof,
                run_id=self._run_id,
                version=self._version,
                step=self._step,
                epoch=self._epoch,
                nth=nth,
                models=tuple(models),
                prompt=prompt,
                timeout_ms=self._timeout_ms,
                traceparent=self._traceparent,
            )
        )
        self.spent = plus(self.spent, reply.spend)
        if reply.reason_code is not None:
            raise ModelUnanswered(reply.reason_code, reply.error)
        return reply
