"""A stack for batches without Ray: runs end by what their inputs say, and a submission sent again is the same run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
import pyarrow as pa

from airside.actors.client.batch_handle import BatchHandle
from airside.actors.client.steps import Pause, Steps
from airside.actors.jobs import Job
from airside.actors.rpc.methods import Ends, WaitRequest
from airside.batches.retry import QUERIES
from airside.stack.errors import LayerUnavailable
from airside.stack.ids import PrincipalId, RunId
from airside.stack.operations.batches import BatchChange, BatchChanged, BatchState
from airside.stack.operations.messages import Ticket
from airside.stack.policy.kill_switches import KillSwitchChanged
from airside.stack.reasons import ReasonCode, status_of
from airside.stack.recovery.rollback import rollback_stream
from airside.stack.run.events import RunEnded
from airside.stack.scheduling.watches import Watches
from airside.stack.values import Outcome, Usage


class Died(BaseException):
    """The process is gone: nothing of it is caught."""


class FakeStack:
    """What `run_batch` asks of a stack.  `dies` is asked before anything is done, and may raise `Died`."""

    def __init__(self, dies: Callable[[], None] = lambda: None) -> None:
        self.dies = dies
        self.runs: dict[bytes, RunId] = {}
        self.jobs: dict[RunId, Job] = {}
        self.sent = 0
        self.entered: list[int] = []
        self.changed: list[str] = []
        self.cancelled: set[str] = set()
        self.cancels_late = False
        self.submitted_us = 0
        """When its runs were admitted, as the journal has it."""
        self.cancels: list[str] = []
        self.problem = ""
        self.streams: dict[str, list[str]] = {}
        """What the journal has: of batches, and of runs and rollbacks where a test says so."""
        self.queries: list[tuple[str, Sequence[Any]]] = []
        self.job_inputs = None
        self.job_schema = None
        self.described: dict[str, Any] = {
            "app_version": "1",
            "policy": "p",
            "models": {"agent clerk": "one"},
            "routes": ["default"],
        }
        self.backend = self
        self.warnings: tuple[str, ...] = ()
        self.thrown: list[KillSwitchChanged] = []
        self._watches = Watches("a")

    # The backend of jobs.

    def enter(self, jobs: Sequence[Job], within_s: float | None) -> Steps[list[Ticket]]:
        """Admit jobs."""
        self.dies()
        yield Pause(0.0)
        self.entered.append(len(jobs))
        tickets = []
        for job in jobs:
            if job.tenant == "nobody":
                tickets.append(Ticket(reason_code=ReasonCode.TENANT_UNKNOWN, message="nobody"))
                continue
            self.sent += 1
            run = self.runs.setdefault(job.nonce, RunId(f"run_{len(self.runs):024x}"))
            self.jobs[run] = job
            tickets.append(Ticket(run_id=run))
        self.dies()
        return tickets

    def wait(self, wanted: WaitRequest, within_s: float | None) -> Steps[Ends]:
        """Say which runs have ended: all but those that never do and were not cancelled."""
        self.dies()
        yield Pause(0.0)
        watch = self._watches.begin(wanted.watch, 0.0) if wanted.after is None else self._watches.find(wanted.watch, 0)
        if watch is None:
            return Ends(known=False)
        watch.arrived(wanted.after or 0)
        self._watches.add(watch, map(RunId, wanted.run_ids))
        for run in list(watch.run_ids):
            reason = self._reason(run)
            if reason is not None:
                outcome = Outcome(
                    status=str(status_of(reason)), reason_code=reason, answer=msgspec.Raw(self._answer(run))
                )
                usage = Usage(steps=2, tokens=10, cost_microusd=100)
                self._watches.ended(run, msgspec.json.encode(RunEnded(at_us=0, cause=0, outcome=outcome, usage=usage)))
        return Ends(*watch.next_ends(), born=watch.born)

    def _reason(self, run: RunId) -> ReasonCode | None:
        inputs = self.jobs[run].inputs
        if inputs.get("hangs"):
            return ReasonCode.CANCELLED if run in self.cancelled else None
        request = self.jobs[run].to_request()
        attempt = request.batch.attempt if request.batch else 1
        if attempt <= inputs.get("fails", 0):
            return ReasonCode.TOOL_FAILED
        return ReasonCode.COMPLETED

    def _answer(self, run: RunId) -> bytes:
        return json.dumps(self.jobs[run].inputs.get("answer")).encode()

    def story(self, run_id: str) -> str:
        """Tell nothing."""
        return ""

    # The rest of a stack.

    def batch(self, name: str) -> BatchHandle:
        """Return a batch."""
        return BatchHandle(name, self, self._order)

    def bodies(self, streams: Sequence[str]) -> dict[str, list[str]]:
        """Return events."""
        return {stream: list(self.streams.get(stream, [])) for stream in streams}

    def read(self, name: str, *parameters: Any) -> Any:
        """Answer nothing."""
        return []

    def _order(self, batch: str, change: BatchChange, why: str) -> None:
        self.dies()
        stream = self.streams.setdefault(f"batch:{batch}", [])
        BatchState(stream).check(batch, change)
        stream.append(msgspec.json.encode(BatchChanged(at_us=1, by=PrincipalId("op"), change=change, why=why)).decode())

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """Return the runs that changed something, those that were rolled back, or the events of one."""
        self.queries.append((sql, parameters))
        if sql == QUERIES["story"]:
            found = [(name, body) for name in parameters[:2] for body in self.streams.get(name, [])]
            return pa.table({"stream": [name for name, _ in found], "body": [body for _, body in found]})
        if sql == QUERIES["under_way"]:
            found = [(run, self.submitted_us) for run in self.jobs if self._reason(run) is None]
            return pa.table({"run_id": [run for run, _ in found], "submitted_us": [at for _, at in found]})
        rolled_back = [run for run in self.jobs if rollback_stream(run) in self.streams]
        return pa.table(
            {"run_id": pa.array(rolled_back if sql == QUERIES["rolled_back"] else self.changed, pa.string())}
        )

    def approvals(self) -> list[Any]:
        """Return what waits for people: every run that hangs."""
        return [SimpleNamespace(run_id=run) for run, job in self.jobs.items() if job.inputs.get("hangs")]

    def layers(self, names: Sequence[str]) -> tuple[dict[str, dict[str, Any]], str]:
        """Return what the journal says of itself."""
        return {"journal": {"problem": self.problem}}, ""

    def switches(self) -> list[KillSwitchChanged]:
        """Return what is off."""
        return self.thrown

    def cancel(self, run: str, why: str = "") -> int:
        """Withdraw a run, at the second time of asking where `cancels_late`."""
        self.cancels.append(run)
        if self.cancels_late and self.cancels.count(run) < 2:
            raise LayerUnavailable("driver: it does not answer")
        self.cancelled.add(run)
        return 1
