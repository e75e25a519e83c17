"""Watching a run with a credential: who asked for it may, an auditor of its tenant may, and nobody else."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airside.actors.ingress import Ingress
from airside.actors.rpc.layer import LayerConfig
from airside.actors.rpc.methods import BODIES, WATCH, WATCH_RUN
from airside.actors.settings import Settings
from airside.stack.contracts.streams import StreamPart, WatchPage, WatchRequest
from airside.stack.directory import load_directory
from airside.stack.ids import PrincipalId, TenantId
from airside.stack.run import events as ev
from airside.stack.security.authenticator import issue_token
from tests import on_wire
from tests.helpers import KEY, RUN, submitted
from tests.unit.stack.security.test_authenticator import SIGNER, pem_of, public_of

DIRECTORY = load_directory(
    """
tenants:
  acme: {principals: {ann: {}, bob: {}, lea: {roles: [auditor]}}}
  beta: {principals: {ann: {}, eve: {roles: [auditor]}}}
"""
)
FIRST = submitted()
OWN = msgspec.structs.replace(FIRST.identity, tenant=TenantId("acme"), principal=PrincipalId("ann"))
EVENTS: list[ev.Event] = [
    msgspec.structs.replace(FIRST, identity=OWN),
    ev.RunActivated(epoch=1, claim="c", at_us=2),
]
PART = StreamPart(number=1, kind="text", run_id=RUN, step=1, text="hello")


class Layers:
    """A journal with one run, and a model caller that has said one thing of it; both note what they are asked."""

    def __init__(self) -> None:
        self.asked: list[WatchRequest] = []
        self.read = 0

    async def call(self, method: Any, asked: Any) -> Any:
        """Answer."""
        if method is BODIES:
            self.read += 1
            return {run: [ev.encode_event(each).decode() for each in EVENTS] if run == RUN else [] for run in asked}
        assert method is WATCH
        self.asked.append(asked)
        return WatchPage(parts=(PART,), upto=1, born="one")


async def ingress(layers: Layers) -> Ingress:
    """Return an Ingress that asks these layers."""
    made = Ingress(LayerConfig(Settings(), Path("unused"), seal_key=KEY), DIRECTORY, public_of(SIGNER), None, True)
    await made.ready()
    made._journal = made._models = layers  # type: ignore[assignment]
    return made


def wanted(principal: str, tenant: str = "acme", run: str = RUN, events: int = 0) -> WatchRequest:
    """Return somebody's question."""
    now_s = int(time.time())
    token = issue_token(pem_of(SIGNER), tenant=tenant, principal=principal, now_s=now_s, ttl_s=60, claims={})
    return WatchRequest(run_id=run, after=0, born="", timeout_s=5.0, credential=token, events=events)  # type: ignore[arg-type]


@pytest.mark.parametrize("principal", ["ann", "lea"])
async def test_who_asked_for_a_run_and_an_auditor_are_shown_it(principal: str) -> None:
    """Its events and what its models say; the credential goes no further."""
    layers = Layers()
    page = await on_wire.ask(await ingress(layers), WATCH_RUN, wanted(principal))
    assert len(page.events) == 2 and page.parts == (PART,) and not page.code
    assert layers.asked[0].credential == "" and layers.asked[0].timeout_s == 0.0, "there is something to say already"


async def test_who_has_seen_the_events_waits_for_what_is_said() -> None:
    """No event is given twice."""
    layers = Layers()
    page = await on_wire.ask(await ingress(layers), WATCH_RUN, wanted("ann", events=2))
    assert page.events == () and layers.asked[0].timeout_s == 5.0


@pytest.mark.parametrize(("principal", "tenant"), [("bob", "acme"), ("ann", "beta"), ("eve", "beta")])
async def test_of_anothers_run_it_is_not_said_whether_there_is_one(principal: str, tenant: str) -> None:
    """The answer is that of a run which does not exist, and the model caller is not asked."""
    layers = Layers()
    it = await ingress(layers)
    others = await on_wire.ask(it, WATCH_RUN, wanted(principal, tenant))
    nobodys = await on_wire.ask(it, WATCH_RUN, wanted(principal, tenant, run="run_" + "0" * 24 + "ff"))
    assert others.code == nobodys.code == "unknown" and not others.parts and not others.events and not layers.asked


async def test_who_is_nobody_is_refused() -> None:
    """Before anything is read."""
    layers = Layers()
    page = await on_wire.ask(
        await ingress(layers), WATCH_RUN, msgspec.structs.replace(wanted("ann"), credential="junk")
    )
    assert page.code.startswith("auth_") and not page.events and not layers.asked


async def test_whose_run_it_is_is_read_once() -> None:
    """While text comes, the run's events are not read with every word of it."""
    layers = Layers()
    it = await ingress(layers)
    asked = msgspec.structs.replace(wanted("ann", events=2), with_events=False)
    for _ in range(3):
        page = await on_wire.ask(it, WATCH_RUN, asked)
        assert page.parts == (PART,) and page.events == () and not page.code
    others = await on_wire.ask(it, WATCH_RUN, msgspec.structs.replace(wanted("bob"), with_events=False))
    assert layers.read == 1 and others.code == "unknown" and not others.parts
