"""What memory costs: embedding, retrieving and writing, beside LanceDB called directly and numpy alone.

    python -m benchmarks.memory [--quick]

Records are twelve words drawn from `benchmarks/data/memories.jsonl`, as often as they are there, with random vectors;
a search has its question's embedding in the cache, as a run has after its first step.  Contenders take turns, question
by question, in one process, on one tenant at a time; `airside_alone` are the same questions with nobody in between, as
the actor gets them (a search through LanceDB leaves nothing in the CPU's caches), and what the last line has.
`search_after_1000_writes_ratio` is the median search after 1,000 single, acknowledged writes by that before, at 10,000
records; `rss_kb_per_write` is by how much the process has grown after 3,000 to a tenant of 1,000, what is held in RAM
of each included.

`writes_per_cpu_s` are records written in groups, 10,000 to one tenant, by the CPU time of the whole process from the
first one until what was written is compacted (the callers', LanceDB's and numpy's threads included), less what the
embedder took in its own thread; `embedder_cpu_share` is the part of all of it that was left out, and `embedder_cpu_ms`
what the default embedder takes for one of sixteen texts.  `rss_after_erase_ratio` and `rss_after_writes_ratio` are the
process's resident memory after 10,000 records were written and erased, and after 10,000 were written, expired and were
swept, by that before, when 1,000 had been written, searched and erased.  `--quick` leaves out 100,000 records and 1,000
tenants.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import tempfile
import time
import zlib
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import lancedb
import numpy as np

from airside.memory.embedders.embedder import SentenceTransformerEmbedder, Vectors
from airside.memory.service import MemoryService
from airside.memory.storage.erasure import Erasure
from airside.stack.contracts.memory import Candidate, RecallRequest
from airside.stack.ids import TenantId
from benchmarks.measure import last_line, machine, memory_mib, percentile

DIMENSION = 384
QUESTIONS = 200
WRITES = 1_000
GROWTH_WRITES = 3_000
RETURN_WRITES = 10_000
CORPUS = Path(__file__).with_name("data") / "memories.jsonl"


class RandomEmbedder:
    """Gives every text a random vector, always the same one; a model would be all that is measured.

    `cpu_s` is what that took.
    """

    name, dimension = "random", DIMENSION

    def __init__(self) -> None:
        self.cpu_s = 0.0

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one unit vector per text."""
        began = time.thread_time()
        made = np.stack([np.random.default_rng(zlib.crc32(text.encode())).standard_normal(DIMENSION) for text in texts])
        vectors = np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), dtype=np.float32)
        self.cpu_s += time.thread_time() - began
        return vectors


@lru_cache
def words() -> list[str]:
    """Return all words of the corpus, repeated as they are."""
    lines = [json.loads(line) for line in CORPUS.read_text().splitlines()]
    return [word for line in lines if line["type"] == "document" for word in line["text"].split()]


def sentence(random_: random.Random) -> str:
    """Return twelve words."""
    return " ".join(random_.choices(words(), k=12))


def figures(samples: Sequence[float]) -> dict[str, float]:
    """Return the median, the 99th percentile, and how many one after the other are done a second."""
    found = {"p50": round(percentile(samples, 0.5), 4), "p99": round(percentile(samples, 0.99), 4)}
    return {**found, "per_s": round(1000 * len(samples) / sum(samples))}


def fact(tenant: TenantId, text: str, ttl_s: int | None = None) -> Candidate:
    """Return a candidate."""
    return Candidate(tenant=tenant, text=text, kind="fact", source="benchmark", trust="medium", ttl_s=ttl_s)


async def filled(
    service: MemoryService, tenant: TenantId, count: int, seed: int = 1, ttl_s: int | None = None
) -> float:
    """Let a tenant have so many records; return how many were written a second."""
    chosen, began = random.Random(seed), time.perf_counter()
    for at in range(0, count, 2_000):
        texts = [sentence(chosen) for _ in range(min(2_000, count - at))]
        await asyncio.gather(*(service.write_if_useful(fact(tenant, text, ttl_s)) for text in texts))
    return count / (time.perf_counter() - began)


async def timed(work: Callable[[], Awaitable[Any]]) -> float:
    """Return how many milliseconds something takes."""
    began = time.perf_counter()
    await work()
    return (time.perf_counter() - began) * 1000


