"""What a run is named by, wherever a stack's client takes one: a whole id is what is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airside.actors.audit import run_named
from airside.actors.client.client import RunHandle, Stack
from airside.actors.rpc.methods import ROWS, Method, NamedQuery
from airside.stack.errors import InvalidId
from airside.stack.ids import EffectKey, PrincipalId, TenantId
from airside.stack.operations.overview import RunDetail, RunSummary
from airside.stack.recovery.in_doubt import InDoubtCall
from tests.helpers import RUN

SUMMARY = RunSummary(
    run_id=RUN, tenant=TenantId("acme"), principal=PrincipalId("ann"), job_id="", route="", parent="", submitted_us=1
)
DOUBT = InDoubtCall(
    run_id=RUN, tenant=SUMMARY.tenant, step=2, tool="pay", arguments={}, key=EffectKey(f"{RUN}:2"), since_us=1
)


class Journal:
    """The layer, which knows of one run."""

    asked = 0
    ordered = ""

    def ask(self, method: Method[Any, Any], request: NamedQuery) -> Any:
        """Answer."""
        assert method is ROWS and request.name == "named"
        self.asked += 1
        begin, end = request.parameters[:2]
        return [(RUN,)] if RUN.startswith(begin) and RUN.endswith(end) else []


@pytest.fixture
def journal() -> Journal:
    """What the stack asks."""
    return Journal()


@pytest.fixture
def stack(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """A stack whose orders come back as they are given."""

    def order(_: Stack, action: str, scope: str, target: str, *more: object, **rest: object) -> str:
        journal.ordered = target
        return target

    monkeypatch.setattr(Stack, "_order", order)
    made = Stack.__new__(Stack)
    made._connection = journal  # type: ignore[assignment]
    return made


TAKEN: dict[str, Callable[[Stack, Any], Any]] = {
    "handle": lambda stack, run: stack.handle(run).run_id,
    "run_named": run_named,
    "kill": lambda stack, run: stack.kill(run=run),
    "cancel": lambda stack, run: stack.cancel(run),
    "switch_off": lambda stack, run: [stack.switch_off(run=run), stack._connection.ordered][1],
    "resolve": lambda stack, run: stack.resolve(run, happened=True),
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_run_is_named_by_a_part_of_its_id_or_by_what_is_of_it(stack: Stack, journal: Journal, name: str) -> None:
    """Of which a part alone is looked up."""
    for whole in (RUN, SUMMARY, RunDetail(run=SUMMARY, request=""), RunHandle(stack, RUN)):
        assert TAKEN[name](stack, whole) == RUN and journal.asked == 0
    assert TAKEN[name](stack, f"{RUN[:12]}...") == RUN and journal.asked == 1
    for wrong, said in (("r1", "is not a run id"), ("run_zzzzzz", "is not a run id"), (7, "int names no run")):
        with pytest.raises(InvalidId, match=said):
            TAKEN[name](stack, wrong)


def test_a_call_in_doubt_is_named_by_what_is_listed_or_its_key(stack: Stack) -> None:
    for given in (DOUBT, DOUBT.key, f"{RUN[:12]}:2"):
        assert stack.resolve(given, happened=False) == DOUBT.key
    assert stack.resolve(f"{DOUBT.key}/undo", happened=False) == f"{DOUBT.key}/undo"
