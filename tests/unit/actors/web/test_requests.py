"""What is read of a request before anything is done about it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airside.actors.web.requests import LOOPBACK, bearer_of, in_time, is_named, network_of
from airside.stack.errors import AuthRefused


def scope_of(*authorizations: str) -> dict[str, Any]:
    """Return a request with these headers."""
    return {"type": "http", "headers": [(b"authorization", each.encode()) for each in authorizations]}


@pytest.mark.parametrize(
    "given", [(), ("good",), ("Basic good",), ("Bearer",), ("Bearer  ",), ("Bearer a", "Bearer b")]
)
def test_a_credential_is_said_once_as_a_bearers(given: tuple[str, ...]) -> None:
    with pytest.raises(AuthRefused) as refused:
        bearer_of(scope_of(*given))
    assert refused.value.reason == "auth_malformed"
    assert bearer_of(scope_of("bEARER  good ")) == "good"


@pytest.mark.parametrize(
    ("host", "is_known"),
    [
        ("127.0.0.1:8080", True),
        ("LOCALHOST", True),
        ("[::1]", True),
        ("[::1]:80", True),
        ("api.example.com:443", True),
        ("", False),
        ("127.0.0.1.evil.example.com", False),
        ("evil.example.com:127", False),
        ("localhost:evil", False),
        ("api.example.com.", False),
    ],
)
def test_a_host_is_one_of_the_names_with_any_port(host: str, is_known: bool) -> None:
    assert is_named(host, (*LOOPBACK, "API.example.com")) is is_known


async def test_a_message_that_does_not_arrive_is_let_go() -> None:
    """Its sender is as good as gone."""

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    assert await in_time(receive, 0.0)() == {"type": "http.disconnect"}


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("", "unix", False),
    ],
)
def test_who_has_a_network_of_ipv6_has_one_address(one: str, other: str, is_same: bool) -> None:
    """Of which there are more than anybody can try, all of them the same sender's."""
    assert (network_of(one) == network_of(other)) is is_same
