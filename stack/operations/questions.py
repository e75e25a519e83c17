"""What is asked of a stack by credential: the views, and what each takes.

A question names a view and gives its parameters as a JSON object of the fields here; fields there are not are refused.
`tenant` may be said by who reaches all tenants, and is the credential's otherwise.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from airside.stack.budget.reservations import BudgetStanding
from airside.stack.contracts.memory import MemoryStanding
from airside.stack.values import BATCH_PATTERN, Value

MOST_LISTED = 1_000
"""Of anything that is listed: more is asked for page by page."""

Limit = Annotated[int, Meta(ge=1, le=MOST_LISTED)]
Text = Annotated[str, Meta(max_length=200)]
"""Of what a list is filtered by."""

Cursor = Annotated[str, Meta(max_length=400)]
"""Where a page begins: the time and the name of the last one of the page before it."""


class _Asked(Value, forbid_unknown_fields=True):
    """Base of what views take."""


class Runs(_Asked):
    """Runs, newest first, of those that fit; `cursor` is a page's `next`."""

    tenant: Text = ""
    principal: Text = ""
    status: Text = ""
    reason: Text = ""
    batch: Text = ""
    since: datetime | None = None
    branches: bool = False
    limit: Limit = 100
    cursor: Cursor = ""


class Counts(_Asked):
    """How many runs there are in each state; of those that ended, the ones that did since a time."""

    tenant: Text = ""
    since: datetime | None = None


class OneRun(_Asked):
    """One run."""

    run_id: Text


class RunEvents(_Asked):
    """A run's events from the one on that `after` others precede."""

    run_id: Text
    after: Annotated[int, Meta(ge=0)] = 0
    limit: Limit = MOST_LISTED


class Approvals(_Asked):
    """What waits for people, oldest first; or, by its id, one approval as it stands, or what waits of one question."""

    tenant: Text = ""
    approval_id: Text = ""
    limit: Limit = 100
    cursor: Cursor = ""


class OneApproval(_Asked):
    """One approval."""

    approval_id: Text


class OfTenant(_Asked):
    """What there is of a tenant; of all where nobody says which, and who asks reaches all."""

    tenant: Text = ""


class Switches(_Asked):
    """What is switched off and is about a tenant, or anybody, oldest first; `cursor` is a page's `next`."""

    tenant: Text = ""
    limit: Limit = MOST_LISTED
    cursor: Cursor = ""


class InDoubt(_Asked):
    """What is in doubt, of a tenant or of all, oldest first; `cursor` is a page's `next`."""

    tenant: Text = ""
    limit: Limit = MOST_LISTED
    cursor: Cursor = ""


class Batches(_Asked):
    """Batches, newest first; `cursor` is a page's `next`."""

    tenant: Text = ""
    limit: Limit = 100
    cursor: Cursor = ""


class OneBatch(_Asked):
    """One batch."""

    batch: Annotated[str, Meta(pattern=BATCH_PATTERN, max_length=200)]


class Nothing(_Asked):
    """A view that takes nothing."""


class AuditSql(_Asked):
    """One SELECT over `events`, `runs` and `outcomes`, or the name of a query there is for that, with its parameters.

    The tables have the rows since a time.
    """

    sql: Annotated[str, Meta(max_length=100_000)] = ""
    query: Text = ""
    parameters: tuple[Any, ...] = ()
    tenant: Text = ""
    since: datetime | None = None


class AuditSearch(_Asked):
    """Entries of the journal, newest first: of a tenant, a stream (a run, an approval), a type, with a text, in a time.

    `cursor` is a page's `next`.  A page looks at a bounded number of entries, and may have none of them.
    """

    tenant: Text = ""
    stream: Text = ""
    type: Text = ""
    text: Text = ""
    since: datetime | None = None
    until: datetime | None = None
    limit: Limit = 100
    cursor: Text = ""


class ChainOf(_Asked):
    """How a tenant's chain stands; `check`: begin to check all chains, if nobody has just done so."""

    tenant: Text = ""
    check: bool = False


class PolicyUse(_Asked):
    """The bundle in force, and how often each rule fired since a time: a week ago, if it is not said."""

    tenant: Text = ""
    since: datetime | None = None


class MemorySearch(_Asked):
    """What a run of who asks would recall."""

    text: Annotated[str, Meta(min_length=1, max_length=10_000)]
    limit: Annotated[int, Meta(ge=1, le=100)] = 10
    min_score: Annotated[float, Meta(ge=0, le=1)] | None = None


