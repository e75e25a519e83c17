"""Results of runs, drawn: one, and a batch of them as bars by outcome."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from airside.actors.client.display.drawing import (
    MAX_ROWS,
    Bar,
    Bars,
    Cell,
    Drawing,
    Part,
    brief,
    code_cell,
    facts,
    number_cell,
    table,
    text_cell,
)
from airside.actors.client.display.runs import draw_run, how_to_resolve, tone_of
from airside.actors.client.display.timeline import timeline_of
from airside.stack.operations.overview import detail_of
from airside.stack.operations.quantities import money, span, used
from airside.stack.run import events as ev

if TYPE_CHECKING:
    from airside.actors.client.results import RunResult

_FOLDED = 10
"""Results of which a list is shown at once; a longer one is opened by who wants it, below its bars."""


def draw_result(result: RunResult, events: Sequence[ev.Event] = (), *, notes: Sequence[str] = ()) -> Drawing:
    """Draw how a run ended; with its events, its time by phase and its steps as well."""
    if events:
        return draw_run(detail_of(events), timeline_of(events), notes=notes)
    taken = used(result.steps, result.tool_calls, result.tokens, result.cost_microusd)
    taken += f", {span(int(result.seconds * 1e6))} active"
    return Drawing(
        title=brief(result.run_id or "a request that was not admitted", 80),
        status=_outcome(result),
        tone=tone_of(str(result.status)),
        facts=facts(
            ("answer", result.answer if result.ok else ""),
            ("why", "" if result.ok else result.detail or result.reason_code.sentence),
            ("job", result.job_id),
            ("in doubt", ", ".join(result.in_doubt)),
            ("try again in", f"{result.retry_after_s:g} s" if result.retry_after_s else ""),
            ("used", taken if result.run_id else ""),
        ),
        notes=(*how_to_resolve(result.run_id, result.in_doubt), *notes),
    )


def _outcome(result: RunResult) -> str:
    status, reason = str(result.status), str(result.reason_code)
    return brief(status if status == reason else f"{status} · {reason}", 80)


def draw_results(results: Sequence[RunResult]) -> Drawing:
    """Draw a list of results: bars by outcome, totals, and the results themselves."""
    there = [result for result in results if result is not None]
    done = sum(result.ok for result in there)
    parts: tuple[Part, ...] = ()
    if there:
        head = ("job", "run", "outcome", "answer, or why", "steps", "tokens", "cost", "active")
        rows = table("Results", head, there, _row, is_folded=len(there) > _FOLDED)
        parts = (_bars(there), rows)
    return Drawing(
        title=f"{len(results):,} results",
        status=f"{done:,} completed" if there else "",
        tone="good" if done == len(results) else "wait",
        facts=facts(
            ("not there", f"{len(results) - len(there):,}" if len(there) < len(results) else ""), *_totals(there)
        ),
        parts=parts,
    )


def draw_progress(ended: int, total: int | None, statuses: Mapping[str, int], line: str = "") -> Drawing:
    """Draw how far a batch is: its jobs that have ended, by status, and a line of what else there is to say."""
    bars = [Bar(brief(name, 40), count, tone_of(name)) for name, count in sorted(statuses.items())]
    of = "" if total is None else f" of {total:,}"
    return Drawing(
        title=f"{ended:,}{of} jobs have ended",
        status="" if not total or ended >= total else f"{100 * ended // total}%",
        facts=facts(("so far", brief(line, 200))),
        parts=(Bars(("status", "jobs"), tuple(bars[:MAX_ROWS])),) if bars else (),
    )


def _totals(results: Sequence[RunResult]) -> list[tuple[str, str]]:
    if not results:
        return []
    seconds = sorted(result.seconds for result in results if result.run_id)
    taken = used(
        sum(r.steps for r in results),
        sum(r.tool_calls for r in results),
        sum(r.tokens for r in results),
        sum(r.cost_microusd for r in results),
    )
    if not seconds:
        return [("in all", taken)]
    middle, longest = seconds[len(seconds) // 2], seconds[-1]
    return [("in all", taken), ("active", f"median {span(int(middle * 1e6))}, longest {span(int(longest * 1e6))}")]


def _bars(results: Sequence[RunResult]) -> Bars:
    """Return the outcomes, most frequent first, each with what its runs used."""
    by_outcome: dict[str, list[RunResult]] = {}
    for result in results:
        by_outcome.setdefault(_outcome(result), []).append(result)
    found = []
    for label, own in sorted(by_outcome.items(), key=lambda item: -len(item[1]))[:MAX_ROWS]:
        found.append(
            Bar(
                label,
                len(own),
                tone_of(str(own[0].status)),
                (
                    number_cell(sum(r.steps for r in own)),
                    number_cell(sum(r.tokens for r in own)),
                    number_cell(money(sum(r.cost_microusd for r in own))),
                ),
            )
        )
    return Bars(("outcome", "runs", "steps", "tokens", "cost"), tuple(found), len(by_outcome) - len(found))


def _row(result: RunResult) -> Iterable[Cell]:
    yield text_cell(result.job_id)
    yield code_cell(result.run_id)
    yield text_cell(_outcome(result), tone_of(str(result.status)))
    yield text_cell(result.answer if result.ok else result.detail or result.reason_code.sentence)
    yield number_cell(result.steps)
    yield number_cell(result.tokens)
    yield number_cell(money(result.cost_microusd))
    yield number_cell(span(int(result.seconds * 1e6)))
