"""Where nobody can be named, the one that does harm is found by parting, with few processes and nobody else ended."""

from __future__ import annotations

from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from airside.stack.ids import RunId, TenantId
from airside.stack.scheduling.suspects import CLEARED_S, OF_A_TENANT, OF_ALL, Suspects

ACME = TenantId("acme")


def suspects() -> Suspects:
    """Return a book in which nobody is suspected."""
    numbers = count()
    return Suspects(lambda tenant: f"{tenant}~{next(numbers)}")


def runs(number: int, tenant: TenantId = ACME) -> list[RunId]:
    """Return the ids of so many runs."""
    return [RunId(f"run_{tenant}_{i}") for i in range(number)]


@given(st.integers(1, 128), st.data())
def test_the_guilty_one_is_found_in_as_many_steps_as_halving_takes(number: int, data: st.DataObject) -> None:
    here, book = runs(number), suspects()
    guilty = data.draw(st.sampled_from(here))
    found, steps = None, 0
    while found is None:
        group = book.group(guilty)
        together = [run for run in here if book.group(run) == group]
        found, steps = book.part(ACME, together, now_s=steps), steps + 1
        assert book.suspected(steps) <= OF_A_TENANT
    assert found == guilty and steps <= number.bit_length() + 2


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 40), st.floats(0, 20)), max_size=40))
def test_whatever_fails_when_the_suspects_at_once_are_bounded(failures: list[tuple[str, int, float]]) -> None:
    book, now_s = suspects(), 0.0
    for name, number, after_s in failures:
        now_s += after_s
        here = runs(40, TenantId(name))[:number]
        group = book.group(here[0])
        book.part(TenantId(name), [run for run in here if book.group(run) == group], now_s=now_s)
        assert book.suspected(now_s) <= OF_ALL


def test_a_run_that_was_never_alone_is_not_named() -> None:
    book = suspects()
    first, second = runs(2)
    assert book.part(ACME, [first], now_s=0) is None  # where it was, others may have been before it
    assert book.is_alone(first) and book.part(ACME, [first], now_s=0) == first
    a, b, c = runs(3, TenantId("b"))
    assert book.part(TenantId("b"), [a, b, c], now_s=0) is None and not book.is_alone(a)
    book.forget(b)  # it has ended, and may have left something behind in the process that a is in
    assert book.part(TenantId("b"), [a], now_s=0) is None
    assert book.is_alone(a) and book.group(second) == ""


def test_what_is_full_leaves_runs_together_until_there_is_room_and_what_did_no_harm_for_long_makes_room() -> None:
    book = suspects()
    for i in range(OF_ALL // 2):
        book.part(TenantId(f"t{i}"), runs(2, TenantId(f"t{i}")), now_s=0)
    late = runs(2, TenantId("late"))
    assert book.part(TenantId("late"), late, now_s=1) is None and book.group(late[0]) == ""
    book.part(TenantId("late"), late, now_s=CLEARED_S + 1)
    assert book.group(late[0]) and book.group(late[0]) != book.group(late[1])


def test_one_tenants_suspects_leave_room_for_anothers() -> None:
    book = suspects()
    for i in range(OF_ALL):
        book.part(ACME, [RunId(f"run_{i}")], now_s=0)
    assert book.suspected(0) == OF_A_TENANT
    book.part(TenantId("b"), [RunId("run_b")], now_s=0)
    assert book.is_alone(RunId("run_b"))


def test_what_has_ended_is_kept_apart_no_more() -> None:
    book, here = suspects(), runs(8)
    book.part(ACME, here, now_s=0)
    for run in here:
        book.forget(run)
    assert book.suspected(0) == 0 and book.group(here[0]) == ""
