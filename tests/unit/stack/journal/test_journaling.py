"""What the journal promises: fencing, sequence numbers, duplicates, and a chain that anything breaks."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airside.stack.cycle.in_memory import InMemoryJournal
from airside.stack.ids import TenantId
from airside.stack.journal.journaling import ENDED, GENESIS, Append, Entry, Head, Stored, admit, link
from airside.stack.journal.stream import entry_of
from airside.stack.run.events import RunActivated

ACME = TenantId("acme")


def entry(number: int, kind: str = "Planned", writer: str = "") -> Entry:
    """Return an entry that tells its number, and who wrote it."""
    return Entry(type=kind, step=0, at_us=number, cause=-1, body=f"{number}{writer}".encode())


def append(
    first: int, count: int = 1, *, epoch: int = 1, end: bool = False, stream: str = "run_1", writer: str = ""
) -> Append:
    """Return an append of entries `first`, `first + 1`, ..."""
    entries = [entry(first + i, writer=writer) for i in range(count)]
    if end:
        entries.append(entry(first + count, "RunEnded", writer))
    return Append(tenant=ACME, stream=stream, epoch=epoch, first_seq=first, entries=tuple(entries))


def nothing(stream: str, first_seq: int, count: int) -> list[bytes]:
    """Fail: an append at the end of a stream does not read what is stored."""
    raise AssertionError(f"{stream}: {count} bodies from {first_seq} on were asked for")


def holding(total: int) -> Stored:
    """Return a stream of `total` entries, as many of which as there are can be read."""

    def stored(stream: str, first_seq: int, count: int) -> list[bytes]:
        assert stream == "run_1"
        return [entry(number).body for number in range(total)][first_seq : first_seq + count]

    return stored


def test_a_first_append_writes_everything_and_sets_the_epoch() -> None:
    reply, fresh, head = admit(Head(), append(0, 3, epoch=4), nothing)
    assert (reply.verdict, reply.epoch, reply.next_seq, len(fresh)) == ("ok", 4, 3, 3)
    assert head == Head(tenant=ACME, epoch=4, next_seq=3)


@pytest.mark.parametrize(("first", "count"), [(0, 1), (0, 3), (1, 1), (1, 2), (2, 1)])
def test_an_append_of_exactly_what_is_stored_is_ok_and_writes_nothing(first: int, count: int) -> None:
    before = Head(tenant=ACME, epoch=1, next_seq=3)
    reply, fresh, head = admit(before, append(first, count), holding(3))
    assert (reply.verdict, reply.epoch, reply.next_seq, fresh, head) == ("ok", 1, 3, (), before)


@pytest.mark.parametrize(("first", "count"), [(0, 4), (1, 3), (2, 2), (2, 9)])
def test_an_append_that_overlaps_and_adds_more_is_fenced(first: int, count: int) -> None:
    before = Head(tenant=ACME, epoch=1, next_seq=3)
    reply, fresh, head = admit(before, append(first, count), holding(3))
    assert (reply.verdict, reply.epoch, reply.next_seq, fresh, head) == ("fenced", 1, 3, (), before)


@pytest.mark.parametrize(("first", "count"), [(0, 1), (0, 3), (2, 1)])
def test_another_writers_entries_at_a_place_that_is_taken_are_fenced(first: int, count: int) -> None:
    before = Head(tenant=ACME, epoch=1, next_seq=3)
    reply, fresh, head = admit(before, append(first, count, writer="!"), holding(3))
    assert (reply.verdict, fresh, head) == ("fenced", (), before)


def test_one_other_body_among_the_same_ones_is_fenced() -> None:
    mixed = (entry(0), entry(1, writer="!"), entry(2))
    again = Append(tenant=ACME, stream="run_1", epoch=1, first_seq=0, entries=mixed)
    assert admit(Head(tenant=ACME, epoch=1, next_seq=3), again, holding(3))[0].verdict == "fenced"


def test_of_two_who_claim_the_same_epoch_one_is_taken_in() -> None:
    def claim(who: str) -> Append:
        event = RunActivated(at_us=5, epoch=2, claim=who)
        return Append(tenant=ACME, stream="run_1", epoch=2, first_seq=3, entries=(entry_of(event),))

    reply, fresh, head = admit(Head(tenant=ACME, epoch=1, next_seq=3), claim("a"), nothing)
    assert (reply.verdict, len(fresh), head) == ("ok", 1, Head(tenant=ACME, epoch=2, next_seq=4))
    there = [entry.body for entry in fresh]
    assert admit(head, claim("a"), lambda stream, first, count: there)[0].verdict == "ok"
    assert admit(head, claim("b"), lambda stream, first, count: there)[0].verdict == "fenced"


def test_an_append_past_the_end_is_a_gap() -> None:
    before = Head(tenant=ACME, epoch=1, next_seq=3)
    reply, fresh, head = admit(before, append(4), nothing)
    assert (reply.verdict, reply.next_seq, fresh, head) == ("gap", 3, (), before)


def test_an_older_epoch_is_fenced_even_if_it_only_repeats() -> None:
    before = Head(tenant=ACME, epoch=5, next_seq=3)
    for first in (0, 2, 3, 4):
        reply, fresh, head = admit(before, append(first, epoch=4), holding(3))
        assert (reply.verdict, reply.epoch, fresh, head) == ("fenced", 5, (), before)


@pytest.mark.parametrize(("first", "count"), [(0, 9), (2, 9), (0, 3), (2, 1)])
def test_a_newer_epoch_must_begin_where_the_stream_ends(first: int, count: int) -> None:
    before = Head(tenant=ACME, epoch=5, next_seq=3)
    reply, fresh, head = admit(before, append(first, count, epoch=6), holding(3))
    assert (reply.verdict, reply.epoch, fresh, head) == ("fenced", 5, (), before)
    reply, fresh, head = admit(before, append(3, epoch=6), nothing)
    assert (reply.verdict, len(fresh), head.epoch) == ("ok", 1, 6)


def test_nothing_is_taken_in_after_the_end_but_a_repeat_is_still_ok() -> None:
    reply, _, head = admit(Head(), append(0, 2, end=True), nothing)
    assert reply.verdict == "ok" and head.ended and head.next_seq == 3
    assert admit(head, append(3), nothing)[0].verdict == "fenced"
    assert admit(head, append(3, epoch=9), nothing)[0].verdict == "fenced"
    again, fresh, after = admit(head, append(0, 2, end=True), holding(3))
    assert (again.verdict, fresh, after) == ("ok", (), head)


writers = st.lists(
    st.tuples(
        st.integers(0, 12), st.integers(0, 5), st.integers(0, 4), st.integers(0, 9), st.sampled_from(["", "", "", "!"])
    ),
    max_size=30,
)


@settings(deadline=None)
@given(attempts=writers)
async def test_whatever_is_appended_a_stream_has_no_gap_no_duplicate_and_no_falling_epoch(attempts: Any) -> None:
    journal = InMemoryJournal()
    taken: list[bytes] = []
    epoch, ended = -1, False
    for first, count, at_epoch, luck, writer in attempts:
        given_append = append(first, count, epoch=at_epoch, end=luck == 0, writer=writer)
        reply = await journal.append(given_append)
        bodies = journal.bodies_of("run_1")
        assert bodies[: len(taken)] == taken, "what was written stays as it was"
        numbers = [int(body.rstrip(b"!")) for body in bodies]
        assert numbers == list(range(len(bodies))), "no gap, no duplicate"
        if reply.verdict != "ok":
            assert bodies == taken
        else:
            assert at_epoch >= epoch and reply.next_seq == len(bodies)
            mine = [entry.body for entry in given_append.entries]
            assert bodies[first : first + len(mine)] == mine, "what is acknowledged is what is stored"
            assert bodies == taken or (first == len(taken) and len(bodies) == first + len(mine)), "all of it or none"
            epoch = at_epoch
        assert not (ended and bodies != taken), "nothing after the end"
        ended = ended or any(e.type in ENDED for e in journal.streams.get("run_1", []))
        taken = bodies


@settings(deadline=None)
@given(data=st.data(), total=st.integers(1, 15))
async def test_retries_after_lost_answers_write_every_entry_once(data: st.DataObject, total: int) -> None:
    journal, sent = InMemoryJournal(), 0
    while sent < total:
        count = data.draw(st.integers(1, total - sent))
        for _ in range(data.draw(st.integers(1, 3))):
            assert (await journal.append(append(sent, count))).verdict == "ok"
        sent += count
    assert journal.bodies_of("run_1") == [str(n).encode() for n in range(total)]


def test_a_stream_is_one_tenants_and_takes_nothing_under_anothers_name() -> None:
    before = Head(tenant=TenantId("globex"), epoch=1, next_seq=3)
    reply, fresh, after = admit(before, append(3, epoch=2), nothing)
    assert (reply.verdict, fresh, after) == ("error", (), before) and "globex" not in reply.detail


def test_an_append_without_entries_does_not_raise_an_epoch_that_nothing_tells_of() -> None:
    before = Head(tenant=ACME, epoch=1, next_seq=3)
    reply, fresh, after = admit(before, append(3, 0, epoch=9), nothing)
    assert (reply.verdict, fresh, after) == ("error", (), before)


async def test_streams_do_not_touch_each_other() -> None:
    journal = InMemoryJournal()
    await journal.append(append(0, 2, epoch=9))
    assert (await journal.append(append(0, 1, epoch=1, stream="run_2"))).verdict == "ok"
    assert len(journal.bodies_of("run_1")) == 2 and journal.bodies_of("run_3") == []


# The chain.

LINK: dict[str, Any] = {
    "key": b"k" * 32,
    "previous": GENESIS,
    "number": 1,
    "stream": "run_1",
    "seq": 0,
    "epoch": 1,
    "entry": Entry(type="RunPlanned", step=1, at_us=5, cause=0, body=b"{}"),
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
        ("entry", Entry(type="RunPlanned", step=1, at_us=5, cause=0, body=b"{} ")),
    ],
)
def test_a_link_changes_when_anything_it_stands_for_does(field: str, value: Any) -> None:
    assert link(**LINK) == link(**LINK) != link(**(LINK | {field: value}))
    assert len(link(**LINK)) == 32


def test_every_field_of_a_link_is_changed_above() -> None:
    assert set(link.__annotations__) - {"return"} == set(LINK)


COLUMNS: dict[str, Any] = {"type": "RunEnded", "step": 2, "at_us": 6, "cause": 1, "body": b"[]"}


@pytest.mark.parametrize("column", COLUMNS)
def test_a_link_changes_when_any_column_of_its_entry_does(column: str) -> None:
    other = msgspec.structs.replace(LINK["entry"], **{column: COLUMNS[column]})
    assert link(**LINK) != link(**(LINK | {"entry": other}))


def test_every_column_of_an_entry_is_changed_above() -> None:
    assert set(Entry.__struct_fields__) == set(COLUMNS)


def test_digits_do_not_move_from_one_column_to_the_next_unseen() -> None:
    columns = ("number", "seq", "epoch", "step", "cause", "at_us")

    def of(values: dict[str, int]) -> bytes:
        made = Entry(type="T", step=values["step"], at_us=values["at_us"], cause=values["cause"], body=b"")
        places = (values["number"], "1", values["seq"], values["epoch"])
        return link(LINK["key"], GENESIS, *places, made)

    links = {of(dict.fromkeys(columns, 1) | {column: 11}) for column in columns}
    assert len(links) == len(columns)


def chain(bodies: list[bytes]) -> list[bytes]:
    """Return the links of a tenant's entries."""
    links, previous = [], GENESIS
    for number, body in enumerate(bodies):
        made = Entry(type="T", step=0, at_us=0, cause=-1, body=body)
        previous = link(LINK["key"], previous, number, "run_1", number, 1, made)
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
