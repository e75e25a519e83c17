"""How JSON arguments reach a function: which of its parameters are arguments, of what types, and what it may not be.

A function is anything that can be called by name: a plain or `async def` function, a bound method, a
`functools.partial` (what it binds is no argument), an object with `__call__`, a decorated one.  Generators are refused.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError, PydanticUserError
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from airside.stack.canonical import check_bounds
from airside.stack.errors import InvalidConfig, InvalidInput, plain

Convert = Callable[[dict[str, Any]], dict[str, Any]]
_NO_DEFAULT = inspect.Parameter.empty
_MAX_SIGNATURE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A function's parameters: `context` is the one that gets the call's context, `arguments` are all others.

    `takes_any` = it takes arguments of any name.
    """

    context: str | None
    arguments: dict[str, inspect.Parameter]
    takes_any: bool

    def takes(self, name: str) -> bool:
        """Whether the function can be given an argument of this name."""
        return self.takes_any or (name in self.arguments and _by_name(self.arguments[name]))


def read_signature(fn: Callable[..., Any], name: str, context_type: type) -> Signature:
    """Return what a function takes; raise `InvalidConfig` for one that cannot be a tool."""
    refuse_generator(fn, f"tool {name}")
    bound: set[str] = set()
    inner: Any = fn
    while isinstance(inner, functools.partial):
        bound |= inner.keywords.keys()
        inner = inner.func
    try:
        parameters = inspect.signature(fn).parameters
        hints = get_type_hints(_annotated(inner), include_extras=True)
    except (NameError, TypeError, ValueError, AttributeError) as error:
        raise InvalidConfig(f"tool {name}: its parameters cannot be read: {error}") from None
    arguments: dict[str, inspect.Parameter] = {}
    contexts = []
    for parameter in parameters.values():
        hint = hints.get(parameter.name, parameter.annotation)
        if parameter.name in bound:
            continue
        if _is_context(hint, context_type):
            contexts.append(parameter)
        else:
            arguments[parameter.name] = parameter.replace(annotation=hint)
    if len(contexts) > 1:
        raise InvalidConfig(
            f"tool {name}: {' and '.join(c.name for c in contexts)} are both its {context_type.__name__}"
        )
    if contexts and not _by_name(contexts[0]):
        raise InvalidConfig(
            f"tool {name}: parameter {contexts[0].name} is given by its name, so it needs one of its own"
        )
    return Signature(
        context=contexts[0].name if contexts else None,
        arguments=arguments,
        takes_any=any(parameter.kind is parameter.VAR_KEYWORD for parameter in arguments.values()),
    )


def refuse_generator(fn: Callable[..., Any], where: str) -> None:
    """Raise `InvalidConfig` for what cannot be called, and for a generator: nobody would take what it yields."""
    if not callable(fn):
        raise InvalidConfig(f"{where}: {fn!r:.80} cannot be called")
    inner = _code_of(fn)
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise InvalidConfig(f"{where}: {fn!r:.80} is a generator; return what it comes to, a list say")


def refuse_async(fn: Callable[..., Any], where: str) -> None:
    """Raise `InvalidConfig` for what waits, where nobody waits for it."""
    if inspect.iscoroutinefunction(_code_of(fn)):
        raise InvalidConfig(f"{where}: {fn!r:.80} is not a plain function: it is async, and nobody waits for it")


def refuse_misfit(fn: Callable[..., Any], where: str, *given: str) -> None:
    """Raise `InvalidConfig` for what cannot be called as it will be: with `given`, without their names."""
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):
        return  # a builtin that does not say what it takes
    try:
        signature.bind(*given)
    except TypeError:
        taken, wanted = plain(signature, _MAX_SIGNATURE), f"({', '.join(given)})"
        raise InvalidConfig(f"{where}: it takes {taken}, and is called with {wanted}: give what takes that") from None


def _code_of(fn: Callable[..., Any]) -> Any:
    """Return the function that a call of something runs."""
    inner: Any = fn
    while isinstance(inner, functools.partial):
        inner = inner.func
    return inner if inspect.isroutine(inner) or inspect.isclass(inner) else type(inner).__call__


class Derived(dict[str, Any]):
    """The JSON Schema of a typed function's arguments; `convert` turns arguments that keep it into the function's."""

    def __init__(self, schema: dict[str, Any], convert: Convert) -> None:
        super().__init__(schema)
        self.convert = convert


def derive(signature: Signature, name: str) -> Derived:
    """Return the JSON Schema of a function's arguments.

    Every argument has a type of its own, and is looked up by nothing but its name: no name means anything else.
    """
    typed = [_Argument(parameter, name) for parameter in signature.arguments.values()]
    by_name = {argument.name: argument for argument in typed}
    if len(by_name) < len(typed):
        raise InvalidConfig(f"tool {name}: two parameters have one alias: {sorted(a.name for a in typed)}")
    inputs: list[Any] = [(argument.name, "validation", argument.adapter) for argument in typed]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a default that is not JSON: it is checked on its own
            found, shared = TypeAdapter.json_schemas(inputs, schema_generator=_Generator)
    except (PydanticInvalidForJsonSchema, PydanticUserError) as error:
        raise InvalidConfig(f"tool {name}: {error.message}") from None
    properties = {argument.name: argument.described(found[argument.name, "validation"]) for argument in typed}
    schema = {
        "type": "object",
        "properties": properties,
        "required": [argument.name for argument in typed if argument.default is _NO_DEFAULT],
        "additionalProperties": False,
        **shared,
    }
    adapters = {argument.name: (argument.parameter, argument.adapter) for argument in typed}

    def convert(arguments: dict[str, Any]) -> dict[str, Any]:
        return dict(_converted(name, given, value, *adapters[given]) for given, value in arguments.items())

    return Derived(schema, convert)


