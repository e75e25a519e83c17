"""What the two local embedders cost and how far they agree: MiniLM in full precision on PyTorch, and in int8 on ONNX.

    python -m benchmarks.embedders

Milliseconds are medians of rounds in which the two take turns, one thread each.  `one` is a text of 14 words; `even`
are texts of 14 words, `mixed` of 4 to 200, which a batch of PyTorch pads to the longest.  `load_s` (from the imports to
the first vector) and `rss_mib` (after 32 mixed texts) are of a process of its own, `make_s` is what making the int8
model takes, once.  `cosine` is between the two models' vectors of 200 texts of 3 to 200 words, taken from this
repository's documents.  Not measured: how much of recall's quality the difference costs.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from airside.memory.embedders.embedder import Embedder, SentenceTransformerEmbedder
from airside.memory.embedders.onnx_embedder import OnnxEmbedder
from benchmarks.measure import last_line, machine, median

ROUNDS = 9
CASES = {"one": (1, [14]), "even_8": (8, [14]), "even_32": (32, [14]), "mixed_8": (8, []), "mixed_32": (32, [])}
MIXED = [4, 8, 14, 30, 60, 120, 200]
DOCUMENTS = ("ARCHITECTURE.md", "README.md", "CHANGELOG.md", "CONTRIBUTING.md")


def texts(count: int, lengths: Sequence[int], seed: int = 1) -> list[str]:
    """Return pieces of the documents, of so many words each in turn."""
    root, choice = Path(__file__).parents[1], random.Random(seed)
    words = [word for name in DOCUMENTS for word in (root / name).read_text("utf-8").split()]
    starts = [choice.randrange(len(words) - max(lengths)) for _ in range(count)]
    return [" ".join(words[start : start + lengths[i % len(lengths)]]) for i, start in enumerate(starts)]


def embedders(folder: Path) -> dict[str, Callable[[], Embedder]]:
    """Return what makes each."""
    return {"minilm": SentenceTransformerEmbedder, "int8": partial(OnnxEmbedder, folder)}


def alone(name: str, folder: Path) -> None:
    """Load one embedder in this process and print what that took."""
    began = time.perf_counter()
    embedder = embedders(folder)[name]()
    embedder.embed(["the first"])
    loaded_s = time.perf_counter() - began
    embedder.embed(texts(32, MIXED))
    status = Path("/proc/self/status").read_text()
    rss_kib = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
    print(json.dumps({"load_s": round(loaded_s, 2), "rss_mib": rss_kib // 1024}))


def alone_in_process(name: str, folder: Path) -> dict[str, Any]:
    """Return the medians of three processes that load one embedder each."""
    command = [sys.executable, "-m", "benchmarks.embedders", name, str(folder)]
    lines = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(3)]
    found = [json.loads(line.splitlines()[-1]) for line in lines]
    return {key: median([each[key] for each in found]) for key in found[0]}


def main() -> None:
    """Measure, and print the figures as the last line."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        began = time.perf_counter()
        OnnxEmbedder(folder)
        figures: dict[str, Any] = {"make_s": round(time.perf_counter() - began, 1)}
        apart = {name: alone_in_process(name, folder) for name in embedders(folder)}
        made = {name: make() for name, make in embedders(folder).items()}
    for case, (count, lengths) in CASES.items():
        batch = texts(count, lengths or MIXED)
        samples: dict[str, list[float]] = {name: [] for name in made}
        for _ in range(ROUNDS):
            for name, embedder in made.items():
                began = time.perf_counter()
                embedder.embed(batch)
                samples[name].append((time.perf_counter() - began) * 1e3)
        figures[f"{case}_ms"] = {name: round(median(taken), 1) for name, taken in samples.items()}
    varied = texts(200, [3, *MIXED], seed=2)
    cosines = (made["minilm"].embed(varied) * made["int8"].embed(varied)).sum(axis=1)
    figures["cosine"] = {"min": round(float(cosines.min()), 4), "mean": round(float(cosines.mean()), 4)}
    print(machine())
    last_line({"rounds": ROUNDS, **figures, "alone": apart})


if __name__ == "__main__":
    if len(sys.argv) == 3:
        alone(sys.argv[1], Path(sys.argv[2]))
    else:
        main()
