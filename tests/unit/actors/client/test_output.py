"""What the command line prints: JSON for every reader of JSON."""

from __future__ import annotations

import json
import math
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from airside.output import json_line


def strict(text: str) -> Any:
    """Read JSON as its standard has it."""

    def no_constant(name: str) -> Any:
        raise ValueError(name)

    return json.loads(text, parse_constant=no_constant)


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ({"a": math.nan, "b": [math.inf, -math.inf, 1.5]}, {"a": "NaN", "b": ["Infinity", "-Infinity", 1.5]}),
        ({"at": date(2026, 1, 2), "sum": Decimal("1.10")}, {"at": "2026-01-02", "sum": "1.10"}),
        ({"seal": b"\x00\xff", "n": None, "t": True}, {"seal": "00ff", "n": None, "t": True}),
        ({"nested": {"x": (math.nan, b"a")}}, {"nested": {"x": ["NaN", "61"]}}),
        ({math.nan: "\ud800"}, {"nan": "\ud800"}),
    ],
)
def test_whatever_a_row_has_is_valid_json(value: Any, read: Any) -> None:
    assert strict(json_line(value)) == read
    json_line(value).encode()
