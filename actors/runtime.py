"""TenantRuntime: runs the cycles of a tenant's runs (of many tenants' in pooled mode).  The only layer with agent code.

It holds no key and no tool: what a hijacked agent could reach from here is its own tenant's runs.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from airside.actors.process.orphans import mark_children
from airside.actors.process.pulse import PulseWriter, Where
from airside.actors.rpc.layer import BEAT_S, Layer, LayerConfig, control, logger, steady_us
from airside.actors.rpc.methods import ACTIVATE, BRING, REPORT
from airside.actors.rpc.remote import Remote
from airside.actors.rpc.serving import serves
from airside.actors.rpc.stubs import (
    RemoteApprovals,
    RemoteJournal,
    RemoteMemory,
    RemoteModels,
    RemotePolicy,
    RemoteTools,
)
from airside.stack.cycle.cycle import Cycle
from airside.stack.cycle.cycle_ports import CyclePorts
from airside.stack.cycle.hosting import Held, RunHost
from airside.stack.errors import ItemFailed, LayerUnavailable
from airside.stack.ids import RunId, TenantId
from airside.stack.operations.messages import Activation, Delivery, Report
from airside.stack.policy.bundle import load_bundle
from airside.stack.policy.trace_predictor import TracePredictor
from airside.stack.run import events as ev
from airside.stack.run.agents import Agent
from airside.stack.run.spans import traceparent
from airside.stack.run.topology import Topology
from airside.stack.scheduling.placement_events import RunStanding
from airside.stack.schema.toolspec import ToolSpec
from airside.tools.runners.output import mark_output


@dataclass(frozen=True, slots=True)
class RuntimeApp:
    """The part of an app that runs where agents run."""

    agents: Mapping[str, Agent]
    routes: Mapping[str, Topology]
    specs: Sequence[ToolSpec]
    memory: bool
    version: str
    bundle: str | None = None
    metered: frozenset[str] = frozenset()
    asks_models: bool = False


class TenantRuntime(Layer):
    """The run machines of its tenants."""

    def __init__(self, config: LayerConfig, app: RuntimeApp) -> None:
        super().__init__(config)
        self._app = app
        self._pulse: PulseWriter | None = None

    async def start(self) -> None:
        """Connect the stubs and begin to beat."""
        settings, cell, bundle = self.config.settings, self.config.cell, self._app.bundle
        if settings.show_output:
            mark_output(settings.stack)
        self._pulse = self._pulse or PulseWriter(lease_s=settings.lease_s)  # a start that failed is tried again
        mark_children(self._pulse.where)
        journal = RemoteJournal(cell)
        self._driver = Remote(cell, "driver")
        self._host = RunHost(
            journal,
            make=lambda machine, durable: Cycle(machine, self._layers, durable=durable),
            share=lambda submitted: self._layers.alike.shared(submitted),
            tell=self._tell,
            log=_log_early_end,
            now_us=steady_us,
            mint=lambda: secrets.token_hex(4),
        )
        self._layers = CyclePorts(
            journal=journal,
            policy=RemotePolicy(cell),
            tools=RemoteTools(cell),
            approvals=RemoteApprovals(cell),
            memory=RemoteMemory(cell) if self._app.memory else None,
            agents=self._app.agents,
            routes=self._app.routes,
            specs=self._app.specs,
            now_us=steady_us,
            spawn=self._host.spawn,
            traceparent=traceparent,
            pulse=self._pulse,
            trace_predictor=TracePredictor(load_bundle(bundle), self._app.specs) if bundle is not None else None,
            metered=self._app.metered,
            models=RemoteModels(cell) if self._app.asks_models else None,
        )
        self._beating = asyncio.ensure_future(self._keep_beating())

    async def _keep_beating(self) -> None:
        assert self._pulse is not None
        while True:
            self._pulse.turn()
            for log in list(self._layers.unwritten):
                log.flush_if_idle()
            await asyncio.sleep(BEAT_S)

    async def greet(self) -> tuple[str, Where]:
        """Return the Ray node this process is on, and where its pulse can be read there; once it has begun."""
        assert self._pulse is not None
        return str(ray.get_runtime_context().get_node_id()), self._pulse.where

    @serves(ACTIVATE)
    def activate(self, activation: Activation) -> bool:
        """Take a run up; one that is here already under this epoch or a newer one stays as it is."""
        try:
            self._host.activate([ev.decode_event(body) for body in activation.events])
        except Exception:
            logger.exception("%s cannot be taken up", activation.run_id, extra={"action": "replay_failed"})
            self._host.refuse(activation.run_id, activation.epoch)
        return True

    @serves(BRING)
    def bring(self, delivery: Delivery) -> int | None:
        """Bring an event in from outside; say which reports are older than it, None for a run that is not here."""
        return self._host.bring(delivery.run_id, ev.decode_event(delivery.event))

    async def _tell(
        self, run_id: RunId, tenant: TenantId, epoch: int, standing: RunStanding, ended: bytes = b"", number: int = 0
    ) -> None:
        report = Report(run_id=run_id, tenant=tenant, epoch=epoch, state=standing, ended=ended, number=number)
        try:
            await self._driver.call(REPORT, report)
        except LayerUnavailable:
            logger.warning("a report of %s is sent again", run_id, extra={"action": "report_again"})
            raise
        except ItemFailed as error:  # sent again it fails again
            logger.error("the driver takes no report of %s: %s", run_id, error, extra={"action": "report_lost"})

    # Control: answered by another thread than the one agents run on.

    async def drain(self) -> int:
        """Put parked runs down in good order, so that the process can go; return how many still work."""
        await self.ready()
        return await self._host.drain()

    async def runs(self) -> list[Held]:
        """Return the runs that are here, and how they stand."""
        return self._host.held()

    async def stats(self) -> dict[str, Any]:
        """Return how many runs are here, and how many are at work."""
        if not self._started:
            return {}
        return {"runs": len(self._host), "working": self._host.working}


def _log_early_end(run_id: RunId, error: Exception) -> None:
    action = "journal_lost" if isinstance(error, LayerUnavailable) else "cycle_failed"
    logger.error("an activation of %s ended early", run_id, exc_info=error, extra={"action": action})


control(TenantRuntime.stats, TenantRuntime.greet, TenantRuntime.runs)
