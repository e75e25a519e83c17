"""The table of remote methods: which layer serves each, what it takes and answers, whether it may be sent twice.

A caller writes `await policy.call(DECIDE, request)`, the layer `@serves(DECIDE)` over the method that handles one
request.  A name is on the wire nowhere else, so that an editor's "find references" of a method shows both ends.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar, get_args

import msgspec

from airside.actors.job_inputs import Fields, InputsReading
from airside.actors.process.pulse import Where
from airside.stack.approvals.book import Question
from airside.stack.contracts.budget import SpendReply, SpendRequest
from airside.stack.contracts.execution import ExecuteReply, ExecuteRequest
from airside.stack.contracts.gate import GateReply, GateRequest, Proposed
from airside.stack.contracts.memory import Candidate, LearnReply, MemoryStanding, Only, RecallReply, RecallRequest
from airside.stack.contracts.models import ModelReply, ModelRequest, ReservedQuestion, ReservedReply
from airside.stack.contracts.streams import WatchPage, WatchRequest
from airside.stack.journal.feed import JournalEntry
from airside.stack.journal.journaling import Append, AppendReply, AppendTogether
from airside.stack.operations.messages import (
    Activation,
    Admit,
    Delivery,
    JointVote,
    JointVoteReply,
    OfferRequest,
    Report,
    Submission,
    Ticket,
    ToolOffer,
    Vote,
    VoteReply,
)
from airside.stack.operations.questions import ChainStanding
from airside.stack.recovery.undo_gate import UndoReply, UndoRequest
from airside.stack.run.events import ApprovalDecided

Request = TypeVar("Request")
Reply = TypeVar("Reply")

METHODS: list[Method[Any, Any]] = []
"""Every method, in the order of its number on the wire."""


class Codec(NamedTuple):
    """How one end of a method writes and reads its values."""

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


class Method(Generic[Request, Reply]):
    """One remote method.  Its types are given as `Method[Request, Reply](layer, name)`.

    `retry` says whether a request may be sent twice: then a caller waits through a restart of the layer.  `json` and
    `json_reply` are for messages that carry JSON as it is (`Raw`), which MessagePack cannot embed.
    """

    def __init__(
        self, layer: str, name: str, *, retry: bool = True, json: bool = False, json_reply: bool = False
    ) -> None:
        self.layer = layer
        self.name = name
        self.retry = retry
        self.number = len(METHODS)
        self._json = json
        self._json_reply = json_reply
        METHODS.append(self)

    def __repr__(self) -> str:
        return f"{self.layer}.{self.name}"

    def __reduce__(self) -> tuple[Callable[[int], Method[Any, Any]], tuple[int]]:
        return _method, (self.number,)  # a layer's class travels with its marks

    @property
    def types(self) -> tuple[Any, Any]:
        """Return the types of the request and the reply."""
        request, reply = get_args(self.__orig_class__)  # type: ignore[attr-defined]  # set by `Method[...]()`
        return request, reply

    @cached_property
    def request(self) -> Codec:
        """How requests travel."""
        return _codec(self.types[0], json=self._json)

    @cached_property
    def reply(self) -> Codec:
        """How replies travel."""
        return _codec(self.types[1], json=self._json_reply)


def _method(number: int) -> Method[Any, Any]:
    return METHODS[number]


def _codec(kind: Any, *, json: bool) -> Codec:
    if json:
        return Codec(msgspec.json.Encoder().encode, msgspec.json.Decoder(kind).decode)
    return Codec(msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(kind).decode)


Rows = list[tuple[Any, ...]]


class NamedQuery(msgspec.Struct, array_like=True, frozen=True):
    """One of the journal's own queries (`queries.sql`), with its parameters."""

    name: str
    parameters: tuple[Any, ...] = ()


class TrustedGate(msgspec.Struct, array_like=True, frozen=True):
    """Whose grants an executor is to take: the gate's present incarnation; and the switches, as the journal has them.

    Also the gate's answer to an executor that asks.
    """

    issuer: str
    switches: list[str]


class Sql(msgspec.Struct, array_like=True, frozen=True):
    """One SELECT, with its parameters."""

    sql: str
    parameters: tuple[Any, ...] = ()


class TenantSql(msgspec.Struct, array_like=True, frozen=True):
    """One SELECT over the rows of one tenant (of all, if it is None) since a time, with its parameters."""

    sql: str
    parameters: tuple[Any, ...] = ()
    tenant: str | None = ""
    since_us: int = 0


class ChainsRequest(msgspec.Struct, array_like=True, frozen=True):
    """The chain of one tenant, or of all if it is None; `check` = begin to check them all, if nobody just has."""

    tenant: str | None = None
    check: bool = False


