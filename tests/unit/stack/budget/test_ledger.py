"""The budget ledger never gives out more than there is, whatever is reserved, repeated, lost, settled or rebuilt."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from airside.stack.budget.ledger import Cap, Ledger, Shortage, amounts_of, window_of
from airside.stack.errors import InvalidInput, InvariantBroken

UNITS = ("cost_microusd", "tokens", "tool_calls", "tool:send", "steps", "wall_ms")
ORG_CAPS = (Cap(unit="cost_microusd", limit=60), Cap(unit="tool_calls", limit=9, per="day"))
TENANT_CAPS = (
    Cap(unit="cost_microusd", limit=30, per="minute"),
    Cap(unit="tokens", limit=50, per="month"),
    Cap(unit="tool:send", limit=3),
    Cap(unit="wall_ms", limit=40, per="minute"),
    Cap(unit="steps", limit=30, per="day"),
)
RUN_CAPS = (Cap(unit="tool_calls", limit=4), Cap(unit="cost_microusd", limit=20))
PARENT = {"org": None, "tenant/a": "org", "tenant/b": "org"}
CAPS = {"org": ORG_CAPS, "tenant/a": TENANT_CAPS, "tenant/b": TENANT_CAPS}

amounts = st.dictionaries(st.sampled_from(UNITS), st.integers(0, 12), min_size=1)


class Use:
    """One use as the model sees it; one that is not `sure` was asked for, and perhaps never granted."""

    def __init__(self, run: str, taken: dict[str, int], at_us: int) -> None:
        self.run, self.taken, self.at_us, self.state, self.over = run, taken, at_us, "open", dict.fromkeys(UNITS, 0)
        self.sure = True

    def settle(self, final: dict[str, int]) -> None:
        """Take in what it used; of what was perhaps never granted, all may be too much."""
        had = self.taken if self.sure else {}
        self.over = {unit: max(0, final.get(unit, 0) - had.get(unit, 0)) for unit in UNITS}
        self.taken, self.state = dict(final), "settled"


class LedgerMachine(RuleBasedStateMachine):
    """The ledger beside a model that adds everything up from scratch."""

    keys = Bundle("keys")
    runs = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_700_000_000_000_000
        self.uses: dict[str, Use] = {}
        self.past: list[Use] = []
        self.parent: dict[str, Any] = dict(PARENT)
        self.caps: dict[str, Any] = dict(CAPS)
        self.count = 0

    @initialize()
    def begin(self) -> None:
        """Open what always is."""
        self.ledger = Ledger()
        for name, parent in PARENT.items():
            self.ledger.open(name, CAPS[name], parent=parent)

    def path(self, account: str) -> list[str]:
        """Return the account and all above it."""
        found = []
        while account:
            found.append(account)
            account = self.parent[account]
        return found

    def total(
        self, account: str, cap: Cap, states: tuple[str, ...] = ("open", "settled"), at_us: int | None = None
    ) -> int:
        """Return what the model has in the cap's present window, or that of `at_us`."""
        window = window_of(cap.per, self.now if at_us is None else at_us)
        return sum(
            use.taken.get(cap.unit, 0)
            for use in [*self.uses.values(), *self.past]
            if use.state in states and account in self.path(use.run) and window_of(cap.per, use.at_us) == window
        )

    @rule(target=runs, tenant=st.sampled_from(["tenant/a", "tenant/b"]))
    def open_run(self, tenant: str) -> str:
        """A run is admitted."""
        self.count += 1
        name = f"run/{self.count}"
        self.parent[name], self.caps[name] = tenant, RUN_CAPS
        self.ledger.open(name, RUN_CAPS, parent=tenant)
        return name

    @rule(target=runs, run=runs)
    def open_branch(self, run: str) -> str:
        """A run fans out: what a branch uses is its run's use too."""
        if not self.ledger.is_open(run):
            return run
        self.count += 1
        name = f"share/{self.count}"
        self.parent[name], self.caps[name] = run, (Cap(unit="tool_calls", limit=2), Cap(unit="tokens", limit=15))
        self.ledger.open(name, self.caps[name], parent=run)
        return name

    @rule(target=keys, run=runs, wanted=amounts, settled=st.booleans())
    def ask(self, run: str, wanted: dict[str, int], settled: bool) -> str:
        """The journal says that a run asked; nobody knows whether there was room."""
        self.count += 1
        key = f"key-{self.count}"
        if self.ledger.is_open(run):
            self.ledger.record(run, wanted, at_us=self.now, key=key, settled=settled)
            use = self.uses[key] = Use(run, dict(wanted), self.now)
            use.sure = False
            if settled:
                use.settle(use.taken)
        return key

    @rule(target=keys, run=runs, wanted=amounts)
    def reserve(self, run: str, wanted: dict[str, int]) -> str:
        """A call or decision asks for room; it gets all of it or nothing, exactly as the model says."""
        self.count += 1
        key = f"key-{self.count}"
        if not self.ledger.is_open(run):
            with pytest.raises(InvalidInput, match="not open"):
                self.ledger.reserve(key, run, wanted, now_us=self.now)
            return key
        room = all(
            wanted.get(cap.unit, 0) == 0 or self.total(name, cap) + wanted[cap.unit] <= cap.limit
            for name in self.path(run)
            for cap in self.caps[name]
        )
        short = self.ledger.reserve(key, run, wanted, now_us=self.now)
        assert (short is None) == room
        if short is None:
            self.uses[key] = Use(run, dict(wanted), self.now)
        else:
            assert short.wanted == wanted[short.unit] > max(0, short.left)
        return key

    @rule(key=keys)
    def repeat(self, key: str) -> None:
        """The same use again, after a crash or a lost answer, takes nothing more, however full the account is."""
        use = self.uses.get(key)
        if use is None or not self.ledger.is_open(use.run):
            return
        fits = use.sure or all(
            use.taken.get(cap.unit, 0) == 0 or self.total(name, cap, at_us=use.at_us) <= cap.limit
            for name in self.path(use.run)
            for cap in self.caps[name]
        )
        assert (self.ledger.reserve(key, use.run, use.taken, now_us=self.now) is None) == fits
        was_sure, use.sure = use.sure, fits
        if fits and not was_sure and use.state == "settled":
            use.settle(use.taken)
        if not fits and use.state == "open":
            del self.uses[key]

    @rule(key=keys, used=st.none() | amounts)
    def settle(self, key: str, used: dict[str, int] | None) -> None:
        """It happened."""
        use = self.uses.get(key)
        excess = self.ledger.settle(key, used)
        if use is None or use.state != "open":
            assert excess == {}
            return
        final = use.taken if used is None else used
        assert excess == {u: a - use.taken.get(u, 0) for u, a in final.items() if a > use.taken.get(u, 0)}
        use.settle(final)
        use.sure = True

    @rule(key=consumes(keys))
    def release(self, key: str) -> None:
        """It certainly did not happen; a settled one stays counted."""
        self.ledger.release(key)
        use = self.uses.get(key)
        if use is not None and use.state == "open":
            del self.uses[key]

    @rule(run=consumes(runs))
    def close(self, run: str) -> None:
        """The run ends; what is open counts as used."""
        self.ledger.close(run)
        for key in [key for key, use in self.uses.items() if run in self.path(use.run)]:
            use = self.uses.pop(key)
            if use.state == "open":
                use.settle(use.taken)
            use.sure = True
            self.past.append(use)

    @rule(seconds=st.sampled_from([1, 30, 61, 3_600, 86_400, 32 * 86_400]))
    def wait(self, seconds: int) -> None:
        """Time goes on."""
        self.now += seconds * 1_000_000

    @rule(run=runs, seconds=st.integers(1, 10**7))
    def ask_with_a_clock_that_went_back(self, run: str, seconds: int) -> None:
        """An earlier window does not open again."""
        if self.ledger.is_open(run):
            key, wanted = f"back-{self.count}", {"tokens": 51}
            assert self.ledger.reserve(key, run, wanted, now_us=self.now - seconds * 1_000_000) is not None

    @rule()
    def crash(self) -> None:
        """Rebuilt from what is on record, with what was open counted as used, it has not less than before."""
        rebuilt = Ledger()
        for name, parent in self.parent.items():
            if self.ledger.is_open(name):
                rebuilt.open(name, self.caps[name], parent=parent)
        rebuilt.reserve("now", "org", {}, now_us=self.now)
        for use in [*self.uses.values(), *self.past]:
            if use.state == "open":
                use.settle(use.taken)
            use.sure = True
            account = next(name for name in self.path(use.run) if rebuilt.is_open(name))
            rebuilt.record(account, use.taken, at_us=use.at_us)
        self.past += self.uses.values()
        self.uses.clear()
        self.ledger = rebuilt

    @invariant()
    def agrees_with_the_model(self) -> None:
        """Every cap's window holds what the model adds up, and never more than its limit but for told overdrafts."""
        if not hasattr(self, "ledger"):
            return
        if all(not any(use.over.values()) for use in [*self.uses.values(), *self.past]):
            self.ledger.check()
        for name, caps in self.caps.items():
            if not self.ledger.is_open(name):
                continue
            for cap in caps:
                reserved, committed = self.ledger.used(name, cap.unit, cap.per, now_us=self.now)
                assert reserved == self.total(name, cap, ("open",)), (name, cap)
                assert committed == self.total(name, cap, ("settled",)), (name, cap)
                over = sum(use.over[cap.unit] for use in [*self.uses.values(), *self.past])
                asked = sum(use.taken.get(cap.unit, 0) for use in self.uses.values() if not use.sure)
                assert reserved + committed <= cap.limit + over + asked


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


