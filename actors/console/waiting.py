"""What waits for people, as they weigh it: the call in words, how much can go wrong, for how long there is time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import msgspec
from msgspec import Raw

from airside.actors.client.display.approvals import SHOWN_CONTENTS, STOOD_FOR
from airside.actors.client.display.drawing import brief
from airside.actors.client.results import PendingApproval
from airside.stack.approvals.book import Approval
from airside.stack.values import ValueOrigin

Order = Literal["risk", "age", "expiry"]
ORDERS: tuple[Order, ...] = ("risk", "age", "expiry")

EFFECTS = {
    "read": "it only reads",
    "write": "it changes data, and can be taken back",
    "external": "it leaves the house: what is sent cannot be called back",
    "irreversible": "it cannot be taken back",
}
"""What a tool's effect means to whoever approves of it."""

ORIGINS = {
    "approved": "people have approved of it before",
    "request": "the request says it",
    "person": "a person said it",
    "configuration": "the configuration says it",
    "created": "a call of this run has created it",
    "named": "the request names it by its title",
    "memory": "memory says it",
    "tool": "a tool has returned it",
    "branch": "another agent says it",
    "nowhere": "nothing that the agent has read says it: it was worked out, or made up",
    "repeated": "an earlier call of this run did the same",
}
"""Where a value comes from, in words."""

_DANGERS = {"read": 0, "write": 1, "external": 2, "irreversible": 3}
_IN_WORDS = 6
"""Arguments that the sentence on a call has; all of them stand below it."""


@dataclass(frozen=True)
class Waiting:
    """One call, or question, that waits; or that has waited, and `outcome` says what became of it."""

    call: PendingApproval
    since_us: int
    step: int
    voters: tuple[str, ...]
    outcome: str

    @property
    def id(self) -> str:
        """The approval's id."""
        return self.call.approval_id

    @cached_property
    def marked(self) -> tuple[ValueOrigin, ...]:
        """Values that no principal and no operator stands for."""
        return tuple(each for each in self.call.origins if each.origin not in STOOD_FOR)

    @property
    def danger(self) -> int:
        """How much can go wrong: by the effect first, then by what nobody stands for."""
        effect = _DANGERS.get(self.call.effect, 3)
        return 4 * effect + 2 * bool(self.marked) + bool(self.call.rejected_before)

    @property
    def risk(self) -> Literal["high", "medium", "low"]:
        """How much can go wrong, in a word."""
        if self.call.is_question:
            return "low"
        return "high" if self.danger >= 10 else "medium" if self.danger >= 6 else "low"

    @property
    def action(self) -> str:
        """What is wanted, in two words."""
        return "Answer" if self.call.is_question else f"Call {brief(self.call.tool, 80)}"

    @property
    def details(self) -> str:
        """What follows that, to a sentence."""
        arguments = list(self.call.arguments.items())
        if self.call.is_question:
            return f": {brief(self.call.arguments.get('question', self.call.arguments), 200)}"
        said = [f"{brief(name, 40)} = {_value(value)}" for name, value in arguments[:_IN_WORDS]]
        more = len(arguments) - len(said)
        return (f" with {', '.join(said)}" if said else "") + (f", and {more} more" if more else "")

    @property
    def words(self) -> str:
        """The call as a sentence."""
        return f"{self.action}{self.details}"

    @property
    def has_form(self) -> bool:
        """Whether a question is answered by the fields of a form."""
        return self.call.is_question and isinstance(self.call.arguments.get("fields"), dict)

    @property
    def effect(self) -> str:
        """What the effect means."""
        return EFFECTS.get(self.call.effect, "nobody says what it changes")

    @property
    def unusual(self) -> list[str]:
        """What somebody should look at before they vote, a sentence each."""
        found = [self.call.rejected_before] if self.call.rejected_before else []
        if self.marked:
            names = ", ".join(brief(each.path, 60) for each in self.marked[:8])
            more = f" and {len(self.marked) - 8} more" if len(self.marked) > 8 else ""
            found.append(f"Nobody stands for {names}{more}: see where it comes from.")
        found += [f"{each}" for each in self.call.resources if each.state != "found"][:8]
        return found

    @property
    def contents(self) -> Sequence[tuple[str, str]]:
        """What the call says, by argument."""
        return self.call.contents()[:SHOWN_CONTENTS]

    @property
    def contents_left(self) -> int:
        """How many more arguments there are."""
        return max(0, len(self.call.contents()) - SHOWN_CONTENTS)

    @property
    def choices(self) -> list[str]:
        """What a question may be answered by; nothing if a text is wanted."""
        found = self.call.arguments.get("choices") if self.call.is_question else None
        return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def _value(value: Any) -> str:
    """Return a value in brief, as JSON has it if it is no text."""
    return brief(value if isinstance(value, str) else msgspec.json.encode(value).decode(), 60)


def waiting_of(raw: Raw) -> Waiting:
    """Read an approval as the stack has it."""
    approval = msgspec.json.decode(raw, type=Approval)
    asked = approval.request
    return Waiting(
        call=PendingApproval.of(approval),
        since_us=asked.at_us,
        step=asked.step,
        voters=tuple(f"{vote.by} ({vote.verdict})" for vote in approval.votes),
        outcome=approval.outcome,
    )


def in_order(waiting: Iterable[Waiting], order: Order) -> list[Waiting]:
    """Return what waits, what is most urgent by this order first."""
    match order:
        case "risk":
            return sorted(waiting, key=lambda each: (-each.danger, each.call.expires_us, each.id))
        case "age":
            return sorted(waiting, key=lambda each: (each.since_us, each.id))
        case "expiry":
            return sorted(waiting, key=lambda each: (each.call.expires_us, each.id))
