"""`ApprovalBook` against a model that is simple enough to be right, through votes, edits, expiry and crashes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from msgspec import Raw

from airside.stack.approvals.book import (
    ApprovalBook,
    ApprovalEvent,
    ApprovalExpired,
    ApprovalReceipt,
    ApprovalRequested,
    ApprovalVoted,
    Question,
    VoteRefused,
    call_digest,
    receipt_for,
    seal_approval,
    verify_approval,
)
from airside.stack.cycle.in_memory import InMemoryApprovals, decision_of
from airside.stack.ids import ApprovalId, PrincipalId, TenantId
from airside.stack.values import ApprovalRule, Identity
from tests.helpers import KEY, RUN, through_journal

PEOPLE = {"ann": ("clerk", "boss"), "bob": ("boss",), "eve": ("lead", "x"), "joe": ("clerk",), "zoe": ("boss", "lead")}
TERMS = ("boss", "lead")


def person(name: str, tenant: str = "acme") -> Identity:
    """Return somebody of a tenant."""
    return Identity(principal=PrincipalId(name), tenant=TenantId(tenant), roles=PEOPLE[name])


def asked(number: int = 1, *, quorum: int = 1, expires_us: int = 100, now: int = 0) -> ApprovalRequested:
    """Return ann's request."""
    return ApprovalRequested(
        at_us=now,
        approval_id=ApprovalId(f"apr_{number}"),
        tenant=TenantId("acme"),
        requester=PrincipalId("ann"),
        run_id=RUN,
        step=1,
        tool="pay",
        tool_version="1",
        policy_version="v1",
        rule="r",
        effect="write",
        arguments=Raw(b'{"amount":5}'),
        binding="bound",
        terms=ApprovalRule(roles=TERMS, quorum=quorum),
        expires_us=expires_us,
    )


def digest_of(**other: Any) -> str:
    """Return the digest of the call of `asked()`."""
    call: dict[str, Any] = {
        "tenant": TenantId("acme"),
        "run_id": RUN,
        "step": 1,
        "tool": "pay",
        "tool_version": "1",
        "policy_version": "v1",
        "arguments": b'{"amount":5}',
    }
    return call_digest(**call | other)


def cast(book: ApprovalBook, name: str, verdict: str = "approve", *, number: int = 1, now: int = 1) -> str:
    """Vote, apply the vote, and return the outcome or the refusal's code."""
    edited = Raw(b'{"amount":4}') if verdict == "edit" else None
    said = book.vote(person(name), ApprovalId(f"apr_{number}"), verdict, now_us=now, arguments=edited)  # type: ignore[arg-type]
    return said.code if isinstance(said, VoteRefused) else book.apply(said).outcome


class Model:
    """What should become of one approval."""

    def __init__(self, quorum: int, expires_us: int) -> None:
        self.quorum, self.expires_us = quorum, expires_us
        self.approved: list[str] = []
        self.outcome = ""

    def answer(self, name: str, tenant: str, verdict: str, now: int) -> str:
        """Return the outcome after somebody votes, or why the vote does not count."""
        if tenant != "acme":
            return "unknown"
        if self.outcome or now >= self.expires_us:
            return "already_decided"
        if name == "ann":
            return "self_approval"
        if not set(PEOPLE[name]) & set(TERMS):
            return "wrong_role"
        if name in self.approved:
            return "already_voted"
        if verdict == "approve":
            self.approved.append(name)
            self.outcome = "approved" if len(self.approved) == self.quorum else ""
        else:
            self.outcome = {"reject": "rejected", "edit": "edited"}[verdict]
        return self.outcome


