"""What a model's answer proposes: nothing that it writes is trusted, and nothing that is no call is made."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.stack.contracts.models import FinishReason, ModelReply, RequestedCall
from airside.stack.cycle.agent_call import several, validate_proposal
from airside.stack.errors import InvalidInput
from airside.stack.models.prompts import REFUSED_CALL
from airside.stack.models.proposals import proposed
from airside.stack.values import MAX_CALLS, Action, Finish, Handoff


def calls(*written: tuple[str, str], text: str = "", finish: FinishReason = "tool_call") -> ModelReply:
    """Return an answer with these calls, all under one id."""
    made = tuple(RequestedCall(tool=tool, arguments=arguments, call_id="same") for tool, arguments in written)
    return ModelReply(text=text, calls=made, finish=finish)


def read(reply: ModelReply, *, handoffs: frozenset[str] = frozenset(), answer: Any = None) -> Any:
    return proposed(reply, handoffs=handoffs, answer=answer)


def checked(given: Any) -> Any:
    if "total" not in given:
        raise InvalidInput("total: missing")
    return given


def test_a_text_ends_the_run() -> None:
    assert read(ModelReply(text="done")) == Finish(answer="done")


def test_calls_are_actions_in_their_order() -> None:
    made = read(calls(("pay", '{"cents": 5}'), ("look", ""), ("look", "{}")))
    assert made == [
        Action(tool="pay", arguments={"cents": 5}),
        Action(tool="look"),
        Action(tool="look"),
    ]


@pytest.mark.parametrize(
    "arguments", ["{", "[1]", "7", '{"a": 1, "a": 2}', '{"a": NaN}', '{"a": Infinity}', "null", "x" * 300_000]
)
def test_what_is_no_object_is_refused_with_why(arguments: str) -> None:
    made = read(calls(("pay", arguments)))
    assert made.tool == "pay" + REFUSED_CALL and made.arguments["why"]


def test_a_call_that_was_cut_off_is_not_made() -> None:
    assert read(calls(("pay", '{"cents": 5}'), finish="length")).tool.endswith(REFUSED_CALL)


def test_what_the_provider_filtered_is_not_made() -> None:
    assert read(calls(("pay", '{"cents": 5}'), finish="content_filter")).tool.endswith(REFUSED_CALL)


def test_too_many_calls_are_refused_together() -> None:
    made = read(calls(*[("look", "{}")] * (MAX_CALLS + 1)))
    assert isinstance(made, Action) and made.tool.endswith(REFUSED_CALL)


def test_an_answer_has_to_have_its_shape() -> None:
    assert read(calls(("final_answer", '{"total": 3}')), answer=checked) == Finish(answer={"total": 3})
    assert "total: missing" in read(calls(("final_answer", "{}")), answer=checked).arguments["why"]
    assert read(ModelReply(text="3"), answer=checked).tool == "final_answer" + REFUSED_CALL


def test_an_end_comes_alone() -> None:
    made = read(calls(("pay", "{}"), ("final_answer", '{"total": 3}')), answer=checked)
    assert made.tool == "final_answer" + REFUSED_CALL


def test_a_handoff_is_only_to_those_that_are_named() -> None:
    reply = calls(("transfer_to_boss", '{"message": "help"}'))
    assert read(reply, handoffs=frozenset({"boss"})) == Handoff(agent="boss", message="help")
    assert read(reply) == Action(tool="transfer_to_boss", arguments={"message": "help"})


def test_without_a_shape_the_name_of_the_answers_tool_is_like_any_other() -> None:
    assert read(calls(("final_answer", "{}"))) == Action(tool="final_answer")


@pytest.mark.parametrize("name", ["pay!", "pay!!", "p" * 500])
def test_a_name_that_is_none_is_not_made_one(name: str) -> None:
    assert read(calls((name, "{}"))).tool.endswith(REFUSED_CALL)


def test_half_an_answer_is_no_answer() -> None:
    assert read(ModelReply(text="half", finish="other")).tool.endswith(REFUSED_CALL)
    assert read(ModelReply(text="a\x00b")).tool.endswith(REFUSED_CALL)


@given(
    text=st.text(max_size=20),
    written=st.lists(st.tuples(st.text(max_size=200), st.text(max_size=40)), max_size=5),
    finish=st.sampled_from(["stop", "tool_call", "length", "content_filter", "other"]),
)
def test_whatever_a_model_says_is_a_proposal(text: str, written: list[tuple[str, str]], finish: FinishReason) -> None:
    made = read(calls(*written, text=text, finish=finish), handoffs=frozenset({"boss"}), answer=checked)
    if isinstance(made, list):
        several(made)
    else:
        validate_proposal(made)
