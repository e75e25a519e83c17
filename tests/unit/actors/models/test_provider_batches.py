"""Batches as OpenAI takes them, against a server that speaks its protocol."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from airside.actors.models.providers import ProviderModel
from airside.stack.contracts.models import OfferedTool, Prompt, Turn
from airside.stack.models.endpoints import ModelEndpoint, TokenPrice
from airside.stack.models.provider import BatchedQuestion, BatchPort, ProviderFailure
from airside.stack.models.rate_limits import RateLimits
from benchmarks.model_servers import ModelServer, Saying, call, in_order, serving

KEY = "sk-secret-of-ours"
TOOL = OfferedTool(name="shop.refund", description="", parameters=b'{"type":"object","properties":{}}')
PROMPT = Prompt(instructions="be brief", turns=(Turn(role="user", text="pay"),), tools=(TOOL,), max_tokens=50)
QUESTIONS = {"q-1": BatchedQuestion(PROMPT, 40), "q-2": BatchedQuestion(PROMPT, 40)}


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with serving(in_order(Saying(text="hello"))) as found:
        yield found


@pytest.fixture
def batches(server: ModelServer) -> BatchPort:
    server.say = in_order(Saying(text=f"hello {KEY}"))
    server.batches.batches.clear()
    server.batches.is_held = False
    endpoint = ModelEndpoint(
        model="m-1",
        base_url=f"{server.url}/v1",
        api_key_env="KEY",
        price=TokenPrice(input=1.0, output=10.0),
        batch_share=0.5,
    )
    limits = RateLimits(requests=None, tokens=None, concurrency=8, now_s=time.monotonic, sleep=asyncio.sleep)
    found = ProviderModel(endpoint, limits, KEY).batches
    assert found is not None
    return found


def only(server: ModelServer) -> dict[str, Any]:
    (batch,) = server.batches.batches.values()
    return batch


async def test_a_batch_is_created_under_its_label_and_its_answers_are_read(
    server: ModelServer, batches: BatchPort
) -> None:
    """While it is at work there are none; the key is not in them, though the model says it."""
    server.batches.is_held = True
    handle = await batches.create("label-1", QUESTIONS)
    assert KEY not in handle and only(server)["metadata"] == {"airside_batch": "label-1"}
    assert await batches.results(handle) is None
    server.batches.is_held = False
    results = await batches.results(handle)
    assert results is not None and set(results) == {"q-1", "q-2"}
    answer = batches.read(results["q-1"], PROMPT)
    assert (answer.text, answer.input_tokens, answer.output_tokens) == ("hello [key]", 100, 20)
    assert batches.rates.microusd(100, 20) == 150


async def test_a_call_has_our_tools_name(server: ModelServer, batches: BatchPort) -> None:
    """A provider takes fewer characters in names than we do."""
    server.say = in_order(call("shop_refund", {"a": 1}))
    results = await batches.results(await batches.create("label-1", QUESTIONS))
    assert results is not None
    (asked,) = batches.read(results["q-1"], PROMPT).calls
    assert asked.tool == "shop.refund" and asked.arguments == '{"a": 1}'


async def test_a_creation_that_was_cut_off_is_found_by_its_label(server: ModelServer, batches: BatchPort) -> None:
    """What was not created certainly is not found."""
    server.batches.drops_creation = True
    with pytest.raises(ProviderFailure) as cut:
        await batches.create("label-1", QUESTIONS)
    assert not cut.value.is_sure
    now_us = int(time.time() * 1_000_000)
    assert await batches.find("label-2", now_us) is None
    handle = await batches.find("label-1", now_us)
    assert handle is not None and await batches.results(handle) is not None


@pytest.mark.parametrize(("status", "again"), [(400, False), (429, True), (500, True)])
async def test_what_a_model_refused_within_a_batch_costs_nothing(
    server: ModelServer, batches: BatchPort, status: int, again: bool
) -> None:
    """Each member has an end of its own."""
    server.say = in_order(Saying(status=status, text=f"no {KEY}"))
    results = await batches.results(await batches.create("label-1", QUESTIONS))
    assert results is not None
    with pytest.raises(ProviderFailure) as refused:
        batches.read(results["q-1"], PROMPT)
    assert refused.value.is_sure and refused.value.again is again and KEY not in refused.value.message


async def test_a_member_of_a_batch_that_was_cancelled_costs_nothing(server: ModelServer, batches: BatchPort) -> None:
    """It can be asked again."""
    server.batches.is_held = True
    handle = await batches.create("label-1", QUESTIONS)
    await batches.cancel(handle)
    results = await batches.results(handle)
    assert results is not None
    with pytest.raises(ProviderFailure) as ended:
        batches.read(results["q-2"], PROMPT)
    assert ended.value.is_sure and ended.value.again


async def test_a_batch_the_provider_does_not_know_is_no_answer(server: ModelServer, batches: BatchPort) -> None:
    """It is said not to be worth asking again."""
    handle = await batches.create("label-1", QUESTIONS)
    server.batches.batches.clear()
    with pytest.raises(ProviderFailure) as unknown:
        await batches.results(handle)
    assert not unknown.value.again


async def test_a_provider_that_is_away_has_certainly_no_batch_of_ours() -> None:
    """Nothing was uploaded, so nothing is paid."""
    endpoint = ModelEndpoint(
        model="m-1", base_url="http://127.0.0.1:9/v1", price=TokenPrice(input=1, output=1), batch_share=0.5
    )
    limits = RateLimits(requests=None, tokens=None, concurrency=8, now_s=time.monotonic, sleep=asyncio.sleep)
    found = ProviderModel(endpoint, limits).batches
    assert found is not None
    with pytest.raises(ProviderFailure) as away:
        await found.create("label-1", QUESTIONS)
    assert away.value.is_sure and away.value.again


def test_a_server_of_ones_own_takes_batches_only_where_that_is_said() -> None:
    """A provider's own endpoint does, at half its price."""
    own = ModelEndpoint(model="m-1", base_url="http://127.0.0.1:9/v1", price=TokenPrice(input=1, output=1))
    assert own.batches is None and ModelEndpoint(model="gpt-4o").batches == 0.5


