"""What the journal says was reserved and used: from what a ledger is rebuilt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from airside.stack.budget.ledger import is_unit
from airside.stack.contracts.budget import decision_key, decision_usage, milliseconds, wall_key
from airside.stack.ids import RunId, TenantId
from airside.stack.run import events as ev
from airside.stack.run.intents import Intent, intent_of
from airside.stack.values import FREE, Spend


class RecordedUsage(NamedTuple):
    """One reservation: of an unfinished run each with its `key`, of ended ones summed up.

    `is_open` = what it did use is not on record yet.
    """

    tenant: TenantId
    run_id: RunId
    key: str
    at_us: int
    is_open: bool = False
    tool: str = ""
    calls: int = 0
    steps: int = 0
    tokens: int = 0
    cost_microusd: int = 0
    wall_ms: int = 0

    def used(self) -> dict[str, int]:
        """Return it by unit."""
        used = {"steps": self.steps, "tokens": self.tokens, "cost_microusd": self.cost_microusd}
        used["wall_ms"] = self.wall_ms
        if self.tool:
            used["tool_calls"] = self.calls
            if is_unit(
                own := f"tool:{self.tool}"
            ):  # else no tool's name, and no budget's: a runtime wrote it by itself
                used[own] = self.calls
        return used


def recorded_usage(tenant: TenantId, events: Sequence[ev.Event], *, is_over: bool) -> Iterator[RecordedUsage]:
    """Yield what one run reserved and used, by its events; of one that `is_over` nothing is open.

    A reservation whose decision or call came back used what that says, any other all of it.
    """
    story = _UsageFold(tenant, events[0])
    for event in events:
        story.tell(event)
    for spent in story.found.values():
        yield spent._replace(is_open=spent.is_open and not is_over)


class _UsageFold:
    """The reservations of a run's events so far, and those under way by step."""

    def __init__(self, tenant: TenantId, first: ev.Event) -> None:
        assert isinstance(first, ev.RunSubmitted)
        self._tenant, self._run_id, self._epoch = tenant, first.run_id, 0
        self._deciding: dict[int, str] = {}
        self._calling: dict[int, str] = {}
        self.found: dict[str, RecordedUsage] = {}

    def tell(self, event: ev.Event) -> None:
        """Take the next event in."""
        match event:
            case ev.RunActivated():
                self._epoch = event.epoch
            case ev.SpendAsked():
                self._close(self._deciding, event.step)
                key = self._deciding[event.step] = decision_key(self._run_id, event.step, event.epoch)
                self._decision(key, event.at_us, event.price, event.wall_ms, is_open=True)
            case ev.SpendRefused():
                self.found.pop(self._deciding.pop(event.step, ""), None)
            case ev.StepDecided():
                self._decided(event)
            case ev.DecideFailed():
                self._close(self._deciding, event.step)
            case ev.ActionGated() | ev.EffectIntended():
                self._intended(intent_of(self._run_id, event))
            case ev.ToolExecuted() | ev.ExecutionLost():
                key = self._close(self._calling, event.step)
                if key and isinstance(event, ev.ToolExecuted):
                    self.found[key] = self.found[key]._replace(wall_ms=milliseconds(event.result.duration_us))

    def _decided(self, event: ev.StepDecided) -> None:
        spend, key = event.proposal.spend, self._deciding.pop(event.step, "")
        if key:
            began_us, is_timed = self.found[key].at_us, self.found[key].wall_ms > 0
            self._decision(key, began_us, spend, milliseconds(event.at_us - began_us) if is_timed else 0)
        elif spend != FREE:
            self._decision(decision_key(self._run_id, event.step, self._epoch), event.at_us, spend, 0)

    def _decision(self, key: str, at_us: int, price: Spend | None, wall_ms: int, *, is_open: bool = False) -> None:
        used = decision_usage(price, wall_ms)
        self.found[key] = RecordedUsage(
            self._tenant,
            self._run_id,
            key,
            at_us,
            is_open,
            steps=used["steps"],
            tokens=used["tokens"],
            cost_microusd=used["cost_microusd"],
            wall_ms=used["wall_ms"],
        )

    def _intended(self, event: Intent | None) -> None:
        if event is None:
            return
        call = RecordedUsage(self._tenant, self._run_id, event.key, event.at_us, tool=event.tool, calls=1)
        self.found.setdefault(event.key, call._replace(cost_microusd=event.cost_microusd))
        self._close(self._calling, event.step)
        if event.wall_ms:
            key = self._calling[event.step] = wall_key(self._run_id, event.step, event.attempt)
            self.found[key] = RecordedUsage(self._tenant, self._run_id, key, event.at_us, True, wall_ms=event.wall_ms)

    def _close(self, under_way: dict[int, str], step: int) -> str:
        """Let what is under way in a step stand as it is; return its key, "" if nothing is."""
        key = under_way.pop(step, "")
        if key:
            self.found[key] = self.found[key]._replace(is_open=False)
        return key
