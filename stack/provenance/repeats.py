"""Which earlier call of a run a call has the effect of again: an effect is asked for once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airside.stack.canonical import canonical
from airside.stack.provenance.effort import spend_effort
from airside.stack.provenance.matching import SearchableText
from airside.stack.provenance.traversal import walk_values
from airside.stack.run.state import StepRecord
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.values import Part

Json = Any

_ONE_VALUE = 500
"""Characters that one value counts for which is compared with those of an earlier call."""


class Repeats:
    """The earlier calls of one run, what each said read once."""

    def __init__(self) -> None:
        self._then: dict[tuple[int, tuple[Part, ...]], dict[str, list[Json]]] = {}

    def of(
        self,
        spec: ToolSpec,
        arguments: Mapping[str, Json],
        history: Sequence[StepRecord],
        ahead: Sequence[StepRecord] = (),
    ) -> StepRecord | None:
        """Return the earlier call that a call has the effect of again; `ahead` are some that will come before it.

        What cannot be taken back counts as the same whatever its content says, for a reference is easily varied.
        """
        if spec.effect not in ("external", "irreversible"):
            return None
        parts: tuple[Part, ...] = ("authority",) if spec.effect == "irreversible" else ("authority", "content")
        now = _said(spec, arguments, parts)
        for number, before in enumerate((*history, *ahead)):
            if before.tool != spec.name or not before.result.ok:
                continue
            then = self._then.get((before.step, parts))
            if then is None:
                then = _said(spec, before.arguments, parts)
                if number < len(history):  # the others may be made with other arguments yet
                    self._then[before.step, parts] = then
            if now.keys() <= then.keys() and all(_within(values, then[name]) for name, values in now.items()):
                return before
        return None


def _said(spec: ToolSpec, arguments: Mapping[str, Json], parts: tuple[Part, ...]) -> dict[str, list[Json]]:
    """Return the values of each argument, with the schema's defaults."""
    found: dict[str, list[Json]] = {}
    for path, value, part in walk_values({**spec.defaults, **arguments}, (), spec.place, spec.content_paths):
        if part in parts and path:
            found.setdefault(path[0], []).append(value)
    return found


def _within(values: list[Json], others: list[Json]) -> bool:
    """Whether all of these are among those, however they are written."""
    spend_effort(_ONE_VALUE * (len(values) + len(others)))
    same = set(map(canonical, others))
    unlike = [value for value in values if canonical(value) not in same]
    if not unlike:
        return True
    known = SearchableText(*others, whole=True)
    return all(map(known.has, unlike))
