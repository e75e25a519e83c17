"""The values that cross layers: frozen, typed, encoded and decoded in one line.

They are `msgspec.Struct`s rather than dataclasses because each of them is journaled or sent several times a step:
decoding one with every field's type checked costs about a microsecond.  Units are in the names.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any, Literal, dataclass_transform

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from airside.stack.calling import close_names, wrong_call
from airside.stack.errors import InvalidInput, WrongCall
from airside.stack.ids import PrincipalId, RequestId, TenantId
from airside.stack.reasons import ReasonCode

MOST = 2**53
Count = Annotated[int, Meta(ge=0, le=MOST)]
"""A whole number that is not negative; `msgspec` refuses booleans, floats and NaN for it."""

NULL = Raw(b"null")

ModelLane = Literal["direct", "provider_batch"]
"""How models are asked for a run: at once, or in batches of the provider's, which cost less and take up to a day."""

MAX_REQUEST_BYTES = 2 * 2**20
"""A request carries a text and inputs; larger data belongs in a store the tools read."""

MAX_REQUEST_CHARS = 65_536
"""Of a request's text, and of what a topology has a branch or memory asked."""

BATCH_PATTERN = "^[A-Za-z0-9][A-Za-z0-9_.-]*$"
"""What a batch may be called: a name that can stand in a file's name, a stream's and a command."""

MOST_ATTEMPTS = 1_000
"""At one job of a batch."""

MOST_PRIORITY = 100
"""The highest priority of a run; the lowest is its negative."""

EffectClass = Literal["read", "write", "external", "irreversible"]
Lane = Literal["shared", "process", "sandbox"]
SandboxLevel = Literal["none", "namespaces", "full"]
Risk = Literal["low", "medium", "high"]
Part = Literal["authority", "content"]
Origin = Literal[
    "approved",
    "request",
    "person",
    "configuration",
    "created",
    "named",
    "memory",
    "tool",
    "branch",
    "nowhere",
    "repeated",
]
Clearance = Literal["public", "internal", "confidential", "restricted"]
CLEARANCES: tuple[Clearance, ...] = ("public", "internal", "confidential", "restricted")
Trust = Literal["low", "medium", "high"]
"""How far a memory's source is trusted: an outsider may have written it; an insider's run made it; an operator did."""

TRUSTS: tuple[Trust, ...] = ("low", "medium", "high")

UNTRUSTED = "untrusted"
"""The label of a run that took in what an outsider may have written: a tool's output, a memory, its own request."""

PERSONAL = "personal_data"
"""The label of a run that recalled personal data: an address, a number by which somebody is reached or paid."""


class _ValueMeta(msgspec.StructMeta):
    """Make every subclass frozen, keyword-only and closed without each having to say so.

    The garbage collector looks for cycles among them in vain, for what is frozen holds only what there was before it: a
    run keeps some hundred values, and a process thousands of runs.
    """

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **config: Any) -> _ValueMeta:
        settled = {"frozen": True, "kw_only": True, "forbid_unknown_fields": True, "gc": False} | config
        return super().__new__(mcs, name, bases, namespace, **settled)


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Value(Struct, metaclass=_ValueMeta, frozen=True):
    """Base of the values: immutable, named fields, unknown fields refused on decoding."""


def tag_of(event: Value | type[Value]) -> str:
    """Return what journals call an event or a kind of events: it stays, whatever the class is called later."""
    tag = event.__struct_config__.tag
    assert isinstance(tag, str)
    return tag


MAX_REJECTIONS = 10
"""Unless a limit says otherwise.  A person who says no to one call has not said no to the job, and neither has a rule
that refuses a value for being nobody's word; but nobody is to be asked, or tried out, for ever."""


class _SpokenMeta(_ValueMeta):
    """Have a wrong call say what is wrong, for the values that people make themselves."""

    if not TYPE_CHECKING:

        def __call__(cls, /, *args: Any, **fields: Any) -> Any:
            """Make a value."""
            try:
                return super().__call__(*args, **fields)
            except TypeError:
                wrong = wrong_call(cls.__name__, inspect.signature(cls), args, fields)
                if wrong is None:
                    raise
                raise wrong from None


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Spoken(Value, metaclass=_SpokenMeta, frozen=True):
    """Base of the values that people make: what agents and topologies return, and limits."""


class _CheckedMeta(_SpokenMeta):
    """Refuse what is of a wrong type or size when it is made, and not where it is used first."""

    if not TYPE_CHECKING:

        def __call__(cls, /, *args: Any, **fields: Any) -> Any:
            """Make a value, and check it; what is decoded is checked by that."""
            made = super().__call__(*args, **fields)
            try:
                msgspec.convert(fields, cls)
            except msgspec.ValidationError as error:
                raise WrongCall(f"{cls.__name__}: {error}") from None
            return made