class Contenders:
    """One tenant's memory searched in three ways: through the service, through LanceDB, and by numpy alone."""

    def __init__(self, service: MemoryService, folder: Path, tenant: TenantId) -> None:
        self._service = service
        self._tenant = tenant
        self._table = lancedb.connect(str(folder)).open_table(f"t_{tenant}")
        self._vectors = np.stack(self._table.to_arrow()["vector"].to_numpy())

    async def search(self, question: str, taken: dict[str, list[float]]) -> None:
        """Let each answer a question, whose embedding is in the cache, in turn."""
        request = RecallRequest(tenant=self._tenant, query=question, clearance="internal")
        await self._service.retrieve(request)
        vector = RandomEmbedder().embed([question])[0]

        async def lance() -> None:
            self._table.search(vector).limit(4).to_arrow()

        async def plain() -> None:
            np.argpartition(-(self._vectors @ vector), min(4, len(self._vectors) - 1))

        for name, work in (("airside", lambda: self._service.retrieve(request)), ("lancedb", lance), ("numpy", plain)):
            taken.setdefault(name, []).append(await timed(work))


async def searches(service: MemoryService, folder: Path, tenant: TenantId, count: int) -> dict[str, Any]:
    """Search one tenant, taking turns; then once more with nobody in between."""
    contenders, chosen, taken = Contenders(service, folder, tenant), random.Random(2), dict[str, list[float]]()
    questions = [sentence(chosen) for _ in range(QUESTIONS if count <= 20_000 else QUESTIONS // 4)]
    for question in questions:
        await contenders.search(question, taken)
    requests = [RecallRequest(tenant=tenant, query=question, clearance="internal") for question in questions]
    taken["airside_alone"] = [await timed(lambda r=request: service.retrieve(r)) for request in requests]  # type: ignore[misc]
    return {name: figures(values) for name, values in taken.items()}


async def singles(service: MemoryService, folder: Path, tenant: TenantId, count: int) -> dict[str, Any]:
    """Write one record after the other, each acknowledged before the next, taking turns with LanceDB's own `add`.

    LanceDB checks nothing, brings nothing to disk and compacts nothing.
    """
    rows = lancedb.connect(str(folder)).open_table(f"t_{tenant}").head(1)
    plain = lancedb.connect(str(folder / "plain")).create_table(tenant, rows)
    chosen = random.Random(3)

    async def lance() -> None:
        plain.add(rows)

    taken: dict[str, list[float]] = {"airside": [], "lancedb": []}
    for _ in range(count):
        taken["airside"].append(await timed(lambda: service.write_if_useful(fact(tenant, sentence(chosen)))))
        taken["lancedb"].append(await timed(lance))
    return {name: figures(values) for name, values in taken.items()}


async def settled(service: MemoryService) -> None:
    """Wait until what was written is compacted: LanceDB's own reader does not bear that files go."""
    while service.stats()["unsettled"]:  # noqa: ASYNC110 - the service has no event for it
        await asyncio.sleep(0.1)


async def one_tenant(service: MemoryService, embedder: RandomEmbedder, folder: Path, count: int) -> dict[str, Any]:
    """Measure a tenant of so many records; return the figures of the last line that come from it."""
    tenant = TenantId(f"n{count}")
    cpu_s, embedding_s = time.process_time(), embedder.cpu_s
    rate = round(await filled(service, tenant, count))
    await settled(service)
    cpu_s, embedding_s = time.process_time() - cpu_s, embedder.cpu_s - embedding_s
    cpu = {
        "writes_per_cpu_s": round(count / (cpu_s - embedding_s)),
        "embedder_cpu_share": round(embedding_s / cpu_s, 3),
    }
    before = await searches(service, folder, tenant, count)
    print(json.dumps({"records": count, "tenants": 1, "written_per_s": rate, **cpu, "ms": before}), flush=True)
    writes = await singles(service, folder, tenant, WRITES)
    await settled(service)
    after = await searches(service, folder, tenant, count)
    fragments = len(list((folder / f"t_{tenant}.lance" / "data").iterdir()))
    line = {"records": count, "single_writes": WRITES, "ms": writes, "fragments": fragments, "search_ms": after}
    print(json.dumps(line), flush=True)
    ratio = after["airside_alone"]["p50"] / before["airside_alone"]["p50"]
    return {
        "retrieve_p50_ms_10k": before["airside_alone"]["p50"],
        "retrieve_p99_ms_10k": before["airside_alone"]["p99"],
        "writes_per_s": rate,
        **cpu,
        "search_after_1000_writes_ratio": round(ratio, 3),
    }


async def growth(service: MemoryService) -> float:
    """Return by how many KB the process grows a single write."""
    tenant = TenantId("growing")
    await filled(service, tenant, 1_000)
    chosen = random.Random(6)
    for number in range(100 + GROWTH_WRITES):
        if number == 100:  # what is loaded once is loaded
            before = memory_mib([os.getpid()])
        await service.write_if_useful(fact(tenant, sentence(chosen)))
    return (memory_mib([os.getpid()]) - before) * 1024 / GROWTH_WRITES


def rss_mib() -> float:
    """Return the process's resident memory."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


async def returned(folder: Path) -> dict[str, float]:
    """Write 10,000 records and erase them, write 10,000 and let them expire; return what memory that leaves taken."""
    now_us, mib = [time.time_ns() // 1000], {}
    service = MemoryService(folder, RandomEmbedder, lambda: now_us[0])
    steps = (("warm", 1_000, True), ("erased", RETURN_WRITES, True), ("expired", RETURN_WRITES, False))
    for seed, (name, count, is_erased) in enumerate(steps):
        tenant = TenantId(name)
        await filled(service, tenant, count, seed, ttl_s=60)
        await service.retrieve(RecallRequest(tenant=tenant, query=sentence(random.Random(7)), clearance="internal"))
        mib[f"{name}_written"] = rss_mib()
        if is_erased:
            await service.erase(Erasure(tenant=tenant, what="tenant"))
        else:
            now_us[0] += 61_000_000
            await service.sweep()
        mib[name] = rss_mib()
    service.close()
    print(json.dumps({"rss_mib": {name: round(value, 1) for name, value in mib.items()}}), flush=True)
    return {
        "rss_after_erase_ratio": round(mib["erased"] / mib["warm"], 3),
        "rss_after_writes_ratio": round(mib["expired"] / mib["warm"], 3),
    }


async def many_tenants(service: MemoryService, folder: Path, count: int) -> None:
    """Measure so many tenants of 20 records each, which are searched one after the other."""
    names = [TenantId(f"m{count}-{i}") for i in range(count)]
    began = time.perf_counter()
    await asyncio.gather(*(filled(service, name, 20, i) for i, name in enumerate(names)))
    rate = 20 * count / (time.perf_counter() - began)
    await settled(service)
    taken: dict[str, list[float]] = {}
    for name in names:
        await Contenders(service, folder, name).search(sentence(random.Random(5)), taken)
    ms = {name: figures(values) for name, values in taken.items()}
    line = {"records": 20, "tenants": count, "written_per_s": round(rate), "ms": ms}
    print(json.dumps(line), flush=True)


async def measure(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Measure everything, printing a line a measurement; return the last line."""
    kept = await returned(folder / "returned")  # first: what others freed would be there for it
    embedder = RandomEmbedder()
    service = MemoryService(folder / "memory", lambda: embedder, lambda: time.time_ns() // 1000)
    folder = folder / "memory"
    grown = await growth(service)
    last: dict[str, Any] = {}
    for count in (1_000, 10_000) if quick else (1_000, 10_000, 100_000):
        found = await one_tenant(service, embedder, folder, count)
        last = found if count == 10_000 else last
    for tenants in (100,) if quick else (100, 1_000):
        await many_tenants(service, folder, tenants)
    service.close()
    return {**last, "rss_kb_per_write": round(grown, 2), **kept}


def embedding() -> dict[str, Any]:
    """Measure the default embedder: one text, and sixteen at once."""
    embedder, chosen = SentenceTransformerEmbedder(), random.Random(4)
    embedder.embed([sentence(chosen)])
    found = {}
    for count in (1, 16):
        taken, used = [], []
        for _ in range(20):
            texts = [sentence(chosen) for _ in range(count)]
            began, cpu_s = time.perf_counter(), time.process_time()
            embedder.embed(texts)
            taken.append((time.perf_counter() - began) * 1000)
            used.append((time.process_time() - cpu_s) * 1000 / count)
        found[f"texts_{count}"] = {**figures(taken), "per_s": round(1000 * count * len(taken) / sum(taken))}
    return {"embedder": embedder.name, "ms": found, "embedder_cpu_ms": round(sum(used) / len(used), 2)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the summary last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only what takes a minute")
    options = parser.parse_args(arguments)
    print(json.dumps(machine()), flush=True)
    folder = Path(tempfile.mkdtemp(prefix="airside-memory-"))
    try:
        last = asyncio.run(measure(folder, quick=options.quick))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    model = embedding()  # last: what a model leaves behind is not memory's growth
    print(json.dumps(model), flush=True)
    last_line({**last, "embedder_cpu_ms": model["embedder_cpu_ms"]})


if __name__ == "__main__":
    main()
