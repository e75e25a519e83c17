"""Runs snippets by Monty, an interpreter of its own for a part of Python, in processes of its own.

A snippet that was paused here before, with the same results, goes on from there; any other is played from its start.
That saves time, and nothing depends on it.
"""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakValueDictionary

from airside.stack.errors import InvalidConfig
from airside.stack.ids import RunId, TenantId
from airside.stack.models.snippets import (
    MAX_SUSPENSIONS,
    Playback,
    SnippetFailed,
    SnippetState,
    SnippetWaits,
    Tools,
)
from airside.stack.run.state import StepRecord

if TYPE_CHECKING:
    from pydantic_monty import Monty, MontySession

MAX_MEMORY_BYTES = 64 * 2**20
MAX_SECONDS = 2.0
"""How long the interpreter may compute, all in all; what it waits for does not count."""

_MAX_RECURSION = 200
_MAX_TURN_S = 10.0
"""When a process is killed that does not hold its own limits."""

_MOST_AT_ONCE = 16
_MOST_OF_A_TENANT = 2
"""Snippets that one runtime has run at a time, and those of one tenant among them: who computes for as long as it may
keeps others waiting for a share of the processors, and never for its end."""

_MAX_PAUSED_BYTES = 2**20
_MAX_ALL_PAUSED_BYTES = 8 * 2**20
"""What is kept of one paused snippet with the results it had, each a little more than its bytes, and of all in a
process.  One that is not kept is run from its start."""


class SnippetPlace(NamedTuple):
    """Whose snippet it is, and the step by which it began."""

    tenant: TenantId
    run_id: RunId
    step: int


class Paused(NamedTuple):
    """A snippet that waits: what Monty and we know of it, and how many bytes that is with the results it had."""

    dump: bytes
    playback: Playback
    size: int


class Interpreter:
    """Runs snippets in processes of Monty's, which are kept: each snippet has a session of its own in one of them."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._threads = ThreadPoolExecutor(_MOST_AT_ONCE, thread_name_prefix="snippet")
        self._turns: WeakValueDictionary[TenantId, asyncio.Semaphore] = WeakValueDictionary()
        self._paused = PausedSnippets()

    @cached_property
    def _pool(self) -> Monty:
        """Monty's processes, made in the first thread that needs them: to import it takes a while."""
        from pydantic_monty import Monty  # an extra: only where an agent writes code

        pool = Monty(min_processes=0, max_processes=_MOST_AT_ONCE, request_timeout=_MAX_TURN_S)
        return pool.__enter__()  # its processes end with ours, whose end closes their input

    async def run(self, place: SnippetPlace, code: str, tools: Tools, records: Sequence[StepRecord]) -> SnippetState:
        """Run a snippet with the results it has so far; `tools` are what it may call, by their names in Python."""
        turns = self._turns.get(place.tenant)
        if turns is None:
            turns = self._turns[place.tenant] = asyncio.Semaphore(_MOST_OF_A_TENANT)
        await turns.acquire()
        paused = self._paused.take(place)
        if paused is not None and not paused.playback.leads_to(code, tools, records):
            paused = None
        running = asyncio.get_running_loop().run_in_executor(self._threads, self._run, code, tools, records, paused)
        running.add_done_callback(lambda _: turns.release())  # its thread goes on where nobody waits for it any more
        state, paused = await asyncio.shield(running)
        if paused is not None:
            self._paused.keep(place, paused)
        return state

    def _run(
        self, code: str, tools: Tools, records: Sequence[StepRecord], paused: Paused | None
    ) -> tuple[SnippetState, Paused | None]:
        with self._starting:
            pool = self._pool
        from pydantic_monty import MontyError

        playback = Playback(code, tools) if paused is None else paused.playback
        session = pool.checkout(
            script_name="snippet.py",
            limits={
                "max_feed_duration_secs": MAX_SECONDS,
                "max_memory": MAX_MEMORY_BYTES,
                "max_recursion_depth": _MAX_RECURSION,
                "max_suspensions": 2 * MAX_SUSPENSIONS,
            },
            os_policy={"datetime": "call_host", "sleep": "call_host", "random_start": "call_host"},
        )
        try:
            with session:
                state = playback.play(session, records, None if paused is None else paused.dump)
                return state, _pause(session, playback) if isinstance(state, SnippetWaits) else None
        except MontyError as error:
            display = getattr(error, "display", None)
            return playback.ended(error=str(error) if display is None else display()), None
        except SnippetFailed as error:
            return playback.ended(error=error.message), None


def _pause(session: MontySession, playback: Playback) -> Paused | None:
    from pydantic_monty import MontyError

    try:
        dump = session.dump()
    except MontyError:  # it waits all the same
        return None
    size = len(dump) + playback.size()
    return Paused(dump, playback, size) if size <= _MAX_PAUSED_BYTES else None


class PausedSnippets:
    """The latest paused snippets of a process, within so many bytes."""

    def __init__(self) -> None:
        self._kept: OrderedDict[SnippetPlace, Paused] = OrderedDict()
        self._bytes = 0

    def take(self, place: SnippetPlace) -> Paused | None:
        """Return what is kept of a snippet, once."""
        found = self._kept.pop(place, None)
        self._bytes -= 0 if found is None else found.size
        return found

    def keep(self, place: SnippetPlace, paused: Paused) -> None:
        """Keep a snippet, and let the oldest ones go that there is no room for."""
        self.take(place)
        self._kept[place] = paused
        self._bytes += paused.size
        while self._bytes > _MAX_ALL_PAUSED_BYTES:
            self.take(next(iter(self._kept)))


@cache
def interpreter() -> Interpreter:
    """Return this process's interpreter, made when it is first asked for."""
    return Interpreter()


def check_interpreter() -> None:
    """Raise `InvalidConfig` where Monty is not installed."""
    if importlib.util.find_spec("pydantic_monty") is None:
        raise InvalidConfig("code_mode needs the interpreter of airside[code]: pip install 'airside[code]'")
