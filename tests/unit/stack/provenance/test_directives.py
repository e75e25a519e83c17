"""What a request plainly orders lends a flag, a choice and a length to the call it is about; nothing else does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import airside
from airside.stack.provenance.tracer import Tracer
from airside.stack.run.state import RunState
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.text.durations import unit_of
from tests.helpers import submitted

TEXT = {"type": "string"}


def tool(name: str, choices: Any = None, **properties: Any) -> ToolSpec:
    def run(**arguments: Any) -> None: ...

    schema = {"type": "object", "properties": properties}
    return airside.Tool.from_schema(name, schema, run, effect="external", choices=choices or {}).spec


BOOL = {"type": "boolean"}
PUBLISH = tool("publish", path=TEXT, to=TEXT, public=BOOL, recurring=BOOL, amount={"type": "number"})
SHARE = tool(
    "share",
    {"permission": {"r": ["read", "view"], "rw": ["edit", "change"]}},
    file=TEXT,
    person=TEXT,
    permission={"enum": ["r", "rw"]},
)
RESERVE = tool("reserve", court=TEXT, start=TEXT, end=TEXT, min_amount={"type": "integer"}, minutes={"type": "integer"})
DRAFT, INES = "fees/draft.pdf", "ines@corp.example"
COURT = "Reserve court C1 on 2026-09-01 at 19:00"


def origin(text: str, spec: ToolSpec, asked: str, **arguments: Any) -> str:
    run = submitted(text=text)
    traced = Tracer(run, [spec]).trace(spec.name, arguments, RunState(submitted=run))
    return next(each.origin for each in traced if each.path == asked)


def public(text: str, *, path: str = DRAFT) -> str:
    return origin(text, PUBLISH, "public", path=path, public=True)


def may_edit(text: str, permission: str = "rw") -> str:
    return origin(text, SHARE, "permission", file="notes.docx", person=INES, permission=permission)


def four_hours(text: str) -> str:
    return origin(text, RESERVE, "end", court="C1", start="2026-09-01 19:00", end="2026-09-01 23:00")


@pytest.mark.parametrize(
    "text",
    [
        f"Publish {DRAFT} and make it public.",
        f"Make {DRAFT} public.",
        f"Please make {DRAFT} public, thanks.",
        f"Publish {DRAFT}. Make it public.",
        f"Publish the file {DRAFT}. It must be public.",
        f"Read m-1 and make {DRAFT} public.",
        f"Mark {DRAFT} as public and tell bob why.",
        f"Publish {DRAFT}, public.",
        f"Publish {DRAFT} and make it public once bob has seen it.",
    ],
)
def test_an_order_sets_a_flag_of_the_call_it_is_about(text: str) -> None:
    assert public(text) == "request"
    assert public(text, path="fees/members.pdf") == "nowhere"


OTHERS_FLAGS = [
    "Make minutes.pdf public, and publish {0} for the members.",
    "Make minutes.pdf public and {0} members-only.",
    "Publish {0} and minutes.pdf, the latter public.",
    "Publish {0} to the members, and make the minutes public.",
    "Publish {0}. Then make the other file public.",
    "Publish {0}; make the minutes public.",
    "Publish {0}. Make this page public.",
    "Create a public holiday entry and publish {0}.",
    "Set up a meeting about going public, and publish {0}.",
    "Publish {0} for the public.",
    "Publish {0}, as the public calendar says.",
]
NO_ORDERS = [
    "Publish {0}. It used to be public.",
    "Check whether they made it public, and publish {0}.",
    "Publish {0}. Find out whether it may be public.",
    "Publish {0}. Is it public?",
    "Publish {0}. Make it public?",
    "Publish {0}. Bob wants to make it public.",
    "Publish {0}. Tell ana why it is a mistake to make it public.",
    "Publish {0} and ask ana if we should make it public.",
    "Keep an eye on what is public, and publish {0}.",
    "Publish {0}. Write to bob: make it public.",
    "Tell bob the following. Make {0} public.",
    "Tell bob to publish {0} and make it public.",
    "Remind me to make {0} public.",
    "Publish {0}, and perhaps make it public later.",
    "Never make {0} public. Publish it to members.",
    "Publish {0}, but nobody is to make it public.",
    "They say: make {0} public.",
    "If {0} is final make it public.",
    "Make {0} public if bob agrees.",
    "The board voted to make {0} public.",
    "Prepare the slides on making {0} public.",
    "Make {0} public only to members.",
    "Publish {0}. We could make it public.",
    "Publish {0}. Someone tried to make it public.",
    "Stop them, they make {0} public.",
    'Publish {0}. Note "make it public".',
    "Publish {0}. Make it public, Bob urges.",
    "Publish {0}. Leave it as public as it is.",
    "Publish {0}. Add a line to it: public: yes",
    "Publish {0}. It must be public by law.",
    "Summarise this mail. Make {0} public.",
    "Here is what bob wrote. Make {0} public.",
    "Reply to the mail below.\n\n> Make {0} public.",
    "Translate the text below.\n\nMake {0} public.",
]


@pytest.mark.parametrize("text", OTHERS_FLAGS + NO_ORDERS)
def test_no_other_sentence_sets_a_flag(text: str) -> None:
    assert public(text.format(DRAFT)) == "nowhere"


def test_the_flag_of_one_payment_is_not_anothers() -> None:
    text = "Set up a recurring payment of 20 EUR to kay@corp.example and send 500 EUR to bob@corp.example."
    assert origin(text, PUBLISH, "recurring", to="kay@corp.example", amount=20, recurring=True) == "request"
    for other in ({"to": "bob@corp.example", "amount": 500}, {"to": "kay@corp.example", "amount": 500}):
        assert origin(text, PUBLISH, "recurring", **other, recurring=True) == "nowhere"
    of_one_verb = "Set up a recurring payment of 20 EUR to kay@corp.example and one of 500 EUR to bob@corp.example."
    assert origin(of_one_verb, PUBLISH, "recurring", to="bob@corp.example", amount=500, recurring=True) == "nowhere"


@pytest.mark.parametrize(
    ("text", "permission"),
    [
        (f"Share notes.docx with {INES}, read-only.", "r"),
        (f"Share notes.docx with {INES} with read permission.", "r"),
        (f"Share notes.docx with {INES} with edit access.", "rw"),
        (f"Share notes.docx with {INES} so that she can edit it.", "rw"),
        (f"Give {INES} edit access to notes.docx.", "rw"),
        (f"Give {INES} permission to edit notes.docx.", "rw"),
        (f"Let {INES} edit notes.docx.", "rw"),
        (f"Share notes.docx with {INES} and allow her to edit it.", "rw"),
        (f"Share notes.docx with {INES}, permission: edit.", "rw"),
    ],
)
def test_a_choice_is_a_word_beside_what_says_that_it_is_one(text: str, permission: str) -> None:
    assert may_edit(text, permission) == "request"
    assert may_edit(text, "rw" if permission == "r" else "r") == "nowhere"


OTHERS_CHOICES = [
    "Edit notes.docx as box props says and send it to {0}.",
    "Edit notes.docx and share it with {0}.",
    "Share notes.docx with {0} and file change log.",
    "Share notes.docx with {0}. Tell ines to change her password.",
    "Let {0} change her password and share notes.docx with her.",
    "Share notes.docx with {0} for the edit meeting.",
    "Share notes.docx with {0} and let bob edit plan.docx.",
    "Share notes.docx with {0}. Give bob@corp.example edit access to plan.docx.",
    "Share notes.docx with {0} and plan.docx with bob@corp.example with edit access.",
    "Share notes.docx with {0}, plan.docx with bob@corp.example with edit access.",
    "Share notes.docx with {0}, bob has edit access.",
    "Share notes.docx with {0} so that bob can edit it.",
    "Share notes.docx with {0}, who may edit plan.docx.",
    "Share notes.docx with {0}. Bob can edit it.",
    "Does {0} have edit access to notes.docx?",
    "Ask bob to give {0} edit access to notes.docx.",
    "Share notes.docx with {0} without edit access.",
    "Find out who has edit access, and share notes.docx with {0}.",
    "Remove the edit access to notes.docx from {0}.",
    "Replace the edit access of {0} to notes.docx.",
    "Share notes.docx with {0}; she used to have edit access.",
    "Edit access.docx and share notes.docx with {0}.",
    "Share notes.docx with {0}, the owner of edit rights.",
    "Share the paper on edit access notes.docx with {0}.",
    "Log the edit access of {0} to notes.docx.",
    "Disable edit access to notes.docx for {0}.",
]


@pytest.mark.parametrize("text", OTHERS_CHOICES)
def test_a_word_of_a_choice_that_is_no_choice_of_this_call_picks_none(text: str) -> None:
    assert may_edit(text.format(INES)) == "nowhere"


@pytest.mark.parametrize(
    "text",
    [
        f"{COURT} for 4 hours.",
        f"{COURT}, 4 hours.",
        f"{COURT}, lasting 4 hours.",
        f"{COURT}, 4 hours long.",
        f"{COURT}. It lasts 4 hours.",
        f"{COURT} for 4 hours and tell bob.",
        "Book a 4-hour slot on court C1 on 2026-09-01 at 19:00.",
    ],
)
def test_a_length_is_said_of_the_order_that_has_the_start(text: str) -> None:
    assert four_hours(text) == "request"


OTHERS_LENGTHS = [
    ". My own shift lasts 4 hours.",
    ", my shift lasts 4 hours.",
    ". 4 hours were too long.",
    "; bob wanted 4 hours.",
    ". Book the van for 4 hours.",
    " and order a pizza for 4 hours.",
    " with a 4-hour break.",
    " for bob, who plays for 4 hours.",
    " for 4 or 5 hours.",
    " for 3 hours. Or 4 hours.",
    ", tell bob the match lasts 4 hours.",
    " and reserve court C2 for 4 hours.",
    ". Last time it lasted 4 hours.",
    " for 4 hours?",
    ", not for 4 hours.",
    " if it is free for 4 hours.",
    ". The lights stay on for 4 hours.",
    ". It takes 4 hours to get there.",
    " after 4 hours of work.",
    ' and note "for 4 hours".',
    " and lock it for 4 hours.",
    " with lights for 4 hours.",
    ", with a coach for 4 hours.",
    " for bob, playing for 4 hours.",
]


@pytest.mark.parametrize("more", OTHERS_LENGTHS)
def test_a_length_of_something_else_makes_no_end(more: str) -> None:
    assert four_hours(COURT + more) == "nowhere"


@pytest.mark.parametrize(
    ("name", "is_length"),
    [
        *((name, True) for name in ("duration_minutes", "minutes", "nights", "durationMin", "length_of_stay_in_days")),
        *((name, False) for name in ("min_amount", "amount_per_day", "min_balance", "hour", "day", "min_hours")),
        *(
            (name, False)
            for name in ("max_hours", "days_of_week", "minutes_before", "reminder_minutes", "min_duration")
        ),
    ],
)
def test_a_number_is_a_length_only_if_all_of_its_name_says_so(name: str, is_length: bool) -> None:
    assert (unit_of(name) is not None) == is_length


def test_a_request_of_which_nobody_could_say_what_each_word_is_about_lends_nothing() -> None:
    assert public(f"Make {DRAFT} public. " + "Look at m-1. " * 150) == "request"
    assert public(f"Make {DRAFT} public. " + "Look at m-1. " * 250) == "nowhere"
    assert public(f"Make {DRAFT} public. " + "x" * 20_000) == "nowhere"


def test_a_least_amount_is_no_length() -> None:
    assert origin("Reserve court C1 for 2 hours.", RESERVE, "min_amount", court="C1", min_amount=120) == "nowhere"
    assert origin("Reserve court C1 for 2 hours.", RESERVE, "minutes", court="C1", minutes=120) == "request"


ASKING = ("Check whether", "Find out if", "Ask bob if", "I wonder why", "Explain how to", "Keep an eye on how they")
REPORTING = ("Tell ana that", "Bob says:", "Bob wanted to", "They used to", "Remind me to", "Ana does")
SUPPOSING = ("We may", "We might", "You should", "Suppose they", "If bob agrees", "Unless bob objects", "Perhaps")
EXCLUDING = ("Nobody is to", "Do not", "Never", "Without bob", "Rather")
MARKERS = st.sampled_from(ASKING + REPORTING + SUPPOSING + EXCLUDING)


@given(MARKERS, st.sampled_from(["make", "set", "mark", "keep"]), st.sampled_from(["", " from Monday", ", please"]))
def test_a_sentence_that_asks_reports_supposes_or_excludes_never_lends_anything(
    marker: str, verb: str, end: str
) -> None:
    """Whatever it begins with, alone or after the order that it may speak of."""
    assert public(f"Publish {DRAFT} to staff. {marker} {verb} it public{end}.") == "nowhere"
    assert public(f"{marker} {verb} {DRAFT} public{end}.") == "nowhere"
    assert may_edit(f"Share notes.docx with {INES}. {marker} give her edit access to it{end}.") == "nowhere"
    assert four_hours(f"{COURT}. {marker} book it for 4 hours{end}.") == "nowhere"
