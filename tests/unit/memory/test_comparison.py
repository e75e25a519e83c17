"""What two texts are to each other, and that what is newer is found before what it contradicts."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airside.memory.comparison.relation import is_other_value, relation, sure_relation
from airside.memory.in_memory import InMemoryMemory
from airside.memory.service import MemoryService
from airside.stack.reasons import MemoryCode
from tests.unit.memory.test_memory import ACME, DAY_US, START_US, Clock, clock, fact, found, memory

__all__ = ["clock", "memory"]


@pytest.mark.parametrize(
    ("new", "old", "what"),
    [
        ("Ana's flight to Rome is at 7", "Ana's flight to Rome is at 9", "contradicts"),
        ("Ana's flight to Rome is at 9", "Ben's flight to Rome is at 9", "distinct"),
        ("Ana does not like tea", "Ana likes tea", "contradicts"),
        ("invoice 17 is paid", "invoice 18 is paid", "distinct"),
        ("the alarm is enabled", "the alarm is disabled", "contradicts"),
        ("Ana is allergic to nuts", "Ana is allergic to milk", "distinct"),
        ("the price of 5 units is 10", "the price of 6 units is 10", "distinct"),
        ("deliveries come on Monday", "delivery comes on Monday", "same"),
        ("the big box is in the hall", "the large box is in the hall", "distinct"),
        ("Ana does not like tea but likes coffee", "Ana likes tea but does not like coffee", "distinct"),
        ("the flight is from Rome to Oslo", "the flight is to Rome from Oslo", "distinct"),
        ("I owe you 50 euros", "you owe me 50 euros", "distinct"),
        ("we should pay invoice 17", "we did pay invoice 17", "distinct"),
        ("the meeting is on monday", "the meeting is on tuesday", "varies"),
        ("we ship our parcels to France", "we ship our parcels to Germany", "varies"),
        ("the account manager is Ana", "the account manager is Ben", "contradicts"),
        ("the big box is in the hall", "the small box is in the hall", "distinct"),
    ],
)
def test_what_two_texts_are_to_each_other(new: str, old: str, what: str) -> None:
    assert relation(new, old) == what


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ("The bar is closed in winter.", "The bar is open in winter."),
        ("Kim isn\u2019t available on Fridays.", "Kim is available on Fridays."),
        ("The licence costs $600 a year.", "The licence costs $500 a year."),
        ("The notice period is 30 days.", "The notice period is 14 days."),
        ("The depot is in Bremen.", "The depot is in Hamburg."),
        ("The report is due on 26 March.", "The report is due on 12 March."),
        ("Die Miete betr\u00e4gt 950 Euro.", "Die Miete betr\u00e4gt 900 Euro."),
        ("La piscine est ferm\u00e9e en hiver.", "La piscine est ouverte en hiver."),
        ("El cliente no acepta entregas.", "El cliente acepta entregas."),
        ("Il negozio \u00e8 chiuso la domenica.", "Il negozio \u00e8 aperto la domenica."),
        ("De opzegtermijn is 3 maanden.", "De opzegtermijn is 2 maanden."),
        ("O fornecedor n\u00e3o aceita dinheiro.", "O fornecedor aceita dinheiro."),
        ("\u5546\u5e97\u5468\u672b\u4e0d\u8425\u4e1a\u3002", "\u5546\u5e97\u5468\u672b\u8425\u4e1a\u3002"),
    ],
)
def test_of_what_can_be_but_one_another_value_is_a_contradiction(new: str, old: str) -> None:
    assert relation(new, old) == "contradicts"


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ("Trucks unload at dock 7.", "Trucks unload at dock 4."),
        ("Fish comes on Tuesdays.", "Fish comes on Thursdays."),
        ("The launch was moved to 14 June.", "The launch is planned for 3 May."),
        ("Leila moved to Lisbon in spring.", "Leila lives in Porto with Rui."),
        ("Parcels are sent with UPS.", "Parcels are sent with DHL."),
        ("Das Lager ist nach Bremen umgezogen.", "Das Lager ist in Hamburg."),
        ("\u4ed3\u5e93\u4f4d\u4e8e\u5317\u4eac\u3002", "\u4ed3\u5e93\u4f4d\u4e8e\u4e0a\u6d77\u3002"),
        ("There is a train to Rome at 9.", "There is a train to Rome at 7."),
        ("Ana is Swiss by birth.", "Ana is Catholic by birth."),
        ("The shift starts at 21.", "The shift starts at 9."),
        ("The fee is 1,000 euros.", "The fee is 1.000 euros."),
        ("Ben is the manager of Acme.", "Ana is the manager of Acme."),
    ],
)
def test_where_it_is_not_sure_both_are_kept(new: str, old: str) -> None:
    assert relation(new, old) not in ("same", "contradicts")


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ("it uses marketing data", "it uses market data"),
        ("the lab counted 106 cells", "the lab counted 10\u2076 cells"),
        ("add 11/2 litres of oil", "add 1\u00bd litres of oil"),
        ("the valve opens at 5 bar", "the valve opens at .5 bar"),
        ("the tank is at 5 degrees", "the tank is at -5 degrees"),
        ("good deliveries are checked", "goods deliveries are checked"),
        ("the manager is Andrews", "the manager is Andrew"),
        ("the parser is in C#", "the parser is in C++"),
        ("Ana is at home?", "Ana is at home."),
        ("a general plan", "a generated plan"),
    ],
)
def test_words_that_look_alike_are_not_the_same(new: str, old: str) -> None:
    assert relation(new, old) != "same"


SOME = "Ana's depot isn't open at 9 on Mondays for Kim , 10\u2076 14 % C++ don't caf\u00e9 \u5317\u4eac"
sentences = st.lists(st.sampled_from(SOME.split()), min_size=1, max_size=12).map(" ".join)


@given(sentences, sentences)
@example("Ana's flight is at 7", "Ana's flight is at 9")
def test_one_look_tells_all_that_changes_a_record(new: str, old: str) -> None:
    whole, sure = relation(new, old), sure_relation(new, old)
    assert sure in (None, whole)
    assert sure == whole or whole not in ("same", "contradicts")


@given(sentences, st.sampled_from((" ", "  ", "\u00a0", "\n")), st.sampled_from(("\u2019", "\u02bc")), st.booleans())
def test_case_space_and_apostrophes_make_nothing_of_another_text(
    text: str, space: str, apostrophe: str, upper: bool
) -> None:
    other = text.replace(" ", space).replace("'", apostrophe)
    assert relation(other.upper() if upper else other, text) == "same"


numbers = st.one_of(
    st.integers(0, 10**7).map(str),
    st.integers(1000, 10**7).map(lambda n: f"{n:,}"),
    st.decimals(0, 1000, places=2).map(str),
    st.decimals(0, 1, places=1).map(lambda n: str(n).removeprefix("0")),
    st.integers(0, 99).map(lambda n: f"-{n}"),
    st.integers(2, 9).map(lambda n: "10" + "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"[n]),
)


@given(
    numbers,
    numbers,
    st.sampled_from(("the fee is {} euros", "{} pallets are left", "Rufen Sie {} an", "\u5171{}\u4e2a")),
)
@example("0", ".0", "\u5171{}\u4e2a")
def test_what_differs_in_a_number_is_never_the_same(one: str, other: str, frame: str) -> None:
    if one != other:
        assert relation(frame.format(one), frame.format(other)) != "same"


NAMES = ("Ana", "Ben", "Kim", "Zo\u00eb", "Omar", "Ruth")
SAID = ("'s flight is at {}", "'s badge number is {}", " lives in {}", " is not in {}", " likes {}", " costs {} a day")


@given(
    st.sampled_from(NAMES), st.sampled_from(NAMES), st.sampled_from(SAID), st.sampled_from(("9", "Rome", "14")),
    st.sampled_from(("9", "Oslo", "30")),
)  # fmt: skip
def test_what_is_said_of_two_people_never_contradicts(one: str, other: str, said: str, mine: str, value: str) -> None:
    if one != other:
        assert relation(one + said.format(mine), other + said.format(value)) not in ("contradicts", "same")


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_two_texts_are_compared(one: str, other: str) -> None:
    relation(one, other)
    assert relation(one, one) == "same" and not is_other_value(one, one)


# In memory.

OLD, NEW = "Trucks for Birch unload at dock 4.", "Trucks for Birch unload at dock 7."


@pytest.mark.parametrize("order", [(OLD, NEW), (NEW, OLD)], ids=["in order", "the newer one first"])
async def test_of_two_that_differ_in_a_value_the_one_observed_later_comes_first(
    memory: MemoryService, order: tuple[str, str]
) -> None:
    for text in order:
        observed_us = START_US - (DAY_US if text == OLD else 0)
        assert (await memory.write_if_useful(fact(text, observed_us=observed_us))).code == MemoryCode.STORED
    await memory.write_if_useful(fact("Birch pays its invoices by bank transfer.", observed_us=START_US - 9))
    assert (await found(memory, "where do the trucks for Birch unload"))[:2] == [NEW, OLD]
    assert await found(memory, "where do the trucks for Birch unload", top_k=1) == [NEW]


async def test_a_newer_record_does_not_come_before_the_one_that_is_asked_for(memory: MemoryService) -> None:
    old, new = "Pumps of the north hall are tested weekly.", "Pumps of the south hall are tested daily."
    for text, age in ((old, 5 * DAY_US), (new, DAY_US)):
        await memory.write_if_useful(fact(text, observed_us=START_US - age))
    assert (await found(memory, "how often are the pumps of the north hall tested"))[0] in (old, new)
    assert (await found(memory, "how often are the pumps of the south hall tested"))[0] == new


@pytest.mark.parametrize("protection", ["trust", "pin"])
async def test_nothing_comes_before_what_is_trusted_more_or_pinned(memory: MemoryService, protection: str) -> None:
    trust = "high" if protection == "trust" else "low"
    kept = await memory.write_if_useful(fact(OLD, trust=trust, observed_us=START_US - DAY_US))
    if protection == "pin":
        await memory.change(ACME, kept.record_id, "pin")
    await memory.write_if_useful(fact(f"{NEW} For Birch trucks unload.", trust="low"))
    assert (await found(memory, "where do trucks for Birch unload at dock 4"))[0] == OLD


@pytest.mark.parametrize(
    ("old", "new", "topic"),
    [
        ("Kim is allergic to penicillin.", "Kim is allergic to peanuts.", "allergies"),
        ("Kim speaks German at home.", "Kim speaks Turkish at home.", "languages"),
        ("Invoice 4411 was paid on 3 May.", "Invoice 4412 was paid on 5 May.", "payments"),
        ("Ana's flight leaves at 7 sharp.", "Ben's flight leaves at 9 sharp.", "flights"),
        ("The Lyon depot opens at 6 daily.", "The Turin depot opens at 8 daily.", "opening hours"),
        ("Kim has a dog called Rex.", "Kim has a cat called Mia.", "pets"),
        ("The team uses Slack for chat.", "The team uses Zoom for calls.", "tools"),
        ("Kim has two children.", "Kim has two cars.", "household"),
    ],
)
async def test_of_one_topic_both_stay_where_both_may_be_so(
    memory: MemoryService, old: str, new: str, topic: str
) -> None:
    first = await memory.write_if_useful(fact(old, topic=topic))
    second = await memory.write_if_useful(fact(new, topic=topic))
    assert second.code == MemoryCode.STORED and second.superseded == () and second.record_id != first.record_id
    # What a person put aside may come back beside it.
    assert await memory.change(ACME, first.record_id, "quarantine") and await memory.change(
        ACME, first.record_id, "release"
    )
    assert sorted(await found(memory, f"{old} {new}", top_k=10)) == sorted((old, new))


async def test_a_topic_that_has_several_answers_gets_one_more_and_loses_none(clock: Clock) -> None:
    memory = InMemoryMemory(clock)
    texts = [*(f"Kim is allergic to substance{number} and more" for number in range(100)), "nuts and milk make Kim ill"]
    for text in texts:
        clock.now += 1
        reply = await memory.write_if_useful(fact(text, topic="allergies"))
        assert reply.code == MemoryCode.STORED and reply.superseded == ()
    clock.now += 1
    reply = await memory.write_if_useful(fact("Kim is not allergic to substance99 and more", topic="allergies"))
    assert len(reply.superseded) == 1
