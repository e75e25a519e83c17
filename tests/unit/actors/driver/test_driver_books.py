"""What the driver and the executors note for themselves, without Ray: after a restart, and beside a journal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from airside.actors.driver.driver import Driver
from airside.actors.executor import ToolExecutor
from airside.actors.rpc.layer import LayerConfig
from airside.actors.settings import Settings
from airside.stack.cycle.local import LocalJournal
from airside.stack.directory import load_directory
from airside.stack.errors import LayerUnavailable
from airside.stack.journal.journaling import Append, AppendReply
from airside.stack.operations.messages import Order
from airside.stack.reasons import ReasonCode
from airside.stack.security.grants import GrantRefused
from tests.helpers import EXECUTOR, RUN


class Fleet:
    """A fleet of one runtime, which holds a run that waits for a person."""

    async def adopt(self) -> dict[str, tuple[str, str]]:
        """Say what lives."""
        return {RUN: ("acme/1", "awaiting_approval")}

    def seat(self, key: str) -> object | None:
        """Return the seat."""
        return object() if key == "acme/1" else None


class Journal:
    """A journal with one unfinished run, which loses as many answers as `losing` says."""

    def __init__(self) -> None:
        self.kept = LocalJournal()
        self.losing = 0

    async def rows(self, name: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Answer the driver."""
        assert name == "unfinished"
        return [(RUN, "acme", "", 1, 5)]

    async def append(self, append: Append) -> AppendReply:
        """Take it in; raise instead of answering if the answer is to be lost."""
        reply = await self.kept.append(append)
        if self.losing:
            self.losing -= 1
            raise LayerUnavailable("journal: RayActorError")
        return reply


def driver(folder: Path) -> Any:
    """Return a driver that has not begun."""
    fleet: Any = Fleet()
    made: Any = Driver(
        LayerConfig(Settings(state_dir=folder), folder),
        load_directory("tenants: {acme: {principals: {ann: {}}}}"),
        [],
        "1",
        fleet,
    )
    made._journal = Journal()
    return made


async def test_a_run_that_waited_before_a_restart_has_its_approvals_withdrawn_when_it_ends(tmp_path: Path) -> None:
    it = driver(tmp_path)
    await it._recover()
    assert it._runs[RUN].parked and it._runs[RUN].asked


async def test_an_order_about_a_run_that_ends_at_that_moment_finds_it_ended(tmp_path: Path) -> None:
    order = Order(action="kill", scope="run", target=RUN, by="op", why="", at_us=1)
    assert await driver(tmp_path)._obey(order, RUN) is None


async def test_refusals_go_on_record_after_an_append_whose_answer_was_lost(tmp_path: Path) -> None:
    it: Any = ToolExecutor(LayerConfig(Settings(state_dir=tmp_path), tmp_path), [], False)
    it._journal, it._told = Journal(), {}
    it._dispatcher = type("Dispatcher", (), {"executor_id": EXECUTOR})
    it._journal.losing = 1
    for number in range(3):
        refused = GrantRefused(
            at_us=number,
            executor=EXECUTOR,
            reason_code=ReasonCode.GRANT_INVALID,
            detail="no",
            presented_sha256=str(number),
        )
        it._refused = [(refused, None)]
        await it._tell()
    (stream,) = it._journal.kept.streams
    bodies = it._journal.kept.bodies(stream)
    assert [msgspec.json.decode(body)["at_us"] for body in bodies] == [0, 1, 2]
