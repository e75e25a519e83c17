"""Errors whose text cannot be had or encoded, and results whose own methods raise: each is one settled result."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.stack.errors import MAX_TEXT_CHARS, AirsideError, plain, text_of
from airside.stack.input.error_places import describe_error
from airside.tools.dispatch import Dispatcher
from airside.tools.tool import InDoubt, Tool, ToolError
from tests.helpers import EXECUTOR, KEY, SECOND, granted


class Raises(Exception):
    """Raises when its text is asked for."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __str__(self) -> str:
        raise self.error


class NoText(Exception):
    """Says what is no text."""

    def __str__(self) -> str:
        return 5  # type: ignore[return-value]


class Named(type):
    """A class whose name cannot be had."""

    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise ValueError("no name")


class Nameless(Exception, metaclass=Named):
    """An error of such a class."""


class Bare(ToolError):
    """A tool's own error, which forgets to tell its base."""

    def __init__(self) -> None:
        pass


class Text(str):
    """Text with methods of its own."""

    def __str__(self) -> str:
        raise ValueError("no text")


class Mapping(dict):  # type: ignore[type-arg]
    """A mapping that cannot be looked through."""

    def items(self) -> Any:
        """Raise."""
        raise ValueError("no items")


SURROGATE = os.fsdecode(b"caf\xe9")
TELLABLE: dict[str, Any] = {
    "nothing": None,
    "no text": "",
    "text": "plain",
    "a surrogate": SURROGATE,
    "bytes": b"\xff",
    "a number": 5,
    "an object": object(),
    "text of its own": Text("x"),
    "an error": ValueError("x"),
    "an error of a surrogate": ValueError(SURROGATE),
    "an empty error": KeyError(),
    "one that raises": Raises(ValueError("x")),
    "one that exits": Raises(SystemExit(1)),
    "one that recurses": Raises(RecursionError()),
    "one that cancels": Raises(asyncio.CancelledError()),
    "one that says no text": NoText(),
    "one without a name": Nameless("x"),
    "long text": "x" * 100_000,
    "an object of surrogates": {"a": SURROGATE},
    "an error of ours in one of ours": ToolError(ToolError(SURROGATE)),
}
ERRORS = {
    name: what for name, what in TELLABLE.items() if isinstance(what, BaseException) and not isinstance(what, ToolError)
} | {"an exit": SystemExit(SURROGATE)}
UNFIT: dict[str, Any] = {
    "a surrogate": SURROGATE,
    "a key of surrogates": {SURROGATE: 1},
    "an object": object(),
    "a key that is a number": {1: 2},
    "a key that raises": {Raises(ValueError()): 1},
    "an error": Nameless("x"),
    "bytes": [b"x"],
    "a set": {"a": {1, 2}},
}


def encoded(text: str) -> None:
    """What an error came to is text of bounded length, which travels as JSON and as MessagePack."""
    assert type(text) is str and text and len(text) <= MAX_TEXT_CHARS
    assert msgspec.json.decode(msgspec.json.encode(text)) == text == text.encode().decode()


@pytest.mark.parametrize("name", TELLABLE)
def test_any_error_made_of_anything_has_a_text(name: str) -> None:
    what = TELLABLE[name]
    for kind in (ToolError, InDoubt, AirsideError, ValueError, Exception, SystemExit):
        encoded(text_of(kind(what)))
        encoded(describe_error(kind(what)))
    if isinstance(what, BaseException):
        encoded(text_of(what))


def test_a_tools_error_made_of_an_exception_says_what_that_said() -> None:
    assert text_of(ToolError(ValueError("no such order"))) == "ValueError: no such order"
    assert text_of(ToolError("order %s: %s", 5, ValueError("gone"))) == "order %s: %s 5 ValueError: gone"
    assert text_of(ToolError(None)) == text_of(ToolError()) == "ToolError"
    assert text_of(ToolError(SURROGATE)) == "caf\\udce9"


@given(st.text(alphabet=st.characters(), max_size=200))
def test_text_that_can_be_encoded_is_kept_as_it_is_and_any_other_can_be_encoded_afterwards(text: str) -> None:
    assert plain(text) == text if text.isascii() else True
    plain(text + SURROGATE).encode()


def raising(what: Any, kind: type[BaseException] | None = ToolError) -> Callable[[], Any]:
    """Return a tool's function that raises `kind(what)`, or `what` itself."""

    def function() -> Any:
        raise kind(what) if kind is not None else what

    return function


async def results(function: Callable[[], Any], effect: str) -> list[Any]:
    """Call a tool as a plain function and as a coroutine function, in threads and not; return how each call ended."""

    async def later() -> Any:
        return function()

    found = []
    for in_threads in (False, True):
        for code in (function, later):
            tool = Tool.from_schema("t", {"type": "object"}, code, effect=effect)  # type: ignore[arg-type]
            dispatcher = Dispatcher(
                [tool], seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: SECOND, in_threads=in_threads
            )
            reply = await dispatcher.execute(granted(tool.spec))
            msgspec.json.encode(reply)
            found.append(reply.result)
            dispatcher.close()
    return found


@pytest.mark.parametrize("effect", ["read", "write"])
@pytest.mark.parametrize("name", TELLABLE)
async def test_a_tool_error_of_anything_says_that_nothing_changed(name: str, effect: str) -> None:
    for result in await results(raising(TELLABLE[name]), effect):
        assert (result.ok, result.reason_code) == (False, "tool_failed")
        encoded(result.error)


@pytest.mark.parametrize("effect", ["read", "write"])
@pytest.mark.parametrize("name", ERRORS)
async def test_any_other_error_is_one_result_which_is_in_doubt_if_the_tool_changes_anything(
    name: str, effect: str
) -> None:
    error = ERRORS[name]
    for result in await results(raising(error, None), effect):
        assert (result.ok, result.reason_code) == (False, "tool_failed" if effect == "read" else "tool_in_doubt")
        encoded(result.error)


async def test_a_tools_own_error_without_a_message_says_its_name() -> None:
    for result in await results(raising(Bare(), None), "write"):
        assert (result.reason_code, result.error) == ("tool_failed", "Bare")


@pytest.mark.parametrize("name", UNFIT)
async def test_an_output_that_is_no_json_is_a_settled_failure(name: str) -> None:
    output = UNFIT[name]
    for result in await results(lambda: output, "write"):
        assert (result.ok, result.reason_code) == (False, "tool_output_invalid")
        encoded(result.error)


async def test_an_output_is_what_is_in_it_whatever_its_own_methods_do() -> None:
    for result in await results(lambda: {"a": Mapping(b=1), "c": Text("d")}, "write"):
        assert result.ok and msgspec.json.decode(result.output) == {"a": {"b": 1}, "c": "d"}
