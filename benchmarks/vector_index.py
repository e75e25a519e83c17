"""From how many records a tenant LanceDB's vector index is worth having, beside the exact product in RAM.

    python -m benchmarks.vector_index [--records 20000 100000 300000]

Vectors lie about 500 centres, as those of texts about 500 matters do; a question lies beside one of them.  Contenders
take turns, question by question.  `recall` is the share of the ten nearest that are among the 64 found; `build_s` is
what making the index takes, on all cores; `share` is the size of the index's files by that of the vectors.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from airside.memory.embedders.embedder import Vectors
from benchmarks.measure import last_line, machine, median

DIMENSION, CENTRES, QUESTIONS, FOUND, NEAREST = 384, 500, 30, 64, 10


def unit(vectors: Vectors) -> Vectors:
    """Return vectors of length 1."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), dtype=np.float32)


def made(count: int, seed: int) -> tuple[Vectors, Vectors]:
    """Return so many vectors, and questions beside some of them."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((CENTRES, DIMENSION)).astype(np.float32)
    noise = rng.standard_normal((count, DIMENSION)).astype(np.float32)
    vectors = unit(centres[rng.integers(0, CENTRES, count)] + np.float32(0.9) * noise)
    asked = vectors[rng.integers(0, count, QUESTIONS)]
    return vectors, unit(asked + np.float32(0.05) * rng.standard_normal(asked.shape).astype(np.float32))


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return how many milliseconds something takes, and what it returns."""
    began = time.perf_counter()
    found = work()
    return (time.perf_counter() - began) * 1000, found


def size(folder: Path) -> int:
    """Return the bytes of a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure(folder: Path, count: int) -> dict[str, Any]:
    """Measure one size."""
    import lancedb
    import pyarrow as pa
    from lancedb.index import HnswSq

    vectors, questions = made(count, count)
    rows = pa.table(
        {
            "number": np.arange(count),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIMENSION),
        }
    )
    table = lancedb.connect(str(folder)).create_table("vectors", rows)
    before = size(folder)
    build_ms, _ = timed(
        lambda: table.create_index(
            "vector", config=HnswSq(distance_type="cosine", num_partitions=max(1, count // 50_000))
        )
    )
    taken: dict[str, list[float]] = {"ram": [], "index": []}
    hits = 0
    for question in questions:
        ms, nearest = timed(lambda q=question: np.argpartition(-(vectors @ q), NEAREST)[:NEAREST])  # type: ignore[misc]
        taken["ram"].append(ms)
        search = table.search(question).distance_type("cosine").limit(FOUND)
        ms, found = timed(lambda s=search: s.to_arrow()["number"].to_pylist())  # type: ignore[misc]
        taken["index"].append(ms)
        hits += len(set(found) & set(nearest.tolist()))
    return {
        "records": count,
        "ram_ms": round(median(taken["ram"]), 2),
        "index_ms": round(median(taken["index"]), 2),
        "recall": round(hits / (NEAREST * QUESTIONS), 3),
        "build_s": round(build_ms / 1000, 1),
        "share": round((size(folder) - before) / vectors.nbytes, 2),
    }


def main() -> None:
    """Measure every size, and print all of them last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, nargs="+", default=[20_000, 100_000, 300_000])
    options = parser.parse_args()
    print(json.dumps(machine()), flush=True)
    lines = []
    for count in options.records:
        folder = Path(tempfile.mkdtemp(prefix="airside-index-"))
        try:
            lines.append(measure(folder, count))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        print(json.dumps(lines[-1]), flush=True)
    last_line({"sizes": lines})


if __name__ == "__main__":
    main()
