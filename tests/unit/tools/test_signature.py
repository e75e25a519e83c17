"""What reaches a function is what was decided on, whatever its parameters are called and however it is made."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, Optional

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AliasChoices, BaseModel, Field

from airside.stack.canonical import canonical
from airside.stack.errors import InvalidConfig
from airside.stack.schema.toolspec import ArgumentValidator
from airside.tools.tool import Tool, ToolContext, tool

NAMES = [
    *(name for name in dir(BaseModel) if not name.startswith("_")),
    "model_extra",
    "fields",
    "self",
    "cls",
    "validate_python",
]


def function_of(*names: str, **annotations: Any) -> Callable[..., Any]:
    """Return a function with integer parameters of these names, which returns what it was given."""
    scope: dict[str, Any] = {}
    exec(f"def made({', '.join(names)}):\n    return {{**locals()}}", scope)
    scope["made"].__annotations__ = dict.fromkeys(names, int) | annotations
    made: Callable[..., Any] = scope["made"]
    return made


def executed(made: Tool, arguments: dict[str, Any]) -> Any:
    """Return what the tool's function gives for arguments that were decided on."""
    assert ArgumentValidator(made.spec).complete(arguments) == canonical(arguments)
    return made.function(**made.convert(arguments))


@given(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True), st.data())
def test_a_parameter_of_any_name_gets_the_value_that_was_decided_on(names: list[str], data: st.DataObject) -> None:
    arguments = {name: data.draw(st.integers(-(2**40), 2**40)) for name in names}
    assert executed(tool(effect="write")(function_of(*names)), arguments) == arguments


def test_a_parameter_with_an_alias_is_decided_on_by_its_alias() -> None:
    def send(from_: Annotated[int, Field(alias="from", gt=3)], note: Annotated[int, Field(alias="copy")]) -> Any:
        return from_, note

    made = tool(effect="write")(send)
    assert executed(made, {"from": 5, "copy": 7}) == (5, 7)
    assert made.spec.parameters["properties"]["from"]["exclusiveMinimum"] == 3


class Account:
    def pay(self, context: ToolContext, amount: int) -> int:
        return amount

    def __call__(self, amount: int) -> int:
        return amount


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def moved(source: str, amount: int) -> int:
    return amount


def told(amount: int, context: ToolContext | None = None) -> int:
    return amount


def asked(amount: int, context: Optional[ToolContext] = None) -> int:  # noqa: UP045  # as people write it
    return amount


def preset(amount: int = Field(default=5, gt=3)) -> int:
    return amount


@pytest.mark.parametrize(
    "function",
    [
        Account().pay,
        Account(),
        decorated(moved),
        decorated(told),
        functools.partial(moved, source="savings"),
        functools.partial(functools.partial(moved, "savings")),
        functools.partial(Account().pay),
        told,
        asked,
        preset,
    ],
)
def test_whatever_is_called_by_name_can_be_a_tool(function: Callable[..., Any]) -> None:
    made = cloudpickle.loads(cloudpickle.dumps(tool(effect="write", name="pay")(function)))
    arguments = {name: 7 if name == "amount" else "savings" for name in made.spec.parameters["properties"]}
    given = made.convert(arguments)
    if made.context_parameter is not None:
        given[made.context_parameter] = None
    assert made.function(**given) == 7
    assert set(arguments) - {"amount"} == ({"source"} if getattr(function, "__wrapped__", None) is moved else set())
    by_schema = {"type": "object", "properties": dict.fromkeys(arguments, True)}
    assert Tool.from_schema("pay", by_schema, function, effect="write").context_parameter == made.context_parameter


def test_a_function_of_any_keywords_is_a_tool_by_schema() -> None:
    made = Tool.from_schema("t", {"type": "object", "properties": {"a": {}}}, lambda **k: k, effect="read")
    assert executed(made, {"a": 1}) == {"a": 1}
    with pytest.raises(InvalidConfig, match="parameter k needs a type"):
        tool(effect="read", name="t")(lambda **k: k)


def yields(amount: int) -> Iterator[int]:
    yield amount


async def yields_later(amount: int) -> AsyncIterator[int]:
    yield amount


class Yields:
    def __call__(self, amount: int) -> Iterator[int]:
        yield amount


@pytest.mark.parametrize("function", [yields, yields_later, Yields(), functools.partial(yields, 1)])
def test_a_generator_is_refused_when_it_is_declared(function: Callable[..., Any]) -> None:
    with pytest.raises(InvalidConfig, match="generator"):
        tool(effect="read", name="t")(function)
    with pytest.raises(InvalidConfig, match="generator"):
        Tool.from_schema("t", {"type": "object"}, function, effect="read")
    with pytest.raises(InvalidConfig, match=r"reconcile: .*generator"):
        Tool.from_schema("t", {"type": "object"}, lambda: 1, effect="write", reconcile=function)


def hidden(context: ToolContext, /, amount: int) -> int:
    return amount


def twice(context: ToolContext, other: ToolContext | None, amount: int) -> int:
    return amount


def of_any_context(amount: int, **context: ToolContext) -> int:
    return amount


def several(amount: Annotated[int, Field(validation_alias=AliasChoices("a", "b"))]) -> int:
    return amount


def aliased(amount: Annotated[int, Field(alias="other")], other: int) -> int:
    return amount


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (hidden, "needs one of its own"),
        (of_any_context, "needs one of its own"),
        (twice, "context and other"),
        (several, "is not one name"),
        (aliased, "one alias"),
        (5, "cannot be called"),
        (functools.partial(print), "needs a type"),
        (Account.pay, "parameter self needs a type"),
        (type, "cannot be read"),
    ],
)
def test_what_cannot_be_given_by_name_says_why(function: Any, says: str) -> None:
    with pytest.raises(InvalidConfig, match=says):
        tool(effect="read", name="t")(function)


def test_something_without_a_name_needs_one() -> None:
    with pytest.raises(InvalidConfig, match="name="):
        tool(effect="read")(Account())


@pytest.mark.parametrize(
    ("schema", "function", "says"),
    [
        ({"properties": {"a": {}}}, lambda: 1, "takes no 'a'"),
        ({"properties": {"a": {}}, "anyOf": [{"properties": {"b": {}}}]}, lambda a: 1, "takes no 'b'"),
        ({"properties": {"amount": {}, "context": {}}}, told, "'context' is an argument and"),
        ({"properties": {"context": {}}}, hidden, "needs one of its own"),
    ],
)
def test_an_argument_that_would_not_reach_the_function_is_refused(schema: Any, function: Any, says: str) -> None:
    with pytest.raises(InvalidConfig, match=says):
        Tool.from_schema("t", {"type": "object", **schema}, function, effect="write")


def test_one_decorator_makes_any_number_of_tools() -> None:
    read = tool(effect="read", name="same")
    assert [read(moved).name, read(told).name] == ["same", "same"]