VIEWS: dict[str, type[Value]] = {
    "counts": Counts,
    "runs": Runs,
    "run": OneRun,
    "events": RunEvents,
    "story": OneRun,
    "approvals": Approvals,
    "approval_form": OneApproval,
    "in_doubt": InDoubt,
    "spend_in_doubt": InDoubt,
    "switches": Switches,
    "budgets": OfTenant,
    "batches": Batches,
    "batch": OneBatch,
    "queries": Nothing,
    "sql": AuditSql,
    "search": AuditSearch,
    "chain": ChainOf,
    "policy": PolicyUse,
    "tenants": OfTenant,
    "health": Nothing,
    "memory": MemorySearch,
    "me": Nothing,
}
"""The views by their names, with what each takes."""


class Page(Value):
    """A page of a list; `next` is the cursor of the one after it, empty if it is the last."""

    items: list[Any]
    next: str = ""


class ToolForm(Value):
    """What a tool takes, as its JSON Schema has it."""

    tool: str
    description: str
    parameters: dict[str, Any]


class RunCount(Value):
    """How many runs of a tenant are in one state; branches are counted with their runs."""

    tenant: str
    status: str
    reason_code: str
    runs: int
    tokens: int
    cost_microusd: int


class EventsPage(Value):
    """A run's events as the journal has them, how many there are up to their end, and whether the run has ended."""

    events: list[msgspec.Raw]
    next: int
    ended: bool


class BudgetLine(Value):
    """A budget with what of it is counted for attempts of which nobody knows what they cost, in its present window."""

    budget: BudgetStanding
    in_doubt: int = 0


class FoundEntry(Value):
    """An entry of the journal that was searched for; `event` is what happened, as the journal has it."""

    position: int
    tenant: str
    number: int
    stream: str
    seq: int
    step: int
    at_us: int
    type: str
    event: msgspec.Raw


class FoundEntries(Value):
    """Entries, newest first; `next` is the cursor of what was not looked at yet, `back_to_us` how far that reached."""

    items: list[FoundEntry]
    next: str = ""
    back_to_us: int = 0


class ChainStanding(Value):
    """A tenant's chain: how many entries it has, and up to how many it was found to be whole, and when.

    `problem` is where it is not.  `checked_us` is 0 as long as nobody has checked it since the journal's process began;
    `checking`: that is being done.
    """

    tenant: str
    entries: int
    checked: int = 0
    checked_us: int = 0
    problem: str = ""
    checking: bool = False


class RuleUse(Value):
    """A rule in words and as it is written, which tools it may be about, how often it fired and when last (0: never).

    One that is about several tenants is written as it is for who asks.
    """

    id: str
    outcome: str
    words: str
    description: str
    written: dict[str, Any]
    tools: tuple[str, ...]
    fired: int = 0
    last_us: int = 0


class DecisionCount(Value):
    """How often calls were decided on by what is no rule of the bundle in force: the gate, or an earlier version."""

    version: str
    rule: str
    outcome: str
    fired: int
    last_us: int


class PolicyStanding(Value):
    """The bundle in force, with how often its rules fired since a time.

    `apart` are the decisions that no rule of it made; `text` is the bundle as it is written, for who reaches all.
    """

    version: str
    description: str
    since_us: int
    rules: tuple[RuleUse, ...]
    apart: tuple[DecisionCount, ...]
    text: str = ""


class TenantStanding(Value):
    """What a tenant may have at once (`rate_per_minute` 0: any), its runs' limits, and what is kept in its memory."""

    tenant: str
    concurrency: int
    queue: int
    weight: int
    rate_per_minute: int
    clearance: str
    deadline_s: int | None
    limits: dict[str, int]
    principals: int
    is_open: bool
    memory: MemoryStanding | None = None


class AuditQuery(Value):
    """A query there is for auditors."""

    name: str
    says: str
    sql: str


class WhoAsks(Value):
    """Who holds a credential, and what that one may: by the names of the table of access, how far each."""

    tenant: str
    principal: str
    roles: tuple[str, ...]
    areas: list[str] | None
    may: dict[str, str]


class LayerHealth(Value):
    """Whether a layer answers."""

    layer: str
    up: bool
    ready: bool = False
    up_s: float = 0.0
