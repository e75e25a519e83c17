"""Charts of a benchmark's results as static SVG: no script, no font and no picture from elsewhere.

Colours are the report's CSS variables, so that one drawing is right on a light and on a dark page.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import altair as alt
import vl_convert

WIDTH, HEIGHT = 520, 220
FIRST, SECOND, GOOD, BAD = "var(--first)", "var(--second)", "var(--good)", "var(--bad)"
INK, MUTED, GRID = "var(--ink)", "var(--muted)", "var(--grid)"
TENANTS_SHOWN = 500
MOST_LINES = 10

Rows = list[dict[str, Any]]


def drawn(chart: alt.Chart | alt.LayerChart) -> str:
    """Return a chart as SVG."""
    themed = (
        chart.properties(width=WIDTH, height=HEIGHT)
        .configure(background="transparent", font="sans-serif", padding=4)
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=MUTED,
            titleColor=INK,
            gridColor=GRID,
            domainColor=GRID,
            tickColor=GRID,
            labelFontSize=11,
            titleFontSize=12,
            titleFontWeight="normal",
        )
        .configure_legend(labelColor=INK, titleColor=INK, orient="top", title=None, labelFontSize=12, symbolSize=90)
    )
    return str(vl_convert.vegalite_to_svg(themed.to_dict()))


def _chart(rows: Rows) -> alt.Chart:
    return alt.Chart(alt.Data(values=rows))


def _log(title: str, rows: Rows, name: str) -> dict[str, Any]:
    """Return title, scale and axis of a channel over decades, with lines at 1, 2 and 5 of each and no others."""
    found = [row[name] for row in rows] or [1.0]
    steps = [factor * 10.0**decade for decade in range(-7, 8) for factor in (1, 2, 5)]
    low = max((step for step in steps if step <= min(found)), default=steps[0])
    high = min((step for step in steps if step >= max(found)), default=steps[-1])
    if low == high:
        low, high = low / 2, high * 2
    values = [step for step in steps if low <= step <= high]
    if len(values) > MOST_LINES:
        values = [step for step in values if round(math.log10(step), 6).is_integer()]
    scale = alt.Scale(type="log", domain=[low, high], nice=False)
    return {"title": title, "scale": scale, "axis": alt.Axis(values=values, format="~g")}


def _colour(domain: Iterable[str], *colours: str) -> alt.Color:
    names = list(domain)
    return alt.Color("series:N", scale=alt.Scale(domain=names, range=list(colours[: len(names)])))


def search_chart(results: dict[str, Any]) -> str:
    """Draw each rate that was tried with its p99, and the ceiling."""
    probes = [
        {"rate": p["runs_per_s"], "p99": max(p["p99_s"], 1e-4), "series": "passed" if p["passed"] else "did not pass"}
        for p in results["probes"]
    ]
    points = (
        _chart(probes)
        .mark_point(filled=True, size=110, opacity=1)
        .encode(
            x=alt.X("rate:Q", title="runs a second offered", scale=alt.Scale(zero=True)),
            y=alt.Y("p99:Q", **_log("p99 (s)", probes, "p99")),
            color=_colour(("passed", "did not pass"), GOOD, BAD),
            shape=alt.Shape("series:N", scale=alt.Scale(domain=["passed", "did not pass"], range=["circle", "cross"])),
        )
    )
    ceiling = (
        _chart([{"rate": results["ceiling_runs_per_s"]}]).mark_rule(color=MUTED, strokeDash=[4, 4]).encode(x="rate:Q")
    )
    return drawn(alt.layer(points, ceiling))


def windows_chart(results: dict[str, Any]) -> str:
    """Draw the p99 of the windows of each phase."""
    rows = [
        {"window": number, "p99": window["p99_s"], "series": name}
        for name, phase in results["phases"].items()
        for number, window in enumerate(phase["windows"], 1)
    ]
    chart = (
        _chart(rows)
        .mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=25, filled=True))
        .encode(
            x=alt.X("window:Q", title="window", axis=alt.Axis(format="d", tickMinStep=1)),
            y=alt.Y("p99:Q", title="p99 of what ended in it (s)", axis=alt.Axis(format="~g", tickCount=5)),
            color=_colour(results["phases"], FIRST, SECOND),
        )
    )
    return drawn(chart)


def percentiles_chart(results: dict[str, Any]) -> str:
    """Draw the percentiles of usual tenants' latency, without and with aggressors."""
    rows = [
        {"percentile": key.removesuffix("_s"), "seconds": seconds, "series": name}
        for name, phase in results["phases"].items()
        for key, seconds in phase["usual"]["latency"].items()
        if key.startswith("p")
    ]
    chart = (
        _chart(rows)
        .mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=60, filled=True))
        .encode(
            x=alt.X("percentile:N", title="percentile", sort=None, axis=alt.Axis(labelAngle=0)),
            y=alt.Y("seconds:Q", title="latency from when it was due (s)", axis=alt.Axis(format="~g", tickCount=5)),
            color=_colour(results["phases"], FIRST, SECOND),
        )
    )
    return drawn(chart)


def phases_chart(phase: dict[str, Any]) -> str:
    """Draw the median and p99 of each phase of a run."""
    rows = [
        {"phase": name, "seconds": max(figures[key], 1e-6), "series": key.removesuffix("_s")}
        for name, figures in phase["phases"].items()
        for key in ("p50_s", "p99_s")
    ]
    order = [
        name for name in ("queueing", "decide", "gate", "people", "execute", "conclude") if name in phase["phases"]
    ]
    chart = (
        _chart(rows)
        .mark_point(filled=True, size=110, opacity=1)
        .encode(
            x=alt.X("seconds:Q", **_log("seconds", rows, "seconds")),
            y=alt.Y("phase:N", title=None, sort=order, axis=alt.Axis(grid=True)),
            color=_colour(("p50", "p99"), FIRST, SECOND),
        )
    )
    return drawn(chart)


def layers_chart(phase: dict[str, Any]) -> str:
    """Draw the cores that each layer used."""
    rows = [
        {"layer": name, "cores": round(figures["cpu_s"] / phase["seconds"], 4)}
        for name, figures in phase["layers"].items()
    ]
    chart = (
        _chart(rows)
        .mark_bar(color=FIRST, height={"band": 0.7})
        .encode(
            x=alt.X("cores:Q", title="cores used", axis=alt.Axis(format="~g", tickCount=5)),
            y=alt.Y("layer:N", title=None, sort="-x", axis=alt.Axis(grid=False)),
        )
    )
    return drawn(chart)


def tenants_chart(phase: dict[str, Any]) -> str:
    """Draw what each tenant asked for beside its p99."""
    rows = [
        {
            "asked": figures["asked"],
            "p99": max(figures["p99_s"], 1e-4),
            "series": "aggressor" if tenant.startswith("aggressor-") else "usual",
        }
        for tenant, figures in list(phase["tenants"].items())[:TENANTS_SHOWN]
        if figures["asked"]
    ]
    chart = (
        _chart(rows)
        .mark_point(filled=True, opacity=0.8)
        .encode(
            x=alt.X("asked:Q", **_log("runs asked for", rows, "asked")),
            y=alt.Y("p99:Q", title="p99 (s)", axis=alt.Axis(format="~g", tickCount=5)),
            color=_colour(("usual", "aggressor"), FIRST, SECOND),
            size=alt.Size("series:N", scale=alt.Scale(domain=["usual", "aggressor"], range=[45, 130])),
        )
    )
    return drawn(chart)
