# ruff: noqa: RUF001 - look-alike letters are what these tests are about
"""Ids: what parses, what does not, and what is derived from what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.stack import ids
from airside.stack.errors import InvalidId
from tests.helpers import RUN

HEX = "0123456789abcdef01234567"
GOOD: list[tuple[Callable[[object], str], str]] = [
    (ids.parse_tenant, "a"),
    (ids.parse_tenant, "0-a_b"),
    (ids.parse_tenant, "a" * 63),
    (ids.parse_principal, "Ann.B+c@d.example_1-2"),
    (ids.parse_principal, "a" * 128),
    (ids.parse_run, f"run_{HEX}"),
    (ids.parse_run, f"run_{HEX}.1-0.22-3"),
    (ids.parse_run, f"run_{HEX}" + ".1-0" * 8),
    (ids.parse_approval, f"apr_run_{HEX}.1-0_7_{HEX[:12]}"),
]
BAD: list[tuple[Callable[[object], str], Any]] = [
    *[(ids.parse_tenant, bad) for bad in ("", "A", "-a", "_a", "a" * 64, "a.b", "a/b", "a b", "..", "a'", "a%", "a*")],
    *[(ids.parse_tenant, bad) for bad in ("а", "ａ", "a\n", "\na", "a\x00", "é", "a\u200b", 5, None, b"a", ["a"])],
    *[(ids.parse_principal, bad) for bad in ("", ".a", "a b", "a/b", "a" * 129, "a\n", "ａ", "a'--", 5, None)],
    *[(ids.parse_run, bad) for bad in (HEX, f"run_{HEX[:-1]}", f"run_{HEX}0", f"run_{HEX.upper()}", f"run_{HEX}\n")],
    *[(ids.parse_run, bad) for bad in (f"run_{HEX}.1", f"run_{HEX}.-1-1", f"run_{HEX}" + ".1-0" * 9, "run_", 1)],
    *[(ids.parse_approval, bad) for bad in ("apr_", f"apr_run_{HEX}", f"apr_run_{HEX}_1_{HEX[:11]}", None)],
]


@pytest.mark.parametrize(("parse", "text"), GOOD)
def test_an_id_of_the_form_parses_to_itself(parse: Callable[[object], str], text: str) -> None:
    assert parse(text) == text


@pytest.mark.parametrize(("parse", "text"), BAD)
def test_anything_else_is_refused_naming_the_kind(parse: Callable[[object], str], text: Any) -> None:
    kind = parse.__name__.removeprefix("parse_")
    with pytest.raises(InvalidId, match=f"is not a {kind} id"):
        parse(text)


@given(text=st.text(max_size=20))
def test_a_tenant_id_never_carries_a_quote_a_separator_or_a_wildcard(text: str) -> None:
    try:
        tenant = ids.parse_tenant(text)
    except InvalidId:
        return
    assert tenant.isascii() and not set(tenant) & set("'\"/\\.*%?;: \n\0") and tenant == tenant.lower()


def test_a_refusal_does_not_repeat_a_huge_id() -> None:
    with pytest.raises(InvalidId) as caught:
        ids.parse_tenant("x" * 1_000_000)
    assert len(caught.value.message) < 300


def counting() -> ids.Randomness:
    """Return numbers instead of randomness."""
    count = iter(range(256))
    return lambda n: next(count).to_bytes(n, "big")


def test_minted_ids_are_prefixed_parse_and_take_96_bits_of_the_given_randomness() -> None:
    random = counting()
    assert ids.mint_run(random) == "run_" + "0" * 24 and ids.mint_run(random) == "run_" + "0" * 23 + "1"
    assert ids.mint_executor(random).startswith("exe_")
    assert ids.parse_run(ids.mint_run()) != ids.mint_run()


def test_derived_ids_are_the_same_for_the_same_and_parse() -> None:
    child = ids.child_run(ids.child_run(RUN, 2, 0), 13, 4)
    assert ids.parse_run(child) == f"{RUN}.2-0.13-4"
    approval = ids.approval_for(child, 7, "f" * 64)
    assert ids.parse_approval(approval) == approval == ids.approval_for(child, 7, "f" * 64)


@given(
    one=st.tuples(st.integers(0, 99), st.integers(0, 99)),
    other=st.tuples(st.integers(0, 99), st.integers(0, 99)),
)
def test_different_steps_and_runs_never_share_an_effect_key(one: tuple[int, int], other: tuple[int, int]) -> None:
    def key(pair: tuple[int, int]) -> str:
        return ids.effect_key(ids.child_run(RUN, pair[0], 0), pair[1])

    assert (key(one) == key(other)) is (one == other)


def test_the_approval_of_a_late_step_parses() -> None:
    ids.parse_approval(ids.approval_for(RUN, 10_000, "f" * 64))


def test_a_request_sent_again_has_the_same_id_and_nobody_elses_has() -> None:
    ann, acme = ids.PrincipalId("ann"), ids.TenantId("acme")
    one = ids.request_for(acme, ann, b"n")
    assert one == ids.request_for(acme, ann, b"n") and one.startswith("req_")
    others = {
        ids.request_for(acme, ann, b"m"),
        ids.request_for(acme, ids.PrincipalId("bob"), b"n"),
        ids.request_for(ids.TenantId("globex"), ann, b"n"),
    }
    assert len(others) == 3 and one not in others


@pytest.mark.parametrize("kind", [ids.approval_for, ids.group_for])
def test_a_shortened_id_is_not_taken_for_a_whole_one(kind: Callable[[ids.RunId, int, str], str]) -> None:
    whole = kind(ids.child_run(ids.mint_run(), 2, 1), 3, "0123456789abcdef")
    assert (
        ids.is_whole_approval(whole) and not ids.is_whole_approval(whole[:-1]) and not ids.is_whole_approval(whole[5:])
    )