class WaitRequest(msgspec.Struct, array_like=True, frozen=True):
    """Runs whose ends are wanted, and for how many seconds the next may be waited for.

    A `watch` is kept under that name, so that the next question adds to its runs; without a name it is of this question
    alone.  `after` = how many ends have arrived, as `Ends.upto` said; None begins a watch.
    """

    run_ids: list[str]
    timeout_s: float
    watch: str = ""
    after: int | None = None


class Ends(msgspec.Struct, array_like=True, frozen=True):
    """The `RunEnded` of runs, and how many of the watch have arrived with them; a watch not `known` is begun anew.

    So is one whose `born` is another than before: a question that began the watch was sent again by itself, to a driver
    that has been restarted, and what other questions had told of is not known there.
    """

    ends: dict[str, bytes] = {}
    upto: int = 0
    known: bool = True
    born: str = ""


class FeedRequest(msgspec.Struct, array_like=True, frozen=True):
    """The entries wanted that follow a cursor, and for how many seconds the first may be waited for.

    They are one tenant's, or all tenants' if it is None.  With a `credential` they are those of its principal's tenant.
    """

    after: str
    timeout_s: float
    tenant: str | None = None
    credential: str = ""


class FeedPage(msgspec.Struct, array_like=True, frozen=True):
    """Entries of a feed in order, and the cursor after them; or a problem, with its code."""

    entries: tuple[JournalEntry, ...] = ()
    cursor: str = ""
    code: str = ""
    problem: str = ""


class RecentRequest(msgspec.Struct, array_like=True, frozen=True):
    """What streams were appended to since a commit, and for how many seconds the next one may be waited for.

    `born` is what a page before said; "" asks only which the latest commit is.
    """

    born: str
    after: int
    timeout_s: float


class RecentPage(msgspec.Struct, array_like=True, frozen=True):
    """Streams, each with its tenant before it, and the number of the latest commit; `is_torn`: others are not known.

    Commits are numbered by the process that is called `born`.
    """

    streams: tuple[tuple[str, str], ...] = ()
    born: str = ""
    upto: int = 0
    is_torn: bool = False


class NewsRequest(msgspec.Struct, array_like=True, frozen=True):
    """Whether anything has happened in a run, or without one anywhere in reach, since a page bore the mark `after`.

    It is waited for so many seconds at most.
    """

    credential: str
    run_id: str
    after: int
    timeout_s: float


class NewsPage(msgspec.Struct, array_like=True, frozen=True):
    """A mark, another one if anything has happened; or a problem, with its code."""

    mark: int = 0
    code: str = ""
    problem: str = ""


class PresentedVote(msgspec.Struct, array_like=True, frozen=True):
    """A person's vote on an approval, with the person's credential; `arguments` are those of an edit, as JSON."""

    credential: str
    approval_id: str
    verdict: str
    arguments: bytes = b""
    note: str = ""


class PresentedJointVote(msgspec.Struct, array_like=True, frozen=True):
    """A person's verdict on several approvals, with the person's credential: it counts on all of them, or on none."""

    credential: str
    approval_ids: tuple[str, ...]
    verdict: str
    note: str = ""


class KeeperRequest(msgspec.Struct, array_like=True, frozen=True):
    """What a keeper of a tenant's memory wants done, with the keeper's credential; fields as in `MemoryOrder`."""

    credential: str
    action: str
    tenant: str
    target: str = ""
    only: Only = ""
    keep: tuple[str, ...] = ()
    dry_run: bool = False


class PresentedOrder(msgspec.Struct, array_like=True, frozen=True):
    """An order with the credential of whoever gives it; the fields after it are those of `Order`."""

    credential: str
    action: str
    scope: str
    target: str
    why: str = ""
    happened: bool = False
    output: bytes = b"null"
    until_us: int = 0
    tokens: int | None = None
    cost_microusd: int = 0


class OrderReply(msgspec.Struct, array_like=True, frozen=True):
    """How many runs an order reached, and of a rollback its report as JSON; or a problem, with its code."""

    reached: int = 0
    report: bytes = b""
    code: str = ""
    problem: str = ""


class PresentedQuestion(msgspec.Struct, array_like=True, frozen=True):
    """What is asked of a stack, with the credential of whoever asks; `parameters` are the view's, a JSON object."""

    credential: str
    view: str
    parameters: bytes = b"{}"


class QuestionReply(msgspec.Struct, array_like=True, frozen=True):
    """The answer to a question, as JSON (`stack.operations.questions`); or a problem, with its code."""

    code: str = ""
    problem: str = ""
    body: bytes = b""


