"""The words that pick one of an argument's choices, as a tool declares them, and the names that say a flag.

    @tool(effect="external", choices={"permission": {"r": ["read", "view"], "rw": ["edit"]}})

An order picks a choice if it says a word of that one as a choice (`read-only`, `with edit access`, `so that she can
view it`, `tell him urgently`), and the request has no word of another.  The verb of an order is none (`edit a.docx`).
A boolean of which nothing is declared is said by its own name where an order asks for it: `make it public`, `set up a
recurring payment`; or that it must not be: `it is not recurring`.  Where the name only describes something (`the public
calendar`), or may do so, it says nothing.  What an order is says `stack/provenance/directives.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from airside.stack.canonical import canonical
from airside.stack.errors import InvalidConfig
from airside.stack.schema.paths import EVERY, parse_path
from airside.stack.text.tokens import QUOTED, parted

Json = Any
Picks = tuple[tuple[str, tuple[str, ...]], ...]
"""Choices as canonical JSON, each with its words."""

Choices = tuple[tuple[str, Picks], ...]
"""The picks of arguments, by their paths."""

Declared = Mapping[str, Mapping[Any, Iterable[str]]]

MAX_WORD = 64


def checked_choices(tool: str, declared: Declared) -> Choices:
    """Return what a tool declares as choices with words; raise `InvalidConfig` for what can pick nothing.

    A choice is given as it is or, where a text is no choice of the argument, as JSON (`"3"` for 3): the tool's schema
    settles which (`settled`).
    """
    if not isinstance(declared, Mapping):
        raise InvalidConfig(f"tool {tool}: choices {declared!r:.80} is not {{argument: {{choice: [words]}}}}")
    return tuple((path, _checked(f"tool {tool}: choices of {path!r:.80}", picks)) for path, picks in declared.items())


def _checked(where: str, picks: Any) -> Picks:
    if not isinstance(picks, Mapping) or not picks:
        raise InvalidConfig(f"{where}: give {{choice: [words]}}, not {picks!r:.80}")
    found: dict[str, tuple[str, ...]] = {}
    owner: dict[str, Any] = {}
    for choice, words in picks.items():
        if choice is not None and not isinstance(choice, str | int | float | bool):
            raise InvalidConfig(f"{where}: {choice!r:.80} is neither a text, a number nor a boolean")
        if isinstance(words, str) or not isinstance(words, Iterable):
            raise InvalidConfig(f"{where}: give the words of {choice!r:.80} as a list, not {words!r:.80}")
        tidied = tuple(dict.fromkeys(_tidied(where, choice, word) for word in words))
        if not tidied:
            raise InvalidConfig(f"{where}: {choice!r:.80} has no words, so that nothing can pick it")
        for word in tidied:
            if word in owner:
                raise InvalidConfig(
                    f"{where}: {word!r} would pick {owner[word]!r:.80} and {choice!r:.80}, and so picks neither"
                )
            owner[word] = choice
        found[canonical(choice).decode()] = tidied
    return tuple(found.items())


def _tidied(where: str, choice: Any, word: Any) -> str:
    tidy = " ".join(word.split()).lower() if isinstance(word, str) else ""
    if not any(char.isalnum() for char in tidy) or len(tidy) > MAX_WORD:
        raise InvalidConfig(
            f"{where}: {word!r:.80} is no word for {choice!r:.80}: 1 to {MAX_WORD} characters, a letter"
        )
    return tidy


def settled(where: str, picks: Picks, takes: Any) -> Picks:
    """Return picks with each choice as the argument takes it; raise `InvalidConfig` for one it never takes."""
    found = []
    for choice, words in picks:
        value = msgspec.json.decode(choice)
        if not takes(value) and isinstance(value, str):
            try:
                value = msgspec.json.decode(value.encode())
            except msgspec.DecodeError:
                value = None
        if value is None or not takes(value):
            raise InvalidConfig(f"{where}: {msgspec.json.decode(choice)!r:.80} is none of its choices")
        found.append((canonical(value).decode(), words))
    return tuple(found)


def picks_of(choices: Choices, path: tuple[str, ...]) -> Picks:
    """Return the picks of what stands at a path of the arguments."""
    return next((picks for pattern, picks in choices if _fits(pattern, path)), ())


def _fits(pattern: str, path: tuple[str, ...]) -> bool:
    parts = parse_path(pattern)
    return len(parts) == len(path) and all(
        each.isdigit() if part is EVERY else part == each for part, each in zip(parts, path, strict=True)
    )


# Words.

_V = "[\u01c2\x00]"
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NAME_WORDS = re.compile(r"[a-z0-9]+")
_MAX_NAME = 64
_CLOSED = (
    r"(?=\s*(?:\Z|[.,;:!)]"
    r"|(?:and|but|so|then|for|to|with|in|on|at|from|until|once|please|now|again|over|of)(?!\w)))"
)
_NO_NOUN = "an?|of|on|in|at|for|to|with|about|being|by|from|as|into|and|or|more|less|not|very|going|is|are|be"
_WORD = rf"(?!(?:{_NO_NOUN})\b)[a-z][\w\-]*"
_WHAT = (
    rf"(?:it|them|this|these|those|(?:the|this|that|my|our|all) (?:{_WORD} ){{0,2}}?{_WORD}(?: {_V}+)?"
    rf"|{_WORD} {_V}+|{_V}+)"
)
"""What is to be so: `it`, `the page`, `file a.pdf`."""


def _name_words(name: str) -> list[str]:
    return _NAME_WORDS.findall(_CAMEL.sub(" ", name[:_MAX_NAME]).lower())


# Choices.

_OF_A_CHOICE = "access|permissions?|rights?|privileges?|priority|level|mode|role|only"
_NOT_A_THING = r"(?!(?:her|his|their|my|your|our|its)\b)"
_THING = rf"(?:it|them|this|that|{_NOT_A_THING}(?:the |this |that )?(?:{_WORD} )?(?:{_WORD}|{_V}+))"
_MANNER = r"(?:[a-z]+ly|aloud)"
_WHOM = rf"(?:her|him|them|me|us|it|everyone|everybody|{_V}+|(?!wh|how|if|that)[a-z]+)"


def words_saying(name: str, value: Json, choices: Picks) -> frozenset[str]:
    """Return the words of what a request says to set so: those of a choice, else of a flag's name."""
    said = dict(choices).get(canonical(value).decode(), ()) if choices else _name_words(name)
    return frozenset(part for each in said for part in re.split(r"[ \-]", each))


