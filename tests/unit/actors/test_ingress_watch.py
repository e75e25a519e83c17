"""Watching a run with a credential: who asked for it may, an auditor of its tenant may, and nobody else."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airside.actors.ingress import Ingress
from airside.actors.rpc.layer import LayerConfig
from airside.actors.rpc.methods import BODIES, NEWS, RECENT, WATCH, WATCH_RUN, NewsPage, NewsRequest, RecentPage
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
        self.events = list(EVENTS)
        self.appended = asyncio.Event()
        self.reads = asyncio.Semaphore(0)
        self.speaks = True

    async def call(self, method: Any, asked: Any) -> Any:
        """Answer."""
        if method is BODIES:
            self.read += 1
            self.reads.release()
            return {run: [ev.encode_event(each).decode() for each in self.events if run == RUN] for run in asked}
        if method is RECENT:
            if not asked.born:
                return RecentPage(born="one")
            await self.appended.wait()
            self.appended.clear()
            return RecentPage((("acme", RUN),), "one", asked.after + 1)
        assert method is WATCH
        self.asked.append(asked)
        if not self.speaks and asked.timeout_s:
            await asyncio.Event().wait()
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


@pytest.mark.parametrize("asks_models", [True, False])
async def test_an_event_is_seen_when_it_happens(asks_models: bool) -> None:
    """Whether a model speaks or not: nobody looks every so often, and nothing is said twice."""
    layers = Layers()
    layers.speaks = False
    it = await ingress(layers)
    if not asks_models:
        it._models = None
    waiting = asyncio.ensure_future(on_wire.ask(it, WATCH_RUN, wanted("ann", events=2)))
    await layers.reads.acquire()
    assert not waiting.done()
    layers.events.append(ev.RunActivated(epoch=2, claim="d", at_us=3))
    layers.appended.set()
    page = await asyncio.wait_for(waiting, 5.0)
    assert len(page.events) == 1 and not page.parts and layers.read == 2
    for each in it._said.values():
        each.cancel()


async def test_who_may_not_hear_models_for_others_that_do_sees_what_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who ask the same share a question to models; of others' there are so many for a tenant."""
    layers = Layers()
    layers.speaks = False
    it = await ingress(layers)
    monkeypatch.setattr("airside.actors.ingress.MAX_FOLLOWERS", 1)
    asks = [wanted("ann", events=2), wanted("lea", events=2)]
    asks.append(msgspec.structs.replace(asks[0], after=7, born="one"))
    waiting = [asyncio.ensure_future(on_wire.ask(it, WATCH_RUN, each)) for each in asks]
    for _ in asks:
        await layers.reads.acquire()
    layers.events.append(ev.RunActivated(epoch=2, claim="d", at_us=3))
    layers.appended.set()
    pages = await asyncio.wait_for(asyncio.gather(*waiting), 5.0)
    assert [len(each.events) for each in pages] == [1, 1, 1] and [each.upto for each in pages] == [0, 0, 7]
    assert len(layers.asked) == 1
    for each in it._said.values():
        each.cancel()


async def test_who_is_nobody_any_more_is_told_nothing_that_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A credential that ends while it waits."""
    layers = Layers()
    layers.speaks = False
    it = await ingress(layers)
    it._models = None
    waiting = asyncio.ensure_future(on_wire.ask(it, WATCH_RUN, wanted("ann", events=2)))
    await layers.reads.acquire()
    monkeypatch.setattr(time, "time", lambda now=time.time: now() + 3600)
    layers.events.append(ev.RunActivated(epoch=2, claim="d", at_us=3))
    layers.appended.set()
    page = await asyncio.wait_for(waiting, 5.0)
    assert page.code == "auth_expired" and not page.events


async def test_a_tenants_watchers_are_bounded_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others' are served."""
    layers = Layers()
    it = await ingress(layers)
    monkeypatch.setattr("airside.actors.ingress.MAX_WATCHERS", 0)
    page = await on_wire.ask(it, WATCH_RUN, wanted("ann"))
    assert page.code == "too_many" and not layers.read


# News, for pages.

ANYTHING, OF_RUN = NewsRequest("", "", 0, 0.0), NewsRequest("", RUN, 0, 0.0)


async def told(it: Ingress, asked: NewsRequest, who: str, tenant: str = "acme", **more: Any) -> NewsPage:
    """Return what somebody is told."""
    credential = wanted(who, tenant).credential
    return await on_wire.ask(it, NEWS, msgspec.structs.replace(asked, credential=credential, **more))


@pytest.mark.parametrize(("who", "asked"), [("lea", ANYTHING), ("lea", OF_RUN), ("ann", OF_RUN)])
async def test_who_may_see_it_is_told_that_something_happened(who: str, asked: NewsRequest) -> None:
    """Once for all that did, and of nothing that did not; of a run nothing is read but whose it is."""
    layers = Layers()
    it = await ingress(layers)
    began = await told(it, asked, who)
    assert began.mark and await told(it, asked, who, after=began.mark) == began
    waiting = asyncio.ensure_future(told(it, asked, who, after=began.mark, timeout_s=5.0))
    await asyncio.sleep(0)
    layers.appended.set()
    page = await asyncio.wait_for(waiting, 5.0)
    assert page.mark not in (0, began.mark) and not page.code and layers.read <= 1


@pytest.mark.parametrize(
    ("who", "tenant", "asked", "code"),
    [
        ("ann", "acme", ANYTHING, "wrong_role"),
        ("bob", "acme", OF_RUN, "unknown"),
        ("eve", "beta", OF_RUN, "unknown"),
        ("lea", "acme", NewsRequest("", "run_" + "f" * 24, 0, 0.0), "unknown"),
    ],
)
async def test_nobody_is_told_by_what_others_are_busy(who: str, tenant: str, asked: NewsRequest, code: str) -> None:
    """Who sees his own runs alone hears of no other, and one that is not there is as another's."""
    page = await told(await ingress(Layers()), asked, who, tenant)
    assert (page.code, page.mark) == (code, 0)


async def test_another_tenant_hears_nothing_of_it() -> None:
    layers = Layers()
    it = await ingress(layers)
    began = await told(it, ANYTHING, "eve", "beta")
    waiting = asyncio.ensure_future(told(it, ANYTHING, "lea", timeout_s=5.0))
    await asyncio.sleep(0)
    layers.appended.set()
    await asyncio.wait_for(waiting, 5.0)
    assert await told(it, ANYTHING, "eve", "beta", after=began.mark) == began


async def test_news_are_not_told_to_who_is_nobody_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A credential that ends while it waits."""
    layers = Layers()
    it = await ingress(layers)
    began = await told(it, ANYTHING, "lea")
    waiting = asyncio.ensure_future(told(it, ANYTHING, "lea", after=began.mark, timeout_s=5.0))
    await asyncio.sleep(0)
    monkeypatch.setattr(time, "time", lambda now=time.time: now() + 3600)
    layers.appended.set()
    page = await asyncio.wait_for(waiting, 5.0)
    assert (page.code, page.mark) == ("auth_expired", 0)


async def test_those_who_wait_for_news_are_bounded_with_those_who_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airside.actors.ingress.MAX_WATCHERS", 0)
    assert (await told(await ingress(Layers()), ANYTHING, "lea")).code == "too_many"
