"""Places of a pool go to tenants in turn, and none is lost."""

from __future__ import annotations

import asyncio
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from airside.stack.ids import TenantId
from airside.tools.runners.fair_slots import FairSlots

FLOOD, LATE = TenantId("flood"), TenantId("late")


async def test_a_tenant_that_fills_the_pool_waits_behind_itself() -> None:
    slots, order = FairSlots(4), list[str]()

    async def call(tenant: TenantId) -> None:
        async with slots.place(tenant):
            order.append(tenant)
            await asyncio.sleep(0)

    flood = [asyncio.ensure_future(call(FLOOD)) for _ in range(100)]
    await asyncio.sleep(0)
    late = [asyncio.ensure_future(call(LATE)) for _ in range(4)]
    await asyncio.gather(*flood, *late)
    assert Counter(order) == {"flood": 100, "late": 4}
    assert [i for i, tenant in enumerate(order) if tenant == "late"][-1] <= 16


async def test_a_tenant_whose_calls_never_end_leaves_places_to_others() -> None:
    """Also where several give back in one turn, and where those who were given one have not come to know it."""
    slots = FairSlots(8)
    flood = [asyncio.ensure_future(slots.take(FLOOD)) for _ in range(20)]
    for _ in range(3):
        await asyncio.sleep(0)
        assert sum(each.done() for each in flood) == 6
    late = [asyncio.ensure_future(slots.take(LATE)) for _ in range(3)]
    await asyncio.sleep(0)
    assert [each.done() for each in late] == [True, True, False]
    for _ in range(3):
        slots.give_back(FLOOD)
    more = asyncio.ensure_future(slots.take(FLOOD))
    await asyncio.sleep(0)
    assert all(each.done() for each in late) and slots.waiting == 20 - 6 - 2 + 1
    more.cancel()
    for each in flood:
        each.cancel()
    await asyncio.wait([more, *flood])


async def test_a_place_that_was_given_to_somebody_who_gave_up_goes_on() -> None:
    slots = FairSlots(1)
    await slots.take(FLOOD)
    gives_up = asyncio.ensure_future(slots.take(LATE))
    waits = asyncio.ensure_future(slots.take(LATE))
    await asyncio.sleep(0)
    slots.give_back(FLOOD)
    gives_up.cancel()  # in the same turn in which it was given the place
    await asyncio.wait([gives_up, waits])
    assert gives_up.cancelled() and waits.done() and slots.waiting == 0
    slots.give_back(LATE)
    await slots.take(FLOOD)


@settings(deadline=None, max_examples=60)
@given(
    places=st.integers(1, 4),
    calls=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.booleans()), max_size=40),
)
def test_there_are_never_more_at_work_than_places_and_in_the_end_all_are_free(
    places: int, calls: list[tuple[str, int, bool]]
) -> None:
    slots, at_work, most = FairSlots(places), [0], [0]

    async def call(tenant: str, turns: int) -> None:
        async with slots.place(TenantId(tenant)):
            at_work[0] += 1
            most[0] = max(most[0], at_work[0])
            try:
                for _ in range(turns):
                    await asyncio.sleep(0)
            finally:
                at_work[0] -= 1

    async def everything() -> None:
        tasks = []
        for tenant, turns, gives_up in calls:
            task = asyncio.ensure_future(call(tenant, turns))
            tasks.append(task)
            if gives_up:
                asyncio.get_running_loop().call_soon(task.cancel)
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(everything())
    assert most[0] <= places and slots.waiting == 0 and slots._free == places and not slots._at_work
