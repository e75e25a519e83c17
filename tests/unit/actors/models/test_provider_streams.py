"""Answers as streams, by both protocols, against a server that speaks them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from airside.actors.models.keys import KeyRedaction
from airside.actors.models.providers import ProviderModel
from airside.stack.contracts.models import OfferedTool, Prompt, Turn
from airside.stack.models.endpoints import ModelEndpoint, Provider, TokenPrice
from airside.stack.models.provider import ProviderFailure
from airside.stack.models.rate_limits import RateLimits
from benchmarks.model_servers import ModelServer, Saying, call, in_order, serving

KEY = "sk-secret-of-ours"
TOOL = OfferedTool(name="refund", description="", parameters=b'{"type":"object","properties":{}}')
PROMPT = Prompt(instructions="be brief", turns=(Turn(role="user", text="pay"),), tools=(TOOL,), max_tokens=50)

both = pytest.mark.parametrize("provider", ["openai", "anthropic"])


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with serving(in_order(Saying(text="hello"))) as found:
        yield found


def model_of(server: ModelServer, provider: Provider) -> ProviderModel:
    """Return the server as a model."""
    url = f"{server.url}/v1" if provider == "openai" else server.url
    price = TokenPrice(input=1.0, output=10.0)
    endpoint = ModelEndpoint(model="m-1", provider=provider, base_url=url, api_key_env="KEY", price=price)
    limits = RateLimits(requests=None, tokens=None, concurrency=8, now_s=time.monotonic, sleep=asyncio.sleep)
    return ProviderModel(endpoint, limits, KEY)


@both
async def test_text_is_told_as_it_comes_and_the_answer_has_it_all(server: ModelServer, provider: Provider) -> None:
    """With its usage, and its calls."""
    server.say = in_order(Saying(text="it is on its way", calls=call("refund", {"a": 1}).calls))
    told: list[str] = []
    answer = await model_of(server, provider).ask(PROMPT, 50, 10, told.append)
    assert "".join(told) == answer.text == "it is on its way" and len(told) > 2
    assert (answer.input_tokens, answer.output_tokens) == (100, 20)
    assert [asked.tool for asked in answer.calls] == ["refund"] and answer.finish == "tool_call"


@both
async def test_nobody_who_listens_is_no_stream(server: ModelServer, provider: Provider) -> None:
    """The request is the same as ever."""
    server.bodies.clear()
    server.say = in_order(Saying(text="hello"))
    await model_of(server, provider).ask(PROMPT, 50, 10)
    assert not server.bodies[0].get("stream")


@both
@pytest.mark.parametrize("ends_early", [False, True])
async def test_a_stream_that_breaks_is_no_answer_and_may_have_been_paid(
    server: ModelServer, provider: Provider, ends_early: bool
) -> None:
    """Also one that ends as if all were well, without having said that the answer is over."""
    server.say = in_order(Saying(text="it is on its way", cut_after=2, ends_early=ends_early))
    told: list[str] = []
    with pytest.raises(ProviderFailure) as cut:
        await model_of(server, provider).ask(PROMPT, 50, 10, told.append)
    assert not cut.value.is_sure and "".join(told).startswith("it is")


@both
async def test_a_stream_that_was_refused_costs_nothing(server: ModelServer, provider: Provider) -> None:
    """Nothing of an answer has come."""
    server.say = in_order(Saying(status=429, retry_after="7"))
    with pytest.raises(ProviderFailure) as refused:
        await model_of(server, provider).ask(PROMPT, 50, 10, lambda _: None)
    assert refused.value.is_sure and refused.value.again and refused.value.after_s == 7


@both
async def test_a_stream_that_takes_too_long_is_given_up(server: ModelServer, provider: Provider) -> None:
    """It may have been paid."""
    server.say = in_order(Saying(text="it is on its way", word_s=0.5))
    with pytest.raises(ProviderFailure) as late:
        await model_of(server, provider).ask(PROMPT, 50, 0.6, lambda _: None)
    assert not late.value.is_sure


@both
async def test_a_key_that_a_model_says_is_not_shown_though_it_comes_in_pieces(
    server: ModelServer, provider: Provider
) -> None:
    """Nor is it in the answer."""
    server.say = in_order(Saying(text=f"take {KEY} and go"))
    told: list[str] = []
    answer = await model_of(server, provider).ask(PROMPT, 50, 10, told.append)
    assert "".join(told) == answer.text == "take [key] and go"


@pytest.mark.parametrize(
    "text", [f"a {KEY} b", f"{KEY}{KEY}", f"sk-sk-{KEY}", f"{KEY[:-1]}x", KEY[:5], "", f"x{KEY[:3]}"]
)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_wherever_a_text_is_cut_the_key_is_not_in_it(text: str, size: int) -> None:
    """What is said in pieces is what is said at once; nothing but a key's beginning is held back."""
    told: list[str] = []
    redaction = KeyRedaction(KEY)
    pieces = redaction.in_pieces(told.append)
    for at in range(0, len(text), size):
        pieces(text[at : at + size])
        assert len(redaction.hidden(text[: at + size])) - len("".join(told)) < len(KEY)
    pieces.end()
    assert "".join(told) == redaction.hidden(text) and KEY not in "".join(told)
