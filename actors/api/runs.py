"""Runs: submitting them, and what has become of them."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from typing import Any

import msgspec
from starlette.responses import Response

from airside.actors.api.call import JSON, Call, as_json, look, operate
from airside.actors.api.messages import HistoryQuery, Ordered, Reason, RunAccepted, RunRequest, RunResult
from airside.actors.api.problems import check
from airside.actors.jobs import job_of
from airside.actors.rpc.methods import SUBMIT, WATCH_RUN
from airside.stack.contracts.streams import WatchPage, WatchRequest
from airside.stack.errors import InvalidInput, Refused
from airside.stack.ids import RunId
from airside.stack.operations.messages import Submission, Ticket
from airside.stack.operations.overview import ACTIVE, RunDetail
from airside.stack.operations.questions import OneRun, RunEvents
from airside.stack.reasons import ReasonCode

MAX_KEY_CHARS = 256
"""Of an idempotency key: a UUID, or a name that a service has for what it asks."""

_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.05, 2.0
"""How often it is looked whether a run has ended: at first after so long, then ever later; each is a read of it."""

_CROWDED_LOOKS = 100
"""How often a look is tried again while too many others of the tenant look."""


async def submit(call: Call) -> Response:
    """Submit a job, and return its run at once.

    With a header `Idempotency-Key` the same key and body of the same principal are the same run, whenever they come;
    the same key with another body is refused as `idempotency_conflict`.
    """
    key = call.headers.get("idempotency-key")
    run_id = await submitted(call, call.body, None if key is None else nonce_of(key))
    headers = {"Location": f"/v1/runs/{run_id}"}
    return Response(msgspec.json.encode(RunAccepted(run_id=run_id)), 202, headers, JSON)


async def submitted(call: Call, body: RunRequest, nonce: bytes | None) -> RunId:
    """Submit a job and return its run; by a nonce it is the same run, and another job is refused."""
    fields = {name: getattr(body, name) for name in body.__struct_fields__ if name != "request"}
    fields["labels"] = list(body.labels)
    job = await call.stack.read_inputs(job_of(body.request, {"token": call.credential}, fields))
    request = msgspec.json.encode(job.to_request())
    nonce, is_keyed = nonce or secrets.token_bytes(16), nonce is not None
    submission = Submission(credential=call.credential, request=request, nonce=nonce, is_keyed=is_keyed)
    ticket = await call.stack.ask(SUBMIT, submission)
    if not ticket.run_id:
        _refuse(ticket)
    if ticket.is_anothers:
        problem = (
            f"the Idempotency-Key is that of another request, whose run is {ticket.run_id}: take a new one for each"
        )
        raise Refused(problem, reason="idempotency_conflict")
    return ticket.run_id


def nonce_of(key: str) -> bytes:
    """Return what a submission with a client's key is known by; raise `Refused` for what is no key."""
    if not 0 < len(key) <= MAX_KEY_CHARS or not (key.isascii() and key.isprintable()):
        problem = f"Idempotency-Key: it is no text of 1 to {MAX_KEY_CHARS} printable ASCII characters"
        raise Refused(problem, reason="malformed")
    return hashlib.blake2b(key.encode(), digest_size=16, person=b"airside http").digest()


def _refuse(ticket: Ticket) -> None:
    reason = ticket.reason_code or ReasonCode.INTERNAL_ERROR
    if reason is ReasonCode.INTERNAL_ERROR:  # a layer behind Ingress was away, and it may have been admitted
        check("unavailable", f"{ticket.message}: submit it again, with an Idempotency-Key that makes it the same run")
    check(reason.value, ticket.message or reason.sentence, retry_after_s=ticket.retry_after_s)


async def first_page(call: Call, run_id: RunId, events: int = 0) -> WatchPage:
    """Return what a run has on record after so many events; raise `Refused` for who may not see it."""
    asked = WatchRequest(
        run_id=run_id, after=0, born="", timeout_s=0.0, credential=call.credential, events=events, with_events=True
    )
    for _ in range(_CROWDED_LOOKS):
        page = await call.stack.ask(WATCH_RUN, asked)
        if page.code != "too_many":
            break
        await asyncio.sleep(_FIRST_LOOK_S)
    check(page.code, page.problem)
    return page


async def runs(call: Call) -> Response:
    """List runs, newest first: one's own, or with a role for it the tenant's."""
    return as_json(await look(call, "runs", call.query))


async def run(call: Call) -> Response:
    """Show one run: what was asked, each of its steps and waits, and what came of it."""
    return as_json(await look(call, "run", OneRun(run_id=call.path["run_id"])))


async def result(call: Call) -> Response:
    """Return how a run ended, waiting for that for up to `wait_s` seconds; 202 while it has not."""
    until = time.monotonic() + call.query.wait_s
    pause = _FIRST_LOOK_S
    while True:
        left = until - time.monotonic()
        try:
            found = await look(call, "run", OneRun(run_id=call.path["run_id"]))
        except Refused as refused:
            if refused.reason != "too_many" or left <= 0:
                raise
        else:
            detail = msgspec.json.decode(found, type=RunDetail)
            if detail.run.status != ACTIVE or left <= 0:
                break
        await asyncio.sleep(min(pause, left))
        pause = min(2 * pause, _LONGEST_LOOK_S)
    status = 202 if detail.run.status == ACTIVE else 200
    return Response(msgspec.json.encode(result_of(detail)), status, media_type=JSON)


def result_of(detail: RunDetail) -> RunResult:
    """Return how a run ended, by all there is of it."""
    there = detail.run
    return RunResult(
        run_id=there.run_id,
        status=there.status,
        reason_code=there.reason_code,
        phase=there.phase,
        answer=detail.answer,
        detail=detail.detail,
        in_doubt=detail.in_doubt,
        steps=there.steps,
        tool_calls=there.tool_calls,
        tokens=there.tokens,
        cost_microusd=there.cost_microusd,
        job_id=there.job_id,
    )


async def history(call: Call) -> Response:
    """Return the events of a run that are on record, as they are."""
    query: HistoryQuery = call.query
    asked = RunEvents(run_id=call.path["run_id"], after=query.after, limit=query.limit)
    return as_json(await look(call, "events", asked))


async def story(call: Call) -> Response:
    """Return a run as lines of text: what happened, and why."""
    return as_json(await look(call, "story", OneRun(run_id=call.path["run_id"])))


async def cancel(call: Call) -> Ordered:
    """Withdraw a run: whoever asked for it, or an operator."""
    return await _order(call, "cancel")


async def kill(call: Call) -> Ordered:
    """End a run, whatever it is doing."""
    return await _order(call, "kill")


async def rollback(call: Call) -> Response:
    """Take back what an ended run and its branches did, latest first, and return how each call stands.

    Ordered again it goes on where it stopped, and does nothing twice.
    """
    body: Reason = call.body
    reply = await operate(call, "rollback", "run", call.path["run_id"], body.why)
    return as_json(reply.report)


async def _order(call: Call, action: str) -> Ordered:
    body: Reason = call.body
    return Ordered(reached=(await operate(call, action, "run", call.path["run_id"], body.why)).reached)


def written(value: Any) -> bytes:
    """Return a value of a request's body as JSON."""
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError) as error:
        raise InvalidInput(str(error)) from None
