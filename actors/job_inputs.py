"""An app's `job_inputs`: which further fields its jobs may have, and what becomes of them.

The model reads them, wherever that is: in the process that has the app, or in the stack's Intake for one that has not
(`actors/intake.py`).  Both call `read_inputs`, so that both come to the same bytes or the same words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, RootModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo

from airside.stack.canonical import parse_bounded, write_bounded
from airside.stack.errors import InvalidConfig, InvalidInput, plain, text_of
from airside.stack.input.yaml_source import explain_fields
from airside.stack.schema.schemas import read_schema
from airside.stack.values import MAX_REQUEST_BYTES
from airside.tools.signature import ZonelessTimes

_MAX_PROBLEM_CHARS = 2_000


class Fields(NamedTuple):
    """The further fields' names, as jobs give them; `any` = a job may have others too, which the model takes.

    `closed` = the model takes no others, and whatever else stands in inputs is its to refuse.
    """

    names: frozenset[str] = frozenset()
    any: bool = False
    closed: bool = False

    def has(self, name: str, of_jobs: frozenset[str]) -> bool:
        """Whether a field is one of these, and none of the jobs' own."""
        return name in self.names or (self.any and name not in of_jobs)

    def parted(self, inputs: Mapping[str, Any], of_jobs: frozenset[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what of a job's inputs the model reads, and what stays as it is."""
        read = {name: value for name, value in inputs.items() if self.closed or self.has(name, of_jobs)}
        return read, {name: value for name, value in inputs.items() if name not in read}


class InputsReading(NamedTuple):
    """What became of one job's further fields: inputs, as JSON, or what is wrong with them."""

    inputs: bytes
    problem: str = ""


class JobInputs(NamedTuple):
    """Which further fields there are, and what reads them: several jobs', each as a JSON object."""

    fields: Fields
    read: Callable[[Sequence[bytes]], list[InputsReading]]


NO_INPUTS = JobInputs(Fields(), lambda given: [InputsReading(b"{}") for _ in given])


def inputs_of(model: type[BaseModel]) -> JobInputs:
    """Return the reader of a model in this process."""
    return JobInputs(fields_of(model), partial(read_inputs, model))


def fields_of(model: type[BaseModel]) -> Fields:
    """Return the names by which a model's fields are given."""
    config = model.model_config
    by_name = bool(config.get("populate_by_name") or config.get("validate_by_name"))
    by_alias = config.get("validate_by_alias", True)
    names: set[str] = set()
    for name, field in model.model_fields.items():
        aliases = _aliases(field)
        names |= {name} if by_name or not aliases else set()
        names |= aliases if by_alias else set()
    extra = config.get("extra")
    return Fields(frozenset(names), any=extra == "allow", closed=extra == "forbid")


def _aliases(field: FieldInfo) -> set[str]:
    alias = field.validation_alias
    found: set[str] = set()
    for each in alias.choices if isinstance(alias, AliasChoices) else [alias]:
        first = each.path[0] if isinstance(each, AliasPath) else each
        found |= {first} if isinstance(first, str) else set()
    return found


def read_inputs(model: type[BaseModel], given: Sequence[bytes]) -> list[InputsReading]:
    """Have a model read the further fields of jobs; whatever its validators do, one job's trouble is its own."""
    return [_read(model, data) for data in given]


def _read(model: type[BaseModel], data: bytes) -> InputsReading:
    try:
        parse_bounded(data, max_bytes=MAX_REQUEST_BYTES, where="inputs")  # the model's own parser takes more
        (read,) = _writer(model).dump_python([model.model_validate_json(data)], mode="json")
        return InputsReading(write_bounded(read, max_bytes=MAX_REQUEST_BYTES, where="inputs"))
    except ValidationError as error:
        problem = "; ".join(explain_fields(error, "job", fields_of(model).names))
    except InvalidInput as error:
        problem = error.message
    except BaseException as error:  # a validator's own, an exit too: only `ValueError` and its like are the model's
        problem = f"job_inputs: {text_of(error)}"
    return InputsReading(b"", plain(problem, _MAX_PROBLEM_CHARS))


@lru_cache(maxsize=16)
def _writer(model: type[BaseModel]) -> TypeAdapter[list[BaseModel]]:
    """Return what writes models as JSON values: a number that is none stays what it is, to be refused, and is no null.

    A model alone writes by its own settings, which say null; within a list, by those of the list.
    """
    return TypeAdapter(list[model], config=ConfigDict(ser_json_inf_nan="constants"))  # type: ignore[valid-type]


def schema_of(model: type[BaseModel] | None, of_jobs: frozenset[str] = frozenset()) -> dict[str, Any] | None:
    """Return the JSON Schema of an app's `job_inputs`; raise `InvalidConfig` for what cannot be one.

    `of_jobs` are the names of a job's own fields, which no other may have.
    """
    if model is None:
        return None
    if not (isinstance(model, type) and issubclass(model, BaseModel)) or issubclass(model, RootModel):
        raise InvalidConfig(f"job_inputs: {model!r:.80} is not a Pydantic model with fields")
    twice = sorted(fields_of(model).names & of_jobs)
    if twice:
        raise InvalidConfig(f"job_inputs: {', '.join(twice)}: a job has a field of that name: call it something else")
    try:
        written = model.model_json_schema(schema_generator=ZonelessTimes)
    except PydanticUserError as error:
        raise InvalidConfig(f"job_inputs: {error.message}") from None
    if _may_backtrack(model.__pydantic_core_schema__):
        raise InvalidConfig(
            "job_inputs: a pattern of Python's `re` may take for ever over one text: "
            "leave out regex_engine='python-re', and give patterns as text"
        )
    return read_schema(written, "job_inputs")


_OF_PEOPLE = frozenset({"cls", "default", "expected", "metadata", "function"})
"""What of a core schema is the app's own objects, and no schema."""

_BY_NAME = frozenset({"fields", "choices"})
"""What has schemas under names that people choose, which may be any of those above."""


def _may_backtrack(schema: Any) -> bool:
    """Whether anything in a model's core schema has its patterns read by Python's `re`, as a compiled one is."""
    if isinstance(schema, re.Pattern):
        return True
    if isinstance(schema, list | tuple):
        return any(map(_may_backtrack, schema))
    if not isinstance(schema, dict):
        return False
    if schema.get("regex_engine") == "python-re":
        return True
    return any(
        any(map(_may_backtrack, inner.values()))
        if name in _BY_NAME and isinstance(inner, dict)
        else _may_backtrack(inner)
        for name, inner in schema.items()
        if name not in _OF_PEOPLE
    )
