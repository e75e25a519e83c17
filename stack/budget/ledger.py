"""The budget ledger: what may still be used, in several units at once, by an organisation, a tenant, a run.

Accounts form a tree (organisation, tenant, run, branch).  A reservation names one account and amounts; it is taken on
that account and on every one above it, or on none: an amount is never made smaller to fit.  What was reserved is later
settled (it happened, and this is what it used) or released (it certainly did not happen).  A branch of a run has an
account below the run's, and an agent that control was handed to reserves on the run's own, so no child can mint.

Invariants, which `check` verifies:
 1. On every account and for every cap, in the window that is open: reserved + committed <= limit.  The one exception
    is what was used beyond its reservation (an agent that told a lower price): it is counted, noted as overdraft, and
    nothing more is granted until a later window.
 2. Of every account and unit, what is reserved is the sum of the reservations below it.
 3. No amount is below zero.

The ledger is pure: time is an argument.  A clock that goes back opens an earlier window again, with all that was used
in it before.  The windows ahead of it keep their counts until one after it is used, so that a clock that is put forward
and back, however often, gives none of them twice; then they are dropped but for that one, so that a step back costs
an account one window at most.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Literal

from airside.stack.errors import InvalidInput, InvariantBroken
from airside.stack.values import Count, Value

Per = Literal["ever", "minute", "day", "month"]
"""How long a limit counts what is used.  Minutes, days and months are those of the calendar, in UTC."""

Amounts = Mapping[str, int]
"""Unit -> whole number.  Units: `cost_microusd`, `tokens`, `steps` (decisions), `tool_calls`, `tool:NAME` (the calls of
one tool), and `wall_ms` (milliseconds that decisions and calls take, by the clock).
"""

UNIT = r"cost_microusd|tokens|steps|wall_ms|tool_calls|tool:[A-Za-z0-9_.-]{1,128}"
_UNIT = re.compile(UNIT)
_MOST = 2**53
_EVER: tuple[Per, ...] = ("ever",)
_MINUTE_US, _DAY_US = 60_000_000, 86_400_000_000
JITTER_US = 1_000_000
"""A clock that goes back by less has not been set."""


class Cap(Value):
    """One limit of an account."""

    unit: str
    limit: Count
    per: Per = "ever"


class Shortage(Value):
    """Why nothing was reserved: which account has how much left of what, and when there is more (None: never)."""

    account: str
    unit: str
    per: Per
    limit: int
    left: int
    wanted: int
    retry_after_s: float | None = None

    def __str__(self) -> str:
        span = "" if self.per == "ever" else f" a {self.per}"
        return f"{self.account}: {self.wanted} {self.unit} wanted, {max(0, self.left)} of {self.limit}{span} left"


@dataclass(slots=True)
class _Count:
    """What one account has of one unit in one window."""

    reserved: int = 0
    committed: int = 0
    overdraft: int = 0


@dataclass(slots=True, eq=False, repr=False)
class _Account:
    """`spans` says in which windows a unit is counted: those of its caps; None (not known yet): for ever, all units."""

    name: str
    parent: str | None
    caps: tuple[Cap, ...]
    spans: Mapping[str, tuple[Per, ...]] | None
    counts: dict[tuple[str, Per, int], _Count] = field(default_factory=dict)
    path: tuple[_Account, ...] = ()
    back: dict[tuple[str, Per], int] = field(default_factory=dict)

    def rewind(self, now_us: int) -> None:
        """Take in that the clock went back: what is counted in windows ahead of the time may not come to pass."""
        for unit, per, began_us in self.counts:
            present_us = window_of(per, now_us)
            if began_us > present_us:
                self.back[unit, per] = present_us

    def enter_window(self, unit: str, per: Per, now_us: int) -> None:
        """Take in that a window is used; if it is after the one the clock went back to, drop those ahead of it."""
        back_us, began_us = self.back.get((unit, per)), window_of(per, now_us)
        if back_us is not None and began_us > back_us:
            del self.back[unit, per]
            for place in [p for p, count in self.counts.items() if p[:2] == (unit, per) and p[2] > began_us]:
                if not self.counts[place].reserved:
                    del self.counts[place]

    def count(self, unit: str, per: Per, at_us: int) -> _Count:
        """Return a window's count, making it if need be."""
        place = (unit, per, window_of(per, at_us))
        found = self.counts.get(place)
        if found is None:
            _forget_past(self.counts, place)
            found = self.counts[place] = _Count()
        return found


