"""How IPython draws what has no method for it: the pure core's values, and the answers to queries.

The core knows nothing of notebooks, and a query's answer is pyarrow's table, of which no subclass can be made and which
a wrapper would replace by something less.  So IPython, where the process has one, is told how to draw them.  Of tables
only those are drawn that a query answered, and these are known by themselves: a mark in the schema would travel into
what is made of them and the files these are written to.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from airside.actors.client.display import batches
from airside.actors.client.display.bundle import bundle
from airside.actors.client.display.drawing import Drawing
from airside.actors.client.display.memory import draw_hit
from airside.actors.client.display.runs import draw_run, draw_summary
from airside.actors.client.display.tables import draw_query, draw_value
from airside.actors.journal.batches import BatchSummary
from airside.memory.records import Record
from airside.memory.storage.erasure_plan import ErasureReceipt
from airside.stack.contracts.memory import LearnReply, Recalled
from airside.stack.operations.overview import RunDetail, RunSummary
from airside.stack.policy.kill_switches import KillSwitchChanged
from airside.stack.recovery.in_doubt import InDoubtCall
from airside.stack.recovery.rollback import RollbackReport
from airside.stack.recovery.spend_in_doubt import SpendInDoubt

_VALUES: dict[type, Callable[[Any], Drawing]] = {
    RunDetail: draw_run,
    RunSummary: draw_summary,
    BatchSummary: batches.draw_summary,
    Recalled: draw_hit,
    **dict.fromkeys(
        (Record, LearnReply, ErasureReceipt, RollbackReport, InDoubtCall, SpendInDoubt, KillSwitchChanged), draw_value
    ),
}
_answers: weakref.WeakValueDictionary[int, pa.Table] = weakref.WeakValueDictionary()


def register_formatters() -> None:
    """Tell this process's IPython, if it has one, how the stack's values are drawn; a second time changes nothing."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None:
        return
    formatter = shell.display_formatter.mimebundle_formatter
    drawers = {kind: _formatter(draw) for kind, draw in _VALUES.items()}
    for kind, draw in {**drawers, pa.Table: _draw_answer}.items():
        if formatter.for_type(kind) is None:  # what somebody else has said of it holds
            formatter.for_type(kind, draw)


def _formatter(draw: Callable[[Any], Drawing]) -> Callable[[Any], dict[str, str]]:
    return lambda value: bundle(lambda: draw(value))


def as_answer(table: pa.Table) -> pa.Table:
    """Return a table that a query answered, known as one from here on."""
    _answers[id(table)] = table
    return table


def _draw_answer(table: pa.Table) -> dict[str, str] | None:
    """Draw a table that a query answered; of any other say nothing, and IPython does as it did."""
    return bundle(lambda: draw_query(table)) if _answers.get(id(table)) is table else None
