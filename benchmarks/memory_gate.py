"""What memory keeps: precision and recall of its write gate, and whether the newer of two texts is found first.

    python -m benchmarks.memory_gate [--candidates FILE ...] [--pairs FILE ...]

The files' forms are in `benchmarks/data/gate/README.md`.  Each candidate is offered to the gate by itself.  Of each
pair, in a tenant of its own, the old text is written, a day later the new one, and then a question is asked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from airside.memory.embedders.embedder import SentenceTransformerEmbedder
from airside.memory.rules import MemoryRules
from airside.memory.service import MemoryService
from airside.memory.writing.quality_gate import draft
from airside.stack.contracts.memory import Candidate, RecallRequest
from airside.stack.errors import InvalidInput
from airside.stack.ids import TenantId, parse_tenant
from airside.stack.reasons import MemoryCode
from benchmarks.measure import machine

FOLDER = Path(__file__).parent / "data" / "gate"
DAY_US = 86_400_000_000
START_US = 1_700_000_000_000_000
TOP_K = 4

Form = TypeVar("Form")


class GateCandidate(msgspec.Struct, frozen=True):
    """A text, and whether it is worth keeping."""

    text: str
    keep: bool
    kind: str = ""
    lang: str = ""


class Statement(msgspec.Struct, frozen=True):
    """One text of a pair, with its topic and subject where it has them."""

    text: str
    topic: str = ""
    subject: str = ""


class Pair(msgspec.Struct, frozen=True):
    """An older and a newer text: the newer one replaces the older, or both are to stay."""

    old: Statement
    new: Statement
    relation: Literal["supersedes", "keep_both"]
    query: str = ""
    lang: str = ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a line a kind and the summary last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=Path, nargs="*", default=sorted(FOLDER.glob("candidates*.jsonl")))
    parser.add_argument("--pairs", type=Path, nargs="*", default=sorted(FOLDER.glob("pairs*.jsonl")))
    options = parser.parse_args(arguments)
    print(json.dumps(machine()))
    for file in options.candidates:
        print(json.dumps({"file": str(file), **judged(read(file, GateCandidate))}))
    candidates = [each for file in options.candidates for each in read(file, GateCandidate)]
    kinds = sorted({(each.kind, each.keep) for each in candidates})
    for kind, keep in kinds:
        of_kind = [each for each in candidates if (each.kind, each.keep) == (kind, keep)]
        codes = Counter(code_of(each.text) or "kept" for each in of_kind)
        print(json.dumps({"kind": kind, "keep": keep, "count": len(of_kind), "codes": dict(codes.most_common())}))
    pairs = [each for file in options.pairs for each in read(file, Pair)]
    print(json.dumps({**judged(candidates), **asyncio.run(asked(pairs))}))


def read(file: Path, form: type[Form]) -> list[Form]:
    """Return the lines of a file; raise `InvalidInput` naming the line that is none."""
    found = []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        if line.strip():
            try:
                found.append(msgspec.json.decode(line, type=form))
            except msgspec.DecodeError as error:
                raise InvalidInput(f"{file}:{number}: {error}") from error
    return found


# Candidates.


def code_of(text: str) -> MemoryCode | None:
    """Return why the gate refuses a text, None if it keeps it."""
    offered = Candidate(tenant=parse_tenant("benchmark"), text=text, kind="fact", source="benchmark", trust="medium")
    found = draft(offered, MemoryRules(), START_US)
    return found if isinstance(found, MemoryCode) else None


def judged(candidates: Iterable[GateCandidate]) -> dict[str, Any]:
    """Return the precision of what is kept, the recall of what is worth it, and how many injections are kept."""
    counts = Counter((each.keep, code_of(each.text) is None, each.kind == "injection") for each in candidates)
    right = sum(counts[True, True, each] for each in (False, True))
    kept = right + sum(counts[False, True, each] for each in (False, True))
    worth = right + sum(counts[True, False, each] for each in (False, True))
    return {
        "precision": round(right / kept, 4) if kept else None,
        "recall": round(right / worth, 4) if worth else None,
        "injections_kept": counts[False, True, True],
        "candidates": counts.total(),
        "worth_keeping": worth,
        "kept": kept,
    }


# Pairs.


class Clock:
    """A clock that is moved."""

    def __init__(self) -> None:
        self.now_us = START_US

    def __call__(self) -> int:
        return self.now_us


async def asked(pairs: Sequence[Pair]) -> dict[str, int]:
    """Return how often the newer text came first, and how often one of two that are to stay is gone."""
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="memory-gate-") as folder:
        clock = Clock()
        memory = MemoryService(Path(folder), SentenceTransformerEmbedder, clock)
        try:
            for number, pair in enumerate(pairs):
                counts.update(await _outcome(memory, clock, pair, parse_tenant(f"pair-{number}")))
        finally:
            memory.close()
    return {
        "contradictions_newer_first": counts["newer_first"],
        "contradictions": counts["supersedes"],
        "wrong_merges": counts["wrong_merge"],
        "kept_pairs": counts["keep_both"],
        "refused_pairs": counts["refused"],
    }


async def _outcome(memory: MemoryService, clock: Clock, pair: Pair, tenant: TenantId) -> list[str]:
    """Write a pair and ask; a pair with a text that the gate refuses says nothing of what two records are."""
    for statement in (pair.old, pair.new):
        clock.now_us += DAY_US
        offered = Candidate(
            tenant=tenant, kind="fact", source="benchmark", trust="medium", **msgspec.structs.asdict(statement)
        )
        reply = await memory.write_if_useful(offered)
        if not reply.record_id:
            return [pair.relation, "refused"]
    if pair.relation == "keep_both":
        live = {record.text for record in await memory.records(tenant) if record.state == "live"}
        return [pair.relation] if {pair.old.text, pair.new.text} <= live else [pair.relation, "wrong_merge"]
    question = RecallRequest(
        tenant=tenant, query=pair.query or pair.new.text, clearance="restricted", top_k=TOP_K, min_score=0.0
    )
    found = [record.text for record in (await memory.retrieve(question)).records]
    return [pair.relation, "newer_first"] if found[:1] == [pair.new.text] else [pair.relation]


if __name__ == "__main__":
    main()
