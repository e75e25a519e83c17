"""A load benchmark from its start to its figures: the ceiling, the capacity, and the phases that are measured."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import airside
from airside.actors.client.client import Stack
from airside.bench.app import bench_app
from airside.bench.arrivals import Arrival, Zipf, arrivals, shape_of, together
from airside.bench.figures import ALONE, BESIDE, Phase, figures_of, histograms_of, steps_of, summary, void, wrong
from airside.bench.journaled import by_phase
from airside.bench.latencies import Latencies
from airside.bench.machine import machine
from airside.bench.mix import Source
from airside.bench.model_server import serving
from airside.bench.options import BenchOptions
from airside.bench.pace import Clock, SystemClock, pace
from airside.bench.search import Bisection, Climb, grows
from airside.bench.session import Asked, Load, Session, aggressor_names, is_aggressor, tenant_names
from airside.bench.slo import missed
from airside.bench.target import StackTarget
from airside.bench.usage import MODEL_SERVER, Usage, UsageMeter

LEVEL_S = 4.0
"""Longest that one number of runs in flight is tried; the first fifth, in which it fills, does not count."""

DRAIN_S = 30.0
"""How long runs may take beyond the end of a phase.  What has not ended then is ended, and counts as lost."""

TURNS = 2
"""The calm phase and the one with aggressors take turns, so that what else the machine does falls on both."""

LEAST_TURN_S = 30.0

VOID_AGAIN = 2
"""How often a probe is made again of which the generator was late; then its rate counts as one that does not pass."""

WINDOWS, LEAST_WINDOW_S = 30, 0.5
"""Samples of a phase, which comparisons draw from."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Found:
    """What a benchmark found: figures for the results, and the histograms of each phase by tag."""

    results: dict[str, Any]
    histograms: dict[str, dict[str, Latencies]]


