"""What a request says not to take: its values are not the principal's.

A text is taken apart into sentences.  In English a `cue` (not, never, nobody, except, instead of) has a scope: from it
to the end of the sentence, or to where something else begins (`but to`), and back to a subject that stands before it
("Eve must not be paid").  In any other language a cue takes its whole sentence, and so does a language that is not told
(`stack/languages.py`): it may exclude in words that nobody listed.  What is quoted, or no word, has no cue.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from itertools import islice, pairwise
from typing import Any, NamedTuple

from airside.stack.forms import in_form
from airside.stack.languages import COMMON, CUES, INFLECTED, UNSPACED
from airside.stack.tokens import BREAK, QUOTED, parted

Json = Any
Span = tuple[int, int]

_SPACES = re.compile(r"[ \t\r\n]+")
_I = re.IGNORECASE


def wanted(text: str, *, is_prose: bool = True) -> str:
    """Return a text without what it says not to take; of prose, without what is in no known language either."""
    kept: list[str] = []
    for sentence in _sentences(parted(text)):
        if kept and _REPLY.fullmatch(sentence):  # "Pay Eve? Never."
            kept[-1] = BREAK
        masked = _masked(sentence)
        kept.append(_without(sentence, _dropped(masked, is_prose)))
    return _SPACES.sub(" ", "".join(kept))


MAX_INPUTS = 128 * 1024
"""Characters of sentences in inputs that are read: what is beyond is not taken."""


def wanted_inputs(value: Json) -> Json:
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
        return wanted(value, is_prose=False) if read <= MAX_INPUTS else ""

    return kept(value)


_REPLY = re.compile(
    r"\W*(?:no+|nope|never(?: ever)?|not|no way|no thanks?|(?:absolutely|certainly|definitely|of course|surely) not"
    r"|not at all|by no means|no chance|forget it|do not|don['\u2019]?t|just kidding|only joking|not really|as if)\W*",
    _I,
)
"""All of a sentence that takes back the one before it."""


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
            masked = _masked(sentence)
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
    r"\b(?:e\.g|i\.e|z\.b|u\.a|mr|mrs|ms|dr|prof|no|nr|num|vs|etc|bzw|ca|cf|st|inc|ltd|co|corp|dept|sr|jr|incl|excl"
    r"|approx|p\.ex|sra?|dra?|ud|uds|[a-z])\.\Z",
    _I,
)


def _sentences(text: str) -> Iterator[str]:
    """Yield a text's sentences with what ends them; where it is not clear that one ends, it goes on."""
    for block in _blocks(text):
        masked, at = _masked(block), 0
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


# Words.

_NOT = r"(?:n['\u2019]?t| not)"
_IDIOMS = re.compile(
    rf"\b(?:do{_NOT} (?:forget|hesitate|worry|mind)|not (?:only|just|yet|sure|(?:later|more|less|earlier) than)"
    r"|no (?:later|more|less|fewer|earlier|sooner) than|no (?:problem|doubt|matter|worries|rush|hurry)"
    r"|(?:whether|why) or not|why not|without (?:delay|fail|further ado|question|hesitation)|not to mention"
    r"|n(?:o|r)[.:]? ?(?=#?\d)|(?:not|n['\u2019]t) exceed"
    rf"|i (?:do{_NOT}|ca(?:n['\u2019]?t|nnot)|could{_NOT}|have{_NOT}|did{_NOT}|had{_NOT}|am not) (?:\w+ly )?"
    r"(?:know|remember|recall|find|see|understand|certain|able|been|had|have|heard|received|got|recogni[sz]e)"
    r"|i['\u2019]m not (?:sure|certain|able|in)|nicht (?:nur|vergessen|z\u00f6gern)|vergiss nicht|kein problem"
    r"|n['\u2019](?:oublie|h\u00e9site)z? pas|(?:pas|non) seulement|no (?:te )?(?:olvides|dudes)|no s[o\u00f3]lo"
    r"|non dimenticare|n\u00e3o (?:se )?esque\u00e7a|vergeet niet|niet alleen)\b",
    _I,
)
"""What has a cue and excludes nothing."""

