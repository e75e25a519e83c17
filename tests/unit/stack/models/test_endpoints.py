"""`ModelEndpoint`: what is none is said when it is made."""

from __future__ import annotations

from typing import Any

import pytest

from airside.stack.errors import InvalidConfig
from airside.stack.models.endpoints import ModelEndpoint, endpoint_of


@pytest.mark.parametrize(
    "wrong",
    [
        {"provider": "acme"},
        {"model": ""},
        {"model": "a b"},
        {"base_url": "ftp://x"},
        {"base_url": ""},
        {"price": 3},
        {"requests_per_minute": 0},
        {"tokens_per_minute": 1.5},
        {"concurrency": None},
        {"concurrency": True},
    ],
)
def test_a_wrong_endpoint_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig, match="ModelEndpoint"):
        ModelEndpoint(**({"model": "m-1"} | wrong))


@pytest.mark.parametrize(
    ("name", "provider", "key"),
    [
        ("openai:gpt-5", "openai", "OPENAI_API_KEY"),
        ("anthropic:claude-sonnet-4", "anthropic", "ANTHROPIC_API_KEY"),
        ("google:gemini-2", "google", "GOOGLE_API_KEY"),
        ("google-gla:gemini-2", "google", "GOOGLE_API_KEY"),
    ],
)
def test_a_name_with_its_provider_is_an_endpoint(name: str, provider: str, key: str) -> None:
    endpoint = endpoint_of(name)
    assert (endpoint.provider, endpoint.model, endpoint.key_env) == (provider, name.partition(":")[2], key)


@pytest.mark.parametrize("name", ["gpt-5", "acme:gpt-5", "openai:", ":x"])
def test_a_name_of_none_says_what_to_give(name: str) -> None:
    with pytest.raises(InvalidConfig):
        endpoint_of(name)


def test_no_key_is_sent_to_a_place_of_ones_own_unless_it_is_named() -> None:
    assert ModelEndpoint(model="m", base_url="http://127.0.0.1:8000/v1").key_env == ""
    assert ModelEndpoint(model="m", base_url="http://127.0.0.1:8000/v1", api_key_env="HOUSE").key_env == "HOUSE"


def test_endpoints_with_one_key_and_place_share_their_limits() -> None:
    one, other = ModelEndpoint(model="a"), ModelEndpoint(model="b")
    elsewhere = ModelEndpoint(model="a", base_url="http://127.0.0.1:8000/v1")
    assert one.account == other.account != elsewhere.account
