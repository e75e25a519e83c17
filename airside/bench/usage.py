"""CPU time and memory of a stack's processes while it is under load, by layer and by tenant.

What is of a layer is what its process uses.  `client` is this process, which also generates the load, `model-server`
the benchmark's model, and `ray` what else runs below this process: Ray's own.  Of a tenant there is something to
measure only in dedicated mode, where it has a runtime of its own; in pooled mode CPU time is divided by the governed
steps each tenant made, which is an estimate.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airside.actors.client.client import Stack
from airside.bench.machine import busy_seconds, cpu_seconds, memory_mib, tree

CLIENT, RAY, RUNTIME, MODEL_SERVER = "client", "ray", "runtime", "model-server"


@dataclass(slots=True)
class Usage:
    """What was used so far: CPU seconds by process, the most memory by layer, and whose the runtimes are."""

    cpu_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    tenant_cpu_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    most_mib: dict[str, float] = field(default_factory=dict)
    tenant_mib: dict[str, float] = field(default_factory=dict)
    other_cpu_s: float = 0.0
    """Of processes that have nothing to do with the benchmark: what a quiet machine has none of."""

    @property
    def total_cpu_s(self) -> float:
        """CPU seconds of all processes."""
        return sum(self.cpu_s.values())

    def by_tenant(self, steps: Mapping[str, int], *, dedicated: bool) -> dict[str, float]:
        """Return the CPU seconds of each tenant's agents: of its own runtime, or its part of the pool's by steps."""
        if dedicated:
            return dict(self.tenant_cpu_s)
        whole = sum(steps.values()) or 1
        return {tenant: self.cpu_s[RUNTIME] * count / whole for tenant, count in steps.items()}


class UsageMeter:
    """Reads the processes again and again; one that has gone since keeps what it was last seen to have used.

    The first look is at what was used before anybody wanted to know: it belongs to nothing.
    """

    def __init__(self, stack: Stack, others: Mapping[int, str]) -> None:
        self._stack = stack
        self._others = {os.getpid(): CLIENT, **others}
        self._seen: dict[int, float] = {}
        self._busy_s = 0.0
        self._looking = threading.Lock()

    def add_to(self, usage: Usage) -> float:
        """Add what was used since the last look; return the CPU seconds of it.  From any thread."""
        with self._looking:
            return self._add_to(usage)

    def _add_to(self, usage: Usage) -> float:
        layers: dict[str, Any] = self._stack.status()
        own = {layer["pid"]: name for name, layer in layers.items() if "pid" in layer}
        mib: defaultdict[str, float] = defaultdict(float)
        used_s = 0.0
        for pid in {*tree(), *own}:
            name = own.get(pid) or self._others.get(pid, RAY)
            kind, _, key = name.partition("/")
            now_s = cpu_seconds([pid])
            gone_s = max(0.0, now_s - self._seen.get(pid, 0.0))
            self._seen[pid] = now_s
            used_s += gone_s
            usage.cpu_s[kind] += gone_s
            here = memory_mib([pid])
            mib[kind] += here
            if kind == RUNTIME:
                usage.tenant_cpu_s[key] += gone_s
                usage.tenant_mib[key] = max(usage.tenant_mib.get(key, 0.0), here)
        for kind, most in mib.items():
            usage.most_mib[kind] = max(usage.most_mib.get(kind, 0.0), most)
        busy_s = busy_seconds()
        usage.other_cpu_s += max(0.0, busy_s - self._busy_s - used_s)
        self._busy_s = busy_s
        return used_s
