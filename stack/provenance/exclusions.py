"""What a request says not to take: its values are not the principal's.

A text is taken apart into sentences.  In English a `cue` (not, never, nobody, except, instead of) has a scope: from it
to the end of the sentence, or to where something else begins, and back to a subject that stands before it
(`stack/provenance/english.py`).  In any other language a cue takes its whole sentence, and so does a language that is
not told (`stack/provenance/languages.py`): it may exclude in words that nobody listed.  What is quoted, or no word, has
no cue.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

from airside.stack.provenance.english import CUE, Span, scopes
from airside.stack.provenance.languages import COMMON, CUES, INFLECTED, UNSPACED
from airside.stack.provenance.masking import SIGNS, VALUE, mask
from airside.stack.text.forms import in_form
from airside.stack.text.tokens import BREAK, parted

Json = Any

_SPACES = re.compile(r"[ \t\r\n]+")


def without_exclusions(text: str, *, is_prose: bool = True) -> str:
    """Return a text without what it says not to take; of prose, without what is in no known language either."""
    kept: list[str] = []
    for sentence in _sentences(parted(text)):
        masked = mask(sentence)
        if kept and _takes_back(masked):
            kept[-1] = BREAK
        kept.append(_without(sentence, _dropped(masked, is_prose)))
    return _SPACES.sub(" ", "".join(kept))


MAX_INPUTS = 128 * 1024
"""Characters of sentences in inputs that are read: what is beyond is not taken."""


def inputs_without_exclusions(value: Json) -> Json:
    """Return inputs without what stands under a key that says so (`exclude`), and without what their texts exclude."""
    read = 0

    def kept(value: Json) -> Json:
        nonlocal read
        if isinstance(value, dict):
            return {key: kept(inner) for key, inner in value.items() if not _KEY.search(_spelt(key))}
        if isinstance(value, list):
            return [kept(inner) for inner in value]
        if not isinstance(value, str) or value.count(" ") < 2:  # a name of two words is no sentence
            return value
        read += len(value)
        return without_exclusions(value, is_prose=False) if read <= MAX_INPUTS else ""

    return kept(value)


_DENIALS = (
    "no nope nah nay nein not never don't dont negative skip forget avoid ignore stop off forbid kidding joking as over"
    " hardly unlikely scratch"
)
_DENIAL_COMPANIONS = (
    "absolutely certainly definitely of course surely please thanks thank you dare ever even think about it that this"
    " time way chance circumstances under all at really rather i i'd i'll would better do it one him her them just only"
    " if my dead body hands god heaven hell by any means in case on second thought thoughts"
)
_NO = frozenset(_DENIALS.split())
_IN_REPLIES = _NO | frozenset(_DENIAL_COMPANIONS.split())
_MAX_REPLY = 80


def _takes_back(masked: str) -> bool:
    """Whether a sentence takes back the one before it, and says nothing else: `Pay Eve? Better not.`"""
    said = [word.replace("\u2019", "'") for word in _WORD.findall(masked[:_MAX_REPLY])]
    if not said or len(masked) > _MAX_REPLY or VALUE in masked:
        return False
    words = [word.lower() for word in said]
    if _IN_REPLIES.issuperset(words):
        return not _NO.isdisjoint(words)
    # "Lieber nicht."  A word with a capital may be a name.
    return len(words) == 2 and words[1] == said[1] and any(_cues(each).fullmatch(words[1]) for each in CUES)


class Sentence(NamedTuple):
    """A sentence; `masked` is as long, with blanks of a kind (`VALUE`) for what is quoted and what is no word."""

    text: str
    masked: str
    is_english: bool
    excludes: bool


def sentences_of(text: str) -> Iterator[Sentence]:
    """Yield a text's sentences, each on one line; `excludes` = it says not to do something, or may."""
    for each in _sentences(parted(text)):
        sentence = " ".join(each.split())
        if sentence:
            masked = mask(sentence)
            languages = _languages(masked)
            is_english = languages is not None and (not languages or "en" in languages)
            yield Sentence(sentence, masked, is_english, _has_cue(sentence))


_KEY = re.compile(
    r"(?<![a-z])(?:not|except|exceptions?|exclu\w+|avoid|skip|ignored?|without|never|omit|unwanted|forbidden|blocked"
    r"|block ?list|deny ?list|black ?list)(?![a-z])"
)


