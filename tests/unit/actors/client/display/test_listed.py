"""Lists that draw themselves are lists; results know less once they were pickled; IPython draws what it is told to."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import sys
import threading
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from IPython.core.formatters import DisplayFormatter

from airside.actors.client import stack_backend
from airside.actors.client.display.bundle import HTML, TEXT, Asking
from airside.actors.client.display.formatters import as_answer, register_formatters
from airside.actors.client.display.listed import (
    ApprovalList,
    BatchList,
    Hits,
    InDoubtList,
    Listed,
    ResultList,
    RunList,
    Status,
    Story,
)
from airside.actors.client.display.stacks import draw_stack
from airside.actors.client.display.timeline import timeline_of
from airside.actors.client.stack_backend import StackBackend
from airside.stack.errors import Misuse
from airside.stack.operations.overview import detail_of
from tests.unit.actors.client.display.samples import (
    APPROVED,
    approval,
    batch,
    in_doubt,
    played,
    result,
    result_of,
    summary,
)

KINDS = [
    ResultList([result("a"), result("b"), result("c")]),
    ApprovalList([approval("a"), approval("b"), approval("c")]),
    BatchList([batch("a"), batch("b"), batch("c")]),
    RunList([summary("a"), summary("b"), summary("c")]),
    InDoubtList([in_doubt("a"), in_doubt("b"), in_doubt("c")]),
    Listed([summary("a"), summary("b"), summary("c")]),
]


@pytest.mark.parametrize("drawn", KINDS, ids=lambda drawn: type(drawn).__name__)
def test_a_list_that_draws_itself_is_a_list(drawn: Any) -> None:
    """It compares, prints, slices, pickles and copies as one."""
    plain = list(drawn)
    assert isinstance(drawn, list) and drawn == plain and plain == drawn and repr(drawn) == repr(plain)
    assert type(drawn[1:]) is type(drawn) and drawn[1:] == plain[1:] and drawn[::-1] == plain[::-1]
    assert drawn[0] is plain[0] and drawn[-1] is plain[-1]
    assert type(drawn + plain) is list and type(sorted(drawn, key=str)) is list
    for again in (pickle.loads(pickle.dumps(drawn)), copy.copy(drawn), copy.deepcopy(drawn)):
        assert again == drawn and type(again) is type(drawn)


def test_what_is_no_list_is_what_it_is() -> None:
    """A story is a text, what memory finds a tuple, a status a dictionary."""
    timeline = timeline_of(played(APPROVED))
    story = Story("run_1 began\n#0 +0.000s  x", timeline)
    again = pickle.loads(pickle.dumps(story))
    assert story == "run_1 began\n#0 +0.000s  x" and isinstance(story, str) and len(story.splitlines()) == 2
    assert again == story and again.timeline == timeline and type(copy.copy(story)) is Story
    assert Hits((1, 2)) == (1, 2) and Status({"a": {}}) == {"a": {}}
    assert pickle.loads(pickle.dumps(Status({"a": {}}))) == {"a": {}}


def test_a_result_draws_its_run_by_its_events() -> None:
    """Or says why it cannot, and draws what it has."""
    events = played(APPROVED)
    made = result_of(events)._repr_mimebundle_()
    assert "<svg" in made[HTML] and "wait for people" in made[TEXT]
    made = result_of(events, "the stack did not answer within 2 s")._repr_mimebundle_()
    assert "<svg" not in made[HTML] and "Its steps are not shown: the stack did not answer" in made[TEXT]
    assert "completed" in made[TEXT] and "used: 3 steps" in made[TEXT]


def test_a_result_that_was_pickled_says_where_its_story_is() -> None:
    """It has no stack any more."""
    kept = result_of(played(APPROVED))
    again = pickle.loads(pickle.dumps(kept))
    assert again == kept and kept.story() == "a story"
    with pytest.raises(Misuse, match=r"stack\.story\('run_1'\)"):
        again.story()
    assert "completed" in again._repr_mimebundle_()[TEXT]


def test_calls_in_doubt_are_drawn_in_words() -> None:
    """Since when, whether the run waits, and how to resolve one."""
    calls = InDoubtList([in_doubt(), in_doubt(until_us=1_700_000_060_000_000, undo=True)])
    text = calls._repr_mimebundle_()[TEXT]
    assert text.startswith("2 calls in doubt") and "since_us" not in text and "InDoubtCall" not in text
    for said in (
        "2023-11-14 22:13:20",
        "has ended",
        "waits until 2023-11-14 22:14:20",
        "the undo of charge",
        "stack.resolve",
    ):
        assert said in text
    assert InDoubtList()._repr_mimebundle_()[TEXT].strip() == "no call is in doubt"


class Doubted:
    """A connection to a stack in which a call is in doubt, with a driver that is down or not."""

    def __init__(self, driver: dict[str, Any]) -> None:
        self._driver = driver

    def stats(self, names: Sequence[str], *, within_s: float) -> dict[str, dict[str, Any]]:
        """Return what layers say."""
        return {"driver": self._driver}


@pytest.mark.parametrize(("driver", "counted"), [({"live": 0}, 1), ({"down": "ActorDiedError"}, 0)])
def test_a_stacks_drawing_counts_what_it_lists_as_in_doubt(
    monkeypatch: pytest.MonkeyPatch, driver: dict[str, Any], counted: int
) -> None:
    """Also of runs that have ended; a stack that is down is asked no more."""
    monkeypatch.setattr(stack_backend, "list_in_doubt", lambda journal, tenant: [in_doubt()])
    backend = StackBackend(Doubted(driver), None)  # type: ignore[arg-type]
    layers, doubts, problem = backend.overview(["driver"])
    assert (layers, doubts, problem) == ({"driver": driver}, counted, "")
    drawing = draw_stack("default", Path("state"), layers, in_doubt=doubts)
    assert ("1 call, of which stack.in_doubt() tells" in str(drawing)) is bool(counted)


def test_a_result_becomes_a_dictionary_whatever_reads_its_record() -> None:
    """As people do for a data frame."""
    backend = StackBackend(None, None)  # type: ignore[arg-type]
    made = dataclasses.asdict(dataclasses.replace(result("a"), record=backend))
    assert made["job_id"] == "a" and made["record"] is backend


@pytest.fixture
def formatter(monkeypatch: pytest.MonkeyPatch) -> DisplayFormatter:
    """Return what an IPython of this process would draw with."""
    made = DisplayFormatter()
    for each in made.formatters.values():
        each.enabled = True
    made.active_types = made.format_types
    stub: Any = types.ModuleType("IPython")
    stub.get_ipython = lambda: types.SimpleNamespace(display_formatter=made)
    monkeypatch.setitem(sys.modules, "IPython", stub)
    return made


def test_ipython_draws_lists_as_they_draw_themselves(formatter: DisplayFormatter) -> None:
    """Also as plain text, of which it knows a list's by itself; within something else they are lists."""
    data, _ = formatter.format(KINDS[0])
    assert data[TEXT].startswith("3 results") and data[HTML].startswith("<section")
    data, _ = formatter.format([Story("line")])
    assert data[TEXT] == "['line']"


