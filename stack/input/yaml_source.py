"""YAML files people write, read into closed typed models, with the line of whatever is wrong.

Read by the core schema of YAML 1.2: `true`, `false`, `null`, `~` and numbers are what they are, all else is text
(`NO`, `on`, `2026-12-25`, `22:30`).  Keys are always text.  What these files have no use for is refused, for it is
there by mistake: anchors, aliases, merge keys, other tags than the core's, numbers that are not finite.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from yaml.composer import Composer
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from airside.stack.errors import InvalidConfig
from airside.stack.input.sentences import Location, hint, names_at, place_of, sentence
from airside.stack.input.yaml_problems import explain_yaml

Model = TypeVar("Model", bound=BaseModel)

_TAG = "tag:yaml.org,2002:"
_NULL = re.compile(r"null|Null|NULL|~|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_BREAKS = re.compile("[\u0085\u2028\u2029]")
"""Line breaks for YAML 1.1 and for this parser, but not for whoever reads the file: a comment would end there."""

_MAX_PROBLEMS = 10


class _Problem(yaml.YAMLError):
    """Something wrong at a line of the file."""

    def __init__(self, problem: str, mark: Any) -> None:
        super().__init__(problem)
        self.problem, self.problem_mark = problem, mark


class _CoreLoader(Reader, Scanner, Parser, Composer, BaseResolver):
    """Composes the nodes of a document by the core schema; what they stand for is `_value`'s."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)

    def compose_document(self) -> Any:
        """Refuse a document that says it is of another version."""
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "version", None) not in (None, (1, 2)):
            raise _Problem("YAML 1.2 is read: leave the directive out", event.start_mark)
        return super().compose_document()

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse what makes one place of the file mean another."""
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "anchor", None) is not None:
            raise _Problem("anchors (&) and aliases (*) are not read: write it out, or in quotes", event.start_mark)
        if getattr(event, "tag", None) == "!":
            raise _Problem("the tag '!' is not read: write quotes", event.start_mark)
        return super().compose_node(parent, index)


for _name, _pattern, _first in (
    ("null", _NULL, ["~", "n", "N", ""]),
    ("bool", _BOOL, list("tTfF")),
    ("int", _INT, list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
):
    _CoreLoader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern.pattern})\Z"), _first)


class Lines:
    """Where things stand in a file: `where` and the line of a place in its data."""

    def __init__(self, where: str, root: Node | None) -> None:
        self._where = where
        self._root = root

    def at(self, location: Location) -> str:
        """Return file and line of the deepest part of `location` that the file has."""
        node, line = self._root, self._root.start_mark.line + 1 if self._root else 1
        for part in location:
            if isinstance(node, MappingNode):
                found = next(((k, v) for k, v in node.value if k.value == str(part)), None)
                if found is None:
                    continue  # pydantic also names union branches, which the file does not have
                line, node = found[0].start_mark.line + 1, found[1]
            elif isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                line = node.start_mark.line + 1
        return f"{self._where}:{line}"


def load_yaml(source: str | Path, model: type[Model], *, name: str) -> Model:
    """Read `source` (a `Path`, or the YAML text of what is called `name`) into `model`.

    Raises `InvalidConfig` naming file (or name) and line.
    """
    return read_yaml(source, model, name=name)[0]


def read_yaml(source: str | Path, model: type[Model], *, name: str) -> tuple[Model, Lines]:
    """Read as `load_yaml`, and return where things stand in the file, for what is checked later."""
    where = str(source) if isinstance(source, Path) else name
    text = _text(source, where)
    try:
        root = _CoreLoader(text).get_single_node()
        data = None if root is None else _value(root, "")
    except yaml.YAMLError as error:
        line, said = explain_yaml(error, text)
        raise InvalidConfig(f"{where}:{line}: {said}" if line else f"{where}: {said}") from None
    except (Exception, RecursionError) as error:
        # Absurd nesting breaks the YAML library in ways of its own.
        raise InvalidConfig(f"{where}: not plain YAML: {type(error).__name__}: {error}") from None
    if isinstance(data, str) and data == text.strip():
        raise InvalidConfig(
            f"{where}: {data!r:.80} is text, not a mapping; for a file of that name give a pathlib.Path"
        )
    lines = Lines(where, root)
    try:
        return model.model_validate(data), lines
    except ValidationError as error:
        raise InvalidConfig("\n".join(islice(_explained(error, model, lines), _MAX_PROBLEMS))) from None


def explain(error: ValidationError, whole: str) -> list[str]:
    """Return one sentence a problem: the field (or `whole`), and what is wrong with it."""
    return [f"{place_of(e['loc']) or whole}: {sentence(e)}" for e in error.errors(include_url=False)]


def explain_fields(error: ValidationError, whole: str, names: Iterable[str], others: Iterable[str] = ()) -> list[str]:
    """Return one sentence a problem with fields (or `whole`).

    Of a field that does not exist it says which of `names` may be meant, of one that is missing which of the `others`,
    that are there as well, may be meant for it.
    """
    known, more = list(names), list(others)
    return [
        said + (hint(problem, known, more) if len(problem["loc"]) == 1 else "")
        for said, problem in zip(explain(error, whole), error.errors(include_url=False), strict=True)
    ]


def _explained(error: ValidationError, model: type[BaseModel], lines: Lines) -> Iterator[str]:
    """Yield a sentence a problem of a document: its line, its key, what is wrong, and which name may be meant."""
    for said, problem in zip(explain(error, "document"), error.errors(include_url=False), strict=True):
        place = problem["loc"]
        yield f"{lines.at(place)}: {said}" + (hint(problem, names_at(model, place)) if place else "")


def _text(source: str | Path, where: str) -> str:
    try:
        text = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
    except OSError as error:
        raise InvalidConfig(f"{where}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidConfig(f"{where}: not UTF-8: {error.reason} at byte {error.start}") from None
    found = _BREAKS.search(text)
    if found is not None:
        line = text.count("\n", 0, found.start()) + 1
        raise InvalidConfig(f"{where}:{line}: the line break U+{ord(found.group()):04X}: write an escape in quotes")
    return text


def _value(node: Node, field: str) -> Any:
    """Return what a node stands for; `field` is the key it stands under."""
    kind = node.tag.removeprefix(_TAG)
    if isinstance(node, ScalarNode):
        return _scalar(node, kind, field)
    if isinstance(node, SequenceNode):
        if kind != "seq":
            _refuse_tag(node)
        return [_value(item, field) for item in node.value]
    if kind != "map":
        _refuse_tag(node)
    found: dict[str, Any] = {}
    for key, inner in node.value:
        if not isinstance(key, ScalarNode):
            raise _Problem("a key must be plain text", key.start_mark)
        if key.value in found:
            raise _Problem(f"the key {key.value!r} is given twice", key.start_mark)
        if key.value == "<<" and key.style is None:
            raise _Problem("merge keys (<<) are not read: write it out", key.start_mark)
        found[key.value] = _value(inner, key.value)
    return found


def _scalar(node: ScalarNode, kind: str, field: str) -> Any:
    text: str = node.value
    shown = f"{field}: {text!r:.60}"
    if kind == "str":
        return text
    pattern = {"null": _NULL, "bool": _BOOL, "int": _INT, "float": _FLOAT}.get(kind)
    if pattern is None:
        _refuse_tag(node)
    if pattern.fullmatch(text) is None:
        raise _Problem(f"{shown} is no {kind}", node.start_mark)
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    try:
        number = float(text.lower().replace(".inf", "inf").replace(".nan", "nan")) if kind == "float" else _whole(text)
    except ValueError:
        raise _Problem(f"{shown} is too long for a number", node.start_mark) from None
    if not math.isfinite(number):
        raise _Problem(f"{shown} is not a finite number", node.start_mark)
    return number


def _whole(text: str) -> int:
    bases = {"0o": 8, "0x": 16}
    return int(text[2:], bases[text[:2]]) if text[:2] in bases else int(text)


def _refuse_tag(node: Node) -> NoReturn:
    raise _Problem(f"the tag {node.tag!r:.60} is not read: leave it out", node.start_mark)
