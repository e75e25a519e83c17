"""An executor whose event loops are all held ends once nothing is under way, or after a while."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from airside.tools.runners.replacement import QUIET_LOOKS, SPENT_S, ReplacementPolicy


def test_it_is_due_once_nothing_is_under_way_at_two_looks() -> None:
    replacing = ReplacementPolicy()
    looks = [(0.0, True), (0.2, False), (0.4, True), (0.6, False), (0.8, False)]
    due = [replacing.is_due(at_s, spent=True, busy=busy) for at_s, busy in looks]
    assert due == [False, False, False, False, True]


def test_it_is_due_after_a_while_though_a_call_goes_on() -> None:
    replacing = ReplacementPolicy()
    assert not replacing.is_due(5.0, spent=True, busy=True)
    assert not replacing.is_due(4.9 + SPENT_S, spent=True, busy=True)
    assert replacing.is_due(5.0 + SPENT_S, spent=True, busy=True)


@given(st.lists(st.tuples(st.floats(0, 5), st.booleans(), st.booleans())))
def test_it_is_due_only_while_loops_are_spent_and_for_one_of_two_reasons(looks: list[tuple[float, bool, bool]]) -> None:
    """A loop that turned again in between begins the time anew."""
    replacing, now_s, since_s, quiet = ReplacementPolicy(), 0.0, 0.0, 0
    for after_s, spent, busy in looks:
        if not spent or replacing.since_s is None:
            since_s, quiet = now_s + after_s, 0
        now_s += after_s
        quiet = quiet + 1 if spent and not busy else 0
        expected = spent and (quiet >= QUIET_LOOKS or now_s - since_s >= SPENT_S)
        assert replacing.is_due(now_s, spent=spent, busy=busy) == expected