class ApprovalsMachine(RuleBasedStateMachine):
    """Random people say random things about random approvals, and the book is lost now and then."""

    numbers = Bundle("numbers")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.journal: list[ApprovalEvent] = []
        self.book = ApprovalBook()
        self.models: dict[ApprovalId, Model] = {}

    def durable(self, event: ApprovalEvent) -> str:
        """Journal an event, then take it in."""
        self.journal.append(event)
        return self.book.apply(event).outcome

    @rule(target=numbers, quorum=st.integers(1, 3), life=st.integers(1, 30))
    def request(self, quorum: int, life: int) -> int:
        number = len(self.models)
        event = asked(number, quorum=quorum, expires_us=self.now + life, now=self.now)
        assert self.durable(event) == ""
        self.models[event.approval_id] = Model(quorum, self.now + life)
        return number

    @rule(number=numbers)
    def request_again(self, number: int) -> None:
        event = asked(number, quorum=9, expires_us=10**9, now=self.now)
        assert self.durable(event) == self.models[event.approval_id].outcome

    @rule(
        number=numbers,
        ballots=st.lists(
            st.tuples(
                st.sampled_from([*sorted(PEOPLE), "bob", "eve", "zoe"]),
                st.sampled_from(["acme", "acme", "acme", "acme", "globex"]),
                st.sampled_from(["approve", "approve", "approve", "approve", "reject", "edit"]),
            ),
            min_size=1,
            max_size=5,
        ),
    )
    def vote(self, number: int, ballots: list[tuple[str, str, str]]) -> None:
        approval_id = ApprovalId(f"apr_{number}")
        for name, tenant, verdict in ballots:
            said = self.book.vote(
                person(name, tenant),
                approval_id,
                verdict,  # type: ignore[arg-type]
                now_us=self.now,
                arguments=Raw(b'{"amount":4}'),
            )
            got = said.code if isinstance(said, VoteRefused) else self.durable(said)
            assert got == self.models[approval_id].answer(name, tenant, verdict, self.now)

    @rule()
    def somebody_votes_on_nothing(self) -> None:
        said = self.book.vote(person("bob"), ApprovalId("apr_none"), "approve", now_us=self.now)
        assert isinstance(said, VoteRefused) and said.code == "unknown"

    @rule(passes=st.integers(0, 8))
    def time_passes(self, passes: int) -> None:
        self.now += passes

    @rule()
    def expire(self) -> None:
        due = self.book.due(self.now)
        late = {i for i, model in self.models.items() if not model.outcome and model.expires_us <= self.now}
        assert {event.approval_id for event in due} == late
        for event in due:
            assert self.durable(event) == "expired"
            self.models[event.approval_id].outcome = "expired"
        assert self.book.due(self.now) == []

    @rule()
    def crash(self) -> None:
        self.book = ApprovalBook(through_journal(event) for event in self.journal)

    @invariant()
    def the_book_says_what_the_model_says(self) -> None:
        for approval_id, model in self.models.items():
            approval = self.book.get(approval_id)
            assert approval is not None and approval.outcome == model.outcome
            assert [v.by for v in approval.votes if v.verdict == "approve"] == model.approved
            decided = decision_of(approval, KEY, self.now)
            assert (decided is not None) is bool(model.outcome)
            assert decided is None or bool(decided.receipt) is (model.outcome in ("approved", "edited"))
            decisive = {"approve": ("approved",), "reject": ("rejected",), "edit": ("edited",)}
            assert decided is None or list(decided.by) == [
                vote.by for vote in approval.votes if model.outcome in decisive[vote.verdict]
            ], "who decided, and nobody who did not"
        open_ids = [i for i, model in self.models.items() if not model.outcome]
        assert [a.request.approval_id for a in self.book.pending(TenantId("acme"))] == open_ids
        assert self.book.pending(TenantId("globex")) == []
        assert len(self.book.decided()) + len(open_ids) == len(self.models)


TestApprovals = ApprovalsMachine.TestCase
TestApprovals.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


class ApprovalsMachineAtLength(ApprovalsMachine):
    """The same, for longer."""


TestApprovalsAtLength = pytest.mark.slow(ApprovalsMachineAtLength.TestCase)
TestApprovalsAtLength.settings = settings(max_examples=2000, stateful_step_count=50, deadline=None)


def book_with(quorum: int = 1) -> ApprovalBook:
    """Return a book with one request."""
    return ApprovalBook([asked(quorum=quorum)])


