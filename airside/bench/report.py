"""A benchmark's results as one page of HTML: it has its drawings within it, runs nothing, and asks for nothing."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

from airside.bench.charts import (
    layers_chart,
    percentiles_chart,
    phases_chart,
    search_chart,
    tenants_chart,
    windows_chart,
)
from airside.bench.journaled import PHASES

BUSIEST = 15
"""Tenants that the table shows; `results.json` has all."""

_STYLE = """
:root { color-scheme: light dark;
  --page: #fbfbfa; --card: #ffffff; --ink: #1f2328; --muted: #636c76; --grid: #e2e5e9;
  --first: #2563c9; --second: #c2560c; --good: #1a7f45; --bad: #c2273a; }
@media (prefers-color-scheme: dark) { :root {
  --page: #14171b; --card: #1c2026; --ink: #e3e7ec; --muted: #9aa4af; --grid: #343a42;
  --first: #74a8ff; --second: #f2a05e; --good: #5fce8b; --bad: #ff8291; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 76rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.05rem; margin: 0 0 .25rem; }
p { margin: .25rem 0 .75rem; color: var(--muted); }
.verdict { font-weight: 600; } .good { color: var(--good); } .bad { color: var(--bad); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); gap: .75rem;
  margin: 1.25rem 0; }
.figures div, section { background: var(--card); border: 1px solid var(--grid); border-radius: 8px; }
.figures div { padding: .7rem .9rem; } .figures b { display: block; font-size: 1.35rem; font-weight: 600; }
.figures span { color: var(--muted); font-size: .85rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(34rem, 100%), 1fr)); gap: 1rem; }
section { padding: 1rem 1.1rem; overflow-x: auto; } section.wide { grid-column: 1 / -1; }
svg { max-width: 100%; height: auto; display: block; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { text-align: right; padding: .28rem .6rem; border-bottom: 1px solid var(--grid); white-space: nowrap; }
th { font-weight: 600; color: var(--muted); } th.text { text-align: left; }
td.text { text-align: left; white-space: normal; } td.text:first-child { white-space: nowrap; }
"""


def report(results: dict[str, Any]) -> str:
    """Return the page."""
    phases: dict[str, dict[str, Any]] = results["phases"]
    last = list(phases.values())[-1] if phases else None
    parts = [_head(results), _figures(results["summary"]), '<div class="cards">']
    if results["probes"]:
        parts.append(
            _card(
                "The search",
                "Each rate that was tried below the ceiling (dashed), which a closed loop found, and the p99 there.",
                search_chart(results),
            )
        )
    if last is not None:
        parts += _of_phases(results, last)
    parts += [_searched(results), _settings(results), "</div>"]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>airside bench</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _of_phases(results: dict[str, Any], last: dict[str, Any]) -> list[str]:
    shown = "with aggressors" if len(results["phases"]) > 1 else "alone"
    cards = [
        _card(
            "Latency",
            "Of usual tenants' runs, from when each was due to its end, people left out.",
            percentiles_chart(results),
        ),
        _card("Over time", "What fluctuates here is what comparisons take for noise.", windows_chart(results)),
    ]
    if last["phases"]:
        cards.append(_card("Where a run's time goes", f"By the journal; usual tenants, {shown}.", phases_chart(last)))
    cards += [
        _card("Tenants", f"One dot a tenant, {shown}.", tenants_chart(last)),
        _card(
            "CPU by layer",
            f"Client: the generator, in this process. Ray: its own processes. {shown.capitalize()}.",
            layers_chart(last),
        ),
    ]
    return [
        *cards,
        _phase_table(results),
        _journal_table(last, shown),
        _layer_table(last, shown),
        _tenant_table(last, shown),
    ]


def _head(results: dict[str, Any]) -> str:
    summary, options = results["summary"], results["options"]
    objectives = ", ".join(options["objectives"])
    if summary["void"]:
        verdict, kind = "Void: the generator was too slow, so the figures say nothing of the stack.", "bad"
    elif not results["phases"]:
        verdict, kind = f"No rate below the ceiling meets {objectives}.", "bad"
    else:
        met = summary["slo_met"]
        verdict, kind = f"{objectives}: {'met' if met else 'missed'}.", "good" if met else "bad"
    problems = [why for phase in results["phases"].values() for why in (*phase["missed"], *phase["void"])]
    said = "".join(f'<p class="bad">{escape(why)}</p>' for why in problems)
    about = (
        f"{options['tenants']} tenants, beside them {options['aggressors']} that ask for too much, "
        f"{options['mode']} mode, {results['machine']['cores']} cores"
    )
    return f'<h1>airside bench</h1>\n<p>{escape(about)}</p>\n<p class="verdict {kind}">{escape(verdict)}</p>{said}'


_FIGURES = (
    ("capacity_runs_per_s", "runs/s: capacity", 1),
    ("ceiling_runs_per_s", "runs/s: ceiling", 1),
    ("p50_s", "s: p50 of usual tenants", 3),
    ("p99_s", "s: p99 of usual tenants", 3),
    ("victim_p99_ratio", "p99 beside aggressors / alone", 2),
    ("jain", "Jain's index", 4),
    ("refused", "refused for want of room", 0),
    ("lost", "did not end", 0),
    ("steps_per_s", "steps/s", 1),
    ("cpu_s_per_1000_steps", "CPU-s per 1,000 steps", 2),
    ("generator_lag_p99_ms", "ms: generator's lag, p99", 1),
    ("other_cores", "cores that other processes took", 2),
    ("start_s", "s: start of the stack", 1),
)


def _figures(summary: dict[str, Any]) -> str:
    boxes = [
        f"<div><b>{summary[name]:,.{digits}f}</b><span>{escape(text)}</span></div>"
        for name, text, digits in _FIGURES
        if summary.get(name) is not None
    ]
    return f'<div class="figures">{"".join(boxes)}</div>'


def _card(title: str, text: str, content: str, *, wide: bool = False) -> str:
    kind = ' class="wide"' if wide else ""
    return f"<section{kind}><h2>{escape(title)}</h2><p>{escape(text)}</p>{content}</section>"


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    whole = [list(row) for row in rows]
    texts = [isinstance(value, str) for value in whole[0]] if whole else []
    heads = "".join(
        f'<th class="text">{escape(name)}</th>' if is_text else f"<th>{escape(name)}</th>"
        for name, is_text in zip(head, texts, strict=False)
    )
    body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in whole)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"<td>{value:,.4g}</td>" if abs(value) < 1000 else f"<td>{value:,.0f}</td>"
    if isinstance(value, int):
        return f"<td>{value:,}</td>"
    return f'<td class="text">{escape(str(value))}</td>'


def _phase_table(results: dict[str, Any]) -> str:
    head = (
        "phase",
        "who",
        "asked",
        "as it should",
        "refused",
        "otherwise",
        "did not end",
        "p50 s",
        "p90 s",
        "p99 s",
        "p99.9 s",
        "most s",
    )
    rows = []
    for name, phase in results["phases"].items():
        for who in ("usual", "aggressors"):
            tally, latency = phase[who], phase[who]["latency"]
            if tally["asked"]:
                counts = [
                    tally["asked"],
                    tally["done"],
                    sum(tally["refused"].values()),
                    sum(tally["unexpected"].values()),
                    tally["lost"],
                ]
                times = [latency[key] for key in ("p50_s", "p90_s", "p99_s", "p99.9_s", "max_s")]
                rows.append([name, who, *counts, *times])
    return _card("The measured phases", "What was asked for, and what became of it.", _table(head, rows), wide=True)


def _journal_table(phase: dict[str, Any], shown: str) -> str:
    rows = [
        [name, text, figures["count"], figures["p50_s"], figures["p99_s"], figures["max_s"]]
        for name, text in PHASES.items()
        if (figures := phase["phases"].get(name))
    ]
    table = _table(("phase", "is", "times", "p50 s", "p99 s", "most s"), rows)
    return _card(
        "Phases of a run", f"Of usual tenants, {shown}, by the times of events in the journal.", table, wide=True
    )


def _layer_table(phase: dict[str, Any], shown: str) -> str:
    rows = [
        [name, each["cpu_s"], each["cpu_s"] / phase["seconds"], each["most_mib"]]
        for name, each in phase["layers"].items()
    ]
    table = _table(("layer", "CPU s", "cores", "most MiB"), rows)
    return _card("Layers", f"CPU time and the most memory (proportional set size), {shown}.", table)


def _tenant_table(phase: dict[str, Any], shown: str) -> str:
    rows = [
        [name, t["asked"], t["done"], t["p50_s"], t["p99_s"], t["cpu_s"]]
        for name, t in list(phase["tenants"].items())[:BUSIEST]
    ]
    table = _table(("tenant", "asked", "as it should", "p50 s", "p99 s", "runtime CPU s"), rows)
    return _card("The busiest tenants", f"{shown.capitalize()}; in pooled mode CPU time is divided by steps.", table)


def _searched(results: dict[str, Any]) -> str:
    closed = [["closed loop", f"{each['in_flight']} in flight", each["runs_per_s"], ""] for each in results["ceiling"]]
    opened = [
        ["open loop", f"p99 {each['p99_s']:.3f} s", each["runs_per_s"], "; ".join(each["why"]) or "passed"]
        for each in results["probes"]
    ]
    table = _table(("loop", "", "runs/s", "what was found"), [*closed, *opened])
    return _card(
        "How the capacity was found", "First the ceiling, then the highest rate below it that passes.", table, wide=True
    )


def _settings(results: dict[str, Any]) -> str:
    rows = [
        [name, _shown(value)]
        for name, value in {**results["options"], **results["machine"], **results["startup"]}.items()
    ]
    return _card("Settings and machine", "What it takes to measure the same again.", _table(("", ""), rows), wide=True)


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
