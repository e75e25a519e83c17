"""`DecisionModels`: the models that one decision of one run may ask, and what they cost it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from airside.stack.contracts.models import ModelReply, ModelRequest, Prompt
from airside.stack.errors import AirsideError
from airside.stack.ids import RunId
from airside.stack.ports import Models
from airside.stack.reasons import ReasonCode
from airside.stack.values import FREE, ModelLane, Spend, at_least, plus


class ModelUnanswered(AirsideError):
    """No model answered; `reason` says why, and becomes that of the run unless the agent does without."""

    def __init__(self, reason: ReasonCode, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Who asks: the run, its step and epoch, and for how long an answer may be waited for."""

    identity: bytes
    proof: str
    run_id: RunId
    version: str
    step: int
    epoch: int
    timeout_ms: int
    traceparent: str
    lane: ModelLane = "direct"


class DecisionModels:
    """One decision's.  It numbers its questions: the same ones are asked again when the decision is made again."""

    def __init__(self, models: Models, asker: Asker) -> None:
        self._models = models
        self._asker = asker
        self._asked = 0
        self._unanswered = 0
        self._spent = FREE

    def spent(self, reserved: Spend | None) -> Spend:
        """Return what the decision's questions cost: all that is reserved, if it did not wait for one of them."""
        return at_least(self._spent, reserved or FREE) if self._unanswered else self._spent

    async def ask(self, models: Sequence[str], prompt: Prompt) -> ModelReply:
        """Ask the first of some models that answers; raise `ModelUnanswered` if none does."""
        nth, self._asked = self._asked, self._asked + 1
        asker = self._asker
        self._unanswered += 1
        reply = await self._models.ask(
            ModelRequest(
                identity=asker.identity,
                proof=asker.proof,
                run_id=asker.run_id,
                version=asker.version,
                step=asker.step,
                epoch=asker.epoch,
                nth=nth,
                models=tuple(models),
                prompt=prompt,
                timeout_ms=asker.timeout_ms,
                traceparent=asker.traceparent,
                lane=asker.lane,
            )
        )
        self._unanswered -= 1  # not where it was given up: the question is under way
        self._spent = plus(self._spent, reply.spend)
        if reply.reason_code is not None:
            raise ModelUnanswered(reply.reason_code, reply.error)
        return reply


class ModelsOfView:
    """What an agent has of them."""

    __slots__ = ("ask",)

    def __init__(self, models: DecisionModels) -> None:
        self.ask = models.ask