class LedgerMachineAtLength(LedgerMachine):
    """The same, for longer."""


TestLedgerAtLength = pytest.mark.slow(LedgerMachineAtLength.TestCase)
TestLedgerAtLength.settings = settings(max_examples=2000, stateful_step_count=50, deadline=None)


@pytest.mark.parametrize("amount", [-1, True, False, 1.0, float("nan"), float("inf"), "5", None, 2**53 + 1])
def test_what_is_no_count_is_refused_at_the_edge(amount: object) -> None:
    with pytest.raises(InvalidInput, match="whole number"):
        amounts_of({"tokens": amount})


@pytest.mark.parametrize("unit", ["", "dollars", "tool:", "tool:a b", "cost_microusd\n", 7])
def test_an_unknown_unit_is_refused(unit: Any) -> None:
    with pytest.raises(InvalidInput, match="not a unit"):
        amounts_of({unit: 1})


def small(limit: int = 10, **cap: Any) -> Ledger:
    """Return a ledger with one account of one cap."""
    ledger = Ledger()
    ledger.open("org", [Cap(unit="tool_calls", limit=limit, **cap)])
    return ledger


def test_two_hundred_ask_for_one_of_ten_and_ten_get_it() -> None:
    ledger = small()
    given = [ledger.reserve(f"k{i}", "org", {"tool_calls": 1}, now_us=1) for i in range(200)]
    assert given.count(None) == 10 and ledger.used("org", "tool_calls") == (10, 0)