@pytest.mark.parametrize("end_of_line", ["\u2028", "\u2029", "\x85"])
async def test_what_a_prompt_says_costs_no_other_question_its_place(
    server: ModelServer, batches: BatchPort, end_of_line: str
) -> None:
    """Each is one line of the file, whatever readers take for the end of one."""
    server.batches.is_held = True
    odd = Prompt(instructions="", turns=(Turn(role="user", text=f"x{end_of_line}y"),), tools=(), max_tokens=50)
    handle = await batches.create("label-1", QUESTIONS | {"q-1": BatchedQuestion(odd, 40)})
    assert len(server.batches.files[only(server)["input_file_id"]].decode().splitlines()) == 2
    await batches.cancel(handle)
    results = await batches.results(handle)
    assert results is not None and {name: each.status for name, each in results.items()} == dict.fromkeys(
        QUESTIONS, "canceled"
    )


async def test_a_line_that_cannot_be_read_costs_its_own_member_alone(server: ModelServer, batches: BatchPort) -> None:
    """Nor does a server's line that is no JSON, or has an end of a line within, cost the others theirs."""
    server.say = in_order(Saying(text="a\u2028b"))
    handle = await batches.create("label-1", QUESTIONS)
    assert await batches.results(handle) is not None
    name = only(server)["output_file_id"]
    said = [json.loads(line) for line in server.batches.files[name].split(b"\n")]
    unescaped = [json.dumps(each, ensure_ascii=False).encode() for each in said]
    server.batches.files[name] = b"\n".join(unescaped)
    results = await batches.results(handle)
    assert results is not None and batches.read(results["q-1"], PROMPT).text == "a\u2028b"
    server.batches.files[name] = b"\n".join([b"{torn", *unescaped[1:]])
    assert set(await batches.results(handle) or ()) == {"q-2"}


async def test_a_member_whose_line_cannot_be_read_is_not_said_to_have_never_run(
    server: ModelServer, batches: BatchPort
) -> None:
    """A batch that expired ran some: what is there of one in the answers may be paid."""
    handle = await batches.create("label-1", QUESTIONS)
    assert await batches.results(handle) is not None
    only(server)["status"] = "expired"
    name = only(server)["output_file_id"]
    server.batches.files[name] = b'{"custom_id": "q-1", "resp'
    results = await batches.results(handle)
    assert results is not None and {name: each.status for name, each in results.items()} == {"q-2": "expired"}
    server.batches.files[name] = b"<html>please wait</html>"
    with pytest.raises(ProviderFailure) as odd:
        await batches.results(handle)
    assert odd.value.again and not odd.value.is_sure


@pytest.mark.parametrize("text", ["<html>please wait</html>", "{}", '{"data":[null]}'])
async def test_a_page_of_somebody_else_says_nothing_of_a_batch(
    server: ModelServer, batches: Any, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """It is asked for again: neither is it lost, nor is there certainly none."""
    handle = await batches.create("label-1", QUESTIONS)
    kind = "text/html" if text.startswith("<") else "application/json"
    client = batches._model.client._client

    async def page(request: httpx.Request, **_: Any) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": kind}, text=text, request=request)

    monkeypatch.setattr(client, "send", page)
    for asking in (batches.results(handle), batches.find("label-1", int(time.time() * 1_000_000))):
        with pytest.raises(ProviderFailure) as odd:
            await asking
        assert odd.value.again and not odd.value.is_sure


@pytest.mark.parametrize("path", ["/files", "/batches"])
async def test_a_page_of_somebody_else_is_no_batch_created(
    server: ModelServer, batches: Any, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Before its questions were uploaded nothing can be paid; after, nobody knows."""
    assert await batches.results(await batches.create("label-0", QUESTIONS)) is not None
    client = batches._model.client._client
    send = client.send

    async def page(request: httpx.Request, **options: Any) -> Any:
        if not request.url.path.endswith(path):
            return await send(request, **options)
        return httpx.Response(200, headers={"content-type": "text/html"}, text="<html>", request=request)

    monkeypatch.setattr(client, "send", page)
    with pytest.raises(ProviderFailure) as odd:
        await batches.create("label-1", QUESTIONS)
    assert odd.value.again and odd.value.is_sure is (path == "/files")


@pytest.mark.parametrize(("said", "wait_s"), [("7", 7.0), ("\u00b2", None), ("nan", None), ("-1", None)])
async def test_a_wait_that_is_no_number_is_none(
    batches: Any, monkeypatch: pytest.MonkeyPatch, said: str, wait_s: float | None
) -> None:
    await batches.create("label-0", QUESTIONS)

    async def busy(request: httpx.Request, **_: Any) -> httpx.Response:
        return httpx.Response(429, headers=[(b"retry-after", said.encode("latin-1"))], json={}, request=request)

    monkeypatch.setattr(batches._model.client._client, "send", busy)
    with pytest.raises(ProviderFailure) as refused:
        await batches.create("label-1", QUESTIONS)
    assert refused.value.after_s == wait_s and refused.value.is_sure and refused.value.again