_CHUNK = re.compile(r"[^\s\u3000-\u303f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
_NO_WORD = re.compile(r"[@/\\_=#\d]|\w\.\w|(?<!\w)(?:do-not|no|non|not)-[a-z]", _I | re.ASCII)
_TRAILING = ".,;:!?)]}\"'\u2019\u201d\u00bb"
VALUE = "\u01c2"
"""What a value, and an idiom, is masked with: a letter that no request has."""


def _masked(text: str) -> str:
    """Return a text of the same length in which what is quoted, what is no word, and idioms are blanks of a kind."""
    for pattern in (QUOTED, _IDIOMS):
        text = pattern.sub(lambda match: VALUE * len(match.group()), text)
    return _CHUNK.sub(_mask_chunk, text)


def _mask_chunk(match: re.Match[str]) -> str:
    chunk = match.group()
    core = chunk.rstrip(_TRAILING)
    return VALUE * len(core) + chunk[len(core) :] if _NO_WORD.search(core) else chunk


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
            told = _told(own, family) or {each for each in family if each in _BY_SCRIPT}
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
        told = _told(latin, _OTHERS)
        found |= told
        unknown = unknown or not told
    letters = [] if is_ascii else [c for c in text if c.isalpha()]
    foreign = [c for c in letters if not _LATIN.match(c) and not _UNSPACED_LETTER.match(c)]
    unknown = unknown or any(not any(script.match(c) for script, _ in _FAMILIES) for c in foreign if c != "\u00aa")
    return None if unknown else frozenset(found)


def _told(words: list[str], family: tuple[str, ...]) -> set[str]:
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


def _has_foreign_cue(masked: str, languages: frozenset[str]) -> bool:
    """Whether a sentence has a cue of one of its languages, but for English."""
    text = _MARKS.sub("", in_form("NFKC", masked)).lower()
    if any(_cues(each).search(text) or _inflected(each).search(text) for each in languages - {"en"}):
        return True
    return _UNSPACED_LETTER.search(text) is not None and _ANYWHERE.search(text) is not None


def _has_cue(text: str) -> bool:
    masked = _masked(text)
    languages = _languages(masked)
    return languages is None or _has_foreign_cue(masked, languages) or _CUE.search(masked) is not None


def _dropped(masked: str, is_prose: bool) -> list[Span]:
    """Return which parts of a sentence it says not to take."""
    languages = _languages(masked)
    if (languages is None and is_prose) or _has_foreign_cue(masked, languages or frozenset()):
        return [(0, len(masked))]
    cues = list(islice(_CUE.finditer(masked), _MAX_CUES))
    if len(cues) == _MAX_CUES or (cues and len(masked) > _MAX_ABOUT):
        return [(0, len(masked))]
    edges = [edge.end() for edge in _EDGE.finditer(masked)] if cues else []
    return [_scope(masked, cue, edges) for cue in cues]


# English.

_FORWARD = (
    r"instead of|in (?:place|lieu) of|rather than|other than|(?:apart|aside|different) from|except(?:ing| for)?"
    r"|excluding|without|with no|with the exception of|save for|barring|but (?:not|never)|unlike|minus|as opposed to"
    r"|not counting|omitting|leaving out|unless|besides?"
    r"|(?:any|every|all|no|none)(?:one|body|thing|where)?(?: (?!but)[^\s,.;:]+){0,4} (?:but|save|bar|apart)"
)
_UP_TO_5 = r"(?:[^\s,.;:]+ ){0,5}"
_SLOTS = "time|calendars?|slots?|days?|hours?|mornings?|afternoons?|evenings?|weeks?|rooms?|dates?"
_BOTH = (
    r"(?:\w+n['\u2019]t|(?:do|does|did|is|are|was|were|wo|ca|must|should|would|could|have|has|had|need)nt|cannot|not"
    r"|never|no(?: one)?|nobody|none|nothing|nowhere|neither|nor|avoid\w*|skip\w*|ignor\w+|omit\w*|exclud\w+|excepted"
    r"|exempt\w*|refrain\w*|forbid\w*|prohibit\w*|ban(?:ned)?|disallow\w*|refuse\w*|bypass\w*|lest|hid(?:e|den)"
    r"|withh[eo]ld|conceal\w*|stop(?:ped)? \w+ing|h[eo]ld (?:back|off)|(?:keep|kept) (?:[^\s,.;:]+ ){1,3}from"
    rf"|(?:remov|drop|strik|cross|tak|cut)\w* {_UP_TO_5}(?:off|out"
    r"|from (?:the |my |our )?(?:recipients?|cc|bcc|copy|distribution|mail|thread|list|e-?mail|invitation|invite))"
    rf"|leav\w+ {_UP_TO_5}(?:out|off|alone|aside)|left (?:out|off|alone|aside)|keep {_UP_TO_5}(?:out|off|away)"
    r"|off[- ]limits|stay away|steer clear|black ?list\w*|unwanted|hands off|(?<!set )(?<!put )aside"
    r"|every\w+ less|all less"
    r"|scam\w*|fraud\w*|phishing|malicious|compromised|hacked|suspicious|distrust\w*|beware|impost[eo]rs?"
    rf"|block(?:ed|ing|s)?(?! (?:out|off|(?:my |the |an? )?(?:{_SLOTS})|[0-9])))"
)
_MAX_CUES, _MAX_ABOUT = 20, 4_000
"""Cues and characters of one sentence that are looked at: nobody could say what one with more is about."""

_CUE = re.compile(rf"(?<![\w'\u2019-])(?:(?P<forward>{_FORWARD})|{_BOTH})(?![\w'\u2019-])", _I)
_EDGE = re.compile(
    r"[,;:()\u2013\u2014\n]|\s-\s|(?<=\s)(?=(?:but|instead|so|then)\s)|(?<=\s)(?=and (?:please|then|instead)\s)"
    r"|(?<=\s)(?=(?:unless|if|because|when|while|whereas|although)\s)",
    _I,
)
_CONTRAST = re.compile(r"\W*(?:and )?(?:but|instead|rather|please|then|just|only)\s+\w", _I)
_ORDERS = (
    "tell send mail email pay post write invite call forward book order share transfer refund add create use give put"
    " make let ask reply answer check read look find get move set change update delete cancel schedule copy remind"
    " summarise summarize upload print publish buy"
)
_ORDER = re.compile(
    rf"\W*(?:(?:and|then|so|also|now) ){{0,4}}(?:{'|'.join(_ORDERS.split())})\b(?! (?:or|and|nor)\b|\W*[,;])", _I
)
_SUBORDINATE = re.compile(
    r"\W*(?:if|unless|when|in case|since|as|because|although|though|while|whereas|once|whenever)\b"
    r"|.*\b(?:is|are|was|were|['\u2019]s)\W*\Z",
    _I,
)
_CONDITION = re.compile(r"\W*(?:if|unless|when|in case|since|because|although|though|whenever)\b", _I)
_COPULAR = re.compile(r"(?:is|are|was|were)n['\u2019]?t", _I)
_PRONOUN = r"you|i|we|it|they|he|she|this|that|there|who|which"
_AUXILIARY = r"must|should|can|could|will|would|may|might|shall|is|are|was|were|be|been|has|have|had|does|need|ought"
_BARE = re.compile(
    r"\W*(?:(?:and|but|or|please|also|then|so|just|do|make|sure|ensure|definitely|certainly|absolutely|under|at|in|all|if|when|because"
    r"|since|as|while|although|though|to|by|however|instead|ok|okay|hi|hello)\b\W*)*",
    _I,
)
_TOLD = re.compile(rf"\b(?:{_PRONOUN})\b", _I)
_HELPED = re.compile(rf"\b(?:{_AUXILIARY})\b", _I)
_HELPS = re.compile(r"(?!do)\w+n['\u2019]?t|cannot", _I)
_OF_A_PART = re.compile(
    r"\s+(?:(?:to|in|on|for|at|via|from|with|by|into|the|a|an)\s+(?!(?:be|get|have|receive|do)\b)|[A-Z0-9\u01c2\"'\u201c@#])"
)
_INSTEAD = re.compile(r"\W*(?:but|while|whereas)\b", _I)
_JOINED = re.compile(r"(?:\band|\bbut|\bor|\bso|;)\s", _I)


def _scope(masked: str, cue: re.Match[str], ends: Sequence[int]) -> Span:
    """Return what a cue of an English sentence is about; `ends` is where its parts end."""
    edges = [0, *(at for at in ends if not cue.start() < at <= cue.end()), len(masked)]
    own = max(at for at in edges if at <= cue.start())
    return _begin(masked, cue, own, edges), _end(masked, cue, own, edges)


def _end(masked: str, cue: re.Match[str], own: int, edges: Sequence[int]) -> int:
    """Return where something else begins that is to be done."""
    before = masked[own : cue.start()]
    is_aside = cue["forward"] or _COPULAR.fullmatch(cue.group()) or _SUBORDINATE.match(before)
    for begin, end in pairwise(edges):
        if begin >= cue.end():
            segment = masked[begin:end]
            if _CONTRAST.match(segment) or (is_aside and _ORDER.match(segment)):
                return begin
    return len(masked)


def _begin(masked: str, cue: re.Match[str], own: int, edges: Sequence[int]) -> int:
    """Return where the subject begins that a cue is said of, or the cue itself."""
    before = masked[own : cue.start()]
    is_helped = _HELPED.search(before) is not None or _HELPS.fullmatch(cue.group()) is not None
    rest = masked[cue.end() : min(at for at in edges if at >= cue.end())]
    if _is_open(cue, before, rest, masked[:own]):
        return 0
    if cue["forward"] or (cue.group().lower() == "not" and not is_helped and _OF_A_PART.match(masked, cue.end())):
        return cue.start()
    told = _reported(before)
    if told >= 0:
        return own + told
    joints = [joined.span() for joined in _JOINED.finditer(before)]
    if joints and _BARE.fullmatch(before, joints[-1][1]):  # if the last is not, those before it are not either
        return own + joints[-1][0]
    for first, last in reversed(joints):
        if _ORDER.match(before, last) or (_TOLD.match(before, last) and not _NAMED.search(before, last)):
            return own + first
    if _is_bare(before) and (not is_helped or _TOLD.search(before)):
        return cue.start()
    if _CONDITION.match(before):
        return own
    # The subject may stand before a comma, but not before another thing that is to be done.
    for begin in reversed([at for at in edges if at <= own]):
        if masked[max(0, begin - 1) : begin] == ";" or _INSTEAD.match(masked, begin):
            return begin
    return 0


_REPORTS = re.compile(
    r"\b(?:tell|write|reply|answer|inform|let|say|notify|remind|message|mail|email|e-mail|text|ping|respond|explain|confirm)\b",
    _I,
)
_SAID = re.compile(r" (?=(?:that|because|saying|why|how|what|when)\s)", _I)


def _reported(before: str) -> int:
    """Return where that begins which somebody is told: after `tell bob that`; nothing (-1) if nobody is."""
    told = _REPORTS.search(before)
    if told is not None:
        for said in _SAID.finditer(before, told.end()):
            if re.search(r"\w", before[told.end() : said.start()]):
                return said.end()
    return -1


_OBJECT = re.compile(r"\b(?:him|her|them|there|these|those|any of)\b", _I)


def _is_open(cue: re.Match[str], before: str, rest: str, earlier: str) -> bool:
    """Whether what a cue is said of stands before it, though nothing shows: `eve - do not pay`, `eve goes without`."""
    is_order = re.search(r"\b(?:don['\u2019]?t|do not|never)\Z", before + cue.group(), _I) is not None
    if not re.search(r"\w", rest):
        return is_order or cue.group().lower() == "without"
    if cue["forward"] or not _is_bare(before) or _TOLD.search(before) or not re.search(r"\w", earlier):
        return False
    is_all = re.fullmatch(r"\s*[a-z]+\W*", rest) is not None
    after_mark = earlier.rstrip()[-1] in ":-\u2013\u2014"
    return is_order and (after_mark or is_all or _OBJECT.search(rest) is not None)


_NAMED = re.compile(rf"[\u01c2@#]|\b(?!(?:{_PRONOUN}|{_AUXILIARY})\b)\w", _I)


def _is_bare(before: str) -> bool:
    """Whether nothing that a cue could be said of stands before it."""
    left = re.sub(rf"\b(?:{_PRONOUN}|{_AUXILIARY})\b", " ", before, flags=_I)
    return _BARE.fullmatch(left) is not None