class Limits(Spoken, metaclass=_CheckedMeta):
    """What one run may use.  Checked by `RunMachine` before the step that would cross them.

    `max_seconds` counts active time only: a run that waits for a person does not spend it.  `max_repeats` is how
    often the same action with the same arguments may come.  `max_refusals` is how many refusals (a denied call, an
    unknown tool, arguments that break the schema, an approval that expired) the agent is told about before the next one
    ends the run; at 0 the first one does.  `max_rejections` is the same of calls that a person rejected, or that were
    denied for where a value comes from; unset, it is `MAX_REJECTIONS`.  `doubt_wait_s` is how long a run in doubt waits
    for a person.
    """

    max_steps: Count = 25
    max_seconds: Count = 600
    max_tool_calls: Count = 50
    max_tokens: Count = 200_000
    max_cost_microusd: Count = 1_000_000
    max_output_bytes: Count = 4 * 2**20
    max_repeats: Annotated[int, Meta(ge=1, le=1000)] = 4
    max_refusals: Count = 0
    max_handoffs: Count = 8
    max_depth: Annotated[int, Meta(ge=0, le=8)] = 3
    decide_ms: Annotated[int, Meta(ge=1, le=86_400_000)] = 60_000
    tool_ms: Annotated[int, Meta(ge=1, le=86_400_000)] = 86_400_000
    """Longest any call may take: a tool says how long it needs (30 s, if it does not), and this only lowers it."""

    doubt_wait_s: Count = 0
    max_rejections: Count | UnsetType = UNSET
    """Not encoded where nobody gave it: identities that were sealed before there was this bound keep their seal."""

    @property
    def rejections(self) -> int:
        """How many rejections the agent is told about."""
        return MAX_REJECTIONS if self.max_rejections is UNSET else self.max_rejections

    def lowered(self, named: dict[str, int]) -> Limits:
        """Return these limits with the named ones lowered; raise `InvalidInput` for a name or amount that is none.

        What is named can only become smaller, so that nobody is given more than these.
        """
        for name, amount in named.items():
            if name not in self.__struct_fields__:
                near = close_names(name, self.__struct_fields__, alike=0.7)
                hint = (
                    f" (do you mean {' or '.join(near)}?)"
                    if near
                    else f"; there are {', '.join(self.__struct_fields__)}"
                )
                raise InvalidInput(f"limits: there is no limit {name!r:.60}{hint}")
            if amount < 0 or type(amount) is not int:
                raise InvalidInput(f"limits.{name}: {amount!r:.40} is not a whole number of at least 0")
        most = msgspec.structs.replace(self, max_rejections=self.rejections)
        smaller = {name: min(amount, getattr(most, name)) for name, amount in named.items()}
        return decode_json(msgspec.json.encode(msgspec.structs.replace(self, **smaller)), Limits, where="limits")  # type: ignore[no-any-return]


class Spend(Spoken):
    """What one decision cost: model tokens, and money in millionths of a US dollar."""

    tokens: Count = 0
    cost_microusd: Count = 0


FREE = Spend()


class Usage(Struct, kw_only=True, forbid_unknown_fields=True):
    """What a run has used so far; the counterpart of `Limits`.

    The one value that changes: a run's machine counts in it at every event, and copies it to whoever asks.
    """

    steps: int = 0
    tool_calls: int = 0
    tokens: int = 0
    cost_microusd: int = 0
    output_bytes: int = 0
    handoffs: int = 0
    refusals: int = 0
    active_us: int = 0
    rejections: int = 0


class Identity(Value):
    """Who asks, as Ingress found out; nobody else makes one.

    `attributes` are facts about the principal from the directory (the orders it owns, say), for policy to compare
    arguments with.  Ingress seals all of it; Driver, Policy and Approvals check the seal.
    """

    principal: PrincipalId
    tenant: TenantId
    roles: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    clearance: Clearance = "internal"
    attributes: dict[str, tuple[str, ...]] = {}
    limits: Limits = Limits()
    expires_us: int = 0


def less(left: Spend, spent: Spend) -> Spend:
    """Return what is left after something was spent, never below zero."""
    return Spend(
        tokens=max(0, left.tokens - spent.tokens), cost_microusd=max(0, left.cost_microusd - spent.cost_microusd)
    )


def at_least(one: Spend, other: Spend) -> Spend:
    """Return the larger amounts of both."""
    return Spend(tokens=max(one.tokens, other.tokens), cost_microusd=max(one.cost_microusd, other.cost_microusd))


def plus(one: Spend, other: Spend) -> Spend:
    """Return two amounts together."""
    return Spend(
        tokens=min(one.tokens + other.tokens, MOST), cost_microusd=min(one.cost_microusd + other.cost_microusd, MOST)
    )


class BatchJob(Value):
    """Which batch a request is of, and which attempt at its `job_id` it is: submitted again it is the same run.

    Of a tenant's runs that wait, those of a higher `priority` begin first; between tenants it changes nothing.
    """

    id: Annotated[str, Meta(min_length=1, max_length=64, pattern=BATCH_PATTERN)]
    attempt: Annotated[int, Meta(ge=1, le=MOST_ATTEMPTS)] = 1
    priority: Annotated[int, Meta(ge=-MOST_PRIORITY, le=MOST_PRIORITY)] = 0