def says_choice(word: str, name: str, prose: str, granted: Iterable[str]) -> bool:
    """Whether an order says a word as a choice: beside what says that it is one, or as what somebody is let do.

    `name` is the argument's, `prose` the order from its verb on, `granted` what it says that somebody may do.
    """
    own = re.escape(word)
    if any(re.fullmatch(rf"{own}(?: {_THING})?\W*", each) for each in granted):
        return True
    return _choice_pattern(word, " ".join(_name_words(name))).search(prose) is not None


@lru_cache(maxsize=1024)
def _choice_pattern(word: str, name: str) -> re.Pattern[str]:
    own = re.escape(word)
    kinds = f"{_OF_A_CHOICE}|{re.escape(name)}" if name else _OF_A_CHOICE
    marked = rf"|(?<=[ ,])(?<!\bto ){own}{_CLOSED}" if re.search(rf"\b(?:{kinds})\b", word) else ""
    return re.compile(
        rf"(?<!\bto )(?<!\bof )(?<!\bon )(?<!\babout )(?<=[ ,]){own}[ \-](?:{kinds}){_CLOSED}"
        rf"|(?<=[ ,])(?:{kinds})(?: to| of| ?[:=]| as| is)? {own}(?: {_THING})?{_CLOSED}{marked}"
        rf"|(?<=[ ,])as (?:an? |the )?{own}{_CLOSED}"
        rf"|\A(?:let {_WHOM}|(?:allow|permit|enable) {_WHOM} to) {own}(?: {_THING})?{_CLOSED}"
    )


def says_manner(word: str, prose: str) -> bool:
    """Whether a word says how an order is to be carried out: `tell bob urgently`."""
    if re.fullmatch(_MANNER, word) is None:
        return False
    return (
        re.match(rf"[a-z]+(?: {_WHOM})?(?: {_MANNER}(?:,| and| but)?)*? {re.escape(word)}(?![\w\-])", prose) is not None
    )


