"""Following the journal: its entries as they are made durable, page by page, each after the cursor before it."""

from __future__ import annotations

import time
from collections.abc import Callable

from airside.actors.client.steps import Steps
from airside.actors.rpc.methods import FeedPage
from airside.stack.errors import AuthRefused, InvalidInput, Refused
from airside.stack.journal.feed import NOW, JournalEntry

POLL_S = 10.0
"""Longest wait in one question; an entry that is appended answers at once."""

Ask = Callable[[str, float], Steps[FeedPage]]
"""Asks for the page after a cursor, waiting so many seconds for it."""


class JournalFollower:
    """Made on `ask`.  With a `timeout` it is over once nothing more has come for so many seconds."""

    def __init__(
        self, ask: Ask, after: str, *, timeout: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._after = after
        self._timeout = timeout
        self._clock = clock

    def begin(self) -> Steps[None]:
        """Find out where "now" is."""
        page = yield from self._ask(self._after, 0.0)
        _check(page)
        self._after = page.cursor

    def next_entries(self) -> Steps[list[JournalEntry]]:
        """Return the next entries, none once it is over.

        Raises `InvalidInput` for a cursor that is none of this feed, `AuthRefused` or `Refused` for who may not follow,
        and `LayerUnavailable` if the journal stays away: asked again it goes on where it was.
        """
        until = None if self._timeout is None else self._clock() + self._timeout
        if self._after == NOW:  # where that is has to be known before anything is waited for, and asked for again
            yield from self.begin()
        while True:
            page = yield from self._ask(self._after, POLL_S if until is None else min(POLL_S, until - self._clock()))
            _check(page)
            self._after = page.cursor
            if page.entries:
                return list(page.entries)
            if until is not None and self._clock() >= until:
                return []


def _check(page: FeedPage) -> None:
    if page.code == "invalid":
        raise InvalidInput(page.problem)
    if page.code in ("wrong_role", "too_many"):
        raise Refused(page.problem, reason=page.code)
    if page.code:
        raise AuthRefused(page.problem, reason=page.code)