SUBMIT = Method[Submission, Ticket]("ingress", "submit")
GIVE_VOTE = Method[PresentedVote, VoteReply]("ingress", "give_vote")
GIVE_JOINT_VOTE = Method[PresentedJointVote, JointVoteReply]("ingress", "give_joint_vote")
KEEP = Method[KeeperRequest, bytes]("ingress", "keep")
FOLLOW = Method[FeedRequest, FeedPage]("ingress", "follow")
WATCH_RUN = Method[WatchRequest, WatchPage]("ingress", "watch")
NEWS = Method[NewsRequest, NewsPage]("ingress", "news")
OFFER = Method[OfferRequest, ToolOffer]("ingress", "offer")
OPERATE = Method[PresentedOrder, OrderReply]("ingress", "operate")
LOOK = Method[PresentedQuestion, QuestionReply]("ingress", "look")

READ_INPUTS = Method[list[bytes], list[InputsReading]]("intake", "read")
INPUT_FIELDS = Method[None, Fields]("intake", "fields")

ADMIT = Method[Admit, Ticket]("driver", "admit")
REPORT = Method[Report, bool]("driver", "report")
DELIVER = Method[Delivery, bool]("driver", "deliver")
WAIT = Method[WaitRequest, Ends]("driver", "wait")
ORDER = Method[bytes, tuple[int, str]]("driver", "order")
ROLL_BACK = Method[bytes, tuple[bytes, str]]("driver", "roll_back")
LIVE = Method[None, list[tuple[str, str, str, bool]]]("driver", "live")
SWITCHES = Method[None, list[bytes]]("driver", "switches")

ACTIVATE = Method[Activation, bool]("runtime", "activate", retry=False)
BRING = Method[Delivery, int | None]("runtime", "bring", retry=False)

DECIDE = Method[GateRequest, GateReply]("policy", "decide")
SPEND = Method[SpendRequest, SpendReply]("policy", "spend")
RESERVED = Method[ReservedQuestion, ReservedReply]("policy", "reserved")
CHECK = Method[Proposed, str]("policy", "check")
UNDO = Method[UndoRequest, UndoReply]("policy", "undo")
BUDGETS = Method[str, bytes]("policy", "budgets")
BUNDLE = Method[None, str]("policy", "bundle")
CLOSE = Method[str, bool]("policy", "close", retry=False)
ISSUER = Method[None, TrustedGate]("policy", "issuer", retry=False)
REFRESH = Method[None, None]("policy", "refresh")
RECOUNT = Method[None, None]("policy", "recount")

REQUEST_APPROVAL = Method[Question, ApprovalDecided | None]("approvals", "request", json=True, json_reply=True)
VOTE = Method[Vote, VoteReply]("approvals", "vote")
VOTE_JOINTLY = Method[JointVote, JointVoteReply]("approvals", "vote_jointly")
WITHDRAW = Method[str, int]("approvals", "withdraw")
PENDING = Method[str | None, list[bytes]]("approvals", "pending")
ASKED = Method[str, list[bytes]]("approvals", "asked")

APPEND = Method[Append, AppendReply]("journal", "append")
APPEND_TOGETHER = Method[AppendTogether, AppendReply]("journal", "append_together")
BODIES = Method[list[str], dict[str, list[str]]]("journal", "bodies")
ROWS = Method[NamedQuery, Rows]("journal", "rows")
QUERY = Method[Sql, tuple[bytes, str]]("journal", "query")
QUERY_TENANT = Method[TenantSql, tuple[bytes, str]]("journal", "query_tenant")
CHAINS = Method[ChainsRequest, list[ChainStanding]]("journal", "chains")
VERIFY = Method[None, list[str]]("journal", "verify")
SUBSCRIBE = Method[FeedRequest, FeedPage]("journal", "subscribe")
RECENT = Method[RecentRequest, RecentPage]("journal", "recent")

RETRIEVE = Method[RecallRequest, RecallReply]("memory", "retrieve")
WRITE_IF_USEFUL = Method[Candidate, LearnReply]("memory", "write_if_useful")
MEMORY_STANDING = Method[str, MemoryStanding]("memory", "standing")
MEMORY_ORDER = Method[bytes, bytes]("memory", "order")

ASK_MODEL = Method[ModelRequest, ModelReply]("models", "ask")
WATCH = Method[WatchRequest, WatchPage]("models", "watch")

EXECUTE = Method[ExecuteRequest, ExecuteReply]("executor", "execute", retry=False, json_reply=True)
ANSWER_OF = Method[bytes, ExecuteReply | None]("executor", "answer_of", retry=False, json_reply=True)
RESOLVE = Method[bytes, bytes]("executor", "resolve", retry=False)
RELEASE = Method[str, bool]("executor", "release", retry=False)
INCARNATION = Method[None, str]("executor", "incarnation")
TRUST = Method[TrustedGate, None]("executor", "trust")
GREET = Method[None, tuple[str, Where]]("executor", "greet", retry=False)

WIRE = hashlib.sha256("\n".join(f"{method!r} {method.types}" for method in METHODS).encode()).digest()[:8]
"""The version of the wire: two processes understand each other if they have the same table."""
