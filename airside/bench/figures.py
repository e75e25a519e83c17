"""What a benchmark's phases came to: figures for the results, histograms, and the last line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from airside.bench.fairness import jain, shares_of
from airside.bench.latencies import Latencies, merged
from airside.bench.options import BenchOptions
from airside.bench.session import Load, Tally, is_aggressor
from airside.bench.slo import missed
from airside.bench.usage import Usage

ALONE, BESIDE = "alone", "aggressed"

ODD = 0.001
"""Of the runs of a probe: how many may end otherwise than they should."""


@dataclass(slots=True)
class Phase:
    """Everything of one phase, over its turns."""

    rate: float
    load: Load = field(default_factory=Load)
    usage: Usage = field(default_factory=Usage)
    journaled: dict[tuple[str, str], Latencies] = field(default_factory=dict)
    windows: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


def steps_of(load: Load) -> int:
    """Return the governed steps of all runs that have ended."""
    return load.usual.steps.total() + load.aggressors.steps.total()


def wrong(load: Load) -> list[str]:
    """Return what else than their latency was wrong with usual tenants' runs."""
    tally = load.usual
    asked = tally.asked.total()
    counts = {
        f"were refused {dict(tally.refused.most_common(3))}": tally.refused.total(),
        f"ended otherwise than they should {dict(tally.unexpected.most_common(3))}": tally.unexpected.total(),
        "did not end": tally.lost,
    }
    why = [f"{count} of {asked} runs {what}" for what, count in counts.items() if count > ODD * asked]
    return why + (["it was given up: too many runs were open"] if load.collapsed else [])


def void(load: Load, options: BenchOptions) -> list[str]:
    """Return why what was measured is the generator, and not the stack."""
    lag_s, bound_s = load.lag.percentile_s(99), options.lag_bound_s
    return [f"void: the generator was late by {lag_s:.3f} s (p99), over {bound_s:.3f} s"] if lag_s > bound_s else []


def figures_of(phase: Phase, options: BenchOptions) -> dict[str, Any]:
    """Return what one phase came to."""
    load, seconds = phase.load, phase.seconds or 1.0
    steps = load.usual.steps + load.aggressors.steps
    asked, done = load.usual.asked + load.aggressors.asked, load.usual.done + load.aggressors.done
    cpu_s = phase.usage.total_cpu_s
    by_tenant = phase.usage.by_tenant(steps, dedicated=options.mode == "dedicated")
    return {
        "offered_runs_per_s": round(phase.rate, 2),
        "seconds": round(seconds, 2),
        "usual": _tally(load.usual),
        "aggressors": _tally(load.aggressors),
        "generator_lag": load.lag.summary(),
        "runs_per_s": round((load.usual.whole.count + load.aggressors.whole.count) / seconds, 2),
        "steps_per_s": round(steps.total() / seconds, 2),
        "jain": round(jain(shares_of(asked, done)), 5),
        "phases": {
            which: merged(
                h for (tenant, of), h in phase.journaled.items() if of == which and not is_aggressor(tenant)
            ).summary()
            for which in sorted({of for _, of in phase.journaled})
        },
        "cpu_s_per_1000_steps": round(cpu_s / (steps.total() or 1) * 1000, 3),
        "cpu_cores": round(cpu_s / seconds, 3),
        "other_cores": round(phase.usage.other_cpu_s / seconds, 3),
        "layers": {
            kind: {"cpu_s": round(phase.usage.cpu_s[kind], 2), "most_mib": round(mib, 1)}
            for kind, mib in sorted(phase.usage.most_mib.items())
        },
        "tenants": {
            tenant: {
                "asked": asked[tenant],
                "done": done[tenant],
                "steps": steps[tenant],
                "p50_s": (whole := load.of(tenant).by_tenant.get(tenant, Latencies())).percentile_s(50),
                "p99_s": whole.percentile_s(99),
                "cpu_s": round(by_tenant.get(tenant, 0.0), 3),
                "most_mib": round(phase.usage.tenant_mib.get(tenant, 0.0), 1),
            }
            for tenant in sorted(asked, key=lambda tenant: -asked[tenant])
        },
        "windows": phase.windows,
        "missed": missed(options.objectives, load.usual.whole.percentile_s) + wrong(load),
        "void": void(load, options),
    }


def _tally(tally: Tally) -> dict[str, Any]:
    return {
        "asked": tally.asked.total(),
        "done": tally.done.total(),
        "refused": dict(tally.refused),
        "unexpected": dict(tally.unexpected),
        "lost": tally.lost,
        "kinds": dict(tally.kinds),
        "latency": tally.whole.summary(),
    }


def histograms_of(phase: Phase) -> dict[str, Latencies]:
    """Return the histograms of a phase by tag: `TENANT/PHASE`, usual tenants together, and the generator's lag."""
    found = {f"{tenant}/{which}": each for (tenant, which), each in phase.journaled.items()}
    for tally in (phase.load.usual, phase.load.aggressors):
        found |= {f"{tenant}/whole": each for tenant, each in tally.by_tenant.items()}
    return found | {"all/whole": phase.load.usual.whole, "generator/lag": phase.load.lag}


def summary(capacity: float, ceiling: float, start_s: float, phases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of the last line; those of the phase with aggressors, where there is one."""
    found: dict[str, Any] = {
        "capacity_runs_per_s": round(capacity, 2),
        "ceiling_runs_per_s": round(ceiling, 2),
        "start_s": round(start_s, 2),
    }
    if not phases:
        return found | {"slo_met": False, "void": False}
    alone, last = phases[ALONE], list(phases.values())[-1]
    p99_s, alone_s = last["usual"]["latency"]["p99_s"], alone["usual"]["latency"]["p99_s"]
    tallies = [phase[who] for phase in phases.values() for who in ("usual", "aggressors")]
    return found | {
        "p50_s": last["usual"]["latency"]["p50_s"],
        "p99_s": p99_s,
        "p99_alone_s": alone_s,
        "victim_p99_ratio": round(p99_s / alone_s, 3) if BESIDE in phases and alone_s else None,
        "runs_per_s": last["runs_per_s"],
        "steps_per_s": last["steps_per_s"],
        "refused": sum(sum(tally["refused"].values()) for tally in tallies),
        "unexpected": sum(sum(tally["unexpected"].values()) for tally in tallies),
        "lost": sum(tally["lost"] for tally in tallies),
        "generator_lag_p99_ms": round(max(phase["generator_lag"]["p99_s"] for phase in phases.values()) * 1000, 2),
        "jain": last["jain"],
        "cpu_s_per_1000_steps": last["cpu_s_per_1000_steps"],
        "other_cores": max(phase["other_cores"] for phase in phases.values()),
        "slo_met": not any(phase["missed"] for phase in phases.values()),
        "void": any(phase["void"] for phase in phases.values()),
    }
