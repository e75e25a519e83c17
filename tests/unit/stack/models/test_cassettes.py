"""Cassettes: each recorded answer is played back to its prompt, and to no other."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import msgspec
import pytest

from airside.actors.models.prices import endpoints_of
from airside.stack.canonical import digest
from airside.stack.contracts.models import Prompt, RequestedCall, Turn
from airside.stack.errors import InvalidConfig
from airside.stack.models.cassettes import CassetteModel, read_cassette, recorded
from airside.stack.models.endpoints import ModelEndpoint, TokenPrice
from airside.stack.models.events import ModelAnswered, ModelAsked, ModelEvent, ModelFailed
from airside.stack.models.provider import ProviderFailure
from airside.stack.models.rate_limits import RateLimits
from airside.stack.values import FREE

PROMPT = Prompt(instructions="be brief", turns=(Turn(role="user", text="hello"),), tools=(), max_tokens=100)


def asked(attempt: int, prompt: Prompt = PROMPT) -> ModelAsked:
    """Return the record of an attempt."""
    sha256 = digest(msgspec.msgpack.encode(prompt))
    return ModelAsked(
        at_us=0, step=1, epoch=1, nth=0, attempt=attempt, model="m", prompt_sha256=sha256, reserved=FREE, prices="own"
    )


EVENTS: list[ModelEvent] = [
    asked(1),
    ModelFailed(at_us=1, step=1, attempt=1, error="busy", spent=FREE, took_ms=1),
    asked(2),
    ModelAnswered(
        at_us=2,
        step=1,
        attempt=2,
        model="m-1",
        finish="tool_call",
        text="",
        calls=(RequestedCall(tool="pay", arguments='{"a": 1, "a": 2}', call_id="x"),),
        input_tokens=3,
        output_tokens=4,
        spent=FREE,
        took_ms=1,
    ),
]


def model(path: Path) -> CassetteModel:
    limits = RateLimits(requests=None, tokens=None, concurrency=1, now_s=time.monotonic, sleep=asyncio.sleep)
    return CassetteModel(path, TokenPrice(input=0, output=0), limits)


async def test_what_was_answered_is_played_back_to_its_prompt(tmp_path: Path) -> None:
    path = tmp_path / "cassette.jsonl"
    lines = list(recorded({"model/run:1": EVENTS}))
    path.write_text("\n".join(lines), "utf-8")
    assert len(lines) == 1
    answer = await model(path).ask(PROMPT, 100, 1)
    assert answer.calls[0].arguments == '{"a": 1, "a": 2}' and answer.model == "m-1"
    assert (answer.input_tokens, answer.output_tokens) == (3, 4)


async def test_another_prompt_gets_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "cassette.jsonl"
    path.write_text("\n".join(recorded({"model/run:1": EVENTS})), "utf-8")
    with pytest.raises(ProviderFailure, match="record it again") as failed:
        await model(path).ask(msgspec.structs.replace(PROMPT, instructions="be long"), 100, 1)
    assert failed.value.is_sure and not failed.value.again


@pytest.mark.parametrize("text", ["{}", "not JSON", '{"prompt_sha256": 1}'])
def test_what_is_no_cassette_names_its_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cassette.jsonl"
    path.write_text(f"\n{text}\n", "utf-8")
    with pytest.raises(InvalidConfig, match=r"cassette.jsonl:2"):
        read_cassette(path)


def test_a_cassette_that_is_not_there_is_said_when_the_app_is_checked(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="No such file"):
        endpoints_of({"house": ModelEndpoint(model="m", cassette=tmp_path / "none.jsonl")}, [])