def test_the_requester_cannot_approve_reject_or_edit_its_own_call() -> None:
    book = book_with()
    assert [cast(book, "ann", verdict) for verdict in ("approve", "reject", "edit")] == ["self_approval"] * 3


def test_an_approval_is_decided_by_its_quorum_of_different_people() -> None:
    book = book_with(quorum=2)
    assert [cast(book, name) for name in ("bob", "bob", "joe", "eve", "zoe")] == [
        "",
        "already_voted",
        "wrong_role",
        "approved",
        "already_decided",
    ]


def test_the_first_rejection_decides() -> None:
    book = book_with(quorum=3)
    assert [cast(book, "bob"), cast(book, "eve", "reject"), cast(book, "zoe")] == ["", "rejected", "already_decided"]


def test_a_vote_counts_until_just_before_the_expiry() -> None:
    assert cast(book_with(), "bob", now=99) == "approved"
    assert cast(book_with(), "bob", now=100) == "already_decided"


def test_the_receipt_of_an_approval_names_the_approvers_and_the_asked_call() -> None:
    book = book_with(quorum=2)
    cast(book, "bob")
    cast(book, "eve")
    approval = book.get(ApprovalId("apr_1"))
    assert approval is not None
    receipt = receipt_for(approval)
    assert receipt == ApprovalReceipt(
        approval_id=ApprovalId("apr_1"),
        binding=digest_of(),
        approvers=(("bob", ("boss",)), ("eve", ("lead", "x"))),  # type: ignore[arg-type]
    )
    assert verify_approval(KEY, seal_approval(KEY, receipt)) == receipt
    assert verify_approval(b"j" * 32, seal_approval(KEY, receipt)) is None


def test_the_receipt_of_an_edit_names_the_editor_alone_and_the_edited_call() -> None:
    book = book_with(quorum=2)
    cast(book, "bob")
    assert cast(book, "eve", "edit") == "edited"
    approval = book.get(ApprovalId("apr_1"))
    assert approval is not None
    receipt = receipt_for(approval)
    assert [by for by, _ in receipt.approvers] == ["eve"]
    assert receipt.binding == digest_of(arguments=b'{"amount":4}') != digest_of()


def test_a_receipt_is_bound_to_what_the_people_were_shown_whatever_the_request_claims() -> None:
    """A runtime that shows one call and names the digest of another gets a receipt for the one it showed."""
    elsewhere = msgspec.structs.replace(asked(), tenant=TenantId("acme"), binding=digest_of(tenant=TenantId("beta")))
    book = ApprovalBook([elsewhere])
    assert cast(book, "bob") == "approved"
    approval = book.get(ApprovalId("apr_1"))
    assert approval is not None and receipt_for(approval).binding == digest_of()


def test_a_note_is_cut_and_told_to_the_run() -> None:
    book = book_with()
    said = book.vote(person("bob"), ApprovalId("apr_1"), "reject", now_us=1, note="n" * 5000)
    assert isinstance(said, ApprovalVoted) and len(said.note) == 1000
    decided = decision_of(book.apply(said), KEY, 2)
    assert decided is not None and decided.note == said.note and decided.by == ("bob",) and decided.receipt == ""


def test_forgetting_drops_an_approval_and_forgetting_twice_is_nothing() -> None:
    book = book_with()
    cast(book, "bob")
    book.forget(ApprovalId("apr_1"))
    book.forget(ApprovalId("apr_1"))
    assert book.get(ApprovalId("apr_1")) is None and book.decided() == []


async def test_asking_again_for_what_is_decided_gives_the_decision_at_once() -> None:
    local = InMemoryApprovals(KEY, lambda: 1)
    assert await local.request(Question(asked=asked())) is None
    said = local.book.vote(person("bob"), ApprovalId("apr_1"), "approve", now_us=1)
    assert isinstance(said, ApprovalVoted)
    first = local.apply(said)
    assert first is not None and first.outcome == "approved" and await local.request(Question(asked=asked())) == first


