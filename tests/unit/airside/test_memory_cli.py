"""`airside memory erase` shows what goes, what stays, and why."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from airside.cli import app
from airside.memory.storage.erasure_plan import ErasureReceipt, Reached
from airside.stack.ids import TenantId

OWN, SAID, LEFT = (f"mem_{number:024x}" for number in range(3))


class Memory:
    """A stack's memory that says what it was asked, and plans three records."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}

    def erase(self, **asked: Any) -> ErasureReceipt:
        """Take note, and answer."""
        self.asked = asked
        return ErasureReceipt(
            tenant=TenantId("acme"),
            what="subject",
            target="ana",
            records=(OWN, SAID),
            at_us=1,
            dry_run=asked["dry_run"],
            taken=(
                Reached(record_id=OWN, why="own", digest="a"),
                Reached(record_id=SAID, why="shown", digest="b", others=True),
            ),
            left=(Reached(record_id=LEFT, why="repeats", digest="c"),),
            untraced=4,
        )

    def records(self, **_: Any) -> list[Any]:
        """Return what is there with its text."""
        return [SimpleNamespace(record_id=LEFT, text="Ana was here")]


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    """The memory of the stack that a command reaches."""
    there = Memory()

    @contextlib.contextmanager
    def attached(*_: Any) -> Iterator[Any]:
        yield SimpleNamespace(memory=there)

    monkeypatch.setattr("airside.cli.attached", attached)
    return there


@pytest.mark.parametrize("dry_run", [True, False])
def test_each_record_is_shown_with_why_it_goes_or_stays(memory: Memory, dry_run: bool) -> None:
    arguments = ["memory", "erase", "--tenant", "acme", "--subject", "ana", "--keep", LEFT, "--only", "repeats"]
    done = CliRunner().invoke(app, [*arguments, *(["--dry-run"] if dry_run else [])])
    assert done.exit_code == 0, done.output
    going, doing = ("would go", "would be erased") if dry_run else ("erased", "erased")
    assert done.output.splitlines() == [
        f"2 records {doing}: 1 own, 1 shown; 1 of them are about other subjects too; "
        "1 that derive from it are left; 4 records of before have no lineage",
        f"{OWN}  {going}  own",
        f"{SAID}  {going}  shown, about others too",
        f"{LEFT}  left  repeats  Ana was here",
    ]
    assert memory.asked["keep"] == [LEFT] and memory.asked["only"] == "repeats"


def test_what_is_no_choice_is_refused_before_a_stack_is_asked(memory: Memory) -> None:
    done = CliRunner().invoke(app, ["memory", "erase", "--tenant", "acme", "--subject", "ana", "--only", "some"])
    assert done.exit_code != 0 and memory.asked == {}
