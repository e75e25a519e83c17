"""What operators do beyond one run: kills, switches, budgets, what is in doubt, batches."""

from __future__ import annotations

import time

import msgspec
from starlette.responses import Response

from airside.actors.api.call import Call, as_json, look, operate
from airside.actors.api.messages import (
    BatchRequeue,
    BatchTuning,
    InDoubtResolution,
    KillRequest,
    Ordered,
    Reason,
    SpendResolution,
    SwitchRequest,
)
from airside.actors.api.runs import written
from airside.stack.operations.batches import BatchChange, BatchSettings
from airside.stack.operations.questions import OneBatch


async def kill_all(call: Call) -> Ordered:
    """End a tenant's runs, or all."""
    body: KillRequest = call.body
    return Ordered(reached=(await operate(call, "kill", body.scope, body.target, body.why)).reached)


async def switches(call: Call) -> Response:
    """List what is switched off, oldest first."""
    return as_json(await look(call, "switches", call.query))


async def switch(call: Call) -> Ordered:
    """Set a kill switch, or take it back; no run it covers is admitted, and no effect it covers starts any more."""
    body: SwitchRequest = call.body
    until_us = int((time.time() + body.for_s) * 1e6) if body.off and body.for_s else 0
    action = "switch_off" if body.off else "switch_on"
    reply = await operate(call, action, body.scope, body.target, body.why, until_us=until_us)
    return Ordered(reached=reply.reached)


async def budgets(call: Call) -> Response:
    """Show budgets: their limits, beside what is reserved, spent and in doubt."""
    return as_json(await look(call, "budgets", call.query))


async def tenants(call: Call) -> Response:
    """List tenants: what each may have, and of one that is named or one's own, what is kept in its memory."""
    return as_json(await look(call, "tenants", call.query))


async def policy(call: Call) -> Response:
    """Show the policy in force: its rules in words and as written, and how often each fired since a time."""
    return as_json(await look(call, "policy", call.query))


async def in_doubt(call: Call) -> Response:
    """List the calls of which nobody knows whether they happened, oldest first."""
    return as_json(await look(call, "in_doubt", call.query))


async def resolve(call: Call) -> Ordered:
    """Say what became of a call in doubt: a run that waits goes on, of an ended one it is put on record."""
    body: InDoubtResolution = call.body
    output = written(body.output)
    reply = await operate(call, "settle", "run", body.target, body.why, happened=body.happened, output=output)
    return Ordered(reached=reply.reached)


async def spend_in_doubt(call: Call) -> Response:
    """List the attempts at questions to models that count in full because nobody knows what they cost."""
    return as_json(await look(call, "spend_in_doubt", call.query))


async def resolve_spend(call: Call) -> Ordered:
    """Say what an attempt at a question to a model cost; what was counted too much goes back to the budgets."""
    body: SpendResolution = call.body
    more = {"tokens": body.tokens, "cost_microusd": body.cost_microusd}
    return Ordered(reached=(await operate(call, "resolve_spend", "run", body.key, body.why, **more)).reached)


async def batches(call: Call) -> Response:
    """List batches, newest first."""
    return as_json(await look(call, "batches", call.query))


async def batch(call: Call) -> Response:
    """Show one batch: how it stands, by whose last order, and its runs by how they ended."""
    return as_json(await look(call, "batch", OneBatch(batch=call.path["batch"])))


async def pause(call: Call) -> Ordered:
    """Have a batch submit nothing more for now; what is under way goes on."""
    return await _change(call, BatchChange(action="pause"))


async def resume(call: Call) -> Ordered:
    """Have a paused or cancelled batch go on."""
    return await _change(call, BatchChange(action="resume"))


async def cancel_batch(call: Call) -> Ordered:
    """End a batch: it submits nothing more, and its runs are withdrawn."""
    return await _change(call, BatchChange(action="cancel"))


async def retune(call: Call) -> Ordered:
    """Change how a batch is run, from what it submits next."""
    body: BatchTuning = call.body
    given = {name: getattr(body, name) for name in BatchSettings.__struct_fields__}
    return await _change(call, BatchChange(action="retune", settings=BatchSettings(**given)))


async def requeue(call: Call) -> Ordered:
    """Have jobs of a batch run again."""
    body: BatchRequeue = call.body
    return await _change(call, BatchChange(action="requeue", job_ids=body.job_ids))


async def _change(call: Call, change: BatchChange) -> Ordered:
    body: Reason | BatchTuning | BatchRequeue = call.body
    output = msgspec.json.encode(change)
    return Ordered(reached=(await operate(call, "batch", "all", call.path["batch"], body.why, output=output)).reached)
