"""An end is the request's if it is a start of the request and a length of it; no other end is."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.stack.provenance.tracer import Tracer
from airside.stack.run.state import RunState
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.text.dates import DateTime, parse_any_form
from airside.stack.text.durations import lengths_in, sibling_start
from tests.helpers import submitted

TEXT = {"type": "string"}
NAMES = ("day", "start", "end", "start_time", "end_time", "check_in", "check_out", "from", "until", "place")
BOOK = ToolSpec.build(
    name="book",
    effect="external",
    parameters={
        "type": "object",
        "properties": {
            **dict.fromkeys(NAMES, TEXT),
            **{name: {"type": "number"} for name in ("duration_minutes", "hours", "nights", "amount")},
            "slot": {"type": "object", "properties": {"start": TEXT, "end": TEXT}},
        },
    },
)


def origins(text: str, **arguments: Any) -> dict[str, str]:
    run = submitted(text=text)
    return {each.path: each.origin for each in Tracer(run, [BOOK]).trace("book", arguments, RunState(submitted=run))}


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("it lasts an hour", [60]),
        ("for 1h", [60]),
        ("a 90-minute call", [90]),
        ("for an hour and a half", [90]),
        ("for two and a half hours", [150]),
        ("for 1 hour and 30 minutes", [90]),
        ("for 1 hour 15 min", [75]),
        ("for 1h 30m", [90]),
        ("for 1.5 hours", [90]),
        ("half an hour", [30]),
        ("three quarters of an hour", [45]),
        ("for 5 nights", [5 * 1440]),
        ("zwei stunden", [120]),
        ("for two weeks", [14 * 1440]),
        ("5 days and 4 nights", [5 * 1440, 4 * 1440]),
        ("it should last 2 hours and include ann", [120]),
        ("create an hour-long event", [60]),
        ("a one-hour event", [60]),
        ("lasting 45 mins", [45]),
        ("duration: 1.5h", [90]),
        ("from 2pm for 3hrs", [180]),
        ("all of the last 2 hours", []),
        ("in 2 hours", []),
        ("within the next 2 hours", []),
        ("every two weeks", []),
        ("30 minutes before", []),
        ("2 days ago", []),
        ("at 19 h", []),
        ("20 eur an hour", []),
        ("once an hour", []),
        ("3 times a day", []),
        ("8 hours a day", []),
        ("pick a day", []),
        ("a week of it", []),
        ("at least 2 hours", []),
        ("12-5 hours", []),
        ("1.500 minutes", []),
        ("a1 hour", []),
    ],
)
def test_a_length_is_what_something_lasts_and_not_when_or_how_often(text: str, minutes: list[int]) -> None:
    assert [each.lasts // timedelta(minutes=1) for each in lengths_in(text)] == minutes


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("2026-06-03", DateTime(date(2026, 6, 3), None)),
        ("June 3, 2026 at 7:30 pm", DateTime(date(2026, 6, 3), 1170)),
        ("3 June 2026, 19:30", DateTime(date(2026, 6, 3), 1170)),
        ("03.06.2026 19:30", DateTime(date(2026, 6, 3), 1170)),
        ("7 pm", DateTime(None, 1140)),
        ("19:30 and eve", None),
        ("03/06/2026", None),
        ("7", None),
        ("3 June", None),
        ("2026-06-03 19:30 and a bit more than one would think", None),
        ("2026-06-03T19:30:00Z", None),
    ],
)
def test_a_value_is_a_moment_only_if_it_is_nothing_else(value: str, meant: DateTime | None) -> None:
    assert parse_any_form(value) == meant


MOMENTS = st.datetimes(min_value=datetime(2026, 6, 1), max_value=datetime(2027, 11, 30)).map(
    lambda when: when.replace(second=0, microsecond=0)
)
LENGTHS = st.sampled_from(
    [("an hour", 60), ("90 minutes", 90), ("2 hours", 120), ("half an hour", 30), ("10 hours", 600), ("1h", 60)]
)
FORMS = st.sampled_from(["%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:00", "%d.%m.%Y %H:%M", "%d %B %Y, %I:%M %p"])
SHIFTS = st.integers(min_value=-3000, max_value=3000).filter(lambda minutes: minutes != 0)


@given(MOMENTS, LENGTHS, FORMS, FORMS, SHIFTS)
def test_an_end_is_exactly_the_start_and_the_length_whatever_its_form(
    start: datetime, length: tuple[str, int], one: str, other: str, shift: int
) -> None:
    """Over midnight and the ends of months too; an end that differs by a minute is nobody's."""
    text = f"Book it on {start:%Y-%m-%d} at {start:%H:%M} for {length[0]}."
    end = start + timedelta(minutes=length[1])
    assert origins(text, start=start.strftime(one), end=end.strftime(other)) == {"start": "request", "end": "request"}
    wrong = end + timedelta(minutes=shift)
    if wrong not in (start, start.replace(hour=wrong.hour, minute=wrong.minute)) and wrong.time() != start.time():
        assert origins(text, start=start.strftime(one), end=wrong.strftime(other))["end"] == "nowhere"


