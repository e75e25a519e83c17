"""Of all who claim or withdraw attempts of one key at the same moment, at most one may start it, whatever gets lost."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.stack.cycle.in_memory import InMemoryJournal
from airside.stack.errors import LayerUnavailable
from airside.stack.ids import TenantId, undo_key
from airside.stack.journal.effect_claims import attempt_key, claim, withdraw
from airside.stack.journal.journaling import Append, AppendReply, Entry
from airside.stack.security.grants import Grant
from tests.helpers import grant_for, spec

PAY = spec()
KEY = grant_for(PAY).key


class Network:
    """A journal that is far: appends arrive late, twice, or not at all, and so do its answers."""

    def __init__(self, seed: int) -> None:
        self.journal = InMemoryJournal()
        self._chance = random.Random(seed)

    async def append(self, append: Append) -> AppendReply:
        """Take an append in at some moment, and answer at a later one."""
        await self._a_while()
        if self._chance.random() < 0.1:
            raise LayerUnavailable("it never arrived")
        reply = self.journal.append_now(append)
        await self._a_while()
        if self._chance.random() < 0.2:  # the answer got lost, and the journal's stub sends it again
            reply = self.journal.append_now(append)
            await self._a_while()
        if self._chance.random() < 0.1:
            raise LayerUnavailable("it was taken in, and nobody was told")
        return reply

    async def _a_while(self) -> None:
        for _ in range(self._chance.randrange(6)):
            await asyncio.sleep(0)


async def answered(asking: asyncio.Future[bool]) -> bool | None:
    """Return the answer, None if there was none."""
    try:
        return await asking
    except LayerUnavailable:
        return None


def grant(attempt: int, nonce: int, **fields: object) -> Grant:
    """Return a grant of an attempt."""
    return grant_for(PAY, attempt=attempt, nonce=nonce.to_bytes(12, "big"), **fields)


SOMEBODY = st.tuples(st.sampled_from(["claim", "withdraw"]), st.integers(1, 4))


@given(st.lists(SOMEBODY, min_size=2, max_size=8), st.integers(0, 2**32))
def test_at_most_one_starts_and_none_of_an_attempt_that_was_withdrawn(who: list[tuple[str, int]], seed: int) -> None:
    network = Network(seed)

    async def everybody() -> list[bool | None]:
        asked = []
        for i, (what, attempt) in enumerate(who):
            if what == "claim":
                asking = claim(network.append, grant(attempt, i), at_us=i)
            else:
                asking = withdraw(network.append, TenantId("acme"), KEY, attempt, step=1, at_us=i)
            asked.append(answered(asyncio.ensure_future(asking)))
        return await asyncio.gather(*asked)

    said = list(zip(who, asyncio.run(everybody()), strict=True))
    started = [attempt for (what, attempt), yes in said if what == "claim" and yes]
    withdrawn = [attempt for (what, attempt), yes in said if what == "withdraw" and yes]
    assert len(started) <= 1
    assert all(attempt > never for attempt in started for never in withdrawn)
    late = asyncio.run(claim(LateJournal(network.journal).append, grant(max(withdrawn, default=0), 99), at_us=99))
    assert not (late and (started or withdrawn))


class LateJournal:
    """The same journal, near."""

    def __init__(self, journal: InMemoryJournal) -> None:
        self._journal = journal

    async def append(self, append: Append) -> AppendReply:
        """Take it in."""
        return self._journal.append_now(append)


@pytest.mark.parametrize("epoch", [0, 7])
@pytest.mark.parametrize("kind", ["AttemptWithdrawn", "EffectClaimed", "Nonsense"])
async def test_a_runtime_that_writes_to_a_keys_stream_itself_can_only_keep_the_call_from_starting(
    kind: str, epoch: int
) -> None:
    near = LateJournal(InMemoryJournal())
    forged = Entry(type=kind, step=1, at_us=0, cause=-1, body=b'{"attempt":1}')
    written = await near.append(
        Append(tenant=TenantId("acme"), stream=f"claim/{KEY}", epoch=epoch, first_seq=0, entries=(forged,))
    )
    assert written.verdict == "ok"
    started = [await claim(near.append, grant(attempt, attempt), at_us=attempt) for attempt in (1, 2, 3)]
    assert started.count(True) <= 1


async def test_every_attempt_of_an_undo_is_claimed_by_itself_and_only_once() -> None:
    near = LateJournal(InMemoryJournal())
    key = undo_key(KEY)
    for attempt in (1, 2, 70):
        first = grant(attempt, 1, key=key, undo=True)
        assert await claim(near.append, first, at_us=1)
        assert await claim(near.append, first, at_us=1)  # the same claim: its answer got lost
        assert not await claim(near.append, grant(attempt, 2, key=key, undo=True), at_us=2)
        assert not await withdraw(near.append, TenantId("acme"), attempt_key(key, attempt), 1, step=1, at_us=3)
    assert await claim(near.append, grant(1, 3), at_us=4)  # the call's own key is another
