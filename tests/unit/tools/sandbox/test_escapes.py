"""Attempts to break out of a sandbox are held, each for real, and none leaves a process."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import get_args

import pytest

from airside.stack.values import SandboxLevel
from tests.escape_attempts import ATTEMPTS
from tests.escape_probes import ALONE, ONLY_FULL, alone, attempts


@cache
def found_at(level: SandboxLevel) -> dict[str, str]:
    """Return what the attempts came to that share one sandbox."""
    return asyncio.run(attempts(level))


@pytest.mark.parametrize("name", [*ATTEMPTS, "reach_the_machine"])
def test_the_full_level_holds(name: str) -> None:
    assert found_at("full")[name] == ""


@pytest.mark.parametrize("name", [each for each in ATTEMPTS if each not in ONLY_FULL.split()])
def test_namespaces_hold_by_themselves(name: str) -> None:
    """What Landlock and seccomp do not have to hold."""
    assert found_at("namespaces")[name] == ""


@pytest.mark.parametrize("name", ALONE)
async def test_what_a_program_does_without_end_ends(name: str) -> None:
    assert await alone(name, "full") == ""


def test_the_table_is_whole() -> None:
    assert set(ONLY_FULL.split()) <= set(ATTEMPTS) and len(ATTEMPTS) + len(ALONE) > 90
    assert get_args(SandboxLevel) == ("none", "namespaces", "full")