# Flags.

_AUXILIARY = frozenset({"is", "be", "as", "make", "set", "mark", "should", "flag", "enable", "enabled"})
_SET = "make|mark|set|keep|leave|turn|switch|declare|flag"
_BRING = (
    "set up|setup|create|make|schedule|enter|send|add|start|arrange|plan|order|book|open|post|write|establish|initiate"
    "|publish|prepare|register|file|give"
)
_MADE = (
    "payment|transfer|transaction|donation|order|subscription|event|meeting|appointment|call|session|reminder|alert|task"
    "|to-?do|job|shift|booking|reservation|invoice|ticket|issue|case|message|mail|e-?mail|notice|note|post|page|file"
    "|folder|document|sheet|draft|copy|link|channel|group|list|board|calendar|entry|item|repository|repo|album|playlist"
    "|form|poll|survey"
)
"""What an adjective before it is a flag of, not a part of its name (`a public holiday`)."""


@lru_cache(maxsize=1024)
def _patterns(name: str) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]] | None:
    """Return what asks for a flag of this name, what asks for none, and what may do so."""
    words = _name_words(name)
    while len(words) > 1 and words[0] in _AUXILIARY:
        words.pop(0)
    if not words or len("".join(words)) < 3:
        return None
    bare = "[ -]".join(words)
    own = rf"(?<![\w\-])(?:{bare})(?![\w\-])"
    made = rf"(?:an?|one) (?:new )?{{}} (?:{_MADE})(?:{_CLOSED}|(?= (?:{_V}|named|called|titled|lasting|starting)))"
    yes = (
        rf"\A(?:{_SET}) {_WHAT} (?:(?:as|to be) )?{own}{_CLOSED}"
        rf"|\A(?:set|turn|switch) {own} (?:to )?(?:true|yes|on)\b"
        rf"|\A(?:{_BRING}) (?:(?:me|us) )?{made.format(own)}"
        rf"|\A[a-z]+ (?:it|them|this|{_V}+)(?: as)? {own}{_CLOSED}"
        rf"|, {own}\W*\Z"
        rf"|(?:\A|[,;(] ?){own} ?[:=] ?(?:yes|true|on)\b"
        rf"|\A{own} (?:them|him|her|me|us|everyone|everybody)\b"
        rf"|\A\W*(?:it|this|they) (?:must|shall|has to) be (?:an? )?{own}{_CLOSED}"
    )
    no = (
        rf"\A\W*(?:it|this|they) (?:is|are|must|shall)(?: not|n['\u2019]t)(?: be)?(?: an?)? {own}{_CLOSED}"
        rf"|\A\W*(?:please )?(?:do not|don['\u2019]?t|never) (?:{_SET}) {_WHAT} (?:(?:as|to be) )?{own}{_CLOSED}"
        rf"|\b(?:{_BRING}) (?:(?:me|us) )?{made.format(rf'non-?{bare}')}|{own} ?[:=] ?(?:no|false|off)\b"
    )
    loosely_no = (
        rf"(?:\bnot|n['\u2019]t|\bnever|\bno longer)(?: [\w'\u2019\-]+){{0,5}} {own}"
        rf"|(?<![\w\-])non-?{bare}(?![\w\-])|{own} ?[:=] ?(?:no|false|off)\b"
    )
    return re.compile(yes), re.compile(no), re.compile(loosely_no)


def says_flag(name: str, prose: str, said: str) -> bool | None:
    """Return what an order says of the flag of this name; None if it does not say, or both.

    `prose` is the order from its verb on, its values masked; `said` has them.
    """
    patterns = _patterns(name)
    if patterns is None:
        return None
    yes, no = patterns[0].search(prose) is not None, any(patterns[1].search(each) for each in (prose, said))
    return yes if yes != no else None


def may_deny(name: str, text: str) -> bool:
    """Whether a text in lower case may say anywhere that a flag is not to be set."""
    patterns = _patterns(name)
    return patterns is not None and patterns[2].search(text) is not None


def prose_of(text: str) -> str:
    """Return a text in lower case without what stands in quotation marks."""
    return QUOTED.sub(" \x00 ", " ".join(parted(text).split())).lower()
