"""Spend in doubt: attempts at questions to models of which nobody knows what they cost.

Each counts at the most it could cost, for ever if nobody says otherwise.  Who finds out (by the provider's bill) puts
it on record as `SpendResolved`, in a stream of the attempt's own that takes one entry.  That changes no run: what was
counted too much goes back to the budgets that its tenant shares, in the windows in which it was counted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from airside.stack.contracts.models import MAX_BATCHED_S
from airside.stack.errors import InvalidInput
from airside.stack.ids import PrincipalId, RunId, TenantId, parse_run
from airside.stack.journal.journaling import Append
from airside.stack.journal.stream import append_of
from airside.stack.models.calls import MAX_QUESTION_S
from airside.stack.models.events import ModelAnswered, ModelAsked, ModelEvent, ModelFailed, stream_of
from airside.stack.run import events as ev
from airside.stack.security.seals import from_text, is_sealed, seal, to_text
from airside.stack.values import FREE, Count, Spend, Value, less

_KEY = re.compile(r"(run_[0-9a-f.-]+):([0-9]{1,9})/model@([0-9]{1,9})")
_STREAMS = "spend/"
_PURPOSE = "spend"

DIED = "no answer is on record: the model caller died while it was under way"
NO_USAGE = "the answer came without usage that can be believed"


class SpendInDoubt(Value):
    """An attempt that counts as `reserved`, because nobody knows what it cost, and why nobody does."""

    key: str
    run_id: RunId
    tenant: TenantId
    step: int
    epoch: int
    attempt: int
    model: str
    since_us: int
    reserved: Spend
    cause: str


class SpendResolved(Value, tag=True):
    """A person found out what an attempt cost.

    `back` is what was counted too much, of the tenant's budgets in the windows of `counted_us`.  `seal` is the
    driver's: the gate gives nothing back on the word of who can merely write to the journal.
    """

    at_us: int
    run_id: RunId
    step: Count
    attempt: Count
    key: str
    by: PrincipalId
    spent: Spend
    back: Spend
    counted_us: int
    note: str = ""
    seal: str = ""

    def __str__(self) -> str:
        cost = f"{self.spent.tokens} tokens, {self.spent.cost_microusd} micro-USD"
        return f"{self.by} resolved {self.key}: it cost {cost} {self.note}".strip()


_decoder = msgspec.json.Decoder(SpendResolved)


class Attempt(NamedTuple):
    """An attempt at a question of one decision, as a key names it."""

    run_id: RunId
    step: int
    number: int

    @property
    def stream(self) -> str:
        """The stream of the decision's questions."""
        return stream_of(self.run_id, self.step)


def spend_key(run_id: RunId, step: int, attempt: int) -> str:
    """Return the key of an attempt."""
    return f"{run_id}:{step}/model@{attempt}"


def parse_spend_key(text: str) -> Attempt:
    """Parse the key of an attempt; raise `InvalidInput` for what is none."""
    found = _KEY.fullmatch(text)
    if found is None:
        raise InvalidInput(f"{text!r:.100} is no key of spend in doubt: `airside in-doubt spend` lists them")
    return Attempt(parse_run(found[1]), int(found[2]), int(found[3]))


def spend_stream(key: str) -> str:
    """Return the journal's stream of what was found out about an attempt."""
    return f"{_STREAMS}{key}"


def decode_spend(body: bytes | str) -> SpendResolved:
    """Decode what was found out."""
    return _decoder.decode(body)


def _sealed_part(resolved: SpendResolved, tenant: TenantId) -> bytes:
    return msgspec.json.encode([tenant, msgspec.structs.replace(resolved, seal="")])


def seal_spend(key: bytes, resolved: SpendResolved, tenant: TenantId) -> SpendResolved:
    """Return it with the driver's seal, which binds it to its tenant."""
    return msgspec.structs.replace(resolved, seal=to_text(seal(key, _PURPOSE, _sealed_part(resolved, tenant))))


