"""What requests and replies of the API hold.  Values of the stack are what they are; these are the API's own."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from msgspec import Meta, Raw

from airside.stack.approvals.joint import MAX_JOINT, JointVerdict
from airside.stack.contracts.memory import Only
from airside.stack.operations.batches import MOST_CONCURRENCY, MOST_REQUEUED
from airside.stack.policy.kill_switches import SwitchScope
from airside.stack.resources import ResourceFact
from airside.stack.values import MAX_REQUEST_CHARS, MOST_PRIORITY, Count, ModelLane, Value, ValueOrigin

LONGEST_SWITCH_S = 100 * 366 * 86_400

Why = Annotated[str, Meta(max_length=1_000, description="why, for the journal")]
Note = Annotated[str, Meta(max_length=4_000, description="for the journal, and for whoever asked")]
Limit = Annotated[int, Meta(ge=1, le=1_000, description="at most so many")]
WaitS = Annotated[float, Meta(ge=0, le=60, description="for how many seconds to wait for it")]
Tenant = Annotated[str, Meta(max_length=63, description="of this tenant only; needed by nobody but the house")]


Parameters = Annotated[tuple[str | int | float | bool | None, ...], Meta(max_length=64)]
Item = TypeVar("Item")


class Listing(Value, Generic[Item]):
    """A page of a list; `next` is the cursor of the one after it, empty if it is the last."""

    items: list[Item]
    next: str = ""


class RunRequest(Value):
    """A job: what is asked, and of which route.  `limits` only lower what the principal has."""

    request: Annotated[str, Meta(max_length=MAX_REQUEST_CHARS)]
    route: Annotated[str, Meta(max_length=128)] = "default"
    inputs: dict[str, Any] = {}
    labels: tuple[str, ...] = ()
    limits: dict[str, Count] = {}
    job_id: Annotated[str, Meta(max_length=256)] = ""
    lane: ModelLane = "direct"


class RunAccepted(Value):
    """A run that was admitted; with the same `Idempotency-Key` it is the same one, whenever it is asked for."""

    run_id: str


class WaitQuery(Value):
    """How long to wait for what has not happened."""

    wait_s: WaitS = 0.0


class ThreadQuery(Value):
    """In which conversation a run is shown."""

    thread_id: Annotated[str, Meta(max_length=256, description="what the client calls the conversation")] = ""


class HistoryQuery(Value):
    """Which of a run's events."""

    after: Annotated[Count, Meta(description="how many of them are known")] = 0
    limit: Limit = 100


class RunResult(Value):
    """How a run ended; `status` is `active` while it has not."""

    run_id: str
    status: str
    reason_code: str
    phase: str
    answer: Any
    detail: str
    in_doubt: tuple[str, ...]
    steps: int
    tool_calls: int
    tokens: int
    cost_microusd: int
    job_id: str = ""


class Ordered(Value):
    """What an order reached: runs, or layers."""

    reached: int


class Reason(Value):
    """Why."""

    why: Why = ""


class KillRequest(Value):
    """Whose runs are to be ended: a tenant's, or (for the house) all."""

    scope: Literal["tenant", "all"]
    target: Tenant = ""
    why: Why = ""


class SwitchRequest(Value):
    """A kill switch to be set (`off`), or taken back.

    `target` names which: a tenant, `TENANT/PRINCIPAL`, a run, a tool, a version; nothing for `all`.
    """

    scope: SwitchScope
    off: bool
    target: Annotated[str, Meta(max_length=256)] = ""
    for_s: Annotated[float, Meta(ge=0, le=LONGEST_SWITCH_S, description="0: until it is taken back")] = 0.0
    why: Why = ""


class InDoubtResolution(Value):
    """What became of a call in doubt: `target` is its run, or its key where a run has several."""

    target: Annotated[str, Meta(min_length=1, max_length=256)]
    happened: bool
    output: Any = None
    why: Why = ""


class SpendResolution(Value):
    """What an attempt at a question to a model cost; `tokens` unset: as counted."""

    key: Annotated[str, Meta(min_length=1, max_length=256)]
    cost_microusd: Count
    tokens: Count | None = None
    why: Why = ""


class ApprovalStanding(Value):
    """A call, or a question, that was put before people; `outcome` is empty while it waits for more `votes`.

    `origins` say where the values of its arguments come from, `resources` what is known of what it is about.  Those of
    one `group` are one question.
    """

    approval_id: str
    tenant: str
    requester: str
    run_id: str
    step: int
    tool: str
    effect: str
    arguments: Any
    request: str
    rule: str
    roles: tuple[str, ...]
    quorum: int
    votes: int
    asked_us: int
    expires_us: int
    is_question: bool
    outcome: str = ""
    decided_us: int = 0
    origins: tuple[ValueOrigin, ...] = ()
    resources: tuple[ResourceFact, ...] = ()
    rejected_before: str = ""
    group: str = ""


