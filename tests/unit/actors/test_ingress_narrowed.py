"""A token that is narrowed is so for everything that is sent with it, and nothing of it goes further."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airside.actors.ingress import Ingress
from airside.actors.rpc.layer import LayerConfig
from airside.actors.rpc.methods import (
    BODIES,
    FOLLOW,
    GIVE_JOINT_VOTE,
    GIVE_VOTE,
    KEEP,
    LOOK,
    METHODS,
    NEWS,
    OFFER,
    OPERATE,
    SUBMIT,
    WATCH_RUN,
    FeedRequest,
    KeeperRequest,
    Method,
    NewsRequest,
    PresentedJointVote,
    PresentedOrder,
    PresentedQuestion,
    PresentedVote,
)
from airside.actors.settings import Settings
from airside.stack.contracts.streams import WatchRequest
from airside.stack.directory import load_directory
from airside.stack.errors import LayerUnavailable
from airside.stack.ids import run_of
from airside.stack.operations.messages import OfferRequest, Submission, Ticket
from airside.stack.security.access import AREAS
from airside.stack.security.authenticator import issue_token
from airside.stack.security.memory_orders import MemoryAnswer
from airside.stack.values import Request
from tests import on_wire
from tests.helpers import KEY, RUN, submitted
from tests.unit.stack.security.test_authenticator import SIGNER, pem_of, public_of

DIRECTORY = load_directory("tenants: {acme: {principals: {all: {roles: [operator, auditor, memory_keeper]}}}}")
SCOPE_MISSING = "scope does not allow"

ASKS: dict[Method[Any, Any], tuple[Any, set[str]]] = {
    SUBMIT: (lambda t: Submission(credential=t, request=b'{"text":"x"}', nonce=b"n"), {"runs:write"}),
    GIVE_VOTE: (lambda t: PresentedVote(t, f"apr_{RUN}_1_aaaaaaaaaaaa", "approve"), {"approvals"}),
    GIVE_JOINT_VOTE: (lambda t: PresentedJointVote(t, (f"apr_{RUN}_1_aaaaaaaaaaaa",), "approve"), {"approvals"}),
    KEEP: (lambda t: KeeperRequest(t, "records", "acme"), {"memory"}),
    FOLLOW: (lambda t: FeedRequest("", 0.0, None, t), {"audit"}),
    WATCH_RUN: (
        lambda t: WatchRequest(run_id=RUN, after=0, born="", timeout_s=0.0, credential=t),
        {"runs:read", "operate", "audit"},
    ),
    NEWS: (lambda t: NewsRequest(t, "", 0, 0.0), {"runs:read", "operate", "audit"}),
    OFFER: (lambda t: OfferRequest(credential=t), {"runs:write"}),
    OPERATE: (lambda t: PresentedOrder(t, "kill", "run", RUN), {"operate"}),
    LOOK: (lambda t: PresentedQuestion(t, "switches"), {"operate", "audit"}),
}
"""What is sent to Ingress with a credential, and the areas that are enough for it."""


class Away:
    """Layers that note that they were asked, and do not answer."""

    def __init__(self) -> None:
        self.asked = 0

    async def call(self, *_: Any) -> Any:
        """Note it."""
        self.asked += 1
        raise LayerUnavailable("it is away")


def test_all_that_ingress_serves_is_here() -> None:
    """Each of its methods takes a credential."""
    assert set(ASKS) == {method for method in METHODS if method.layer == "ingress"}


@pytest.mark.parametrize("method", ASKS, ids=repr)
@pytest.mark.parametrize("area", [*sorted(AREAS), "", "odd"])
async def test_a_narrowed_token_is_good_for_its_area_alone(method: Method[Any, Any], area: str) -> None:
    """What it is not good for reaches no layer."""
    layers = Away()
    config = LayerConfig(Settings(), Path("unused"), seal_key=KEY)
    it = Ingress(config, DIRECTORY, public_of(SIGNER), served=[])
    await it.ready()
    it._driver = it._journal = it._approvals = it._memory = layers  # type: ignore[assignment]
    make, areas = ASKS[method]
    now_s = int(time.time())
    token = issue_token(
        pem_of(SIGNER), tenant="acme", principal="all", now_s=now_s, ttl_s=60, claims={"scope": f"x {area} y"}
    )
    try:
        reply = await on_wire.ask(it, method, make(token))
    except LayerUnavailable:
        reply = None
    said = str(msgspec.msgpack.decode(reply, type=MemoryAnswer) if isinstance(reply, bytes) else reply)
    is_refused = SCOPE_MISSING in said
    assert is_refused == (area not in areas)
    assert bool(layers.asked) == (not is_refused and method is not OFFER)


class Admitting:
    """A driver that admits, and a journal that has what it admitted."""

    def __init__(self) -> None:
        self.runs: dict[str, list[str]] = {}

    async def call(self, method: Method[Any, Any], asked: Any) -> Any:
        """Answer."""
        if method is BODIES:
            return {run: self.runs[run] for run in asked}
        request = msgspec.json.decode(asked.request, type=Request)
        first = msgspec.structs.replace(submitted(), run_id=run_of(request.request_id), request=request)
        self.runs.setdefault(first.run_id, [msgspec.json.encode(first).decode()])
        return Ticket(run_id=first.run_id)


async def test_a_key_that_is_of_another_request_is_said_to_who_may_only_submit() -> None:
    """A nonce that is nobody's key costs no look."""
    it = Ingress(LayerConfig(Settings(), Path("unused"), seal_key=KEY), DIRECTORY, public_of(SIGNER))
    await it.ready()
    it._driver = it._journal = layers = Admitting()  # type: ignore[assignment]
    claims = {"scope": "runs:write"}
    token = issue_token(pem_of(SIGNER), tenant="acme", principal="all", now_s=int(time.time()), claims=claims)

    async def sent(text: str, *, is_keyed: bool = True) -> Ticket:
        request = msgspec.json.encode({"text": text, "labels": ["b", "a"], "inputs": {"x": 1.0}})
        return await on_wire.ask(
            it, SUBMIT, Submission(credential=token, request=request, nonce=b"n" * 16, is_keyed=is_keyed)
        )

    first, again, other, unkeyed = await sent("x"), await sent("x"), await sent("y"), await sent("y", is_keyed=False)
    assert first.run_id and len(layers.runs) == 1
    assert {each.run_id for each in (again, other, unkeyed)} == {first.run_id}
    assert [each.is_anothers for each in (first, again, other, unkeyed)] == [False, False, True, False]
