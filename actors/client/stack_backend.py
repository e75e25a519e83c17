"""A client's access to a stack: jobs go in with a credential, results come back."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, Self

import msgspec

from airside.actors.client.connection import Connection, LiveJournal
from airside.actors.client.display.bundle import ASK_S, Asking
from airside.actors.client.display.listed import Story
from airside.actors.client.display.timeline import timeline_of
from airside.actors.client.steps import Steps, drive
from airside.actors.driver.in_doubt import list_in_doubt
from airside.actors.jobs import Job
from airside.actors.journal.story import read_story
from airside.actors.rpc.layer import now_us
from airside.actors.rpc.methods import BODIES, SUBMIT, WAIT, Ends, WaitRequest
from airside.stack.errors import InvalidInput, Misuse
from airside.stack.operations.messages import Submission, Ticket
from airside.stack.reasons import ReasonCode
from airside.stack.run.events import Event, decode_event

TOKEN_S = 3600
_KEPT_S = TOKEN_S / 2


class StackBackend:
    """`airside.actors.client.job_stream.Desk` of a stack."""

    def __init__(self, connection: Connection, sign: Callable[[str, str, int], str]) -> None:
        self._connection = connection
        self._sign = sign
        self._tokens: dict[tuple[str, str], tuple[str, float]] = {}
        self._asking = Asking()

    def __deepcopy__(self, _: object) -> Self:
        """Return itself: it is the way to a stack, which results have with them into `dataclasses.asdict`."""
        return self

    def _own_token(self, tenant: str, principal: str) -> str:
        """Return a token for local use, the same for as long as most of its life is left."""
        made = self._tokens.get((tenant, principal))
        if made is None or made[1] < time.monotonic():
            made = self._sign(tenant, principal, TOKEN_S), time.monotonic() + _KEPT_S
            self._tokens[tenant, principal] = made
        return made[0]

    def enter(self, jobs: Sequence[Job], within_s: float | None) -> Steps[list[Ticket]]:
        """Submit jobs; return what became of each."""
        items: list[Submission] = []
        tickets: dict[int, Ticket] = {}
        places: list[int] = []
        for i, job in enumerate(jobs):
            try:
                credential = job.token or self._own_token(job.tenant, job.principal)
                body = msgspec.json.encode(job.to_request())
            except InvalidInput as error:
                tickets[i] = Ticket(reason_code=ReasonCode.REQUEST_INVALID, message=error.message)
            except Misuse as error:
                tickets[i] = Ticket(reason_code=ReasonCode.AUTH_FAILED, message=error.message)
            else:
                nonce = job.nonce or secrets.token_bytes(16)
                items.append(Submission(credential=credential, request=body, nonce=nonce))
                places.append(i)
        if items:
            answers = yield from self._connection.call_each(SUBMIT, items, within_s=within_s)
            tickets |= dict(zip(places, answers, strict=True))
        return [tickets[i] for i in range(len(jobs))]

    def wait(self, wanted: WaitRequest, within_s: float | None) -> Steps[Ends]:
        """Return the `RunEnded` of those that have ended, as soon as there is one or the wait is over."""
        return (yield from self._connection.call(WAIT, wanted, within_s=within_s))

    def story(self, run_id: str) -> str:
        """Return a run as lines of text; raise `InvalidInput` if the journal has no such run."""
        text, events = read_story(LiveJournal(self._connection), run_id)
        return Story(text, timeline_of(events, now_us=now_us()))

    def events(self, run_id: str) -> tuple[list[Event], str]:
        """Return a run's events for a drawing of it, or none and why not; soon, whatever the stack does."""

        def read() -> list[Event]:
            bodies = drive(self._connection.call(BODIES, [run_id], within_s=ASK_S))
            return [decode_event(body) for body in bodies[run_id]]

        events, problem = self._asking.ask(read)
        return events or [], problem if events is None or events else f"the journal has no run {run_id}"

    def layers(self, names: Sequence[str]) -> tuple[dict[str, dict[str, Any]], str]:
        """Return what layers say of themselves, for a drawing; or nothing and why not, soon."""
        found, problem = self._asking.ask(lambda: self._connection.stats(names, within_s=0.75 * ASK_S))
        return found or {}, problem

    def overview(self, names: Sequence[str]) -> tuple[dict[str, dict[str, Any]], int, str]:
        """As `layers`, with how many calls are in doubt: none are counted where a layer is down or the journal slow."""
        found: dict[str, dict[str, Any]] = {}

        def look() -> int:
            found.update(self._connection.stats(names, within_s=0.75 * ASK_S))
            if any("down" in layer for layer in found.values()):
                return 0
            return len(list_in_doubt(LiveJournal(self._connection), None))

        doubts, problem = self._asking.ask(look)
        return dict(found), doubts or 0, "" if found else problem
