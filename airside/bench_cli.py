"""`airside bench`: a load benchmark, and the comparison of two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from airside.bench.mix import DEFAULT_MIX, KINDS, Recorded, Source, parse_mix
from airside.bench.options import BenchOptions
from airside.bench.slo import parse_slo
from airside.options import path_of
from airside.output import json_line
from airside.stack.errors import InvalidConfig, InvalidInput

MISSED, VOID = 3, 4
"""Exit codes: an objective was missed; the generator was too slow, so that the figures say nothing of the stack."""

RESULTS, REPORT = "results.json", "report.html"


def bench(
    tenants: Annotated[int, typer.Option(help="usual tenants; the n-th is chosen in proportion to 1 / n**ZIPF")] = 200,
    slo: Annotated[
        str, typer.Option(help="bounds on percentiles of a run's latency, as p99<2s; several separated by commas")
    ] = "p99<2s",
    duration: Annotated[float, typer.Option(help="seconds of each measured phase")] = 300.0,
    load: Annotated[float, typer.Option(help="the share of the capacity that the measured phases offer")] = 0.7,
    aggressors: Annotated[
        int, typer.Option(help="further tenants that ask for far more than their share; 0: none")
    ] = 1,
    aggressor_times: Annotated[float, typer.Option(help="times the rate of an average usual tenant, each")] = 10.0,
    arrivals: Annotated[str, typer.Option(help="poisson, bursts or ramp")] = "poisson",
    zipf: Annotated[float, typer.Option(help="how uneven usual tenants are; 0: alike")] = 1.0,
    mix: Annotated[str, typer.Option(help=f"what runs do, by weight: {', '.join(KINDS)}")] = DEFAULT_MIX,
    steps: Annotated[int, typer.Option(help="calls of a run")] = 4,
    replay: Annotated[
        Path | None, typer.Option(parser=path_of, help="a state directory whose recorded runs are the mix instead")
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(
            parser=path_of, help="a file of seconds that models took, one a line: a model makes each decision"
        ),
    ] = None,
    people: Annotated[float, typer.Option(help="seconds until an approval is given, on average")] = 1.0,
    capacity: Annotated[float, typer.Option(help="runs a second, if known: it is not searched for then")] = 0.0,
    probe: Annotated[
        float, typer.Option(help="seconds that a rate is tried for while the capacity is searched")
    ] = 10.0,
    mode: Annotated[str, typer.Option(help="pooled or dedicated")] = "pooled",
    seed: Annotated[int, typer.Option(help="of the schedules and what is drawn")] = 1,
    out: Annotated[
        Path, typer.Option(parser=path_of, help="folder of results.json, histograms and report.html")
    ] = Path("bench-results"),
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(parser=path_of, help="two such folders: say how the second differs, and measure nothing"),
    ] = None,
) -> None:
    """Find what a stack on this machine carries, and measure it below that, without and with aggressors.

    First a closed loop finds the ceiling, then an open one below it the highest rate that meets --slo. Latency counts
    from when a run was due. A stack of its own is started, with the settings of the environment.

    Exit code 0 if the objectives were met; 1 or 2 as ever; 3 if one was missed, or no rate meets them; 4 if the
    generator was late by more than a tenth of the tightest objective (p99), so that what was measured is void.
    """
    if compare is not None:
        typer.echo(_compared(*compare))
        return
    options = BenchOptions(
        objectives=parse_slo(slo),
        tenants=tenants,
        aggressors=aggressors,
        aggressor_times=aggressor_times,
        duration_s=duration,
        probe_s=probe,
        load=load,
        capacity=capacity,
        zipf=zipf,
        shape=arrivals,
        people_s=people,
        mode=mode,
        seed=seed,
        latencies=models,
    )
    source = _source(mix, steps, replay)
    _check_extra()
    found = _measured(options, source, {"mix": mix if replay is None else "", "steps": steps}, out)
    typer.echo(json_line(found))
    raise typer.Exit(VOID if found["void"] else 0 if found["slo_met"] else MISSED)


def _source(mix: str, steps: int, replay: Path | None) -> Source:
    """Return where plans of runs come from."""
    if replay is None:
        return parse_mix(mix, steps)
    from airside.actors.audit import open_audit
    from airside.bench.replay import recorded_plans

    with open_audit(replay) as journal:
        return Recorded(recorded_plans(journal))


def _check_extra() -> None:
    """Raise `InvalidConfig` if a library of the extra is not there."""
    try:
        import altair  # noqa: F401 - whether it is there
        import hdrh  # noqa: F401
        import vl_convert  # noqa: F401
    except ImportError as error:
        raise InvalidConfig(f"bench needs {error.name}, which is not installed: pip install 'airside[bench]'") from None


def _measured(options: BenchOptions, source: Source, said: dict[str, Any], out: Path) -> dict[str, Any]:
    """Measure, write the folder, and return the summary."""
    from airside.bench.bench import run_bench
    from airside.bench.latencies import write_histograms
    from airside.bench.report import report

    out.mkdir(parents=True, exist_ok=True)  # before anything is measured for nothing
    found = run_bench(options, source, typer.echo)
    found.results["options"] |= said
    (out / RESULTS).write_text(json_line(found.results, indent=1), "utf-8")
    for name, histograms in found.histograms.items():
        write_histograms(out / f"{name}.hlog", histograms)
    (out / REPORT).write_text(report(found.results), "utf-8")
    for name, phase in found.results["phases"].items():
        for problem in (*phase["missed"], *phase["void"]):
            typer.echo(f"{name}: {problem}")
    if not found.results["phases"]:
        typer.echo("no rate below the ceiling meets the objectives")
    typer.echo(f"results: {out / RESULTS}, {out / REPORT}")
    summary: dict[str, Any] = found.results["summary"]
    return summary


def _compared(first: Path, second: Path) -> str:
    """Return the comparison of two folders of results; the last line is one JSON object."""
    from airside.bench.compare import compared, lines

    differences = compared(_read(first), _read(second))
    return "\n".join([*lines(differences), json_line({each.name: each.as_dict() for each in differences})])


def _read(folder: Path) -> dict[str, Any]:
    path = folder / RESULTS if folder.is_dir() else folder
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise InvalidInput(f"--compare {path}: {error.strerror}") from None
    except ValueError:
        raise InvalidInput(f"--compare {path}: that is no JSON") from None
    if not isinstance(found, dict) or found.get("format") != 1 or "phases" not in found:
        raise InvalidInput(f"--compare {path}: that is no results file of `airside bench`")
    return found
