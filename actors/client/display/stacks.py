"""A stack, drawn: its runs, what waits, its tenants' spend; and all its layers."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from airside.actors.client.display.drawing import (
    Cell,
    Drawing,
    Part,
    Table,
    Tone,
    brief,
    code_cell,
    facts,
    number_cell,
    table,
    text_cell,
)
from airside.stack.operations.quantities import counted, money, span

LOOKED_AT = ("driver", "policy", "approvals", "journal")
"""The layers that are asked for a drawing of a stack: as many whatever its size."""

Layers = Mapping[str, Mapping[str, Any]]


def draw_stack(
    name: str,
    folder: Path,
    layers: Layers,
    *,
    in_doubt: int = 0,
    warnings: Sequence[str] = (),
    problem: str = "",
) -> Drawing:
    """Draw a stack by what some of its layers say of themselves, and how many calls are in doubt, of ended runs too; by
    `problem` why they do not.
    """
    driver = layers.get("driver", {})
    parts: list[Part] = []
    if busy := _busy(driver):
        parts.append(_tenants(busy))
    if spend := _spend(layers.get("policy", {})):
        parts.append(spend)
    status, tone = _status(layers, problem)
    return Drawing(
        title=brief(f"Stack {name}", 80),
        status=status,
        tone=tone,
        facts=facts(
            ("state", near(folder)),
            ("runs", _runs(driver) if "live" in driver else ""),
            ("waiting for people", layers.get("approvals", {}).get("pending", "")),
            ("in doubt", f"{counted(in_doubt, 'call')}, of which stack.in_doubt() tells" if in_doubt else ""),
            *(("warning", warning) for warning in warnings[:5]),
            ("problem", problem or layers.get("journal", {}).get("problem", "")),
        ),
        parts=tuple(parts),
    )


def _status(layers: Layers, problem: str) -> tuple[str, Tone]:
    down = sorted(name for name, layer in layers.items() if "down" in layer)
    if down:
        return brief(f"down: {', '.join(down)}", 80), "bad"
    if layers.get("journal", {}).get("problem"):
        return "stands still", "bad"
    return ("not reached", "bad") if problem else ("up", "good")


def near(folder: Path) -> str:
    """Return a folder by its shorter name: of one in or beside the working directory, from there."""
    whole = str(folder)
    try:
        return min(whole, os.path.relpath(whole), key=len)
    except (OSError, ValueError):  # the working directory is gone
        return whole


def _runs(driver: Mapping[str, Any]) -> str:
    tenants = driver.get("tenants", {}).values()
    working, queued = (int(sum(each.get(name, 0) for each in tenants)) for name in ("running", "waiting"))
    return (
        f"{driver['live']:,} live: {working:,} at work, {queued:,} queued, {driver.get('parked', 0):,} parked, "
        f"{len(driver.get('in_doubt', ())):,} waiting in doubt"
    )


def _busy(driver: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """Return the tenants that have runs, those with most first."""
    tenants: Mapping[str, Mapping[str, float]] = driver.get("tenants", {})
    found = [(name, int(each["running"]), int(each["waiting"])) for name, each in tenants.items()]
    return sorted((each for each in found if each[1] or each[2]), key=lambda each: (-each[2], -each[1], each[0]))


def _tenants(busy: Sequence[tuple[str, int, int]]) -> Table:
    def row(each: tuple[str, int, int]) -> Iterable[Cell]:
        name, running, waiting = each
        yield text_cell(name)
        yield number_cell(running)
        yield number_cell(waiting)

    return table("Tenants with runs", ("tenant", "at work", "queued"), busy, row)


def _spend(policy: Mapping[str, Any]) -> Table | None:
    """Return what was used of the organisation's and the tenants' budgets in the windows that are open, those first of
    which least is left.
    """
    used: Mapping[str, Mapping[str, int]] = policy.get("used") or {}
    limits: Mapping[str, Mapping[str, int]] = policy.get("limits") or {}
    found = [
        (name, unit, amount, limits.get(name, {}).get(unit))
        for name, amounts in used.items()
        for unit, amount in amounts.items()
    ]
    found.sort(key=lambda each: (-_share(each[2], each[3]), each[0] != "org", each[0], each[1]))

    def row(each: tuple[str, str, int, int | None]) -> Iterable[Cell]:
        name, unit, amount, limit = each
        share, is_cost = _share(amount, limit), unit.startswith("cost_microusd")
        yield text_cell("the organisation" if name == "org" else name.removeprefix("tenant/"))
        yield text_cell(unit.replace("cost_microusd", "cost"))
        yield number_cell(money(amount) if is_cost else amount)
        yield number_cell("" if limit is None else money(limit) if is_cost else limit)
        yield text_cell(
            "" if limit is None else f"{share:.0%}", "bad" if share >= 1 else "wait" if share >= 0.8 else ""
        )

    return table("Budgets", ("whose", "unit", "used", "limit", "of it"), found, row) if found else None


def _share(amount: int, limit: int | None) -> float:
    """Return how much of a budget is used: 1 is all; also of one of nothing."""
    return 0.0 if limit is None else amount / limit if limit else 1.0


def draw_status(layers: Layers) -> Drawing:
    """Draw what every layer says of itself."""
    down = {name: str(layer["down"]) for name, layer in layers.items() if "down" in layer}
    kinds = Counter(name.partition("/")[0] for name in layers)
    parts: list[Part] = [_layers(layers)]
    if busy := _busy(layers.get("driver", {})):
        parts.append(_tenants(busy))
    if spend := _spend(layers.get("policy", {})):
        parts.append(spend)
    return Drawing(
        title=f"{len(layers):,} processes",
        status=f"{len(down):,} down" if down else "all up",
        tone="bad" if down else "good",
        facts=facts(
            ("layers", ", ".join(f"{count} {kind}" if count > 1 else kind for kind, count in sorted(kinds.items()))),
            ("runs", _runs(layers["driver"]) if "live" in layers.get("driver", {}) else ""),
            ("waiting for people", layers.get("approvals", {}).get("pending", "")),
        ),
        parts=tuple(parts),
    )


def _layers(layers: Layers) -> Table:
    def row(item: tuple[str, Mapping[str, Any]]) -> Iterable[Cell]:
        name, layer = item
        yield code_cell(name)
        yield text_cell("down", "bad") if "down" in layer else text_cell("up", "good")
        yield number_cell(str(layer.get("pid", "")))
        yield number_cell(span(int(float(layer.get("up_s", 0)) * 1e6)))
        yield text_cell(layer.get("down", ""))

    order = sorted(layers.items(), key=lambda item: ("down" not in item[1], item[0]))
    return table("", ("layer", "", "pid", "up for", "why"), order, row)
