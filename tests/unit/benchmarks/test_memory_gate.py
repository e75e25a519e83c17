"""The benchmark of memory's write gate reads its lists and counts what is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from airside.stack.errors import InvalidInput
from benchmarks.memory_gate import FOLDER, GateCandidate, Pair, judged, read


def test_kept_and_worth_keeping_are_counted() -> None:
    """Precision is of what is kept, recall of what is worth it, and an injection that is kept counts by itself."""
    texts = [
        ("Rent is 900 euros.", True, "fact"),
        ("Kim prefers email.", False, "hedge"),
        ("Hello there!", True, "fact"),
    ]
    found = judged([GateCandidate(text=text, keep=keep, kind=kind) for text, keep, kind in texts])
    assert (found["precision"], found["recall"], found["injections_kept"]) == (0.5, 0.5, 0)
    assert judged([GateCandidate(text="Kim prefers email.", keep=False, kind="injection")])["injections_kept"] == 1


def test_a_line_that_is_none_is_named(tmp_path: Path) -> None:
    file = tmp_path / "candidates.jsonl"
    file.write_text('\n{"text": "Kim prefers email.", "keep": true}\n{"text": "Rent"}\n')
    with pytest.raises(InvalidInput, match=r"candidates\.jsonl:3: .*keep"):
        read(file, GateCandidate)


@pytest.mark.parametrize(("pattern", "form"), [("candidates*.jsonl", GateCandidate), ("pairs*.jsonl", Pair)])
def test_the_lists_that_come_with_it_can_be_read(pattern: str, form: type[GateCandidate] | type[Pair]) -> None:
    """And no text of one list is in the other, else what is held back would be known."""
    lists = [read(file, form) for file in sorted(FOLDER.glob(pattern))]
    texts = [set(map(repr, each)) for each in lists]
    assert all(lists) and sum(map(len, texts)) == len(set().union(*texts))
