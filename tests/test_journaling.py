"""What the journal promises: fencing, sequence numbers, duplicates, and a chain that anything breaks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airside.stack.ids import TenantId
from airside.stack.journaling import ENDED, GENESIS, Append, Entry, Head, admit, link
from airside.stack.local import LocalJournal


def entry(number: int, kind: str = "Planned") -> Entry:
    """Return an entry that tells its number."""
    return Entry(type=kind, step=0, at_us=number, cause=-1, body=str(number).encode())


def append(first: int, count: int = 1, *, epoch: int = 1, end: bool = False, stream: str = "run_1") -> Append:
    """Return an append of entries `first`, `first + 1`, ..."""
    entries = [entry(first + i) for i in range(count)]
    if end:
        entries.append(entry(first + count, ENDED))
    return Append(tenant=TenantId("acme"), stream=stream, epoch=epoch, first_seq=first, entries=tuple(entries))


def test_a_first_append_writes_everything_and_sets_the_epoch() -> None:
    reply, fresh, head = admit(Head(), append(0, 3, epoch=4))
    assert (reply.verdict, reply.epoch, reply.next_seq, len(fresh)) == ("ok", 4, 3, 3)
    assert head == Head(epoch=4, next_seq=3)


def test_an_append_that_repeats_the_beginning_writes_only_the_rest() -> None:
    reply, fresh, head = admit(Head(epoch=1, next_seq=3), append(1, 4))
    assert (reply.verdict, [e.at_us for e in fresh], head.next_seq) == ("ok", [3, 4], 5)


def test_an_append_past_the_end_is_a_gap() -> None:
    before = Head(epoch=1, next_seq=3)
    reply, fresh, head = admit(before, append(4))
    assert (reply.verdict, reply.next_seq, fresh, head) == ("gap", 3, (), before)


def test_an_older_epoch_is_fenced_even_if_it_only_repeats() -> None:
    before = Head(epoch=5, next_seq=3)
    for first in (0, 2, 3, 4):
        reply, fresh, head = admit(before, append(first, epoch=4))
        assert (reply.verdict, reply.epoch, fresh, head) == ("fenced", 5, (), before)


@pytest.mark.parametrize("first", [0, 2])
def test_a_newer_epoch_must_begin_where_the_stream_ends(first: int) -> None:
    before = Head(epoch=5, next_seq=3)
    assert admit(before, append(first, 9, epoch=6))[0].verdict == "fenced"
    reply, fresh, head = admit(before, append(3, epoch=6))
    assert (reply.verdict, len(fresh), head.epoch) == ("ok", 1, 6)


def test_nothing_is_taken_in_after_the_end_but_a_repeat_is_still_ok() -> None:
    reply, _, head = admit(Head(), append(0, 2, end=True))
    assert reply.verdict == "ok" and head.ended and head.next_seq == 3
    assert admit(head, append(3))[0].verdict == "fenced"
    assert admit(head, append(3, epoch=9))[0].verdict == "fenced"
    again, fresh, after = admit(head, append(0, 2, end=True))
    assert (again.verdict, fresh, after) == ("ok", (), head)


writers = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 5), st.integers(0, 4), st.integers(0, 9)), max_size=30)


@settings(deadline=None)
@given(attempts=writers)
async def test_whatever_is_appended_a_stream_has_no_gap_no_duplicate_and_no_falling_epoch(attempts: Any) -> None:
    journal = LocalJournal()
    taken: list[bytes] = []
    epoch, ended = -1, False
    for first, count, at_epoch, luck in attempts:
        reply = await journal.append(append(first, count, epoch=at_epoch, end=luck == 0))
        bodies = journal.bodies("run_1")
        assert bodies[: len(taken)] == taken, "what was written stays as it was"
        assert bodies == [str(n).encode() for n in range(len(bodies))], "no gap, no duplicate"
        if reply.verdict != "ok":
            assert bodies == taken
        else:
            assert at_epoch >= epoch and reply.next_seq == len(bodies)
            epoch = at_epoch
        assert not (ended and bodies != taken), "nothing after the end"
        ended = ended or any(e.type == ENDED for e in journal.streams.get("run_1", []))
        taken = bodies


@settings(deadline=None)
@given(data=st.data(), total=st.integers(1, 15))
async def test_retries_after_lost_answers_write_every_entry_once(data: st.DataObject, total: int) -> None:
    journal, sent = LocalJournal(), 0
    while sent < total:
        count = data.draw(st.integers(1, total - sent))
        for _ in range(data.draw(st.integers(1, 3))):
            assert (await journal.append(append(sent, count))).verdict == "ok"
        sent += count
    assert journal.bodies("run_1") == [str(n).encode() for n in range(total)]


async def test_streams_do_not_touch_each_other() -> None:
    journal = LocalJournal()
    await journal.append(append(0, 2, epoch=9))
    assert (await journal.append(append(0, 1, epoch=1, stream="run_2"))).verdict == "ok"
    assert len(journal.bodies("run_1")) == 2 and journal.bodies("run_3") == []


# The chain.

LINK: dict[str, Any] = {
    "key": b"k" * 32,
    "previous": GENESIS,
    "number": 1,
    "stream": "run_1",
    "seq": 0,
    "epoch": 1,
    "body": b"{}",
}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("key", b"j" * 32),
        ("previous", b"\x01" + GENESIS[1:]),
        ("number", 2),
        ("stream", "run_2"),
        ("seq", 1),
        ("epoch", 2),
        ("body", b"{} "),
    ],
)
def test_a_link_changes_when_anything_it_stands_for_does(field: str, value: Any) -> None:
    assert link(**LINK) == link(**LINK) != link(**(LINK | {field: value}))
    assert len(link(**LINK)) == 32


def test_every_field_of_a_link_is_changed_above() -> None:
    assert set(link.__annotations__) - {"return"} == set(LINK)


def chain(bodies: list[bytes]) -> list[bytes]:
    """Return the links of a tenant's entries."""
    links, previous = [], GENESIS
    for number, body in enumerate(bodies):
        previous = link(LINK["key"], previous, number, "run_1", number, 1, body)
        links.append(previous)
    return links


@given(bodies=st.lists(st.binary(max_size=5), min_size=2, max_size=8, unique=True), data=st.data())
def test_altering_removing_or_swapping_an_entry_breaks_every_link_after_it(
    bodies: list[bytes], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(bodies) - 2))
    good = chain(bodies)
    altered = [*bodies[:at], bodies[at] + b"!", *bodies[at + 1 :]]
    removed = [*bodies[:at], *bodies[at + 1 :]]
    swapped = [*bodies[:at], bodies[at + 1], bodies[at], *bodies[at + 2 :]]
    for other in (altered, removed, swapped):
        bad = chain(other)
        assert bad[:at] == good[:at]
        assert not set(bad[at:]) & set(good)