def _converted(tool: str, given: str, value: Any, parameter: str, adapter: TypeAdapter[Any]) -> tuple[str, Any]:
    try:
        return parameter, adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InvalidInput(f"{tool}: {'.'.join(map(str, (given, *first['loc'])))}: {first['msg']}") from None


class _Argument:
    """A typed parameter as an argument: its name in JSON, its default as JSON, and what converts it."""

    __slots__ = ("adapter", "default", "name", "parameter")

    def __init__(self, parameter: inspect.Parameter, tool: str) -> None:
        self.name = self.parameter = parameter.name
        hint, default, where = parameter.annotation, parameter.default, f"tool {tool}: parameter {parameter.name}"
        if not _by_name(parameter) or hint is _NO_DEFAULT or parameter.name.startswith("_"):
            raise InvalidConfig(f"{where} needs a type and a name of its own")
        if isinstance(default, FieldInfo):
            hint, default = Annotated[hint, default], _NO_DEFAULT
        for described in get_args(hint)[1:] if get_origin(hint) is Annotated else ():
            if isinstance(described, FieldInfo):
                alias = described.validation_alias or described.alias
                if alias is not None and not isinstance(alias, str):
                    raise InvalidConfig(f"{where}: its alias {alias!r:.80} is not one name")
                self.name = alias or self.name
                if default is _NO_DEFAULT and not described.is_required():
                    default = described.get_default(call_default_factory=True, validated_data={})
        self.adapter = _adapter(hint, where)
        if default is None and not self._takes(None):
            self.adapter = _adapter(Union[hint, None], where)  # noqa: UP007  # what is in `hint` may know no `|`
        self.default = _NO_DEFAULT if default is _NO_DEFAULT else self._as_json(default, where)

    def described(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return the argument's schema with its default."""
        bare = {key: value for key, value in schema.items() if key != "default"}
        return bare if self.default is _NO_DEFAULT else {**bare, "default": self.default}

    def _takes(self, value: Any) -> bool:
        try:
            self.adapter.validate_python(value)
        except ValidationError:
            return False
        return True

    def _as_json(self, default: Any, where: str) -> Any:
        try:
            value = self.adapter.dump_python(default, mode="json", warnings=False)
            check_bounds(value, where="default")
            self.adapter.validate_python(value)
        except Exception as error:  # a type's own code says whether it is JSON
            reason = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else error
            raise InvalidConfig(f"{where}: its default {default!r:.80} is none JSON can say: {reason}") from None
        return value


class ZonelessTimes(GenerateJsonSchema):
    """Describe types by what they take: a time without a zone is one to Python, and what models write."""

    def datetime_schema(self, schema: Any) -> JsonSchemaValue:
        zoned = schema.get("tz_constraint") not in (None, "naive")
        return super().datetime_schema(schema) if zoned else {"type": "string", "format": "iso-date-time"}

    def time_schema(self, schema: Any) -> JsonSchemaValue:
        zoned = schema.get("tz_constraint") not in (None, "naive")
        return super().time_schema(schema) if zoned else {"type": "string", "format": "iso-time"}


class _Generator(ZonelessTimes):
    """Describe types as a whole too: of two that both fit, what only the other has must not get lost."""

    def model_schema(self, schema: Any) -> JsonSchemaValue:
        return _whole(super().model_schema(schema))

    def typed_dict_schema(self, schema: Any) -> JsonSchemaValue:
        return _whole(super().typed_dict_schema(schema))

    def dataclass_schema(self, schema: Any) -> JsonSchemaValue:
        return _whole(super().dataclass_schema(schema))


def _whole(schema: JsonSchemaValue) -> JsonSchemaValue:
    return {"additionalProperties": False, **schema} if "properties" in schema else schema


def _adapter(hint: Any, where: str) -> TypeAdapter[Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an alias is the argument's, not the type's
            return TypeAdapter(hint)
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise InvalidConfig(f"{where}: {error.message}") from None
    except (NameError, TypeError) as error:
        raise InvalidConfig(f"{where}: {error}") from None


def _annotated(fn: Any) -> Any:
    """Return the function whose annotations are a callable's."""
    if inspect.isclass(fn):
        return fn.__init__
    if not inspect.isroutine(fn):
        fn = type(fn).__call__
    return inspect.unwrap(fn)


def _is_context(hint: Any, context_type: type) -> bool:
    """Whether a parameter takes the call's context, alone or as an option."""
    if get_origin(hint) is Annotated:
        return _is_context(get_args(hint)[0], context_type)
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else ()
    return hint is context_type or any(_is_context(each, context_type) for each in options)


def _by_name(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
