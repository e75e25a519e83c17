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
    FOLLOW,
    GIVE_VOTE,
    KEEP,
    LOOK,
    METHODS,
    OFFER,
    OPERATE,
    SUBMIT,
    WATCH_RUN,
    FeedRequest,
    KeeperRequest,
    Method,
    PresentedOrder,
    PresentedQuestion,
    PresentedVote,
)
from airside.actors.settings import Settings
from airside.stack.contracts.streams import WatchRequest
from airside.stack.directory import load_directory
from airside.stack.errors import LayerUnavailable
from airside.stack.operations.messages import OfferRequest, Submission
from airside.stack.security.access import AREAS
from airside.stack.security.authenticator import issue_token
from airside.stack.security.memory_orders import MemoryAnswer
from tests import on_wire
from tests.helpers import KEY, RUN
from tests.unit.stack.security.test_authenticator import SIGNER, pem_of, public_of

DIRECTORY = load_directory("tenants: {acme: {principals: {all: {roles: [operator, auditor, memory_keeper]}}}}")
SCOPE_MISSING = "scope does not allow"

ASKS: dict[Method[Any, Any], tuple[Any, set[str]]] = {
    SUBMIT: (lambda t: Submission(credential=t, request=b'{"text":"x"}', nonce=b"n"), {"runs:write"}),
    GIVE_VOTE: (lambda t: PresentedVote(t, f"apr_{RUN}_1_aaaaaaaaaaaa", "approve"), {"approvals"}),
    KEEP: (lambda t: KeeperRequest(t, "records", "acme"), {"memory"}),
    FOLLOW: (lambda t: FeedRequest("", 0.0, None, t), {"audit"}),
    WATCH_RUN: (
        lambda t: WatchRequest(run_id=RUN, after=0, born="", timeout_s=0.0, credential=t),
        {"runs:read", "operate", "audit"},
    ),
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
