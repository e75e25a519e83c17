"""What a finished run may teach memory beside its answer: facts that a model proposes, each with the words it is from.

An app with an extractor has it look at a run that is done (`EXTRACTOR`).  What it proposes is kept only if its words
stand in the run's request or in what a tool returned, and memory's gate decides about it as about anything else.
Whatever becomes of the extractor, the run ends as it would have without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from airside.stack.text.spelling import joined, plain
from airside.stack.values import Request, Value

if TYPE_CHECKING:
    from airside.stack.run.state import StepRecord

EXTRACTOR = "fact-extractor"
"""The agent that proposes facts of a run that is done."""

MAX_FACTS = 16
"""Facts kept of one run."""

MIN_QUOTE = 8
"""Characters of a quote: fewer stand in nearly every text."""

_NUMBER = re.compile(r"\d+")

FactKind = Literal["fact", "preference", "decision", "event"]


class Fact(Value):
    """What an extractor proposes: a text, and the words it stands on as the run saw them.

    `subject` is whom or what it is about, as those words or what stands around them name it.
    """

    text: Annotated[str, Meta(max_length=2_000)]
    quote: Annotated[str, Meta(max_length=2_000)]
    kind: FactKind = "fact"
    subject: Annotated[str, Meta(max_length=200)] = ""
    confidence: Annotated[float, Meta(ge=0, le=1)] = 0.8


class GroundedFact(Value):
    """A fact that stands on what the run saw, and the step of the call that returned it (0: it was asked with it)."""

    step: int
    fact: Fact


class Seen(NamedTuple):
    """A text the run saw, and the step of the call that returned it."""

    step: int
    tool: str
    text: str


def seen(request: Request, history: Sequence[StepRecord]) -> list[Seen]:
    """Return what a run saw: its request, and what its calls returned."""
    inputs = rendered(msgspec.json.decode(request.inputs))
    found = [Seen(0, "", f"{request.text}\n{inputs}".strip())]
    return found + [Seen(r.step, r.tool, rendered(r.result.value())) for r in history if r.result.ok]


def rendered(value: Any) -> str:
    """Return JSON as lines of text, `path: value` each, as an extractor is shown it and quotes it."""
    return "\n".join(_lines(value, ""))


def _lines(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _lines(each, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for each in value:
            yield from _lines(each, path)
    elif value is not None:
        yield f"{path}: {value}" if path else str(value)


def noted(answer: Any) -> tuple[Fact, ...]:
    """Return the facts of an extractor's answer; what is none of them is left out."""
    items = answer.get("facts") if isinstance(answer, dict) else None
    facts: list[Fact] = []
    for item in items[: 4 * MAX_FACTS] if isinstance(items, list) else ():
        known = {name: item[name] for name in Fact.__struct_fields__ if name in item} if isinstance(item, dict) else {}
        try:
            facts.append(msgspec.convert(known, Fact))
        except msgspec.ValidationError:
            continue
    return tuple(facts)


def grounded(facts: Sequence[Fact], places: Sequence[Seen]) -> tuple[GroundedFact, ...]:
    """Return the facts whose quotes stand in one of the places, as it is read: case, space and form do not count.

    A number that the quote has not is the extractor's own, and so is a subject that the place does not name.
    """
    flat = [(place.step, _flat(place.text)) for place in places]
    found: list[GroundedFact] = []
    for fact in facts:
        quote = _flat(fact.quote)
        place = next(((step, text) for step, text in flat if quote in text), None)
        if place is None or len(quote) < MIN_QUOTE or not _numbers(fact.text) <= _numbers(fact.quote):
            continue
        step, text = place
        is_named = bool(fact.subject) and _flat(fact.subject) in text
        found.append(GroundedFact(step=step, fact=fact if is_named else msgspec.structs.replace(fact, subject="")))
        if len(found) == MAX_FACTS:
            break
    return tuple(found)


def _flat(text: str) -> str:
    return joined(plain(text)).casefold()


def _numbers(text: str) -> set[str]:
    return set(_NUMBER.findall(plain(text)))
