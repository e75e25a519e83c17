"""`CircuitBreakers`: a tool that does not answer a tenant, call after call, is not called by it for a while.

The rules, for each tool and tenant by itself:

1. Closed, all calls go through.  `FAILURES` in a row that say that the tool is not available open it.
2. Open, no call goes through, for `PAUSE_S`.
3. After that one call goes through, the trial.  If the tool answers, whatever it says, it is closed; if it does not,
   it is open for another pause; if the trial says nothing (its run was stopped), the next call is one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from airside.stack.errors import AirsideError
from airside.stack.ids import TenantId

FAILURES = 5
"""One or two are an incident of the network; that many, one after the other, are an outage."""

PAUSE_S = 30.0
"""About what a service needs to restart; an agent that is told so in vain has lost no more than that."""

MAX_KEPT = 10_000
"""Tools and tenants with a failure; of more the oldest are forgotten, and closed."""

_PAUSE_US = int(PAUSE_S * 1_000_000)


class CircuitOpen(AirsideError):
    """The tool was not called: it did not answer the calls before."""


@dataclass(slots=True)
class _Circuit:
    """`failures` in a row; `open_until_us` is None while it is closed; `trial` = a call is on its way that decides."""

    failures: int = 0
    open_until_us: int | None = None
    trial: bool = False


class CircuitBreakers:
    """The circuits of one executor; those without a failure are not kept."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        self._now_us = now_us
        self._circuits: OrderedDict[tuple[str, TenantId], _Circuit] = OrderedDict()

    def __len__(self) -> int:
        return len(self._circuits)

    def admit(self, tool: str, tenant: TenantId) -> None:
        """Let a call through, whose end is to be recorded; raise `CircuitOpen` saying when to try again."""
        circuit = self._circuits.get((tool, tenant))
        if circuit is None or circuit.open_until_us is None:
            return
        left_us = circuit.open_until_us - self._now_us()
        if left_us > 0 or circuit.trial:
            when = f"in {max(left_us, 1) / 1_000_000:.1f} s" if left_us > 0 else "when the call that tries it is back"
            raise CircuitOpen(
                f"{tool} did not answer {circuit.failures} calls in a row, and is not called; try again {when}"
            )
        circuit.trial = True

    def record(self, tool: str, tenant: TenantId, is_available: bool | None) -> None:
        """Know how a call that was let through ended; None says nothing of the tool."""
        key = (tool, tenant)
        circuit = self._circuits.get(key)
        if is_available is None:
            if circuit is not None:
                circuit.trial = False
        elif is_available:
            self._circuits.pop(key, None)
        else:
            circuit = self._circuits.setdefault(key, _Circuit())
            self._circuits.move_to_end(key)
            circuit.failures += 1
            if circuit.trial or (circuit.failures >= FAILURES and circuit.open_until_us is None):
                circuit.open_until_us, circuit.trial = self._now_us() + _PAUSE_US, False
            while len(self._circuits) > MAX_KEPT:
                self._circuits.popitem(last=False)
