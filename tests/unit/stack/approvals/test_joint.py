"""Joint votes against votes one by one: what all of them would count as, or what any one of them refuses."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.stack.approvals.book import ApprovalBook, ApprovalEvent, ApprovalVoted, Verdict, VoteRefused
from airside.stack.approvals.joint import MAX_JOINT, in_words, joint_name, weigh
from airside.stack.ids import ApprovalId, TenantId
from tests.helpers import through_journal
from tests.unit.stack.approvals.test_approvals import PEOPLE, asked, cast, person

names = st.sampled_from(sorted(PEOPLE))
verdicts = st.sampled_from(["approve", "reject"])


def name_of(number: int) -> ApprovalId:
    """Return the id of one of the approvals."""
    return ApprovalId(f"apr_{number}")


def book_of(quorums: list[int], before: list[tuple[str, str, int]]) -> ApprovalBook:
    """Return a book of approvals, some of which expire early, on which people have voted."""
    book = ApprovalBook()
    for number, quorum in enumerate(quorums):
        book.apply(asked(number, quorum=quorum, expires_us=100 if number % 3 else 60))
    for who, verdict, number in before:
        cast(book, who, verdict, number=number % len(quorums), now=1)
    return book


def copy_of(book: ApprovalBook) -> ApprovalBook:
    """Return a book as it is made anew of what is durable."""
    events: list[ApprovalEvent] = []
    for approval in book._known.values():
        events += [approval.request, *approval.votes]
    return ApprovalBook(through_journal(each) for each in events)


@given(
    quorums=st.lists(st.integers(1, 3), min_size=1, max_size=6),
    before=st.lists(st.tuples(names, verdicts, st.integers(0, 5)), max_size=8),
    who=names,
    tenant=st.sampled_from(["acme", "acme", "acme", "beta"]),
    verdict=verdicts,
    chosen=st.lists(st.integers(0, 6), min_size=1, max_size=6, unique=True),
    now=st.integers(2, 120),
)
def test_a_joint_vote_is_all_of_the_votes_or_none(
    quorums: list[int],
    before: list[tuple[str, str, int]],
    who: str,
    tenant: str,
    verdict: Verdict,
    chosen: list[int],
    now: int,
) -> None:
    """Each approval refuses it as it would a vote on it alone; where none does, all stand as after such votes."""
    book, ids, voter = book_of(quorums, before), [name_of(each) for each in chosen], person(who, tenant)
    apart, untouched = copy_of(book), copy_of(book)
    weighed = weigh(book, voter, ids, verdict, now_us=now, note="n")
    assert {each: book.get(each) for each in ids} == {
        each: untouched.get(each) for each in ids
    }  # weighing changes nothing
    alone = {each: apart.vote(voter, each, verdict, now_us=now, note="n") for each in ids}
    refused = {each: (vote.code, vote.message) for each, vote in alone.items() if isinstance(vote, VoteRefused)}
    assert {each.approval_id: (each.code, each.message) for each in weighed.refused} == refused
    if refused:
        assert weighed.votes == () and all(each in in_words(weighed.refused) for each in list(refused)[:5])
        return
    assert [vote.approval_id for vote in weighed.votes] == ids
    for vote, other in zip(weighed.votes, alone.values(), strict=True):
        assert isinstance(other, ApprovalVoted) and msgspec.structs.replace(vote, joint="") == other
        assert book.apply(vote).outcome == apart.apply(other).outcome
    for again in (book, copy_of(book)):  # the answer was lost, or the process
        assert weigh(again, voter, ids[::-1], verdict, now_us=10**6) == ((), ())
        other_way = weigh(again, voter, ids, "reject" if verdict == "approve" else "approve", now_us=now)
        assert other_way.votes == () and len(other_way.refused) == len(ids)


@pytest.mark.parametrize(
    ("numbers", "verdict", "said"),
    [
        ([], "approve", "1 to 100"),
        (range(MAX_JOINT + 1), "approve", "101 approvals"),
        ([1, 1], "approve", "twice"),
        ([1], "edit", "one by one"),
        ([1], "answer", "one by one"),
    ],
)
def test_what_is_no_joint_vote_is_refused(numbers: list[int], verdict: Verdict, said: str) -> None:
    weighed = weigh(book_of([1, 1], []), person("bob"), [name_of(each) for each in numbers], verdict, now_us=1)
    assert weighed.votes == () and weighed.refused[0].code == "invalid" and said in weighed.refused[0].message


def test_a_vote_on_one_of_them_is_not_the_joint_vote() -> None:
    """Nor is another joint vote; each is refused, for who votes on something votes on it once."""
    book = book_of([2, 2, 2], [("bob", "approve", 1)])
    assert weigh(book, person("bob"), [name_of(1)], "approve", now_us=1).refused[0].code == "already_voted"
    for vote in weigh(book, person("bob"), [name_of(0), name_of(2)], "approve", now_us=1).votes:
        book.apply(vote)
    both = weigh(book, person("bob"), [name_of(0), name_of(1), name_of(2)], "approve", now_us=1)
    assert [each.code for each in both.refused] == ["already_voted"] * 3
    assert (
        weigh(book, person("bob", "beta"), [name_of(0), name_of(2)], "approve", now_us=1).refused[0].code == "unknown"
    )
    assert person("bob").tenant == TenantId("acme") and joint_name([name_of(0)], "approve") != joint_name([], "approve")


def test_of_many_that_refuse_the_first_are_said() -> None:
    weighed = weigh(book_of([1] * 9, []), person("ann"), [name_of(each) for each in range(9)], "approve", now_us=1)
    assert len(weighed.refused) == 9 and in_words(weighed.refused).endswith("; and 4 more")
