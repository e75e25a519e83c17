"""Moments: a day or a time is found however a request writes it, and no other one is."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.stack.provenance.matching import SearchableText
from airside.stack.text.dates import days_in, minutes_in, parse_iso

WRITTEN = date(2024, 5, 29)
DAYS = {
    "3 June 2024": "2024-06-03",
    "the 3rd of June, 2024": "2024-06-03",
    "June 3rd, 2024": "2024-06-03",
    "Jun. 3 2024": "2024-06-03",
    "3. Juni 2024": "2024-06-03",
    "3 juin 2024": "2024-06-03",
    "03.06.2024": "2024-06-03",
    "13/06/2024": "2024-06-13",
    "6/13/2024": "2024-06-13",
    "June 3": "2024-06-03",
    "May 28": "2024-05-28",
    "May 27": "2025-05-27",
    "3 January": "2025-01-03",
}
TIMES = {
    "7pm": "19:00",
    "7 p.m.": "19:00",
    "6:30 pm": "18:30",
    "12 am": "00:00",
    "15:00": "15:00",
    "15:00-16:30": "16:30",
    "15 Uhr": "15:00",
    "9.30 Uhr": "09:30",
    "14h30": "14:30",
}


@pytest.mark.parametrize("text", DAYS)
def test_a_day_is_found_however_it_is_written(text: str) -> None:
    assert SearchableText(f"Meet on {text} please.", written=WRITTEN).has(DAYS[text])


@pytest.mark.parametrize("text", TIMES)
def test_a_time_is_found_however_it_is_written(text: str) -> None:
    assert SearchableText(f"Meet at {text}, please").has(TIMES[text])


def test_a_moment_is_a_day_and_a_time_of_one_source() -> None:
    hay = SearchableText("Meet on 3 June 2024 at 7 pm.")
    assert hay.has("2024-06-03T19:00") and hay.has("2024-06-03 19:00:00")
    absent = ("2024-06-03T07:00", "2024-06-04T19:00", "2024-06-03T19:00Z", "2024-06-03T19:00:30", "2024-6-3", "19:0")
    assert not any(hay.has(value) for value in absent)


@pytest.mark.parametrize("text", ["03/06/2024", "31 June 2024", "30.02.2024", "v3.06.2024.1", "2024-06-031"])
def test_what_may_be_another_day_is_none(text: str) -> None:
    assert not any(
        SearchableText(text, written=WRITTEN).has(f"2024-{at}") for at in ("06-03", "03-06", "06-30", "02-28")
    )


def test_a_day_without_a_year_is_none_where_nobody_knows_when_it_was_written() -> None:
    assert list(days_in("june 3", None)) == [] and list(days_in("29 february", WRITTEN)) == []


def test_money_and_versions_are_no_times() -> None:
    assert list(minutes_in("9.30 eur, 24:00, 7, v1:30, 10:75, 1:2:3, 3pm.x, 3pm/x, 15:00@x, 9h30.x")) == []


@given(st.dates(date(2024, 5, 29), date(2025, 5, 27)), st.sampled_from(["{:%-d %B}", "{:%B %-d}", "{:%-d. %b.}"]))
def test_a_day_without_a_year_is_the_next_one(day: date, form: str) -> None:
    """And no other day is found."""
    hay = SearchableText(f"on {form.format(day)}, please", written=WRITTEN)
    assert hay.has(day.isoformat())
    assert not any(hay.has((day + timedelta(days=days)).isoformat()) for days in (-365, -1, 1, 365))


@given(st.text("0123456789-:T Z", max_size=20))
def test_a_value_that_is_no_moment_means_none(value: str) -> None:
    found = parse_iso(value)
    assert found is None or value[:2].isdigit()


def test_noon_and_midnight_are_times() -> None:
    assert list(minutes_in("from noon to midnight")) == [720, 0]
    assert list(minutes_in("the noon news and at midnight-blue")) == []