@pytest.mark.parametrize(
    ("text", "arguments", "is_said"),
    [
        ("Stay from 2026-12-28 for 5 nights.", {"check_in": "2026-12-28", "check_out": "2027-01-02"}, True),
        ("Stay from 2026-12-28 for 5 nights.", {"check_in": "2026-12-28", "check_out": "2027-01-03"}, False),
        ("Stay from 2026-12-28 for 5 nights.", {"check_in": "2026-12-29", "check_out": "2027-01-03"}, False),
        ("From 22:00 for 8 hours.", {"start_time": "22:00", "end_time": "06:00"}, True),
        ("From 22:00 for 8 hours.", {"from": "22:00", "until": "06:00"}, True),
        ("On 2026-12-28 at 9:00, 2 hours.", {"slot": {"start": "2026-12-28 09:00", "end": "2026-12-28 11:00"}}, True),
        # The length belongs to the sentence that names the start.
        ("The first at 9:00 for 2 hours. The other at 14:00 for 1 hour.", {"start": "14:00", "end": "15:00"}, True),
        ("The first at 9:00 for 2 hours. The other at 14:00 for 1 hour.", {"start": "14:00", "end": "16:00"}, False),
        ("At 9:00, for 1 hour or 2 hours.", {"start": "09:00", "end": "10:00"}, False),
        # What the request says not to take, what it quotes, and what is no length.
        ("At 9:00. Not for 2 hours.", {"start": "09:00", "end": "11:00"}, False),
        ('At 9:00. Call it "for 2 hours".', {"start": "09:00", "end": "11:00"}, False),
        ("At 9:00, and remind me 2 hours before.", {"start": "09:00", "end": "11:00"}, False),
        # An argument that is no end, or has no start, or two.
        ("At 9:00 for 2 hours.", {"start": "09:00", "place": "11:00"}, False),
        ("At 9:00 for 2 hours.", {"day": "09:00", "end": "11:00"}, False),
        ("At 9:00 for 2 hours.", {"start": "09:00", "from": "09:00", "until": "11:00"}, False),
        ("At 9:00 for 2 hours.", {"start": "09:00", "slot": {"end": "11:00"}}, False),
        ("On 2026-12-28 for 2 hours.", {"start": "2026-12-28", "end": "2026-12-30"}, False),
        ("At 9:00 for 2 days.", {"start": "09:00", "end": "09:00:00"}, True),
    ],
)
def test_a_length_makes_an_end_of_the_start_beside_it(text: str, arguments: dict[str, Any], is_said: bool) -> None:
    found = origins(text, **arguments)
    assert (
        found[max(found, key=lambda path: any(w in path for w in ("end", "out", "until", "place")))] == "request"
    ) == (is_said)


@pytest.mark.parametrize(
    ("text", "arguments", "is_said"),
    [
        ("Book it for an hour and a half.", {"duration_minutes": 90}, True),
        ("Call for an hour and a half.", {"duration_minutes": 90}, False),
        ("Book it for an hour and a half.", {"hours": 1.5}, True),
        ("Book it for an hour and a half.", {"duration_minutes": 60}, False),
        ("Book it for an hour and a half.", {"amount": 90}, False),
        ("Book it for a week.", {"nights": 7}, True),
        ("Call in an hour.", {"duration_minutes": 60}, False),
        ("For an hour or 2 hours.", {"duration_minutes": 60}, False),
    ],
)
def test_a_length_may_be_given_in_the_unit_of_an_arguments_name(
    text: str, arguments: dict[str, Any], is_said: bool
) -> None:
    assert (list(origins(text, **arguments).values()) == ["request"]) == is_said


def test_the_start_beside_an_end_is_the_one_that_is_called_like_it() -> None:
    both = {"start_time": "09:00", "start_day": "2026-06-03"}
    assert (sibling_start("end_time", both), sibling_start("end_day", both)) == ("start_time", "start_day")
    assert sibling_start("end", both) == ""
    assert sibling_start("newEndTime", {"newStartTime": "09:00", "from": "09:00"}) == "newStartTime"