def test_a_shortage_says_where_how_much_and_when() -> None:
    ledger = small(limit=2, per="minute")
    at = 1_700_000_000_000_000
    ledger.reserve("a", "org", {"tool_calls": 2}, now_us=at)
    short = ledger.reserve("b", "org", {"tool_calls": 1}, now_us=at)
    assert isinstance(short, Shortage) and str(short) == "org: 1 tool_calls wanted, 0 of 2 a minute left"
    assert short.retry_after_s == pytest.approx((window_of("minute", at) + 60_000_000 - at) / 1e6)
    assert ledger.reserve("b", "org", {"tool_calls": 1}, now_us=at + int(short.retry_after_s * 1e6)) is None


def test_a_tenants_calls_of_one_tool_are_held_to_a_rate_and_no_others_are() -> None:
    ledger = Ledger()
    ledger.open("tenant/a", [Cap(unit="tool:send", limit=2, per="minute")])
    ledger.open("tenant/b", [Cap(unit="tool:send", limit=2, per="minute")])

    def send(key: str, tenant: str = "tenant/a", tool: str = "tool:send", *, minute: int = 0) -> bool:
        return ledger.reserve(key, tenant, {"tool_calls": 1, tool: 1}, now_us=1 + minute * 60_000_000) is None

    assert [send(key) for key in ("1", "2", "3", "1")] == [True, True, False, True], "sent again it is the same call"
    assert send("4", "tenant/b") and send("5", tool="tool:look")
    assert [send(key, minute=1) for key in ("6", "7", "8")] == [True, True, False]


