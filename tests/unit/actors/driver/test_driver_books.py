"""What the executors note for themselves, without Ray, beside a journal."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from airside.actors.executor import ToolExecutor
from airside.actors.rpc.layer import LayerConfig
from airside.actors.settings import Settings
from airside.stack.cycle.in_memory import InMemoryJournal
from airside.stack.errors import LayerUnavailable
from airside.stack.journal.journaling import Append, AppendReply
from airside.stack.reasons import ReasonCode
from airside.stack.security.grants import GrantRefused
from tests.helpers import EXECUTOR


class Journal:
    """A journal with one unfinished run, which loses as many answers as `losing` says."""

    def __init__(self) -> None:
        self.kept = InMemoryJournal()
        self.losing = 0

    async def rows(self, name: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Answer the driver."""
        return []

    async def append(self, append: Append) -> AppendReply:
        """Take it in; raise instead of answering if the answer is to be lost."""
        reply = await self.kept.append(append)
        if self.losing:
            self.losing -= 1
            raise LayerUnavailable("journal: RayActorError")
        return reply


async def test_refusals_go_on_record_after_an_append_whose_answer_was_lost(tmp_path: Path) -> None:
    it: Any = ToolExecutor(LayerConfig(Settings(state_dir=tmp_path), tmp_path), [], False)
    it._journal, it._streams = Journal(), {}
    it._dispatcher = SimpleNamespace(grants=SimpleNamespace(executor_id=EXECUTOR))
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
    bodies = it._journal.kept.bodies_of(stream)
    assert [msgspec.json.decode(body)["at_us"] for body in bodies] == [0, 1, 2]
