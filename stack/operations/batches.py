"""Batches: what the journal has of them, and how one stands by that.

A batch is a stream of these events, `batch:NAME`, in the chain of the system's own tenant; the driver is its only
writer.  Who runs a batch reads them and does as they say; what its jobs did is in their runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw

from airside.stack.errors import InvalidInput
from airside.stack.ids import PrincipalId, TenantId
from airside.stack.values import MOST_PRIORITY, Count, Value

BatchAction = Literal["open", "take_up", "leave", "pause", "resume", "retune", "requeue", "cancel"]
BatchPhase = Literal["running", "paused", "stopped", "finished", "cancelled"]

MOST_CONCURRENCY = 100_000
"""Jobs of a batch under way at once: those that wait for their results are in its process's memory."""

MOST_REQUEUED = 10_000
"""Jobs of one order: their ids stand in one entry of the journal."""


def stream_of(batch: str) -> str:
    """Return the name of a batch's stream."""
    return f"batch:{batch}"


class BatchSettings(Value, omit_defaults=True):
    """How a batch is run; None leaves a setting as it was.

    `concurrency`: jobs under way at once; `rate_per_s`: submissions a second, 0 for as many as there is room for;
    `priority`: before whom of its tenant a job begins; `limits`: of each run, lowered.  They hold for what is submitted
    from then on.
    """

    concurrency: Annotated[int, Meta(ge=1, le=MOST_CONCURRENCY)] | None = None
    rate_per_s: Annotated[float, Meta(ge=0, le=1_000_000)] | None = None
    priority: Annotated[int, Meta(ge=-MOST_PRIORITY, le=MOST_PRIORITY)] | None = None
    limits: dict[str, Count] | None = None

    def over(self, before: BatchSettings) -> BatchSettings:
        """Return these where they say something, and those before where they do not."""
        mine = msgspec.structs.asdict(self)
        return msgspec.structs.replace(before, **{name: value for name, value in mine.items() if value is not None})


class BatchChange(Value, omit_defaults=True):
    """What is to be done with a batch.

    `open`: it begins, with its manifest, as a `tenant`'s and a `principal`'s of it, or, without these, the house's;
    `take_up`: the process `owner` runs it from here on, and whoever did stops, with a manifest of its own where the
    policy or the app is another and that was accepted; `leave`: `owner` runs it no more,
    because of `state`; the others are orders of operators.
    """

    action: BatchAction
    owner: str = ""
    state: str = ""
    manifest: Raw = Raw(b"null")
    tenant: TenantId = TenantId("")
    principal: PrincipalId = PrincipalId("")
    settings: BatchSettings = BatchSettings()
    job_ids: tuple[str, ...] = ()


class BatchChanged(Value, tag="BatchChanged"):
    """A change of a batch, by whom and why."""

    at_us: int
    by: PrincipalId
    change: BatchChange
    why: str = ""


_decode = msgspec.json.Decoder(BatchChanged).decode


class BatchState:
    """A batch by its events."""

    def __init__(self, bodies: Iterable[str | bytes] = ()) -> None:
        self.length = 0
        self.manifest = Raw(b"null")
        self.opened_us = 0
        self.opened_by = PrincipalId("")
        self.tenant = TenantId("")
        """Whose it is; empty if it is the house's."""
        self.principal = PrincipalId("")
        self.owner = ""
        self.left = ""
        """Why the last owner left; empty while there is one."""
        self.is_paused = False
        self.is_cancelled = False
        self.settings = BatchSettings()
        self.requeued: list[str] = []
        """Jobs to be run again, as ordered since the last owner took it up."""
        self.last: BatchChanged | None = None
        for body in bodies:
            self.apply(_decode(body))

    def apply(self, event: BatchChanged) -> None:
        """Take an event in."""
        change = event.change
        self.length += 1
        if change.action in ("pause", "resume", "retune", "requeue", "cancel"):
            self.last = event
        match change.action:
            case "open":
                self.manifest, self.opened_us, self.opened_by = change.manifest, event.at_us, event.by
                self.tenant, self.principal = change.tenant, change.principal
            case "take_up":
                self.owner, self.left, self.requeued = change.owner, "", []
                self.manifest = change.manifest if bytes(change.manifest) != b"null" else self.manifest
            case "leave":
                if change.owner == self.owner:
                    self.left = change.state or "stopped"
            case "pause":
                self.is_paused = True
            case "resume":
                self.is_paused = self.is_cancelled = False
            case "retune":
                self.settings = change.settings.over(self.settings)
            case "requeue":
                self.requeued.extend(change.job_ids)
            case "cancel":
                self.is_cancelled = True

    @property
    def phase(self) -> BatchPhase:
        """How it stands; `running` says that a process took it up and has not said since that it left it."""
        if self.is_cancelled:
            return "cancelled"
        if self.left == "finished":
            return "finished"
        if self.left or not self.owner:
            return "stopped"
        return "paused" if self.is_paused else "running"

    def check(self, batch: str, change: BatchChange) -> None:
        """Raise `InvalidInput` for a change that means nothing now, saying why."""
        if change.action == "open":
            if self.length:
                raise InvalidInput(f"batch {batch}: there is one of this name already: call this one otherwise")
            return
        if not self.length:
            raise InvalidInput(
                f"batch {batch!r:.80}: there is none of this name; `stack.batches()`, or `airside batch list`, shows "
                "those there are"
            )
        if change.action == "pause" and self.phase != "running":
            raise InvalidInput(f"batch {batch}: it is {self.phase}, and cannot be paused")
        if change.action == "resume" and not (self.is_paused or self.is_cancelled):
            raise InvalidInput(f"batch {batch}: it is {self.phase}: `airside run --resume` takes up one that was left")
        if change.action == "cancel" and self.phase in ("finished", "cancelled"):
            raise InvalidInput(f"batch {batch}: it is {self.phase} already")
        if change.action == "retune" and change.settings == BatchSettings():
            raise InvalidInput(f"batch {batch}: say what is to be changed: concurrency, rate, priority or limits")
        if change.action == "requeue" and not 0 < len(change.job_ids) <= MOST_REQUEUED:
            raise InvalidInput(f"batch {batch}: name 1 to {MOST_REQUEUED:,} jobs that are to be run again")
        if change.action == "requeue" and self.phase not in ("running", "paused"):
            raise InvalidInput(f"batch {batch}: it is {self.phase}: `airside run --rerun ID,...` runs jobs of it again")
