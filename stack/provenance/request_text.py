"""What a request says beyond the values that stand in it: what it names, how long something lasts, what it picks.

Only what the principal said to take counts (`stack/provenance/exclusions.py`), and nothing that stands in quotation
marks but as a title.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import cached_property
from typing import Any

from airside.stack.canonical import canonical
from airside.stack.provenance.directives import CallContext, Clause, Directives
from airside.stack.provenance.effort import spend_effort
from airside.stack.provenance.exclusions import inputs_without_exclusions, without_exclusions
from airside.stack.provenance.matching import SearchableText, decimal_of
from airside.stack.provenance.titles import calls_by_quoting, calls_in_inputs, is_called_file, is_to_be_made
from airside.stack.schema.choices import Picks, may_deny, prose_of, says_choice, says_flag, says_manner
from airside.stack.text.dates import parse_any_form
from airside.stack.text.durations import ends, sibling_start, unit_of
from airside.stack.text.numbers import role_of
from airside.stack.text.tokens import QUOTED, parted

Json = Any

_EVERY_CLAUSE = 20
"""How often a look at every clause of a request looks through its text."""


class RequestText:
    """A principal's request; `written` is the day it was, for days without a year."""

    def __init__(self, text: str, inputs: Json, written: date) -> None:
        given, kept = inputs_without_exclusions(inputs), without_exclusions(text)
        self.authority = SearchableText(kept, given, quotes=True, written=written)
        self.content = [SearchableText(text, inputs, quotes=True, written=written)]
        if parted(text) != text:  # a link that was copied with the word after it
            self.content.append(SearchableText(text, quotes=True, verbatim=True))
        self._text, self._kept_text, self._written = text, kept, written
        self._given = given
        self._prose = prose_of(kept)
        self._all = prose_of(text)
        self._kept = QUOTED.sub(" \x00 ", parted(kept))

    @cached_property
    def orders(self) -> Directives:
        """What it orders."""
        return Directives(self._text, self._written)

    @cached_property
    def _clauses(self) -> tuple[Clause, ...]:
        return Directives(self._kept_text, self._written).clauses

    def is_title(self, title: str, kinds: frozenset[str]) -> bool:
        """Whether it calls a record of these kinds so: quoted, as a file's name, or in its inputs."""
        if calls_in_inputs(self._given, title, kinds):
            return True
        is_called = is_called_file(self.authority, title) or (
            self.authority.quotes(title) and calls_by_quoting(self._clauses, title, kinds)
        )
        return is_called and not is_to_be_made(self._clauses, title)

    # The orders that say something which does not stand there as such: of one of them a call must be
    # (`Directives.serve`).

    def lasts(self, name: str, value: Json) -> list[Clause]:
        """Return the orders of which a number is the length, in the unit that the argument's name says."""
        spend_effort(_EVERY_CLAUSE * len(self._text))
        unit, number = unit_of(name), decimal_of(value)
        if unit is None or number is None:
            return []
        lengths = ((each, self.orders.length(each)) for each in self.orders.plain())
        return [each for each, length in lengths if length is not None and decimal_of(length / unit) == number]

    def may_last(self, name: str, value: Json, call: CallContext) -> bool:
        """Whether a number that stands in the request may be given where an argument says how long something lasts."""
        if unit_of(name) is None:
            return True
        return SearchableText(self._given).has(value, role_of(name)) or self.orders.may_last(call)

    def start_of(self, name: str, value: Json, siblings: Mapping[str, Json]) -> tuple[str, str, list[Clause]]:
        """Return the argument with whose start `value` is the end, by what length, and the order that says so."""
        spend_effort(_EVERY_CLAUSE * len(self._text))
        start_name = sibling_start(name, siblings) if isinstance(value, str) else ""
        start, end = (parse_any_form(siblings[start_name]), parse_any_form(value)) if start_name else (None, None)
        if start is None or end is None:
            return "", "", []
        role = role_of(start_name)
        for each in self.orders.plain():
            length = self.orders.length(each)
            if length and ends(start, length, end) and self.orders.begins(each, siblings[start_name], role):
                return start_name, str(length).removesuffix(":00"), [each]
        return "", "", []

    def picks(self, name: str, value: Json, choices: Picks) -> list[Clause]:
        """Return the orders that say this one of the choices, if the request has no word of another."""
        spend_effort(_EVERY_CLAUSE * len(self._text))
        words = dict(choices).get(canonical(value).decode(), ())
        if any(self.authority.has(word) for choice, those in choices for word in those if those is not words):
            return []
        plain = self.orders.plain()
        found = [each for each in plain if any(says_choice(word, name, each.prose, each.granted) for word in words)]
        return found + [
            each
            for each in self.orders.clauses
            if each.kind == "order" and each.is_first and not each.excludes and "?" not in each.said
            if any(says_manner(word, each.prose) for word in words)
        ]

    def flags(self, name: str, value: bool) -> list[Clause]:
        """Return the orders that ask for a flag of this name to be set so, if nothing says otherwise."""
        spend_effort(_EVERY_CLAUSE * len(self._text))
        said = [(each, says_flag(name, each.prose, each.said)) for each in self.orders.clauses]
        if any(flag is (not value) for _, flag in said) or (value and may_deny(name, self._all)):
            return []
        asked = {each.at for each in self.orders.plain(excluding=not value)}
        return [each for each, flag in said if flag is value and each.at in asked]
