"""The embedder behind a queue: texts of many runs embedded together, questions first and remembered.

It is loaded at first need, and it and its one thread are the slowest part of memory by far: 10 ms a text against a
fraction of one for a search.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from airside.memory.embedders.embedder import Embedder, Vectors
from airside.memory.search.index import Query
from airside.stack.errors import MemoryFailed, text_of
from airside.stack.ids import TenantId

MOST_AT_ONCE = 16
"""Texts embedded together: more are hardly faster each, and a question would wait for all of them."""

CACHED_QUERIES = 256
"""Questions of a tenant whose vectors are kept: a run asks the same at every step."""

CACHED_TENANTS = 256
"""Tenants whose questions are kept."""

EMBED_S = 60.0
"""How long a batch may take; whoever waits is told then, and the embedder's thread goes on."""

_UNEVEN = 0.02
"""By how much a vector's length may differ from 1: half precision rounds."""

Waiting = tuple[str, "asyncio.Future[Vectors]"]


_QUESTIONS, _TEXTS = 0, 1


class Queue:
    """Texts that wait, taken from one tenant after the other: nobody waits for all that another one asks."""

    def __init__(self) -> None:
        self._tenants: OrderedDict[TenantId, deque[Waiting]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._tenants.values()))

    def put(self, tenant: TenantId, waiting: Waiting) -> None:
        """Let a text wait."""
        self._tenants.setdefault(tenant, deque()).append(waiting)

    def take(self, most: int) -> list[Waiting]:
        """Take the next ones."""
        taken: list[Waiting] = []
        while self._tenants and len(taken) < most:
            tenant, queue = self._tenants.popitem(last=False)
            taken.append(queue.popleft())
            if queue:
                self._tenants[tenant] = queue
        return taken


class Embedding:
    """Embeds texts; one thread works, and everything else is the event loop's."""

    def __init__(self, make: Callable[[], Embedder]) -> None:
        self._make = make
        self._embedder: Embedder | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embed")
        self._queues = (Queue(), Queue())
        self._working: asyncio.Task[None] | None = None
        self._asked: OrderedDict[TenantId, OrderedDict[str, Query]] = OrderedDict()

    async def model(self) -> Embedder:
        """Return the embedder, loaded; raise `MemoryFailed` if it cannot be."""
        if self._embedder is None:
            await self._on_thread(self._load)
        assert self._embedder is not None
        return self._embedder

    def cached(self, tenant: TenantId, text: str) -> Query | None:
        """Return a question that this tenant asked lately."""
        asked = self._asked.get(tenant)
        query = asked.get(text) if asked is not None else None
        if asked is not None and query is not None:
            asked.move_to_end(text)
            self._asked.move_to_end(tenant)
        return query

    async def question(self, tenant: TenantId, text: str) -> Query:
        """Return a question with its vector, of unit length; raise `MemoryFailed` if the embedder fails."""
        asked = self._asked.setdefault(tenant, OrderedDict())
        query = Query.of(text, await self._enqueue(_QUESTIONS, tenant, text))
        asked[text] = query  # in vain if what the tenant asked was forgotten meanwhile
        if len(asked) > CACHED_QUERIES:
            asked.popitem(last=False)
        if len(self._asked) > CACHED_TENANTS:
            self._asked.popitem(last=False)
        return query

    async def texts(self, tenant: TenantId, texts: Sequence[str]) -> Vectors:
        """Return one vector of unit length a text, shape (texts, dimension); raise `MemoryFailed` as `question`."""
        return np.stack(await asyncio.gather(*(self._enqueue(_TEXTS, tenant, text) for text in texts)))

    def forget(self, tenant: TenantId) -> None:
        """Forget what a tenant asked."""
        self._asked.pop(tenant, None)

    @property
    def size(self) -> int:
        """Questions remembered."""
        return sum(map(len, self._asked.values()))

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _enqueue(self, kind: int, tenant: TenantId, text: str) -> asyncio.Future[Vectors]:
        """Let a text wait for its vector."""
        future: asyncio.Future[Vectors] = asyncio.get_running_loop().create_future()
        self._queues[kind].put(tenant, (text, future))
        if self._working is None or self._working.done():
            self._working = asyncio.ensure_future(self._work())
        return future

    async def _work(self) -> None:
        waiting: list[Waiting] = []
        try:
            await asyncio.sleep(0)  # those who ask in this turn of the loop are answered together
            while any(self._queues):
                for queue in self._queues:  # in turn, questions first: neither waits for more than one batch
                    waiting = queue.take(MOST_AT_ONCE)
                    if waiting:
                        await self._answer(waiting)
        except BaseException:  # the process ends
            left = [each for queue in self._queues for each in queue.take(len(queue))]
            _fail([*waiting, *left], MemoryFailed("memory was closed meanwhile"))
            raise

    async def _answer(self, waiting: list[Waiting]) -> None:
        try:
            embedder = await self.model()
            async with asyncio.timeout(EMBED_S):
                vectors = np.asarray(await self._on_thread(embedder.embed, [text for text, _ in waiting]))
            if (
                vectors.dtype.kind != "f"
                or vectors.shape != (len(waiting), embedder.dimension)
                or not _are_unit(vectors)
            ):
                raise MemoryFailed(f"embedder {embedder.name} answered {vectors.shape}, or no vectors of length 1")
        except Exception as error:
            _fail(waiting, error if isinstance(error, MemoryFailed) else MemoryFailed(_describe_failure(error)))
            return
        for (_, future), vector in zip(waiting, vectors, strict=True):
            if not future.done():
                future.set_result(vector)

    def _load(self) -> None:
        if self._embedder is None:
            self._embedder = self._make()

    async def _on_thread(self, function: Callable[..., Vectors | None], *args: object) -> Vectors:
        found = await asyncio.get_running_loop().run_in_executor(self._thread, _kept_from_ending, function, *args)
        return found if found is not None else np.zeros((0, 0), dtype=np.float32)


def _kept_from_ending(function: Callable[..., Vectors | None], *args: object) -> Vectors | None:
    """Call an embedder's function; one that wants to end the process fails, and no more."""
    try:
        return function(*args)
    except (SystemExit, KeyboardInterrupt) as error:
        raise MemoryFailed(_describe_failure(error)) from None


def _are_unit(vectors: Vectors) -> bool:
    return bool((np.abs(np.linalg.norm(vectors, axis=1) - 1) < _UNEVEN).all())  # also false for what is no number


def _fail(waiting: Sequence[Waiting], error: MemoryFailed) -> None:
    for _, future in waiting:
        if not future.done():
            future.set_exception(error)


def _describe_failure(error: BaseException) -> str:
    return f"embedder: {text_of(error, 500)}"
