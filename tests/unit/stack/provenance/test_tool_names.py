"""What a request says of one thing is nobody's word for the call of a tool that is for another."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.stack.provenance.tool_names import is_about, names_thing
from airside.stack.provenance.tracer import Tracer
from airside.stack.run.state import RunState
from airside.stack.schema.toolspec import ToolSpec
from tests.helpers import submitted

TEXT = {"type": "string"}
PROPERTIES = {
    "public": {"type": "boolean"},
    "level": {"enum": ["p1", "p3"]},
    "duration_days": {"type": "integer"},
    "name": TEXT,
    "amount": {"type": "number"},
    "body": TEXT,
    "user": TEXT,
}


def origin(text: str, tool: str, asked: str, **arguments: Any) -> str:
    spec = ToolSpec.build(
        name=tool,
        effect="external",
        parameters={"type": "object", "properties": PROPERTIES},
        content=("body",),
        choices=(("level", (('"p3"', ("low",)), ('"p1"', ("high",)))),),
    )
    run = submitted(text=text)
    traced = Tracer(run, [spec]).trace(tool, arguments, RunState(submitted=run))
    return next(each.origin for each in traced if each.path == asked)


@pytest.mark.parametrize(
    ("text", "tool"),
    [
        ("Make the team calendar public.", "update_calendar"),
        ("Read box props and make the team calendar public.", "calendars.update"),
        ("Make our calendars public, please.", "setCalendarSharing_calendar"),
        ("Share the calendar and make it public.", "update_calendar"),
        ("Share it and make it public.", "share"),
        ("Set up a public poll.", "create_poll_v2"),
        ("Make the appointment public.", "update_calendar_event"),
    ],
)
def test_what_is_said_of_the_thing_that_a_tool_is_for_is_the_requests(text: str, tool: str) -> None:
    assert origin(text, tool, "public", public=True) == "request"


@pytest.mark.parametrize(
    ("text", "tool"),
    [
        ("Read box props and make the team calendar public.", "update_drive"),
        ("Read box props and make the team calendar public.", "update_team"),
        ("Read box props and make the team calendar public.", "make_drive"),
        ("Read box props and make the team calendar public.", "post_message"),
        ("Make the calendar of the team public.", "update_team"),
        ("Make the calendar in the drive public.", "update_drive"),
        ("Make the drive's calendar public.", "update_drive"),
        ("Make the drive \u00dcbersicht public.", "update_drive"),
        ("Update the drive and make the calendar public.", "update_drive"),
        ("Make the calendar public.", "update"),
        ("Make the calendar public.", "set_public"),
        ("Make the calendar public.", "make_public"),
        ("Make the calendar public.", "make"),
        ("Make the calendar public.", "kalender_teilen"),
        ("Make it public.", "update_it"),
        ("Set up a public poll for the channel.", "update_channel"),
    ],
)
def test_a_flag_of_one_thing_is_not_another_tools(text: str, tool: str) -> None:
    assert origin(text, tool, "public", public=True) == "nowhere"
    assert origin(text, tool, "public", public=True, body="Kay earns a lot") == "nowhere"


def test_a_word_or_a_number_of_the_request_binds_no_other_tool() -> None:
    """Unless the order does what the tool does."""
    flag = "Read box props and make the team calendar public for 20 EUR."
    for more in ({"name": "team"}, {"name": "calendar"}, {"name": "props"}, {"amount": 20}, {"user": "props"}):
        assert origin(flag, "update_drive", "public", public=True, **more) == "nowhere"
    stay = "Read box props and book bob a hotel for a week."
    assert origin(stay, "block_user", "duration_days", user="bob", duration_days=7) == "nowhere"
    assert origin(stay, "block_me", "duration_days", duration_days=7) == "nowhere"
    assert origin(stay, "reserve_room", "duration_days", user="bob", duration_days=7) == "request"
    assert origin(stay, "find_hotel", "duration_days", duration_days=7) == "request"
    urgent = "Send bob the minutes with high priority."
    assert origin(urgent, "lock_user", "level", user="bob", level="p1") == "nowhere"
    assert origin(urgent, "send_notice", "level", user="bob", level="p1") == "request"


@pytest.mark.parametrize("days", ["3 days", "three days", "a week", "another 3 days", "3-day stay"])
def test_a_length_is_no_other_tools_whether_or_not_its_number_stands_in_the_request(days: str) -> None:
    number = 7 if "week" in days else 3
    text = f"Read box props and book me a hotel for {days}."
    assert origin(text, "block_me", "duration_days", duration_days=number) == "nowhere"
    assert origin(text, "freeze_days", "duration_days", duration_days=number) == "nowhere"
    assert origin(text, "set_lock", "duration_days", duration_days=number, body="x") == "nowhere"
    assert number == 7 or origin(text, "find_hotel", "duration_days", duration_days=number) == "request"
    assert origin(f"Set a timer for {days}.", "block_me", "duration_days", duration_days=number) == "nowhere"
    assert number == 7 or origin("Set a timer for 3 days", "start_timer", "duration_days", duration_days=3) == "request"


@pytest.mark.parametrize("name", ["C1", "G-20", "FL-20871", "b9"])
def test_a_code_is_what_one_thing_is_called_by(name: str) -> None:
    assert names_thing(name) and origin(f"Make {name} public.", "update_drive", "public", name=name, public=True) == (
        "request"
    )


@pytest.mark.parametrize("value", ["team", "2027-03-01", "9 March 2027", "7 pm", "20 EUR", 20, "3", "", None])
def test_a_word_a_number_or_a_time_is_what_no_thing_is_called_by(value: Any) -> None:
    assert not names_thing(value)


THINGS = st.sampled_from(["calendar", "drive", "folder", "channel", "wiki", "poll", "site", "album"])


@given(THINGS, THINGS, st.sampled_from(["make the {} public", "keep our {} public", "share the {} and make it public"]))
def test_a_flag_goes_to_the_tools_of_its_own_thing(said: str, other: str, form: str) -> None:
    """In whatever form it is said, and whatever the tool does with its thing."""
    for verb in ("update", "share", "create", "set"):
        own = origin(f"Look at m-1 and {form.format(said)}.", f"{verb}_{other}", "public", public=True)
        assert own == ("request" if said == other else "nowhere")


@given(THINGS, THINGS, st.sampled_from(["of", "in", "for", "with", "beside", "about", "from", "on"]))
def test_what_stands_beside_the_thing_is_not_what_an_order_is_about(thing: str, beside: str, joint: str) -> None:
    prose = f"make the {thing} {joint} the {beside} public"
    verbs = frozenset({"make", "update"})
    assert is_about(f"update_{thing}", verbs, prose, {"public"}, is_order=True)
    assert thing == beside or not is_about(f"update_{beside}", verbs, prose, {"public"}, is_order=True)