def open_spend(key: bytes, body: str, tenant: TenantId) -> SpendResolved | None:
    """Return what was found out if the driver sealed it, None for anything else."""
    try:
        found = decode_spend(body)
    except msgspec.MsgspecError:
        return None
    return found if is_sealed(key, _PURPOSE, _sealed_part(found, tenant), from_text(found.seal)) else None


def spend_append(resolved: SpendResolved, tenant: TenantId) -> Append:
    """Return the append that puts it on record; the same one again is the same entry, another is fenced."""
    return append_of(tenant, spend_stream(resolved.key), [resolved])


def spend_in_doubt(
    attempt: Attempt, tenant: TenantId, events: Sequence[ModelEvent], *, now_us: int
) -> list[SpendInDoubt]:
    """Return the attempts of one decision (whichever `attempt` is) of which nobody knows what they cost.

    One that may still be under way is not in doubt yet.
    """
    ends = {event.attempt: event for event in events if not isinstance(event, ModelAsked)}
    asked = [event for event in events if isinstance(event, ModelAsked)]
    found = []
    for event in asked:
        end = ends.get(event.attempt)
        longest_s = MAX_BATCHED_S if event.batch else MAX_QUESTION_S
        may_answer = event is asked[-1] and now_us - event.at_us < longest_s * 1_000_000
        cause = _cause(event, end) if end is not None else "" if may_answer else DIED
        if cause:
            found.append(
                SpendInDoubt(
                    key=spend_key(attempt.run_id, attempt.step, event.attempt),
                    run_id=attempt.run_id,
                    tenant=tenant,
                    step=attempt.step,
                    epoch=event.epoch,
                    attempt=event.attempt,
                    model=event.model,
                    since_us=event.at_us,
                    reserved=event.reserved,
                    cause=cause,
                )
            )
    return found


def _cause(asked: ModelAsked, end: ModelAnswered | ModelFailed) -> str:
    """Return why nobody knows what an attempt cost that has ended; nothing if somebody does."""
    if asked.reserved == FREE or end.spent != asked.reserved:
        return ""
    if isinstance(end, ModelFailed):
        return end.error or "it failed"
    used = None if end.input_tokens is None or end.output_tokens is None else end.input_tokens + end.output_tokens
    return "" if used == end.spent.tokens else NO_USAGE


def counted_at(events: Sequence[ev.Event], doubt: SpendInDoubt) -> int:
    """Return when an attempt's decision was counted in budgets; raise `InvalidInput` if its run has not ended.

    Until then the run's own account holds it, and what its decisions cost is not settled.
    """
    if not events or not isinstance(events[-1], ev.RunEnded):
        raise InvalidInput(f"{doubt.run_id} has not ended: resolve what it spent when it has")
    epoch, counted_us = 0, doubt.since_us
    for event in events:
        if isinstance(event, ev.RunActivated):
            epoch = event.epoch
        elif isinstance(event, ev.SpendAsked) and (event.step, epoch) == (doubt.step, doubt.epoch):
            counted_us = event.at_us
    return counted_us


def resolved_spend(
    doubt: SpendInDoubt, spent: Spend, *, by: str, at_us: int, counted_us: int, note: str
) -> SpendResolved:
    """Return what is put on record of an attempt; raise `InvalidInput` if it cost more than was reserved."""
    if spent.tokens > doubt.reserved.tokens or spent.cost_microusd > doubt.reserved.cost_microusd:
        most = f"{doubt.reserved.tokens} tokens and {doubt.reserved.cost_microusd} micro-USD"
        raise InvalidInput(f"{doubt.key}: it counts as {most}, the most it could cost: give no more than that")
    return SpendResolved(
        at_us=at_us,
        run_id=doubt.run_id,
        step=doubt.step,
        attempt=doubt.attempt,
        key=doubt.key,
        by=PrincipalId(by),
        spent=spent,
        back=less(doubt.reserved, spent),
        counted_us=counted_us,
        note=note[:1000],
    )
