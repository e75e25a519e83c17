"""The contracts between a run's cycle and the layers it uses.

All methods are coroutines that take and return one value; the Ray side's stubs coalesce concurrent calls into one
message.  They raise `LayerUnavailable` when a layer cannot be reached after its own retries, and nothing else: what
went wrong inside a layer comes back as a value.  What is returned is the caller's to keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from airside.stack.approvals.book import Question
from airside.stack.contracts.budget import SpendReply, SpendRequest
from airside.stack.contracts.execution import ExecuteReply, ExecuteRequest
from airside.stack.contracts.gate import GateReply, GateRequest
from airside.stack.contracts.memory import Candidate, LearnReply, RecallReply, RecallRequest
from airside.stack.contracts.models import ModelReply, ModelRequest
from airside.stack.ids import ExecutorId, RunId
from airside.stack.journal.journaling import Append, AppendReply
from airside.stack.run.events import ApprovalDecided


class Journal(Protocol):
    """Durable, ordered, fenced.

    Guarantee: `ok` means that every entry survives the death of any process.  Appends to one stream must not overlap.
    Idempotent: the same append again is `ok` and writes nothing.  What can never be written is `error`.
    """

    async def append(self, append: Append) -> AppendReply:
        """Make entries durable; raise `LayerUnavailable` if they cannot be for now."""

    async def bodies(self, streams: Sequence[str]) -> dict[str, list[str]]:
        """Return the durable events of streams as JSON, oldest first; an empty list for one that has none."""

    async def unfinished_below(self, run_id: RunId) -> list[RunId]:
        """Return the branches of a run, and theirs, whose end is not durable."""


class Policy(Protocol):
    """Decides.  Guarantee: a grant comes with an allow and with nothing else.  Idempotent (a new nonce each time)."""

    async def decide(self, request: GateRequest) -> GateReply:
        """Decide about one call."""

    async def spend(self, request: SpendRequest) -> SpendReply:
        """Reserve what a decision can cost.  Idempotent: the same key again is the same reservation."""


class Models(Protocol):
    """Asks models.  Guarantee: nothing is sent that its decision has not reserved, and what was answered is on record.

    Idempotent: the same question again is answered from the record.
    """

    async def ask(self, request: ModelRequest) -> ModelReply:
        """Answer a question, or say why not."""


class Tools(Protocol):
    """Executes.  Guarantee: one grant is used at most once.  Not idempotent: the effect key is what makes it so."""

    async def executor_for(self, run_id: RunId) -> ExecutorId:
        """Return the incarnation that will carry out the run's calls; raise `LayerUnavailable` if there is none."""

    async def execute(self, run_id: RunId, request: ExecuteRequest) -> ExecuteReply:
        """Carry out a call on the run's executor.

        Raises `LayerUnavailable` if it died, and `ItemFailed` if it has no answer: the call may have run either way.
        """

    async def answer_of(self, run_id: RunId, grant: bytes) -> ExecuteReply | None:
        """Return what a call came to whose answer was lost; None if nobody knows.  Starts nothing."""

    async def release(self, run_id: RunId) -> None:
        """Let the executor close what it holds for the run."""


class Resolvers(Protocol):
    """Says what resources are.  Guarantee: a read, within the resolver's deadline.  Idempotent.

    Question and answer are sealed (`stack/policy/lookups.py`).  What is no question of the present gate's, or is too
    old, is answered `failed`, and nobody's code is run.
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

    async def request(self, question: Question) -> ApprovalDecided | None:
        """Register durably; return the decision about the call asked for if there is one already.

        Idempotent by approval id.  What is new in a question is one group (`ApprovalBook.register`).
        """
