"""What a load benchmark is asked to do, checked before anything is started."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from airside.bench.arrivals import SHAPES
from airside.bench.model_server import read_latencies
from airside.bench.pace import GATHER_S
from airside.bench.slo import Objective
from airside.stack.errors import InvalidInput

LAG_SHARE = 0.1
"""Of the tightest objective: a generator whose p99 lag is above is what was measured, and the phase is void."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """`load` is the share of the capacity that is offered; `probe_s` how long one rate is tried while it is searched.

    `latencies` is a file of how long models took, in seconds: then a model is asked for each decision.
    """

    objectives: tuple[Objective, ...]
    tenants: int = 200
    aggressors: int = 1
    aggressor_times: float = 10.0
    duration_s: float = 300.0
    probe_s: float = 10.0
    load: float = 0.7
    capacity: float = 0.0
    zipf: float = 1.0
    shape: str = "poisson"
    people_s: float = 1.0
    mode: str = "pooled"
    seed: int = 1
    latencies: Path | None = None

    def __post_init__(self) -> None:
        bounds: dict[str, tuple[float, float]] = {
            "tenants": (1, 10_000),
            "aggressors": (0, 100),
            "aggressor_times": (0, 10_000),
            "duration_s": (1, 86_400),
            "probe_s": (1, 600),
            "load": (0.01, 2),
            "capacity": (0, 100_000),
            "zipf": (0, 5),
            "people_s": (0.001, 3600),
        }
        for name, (least, most) in bounds.items():
            if not least <= getattr(self, name) <= most:
                option = "--" + name.removesuffix("_s").replace("_", "-")
                raise InvalidInput(f"{option} {getattr(self, name):g}: give a number from {least:g} to {most:,g}")
        if self.lag_bound_s < 2 * GATHER_S:
            least_ms = 2 * GATHER_S / LAG_SHARE * 1000
            raise InvalidInput(f"--slo: bounds below {least_ms:g} ms are finer than the generator can measure")
        if self.latencies is not None:
            read_latencies(self.latencies)
        if self.shape not in SHAPES:
            raise InvalidInput(f"--arrivals {self.shape!r:.40}: say one of {', '.join(SHAPES)}")
        if self.mode not in ("pooled", "dedicated"):
            raise InvalidInput(f"--mode {self.mode!r:.40}: say pooled or dedicated")

    @property
    def lag_bound_s(self) -> float:
        """The p99 of the generator's lag with which a phase still counts."""
        return LAG_SHARE * min(each.below_s for each in self.objectives)

    def as_dict(self) -> dict[str, Any]:
        """Return them for the results."""
        return {
            **asdict(self),
            "objectives": [str(each) for each in self.objectives],
            "latencies": str(self.latencies or ""),
        }
