"""What a request says beyond the values that stand in it: what it names, how long something lasts, what it picks.

Only what the principal said to take counts (`stack/exclusions.py`), and nothing that stands in quotation marks but as a
title.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Any

from airside.stack.canonical import canonical
from airside.stack.choices import Picks, prose_of, says_flag
from airside.stack.durations import ends, length_of, lengths_in, start_beside, unit_of
from airside.stack.exclusions import wanted, wanted_inputs
from airside.stack.moments import read_moment
from airside.stack.occurrence import Haystack, decimal_of, fold, leaves
from airside.stack.records import Whom, is_file_name
from airside.stack.tokens import QUOTED, parted

Json = Any

_LINKS = re.compile(
    r"(?<!\w)(?:links?|urls?|(?:web ?)?(?:sites?|pages?|address(?:es)?)|articles?|posts?|forms?|videos?"
    r"|adressen?|liens?)(?!\w)"
)
_WITHIN = re.compile(r"[\w,;'\u2019\u201d\")] \Z")
"""Before a word that does not begin a sentence."""


class Asked:
    """A principal's request; `written` is the day it was, for days without a year."""

    def __init__(self, text: str, inputs: Json, written: date) -> None:
        given, kept = wanted_inputs(inputs), wanted(text)
        self.authority = Haystack(kept, given, quotes=True, written=written)
        self.content = [Haystack(text, inputs, quotes=True, written=written)]
        if parted(text) != text:  # a link that was copied with the word after it
            self.content.append(Haystack(text, quotes=True, verbatim=True))
        self._leaves = frozenset(fold(each.strip()) for each in leaves(given) if isinstance(each, str))
        self._prose = prose_of(kept)
        self._all = prose_of(text)
        self._kept = QUOTED.sub(" \x00 ", parted(kept))
        self._written = written

    def is_title(self, title: str) -> bool:
        """Whether it has a folded title in quotation marks, as a file's name, or as a value of its inputs."""
        by_name = is_file_name(title) and self.authority.has(title)
        return by_name or title in self._leaves or self.authority.quotes(title)

    def names(self, whom: Whom) -> bool:
        """Whether it speaks of links, and has this sender or place by name.

        Anybody may call himself `News`: a name is an address, is quoted or has a capital within a sentence; a place
        has its kind beside it (`channel spring`).
        """
        if _LINKS.search(self._prose) is None:
            return False
        kind, name = whom
        if name in self._leaves or self.authority.quotes(name) or ("@" in name and self.authority.has(name)):
            return True
        if kind != "sender":
            forms = f"{kind} {name}", f"{name} {kind}"
            return f"#{name}" in self._prose.split() or any(self.authority.has(each) for each in forms)
        found = re.finditer(rf"(?<![\w@.\-/]){re.escape(name)}(?![\w@\-/])", self._kept, re.IGNORECASE)
        return any(match.group()[0].isupper() and _WITHIN.search(self._kept, 0, match.start()) for match in found)

    def lasts(self, name: str, value: Json) -> bool:
        """Whether a number is the one length it says, in the unit that the argument's name says."""
        unit = unit_of(name)
        lengths = set() if unit is None else {length for _, length in lengths_in(self._prose)}
        return unit is not None and len(lengths) == 1 and decimal_of(value) == decimal_of(lengths.pop() / unit)

    def start_of(self, name: str, value: Json, siblings: Mapping[str, Json]) -> tuple[str, str]:
        """Return the argument with the start of which `value` is the end by the length it says, and that; else none."""
        start_name = start_beside(name, siblings) if isinstance(value, str) else ""
        start, end = (read_moment(siblings[start_name]), read_moment(value)) if start_name else (None, None)
        if start is None or end is None:
            return "", ""
        length = length_of(self._prose, start, self._written)
        return (start_name, str(length).removesuffix(":00")) if length and ends(start, length, end) else ("", "")

    def picks(self, value: Json, choices: Picks) -> bool:
        """Whether it has words of this one of the choices, and of no other."""
        found = [choice for choice, words in choices if any(self.authority.has(word) for word in words)]
        return found == [canonical(value).decode()]

    def flags(self, name: str, value: bool) -> bool:
        """Whether it asks for a flag of this name to be set so."""
        return says_flag(name, self._prose, self._all) is value