def test_ipython_draws_the_answers_to_queries_and_no_other_table(formatter: DisplayFormatter) -> None:
    """What is made of one is a table like any other."""
    register_formatters()
    register_formatters()
    answer = as_answer(pa.table({"n": [1, 2]}))
    data, _ = formatter.format(answer)
    assert data[TEXT].startswith("2 rows of 1 columns") and HTML in data
    assert answer.schema.metadata is None and answer.to_pylist() == [{"n": 1}, {"n": 2}]
    for other in (answer.slice(0, 1), pa.table({"n": [1, 2]})):
        data, _ = formatter.format(other)
        assert data[TEXT].startswith("pyarrow.Table") and HTML not in data


def test_ipython_draws_values_of_the_core(formatter: DisplayFormatter) -> None:
    """What somebody else told it of them holds."""
    register_formatters()
    data, _ = formatter.format(detail_of(played(APPROVED)))
    assert "approved by bob, cat" in data[TEXT] and HTML in data
    formatter.mimebundle_formatter.for_type(pa.Table, lambda table: {TEXT: "mine"})
    register_formatters()
    assert formatter.format(as_answer(pa.table({})))[0][TEXT] == "mine"


def test_without_ipython_nothing_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is it imported."""
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    register_formatters()
    assert "IPython" not in sys.modules


def test_a_question_that_is_not_answered_is_left_behind() -> None:
    """A second one is not put meanwhile: what is drawn says so at once."""
    asking, answered = Asking(), threading.Event()
    assert asking.ask(lambda: answered.wait(60) and None, within_s=0.01) == (
        None,
        "the stack did not answer within 0.01 s",
    )
    assert asking.ask(lambda: 1)[1] == "the stack has not answered an earlier question yet"
    answered.set()
    assert asking._open is not None
    asking._open.join()
    assert asking.ask(lambda: 1) == (1, "")


def test_a_question_that_fails_says_why() -> None:
    def fail() -> int:
        raise Misuse("this stack is closed")

    assert Asking().ask(fail) == (None, "this stack is closed")
