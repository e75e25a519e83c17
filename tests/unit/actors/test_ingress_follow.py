"""Following the journal with a credential: an auditor sees his own tenant's entries, and nobody keeps others out."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from airside.actors.ingress import MAX_FOLLOWERS, Ingress
from airside.actors.rpc.layer import LayerConfig
from airside.actors.rpc.methods import FOLLOW, FeedPage, FeedRequest
from airside.actors.settings import Settings
from airside.stack.directory import load_directory
from airside.stack.security.authenticator import issue_token
from tests import on_wire
from tests.helpers import KEY
from tests.unit.stack.security.test_authenticator import SIGNER, pem_of, public_of

DIRECTORY = load_directory(
    """
tenants:
  acme: {principals: {ann: {roles: [auditor]}, bob: {}}}
  beta: {principals: {eve: {roles: [auditor]}}}
"""
)


class Asked:
    """A journal that notes what it is asked, and answers when it is told."""

    def __init__(self) -> None:
        self.questions: list[FeedRequest] = []
        self.open = asyncio.Event()

    async def call(self, method: Any, asked: FeedRequest) -> FeedPage:
        """Wait until it may answer."""
        self.questions.append(asked)
        await self.open.wait()
        return FeedPage((), "c")


async def ingress(journal: Asked, house: str | None = None) -> Ingress:
    """Return an Ingress that asks this journal."""
    directory = DIRECTORY.model_copy(update={"house": house})
    made = Ingress(LayerConfig(Settings(), Path("unused"), seal_key=KEY), directory, public_of(SIGNER))
    await made.ready()
    made._journal = journal  # type: ignore[assignment]
    return made


def token(principal: str, tenant: str = "acme") -> str:
    """Return somebody's token."""
    return issue_token(pem_of(SIGNER), tenant=tenant, principal=principal, now_s=int(time.time()), ttl_s=60, claims={})


async def test_an_auditor_is_given_his_tenants_entries_whatever_he_asks_for() -> None:
    journal = Asked()
    journal.open.set()
    it = await ingress(journal)
    for wanted in (None, "beta", "acme"):
        page = await on_wire.ask(it, FOLLOW, FeedRequest("c0", 5.0, wanted, token("ann")))
        assert page.cursor == "c" and not page.problem
    assert journal.questions == [FeedRequest("c0", 5.0, "acme")] * 3


async def test_an_auditor_of_the_house_is_given_the_entries_he_asks_for() -> None:
    """Of one tenant, or of all; an auditor of another tenant those of his own, as ever."""
    journal = Asked()
    journal.open.set()
    it = await ingress(journal, house="beta")
    for who, wanted, given in (("eve@beta", None, None), ("eve@beta", "acme", "acme"), ("ann@acme", None, "acme")):
        page = await on_wire.ask(it, FOLLOW, FeedRequest("c0", 5.0, wanted, token(*who.split("@"))))
        assert page.cursor == "c" and journal.questions.pop() == FeedRequest("c0", 5.0, given)


async def test_who_is_no_auditor_or_nobody_is_refused_and_the_journal_is_not_asked() -> None:
    journal = Asked()
    it = await ingress(journal)
    for credential, code in ((token("bob"), "wrong_role"), ("junk", "auth_"), (token("zoe"), "principal_unknown")):
        page = await on_wire.ask(it, FOLLOW, FeedRequest("", 0.0, None, credential))
        assert page.code.startswith(code) and page.problem and not page.entries
    assert journal.questions == []


async def test_a_tenant_that_follows_too_often_is_refused_and_keeps_no_other_out() -> None:
    journal = Asked()
    it = await ingress(journal)
    asked = FeedRequest("", 30.0, None, token("ann"))
    waiting = [asyncio.ensure_future(on_wire.ask(it, FOLLOW, asked)) for _ in range(MAX_FOLLOWERS)]
    while len(journal.questions) < MAX_FOLLOWERS:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0)
    assert (await on_wire.ask(it, FOLLOW, asked)).code == "too_many"
    other = asyncio.ensure_future(on_wire.ask(it, FOLLOW, FeedRequest("", 30.0, None, token("eve", "beta"))))
    journal.open.set()
    assert [page.code for page in await asyncio.gather(*waiting, other)] == [""] * (MAX_FOLLOWERS + 1)
    assert (await on_wire.ask(it, FOLLOW, asked)).code == ""