def test_nothing_is_shrunk_to_fit_and_a_failed_reservation_leaves_no_trace() -> None:
    ledger = small(limit=10)
    ledger.open("run", [Cap(unit="tokens", limit=1)], parent="org")
    assert ledger.reserve("k", "run", {"tool_calls": 1, "tokens": 2}, now_us=1) is not None
    assert ledger.used("org", "tool_calls") == (0, 0) and ledger.used("run", "tokens") == (0, 0)


def test_a_key_belongs_to_one_account() -> None:
    ledger = small()
    ledger.open("run", parent="org")
    ledger.reserve("k", "run", {"tool_calls": 1}, now_us=1)
    with pytest.raises(InvalidInput, match="not on org"):
        ledger.reserve("k", "org", {"tool_calls": 1}, now_us=1)


def test_what_was_used_beyond_its_reservation_is_counted_and_stops_the_rest() -> None:
    ledger = small(limit=10)
    ledger.reserve("k", "org", {"tool_calls": 1}, now_us=1)
    assert ledger.settle("k", {"tool_calls": 12}) == {"tool_calls": 11}
    assert ledger.used("org", "tool_calls") == (0, 12)
    assert ledger.reserve("l", "org", {"tool_calls": 1}, now_us=1) is not None


def test_an_account_needs_an_open_parent() -> None:
    with pytest.raises(InvalidInput, match="cannot be opened below"):
        Ledger().open("run", parent="tenant")


def test_months_begin_on_their_first_day_in_utc() -> None:
    december = 1_703_980_800_000_000  # 2023-12-31T00:00Z
    assert window_of("month", december) == 1_701_388_800_000_000
    assert window_of("month", december + 86_400_000_000) == december + 86_400_000_000


def test_counts_of_past_windows_are_dropped() -> None:
    ledger = small(limit=10, per="minute")
    for minute in range(100):
        ledger.reserve(f"k{minute}", "org", {"tool_calls": 1}, now_us=minute * 60_000_000)
        ledger.settle(f"k{minute}")
    assert len(ledger._accounts["org"].counts) <= 3


def test_nothing_of_a_closed_account_is_kept() -> None:
    ledger = small()
    for run in range(10):
        ledger.open(f"run/{run}", parent="org")
        ledger.open(f"share/{run}", parent=f"run/{run}")
        ledger.close(f"run/{run}")
    assert not any(ledger._below.values()) and list(ledger._accounts) == ["org"]


def test_what_is_added_to_a_settled_use_counts_in_the_window_it_is_added_in() -> None:
    ledger = small(limit=1, per="minute")
    for key in ("k", "l"):
        ledger.reserve(key, "org", {}, now_us=1)
        ledger.settle(key, {})
    assert ledger.reserve("k", "org", {"tool_calls": 1}, now_us=60_000_001, settled=True) is None
    assert ledger.reserve("l", "org", {"tool_calls": 1}, now_us=60_000_001, settled=True) is not None
    assert ledger.used("org", "tool_calls", "minute", now_us=60_000_001) == (0, 1)


def test_an_open_reservation_does_not_grow_in_a_later_window() -> None:
    """It is counted in its own, where the room of the later one says nothing."""
    ledger = small(limit=1, per="minute")
    ledger.reserve("k", "org", {}, now_us=1)
    with pytest.raises(InvalidInput, match="earlier minute"):
        ledger.reserve("k", "org", {"tool_calls": 1}, now_us=60_000_001)
    assert ledger.reserve("k", "org", {}, now_us=60_000_001) is None, "the same again takes nothing more"


def test_a_broken_invariant_is_said() -> None:
    ledger = small()
    ledger.reserve("k", "org", {"tool_calls": 1}, now_us=1)
    ledger._held.clear()
    with pytest.raises(InvariantBroken, match="ledger: 2"):
        ledger.check()


def test_a_call_that_was_journaled_without_room_for_it_is_not_granted_again() -> None:
    """It stays counted: it was meant to be sent, and only its executor knows that it was not."""
    ledger = small(1)
    ledger.record("org", {"tool_calls": 1}, at_us=0, key="sent")
    ledger.record("org", {"tool_calls": 1}, at_us=0, key="stale")
    for key in ("stale", "sent"):
        assert ledger.reserve(key, "org", {"tool_calls": 1}, now_us=1, settled=True) is not None
    assert ledger.used("org", "tool_calls") == (0, 2)
