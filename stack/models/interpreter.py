"""Runs snippets by Monty, an interpreter of its own for a part of Python, in processes of its own."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from airside.stack.errors import InvalidConfig
from airside.stack.ids import TenantId
from airside.stack.models.snippets import (
    MAX_SUSPENSIONS,
    Playback,
    SnippetFailed,
    SnippetState,
    Tools,
)
from airside.stack.run.state import StepRecord

if TYPE_CHECKING:
    from pydantic_monty import Monty

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


class Interpreter:
    """Runs snippets in processes of Monty's, which are kept: each snippet has a session of its own in one of them."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_MOST_AT_ONCE, thread_name_prefix="snippet")
        self._pool = self._threads.submit(_started)  # to import Monty takes a while
        self._turns: WeakValueDictionary[TenantId, asyncio.Semaphore] = WeakValueDictionary()

    async def run(self, tenant: TenantId, code: str, tools: Tools, records: Sequence[StepRecord]) -> SnippetState:
        """Run a snippet with the results it has so far; `tools` are what it may call, by their names in Python."""
        turns = self._turns.get(tenant)
        if turns is None:
            turns = self._turns[tenant] = asyncio.Semaphore(_MOST_OF_A_TENANT)
        await turns.acquire()
        running = asyncio.get_running_loop().run_in_executor(self._threads, self._run, code, tools, records)
        running.add_done_callback(lambda _: turns.release())  # its thread goes on where nobody waits for it any more
        return await asyncio.shield(running)

    def _run(self, code: str, tools: Tools, records: Sequence[StepRecord], *, is_last: bool = False) -> SnippetState:
        pool = self._pool.result()
        from pydantic_monty import MontyCrashedError, MontyError

        playback = Playback(code, tools, records)
        session = pool.checkout(
            script_name="snippet.py",
            limits={
                "max_feed_duration_secs": MAX_SECONDS,
                "max_memory": MAX_MEMORY_BYTES,
                "max_recursion_depth": _MAX_RECURSION,
                "max_suspensions": MAX_SUSPENSIONS,
            },
            os_policy={"datetime": "call_host", "sleep": "call_host", "random_start": "call_host"},
        )
        try:
            with session:
                return playback.play(session)
        except MontyError as error:
            if isinstance(error, MontyCrashedError) and not error.timed_out and not is_last:
                return self._run(code, tools, records, is_last=True)  # its process may have died of something else
            display = getattr(error, "display", None)
            return playback.ended(error=str(error) if display is None else display())
        except SnippetFailed as error:
            return playback.ended(error=error.message)


def _started() -> Monty:
    from pydantic_monty import Monty  # an extra: only where an agent writes code

    pool = Monty(min_processes=0, max_processes=_MOST_AT_ONCE, request_timeout=_MAX_TURN_S)
    return pool.__enter__()  # its processes end with ours, whose end closes their input


@cache
def interpreter() -> Interpreter:
    """Return this process's interpreter, made when it is first asked for."""
    return Interpreter()


def check_interpreter() -> None:
    """Raise `InvalidConfig` where Monty is not installed."""
    if importlib.util.find_spec("pydantic_monty") is None:
        raise InvalidConfig("code_mode needs the interpreter of airside[code]: pip install 'airside[code]'")
