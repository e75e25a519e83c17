"""Following the journal as a client does: from cursor to cursor, through what goes wrong."""

from __future__ import annotations

from typing import Any

import pytest

from airside.actors.client.client import Stack
from airside.actors.client.journal_follower import POLL_S, JournalFollower
from airside.actors.client.steps import Pause, Steps, drive
from airside.actors.rpc.methods import FOLLOW, SUBSCRIBE, FeedPage
from airside.stack.errors import AuthRefused, InvalidId, InvalidInput, LayerUnavailable, Misuse, Refused
from airside.stack.ids import TenantId
from airside.stack.journal.feed import JournalEntry


def entry(number: int) -> JournalEntry:
    """Return an entry of a feed."""
    return JournalEntry(
        cursor=str(number + 1),
        tenant=TenantId("acme"),
        number=number,
        stream="s",
        seq=number,
        epoch=0,
        step=0,
        cause=-1,
        at_us=1,
        type="Note",
        body="{}",
    )


class Pages:
    """A feed with so many entries, two a page; time is what is waited for."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.now_s = 0.0
        self.asked: list[tuple[str, float]] = []
        self.away = False

    def clock(self) -> float:
        """Return the time."""
        return self.now_s

    def ask(self, after: str, wait_s: float) -> Steps[FeedPage]:
        """Answer at once, or when the wait is over."""
        self.asked.append((after, wait_s))
        yield Pause(0.0)
        if self.away:
            raise LayerUnavailable("gone")
        first = int(after or 0)
        found = tuple(entry(n) for n in range(first, min(first + 2, self.total)))
        self.now_s += 0 if found else wait_s
        return FeedPage(found, str(first + len(found)))

    def follower(self, after: str = "", timeout: float | None = 0) -> JournalFollower:
        """Return who follows it."""
        return JournalFollower(self.ask, after, timeout=timeout, clock=self.clock)


def numbers(follower: JournalFollower) -> list[int]:
    """Return what follows until it is over."""
    found: list[int] = []
    while page := drive(follower.next_entries()):
        found += [each.number for each in page]
    return found


def test_pages_follow_one_another_until_nothing_more_has_come_in_time() -> None:
    pages = Pages(5)
    assert numbers(pages.follower(timeout=25)) == [0, 1, 2, 3, 4]
    assert [after for after, _ in pages.asked] == ["", "2", "4", "5", "5", "5"]
    assert [wait_s for _, wait_s in pages.asked][3:] == [POLL_S, POLL_S, 5.0] and pages.now_s == 25


def test_without_time_it_ends_with_what_is_there() -> None:
    pages = Pages(3)
    assert numbers(pages.follower()) == [0, 1, 2] and pages.now_s == 0
    assert numbers(pages.follower(after="2")) == [2]


def test_from_the_cursor_of_the_last_entry_it_goes_on_after_a_journal_that_stayed_away() -> None:
    pages = Pages(5)
    follower = pages.follower()
    done = drive(follower.next_entries())
    pages.away = True
    with pytest.raises(LayerUnavailable):
        drive(follower.next_entries())
    pages.away = False
    assert numbers(pages.follower(after=done[0].cursor)) == [1, 2, 3, 4]
    assert numbers(follower) == [2, 3, 4]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("invalid", InvalidInput),
        ("wrong_role", Refused),
        ("too_many", Refused),
        ("auth_expired", AuthRefused),
        ("principal_unknown", AuthRefused),
    ],
)
def test_a_refusal_is_raised_as_what_it_is(code: str, kind: type[Exception]) -> None:
    def ask(after: str, wait_s: float) -> Steps[FeedPage]:
        yield Pause(0.0)
        return FeedPage(code=code, problem="why")

    with pytest.raises(kind, match="why") as caught:
        drive(JournalFollower(ask, "", timeout=None).next_entries())
    assert type(caught.value) is kind


class Connection:
    """What a stack asks; its feed has one entry."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def call(self, method: Any, request: Any) -> Steps[FeedPage]:
        """Answer with the entry, or nothing after it."""
        self.asked.append((method, request.tenant, request.credential))
        yield Pause(0.0)
        return FeedPage((), "1") if request.after else FeedPage((entry(0),), "1")


async def test_a_stack_follows_for_threads_and_event_loops_with_and_without_a_token() -> None:
    stack = Stack.__new__(Stack)
    stack._connection = Connection()  # type: ignore[assignment]
    assert [each.number for each in stack.subscribe(tenant="acme", timeout=0)] == [0]
    assert [each.number async for each in stack.asubscribe(token="t", timeout=0)] == [0]
    assert stack._connection.asked == [(SUBSCRIBE, "acme", "")] * 2 + [(FOLLOW, None, "t")] * 2  # type: ignore[attr-defined]


def test_what_no_feed_can_be_asked_for_is_refused_at_once() -> None:
    stack = Stack.__new__(Stack)
    with pytest.raises(Misuse, match="give a tenant or a token"):
        stack.subscribe(tenant="acme", token="t")
    with pytest.raises(InvalidId, match="tenant id"):
        stack.subscribe(tenant="*")
    with pytest.raises(InvalidInput, match="after: None is no text"):
        stack.subscribe(after=None)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="timeout"):
        stack.subscribe(timeout=-1)
