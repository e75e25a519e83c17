"""What memory answers, drawn: what a question finds, and what is kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from airside.actors.client.display.drawing import Cell, Drawing, brief, code_cell, facts, number_cell, table, text_cell
from airside.memory.records import FOREVER_US, Record
from airside.stack.contracts.memory import Recalled
from airside.stack.operations.quantities import clock, span


def draw_hits(hits: Sequence[Recalled]) -> Drawing:
    """Draw what a question finds, best first."""
    head = ("score", "text", "kind", "source", "trust", "sensitivity", "age", "record")
    return Drawing(
        title=f"{len(hits):,} records found" if hits else "no record found",
        parts=(table("", head, hits, _hit),) if hits else (),
    )


def _hit(hit: Recalled) -> Iterable[Cell]:
    yield number_cell(f"{hit.score:.2f}")
    yield text_cell(hit.text, most=300)
    yield text_cell(hit.kind)
    yield text_cell(hit.source)
    yield text_cell(hit.trust)
    yield text_cell(hit.sensitivity)
    yield number_cell(span(int(hit.age_s * 1e6)))
    yield code_cell(hit.record_id)


def draw_hit(hit: Recalled) -> Drawing:
    """Draw one record that was found, with what its score is made of."""
    return Drawing(
        title=brief(hit.text, 300),
        facts=facts(
            ("score", f"{hit.score:.2f} (cosine {hit.cosine:.2f}, BM25 {hit.bm25:.2f})"),
            ("kind", hit.kind),
            ("source", f"{hit.source}, trust {hit.trust}"),
            ("sensitivity", hit.sensitivity),
            ("about", hit.subject),
            ("labels", ", ".join(hit.labels)),
            ("kept since", clock(hit.created_us)),
            ("record", hit.record_id),
        ),
    )


def draw_records(records: Sequence[Record]) -> Drawing:
    """Draw what is kept of a tenant."""
    live = sum(record.state == "live" for record in records)
    head = ("state", "text", "kind", "sources", "trust", "sensitivity", "about", "until", "record")
    return Drawing(
        title=f"{len(records):,} records",
        status=f"{live:,} live" if records else "",
        parts=(table("", head, records, _record),) if records else (),
    )


def _record(record: Record) -> Iterable[Cell]:
    yield text_cell(record.state, "good" if record.state == "live" else "off")
    yield text_cell(record.text, most=300)
    yield text_cell(record.kind)
    yield text_cell(", ".join(record.sources))
    yield text_cell(record.trust)
    yield text_cell(record.sensitivity)
    yield text_cell(record.subject)
    yield text_cell("for ever" if record.expires_us >= FOREVER_US else clock(record.expires_us))
    yield code_cell(record.record_id)
