"""Ingress and the gateway: whose word a call's arguments are, and which tools somebody is told of."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airside.actors.ingress import Ingress
from airside.actors.rpc.layer import LayerConfig
from airside.actors.rpc.methods import OFFER, SUBMIT
from airside.actors.settings import Settings
from airside.stack.directory import load_directory
from airside.stack.ids import RunId
from airside.stack.operations.messages import Admit, OfferRequest, Submission, Ticket
from airside.stack.reasons import ReasonCode
from airside.stack.run.gateway_call import GATEWAY
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.security.authenticator import issue_token
from airside.stack.values import Request
from tests import on_wire
from tests.helpers import KEY, spec
from tests.unit.stack.security.test_authenticator import SIGNER, pem_of, public_of

DIRECTORY = load_directory(
    """
tenants:
  acme:
    open: true
    principals: {ann: {gateway: trusted, scopes: [money]}, bot: {}}
"""
)
TOOLS = [spec("pay", scopes=("money",)), spec("look", effect="read", scopes=())]
CALL = b'{"tool":"pay","arguments":{"to":"x"}}'


class Admitting:
    """A driver that admits everything, and notes it."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    async def call(self, _: Any, admit: Admit) -> Ticket:
        """Admit."""
        self.requests.append(msgspec.json.decode(admit.request, type=Request))
        return Ticket(run_id=RunId("run_" + "0" * 24))


async def ingress(driver: Admitting, served: Sequence[ToolSpec] | None = TOOLS) -> Ingress:
    """Return an Ingress that submits to this driver."""
    config = LayerConfig(Settings(), Path("unused"), seal_key=KEY)
    made = Ingress(config, DIRECTORY, public_of(SIGNER), frozenset({"vip"}), False, served)
    await made.ready()
    made._driver = driver  # type: ignore[assignment]
    return made


def token(principal: str) -> str:
    """Return somebody's token."""
    return issue_token(pem_of(SIGNER), tenant="acme", principal=principal, now_s=int(time.time()), ttl_s=60, claims={})


def submission(principal: str, **request: Any) -> Submission:
    """Return a call of somebody's."""
    fields = {"text": "Call pay", "route": GATEWAY, "inputs": msgspec.Raw(CALL)} | request
    return Submission(credential=token(principal), request=msgspec.json.encode(Request(**fields)), nonce=b"n")


@pytest.mark.parametrize(
    ("principal", "labels", "expected"),
    [
        ("ann", (), ()),
        ("ann", ("untrusted",), ("untrusted",)),
        ("bot", (), ("untrusted",)),
        ("bot", ("vip", "untrusted"), ("vip", "untrusted")),
        ("unlisted", (), ("untrusted",)),
    ],
)
async def test_a_call_is_its_principals_word_only_where_the_directory_says_so(
    principal: str, labels: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    """Whatever the client says; a principal that is not listed is vouched for by nobody."""
    driver = Admitting()
    ticket = await on_wire.ask(await ingress(driver), SUBMIT, submission(principal, labels=labels))
    assert ticket.run_id and [each.labels for each in driver.requests] == [expected]


async def test_other_runs_are_labelled_by_nobody() -> None:
    """Neither on other routes, nor in an app that has a route of that name and no gateway."""
    driver = Admitting()
    await on_wire.ask(await ingress(driver), SUBMIT, submission("bot", route="default"))
    await on_wire.ask(await ingress(driver, None), SUBMIT, submission("bot"))
    assert [each.labels for each in driver.requests] == [(), ()]


@pytest.mark.parametrize("text", ["", " \n\t"])
async def test_who_asks_for_nothing_is_refused_unless_inputs_say_what_is_wanted(text: str) -> None:
    driver = Admitting()
    it = await ingress(driver)
    for inputs in (b"{}", b'{"customer":"kim"}'):
        asked = submission("bot", text=text, route="default", inputs=msgspec.Raw(inputs))
        ticket = await on_wire.ask(it, SUBMIT, asked)
        assert (ticket.reason_code is ReasonCode.REQUEST_INVALID) == (inputs == b"{}")
        assert bool(ticket.run_id) != ("it is empty" in ticket.message)


@pytest.mark.parametrize("inputs", [b"{}", b'{"tool":"pay","arguments":5}', b'{"tool":"pay","more":1}'])
async def test_what_is_no_call_is_refused_before_it_is_a_run(inputs: bytes) -> None:
    driver = Admitting()
    ticket = await on_wire.ask(await ingress(driver), SUBMIT, submission("bot", inputs=msgspec.Raw(inputs)))
    assert ticket.reason_code is ReasonCode.REQUEST_INVALID and not driver.requests


async def test_somebody_is_told_of_the_tools_of_its_scopes_and_nobody_of_any() -> None:
    it = await ingress(Admitting())
    for who, names in (("ann", ["pay", "look"]), ("bot", ["look"])):
        offer = await on_wire.ask(it, OFFER, OfferRequest(credential=token(who), with_tools=True))
        assert (offer.principal, [tool.name for tool in offer.tools]) == (who, names)
    assert not (await on_wire.ask(it, OFFER, OfferRequest(credential=token("ann")))).tools, "it asked only who it is"
    refused = await on_wire.ask(it, OFFER, OfferRequest(credential="junk", with_tools=True))
    assert refused.code.startswith("auth_") and not refused.tools and not refused.principal
    unserved = await on_wire.ask(
        await ingress(Admitting(), None), OFFER, OfferRequest(credential=token("ann"), with_tools=True)
    )
    assert unserved.code == "not_served" and not unserved.tools