@dataclass(slots=True)
class _Reservation:
    """A reservation, or what is left of it once settled (`open` False): a repeat of it costs nothing.

    One that is not `sure` was read from the journal, which says that it was asked for, not that there was room: an
    intent may be written down after a gate was restarted, by a grant of the gate before.
    """

    account: str
    amounts: dict[str, int]
    at_us: int
    open: bool = True
    sure: bool = True


_UNITS_SEEN: set[object] = set()
_UNITS_KEPT = 10_000


def is_unit(unit: object) -> bool:
    """Whether something can be counted under this name."""
    if not isinstance(unit, str) or _UNIT.fullmatch(unit) is None:
        return False
    if len(_UNITS_SEEN) < _UNITS_KEPT:
        _UNITS_SEEN.add(unit)
    return True


def amounts_of(given: Mapping[str, object]) -> dict[str, int]:
    """Return amounts that are ones; raise `InvalidInput` for an unknown unit or a number that is not a plain count.

    Booleans, floats (NaN among them) and negative numbers are refused: `cost > limit` would let each of them through.
    """
    for unit, amount in given.items():
        if unit not in _UNITS_SEEN and not is_unit(unit):
            raise InvalidInput(f"budget: {unit!r:.60} is not a unit ({UNIT})")
        if type(amount) is not int or not 0 <= amount <= _MOST:
            raise InvalidInput(f"budget: {amount!r:.40} {unit} is not a whole number of at least 0")
    return dict(given)  # type: ignore[arg-type]


