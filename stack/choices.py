"""The words that pick one of an argument's choices, as a tool declares them, and the names that say a flag.

    @tool(effect="external", choices={"permission": {"r": ["read", "view"], "rw": ["edit"]}})

A request picks a choice if it has words of that one and of no other.  A boolean of which nothing is declared is said
by its own name where a sentence asks for it: `make it public`, `set up a recurring payment`, `it must not be urgent`.
Where the name only describes something (`the public calendar`), or may do so, it says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from airside.stack.canonical import canonical
from airside.stack.errors import InvalidConfig
from airside.stack.paths import EVERY, parse_path
from airside.stack.tokens import QUOTED, parted

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


# Flags.

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NAME_WORDS = re.compile(r"[a-z0-9]+")
_AUXILIARY = frozenset({"is", "be", "as", "make", "set", "mark", "should", "flag", "enable", "enabled"})
_MAX_NAME = 64

_SET = "make|making|mark|marking|set|keep|leave|turn|switch|declare"
_BRING = (
    "set up|setup|create|make|schedule|enter|send|add|start|arrange|plan|order|book|open|post|write|establish|initiate"
    "|publish|need|want|prepare|register|file|give me"
)
_DETERMINERS = "the this that these those my our his her their your any all"
_DETERMINED = "".join(rf"(?<!\b{word} )" for word in _DETERMINERS.split())
_CLOSED = (
    r"(?=\s*(?:$|[.,;:!?)\x00]"
    r"|(?:and|or|but|so|then|for|to|with|by|in|on|at|from|until|as|if|when|once|please|now|again)(?!\w)))"
)


@lru_cache(maxsize=1024)
def _patterns(name: str) -> tuple[re.Pattern[str], re.Pattern[str]] | None:
    """Return what asks for a flag of this name, and what asks for none."""
    words = _NAME_WORDS.findall(_CAMEL.sub(" ", name[:_MAX_NAME]).lower())
    while len(words) > 1 and words[0] in _AUXILIARY:
        words.pop(0)
    if not words or len("".join(words)) < 3:
        return None
    own = rf"(?<![\w\-])(?:{'[ -]'.join(words)})(?![\w\-])"
    yes = (
        rf"\b(?:{_SET})\b(?: (?:[^\s.,;:!?\x00]|[.:](?=\w))+){{1,5}}? {_DETERMINED}{own}{_CLOSED}"
        rf"|\b(?:{_BRING}) (?:(?:me|us|him|her|them) )?(?:an?|one) (?:new )?{own} \w"
        rf"|\b(?:should|must|shall|to|please|may|can|will|it) be (?:\w+ly )?{own}{_CLOSED}"
        rf"|\b(?:it|them|this) (?:as )?{own}{_CLOSED}"
        rf"|[,;(] {own}(?=\s*(?:[.,;)]|$))"
        rf"|{own} ?[:=] ?(?:yes|true|on)\b"
        rf"|(?:^|[.;!?,:] ?|\b(?:and|then|please|also) ){own} (?:them|him|her|me|us|everyone|everybody)\b"
    )
    no = (
        r"(?:\b(?:it|this) is not|(?<!\bis )(?<!\bare )(?<!\bwas )(?<!\bwere )\b(?:not|never))"
        rf"(?: (?:be|being|make (?:it|them|this)|to be|an?))? {own}{_CLOSED}"
        rf"|(?<![\w\-])non-?{'[ -]'.join(words)}(?![\w\-])|{own} ?[:=] ?(?:no|false|off)\b"
    )
    return re.compile(yes), re.compile(no)


def says_flag(name: str, kept: str, text: str) -> bool | None:
    """Return what a request says of the flag of this name; None if it does not say, or both.

    `kept` is its prose without what it says not to take, `text` all of it; both in lower case.
    """
    patterns = _patterns(name)
    if patterns is None:
        return None
    yes, no = patterns[0].search(kept) is not None, patterns[1].search(text) is not None
    return yes if yes != no else None


def prose_of(text: str) -> str:
    """Return a text in lower case without what stands in quotation marks."""
    return QUOTED.sub(" \x00 ", " ".join(parted(text).split())).lower()