class Request(Value):
    """What a principal asks for: `text` for the agent, `inputs` (a JSON object) for its tools and tests."""

    text: Annotated[str, Meta(max_length=MAX_REQUEST_CHARS)]
    inputs: Raw = Raw(b"{}")
    route: Annotated[str, Meta(max_length=128)] = "default"
    labels: tuple[str, ...] = ()
    limits: dict[str, Count] = {}
    job_id: Annotated[str, Meta(max_length=256)] = ""
    request_id: RequestId = RequestId("")
    lane: ModelLane = "direct"
    batch: BatchJob | UnsetType = UNSET
    """Not encoded where there is none, as in what was journaled before there were any."""


class Action(Spoken, tag="action"):
    """A proposal to call a tool.  Nothing has been checked yet."""

    tool: str
    arguments: dict[str, Any] = {}
    spend: Spend = FREE


class ToolCall(Value):
    """A call that was proposed beside another: its decision is paid for with the first one."""

    tool: str
    arguments: dict[str, Any] = {}


class Finish(Spoken, tag="finish"):
    """A proposal to end this agent's part with an answer (any JSON value)."""

    answer: Any = None
    spend: Spend = FREE


class Handoff(Spoken, tag="handoff"):
    """A proposal to pass control to another agent, with a message for it."""

    agent: str
    message: Any = None
    spend: Spend = FREE


Proposal = Action | Finish | Handoff

MAX_CALLS = 64
"""Calls that one decision may propose: more than models ask for at once, and few enough to be read in a story."""


class ToolResult(Value):
    """A call's outcome, normalised: `output` is JSON when `ok`, `error` a sentence when not.

    `held`: the call held the event loop it ran on until its time was over, so it is not sent again by itself.
    `sandbox`: the level of sandboxes that the machine reached, of a call that takes one.
    `cached`: it is what an earlier call returned.  `retry_after_ms`: it did not happen, and is sent again after that.
    `asked`: it is not complete, and what the tool asks people, sealed (`stack/security/tool_questions.py`).
    """

    ok: bool
    output: Raw = NULL
    error: str = ""
    reason_code: ReasonCode = ReasonCode.COMPLETED
    duration_us: int = 0
    held: bool = False
    sandbox: SandboxLevel | None = None
    cached: bool = False
    retry_after_ms: int | None = None
    asked: str = ""

    def value(self) -> Any:
        """Decode the output."""
        return msgspec.json.decode(self.output)


class ApprovalRule(Value):
    """What a rule asks for: `quorum` different people who hold one of `roles`, within `expires_after_s`.

    `answer` = the call is a question, which one of them answers; nobody can approve it.
    """

    roles: tuple[str, ...]
    quorum: Annotated[int, Meta(ge=1, le=16)] = 1
    expires_after_s: Annotated[int, Meta(ge=1, le=30 * 86_400)] = 3600
    answer: bool = False


class Answer(Value, array_like=True):
    """What a person answered to a question of an agent's, and in which roles.

    `chosen` = it is one of the choices the agent gave, and no text of the person's own.
    """

    text: str
    by: PrincipalId
    roles: tuple[str, ...]
    at_us: int
    chosen: bool


Declined = Literal["", "decline", "cancel"]
"""That nobody answers what a tool asks: somebody rejected the question, or nobody answered in time."""


class Decision(Value):
    """Policy's answer for one call; names the rule, its own code and the bundle's version.

    `steered` = it is denied for where a value comes from, and for nothing else.
    """

    outcome: Literal["allow", "deny", "require_approval"]
    reason_code: ReasonCode
    rule: str
    code: str = ""
    policy_version: str
    detail: str = ""
    approval: ApprovalRule | None = None
    steered: bool = False


class ValueOrigin(Value):
    """Where a value of a call's arguments comes from: the most trusted source that has it
    (`stack/provenance/tracer.py`).

    `path` is the argument's, dotted (`stack/schema/paths.py`); `value` at most 200 characters, hidden ones escaped;
    `detail` names the source within the origin (`read_mail, step 3`).  `whole` = it is all of one value that a tool
    without outsiders in its output (`trusted_output`) returned, not a part of one.
    """

    path: str
    value: str
    part: Part
    origin: Origin
    detail: str = ""
    whole: bool = False

    @property
    def source(self) -> str:
        """Where the value comes from, as people are shown it: the origin, and what is known of it."""
        detail = self.detail or (_OF_NOWHERE if self.origin == "nowhere" else "")
        return f"{self.origin} ({detail})" if detail else self.origin


_OF_NOWHERE = "the agent worked it out, or made it up"


class Outcome(Value):
    """How a run ended: the status, why, the answer if any, and the keys of effects nobody can vouch for.

    `labels` are what the run had taken in by then, `shown` the records of memory that it had been shown; a branch's
    become its parent's.
    """

    status: str
    reason_code: ReasonCode
    answer: Raw = NULL
    detail: str = ""
    in_doubt: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()


def decode_json(data: bytes | Raw, kind: type[Any], *, where: str) -> Any:
    """Decode JSON into `kind`; raise `InvalidInput` that names the field."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InvalidInput(f"{where}: {error}") from None