def _spelt(key: str) -> str:
    return re.sub(r"[_-]", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", key)).lower()


def _without(text: str, spans: Sequence[Span]) -> str:
    parts, at = [], 0
    for begin, end in sorted(spans):
        if end > at:
            parts += [text[at : max(at, begin)], BREAK]
            at = end
    return "".join([*parts, text[at:]])


# Sentences.

_BULLET = re.compile(r"\s*(?:[-*\u2022\u2013]|\d{1,2}[.)])\s")
_ENDS = re.compile(r"[.!?]['\")\]]*\s+|[\u3002\uff01\uff1f\uff61\u0964\u06d4\u061f]+\s*")
_ABBREVIATED = re.compile(
    r"\b(?:e\.g|i\.e|z\.b|u\.a|mr|mrs|ms|dr|prof|no|nr|num|vs|etc|bzw|ca|cf|st|inc|ltd|co|corp|dept|sr|jr|incl|excl|ex"
    r"|approx|p\.ex|sra?|dra?|ud|uds|[a-z])\.\Z",
    re.IGNORECASE,
)


def _sentences(text: str) -> Iterator[str]:
    """Yield a text's sentences with what ends them; where it is not clear that one ends, it goes on."""
    for block in _blocks(text):
        masked, at = mask(block), 0
        for match in _ENDS.finditer(masked):
            following, dot = masked[match.end() : match.end() + 1], masked[match.start()]
            is_short = _ABBREVIATED.search(block, max(0, match.start() - 8), match.start() + 1)
            goes_on = dot == "." and (following.islower() or is_short)
            if not goes_on or "\n\n" in match.group():
                yield block[at : match.end()]
                at = match.end()
        if at < len(block):
            yield block[at:]


def _blocks(text: str) -> Iterator[str]:
    """Yield what stands between the lines at which a sentence ends: a list belongs to a line above that excludes it."""
    lines: list[str] = []
    last, is_apart, in_list, excludes = "", False, False, False
    for line in text.splitlines(keepends=True):
        if line.isspace():
            lines.append(line)
            is_apart = True
            continue
        is_item = _BULLET.match(line) is not None
        if is_item:
            excludes = excludes or (bool(last) and not in_list and _has_cue("".join(lines)))
            ends = bool(last) and not excludes
        else:
            ends = last[-1:] in (*".!?",) or (is_apart and last[-1:] not in ("", *":,"))
        if ends:
            yield "".join(lines)
            lines, excludes = [], False
        in_list = is_item if ends or not last else in_list
        lines.append(line)
        last, is_apart = line.rstrip(), False
    yield "".join(lines)


_MARKS = re.compile("[\u0591-\u05bd\u05bf-\u05c7\u064b-\u0652\u0670\u0640\u200b\u200d-\u200f\u2060\ufeff\u00ad]")
_INNER = (
    r"\w\u0300-\u036f\u0900-\u0903\u093a-\u094f\u0951-\u0957\u0962\u0963\u0981-\u0983\u09bc\u09be-\u09cd\u09d7\u200c"
)
_WORD = re.compile(rf"(?:(?![\d_])[{_INNER}])+(?:['\u2019](?:(?![\d_])[{_INNER}])+)*")
_FAMILIES = (
    (re.compile("[\u0400-\u052f]"), ("ru", "uk", "bg", "sr")),
    (re.compile("[\u0370-\u03ff\u1f00-\u1fff]"), ("el",)),
    (re.compile("[\u0600-\u06ff\u0750-\u077f\ufb50-\ufdff\ufe70-\ufefc]"), ("ar", "fa", "ur")),
    (re.compile("[\u0590-\u05ff]"), ("he",)),
    (re.compile("[\u0900-\u097f]"), ("hi", "mr")),
    (re.compile("[\u0980-\u09ff]"), ("bn",)),
)
_UNSPACED_LETTER = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\u1100-\u11ff\u0e00-\u0e7f]")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f\u1e00-\u1eff]")
_BY_SCRIPT = frozenset({"el", "he", "bn"})
"""Languages that have a script to themselves, of those that are listed."""

_OTHERS = tuple(language for language in COMMON if language not in {each for _, family in _FAMILIES for each in family})
_SURE, _CLOSE, _WINDOW = 0.34, 0.5, 4
"""The share of a sentence's words that are a language's; of that, another's; how many words in a row show a third."""


