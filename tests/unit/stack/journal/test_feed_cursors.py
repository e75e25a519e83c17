"""Cursors of the journal's feed: what they count, and which are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.stack.errors import InvalidId, InvalidInput
from airside.stack.ids import TenantId
from airside.stack.journal.feed import ALL, NOW, FeedCursor, JournalEntry, entries_before, feed_of

HERE = "0123456789ab"


@given(count=st.integers(0, 10**15), more=st.integers(0, 10**6), feed=st.sampled_from(["acme", "a-b_c", ALL]))
def test_a_cursor_says_how_many_entries_have_come(count: int, more: int, feed: str) -> None:
    cursor = str(FeedCursor(journal=HERE, feed=feed, count=count))
    assert entries_before(cursor, HERE, feed, count + more) == count
    assert entries_before("", HERE, feed, count) == 0 and entries_before(NOW, HERE, feed, count) == count


@pytest.mark.parametrize(
    ("cursor", "why"),
    [
        ("x", "is no cursor of a feed"),
        (f"{HERE}:acme", "is no cursor"),
        (f"{HERE}:acme:-1", "is no cursor"),
        (f"{HERE}:acme:1.5", "is no cursor"),
        (f"{HERE}:acme:\u0663", "is no cursor"),
        (f"{HERE}:acme:{'9' * 30}", "is no cursor"),
        ("ffffffffffff:acme:1", f"is of another journal than this one, which is {HERE}"),
        (f"{HERE}:beta:1", "is of the feed 'beta', not of 'acme'"),
        (f"{HERE}:*:1", "is of the feed '\\*', not of 'acme'"),
        (f"{HERE}:acme:3", "is of entries that this journal does not have"),
        ("\ud800" * 1000, "is no cursor"),
    ],
)
def test_what_is_no_cursor_of_this_feed_is_refused(cursor: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        entries_before(cursor, HERE, "acme", 2)


def test_a_feed_is_a_tenants_or_everybodys() -> None:
    assert feed_of("acme") == "acme" and feed_of(None) == ALL
    for wrong in ("", "*", "ACME", "a" * 64):
        with pytest.raises(InvalidId):
            feed_of(wrong)


def test_an_entry_shows_its_event() -> None:
    entry = JournalEntry(
        cursor="c",
        tenant=TenantId("acme"),
        number=0,
        stream="s",
        seq=0,
        epoch=0,
        step=0,
        cause=-1,
        at_us=1,
        type="Note",
        body='{"n": 1}',
    )
    assert entry.event == {"n": 1}
