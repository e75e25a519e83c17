"""`airside status`: a running stack on one screen."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import typer

from airside.options import HERE, AsJson, StateDir, brief, table
from airside.output import json_line
from airside.stack.operations.quantities import span

EXPECTED = ("approvals", "driver", "executor/0", "ingress", "journal", "policy")
"""The layers every stack has; one that is not there is down, whatever the others say."""

_SHOWN = 5
"""Tenants, switches and the like that the screen shows of each kind; how many more there are is said."""

_HELD = 3
"""Layers that were held of which the screen tells: the latest."""


def status(as_json: AsJson = False, state_dir: StateDir = HERE) -> None:
    """Show the layers, runs, what waits for people, switches and spend; exit code 1 if a layer cannot work."""
    from airside.cli import attached

    with attached(state_dir) as stack:
        layers: dict[str, dict[str, Any]] = stack.status()
        layers |= {name: {"down": "it is not there"} for name in EXPECTED if name not in layers}
        whole: dict[str, Any] = {
            "layer": "Stack",
            "ready": not _down(layers) and not _problems(layers),
            "stack": stack.cell.stack,
            "state_dir": str(stack.state_dir),
            "warnings": list(stack.warnings),
            "switches": [],
        }
        if "down" not in layers["driver"]:  # one that is away would be waited for
            whole["switches"] = [msgspec.to_builtins(thrown) | {"text": str(thrown)} for thrown in stack.switches()]
    if as_json:
        typer.echo(json_line({**layers, "stack": whole}, indent=1))
    else:
        typer.echo("\n".join(screen(layers, whole)))
    raise typer.Exit(0 if whole["ready"] else 1)


def _down(layers: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: str(layer["down"]) for name, layer in layers.items() if "down" in layer}


def _problems(layers: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return what layers that are up say they cannot do."""
    return {name: str(layer["problem"]) for name, layer in layers.items() if layer.get("problem")}


def screen(layers: dict[str, dict[str, Any]], whole: dict[str, Any]) -> list[str]:
    """Return a stack's state as a screenful of lines, however many tenants and processes it has."""
    down = _down(layers)
    lines = [f"stack {whole['stack']}, state in {whole['state_dir']}, logs in {whole['state_dir']}/logs"]
    lines.append(f"{len(layers) - len(down)} processes up, {len(down)} down")
    lines += [f"  DOWN {name}: {brief(why, 100)}" for name, why in sorted(down.items())[:_SHOWN]]
    lines += _more(len(down))
    lines += [f"  PROBLEM {name}: {brief(why, 300)}" for name, why in sorted(_problems(layers).items())]
    lines += ["  " + line for line in _processes(layers)]
    urls = sorted({str(layer["url"]) for layer in layers.values() if layer.get("url")})
    lines += [f"serving on {url}" for url in urls[:_SHOWN]] + _more(len(urls))
    driver = layers["driver"]
    if "down" not in driver:
        lines += _runs(driver, layers["approvals"])
        lines += [f"was held, and restarted: {brief(line, 250)}" for line in driver.get("layers_held", ())[-_HELD:]]
    lines += _switches(whole["switches"]) + _quarantined(layers)
    lines += _spend(layers["policy"].get("used") or {}, layers["policy"].get("limits") or {})
    lines += [f"warning: {brief(warning, 300)}" for warning in whole["warnings"]]
    return lines


def _more(count: int) -> list[str]:
    return [f"  ... and {count - _SHOWN} more (--json)"] if count > _SHOWN else []


def _processes(layers: dict[str, dict[str, Any]]) -> list[str]:
    """Return a line a layer; runtimes and executors, of which there may be many, in one line a kind after a few."""
    up = {name: layer for name, layer in layers.items() if "down" not in layer}
    kinds = Counter(name.partition("/")[0] for name in up)
    rows, shown = [], Counter[str]()
    for name, layer in sorted(up.items()):
        kind = name.partition("/")[0]
        shown[kind] += 1
        if shown[kind] <= 2 or kinds[kind] == 3:
            waits = layer.get("waiting", layer.get("active", layer.get("working", "")))
            state = "" if layer.get("ready", True) else "starting"
            rows.append(
                [
                    brief(name, 50),
                    str(layer.get("pid", "")),
                    str(layer.get("node", ""))[:8],
                    _up(layer),
                    str(waits),
                    state,
                ]
            )
        elif shown[kind] == 3:
            rows.append([f"{kind}/... {kinds[kind] - 2} more", "", "", "", "", ""])
    return table(["LAYER", "PID", "NODE", "UP", "AT WORK", ""], rows)


def _up(layer: dict[str, Any]) -> str:
    return span(int(float(layer.get("up_s", 0)) * 1e6))


def _runs(driver: dict[str, Any], approvals: dict[str, Any]) -> list[str]:
    """Return how many runs are where, and the tenants that have most of them."""
    tenants: dict[str, dict[str, float]] = driver.get("tenants", {})
    queued = int(sum(each["waiting"] for each in tenants.values()))
    working = int(sum(each["running"] for each in tenants.values()))
    doubt = len(driver.get("in_doubt", ()))
    lines = [
        f"runs: {driver.get('live', 0)} live: {working} at work, {queued} queued, {driver.get('parked', 0)} parked, "
        f"{doubt} in doubt; waiting for people: {approvals.get('pending', 'unknown')}"
    ]
    busy = {name: each for name, each in tenants.items() if each["waiting"] or each["running"]}
    most = sorted(busy.items(), key=lambda item: (-item[1]["waiting"], -item[1]["running"], item[0]))
    for name, each in most[:_SHOWN]:
        lines.append(f"  tenant {name}: {int(each['running'])} at work, {int(each['waiting'])} queued")
    return lines + _more(len(most))


def _switches(switches: list[dict[str, Any]]) -> list[str]:
    lines = [f"switched off: {brief(switch['text'], 120)}" for switch in switches[:_SHOWN]]
    return (lines or ["switched off: nothing"]) + _more(len(switches))


def _quarantined(layers: dict[str, dict[str, Any]]) -> list[str]:
    """Return the tool servers of which nothing is called, by whichever executor has seen it."""
    found = {name: why for layer in layers.values() for name, why in (layer.get("quarantined") or {}).items()}
    lines = [f"in quarantine: {brief(why, 300)}" for _, why in sorted(found.items())[:_SHOWN]]
    return lines + _more(len(found))


def _spend(used: dict[str, dict[str, int]], limits: dict[str, dict[str, int]]) -> list[str]:
    """Return what the organisation, and the tenants that used most, have used of their budgets."""

    def said_of(name: str, unit: str, amount: int) -> str:
        limit = limits.get(name, {}).get(unit)
        return f"{amount:,} {unit}" if limit is None else f"{amount:,} of {limit:,} {unit}"

    known = {name: amounts for name, amounts in used.items() if amounts}
    most = sorted(known.items(), key=lambda item: (item[0] != "org", -sum(item[1].values()), item[0]))
    lines = []
    for name, amounts in most[:_SHOWN]:
        said = ", ".join(said_of(name, unit, amount) for unit, amount in amounts.items())
        lines.append(f"spent of budgets, {name}: {brief(said, 150)}")
    return lines + _more(len(most))
