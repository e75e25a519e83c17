"""YAML files people write, read into closed typed models, with the line of whatever is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from airside.stack.errors import InvalidConfig

Model = TypeVar("Model", bound=BaseModel)


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a repeated key, which YAML would silently resolve to the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is given twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def load_yaml(source: str | Path, model: type[Model], *, name: str) -> Model:
    """Read `source` (a `Path`, or the YAML text of what is called `name`) into `model`.

    Raises `InvalidConfig` naming file (or name) and line.
    """
    where = str(source) if isinstance(source, Path) else name
    try:
        text = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
    except OSError as error:
        raise InvalidConfig(f"{where}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidConfig(f"{where}: not UTF-8: {error.reason} at byte {error.start}") from None
    try:
        data = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - _StrictLoader is a SafeLoader
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise InvalidConfig(f"{where}{line}: {getattr(error, 'problem', error)}") from None
    except (Exception, RecursionError) as error:
        # Explicit tags (`!!int x`) and absurd nesting break the YAML library in ways of its own.
        raise InvalidConfig(f"{where}: not plain YAML: {type(error).__name__}: {error}") from None
    if isinstance(data, str) and data == text.strip():
        raise InvalidConfig(
            f"{where}: {data!r:.80} is text, not a mapping; for a file of that name give a pathlib.Path"
        )
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_line(root, e["loc"]) for e in error.errors(include_url=False)]
        problems = [f"{where}:{line}: {text}" for line, text in zip(lines, explain(error, "document"), strict=True)]
        raise InvalidConfig("\n".join(problems[:10])) from None


def explain(error: ValidationError, whole: str) -> list[str]:
    """Return one sentence a problem: the field (or `whole`), and what is wrong with it."""
    texts = {"extra_forbidden": "unknown field", "missing": "required, and not there"}
    return [
        f"{'.'.join(map(str, e['loc'])) or whole}: {texts.get(e['type'], e['msg'])}"
        for e in error.errors(include_url=False)
    ]


def explain_fields(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Return one sentence a problem with a model's fields; of a field that does not exist, what may be meant."""
    sentences = explain(error, model.__name__)
    problems = error.errors(include_url=False)
    return [
        sentence + (meant(str(problem["loc"][0]), model.model_fields) if problem["type"] == "extra_forbidden" else "")
        for sentence, problem in zip(sentences, problems, strict=True)
    ]


def meant(name: str, names: Iterable[str]) -> str:
    """Return what may be meant by a name that does not exist, as the end of a sentence."""
    near = difflib.get_close_matches(name, names, n=2, cutoff=0.7)
    return f" (do you mean {' or '.join(near)}?)" if near else f"; there are {', '.join(sorted(names))}"


def _line(node: yaml.Node | None, location: tuple[int | str, ...]) -> int:
    """Return the line (from 1) of the deepest part of `location` that the file has."""
    line = node.start_mark.line + 1 if node else 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if found is None:
                continue  # pydantic also names union branches, which the file does not have
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line
