"""Whose a batch is: as it is said, else whose all its jobs are, else nobody's."""

from __future__ import annotations

import pytest

from airside.batches.columns import Columns
from airside.batches.options import owner_of
from airside.stack.errors import InvalidId


@pytest.mark.parametrize(
    ("named", "columns", "owner"),
    [
        ("", None, ("", "")),
        ("acme", None, ("acme", "")),
        ("acme/ana", None, ("acme", "ana")),
        ("", {"tenant": "=acme", "principal": "=ana"}, ("acme", "ana")),
        ("", {"tenant": "=acme", "principal": "who"}, ("acme", "")),
        ("", {"tenant": "shop", "principal": "=ana"}, ("", "")),
        ("beta", {"tenant": "=acme", "principal": "=ana"}, ("beta", "")),
    ],
)
def test_a_batch_is_whose_it_is_said_to_be(named: str, columns: dict[str, str] | None, owner: tuple[str, str]) -> None:
    assert owner_of(named, Columns.of(columns)) == owner


@pytest.mark.parametrize("named", ["/ana", "a b", "acme/", "acme/a b", "x" * 99])
def test_what_names_nobody_is_refused(named: str) -> None:
    """Also a slash without one of the two, which is a slip, and neither the house nor the tenant."""
    with pytest.raises(InvalidId):
        owner_of(named, Columns.of(None))