def window_of(per: Per, at_us: int) -> int:
    """Return when the window that `at_us` lies in began, UTC microseconds (0 for `ever`)."""
    if per == "ever":
        return 0
    if per == "month":
        first = datetime.fromtimestamp(at_us / 1e6, tz=UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        return int(first.timestamp()) * 1_000_000
    length = _MINUTE_US if per == "minute" else _DAY_US
    return at_us - at_us % length


def _window_end(per: Per, at_us: int) -> int | None:
    if per == "ever":
        return None
    if per == "month":
        return window_of("month", window_of("month", at_us) + 32 * _DAY_US)
    return window_of(per, at_us) + (_MINUTE_US if per == "minute" else _DAY_US)


def _short(account: str, cap: Cap, left: int, wanted: int, now_us: int) -> Shortage:
    end = _window_end(cap.per, now_us)
    after = None if end is None else (end - now_us) / 1e6
    return Shortage(
        account=account, unit=cap.unit, per=cap.per, limit=cap.limit, left=left, wanted=wanted, retry_after_s=after
    )


def _forget_past(counts: dict[tuple[str, Per, int], _Count], new: tuple[str, Per, int]) -> None:
    """Drop the windows before a new one in which nothing is reserved any more: nobody will ask for them.

    The latest is kept, in case the clock goes back.
    """
    past = sorted(p for p in counts if p[:2] == new[:2] and p[2] < new[2])
    for place in past[:-1]:
        if not counts[place].reserved:
            del counts[place]


@lru_cache(maxsize=1024)
def _spans_of(caps: tuple[Cap, ...]) -> Mapping[str, tuple[Per, ...]]:
    """Return in which windows each unit is counted, one mapping for all accounts of the same caps.

    Raise `InvalidInput` for a cap of no unit or amount.
    """
    spans: dict[str, tuple[Per, ...]] = {}
    for cap in caps:
        amounts_of({cap.unit: cap.limit})
        spans[cap.unit] = (*spans.get(cap.unit, ()), cap.per)
    return MappingProxyType(spans)


class Ledger:
    """All budgets of a cell."""

    def __init__(self, now_us: int = 0) -> None:
        self._accounts: dict[str, _Account] = {}
        self._held: dict[str, _Reservation] = {}
        self._by_account: dict[str, set[str]] = {}
        self._below: dict[str, set[str]] = {}
        self._now_us = now_us
        self._went_back = False

    def open(self, name: str, caps: Iterable[Cap] | None = (), *, parent: str | None = None) -> None:
        """Open an account; one that is open keeps what it has.  `caps` None: they follow with a later `open`.

        Raise `InvalidInput` for a parent that is not open, and for an account that is open below another one.
        """
        if parent is not None and parent not in self._accounts:
            raise InvalidInput(f"budget: {name} cannot be opened below {parent}, which is not open")
        known = self._accounts.get(name)
        if known is not None and known.parent != parent:
            raise InvalidInput(f"budget: {name} is open below {known.parent}, not below {parent}")
        if known is not None and (known.spans is not None or caps is None):
            return
        given = tuple(caps or ())
        spans = _spans_of(given)
        account = known or _Account(name, parent, (), None)
        account.caps, account.spans = given, None if caps is None else spans
        if known is not None:  # what was counted in case there is a cap, and has none
            account.counts = {
                place: count for place, count in account.counts.items() if place[1] in spans.get(place[0], ())
            }
        above = self._accounts[parent].path if parent is not None else ()
        # Where there is no cap there is nothing to count.
        account.path = (account, *(each for each in above if each.spans is None or each.spans))
        if known is None and parent is not None:
            self._below.setdefault(parent, set()).add(name)
        self._accounts[name] = account

    def is_open(self, name: str) -> bool:
        """Whether an account is open."""
        return name in self._accounts

    def has_caps(self, name: str) -> bool:
        """Whether an account is open and knows its caps."""
        account = self._accounts.get(name)
        return account is not None and account.spans is not None

    def reserve(
        self, key: str, account: str, amounts: Amounts, *, now_us: int, settled: bool = False
    ) -> Shortage | None:
        """Reserve on the account and on every one above it, or return what there is too little of.

        `settled` = it counts as used at once, for its price is known.  The same key again is the same use: what it has
        already, reserved or settled, is not taken twice, and a larger amount takes the difference.  Raise
        `InvalidInput` for amounts that are none, an account that is not open, and a reservation of an earlier minute
        that is to grow.
        """
        wanted, now = amounts_of(amounts), self._at(now_us)
        held = self._held.get(key)
        if held is not None and held.account != account:
            raise InvalidInput(f"budget: {key} is reserved on {held.account}, not on {account}")
        if held is not None and not held.sure:
            full = self._overfull(held, now)
            if full is not None:
                self.release(key)
                return full
            held.sure = True
        had = held.amounts if held is not None else {}
        more = {unit: amount - had.get(unit, 0) for unit, amount in wanted.items() if amount > had.get(unit, 0)}
        if held is not None and more and held.open and window_of("minute", held.at_us) != window_of("minute", now):
            # It goes into the windows it was made in, and what is left of the present ones says nothing about those.
            raise InvalidInput(f"budget: {key} was reserved in an earlier minute: reserve the rest under another key")
        short = self._shortage(account, more, now)
        if short is not None:
            return short
        if held is not None and more and not held.open:
            held.at_us = now
        if held is None:
            held = self._held[key] = _Reservation(account, {}, now, open=not settled)
            self._by_account.setdefault(account, set()).add(key)
        for unit, amount in more.items():
            held.amounts[unit] = held.amounts.get(unit, 0) + amount
            if self._went_back:
                self._enter_window(account, unit, now)
            for count in self._counts(account, unit, held.at_us):
                if held.open:
                    count.reserved += amount
                else:
                    count.committed += amount
        return None

    def shortage(self, key: str, account: str, amounts: Amounts, *, now_us: int) -> Shortage | None:
        """Return what there is too little of at this moment for `reserve` with the same arguments; reserve nothing."""
        held = self._held.get(key)
        had = held.amounts if held is not None else {}
        more = {unit: amount - had.get(unit, 0) for unit, amount in amounts_of(amounts).items()}
        wanted = {unit: amount for unit, amount in more.items() if amount > 0}
        return self._shortage(account, wanted, self._at(now_us))

    def settle(self, key: str, used: Amounts | None = None) -> dict[str, int]:
        """Commit what a reservation used (all of it if not said), and release the rest; settled twice is once.

        What was used beyond the reservation is counted and returned; it is 0 of everything if prices are true.
        """
        held = self._held.get(key)
        if held is None or not held.open:
            return {}
        final = dict(held.amounts) if used is None else amounts_of(used)
        excess = {u: a - held.amounts.get(u, 0) for u, a in final.items() if a > held.amounts.get(u, 0)}
        for unit in held.amounts.keys() | final.keys():
            reserved, amount = held.amounts.get(unit, 0), final.get(unit, 0)
            for count in self._counts(held.account, unit, held.at_us):
                count.reserved -= reserved
                count.committed += amount
                count.overdraft += max(0, amount - (reserved if held.sure else 0))
        held.amounts, held.open, held.sure = final, False, True
        return excess

    def is_reserved(self, key: str) -> bool:
        """Whether something is reserved under a key and not settled."""
        held = self._held.get(key)
        return held is not None and held.open

    def settled(self, key: str) -> dict[str, int]:
        """Return what was settled under a key, nothing if nothing was."""
        held = self._held.get(key)
        return dict(held.amounts) if held is not None and not held.open else {}

    def reserved(self, key: str, *, now_us: int) -> dict[str, int] | None:
        """Return what a reservation holds, None if there is none, it is settled, or there was no room for it."""
        held = self._held.get(key)
        if held is None or not held.open or self.reserve(key, held.account, {}, now_us=now_us) is not None:
            return None
        return dict(held.amounts)

    def release(self, key: str) -> None:
        """Give a reservation back whose use certainly did not happen; of a settled one nothing comes back."""
        held = self._held.get(key)
        if held is None or not held.open:
            return
        for unit, amount in held.amounts.items():
            for count in self._counts(held.account, unit, held.at_us):
                count.reserved -= amount
        self._drop(key)

    def record(self, account: str, used: Amounts, *, at_us: int, key: str = "", settled: bool = True) -> None:
        """Count what happened in the past, whether or not there was room for it: how a ledger is rebuilt.

        With a `key`, a later reservation under that key is the same use, and granted if all that is held then fits: it
        was asked for, but who granted it may not have known what else was.  What is not `settled` is held until it is.
        """
        amounts = amounts_of(used)
        for unit, amount in amounts.items():
            for count in self._counts(account, unit, at_us):
                if settled:
                    count.committed += amount
                else:
                    count.reserved += amount
        if key:
            self._held[key] = _Reservation(account, amounts, at_us, open=not settled, sure=False)
            self._by_account.setdefault(account, set()).add(key)

    def give_back(self, account: str, amounts: Amounts, *, at_us: int) -> None:
        """Count less as committed on an account and all above it, in the windows of a time that are still counted."""
        for unit, amount in amounts_of(amounts).items():
            for each in self._path(account):
                for (counted, per, began_us), count in each.counts.items():
                    if counted == unit and began_us == window_of(per, at_us):
                        count.committed = max(0, count.committed - amount)

    def close(self, account: str) -> None:
        """Close an account and those below it: what is still reserved on them is settled in full, for nobody can say
        that it was not used.
        """
        for below in self._below.pop(account, ()):
            self.close(below)
        for key in list(self._by_account.get(account, ())):
            self.settle(key)
            self._drop(key)
        closed = self._accounts.pop(account, None)
        if closed is not None and closed.parent is not None:
            self._below.get(closed.parent, set()).discard(account)

    def used(self, account: str, unit: str, per: Per = "ever", *, now_us: int = 0) -> tuple[int, int]:
        """Return what is reserved and what is committed on an account, in the window of `now_us`."""
        window = window_of(per, max(self._now_us, now_us))
        count = self._accounts[account].counts.get((unit, per, window), _Count())
        return count.reserved, count.committed

    def stats(self, names: Iterable[str]) -> dict[str, dict[str, int]]:
        """Return, per open account of these, what is taken of each unit that has a cap, in the present window."""
        return {
            name: {_shown(cap): sum(self.used(name, cap.unit, cap.per, now_us=self._now_us)) for cap in account.caps}
            for name in names
            if (account := self._accounts.get(name)) is not None
        }

    def limits(self, names: Iterable[str]) -> dict[str, dict[str, int]]:
        """Return, per open account of these, the caps of what `stats` says is taken."""
        return {
            name: {_shown(cap): cap.limit for cap in account.caps}
            for name in names
            if (account := self._accounts.get(name)) is not None
        }

    def check(self) -> None:
        """Raise `InvariantBroken` naming the first invariant that does not hold."""
        for name, account in self._accounts.items():
            for cap in account.caps:
                window = window_of(cap.per, self._now_us)
                count = account.counts.get((cap.unit, cap.per, window), _Count())
                unsure = (h for h in self._held.values() if not h.sure and window_of(cap.per, h.at_us) == window)
                asked = sum(h.amounts.get(cap.unit, 0) for h in unsure if account in self._path(h.account))
                if count.reserved + count.committed > cap.limit + count.overdraft + asked:
                    raise InvariantBroken(f"ledger: 1: {name} has more than {cap.limit} {cap.unit} per {cap.per}")
            for (unit, per, _), count in account.counts.items():
                if min(count.reserved, count.committed, count.overdraft) < 0:
                    raise InvariantBroken(f"ledger: 3: {name} has less than 0 {unit}")
                held = (h for h in self._held.values() if h.open and account in self._path(h.account))
                below = sum(h.amounts.get(unit, 0) for h in held)
                if per == "ever" and count.reserved != below:
                    raise InvariantBroken(f"ledger: 2: {name} reserves {count.reserved} {unit}, below it {below}")

    def _at(self, now_us: int) -> int:
        """Take in what time it is; a little back is nothing, for clocks are read by several."""
        if now_us < self._now_us - JITTER_US:
            self._now_us, self._went_back = now_us, True
            for account in self._accounts.values():
                account.rewind(now_us)
        self._now_us = max(self._now_us, now_us)
        return self._now_us

    def _enter_window(self, account: str, unit: str, now_us: int) -> None:
        for each in self._path(account):
            for back in [back for back in each.back if back[0] == unit]:
                each.enter_window(*back, now_us)

    def _path(self, account: str) -> tuple[_Account, ...]:
        """Return the account and those above it; raise `InvalidInput` if it is not open."""
        found = self._accounts.get(account)
        if found is None:
            raise InvalidInput(f"budget: the account {account} is not open")
        return found.path

    def _overfull(self, held: _Reservation, now: int) -> Shortage | None:
        """Return what of a reservation does not fit beside all else that is held."""
        for each in self._path(held.account):
            for cap in each.caps:
                count, wanted = each.count(cap.unit, cap.per, held.at_us), held.amounts.get(cap.unit, 0)
                if wanted and count.reserved + count.committed > cap.limit:
                    left = cap.limit - count.reserved - count.committed + wanted
                    return _short(each.name, cap, left, wanted, now)
        return None

    def _shortage(self, account: str, wanted: Amounts, now: int) -> Shortage | None:
        for each in self._path(account):
            for cap in each.caps:
                amount = wanted.get(cap.unit, 0)
                if amount == 0:
                    continue
                count = each.counts.get((cap.unit, cap.per, window_of(cap.per, now)))
                left = cap.limit - (count.reserved + count.committed if count is not None else 0)
                if amount > left:
                    return _short(each.name, cap, left, amount, now)
        return None

    def _counts(self, account: str, unit: str, at_us: int) -> list[_Count]:
        """Return every count that a use of `unit` at a time goes into, on the account and all above it."""
        return [
            each.count(unit, per, at_us)
            for each in self._path(account)
            for per in (_EVER if each.spans is None else each.spans.get(unit, ()))
        ]

    def _drop(self, key: str) -> None:
        held = self._held.pop(key)
        keys = self._by_account.get(held.account, set())
        keys.discard(key)
        if not keys:
            self._by_account.pop(held.account, None)


def _shown(cap: Cap) -> str:
    return cap.unit if cap.per == "ever" else f"{cap.unit} a {cap.per}"
