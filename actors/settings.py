"""Settings of a stack: arguments of `airside.start`, environment variables `AIRSIDE_*`, or the defaults here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import SplitResult

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from airside.stack.errors import InvalidConfig
from airside.stack.webhooks import webhook_target

StackName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]


class Settings(BaseSettings):
    """How a stack runs.  Times are seconds."""

    model_config = SettingsConfigDict(env_prefix="AIRSIDE_", extra="forbid", frozen=True)

    stack: StackName = "default"
    state_dir: Path = Path(".airside")

    journal: str | None = None
    """The PostgreSQL database that keeps the journal: `postgresql://user@host/database`, without a password in it.

    Without one it is a file in the state directory, unless that says that it is in a database.
    """

    mode: Literal["dedicated", "pooled"] = "dedicated"
    """A process per live tenant, or `pool_size` processes that tenants share (trusted agent code only)."""

    pool_size: Annotated[int, Field(ge=1, le=64)] = 2
    executors: Annotated[int, Field(ge=1, le=64)] = 2
    max_live_runtimes: Annotated[int, Field(ge=1, le=1000)] = 64
    """Dedicated runtimes alive at once: 59 MiB and half a percent of a core each, idle."""

    cell_concurrency: Annotated[int, Field(ge=1)] = 2_000
    """Runs of all tenants at work at once."""

    idle_runtime_s: Annotated[float, Field(gt=0)] = 60.0
    """A dedicated runtime without a working run is put down after this; its parked runs resume in a new one."""

    heartbeat_s: Annotated[float, Field(gt=0)] = 0.2
    """Between two looks at every process; each is one call a node, whatever the node has on it."""

    stall_s: Annotated[float, Field(gt=0)] = 0.8
    """A runtime whose event loop one task holds for so long is killed, and that task's run is ended.

    It is longer than a garbage collection or a large JSON takes; with a heartbeat it is a second.
    """

    layer_stall_s: Annotated[float, Field(gt=0)] = 10.0
    """A layer (the gate, the journal, ...) whose event loop one thing holds for so long is killed; Ray restarts it.

    It is much longer than `stall_s`, for everybody waits for its restart.  The Driver gets at most half of `lease_s`:
    nobody renews leases while it is held.
    """

    lease_s: Annotated[float, Field(ge=1)] = 10.0
    """A process that acts (a runtime, an executor) ends itself when its lease was not renewed for so long.

    Ray takes a node for dead after 16 s at the earliest and restarts what was there: the lease is shorter, so that
    no two incarnations act at once; and longer than a driver takes to be restarted.
    """

    layer_patience_s: Annotated[float, Field(gt=0)] = 60.0
    """How long a caller waits for a layer that is restarted, with those behind it (a journal re-opens in 2-3 s)."""

    transport: Literal["sockets", "ray"] = "sockets"
    """How layers of one node ask each other: over unix sockets, or like those of different nodes over Ray's calls."""

    max_batch: Annotated[int, Field(ge=1)] = 512
    """Items a Ray call carries at most; 1 gives one call per item, which `benchmarks` compares with."""

    calls_in_flight: Annotated[int, Field(ge=1)] = 2
    """Ray calls a caller has under way per layer: one is carried while the next one fills."""

    model_content: Literal["digest", "full"] = "digest"
    """What is kept of what models are told: a digest of each prompt, or all of it, encrypted beside the journal.

    Prompts have what memory and tools said, and are not erased with memory: nobody keeps them without having said so.
    """

    approval_webhook: str | None = None
    """Where a signed POST says that a call waits for people, and what they decided; an `https` URL, or loopback."""

    approval_webhook_insecure: bool = False
    """Whether it may be plain `http` to elsewhere, where others on the way can read it."""

    show_output: bool = True
    """Whether what agents and tools print is shown where the stack was started, within a bound a run."""

    task_events: bool = False
    """Ray's task events (its dashboard's timeline) cost 10-20 % of the throughput."""

    @model_validator(mode="after")
    def _webhook_is_one(self) -> Settings:
        try:
            self.webhook_target()
        except InvalidConfig as error:
            raise ValueError(error.message) from None
        return self

    def webhook_target(self) -> SplitResult | None:
        """Return where notices of approvals go; raise `InvalidConfig` for a URL they may not go to."""
        if self.approval_webhook is None:
            return None
        return webhook_target(self.approval_webhook, insecure=self.approval_webhook_insecure)
