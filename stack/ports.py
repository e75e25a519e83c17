"""The contracts between a run's cycle and the layers it uses.

All methods are coroutines that take and return one value; the Ray side's stubs coalesce concurrent calls into one
message.  They raise `LayerUnavailable` when a layer cannot be reached after its own retries, and nothing else: what
went wrong inside a layer comes back as a value.  What is returned is the caller's to keep.
"""

from __future__ import annotations

from typing import Protocol

from airside.stack.agents import Recalled
from airside.stack.approvals import ApprovalRequested
from airside.stack.events import ApprovalDecided
from airside.stack.gate import GateReply, GateRequest
from airside.stack.ids import ExecutorId, RunId, TenantId
from airside.stack.journaling import Append, AppendReply
from airside.stack.metering import SpendReply, SpendRequest
from airside.stack.reasons import MemoryCode
from airside.stack.values import Clearance, Spoken, ToolResult, Trust, Value


class Warrant(Value, array_like=True):
    """By what right memory is asked: the identity of a run's owner with its proof, or the grant of a call."""

    identity: bytes = b""
    proof: str = ""
    run_id: str = ""
    grant: bytes = b""


NO_WARRANT = Warrant()
"""Good enough in one process; a Memory actor answers nothing to it."""


class RecallRequest(Value, array_like=True):
    """What memory is asked: at most `top_k` records of one tenant, at or above `min_score`, at or below `clearance`.

    `min_score` is a probability; None is the one below which the calibration found hardly anything relevant.
    """

    tenant: TenantId
    query: str
    clearance: Clearance
    top_k: int = 4
    min_score: float | None = None
    warrant: Warrant = NO_WARRANT


class RecallReply(Value, array_like=True):
    """What memory found, best first; or why it could not look."""

    records: tuple[Recalled, ...] = ()
    error: str = ""


class Candidate(Spoken, array_like=True):
    """Something memory is offered.

    `source` says where it comes from and `trust` how far that is trusted.  `ttl_s` is how long it may stay (None: as
    long as its kind does).  `subject` is whom or what it is about, which can be erased as one; of two records of one
    subject and `topic` the newer is right.  `observed_us` is when it was so (0: now).  `confidence` and `importance`
    are in [0, 1].
    """

    tenant: TenantId
    text: str
    kind: str
    source: str
    sensitivity: Clearance = "internal"
    ttl_s: int | None = None
    trust: Trust = "low"
    subject: str = ""
    topic: str = ""
    importance: float = 0.5
    confidence: float = 1.0
    observed_us: int = 0
    warrant: Warrant = NO_WARRANT


class LearnReply(Value, array_like=True):
    """What memory did with a candidate: a `MemoryCode`, the record it became or met, and those it superseded."""

    code: str
    record_id: str = ""
    superseded: tuple[str, ...] = ()

    @property
    def kept(self) -> bool:
        """Whether memory now holds what the candidate says, durably."""
        return self.code in (MemoryCode.STORED, MemoryCode.MERGED, MemoryCode.DUPLICATE)


class ExecuteRequest(Value, array_like=True):
    """A granted call.  `traceparent` is the run's W3C trace context; `output` is what a call to undo returned."""

    grant: bytes
    arguments: bytes
    traceparent: str = ""
    output: bytes = b"null"


class ExecuteReply(Value, array_like=True):
    """What became of it.  A refusal before anything started has the reason `grant_invalid` or `grant_stale`."""

    result: ToolResult


class Journal(Protocol):
    """Durable, ordered, fenced.

    Guarantee: `ok` means that every entry survives the death of any process.  Appends to one stream must not overlap.
    Idempotent: the same append again is `ok` and writes nothing.  What can never be written is `error`.
    """

    async def append(self, append: Append) -> AppendReply:
        """Make entries durable; raise `LayerUnavailable` if they cannot be for now."""


class Policy(Protocol):
    """Decides.  Guarantee: a grant comes with an allow and with nothing else.  Idempotent (a new nonce each time)."""

    async def decide(self, request: GateRequest) -> GateReply:
        """Decide about one call."""

    async def spend(self, request: SpendRequest) -> SpendReply:
        """Reserve what a decision can cost.  Idempotent: the same key again is the same reservation."""


class Tools(Protocol):
    """Executes.  Guarantee: one grant is used at most once.  Not idempotent: the effect key is what makes it so."""

    async def executor_for(self, run_id: RunId) -> ExecutorId:
        """Return the incarnation that will carry out the run's calls; raise `LayerUnavailable` if there is none."""

    async def execute(self, run_id: RunId, request: ExecuteRequest) -> ExecuteReply:
        """Carry out a call on the run's executor; raise `LayerUnavailable` if it died (the call may have run)."""

    async def answer_of(self, run_id: RunId, grant: bytes) -> ExecuteReply | None:
        """Return what a call came to whose answer was lost; None if nobody knows.  Starts nothing."""

    async def release(self, run_id: RunId) -> None:
        """Let the executor close what it holds for the run."""


class Resolvers(Protocol):
    """Says what resources are.  Guarantee: a read, within the resolver's deadline.  Idempotent.

    Question and answer are sealed (`stack/lookups.py`).  What is no question of the present gate's, or is too old, is
    answered `failed`, and nobody's code is run.
    """

    async def resolve(self, run_id: RunId, request: bytes) -> bytes:
        """Answer a question that the gate sealed; whatever goes wrong in a resolver is an answer too."""


class Memory(Protocol):
    """Recalls and learns, within one tenant."""

    async def retrieve(self, request: RecallRequest) -> RecallReply:
        """Return what is relevant."""

    async def write_if_useful(self, candidate: Candidate) -> LearnReply:
        """Keep a candidate if it is worth it; durable when answered `stored`."""


class Approvals(Protocol):
    """Puts calls before people."""

    async def request(self, request: ApprovalRequested) -> ApprovalDecided | None:
        """Register durably; return the decision if there is one already.  Idempotent by approval id."""
