"""A run as it goes on: what its models say while they say it, and its events as they are made durable."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from airside.actors.client.results import ResultsInterrupted, cancelled_as
from airside.actors.client.steps import Steps
from airside.stack.contracts.streams import StreamPart, WatchPage, WatchRequest
from airside.stack.errors import AuthRefused, InvalidInput, Refused
from airside.stack.ids import RunId
from airside.stack.run.events import Event, RunEnded, decode_event
from airside.stack.run.story import event_line
from airside.stack.values import tag_of

POLL_S = 1.0
"""Longest wait in one question: text is answered at once, an event is seen after that at most."""

EVENTS_S = 0.5
"""How often the run's events are read while text comes: each time that is the whole run."""

Kind = Literal["text", "begun", "restarted", "failed", "answered", "event"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunNews:
    """One thing that happened in a run, or in a branch of it.

    `text` is more of an answer (`kind="text"`, only while `model` gives it), why it starts anew or there is none
    (`restarted`, `failed`: what was shown of it counts no more), or the line of an event (`kind="event"`, of this
    `type`).
    """

    kind: Kind
    run_id: str
    step: int
    text: str = ""
    model: str = ""
    type: str = ""


Ask = Callable[[WatchRequest], Steps[WatchPage]]
"""Asks for what follows, with the run's events."""


class RunStream:
    """Made on `ask`; it is over when the run has ended, or nothing has come for `timeout` seconds."""

    def __init__(
        self, ask: Ask, run_id: RunId, *, timeout: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._run_id = run_id
        self._timeout = timeout
        self._clock = clock
        self._after, self._born, self._events = 0, "", 0
        self._is_over = False
        self._read_s: float | None = None

    def next_news(self) -> Steps[list[RunNews]]:
        """Return what has happened, none once it is over; raise `Refused` or `AuthRefused` for who may not watch."""
        until = None if self._timeout is None else self._clock() + self._timeout
        while not self._is_over:
            now = self._clock()
            left_s = POLL_S if until is None else min(POLL_S, until - now)
            with_events = self._read_s is None or now - self._read_s >= EVENTS_S
            if with_events:
                self._read_s = now
            asked = WatchRequest(
                run_id=self._run_id,
                after=self._after,
                born=self._born,
                timeout_s=max(0.0, left_s),
                events=self._events,
                with_events=with_events,
            )
            try:
                page = yield from self._ask(asked)
            except asyncio.CancelledError as error:
                cancelled_as(error, ResultsInterrupted((self._run_id,)))
                raise
            _check(page)
            news = self._taken(page)
            if not page.parts:
                self._read_s = None  # nothing is being said: whatever happens next is an event
            if news:
                return news
            if until is not None and self._clock() >= until:
                break
        return []

    def _taken(self, page: WatchPage) -> list[RunNews]:
        self._after, self._born = page.upto, page.born
        news = [RunNews(kind="restarted", run_id=self._run_id, step=0, text="some was lost")] if page.is_torn else []
        news += [_of_part(part) for part in page.parts]
        for number, body in enumerate(page.events, self._events):
            event = decode_event(body)
            news.append(_of_event(self._run_id, number, event))
            self._is_over |= isinstance(event, RunEnded)
        self._events += len(page.events)
        return news


def _of_part(part: StreamPart) -> RunNews:
    return RunNews(kind=part.kind, run_id=part.run_id, step=part.step, text=part.text, model=part.model)


def _of_event(run_id: RunId, number: int, event: Event) -> RunNews:
    step = getattr(event, "step", 0)
    return RunNews(kind="event", run_id=run_id, step=step, text=event_line(number, event), type=tag_of(event))


def _check(page: WatchPage) -> None:
    if page.code == "invalid":
        raise InvalidInput(page.problem)
    if page.code in ("unknown", "too_many"):
        raise Refused(page.problem, reason=page.code)
    if page.code:
        raise AuthRefused(page.problem, reason=page.code)
