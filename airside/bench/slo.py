"""Service level objectives: bounds on percentiles of the latency of runs, as `p99<2s, p50<300ms`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from airside.stack.errors import InvalidInput

_OBJECTIVE = re.compile(
    r"p(?P<percentile>[0-9]{1,2}(\.[0-9]{1,4})?)\s*<=?\s*(?P<amount>[0-9]+(\.[0-9]+)?)\s*(?P<unit>ms|s)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """That so many percent of runs take less than `below_s` seconds."""

    percentile: float
    below_s: float

    def __str__(self) -> str:
        return f"p{self.percentile:g}<{self.below_s:g}s"


def parse_slo(text: str) -> tuple[Objective, ...]:
    """Return the objectives of a text, as they stand there; raise `InvalidInput` for what is none."""
    found = []
    for part in text.split(","):
        match = _OBJECTIVE.fullmatch(part.strip())
        if match is None:
            raise InvalidInput(f"--slo {part.strip()!r:.60}: write p99<2s or p50<300ms, several separated by commas")
        seconds = float(match["amount"]) / (1000 if match["unit"] == "ms" else 1)
        percentile = float(match["percentile"])
        if not seconds > 0 or not percentile > 0:
            raise InvalidInput(f"--slo {part.strip()!r:.60}: both numbers must be above 0")
        found.append(Objective(percentile=percentile, below_s=seconds))
    return tuple(found)


def missed(objectives: Sequence[Objective], percentile_s: Callable[[float], float]) -> list[str]:
    """Return a sentence for each objective that is not met, by the percentiles there are."""
    found = [(each, percentile_s(each.percentile)) for each in objectives]
    return [
        f"{each} is missed: p{each.percentile:g} = {got_s:.3f} s" for each, got_s in found if not got_s < each.below_s
    ]