@pytest.mark.parametrize("late", ["approve", "expire"])
def test_what_is_decided_stays_decided_when_a_vote_was_already_on_its_way(late: str) -> None:
    book = book_with()
    approval_id = ApprovalId("apr_1")
    first = book.vote(person("bob"), approval_id, "reject", now_us=1)
    second = book.vote(person("zoe"), approval_id, "approve", now_us=1)
    assert isinstance(first, ApprovalVoted) and isinstance(second, ApprovalVoted)
    book.apply(first)
    late_event = second if late == "approve" else ApprovalExpired(at_us=2, approval_id=approval_id)
    assert book.apply(late_event).outcome == "rejected"


@pytest.mark.parametrize(
    "arguments", [None, Raw(b""), Raw(b"[1]"), Raw(b"{"), Raw(b"null"), Raw(b'"x"'), Raw(b'{"a":NaN}')]
)
def test_an_edit_must_give_an_object(arguments: Raw | None) -> None:
    said = book_with().vote(person("bob"), ApprovalId("apr_1"), "edit", now_us=1, arguments=arguments)
    assert isinstance(said, VoteRefused) and said.code == "invalid" and "edited arguments" in said.message


def test_an_edit_is_refused_for_who_gives_it_before_what_it_gives() -> None:
    said = book_with().vote(person("ann"), ApprovalId("apr_1"), "edit", now_us=1, arguments=Raw(b"[1]"))
    assert isinstance(said, VoteRefused) and said.code == "self_approval"


def test_an_edit_that_was_refused_does_not_count_as_a_vote() -> None:
    book = book_with()
    assert isinstance(book.vote(person("bob"), ApprovalId("apr_1"), "edit", now_us=1), VoteRefused)
    assert cast(book, "bob", "edit") == "edited"


def test_a_question_of_another_tenant_ends_nothing_here() -> None:
    """A runtime may write any run's name: what others are asked about its steps goes on."""

    def question(number: int, tenant: str) -> Question:
        first, second = (
            msgspec.structs.replace(asked(number + step, now=step), step=step, tenant=TenantId(tenant))
            for step in (1, 2)
        )
        return Question(asked=first, beside=(second,))

    book = ApprovalBook()
    for tenant, number in (("acme", 0), ("evil", 10)):
        for event in book.register(question(number, tenant), now_us=1):
            book.apply(event)
    assert [each.request.step for each in book.pending(TenantId("acme"))] == [1, 2]
    assert len(book.pending(TenantId("evil"))) == 2
    for event in book.register(question(20, "acme"), now_us=1):  # its own is, where they are other calls by now
        book.apply(event)
    assert [each.request.approval_id for each in book.pending(TenantId("acme"))] == ["apr_21", "apr_22"]


def test_a_rejection_ahead_stands_for_the_same_call_alone() -> None:
    """Under every later policy, and where a process died before it was durable; other arguments are asked about."""

    def question(policy: int, arguments: bytes = b'{"amount":5}') -> Question:
        first, second = (
            msgspec.structs.replace(asked(10 * policy + step), step=step, policy_version=f"v{policy}")
            for step in (1, 2)
        )
        return Question(asked=first, beside=(msgspec.structs.replace(second, arguments=Raw(arguments)),))

    book = ApprovalBook()
    for event in book.register(question(1), now_us=1):
        book.apply(event)
    assert cast(book, "bob", "reject", number=12) == "rejected"
    for policy in (2, 3):
        events = book.register(question(policy), now_us=1)
        for event in events[:-1]:
            book.apply(event)
        assert isinstance(events[-1], ApprovalVoted) and events[-1].by == "bob"
        assert book.register(question(policy), now_us=1) == events[-1:]
        book.apply(events[-1])
        assert book.register(question(policy), now_us=1) == []
        waiting = [each.request for each in book.pending()]
        assert (waiting[-1].approval_id, waiting[-1].group) == (f"apr_{policy}1", "")
    for event in book.register(question(4, b'{"amount":6}'), now_us=1):
        book.apply(event)
    assert len(book.group(book.pending()[-1].request.group)) == 2