class Bench:
    """One benchmark on one stack."""

    def __init__(
        self, options: BenchOptions, source: Source, stack: Stack, say: Say, others: Mapping[int, str]
    ) -> None:
        self._options = options
        self._source = source
        self._stack = stack
        self._say = say
        self._others = others
        self._clock: Clock = SystemClock()
        self._target = StackTarget(stack)
        self._zipf = Zipf(tenant_names(options.tenants), options.zipf)

    def _rng(self, *purpose: object) -> Random:
        """Return the randomness of one purpose: of the same seed the same, whatever others drew."""
        return Random(f"{self._options.seed}/{purpose}")  # noqa: S311 - a load, no secret

    async def warm(self) -> float:
        """Have one run made, and then one of every tenant; return the seconds of the first."""
        rng, began = self._rng("warm"), self._clock.now()
        names = [*tenant_names(self._options.tenants), *aggressor_names(self._options.aggressors)]
        first_s = 0.0
        for some in (names[:1], names):
            load = Load()
            async with _Played(self, load) as session:
                session.send([Asked(name, self._source.plan(rng), self._clock.now()) for name in some])
                await session.drain(DRAIN_S + len(some))
            first_s = first_s or self._clock.now() - began
        return first_s

    async def ceiling(self) -> tuple[float, list[dict[str, float]]]:
        """Find how many runs a second get through at most, however many are in flight."""
        climb, levels, rng = Climb(), list[dict[str, float]](), self._rng("closed loop")
        level_s = min(LEVEL_S, self._options.probe_s)

        def make() -> Asked:
            return Asked(self._zipf.pick(rng), self._source.plan(rng), self._clock.now())

        async with _Played(self, Load()) as session:
            while (level := climb.next_level()) is not None:
                began = self._clock.now()
                await session.keep(level, make, began + level_s / 5)
                before, counted = session.ends, self._clock.now()
                await session.keep(level, make, began + level_s)
                per_s = (session.ends - before) / (self._clock.now() - counted)
                climb.note(per_s)
                levels.append({"in_flight": level, "runs_per_s": round(per_s, 2)})
                self._say(f"closed loop, {level} in flight: {per_s:.1f} runs/s")
            await session.drain(DRAIN_S)
        return climb.ceiling, levels

    async def capacity(self, ceiling: float) -> tuple[float, list[dict[str, Any]]]:
        """Find the highest rate below the ceiling that meets the objectives."""
        bisection, probes = Bisection(ceiling), list[dict[str, Any]]()
        while (rate := bisection.next_rate()) is not None:
            for attempt in range(VOID_AGAIN + 1):  # a probe of which the generator was late says nothing of the stack
                load = Load()
                why = await self._probe(rate, load, f"probe {len(probes)}.{attempt}")
                if not void(load, self._options):
                    break
            bisection.note(rate, passed=not why)
            p99_s = load.usual.whole.percentile_s(99)
            probes.append({"runs_per_s": round(rate, 2), "passed": not why, "p99_s": p99_s, "why": why})
            self._say(f"open loop, {rate:.1f} runs/s: p99 {p99_s:.3f} s, {'; '.join(why) or 'passed'}")
        return bisection.capacity, probes

    async def _probe(self, rate: float, load: Load, key: str) -> list[str]:
        """Offer a rate for a while; return why it does not pass."""
        tally, half_s = load.usual, self._options.probe_s / 2
        halfway: list[tuple[int, int]] = []
        rngs = self._plan_rngs(key)
        async with _Played(self, load) as session:
            began = self._clock.now()

            def send(due: list[Arrival]) -> bool:
                if not halfway and due[-1].at_s >= half_s:
                    halfway.append((session.open, tally.asked.total()))
                return session.send(self._asked(due, began, rngs))

            await pace(self._arrivals(rate, self._options.probe_s, key), send, self._clock)
            at_end, arrived = session.open, tally.asked.total()
            await session.drain(DRAIN_S)
        open_halfway, arrived_halfway = halfway[0] if halfway else (0, 0)
        why = missed(self._options.objectives, tally.whole.percentile_s)
        steady = self._options.shape == "poisson"  # otherwise what is open follows the rate
        if steady and grows(open_halfway, at_end, arrived - arrived_halfway):
            why.append(f"it fell behind: {open_halfway} runs were open halfway, {at_end} at the end")
        return why + wrong(load) + void(load, self._options)

    def _arrivals(self, rate: float, duration_s: float, key: str, *, aggressors: bool = False) -> Iterator[Arrival]:
        shape = shape_of(self._options.shape, duration_s)
        streams = [arrivals(rate, duration_s, shape, self._zipf.pick, self._rng(key, "arrivals"))]
        one = rate / self._options.tenants * self._options.aggressor_times
        for name in aggressor_names(self._options.aggressors) if aggressors else ():
            streams.append(arrivals(one, duration_s, shape, lambda _, name=name: name, self._rng(key, name)))  # type: ignore[misc]
        return together(streams)

    def _plan_rngs(self, key: str) -> tuple[Random, Random]:
        """Return what usual tenants' plans are drawn by, and aggressors'."""
        return self._rng(key, "plans"), self._rng(key, "aggressors' plans")

    def _asked(self, due: list[Arrival], began: float, rngs: tuple[Random, Random]) -> list[Asked]:
        return [
            Asked(each.tenant, self._source.plan(rngs[is_aggressor(each.tenant)]), began + each.at_s) for each in due
        ]

    async def measure(self, capacity: float) -> dict[str, Phase]:
        """Play the phases at their share of the capacity, in turns."""
        rate = self._options.load * capacity
        names = [ALONE, BESIDE] if self._options.aggressors else [ALONE]
        phases = {name: Phase(rate) for name in names}
        turns = TURNS if self._options.duration_s >= TURNS * LEAST_TURN_S else 1
        for turn in range(turns):
            for name, phase in phases.items():
                await self._turn(phase, self._options.duration_s / turns, f"turn {turn}", aggressors=name == BESIDE)
                shown = phase.load.usual.whole
                self._say(f"{name}, turn {turn + 1} of {turns}: {rate:.1f} runs/s, p99 {shown.percentile_s(99):.3f} s")
        return phases

    async def _turn(self, phase: Phase, duration_s: float, key: str, *, aggressors: bool) -> None:
        """Play one turn; usual tenants ask for the same with aggressors as without."""
        meter = UsageMeter(self._stack, self._others)
        await asyncio.to_thread(meter.add_to, Usage())
        begin_us, rngs = time.time_ns() // 1000, self._plan_rngs(key)
        async with _Played(self, phase.load) as session:
            sampling = asyncio.create_task(self._sample(phase, meter, session))
            began = self._clock.now()
            await pace(
                self._arrivals(phase.rate, duration_s, key, aggressors=aggressors),
                lambda due: session.send(self._asked(due, began, rngs)),
                self._clock,
            )
            sampling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sampling
            await session.drain(DRAIN_S)
            phase.seconds += self._clock.now() - began
        await asyncio.to_thread(meter.add_to, phase.usage)
        found = await asyncio.to_thread(by_phase, self._stack.query, begin_us, time.time_ns() // 1000)
        for tag, histogram in found.items():
            phase.journaled.setdefault(tag, Latencies()).add(histogram)

    async def _sample(self, phase: Phase, meter: UsageMeter, session: Session) -> None:
        """Take a sample of what went on, window after window, until cancelled."""
        load = phase.load
        while True:
            began, ends, steps, others_s = self._clock.now(), session.ends, steps_of(load), phase.usage.other_cpu_s
            load.window, load.window_lag = Latencies(), Latencies()
            await self._clock.sleep(self._window_s)
            latencies, lag = load.window, load.window_lag
            seconds, done, made = self._clock.now() - began, session.ends - ends, steps_of(load) - steps
            cpu_s = await asyncio.to_thread(meter.add_to, phase.usage)
            if latencies.count and made:
                phase.windows.append(
                    {
                        "runs_per_s": round(done / seconds, 3),
                        "p50_s": latencies.percentile_s(50),
                        "p99_s": latencies.percentile_s(99),
                        "generator_lag_p99_ms": round(lag.percentile_s(99) * 1000, 3),
                        "cpu_s_per_1000_steps": round(cpu_s / made * 1000, 4),
                        "other_cores": round((phase.usage.other_cpu_s - others_s) / seconds, 3),
                    }
                )

    @property
    def _window_s(self) -> float:
        return max(LEAST_WINDOW_S, self._options.duration_s / WINDOWS)


class _Played:
    """A session on the benchmark's stack for as long as the block lasts, with what looks after its runs."""

    def __init__(self, bench: Bench, load: Load) -> None:
        self._bench = bench
        self._load = load
        self._group = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Session:
        bench = self._bench
        await self._group.__aenter__()
        session = Session(bench._target, self._load, bench._clock, self._group)
        self._tasks = [self._group.create_task(session.follow())]
        if bench._source.waits:
            approving = session.approve(bench._rng("people"), bench._options.people_s)
            self._tasks.append(self._group.create_task(approving))
        return session

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> None:
        for task in self._tasks:
            task.cancel()
        try:
            await self._group.__aexit__(kind, error, trace)
        except BaseExceptionGroup as problems:
            raise problems.exceptions[0] from None


def run_bench(options: BenchOptions, source: Source, say: Say) -> Found:
    """Start a stack, find what it carries, measure it, and return the figures; nothing of the stack is left."""
    folder = Path(tempfile.mkdtemp(prefix="airside-bench-"))
    with ExitStack() as at_end:
        at_end.callback(shutil.rmtree, folder, ignore_errors=True)
        names = [*tenant_names(options.tenants), *aggressor_names(options.aggressors)]
        model_url, others = "", dict[int, str]()
        if options.latencies is not None:
            model_url, pid = at_end.enter_context(serving(options.latencies, options.seed))
            others[pid] = MODEL_SERVER
        began = time.monotonic()
        stack = airside.start(bench_app(names, model_url), stack="bench", state_dir=folder, mode=options.mode)
        at_end.callback(stack.shutdown)
        start_s = time.monotonic() - began
        say(f"started in {start_s:.1f} s")
        return asyncio.run(_played(Bench(options, source, stack, say, others), options, start_s))


async def _played(bench: Bench, options: BenchOptions, start_s: float) -> Found:
    first_s = await bench.warm()
    ceiling, levels, capacity, probes = 0.0, list[dict[str, float]](), options.capacity, list[dict[str, Any]]()
    if not capacity:
        ceiling, levels = await bench.ceiling()
        capacity, probes = await bench.capacity(ceiling)
    phases = await bench.measure(capacity) if capacity else {}
    figures = {name: figures_of(phase, options) for name, phase in phases.items()}
    results = {
        "format": 1,
        "machine": machine(),
        "options": options.as_dict(),
        "startup": {"stack_s": round(start_s, 2), "first_run_s": round(first_s, 3)},
        "ceiling_runs_per_s": round(ceiling, 2),
        "ceiling": levels,
        "capacity_runs_per_s": round(capacity, 2),
        "probes": probes,
        "phases": figures,
        "summary": summary(capacity, ceiling, start_s, figures),
    }
    return Found(results, {name: histograms_of(phase) for name, phase in phases.items()})
