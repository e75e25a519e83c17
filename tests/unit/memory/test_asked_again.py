"""A question that is asked again is answered from what it found, as long as that is what it would find."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from airside.memory.in_memory import HashingEmbedder
from airside.memory.records import Record
from airside.memory.rules import MemoryRules
from airside.memory.search import index as search
from airside.memory.search.calibration import load_calibration
from airside.memory.search.index import Bounds, Query, TenantIndex
from airside.memory.search.ranking import diverse
from airside.memory.service import MemoryService
from airside.memory.storage.erasure import Erasure
from airside.stack.contracts.memory import Candidate, RecallRequest
from airside.stack.ids import TenantId
from airside.stack.values import CLEARANCES

ACME, START_US, DAY_US = TenantId("acme"), 1_700_000_000_000_000, 86_400_000_000
WORDS = ["blue", "kettle", "customer", "invoice", "monday", "courier", "depot", "silver", "plan", "tea"]


def record(number: int, text: str, **fields: Any) -> Record:
    """Return a live record."""
    values: dict[str, Any] = {
        "record_id": f"mem_{number:024x}", "tenant": ACME, "text": text, "kind": "fact", "sources": ("x",),
        "sensitivity": "internal", "trust": "medium", "subject": "", "topic": "", "importance": 0.5,
        "confidence": 1.0, "labels": (), "state": "live", "superseded_by": "", "met": 1, "digest": str(number),
        "created_us": START_US, "observed_us": START_US, "expires_us": START_US + DAY_US, "pinned": False,
    }  # fmt: skip
    return Record(**{**values, **fields})


def query(text: str) -> Query:
    """Return a question."""
    return Query.of(text, HashingEmbedder().embed([text])[0])


class Bench:
    """An index, and how often all of its records were looked through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.index = TenantIndex(256, MemoryRules(), load_calibration("generic"))
        self.looks = 0
        scores = self.index._lexical.scores

        def counted(*args: Any) -> Any:
            self.looks += 1
            return scores(*args)

        monkeypatch.setattr(self.index._lexical, "scores", counted)

    def put(self, number: int, text: str, **fields: Any) -> None:
        """Put a record."""
        self.index.put(record(number, text, **fields), HashingEmbedder().embed([text])[0])

    def ask(self, asked: Query, now_us: int = START_US, **fields: Any) -> list[str]:
        """Return the texts that a question finds."""
        bounds = Bounds(**{"top_k": 4, "min_score": 0.0, "clearance": "internal", "now_us": now_us, **fields})
        return [found.text for found in self.index.search(asked, bounds)]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A bench."""
    return Bench(monkeypatch)


def test_a_question_that_is_asked_at_every_step_looks_through_the_records_once(bench: Bench) -> None:
    bench.put(1, "the blue kettle")
    asked = query("kettle")
    for second in range(10):
        assert bench.ask(asked, START_US + second * 1_000_000) == ["the blue kettle"]
    assert bench.looks == 1


def test_what_is_written_or_goes_is_seen_at_once(bench: Bench) -> None:
    asked = query("kettle")
    bench.put(1, "the blue kettle")
    assert bench.ask(asked) == ["the blue kettle"]
    bench.put(2, "the silver kettle")
    assert sorted(bench.ask(asked)) == ["the blue kettle", "the silver kettle"]
    bench.put(1, "the blue kettle", state="quarantined")
    assert bench.ask(asked) == ["the silver kettle"]
    bench.put(1, "the kettle is green")
    assert len(bench.ask(asked)) == 2
    bench.index.hide([record(2, "").record_id])
    assert bench.ask(asked) == ["the kettle is green"]
    bench.index.remove([record(1, "").record_id])
    assert bench.ask(asked) == []


def test_what_expires_is_not_found_any_more_and_is_when_the_clock_goes_back(bench: Bench) -> None:
    asked = query("kettle")
    bench.put(1, "the blue kettle", expires_us=START_US + 10)
    bench.put(2, "the silver kettle")
    assert len(bench.ask(asked, START_US + 9)) == 2
    assert bench.ask(asked, START_US + 10) == ["the silver kettle"]
    assert bench.ask(asked, START_US + 11) == ["the silver kettle"]
    assert len(bench.ask(asked, START_US + 9)) == 2


def test_each_bound_has_an_answer_of_its_own(bench: Bench) -> None:
    asked = query("kettle")
    bench.put(1, "the blue kettle", sensitivity="restricted")
    bench.put(2, "the silver kettle")
    assert len(bench.ask(asked, clearance="restricted")) == 2
    assert bench.ask(asked, clearance="internal") == ["the silver kettle"]
    assert len(bench.ask(asked, clearance="restricted", top_k=1)) == 1
    assert bench.ask(asked, clearance="restricted", min_score=1.0) == []
    assert len(bench.ask(asked, clearance="restricted")) == 2


def test_so_many_questions_are_remembered_and_counted(bench: Bench) -> None:
    bench.put(1, "the blue kettle")
    before = bench.index.size_bytes
    for number in range(search.KEPT_QUESTIONS + 5):
        bench.ask(query(f"kettle {number}"))
    assert len(bench.index._found) == search.KEPT_QUESTIONS
    assert bench.index.size_bytes >= before + search.KEPT_QUESTIONS * search._FOUND_BYTES


@pytest.mark.parametrize("seed", range(30))
def test_an_answer_from_what_was_found_is_the_one_that_looking_again_gives(seed: int, bench: Bench) -> None:
    """Whatever changed and however much time went by in between, to the last digit."""
    choose = random.Random(seed)
    asked = [query(" ".join(choose.sample(WORDS, 3))) for _ in range(4)]
    now_us = START_US
    for number in range(150):
        now_us += choose.choice((0, 1_000_000, DAY_US // 40, -1_000_000))
        match choose.randrange(5):
            case 0:
                text = " ".join(choose.sample(WORDS, 4))
                level, lives_us = choose.choice(CLEARANCES), choose.randrange(DAY_US // 4)
                bench.put(choose.randrange(20), text, sensitivity=level, expires_us=now_us + lives_us)
            case 1 if bench.index.records:
                one = choose.choice(list(bench.index.records))
                choose.choice((bench.index.remove, bench.index.hide))([one])
            case _:
                pass
        bounds = Bounds(choose.choice((1, 3, 8)), choose.choice((None, 0.0)), choose.choice(CLEARANCES), now_us)
        which = choose.choice(asked)
        kept = bench.index.search(which, bounds)
        bench.index.forget_questions()
        assert kept == bench.index.search(which, bounds), number


def test_records_are_chosen_as_by_marginal_relevance_at_every_place() -> None:
    """The first is the best; each next one is the best of those that are left, less for being like one before it."""
    numbers = np.random.default_rng(5)
    for count in (0, 1, 2, 9, 40):
        vectors = numbers.normal(size=(count, 4)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        ranked = numbers.random(count).astype(np.float32)
        left, chosen = ranked.astype(np.float64), list[int]()
        for _ in range(min(6, count)):
            closest = np.max([np.zeros(count), *(vectors @ vectors[i] for i in chosen)], axis=0)
            best = int(np.argmax(left * (1 - np.minimum(np.maximum(closest - 0.9, 0) / 0.1, 1))))
            chosen.append(best)
            left[best] = -1
        assert diverse(ranked, vectors, 6, 1.0) == chosen


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[MemoryService]:
    """A service over an empty folder."""
    service = MemoryService(tmp_path / "memory", HashingEmbedder, lambda: START_US)
    yield service
    service.close()


async def test_memory_answers_at_once_what_is_in_ram_as_it_would_later(memory: MemoryService) -> None:
    request = RecallRequest(tenant=ACME, query="kettle", clearance="internal", min_score=0.0)
    assert memory.retrieve_at_once(request) is None
    await memory.write_if_useful(Candidate(tenant=ACME, text="the kettle is blue", kind="fact", source="test"))
    assert memory.retrieve_at_once(request) is None, "the question has no vector yet"
    later = await memory.retrieve(request)
    assert later.records and memory.retrieve_at_once(request) == later
    wrong = RecallRequest(tenant=ACME, query="kettle", clearance="internal", min_score=2.0)
    at_once = memory.retrieve_at_once(wrong)
    assert at_once is not None and at_once.error and at_once == await memory.retrieve(wrong)
    nothing = RecallRequest(tenant=ACME, query=" ", clearance="internal")
    assert memory.retrieve_at_once(nothing) is None and not (await memory.retrieve(nothing)).records


async def test_erasing_forgets_what_was_asked_though_nothing_was_to_be_erased(memory: MemoryService) -> None:
    await memory.write_if_useful(Candidate(tenant=ACME, text="the kettle is blue", kind="fact", source="test"))
    await memory.retrieve(RecallRequest(tenant=ACME, query="kettle of Ana", clearance="internal", min_score=0.0))
    index = memory._tenants[ACME].index
    assert index is not None and index._found
    await memory.erase(Erasure(tenant=ACME, what="subject", target="ana"))
    index = memory._tenants[ACME].index
    assert index is None or not index._found
