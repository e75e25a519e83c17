"""Providers' models against a server that speaks their protocols: one request an attempt, and what failures mean."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator

import pytest

from airside.actors.models.conversation import wire_names
from airside.actors.models.prices import prices_of, rates_of
from airside.actors.models.providers import ProviderModel
from airside.stack.contracts.models import OfferedTool, Prompt, RequestedCall, Turn
from airside.stack.errors import InvalidConfig
from airside.stack.models.endpoints import ModelEndpoint, Provider, TokenPrice
from airside.stack.models.provider import ProviderFailure
from airside.stack.models.rate_limits import RateLimits
from benchmarks.model_servers import ModelServer, Saying, call, in_order, serving

PROMPT = Prompt(
    instructions="be brief",
    turns=(
        Turn(role="user", text="pay"),
        Turn(role="assistant", calls=(RequestedCall(tool="pay", arguments='{"cents": 1}', call_id="call_1"),)),
        Turn(role="tool", text='{"ok": true}', tool="pay", call_id="call_1"),
    ),
    tools=(OfferedTool(name="pay", description="Pay.", parameters=b'{"type":"object","properties":{}}'),),
    max_tokens=50,
)


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with serving(in_order(Saying(text="hello"))) as found:
        yield found


def model_at(server: ModelServer, provider: Provider) -> ProviderModel:
    """Return a model of a server, of no price to speak of."""
    url = f"{server.url}/v1" if provider == "openai" else server.url
    endpoint = ModelEndpoint(
        model="m-1", provider=provider, base_url=url, api_key_env="", price=TokenPrice(input=1, output=2)
    )
    limits = RateLimits(requests=None, tokens=None, concurrency=8, now_s=time.monotonic, sleep=asyncio.sleep)
    return ProviderModel(endpoint, limits)


both = pytest.mark.parametrize("provider", ["openai", "anthropic"])


@both
async def test_an_answer_is_read_with_what_it_used(server: ModelServer, provider: Provider) -> None:
    server.say = in_order(Saying(text="hello", used=(12, 3)))
    answer = await model_at(server, provider).ask(PROMPT, 50, 10)
    assert (answer.text, answer.calls, answer.finish) == ("hello", (), "stop")
    assert (answer.input_tokens, answer.output_tokens) == (12, 3)


@both
async def test_calls_are_read_as_the_model_wrote_them(server: ModelServer, provider: Provider) -> None:
    made = (("pay", '{"cents":2}', "same"), ("../../etc", "{}", "same"))
    server.say = in_order(Saying(calls=made))
    answer = await model_at(server, provider).ask(PROMPT, 50, 10)
    assert [(each.tool, json.loads(each.arguments)) for each in answer.calls] == [
        (tool, json.loads(written)) for tool, written, _ in made
    ]
    assert answer.finish == "tool_call"


async def test_a_key_that_is_there_twice_is_passed_on(server: ModelServer) -> None:
    server.say = in_order(call("pay", '{"cents": 1, "cents": 2}'))
    assert (await model_at(server, "openai").ask(PROMPT, 50, 10)).calls[0].arguments == '{"cents": 1, "cents": 2}'


@both
async def test_what_was_not_measured_is_not_taken_for_nothing(server: ModelServer, provider: Provider) -> None:
    server.say = in_order(Saying(text="hello", used=None))
    answer = await model_at(server, provider).ask(PROMPT, 50, 10)
    assert answer.input_tokens is None and answer.output_tokens is None


@both
async def test_an_answer_that_was_cut_off_says_so(server: ModelServer, provider: Provider) -> None:
    server.say = in_order(Saying(text="hel", finish="length"))
    assert (await model_at(server, provider).ask(PROMPT, 50, 10)).finish == "length"


@both
@pytest.mark.parametrize(
    ("saying", "is_sure", "again"),
    [
        (Saying(status=429, retry_after="7"), True, True),
        (Saying(status=503), True, True),
        (Saying(status=529), True, True),
        (Saying(status=500), True, True),
        (Saying(status=502), False, True),
        (Saying(status=504), False, True),
        (Saying(status=400), True, False),
        (Saying(status=401), True, False),
        (Saying(status=404), True, False),
        (Saying(cut=True), False, True),
        (Saying(garbage=True), False, False),
    ],
)
async def test_a_failure_is_one_request_and_says_whether_it_is_paid_for(
    server: ModelServer, provider: Provider, saying: Saying, is_sure: bool, again: bool
) -> None:
    server.say = in_order(saying)
    before = len(server.bodies)
    with pytest.raises(ProviderFailure) as failed:
        await model_at(server, provider).ask(PROMPT, 50, 10)
    assert (failed.value.is_sure, failed.value.again) == (is_sure, again)
    assert failed.value.after_s == (7.0 if saying.retry_after else None)
    assert len(server.bodies) == before + 1


@both
async def test_what_is_too_late_may_be_paid_for(server: ModelServer, provider: Provider) -> None:
    server.say = in_order(Saying(text="late", after_s=30))
    before = len(server.bodies)
    with pytest.raises(ProviderFailure) as failed:
        await model_at(server, provider).ask(PROMPT, 50, 0.3)
    assert not failed.value.is_sure and len(server.bodies) == before + 1


@both
async def test_what_never_left_is_not_paid_for(provider: Provider) -> None:
    nowhere = ModelServer(in_order(Saying()), port=9)
    with pytest.raises(ProviderFailure) as failed:
        await model_at(nowhere, provider).ask(PROMPT, 50, 10)
    assert failed.value.is_sure and failed.value.again


KEY = "sk-SECRET-1234567890"


@both
@pytest.mark.parametrize(
    "saying",
    [Saying(status=401, text=f"Bearer {KEY} is no key"), Saying(text=f"my key is {KEY}"), call(KEY, {"a": KEY}, KEY)],
)
async def test_a_key_that_is_echoed_is_told_to_nobody(server: ModelServer, provider: Provider, saying: Saying) -> None:
    server.say = in_order(saying)
    endpoint = model_at(server, provider)._endpoint
    limits = RateLimits(requests=None, tokens=None, concurrency=8, now_s=time.monotonic, sleep=asyncio.sleep)
    try:
        told = repr(await ProviderModel(endpoint, limits, f"{KEY}\n").ask(PROMPT, 50, 10))
    except ProviderFailure as failure:
        told = f"{failure} {failure.message}"
    assert "[key]" in told and KEY not in told


@both
async def test_names_that_no_provider_takes_come_back_as_the_tools_names(
    server: ModelServer, provider: Provider
) -> None:
    tools = tuple(
        OfferedTool(name=name, description="", parameters=b'{"type":"object","properties":{}}')
        for name in ("shop.pay", "shop_pay", "x" * 100)
    )
    turns = (
        Turn(role="user", text="go"),
        Turn(role="assistant", calls=(RequestedCall(tool="find order!/x", arguments="{}", call_id="call_1"),)),
        Turn(role="tool", text="no", tool="find order!/x", call_id="call_1"),
    )
    prompt = Prompt(instructions="", turns=turns, tools=tools, max_tokens=50)
    names = wire_names(prompt)
    assert len(set(names.values())) == 4 and all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in names.values())
    server.say = in_order(Saying(calls=tuple((names[tool.name], "{}", f"call_{i}") for i, tool in enumerate(tools))))
    answer = await model_at(server, provider).ask(prompt, 50, 10)
    assert [each.tool for each in answer.calls] == [tool.name for tool in tools]


async def test_without_its_key_a_providers_own_service_is_not_asked() -> None:
    limits = RateLimits(requests=None, tokens=None, concurrency=8, now_s=time.monotonic, sleep=asyncio.sleep)
    model = ProviderModel(ModelEndpoint(model="gpt-4o", price=TokenPrice(input=1, output=1)), limits)
    with pytest.raises(ProviderFailure, match="OPENAI_API_KEY") as failed:
        await model.ask(PROMPT, 50, 10)
    assert failed.value.is_sure


def test_a_price_is_from_the_list_or_the_apps_own() -> None:
    listed = ModelEndpoint(model="gpt-4o")
    assert rates_of(listed).microusd(1_000_000, 0) > 0 and prices_of(listed).startswith("genai-prices ")
    own = ModelEndpoint(model="gpt-4o", price=TokenPrice(input=1, output=1))
    assert rates_of(own).microusd(1_000_000, 0) == 1_000_000 and prices_of(own) == "own"


@pytest.mark.parametrize(
    "endpoint", [ModelEndpoint(model="nobody-knows-it"), ModelEndpoint(model="gpt-4o", base_url="http://127.0.0.1/v1")]
)
def test_a_model_whose_price_nobody_knows_is_refused(endpoint: ModelEndpoint) -> None:
    with pytest.raises(InvalidConfig, match="TokenPrice"):
        rates_of(endpoint)
