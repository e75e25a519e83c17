"""What a question to a model can cost at most, and what an answer did cost.

Where no counter of tokens is free, the bytes of what is sent bound its tokens: models that read bytes in pieces never
make more pieces than there are bytes.  What a provider adds of its own (roles, how tools are described) is within
`HIDDEN_TOKENS` and what each turn and tool adds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from airside.stack.contracts.models import Prompt
from airside.stack.values import MOST, Spend

HIDDEN_TOKENS = 1_024
PER_PART = 64
"""Tokens beyond its bytes that a question has at most, and each turn, call and tool of it."""


class Rates(Protocol):
    """The price of one model."""

    def microusd(self, input_tokens: int, output_tokens: int) -> int:
        """Return what so many tokens cost at most, in millionths of a US dollar, rounded up."""


@dataclass(frozen=True, slots=True)
class ReducedRates:
    """The price of a model at a share of its usual one."""

    usual: Rates
    share: float

    def microusd(self, input_tokens: int, output_tokens: int) -> int:
        """Return what so many tokens cost at most, in millionths of a US dollar, rounded up."""
        return math.ceil(round(self.usual.microusd(input_tokens, output_tokens) * self.share, 6))


def input_bound(prompt: Prompt) -> int:
    """Return how many tokens a prompt has at most."""
    parts, size = 1, len(prompt.instructions.encode())
    for turn in prompt.turns:
        parts += 1 + len(turn.calls)
        size += len(turn.text.encode()) + len(turn.tool) + len(turn.call_id)
        size += sum(len(call.arguments.encode()) + len(call.tool.encode()) + len(call.call_id) for call in turn.calls)
    for tool in prompt.tools:
        parts += 1
        size += len(tool.name) + len(tool.description.encode()) + len(tool.parameters)
    return HIDDEN_TOKENS + PER_PART * parts + size


def cost_of(rates: Rates, input_tokens: int, output_tokens: int) -> Spend:
    """Return tokens and their price as what is spent."""
    cost = min(rates.microusd(input_tokens, output_tokens), MOST)
    return Spend(tokens=min(input_tokens + output_tokens, MOST), cost_microusd=cost)


def fits(spend: Spend, left: Spend) -> bool:
    """Whether a price is within what is left."""
    return spend.tokens <= left.tokens and spend.cost_microusd <= left.cost_microusd


def affordable(rates: Rates, prompt: Prompt, left: Spend) -> tuple[int, Spend] | None:
    """Return how long an answer may be with what is left (at most as the prompt says), and what that can cost.

    None where not even one token of an answer can be paid for.
    """
    read = input_bound(prompt)
    low, high = 0, prompt.max_tokens
    while low < high:  # the most that fits: prices may have steps, so it is looked for
        middle = (low + high + 1) // 2
        if fits(cost_of(rates, read, middle), left):
            low = middle
        else:
            high = middle - 1
    return (low, cost_of(rates, read, low)) if low else None
