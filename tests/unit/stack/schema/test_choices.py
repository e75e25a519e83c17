"""Choices and flags that a request says in words: of one choice and no other, and never by a word that describes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import airside
from airside.stack.errors import InvalidConfig
from airside.stack.provenance.tracer import Tracer
from airside.stack.run.state import RunState
from airside.stack.schema.toolspec import ToolSpec
from tests.helpers import submitted

SCHEMA = {
    "type": "object",
    "properties": {
        "permission": {"enum": ["r", "rw", None]},
        "level": {"type": "integer"},
        "mute": {"type": "boolean"},
        "all_day": {"type": "boolean"},
        "isPublic": {"type": "boolean"},
        "grants": {"type": "array", "items": {"type": "object", "properties": {"mode": {"type": "string"}}}},
        "free": {"type": "object", "additionalProperties": True},
    },
}
PERMISSION = {"r": ["read", "view", "look at"], "rw": ["edit", "Change"]}


def share(choices: Any) -> ToolSpec:
    def run(**arguments: Any) -> None: ...

    return airside.Tool.from_schema("share", SCHEMA, run, effect="external", choices=choices).spec


SHARE = share(
    {
        "permission": PERMISSION,
        "level": {1: ["low"], "3": ["urgent", "urgently"]},
        "mute": {True: ["quietly"], "false": ["aloud"]},
        "grants.*.mode": {"w": ["write to"]},
    }
)


def origins(text: str, arguments: dict[str, Any], spec: ToolSpec = SHARE, **more: Any) -> list[str]:
    run = submitted(text=text, **more)
    return [each.origin for each in Tracer(run, [spec]).trace(spec.name, arguments, RunState(submitted=run))]


@pytest.mark.parametrize(
    ("text", "arguments", "is_said"),
    [
        ("Share it so that she can view it.", {"permission": "r"}, True),
        ("Share it so that she can LOOK  AT it.", {"permission": "r"}, True),
        ("Share it so that she can view it.", {"permission": "rw"}, False),
        ("Share it so that she can change it.", {"permission": "rw"}, True),
        ("Share it so that she can view and edit it.", {"permission": "rw"}, False),
        ("Share it so that she can view and edit it.", {"permission": "r"}, False),
        ("Share it and let her view it. She must not edit it.", {"permission": "r"}, True),
        ("Share it and let her view it. She must not edit it.", {"permission": "rw"}, False),
        ("She must not edit it.", {"permission": "r"}, False),
        ("Share 'How to edit' so that she can view it.", {"permission": "r"}, True),
        ("Share 'How to edit'.", {"permission": "rw"}, False),
        ("Share the preview with the editor, read-only.", {"permission": "r"}, True),
        ("Share edit.example with her.", {"permission": "rw"}, False),
        ("Share it urgently.", {"level": 3}, True),
        ("Share it urgently.", {"level": 1}, False),
        ("Share it urgently.", {"level": 4}, False),
        ("Tell her urgently.", {"level": 3}, False),
        ("Share it quietly.", {"mute": True}, True),
        ("Share it quietly.", {"mute": False}, False),
        ("Share it aloud.", {"mute": False}, True),
        ("Mute it and make it mute.", {"mute": True}, False),
        ("Share it and let her write to it.", {"grants": [{"mode": "w"}]}, True),
        ("Share it and let her write to it.", {"grants": [{"mode": "x"}]}, False),
        ("She may write to it.", {"grants": [{"mode": "w"}]}, False),
    ],
)
def test_a_request_picks_a_choice_by_its_words_and_no_other(
    text: str, arguments: dict[str, Any], is_said: bool
) -> None:
    assert (origins(text, arguments) == ["request"]) == is_said


def test_words_of_a_tool_or_of_a_request_labelled_untrusted_pick_nothing() -> None:
    assert origins("She can view it.", {"permission": "r"}, labels=("untrusted",)) == ["nowhere"]


def test_choices_are_part_of_a_tools_version_and_their_lack_is_not() -> None:
    assert SHARE.choices[1] == ("level", (("1", ("low",)), ("3", ("urgent", "urgently"))))
    assert share({}).version != SHARE.version != share({"permission": PERMISSION}).version
    built = ToolSpec.build(name="share", effect="external", parameters=SCHEMA)
    assert ToolSpec.build(name="share", effect="external", parameters=SCHEMA, choices=()).version == built.version


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"permission": {"r": ["read"], "w": ["write"]}}, "'w' is none of its choices"),
        ({"permision": PERMISSION}, "'permision', which is none of its arguments"),
        ({"grants.mode": PERMISSION}, "none of its arguments"),
        ({"permission": {"r": ["read"], "rw": ["Read "]}}, "'read' would pick 'r' and 'rw'"),
        ({"permission": {"r": []}}, "'r' has no words"),
        ({"permission": {"r": "read"}}, "as a list"),
        ({"permission": {"r": [" "]}}, "is no word"),
        ({"permission": {"r": [3]}}, "is no word"),
        ({"permission": {}}, "give {choice: [words]}"),
        ({"permission": ["r"]}, "give {choice: [words]}"),
        ({"level": {"three": ["urgent"]}}, "'three' is none of its choices"),
        ({"level": {True: ["urgent"]}}, "True is none of its choices"),
        ({"mute": {1: ["quietly"]}}, "1 is none of its choices"),
        ({"permission": {("r",): ["read"]}}, "neither a text"),
        (["permission"], "is not {argument: {choice: [words]}}"),
    ],
)
def test_choices_that_can_pick_nothing_are_refused_when_the_tool_is_declared(choices: Any, said: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        share(choices)
    assert said in str(caught.value)


def flag(name: str, text: str, tool: str = "share") -> bool | None:
    """Return what a request says of a flag, to a tool that takes nothing else."""
    schema = {"type": "object", "properties": {name: {"type": "boolean"}}}
    spec = ToolSpec.build(name=tool, effect="external", parameters=schema)
    said = [value for value in (True, False) if origins(text, {name: value}, spec) == ["request"]]
    return said[0] if len(said) == 1 else None


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("public", "Share plan.pdf and make it public.", True),
        ("public", "Share plan.pdf. Make plan.pdf public, please.", None),
        ("isPublic", "Share it. It must be public from Monday.", True),
        ("recurring", "Share it, recurring.", True),
        ("all_day", "Share the event. Make it all day.", True),
        ("notify", "Share it and notify them.", True),
        ("public", "Share it, public: yes", True),
        ("recurring", "Share it. It must not be recurring.", False),
        ("recurring", "Share it. It is not recurring.", False),
        ("public", "Share plan.pdf. Do not make it public.", False),
        ("public", "Share plan.pdf, public: no", False),
        ("public", "The page should be public from Monday.", None),
        # It describes something, or may.
        ("public", "Share the public roadmap with kim.", None),
        ("public", "Share everything public with kim.", None),
        ("public", "Share public and private files with kim.", None),
        ("public", "Read the mail that is public and answer it.", None),
        ("public", "Make the public page red.", None),
        ("public", "Put it where the public can read it.", None),
        ("urgent", "Answer the urgent and the other mails.", None),
        ("encrypted", "The disk is not encrypted. Copy it.", None),
        ("recurring", "Pay the recurring ones.", None),
        # What is quoted, a part of a word, both at once, and what is hardly a name.
        ("public", "Send 'make it public' to kim.", None),
        ("public", "Make it public-facing.", None),
        ("public", "Make it semi-public.", None),
        ("public", "Make it public. It must not be public.", None),
        ("on", "Make it on.", None),
        ("", "Make it.", None),
    ],
)
def test_a_flag_is_said_where_a_sentence_asks_for_it(name: str, text: str, said: bool | None) -> None:
    assert flag(name, text) is said


@pytest.mark.parametrize(
    ("name", "text", "tool", "said"),
    [
        ("recurring", "Set up a recurring payment of 20 to bob.", "schedule_transaction", True),
        ("recurring", "Create a new recurring task.", "add_task", True),
        ("recurring", "Create a non-recurring task.", "add_task", False),
        ("recurring", "Send the payment of 20 to bob, recurring.", "payments.send", True),
        ("is_urgent", "Mark the mail as urgent.", "send_email", True),
        ("all_day", "Create an all-day event on Monday.", "calendar_event_create", True),
        ("all_day", "Make the event all day.", "updateEvent", True),
    ],
)
def test_a_flag_is_said_of_what_the_tool_is_for(name: str, text: str, tool: str, said: bool) -> None:
    assert flag(name, text, tool) is said and flag(name, text, "update_drive") is None


@given(st.lists(st.sampled_from(["the", "public", "files", "of", "my", "page", "share", "kim"]), max_size=10))
def test_no_words_about_public_things_set_a_flag(words: list[str]) -> None:
    assert flag("public", " ".join(words)) is None


def test_a_flag_of_the_request_is_traced_to_it() -> None:
    assert origins("Share it, all-day.", {"all_day": True}) == ["request"]
    assert origins("Share it, all-day.", {"all_day": False}) == ["nowhere"]
    assert origins("Share it, all-day.", {"free": {"all_day": True}}) == ["nowhere", "request"]
