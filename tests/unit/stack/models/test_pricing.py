"""What a question can cost at most."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.stack.contracts.models import OfferedTool, Prompt, RequestedCall, Turn
from airside.stack.errors import InvalidConfig
from airside.stack.models.endpoints import TokenPrice
from airside.stack.models.pricing import affordable, cost_of, fits, input_bound
from airside.stack.values import Spend

prompts = st.builds(
    Prompt,
    instructions=st.text(max_size=50),
    turns=st.lists(st.builds(Turn, role=st.just("user"), text=st.text(max_size=50)), max_size=4).map(tuple),
    tools=st.just(()),
    max_tokens=st.integers(1, 5_000),
)
rates = st.builds(TokenPrice, input=st.floats(0, 100), output=st.floats(0, 100))
amounts = st.builds(Spend, tokens=st.integers(0, 20_000), cost_microusd=st.integers(0, 2_000_000))


@given(prompt=prompts, price=rates, left=amounts)
def test_an_answer_is_as_long_as_can_be_paid_for_and_no_longer(prompt: Prompt, price: TokenPrice, left: Spend) -> None:
    found, read = affordable(price, prompt, left), input_bound(prompt)
    if found is None:
        assert not fits(cost_of(price, read, 1), left)
        return
    length, most = found
    assert 1 <= length <= prompt.max_tokens and fits(most, left) and most == cost_of(price, read, length)
    assert length == prompt.max_tokens or not fits(cost_of(price, read, length + 1), left)


def test_the_bound_counts_every_byte_that_is_sent() -> None:
    small = Prompt(instructions="", turns=(), tools=(), max_tokens=1)
    large = Prompt(
        instructions="ä" * 10,
        turns=(
            Turn(role="user", text="ö" * 20),
            Turn(role="assistant", calls=(RequestedCall(tool="pay", arguments="x" * 100, call_id="c"),)),
        ),
        tools=(OfferedTool(name="pay", description="d" * 30, parameters=b"{}"),),
        max_tokens=1,
    )
    assert input_bound(large) - input_bound(small) >= 20 + 40 + 3 + 100 + 1 + 3 + 30 + 2


def test_a_price_is_rounded_up() -> None:
    assert TokenPrice(input=0.1, output=0).microusd(1, 0) == 1
    assert TokenPrice(input=3, output=15).microusd(1_000_000, 1_000_000) == 18_000_000


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf"), True, "1"])
def test_what_is_no_price_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidConfig, match="TokenPrice"):
        TokenPrice(input=wrong, output=1)  # type: ignore[arg-type]
