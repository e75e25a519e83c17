"""When runs are asked for, and by which tenant: an open loop, whose schedule does not wait for the stack.

Arrivals are a Poisson process whose rate follows a shape (P. Lewis, G. Shedler, "Simulation of nonhomogeneous Poisson
processes by thinning", 1979).  Every shape has a mean of 1 over the time that is played, so that what is offered is the
same.  Tenants are chosen by Zipf's law.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from random import Random
from typing import Literal, NamedTuple, get_args

from airside.stack.errors import InvalidInput

ShapeName = Literal["poisson", "bursts", "ramp"]
SHAPES: tuple[str, ...] = get_args(ShapeName)

BURST_EVERY_S, BURST_S = 5.0, 1.0
BURST_FACTOR, LULL_FACTOR = 3.0, 0.5
"""One second in five at three times the mean, the others at half of it: (3 + 4 x 0.5) / 5 = 1."""

RAMP_FROM, RAMP_TO = 0.5, 1.5


class Arrival(NamedTuple):
    """A run that is to be asked for `at_s` seconds after the beginning."""

    at_s: float
    tenant: str


class Shape(NamedTuple):
    """How the rate changes over the time: a factor at each second, and the largest there is."""

    factor: Callable[[float], float]
    peak: float


def shape_of(name: str, duration_s: float) -> Shape:
    """Return the shape of a name, for so many seconds; raise `InvalidInput` for a name there is not."""
    match name:
        case "poisson":
            return Shape(lambda at_s: 1.0, 1.0)
        case "bursts":
            return Shape(
                lambda at_s: BURST_FACTOR if at_s % BURST_EVERY_S >= BURST_EVERY_S - BURST_S else LULL_FACTOR,
                BURST_FACTOR,
            )
        case "ramp":
            return Shape(lambda at_s: RAMP_FROM + (RAMP_TO - RAMP_FROM) * at_s / duration_s, RAMP_TO)
    raise InvalidInput(f"--arrivals {name!r:.40}: say one of {', '.join(SHAPES)}")


class Zipf:
    """Chooses names: the n-th of them in proportion to 1 / n**exponent, so with 0 all alike."""

    def __init__(self, names: Sequence[str], exponent: float) -> None:
        self._names = names
        self._sums = list(accumulate(1 / rank**exponent for rank in range(1, len(names) + 1)))

    def pick(self, rng: Random) -> str:
        """Return one of the names."""
        at = bisect_left(self._sums, rng.random() * self._sums[-1])
        return self._names[min(at, len(self._names) - 1)]


def arrivals(
    rate: float, duration_s: float, shape: Shape, pick: Callable[[Random], str], rng: Random
) -> Iterator[Arrival]:
    """Yield the arrivals of so many seconds at `rate` a second on average, in order."""
    at_s = 0.0
    while rate > 0:
        at_s += rng.expovariate(rate * shape.peak)
        if at_s >= duration_s:
            return
        if rng.random() * shape.peak < shape.factor(at_s):
            yield Arrival(at_s, pick(rng))


def together(streams: Iterable[Iterator[Arrival]]) -> Iterator[Arrival]:
    """Yield the arrivals of several streams, in order."""
    return heapq.merge(*streams)