def _languages(masked: str) -> frozenset[str] | None:
    """Return the languages a sentence may be in, none for one without words, None for one that is in no known one."""
    text = _MARKS.sub("", in_form("NFKC", masked)).replace(VALUE, " ")
    found: set[str] = set()
    words = list(_WORD.findall(text))
    unknown = False
    is_ascii = text.isascii()  # as nearly all are, and then of no other script
    for script, family in () if is_ascii else _FAMILIES:
        own = [word for word in words if script.search(word)]
        if own:
            told = _languages_of(own, family) or {each for each in family if each in _BY_SCRIPT}
            found |= told
            unknown = unknown or not told
    # A name is written with a capital wherever it stands; the first word of a sentence may be one.
    is_other = not is_ascii and any(char.isalpha() and not _LATIN.match(char) for char in text)
    begins = [
        word
        for at, word in enumerate(words)
        if _LATIN.match(word) and ((at == 0 and not is_other) or not word[0].isupper())
    ]
    latin = [word.lower() for word in begins]
    if not latin:
        latin = [word.lower() for word in words if _LATIN.search(word) and word.isupper() and len(words) > 2]
    if latin:
        told = _languages_of(latin, _OTHERS)
        found |= told
        unknown = unknown or not told
    letters = [] if is_ascii else [c for c in text if c.isalpha()]
    foreign = [c for c in letters if not _LATIN.match(c) and not _UNSPACED_LETTER.match(c)]
    unknown = unknown or any(not any(script.match(c) for script, _ in _FAMILIES) for c in foreign if c != "\u00aa")
    return None if unknown else frozenset(found)


def _languages_of(words: list[str], family: tuple[str, ...]) -> set[str]:
    """Return the languages of a family that these words are in."""
    spoken = [_spoken(word, family) for word in words]
    counts = Counter(language for each in spoken for language in each)
    leader = max(family, key=lambda language: counts[language])
    best = counts[leader]
    # Words of two letters are words of many languages.
    is_short = (
        leader == "en"
        and len(words) == 2
        and any(len(w) > 2 for w, of in zip(words, spoken, strict=True) if "en" in of)
    )
    if best < max(_SURE * len(words), min(2 - is_short, len(words))):
        return set()
    told = {language for language, count in counts.items() if count >= max(1, _CLOSE * best)}
    for at in range(len(words) - _WINDOW + 1):
        here = Counter(language for each in spoken[at : at + _WINDOW] for language in each)
        told |= {language for language, count in here.items() if count >= 2 and count > here[leader]}
    return told


def _spoken(word: str, family: tuple[str, ...]) -> tuple[str, ...]:
    return _spoken_short(word, family) if len(word) <= _KEPT_CHARACTERS else _spoken_any(word, family)


def _spoken_any(word: str, family: tuple[str, ...]) -> tuple[str, ...]:
    """Return the languages of a family a word is of."""
    return tuple(each for each in family if word in _common(each) or (each != "en" and _cues(each).fullmatch(word)))


_KEPT_CHARACTERS = 32
"""Characters of a word whose languages are kept: longer ones hardly come again."""

_spoken_short = lru_cache(maxsize=16_384)(_spoken_any)


@cache
def _common(language: str) -> frozenset[str]:
    return frozenset(COMMON[language].split())


@cache
def _cues(language: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![{_INNER}])(?:{CUES[language]})(?![{_INNER}])")


@cache
def _inflected(language: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![{_INNER}])(?:{INFLECTED.get(language, '(?!)')})(?![{_INNER}])")


_ANYWHERE = re.compile(UNSPACED)


def _excludes_whole(masked: str, languages: frozenset[str]) -> bool:
    """Whether a sentence has a cue of one of its languages, but for English, or a sign that says not."""
    if SIGNS.search(masked):
        return True
    text = _MARKS.sub("", in_form("NFKC", masked)).lower()
    if any(_cues(each).search(text) or _inflected(each).search(text) for each in languages - {"en"}):
        return True
    return _UNSPACED_LETTER.search(text) is not None and _ANYWHERE.search(text) is not None


def _has_cue(text: str) -> bool:
    masked = mask(text)
    languages = _languages(masked)
    return languages is None or _excludes_whole(masked, languages) or CUE.search(masked) is not None


def _dropped(sentence: str, is_prose: bool) -> list[Span]:
    """Return which parts of a masked sentence it says not to take."""
    languages = _languages(sentence)
    if (languages is None and is_prose) or _excludes_whole(sentence, languages or frozenset()):
        return [(0, len(sentence))]
    return scopes(sentence)
