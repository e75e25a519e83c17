"""Pydantic models that people make in code: a wrong field is said as every other wrong call is."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from airside.stack.calling import close_names, example_call, wrong_call, wrong_call_text
from airside.stack.errors import WrongCall, plain
from airside.stack.input.yaml_source import explain

_MAX_PROBLEMS = 10
_MAX_CHARS = 300


if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)


class Explained(ModelMetaclass):
    """The kind of models whose calls say what is wrong with them.  What is validated from data raises as ever."""

    how = ""
    """A call as it should be, made of the fields if empty."""

    if not TYPE_CHECKING:

        def __call__(cls, /, *args: Any, **fields: Any) -> Any:
            """Make a model; raise `WrongCall` for a field that does not exist, is missing or is wrong."""
            try:
                return super().__call__(*args, **fields)
            except ValidationError as error:
                wrong = _wrong(error, cls, cls.how)
            except TypeError:
                wrong = wrong_call(cls.__name__, inspect.signature(cls), args, fields, how=cls.how)
                if wrong is None:
                    raise
            raise wrong from None


def _wrong(error: ValidationError, model: type[BaseModel], how: str) -> WrongCall:
    sentences = []
    parts = {name: "..." for name, field in model.model_fields.items() if field.is_required()}
    for sentence, problem in zip(explain(error, "its fields"), error.errors(include_url=False), strict=True):
        place = problem["loc"]
        own = problem["type"] == "extra_forbidden" and len(place) == 1
        near = close_names(str(place[0]), model.model_fields) if own else []
        parts |= dict.fromkeys(near[:1], "...")
        sentences.append(plain(sentence, _MAX_CHARS) + (f" (do you mean {' or '.join(near)}?)" if near else ""))
    how = how or example_call(model.__name__, parts)
    return WrongCall(wrong_call_text(model.__name__, sentences[:_MAX_PROBLEMS], model.model_fields, how))