class Vote(Value):
    """What somebody says to an approval, beside the verdict."""

    note: Note = ""


class Edit(Value):
    """Approval of other arguments, which are validated and gated as any."""

    arguments: dict[str, Any]
    note: Note = ""


class Answer(Value):
    """The answer to a question."""

    answer: Annotated[str, Meta(max_length=MAX_REQUEST_CHARS)]
    note: Note = ""


class JointVote(Value):
    """One verdict on several approvals: it counts on all of them, or on none.  None stands there twice."""

    approval_ids: Annotated[tuple[Annotated[str, Meta(max_length=256)], ...], Meta(min_length=1, max_length=MAX_JOINT)]
    verdict: JointVerdict
    note: Note = ""


class VoteCounted(Value):
    """What became of an approval by a vote: its outcome, empty while it needs more votes."""

    approval_id: str
    outcome: str


class VotesCounted(Value):
    """What became of each approval by one vote on all of them, in order."""

    votes: tuple[VoteCounted, ...]


class VoteRefusal(Value):
    """An approval on which a vote would not have counted, and why."""

    approval_id: str
    reason_code: str
    detail: str


class BatchTuning(Value):
    """How a batch is to be run from here on; what is not given stays."""

    concurrency: Annotated[int, Meta(ge=1, le=MOST_CONCURRENCY)] | None = None
    rate_per_s: Annotated[float, Meta(ge=0, le=1_000_000)] | None = None
    priority: Annotated[int, Meta(ge=-MOST_PRIORITY, le=MOST_PRIORITY)] | None = None
    limits: dict[str, Count] | None = None
    why: Why = ""


class BatchRequeue(Value):
    """Jobs of a batch that are to be run again."""

    job_ids: Annotated[tuple[str, ...], Meta(min_length=1, max_length=MOST_REQUEUED)]
    why: Why = ""


class MemoryErasure(Value):
    """What is to be erased of a tenant's memory: one record, or all about a subject, and what derives from it."""

    tenant: Annotated[str, Meta(min_length=1, max_length=63)]
    record: Annotated[str, Meta(max_length=256)] = ""
    subject: Annotated[str, Meta(max_length=1_000)] = ""
    only: Only = ""
    keep: Annotated[tuple[str, ...], Meta(max_length=1_000)] = ()
    dry_run: bool = False


class MemoryPin(Value):
    """A record that is to stay for ever (`pinned`), or from now on as long as its kind does."""

    tenant: Annotated[str, Meta(min_length=1, max_length=63)]
    record: Annotated[str, Meta(min_length=1, max_length=256)]
    pinned: bool = True


class MemoryPinned(Value):
    """A record that was pinned, or is pinned no more."""

    record: str
    pinned: bool


class QueryParameters(Value):
    """The parameters of a query, in order, and since when the tables it is asked of have rows."""

    parameters: Parameters = ()
    tenant: Tenant = ""
    since: datetime | None = None


class ChainCheckRequest(Value):
    """Whose chain is shown; all are checked."""

    tenant: Tenant = ""


class SqlQuery(Value):
    """One SELECT over `events`, `runs` and `outcomes`, with its parameters."""

    sql: Annotated[str, Meta(min_length=1, max_length=100_000)]
    parameters: Parameters = ()
    tenant: Tenant = ""
    since: datetime | None = None


class FeedQuery(Value):
    """Which entries of the tenant's journal: those after a cursor, `now`, or from the first one."""

    tenant: Tenant = ""
    after: Annotated[str, Meta(max_length=200)] = ""
    wait_s: Annotated[float, Meta(ge=0, le=30, description="for how many seconds the next one may be waited for")] = 0.0


class FeedItem(Value):
    """An entry of the journal; `event` is what happened."""

    cursor: str
    tenant: str
    number: int
    stream: str
    seq: int
    epoch: int
    step: int
    cause: int
    at_us: int
    type: str
    event: Raw


class FeedItems(Value):
    """Entries in order, and the cursor after them."""

    entries: tuple[FeedItem, ...]
    cursor: str


class Story(Value):
    """A run as lines of text."""

    run_id: str
    text: str


class Table(Value):
    """What a SELECT answers: its columns by name and type, and its rows; `truncated`: there are more of them."""

    columns: list[list[str]]
    rows: list[list[Any]]
    truncated: bool = False


class Alive(Value):
    """That it is alive, or ready."""

    status: Literal["live", "ready"]


class Problem(Value, omit_defaults=True):
    """A refusal: `type` is a stable URI path made of the code, `title` its sentence, `detail` what is wrong here.

    Of a vote on several approvals `refused` says on which it would not have counted; it counts on none.
    """

    type: str
    title: str
    status: int
    detail: str
    reason_code: str
    refused: tuple[VoteRefusal, ...] = ()
