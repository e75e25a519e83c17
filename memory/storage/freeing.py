"""Memory that was freed and is not given back: the C library and pyarrow keep it for what comes next.

What a table's rewriting, a compaction or ten thousand records took is seldom needed again soon, and a cell has other
processes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import pyarrow as pa

_MALLOC = ((-8, 2), (-3, 1024 * 1024))
"""glibc's M_ARENA_MAX and M_MMAP_THRESHOLD (`man mallopt`): LanceDB has many threads, each with an arena of its own,
and what a compaction took there does not come back.  With these 3,000 commits grow a process by 7 KB each, without
by 33.
"""


def bound_arenas() -> None:
    """Let the C library keep little, where it is glibc; before LanceDB's threads begin."""
    mallopt = _glibc("mallopt")
    if mallopt is not None:
        for name, value in _MALLOC:
            mallopt(name, value)


def give_back() -> None:
    """Give what is free back to the system: some milliseconds for hundreds of megabytes."""
    pa.default_memory_pool().release_unused()
    trim = _glibc("malloc_trim")
    if trim is not None:
        trim(0)


@cache
def _glibc(name: str) -> Callable[..., Any] | None:
    """Return a function of glibc's, None where the C library is another one."""
    function: Callable[..., Any] | None = getattr(ctypes.CDLL(None), name, None)
    return function
