"""What a request plainly orders, and which call an order is about.

A word that would set a flag, pick a choice or make an end counts only within an order: a clause in English that begins
with a verb of ordering, in a sentence that neither asks, reports nor supposes anything (whether, if, says, about, tell
NAME), draws no contrast and excludes nothing.  `it` brings in the order before (`Publish a.pdf and make it public`).

A call is an order's if the order has all of its values that the request has, no other order has them too, and nothing
in the order is left over that could be another call's: an address, a file, a second amount, an `and`.  A call with
values that the request does not have in so many words (the id of what it names) is an order's if it is the only one.
Something must bind the two: what the order calls the thing by, or a word of the tool's name
(`stack/provenance/tool_names.py`). Whatever is unclear is no order's: a person is asked.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from datetime import date, timedelta
from functools import cached_property
from typing import Any, Literal, NamedTuple

from airside.stack.provenance.effort import spend_effort
from airside.stack.provenance.exclusions import Sentence, sentences_of
from airside.stack.provenance.masking import VALUE
from airside.stack.provenance.matching import SearchableText, fold
from airside.stack.provenance.records import is_file_name
from airside.stack.provenance.tool_names import is_about, may_do, mentions, names_thing
from airside.stack.text.dates import days_in, minutes_in, parse_any_form
from airside.stack.text.durations import lengths_in, lengths_of
from airside.stack.text.numbers import Role
from airside.stack.text.tokens import QUOTED

Json = Any
ClauseKind = Literal["order", "read", "more", "other"]

_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}

_READS = (
    "read look see open list show get fetch search view browse load review scan study summarise summarize translate"
)
_ACTS = (
    "add adjust allow append apply approve archive arrange assign attach block book burn buy call cancel change charge"
    " close compose configure convert copy create declare delete deliver deploy dim disable download draft duplicate"
    " edit email enable enter establish export extend file fill fix flag forward generate give grant hide hire hold"
    " host import increase initiate insert install invite invoice issue keep label launch leave lend let lock mail make"
    " mark merge message move mute note notify open order pay permit pin place plan play post prepare print publish"
    " purchase put raise record refund register remove rename renew rent repeat replace reply reschedule reserve reset"
    " restore return run save schedule send set setup share ship sign start stay stop store submit subscribe switch tag"
    " take transfer turn unlock unmute update upgrade upload use wire withdraw write release push hand bill credit"
    " debit dispatch circulate distribute broadcast promote appoint nominate enrol enroll settle pick choose select"
    " reopen resolve escalate fork clone log track prolong shorten"
)
_SAYS = "tell ask remind inform answer respond say announce explain warn"
_VERBS = frozenset(f"{_READS} {_ACTS} {_SAYS}".split())
_READING, _SAYING = frozenset(_READS.split()), frozenset(_SAYS.split())
_VERB = "|".join(sorted(_VERBS, key=len, reverse=True))
_FILLERS = (
    r"(?:(?:please|kindly|now|then|also|and|first|next|finally|lastly|so|hi|hello|hey|ok|okay|thanks|just)\b[\s,:]*)*"
)
_BEGINS = re.compile(rf"\W*{_FILLERS}(?:(?:at|on|from) [^,]{{1,60}}, )?(?P<verb>{_VERB})(?![\w\-/'\u2019])")
_NEXT = re.compile(
    r"(?:, |,? (?:and|then|and then|but) )(?:(?:please|also|then|now) )*"
    rf"(?=(?:(?:do not|don['\u2019]?t) )?(?:{_VERB})(?![\w\-/]))"
)
_TAIL = re.compile(r",? ?\b(?:once|after|before|as soon as)\b[^;]*")
"""When it is to be done, which is no part of what."""

_MORE = re.compile(
    r"\W*+(?:(?:it|this|they) (?:is|are|must|shall|has to|lasts?|takes?|will last)\b"
    r"|(?:please )?(?:do not|don['\u2019]?t|never) |[a-z_ ]{1,40} ?[:=] ?(?:yes|no|true|false|on|off)\W*\Z)"
)
"""What goes on about the order before."""

_FRAGMENT = re.compile(
    rf"\W*(?:(?:(?:at|on|from|for|to|until|till|in|of|the|an?|am|pm|first|second|other|one|two|three|four|five|six|half"
    r"|minutes?|hours?|days?|nights?|weeks?|and|long|lasting|please|today|tomorrow|noon|midnight"
    r"|(?:mon|tues|wednes|thurs|fri|satur|sun)day|january|february|march|april|may|june|july|august|september|october"
    rf"|november|december)\b|{VALUE}++)\W*+)+\Z"
)
_MARKS = re.compile(
    r"[?()>\u2013\u2014]|\s-\s|\b(?:whether|if|unless|why|who|whom|whose|what|whatever|which|how|where|when|whenever"
    r"|while|because|since|although|though|about|regarding|concerning|used|was|were|had|been|did|may|might|should|could"
    r"|would|ought|want(?:s|ed|ing)?|wish(?:es|ed)?|hop(?:es?|ed|ing)|thinks?|thought|believes?|says?|said|saying|that"
    r"|eye|find out|check(?:s|ing)?|verify|verifies|verifying|make sure|ensure|confirm|monitor|watch|wonder(?:s|ing)?"
    r"|knows?|discuss|in case|provided|assuming|suppos(?:e|ing)|imagine|pretend|maybe|perhaps|possibly|probably|instead"
    r"|rather|however|or|either|versus|vs|than|going|asked|requested|requests|needs|mean|means|meant|considers?"
    r"|considering|decides?|following|follows|as long as|as if|tell(?:ing)?|ask(?:ing)?|remind(?:ing)?|inform(?:ing)?"
    r"|answer|respond|explain|warn|announce|but(?! (?:do not|don['\u2019]?t|never)\b))\b"
)
"""What makes a sentence one that does not plainly order."""

_STATES = re.compile(
    r"(?<!\bit )(?<!\bthis )(?<!\bthey )\b(?:is|are|has|have|having|gets?|got|will|can|cannot|does|shall|must|lasts"
    r"|takes|plays|runs|stays|owns|holds|keeps)\b"
    r"|, (?:the )?[a-z]+ (?!hours|minutes|mins|hrs|days|nights|weeks)[a-z]+s\W*\Z"
)
"""What makes an order one that says something of another besides: `share it, bob has edit access`."""

_NO_GIVING = "remove delete cancel withdraw stop replace reset block disable hide lock log close report"
_UNDOES = frozenset(_NO_GIVING.split())
"""Verbs that say how what they are about is, and not how it is to be."""

_WHO = rf"(?:she|he|they|{VALUE}+)"
_GRANTED = re.compile(
    rf",? so (?:that )?{_WHO}(?: and {_WHO})? (?:can|may|could) (?:only )?(?P<so>[^,;:!?()]+?)(?=[.!,;]|\s*\Z)"
    r"|,? who (?:can|may) (?:only )?(?P<who>[^,;:!?()]+?)(?=[.!,;]|\s*\Z)"
)
"""What somebody may do with what is ordered."""

_POINTS = re.compile(r"\b(?:it|its|them|they)\b|\b(?:this|these|those)(?= (?:as|to|with|for|be)\b|[.,;!]|\s*\Z)")
_SAYS_TEXT = re.compile(rf"\b(?:{'|'.join(_SAYS.split())}|write|send|post|reply|note|mail|email|message)\b")
_FOLLOWS = re.compile(
    r"\bfollow\w*\W*\Z|\b(?:below|here(?: is|['\u2019]s)|forwarded|wrote|writes|reads|translate|proofread|pasted?"
    r"|transcript|this (?:mail|e-?mail|message|text|letter|note|thread))\b"
)
"""What comes after such a sentence may be somebody else's words."""

_JOINED = re.compile(
    r"(?<!\S)(\S+) (?:and|or|plus|&|as well as) (\S+)|\b(?:and|or|plus|too|another|each|both)\b|&|\bas well\b"
)
_EDGES = ".,;:!?()[]{}\"'`\u201c\u201d\u201e\u00ab\u00bb\u2018\u2019"


_ONE_CLAUSE = 5_000
"""Characters that a look into a clause counts for: it is looked at in many ways."""

MAX_TEXT, MAX_CLAUSES = 16 * 1024, 200
"""Characters and clauses of a request that are looked at: in a longer one nobody could say what each word is about."""


class CallValue(NamedTuple):
    """A value of a call; `is_derived` = its argument takes what may follow from others, such as an end.

    `is_record` = it is the id of the one record that the request calls by a title.
    """

    value: Json
    role: Role
    is_derived: bool = False
    is_record: bool = False


class CallContext(NamedTuple):
    """A call for which a word of the request is wanted: its tool, its other values, and what the word sets.

    `said` are the words that set it; `is_length` = it is how long something lasts.
    """

    tool: str
    given: Sequence[CallValue]
    said: Collection[str] = ()
    is_length: bool = False


class Clause(NamedTuple):
    """A clause of a request.  `chain` = the clauses it speaks of, with itself; `said` is its text without quotations.

    `prose` is as `said`, from its verb on, with values masked; `granted` is what it lets somebody do.  `is_marked` =
    its sentence does not plainly order; `is_first` = it is the first of its sentence.
    """

    at: int
    text: str
    said: str
    prose: str
    kind: ClauseKind
    chain: frozenset[int]
    granted: tuple[str, ...]
    is_marked: bool
    excludes: bool
    is_first: bool


class Directives:
    """The clauses of a request; `written` is the day it was, for days without a year."""

    def __init__(self, text: str, written: date | None) -> None:
        self.clauses = _clauses(text)
        self._written = written
        self._all = self._searchable(range(len(self.clauses)))

    def plain(self, *, excluding: bool = False) -> list[Clause]:
        """Return the plain orders, and what goes on about one; `excluding` = also where something is not to be done."""
        return [
            each
            for each in self.clauses
            if each.kind in ("order", "more") and not each.is_marked and (excluding or not each.excludes)
        ]

    def begins(self, clause: Clause, start: Json, role: Role) -> bool:
        """Whether an order has a start, or goes on about one that has it; another verb's length is of another thing."""
        return self._searchable(clause.chain if clause.kind == "more" else {clause.at}).has(start, role)

    def serve(self, lenders: Collection[Clause], call: CallContext) -> bool:
        """Whether one of these is the order that a call is about."""
        return any(self._serves(each, call) for each in lenders)

    def may_last(self, call: CallContext) -> bool:
        """Whether a number of the request may be how long what a call is about lasts.

        It may if the call has anything else of the request, or the request speaks of what the tool is for.
        """
        if any(self._all.has(each.value, each.role) for each in call.given):
            return True
        return any(mentions(call.tool, _VERBS, each.prose) for each in self.clauses if not each.excludes)

    def length(self, clause: Clause) -> timedelta | None:
        """Return how long an order says that it lasts; None if it says none, two, or another might be meant."""
        found = lengths_of(clause.said)
        if not found or len(found) != 1:
            return None
        others = (each for each in self._lasting if each.at != clause.at)
        is_only = all(each.at not in clause.chain and self._has_time(each.said) for each in others)
        return found.pop() if is_only else None

    @cached_property
    def _lasting(self) -> list[Clause]:
        return [each for each in self.clauses if any(True for _ in lengths_in(each.said))]

    def _has_time(self, said: str) -> bool:
        spend_effort(_ONE_CLAUSE)
        return bool(set(minutes_in(said)) or set(days_in(said, self._written)))

    def _searchable(self, clauses: Collection[int]) -> SearchableText:
        texts = [self.clauses[at].text for at in sorted(clauses)]
        spend_effort(_ONE_CLAUSE * len(texts))
        return SearchableText(*texts, quotes=True, written=self._written)

    def _serves(self, clause: Clause, call: CallContext) -> bool:
        told = [each for each in call.given if self._all.has(each.value, each.role)]
        own = self._searchable(clause.chain)
        if not all(own.has(each.value, each.role) for each in told) or not self._is_alone(clause, told, own):
            return False
        if not self._is_bound(clause, call, told):
            return False
        others = [each for each in self.clauses if each.at not in clause.chain]
        untold = [each for each in call.given if each not in told and not each.is_derived]
        if any(_named(str(each.value)) for each in untold):  # another file, another address
            return False
        if not told or untold:
            named = sum(len(_named(self.clauses[at].text)) for at in clause.chain)
            rest = [each for each in others if each.kind == "order" or _named(each.text)]
            return not rest and (named <= 1 or bool(told))
        rivals = (each for each in others if each.kind == "order")
        return not any(all(self._searchable({each.at}).has(g.value, g.role) for g in told) for each in rivals)

    def _is_bound(self, clause: Clause, call: CallContext, told: Sequence[CallValue]) -> bool:
        """Whether it is this call's thing that an order speaks of.

        A name, a word or a number of the order may be in any call: beside one, the order must do what the tool does.
        """
        chain = [self.clauses[at] for at in sorted(clause.chain)]
        called = {fold(name) for each in chain for name in _named(each.text)}
        if any(names_thing(each.value) or fold(str(each.value)) in called for each in told):
            return True
        if any(each.is_record for each in call.given) and called:
            return True
        if call.is_length and any(isinstance(each.value, str) and parse_any_form(each.value) for each in told):
            return True  # a length makes an end of the very start that is given
        words = {word for each in told for word in fold(str(each.value)).split()}
        return any(self._is_of(each, call, words, is_told=bool(told)) for each in chain)

    def _is_of(self, clause: Clause, call: CallContext, values: Collection[str], *, is_told: bool = False) -> bool:
        """Whether a clause is about what a tool is for or, if a call has a value of it, does what the tool does."""
        is_order = clause.kind in ("order", "read")
        if is_about(call.tool, _VERBS, clause.prose, call.said, values, is_order=is_order):
            return True
        return is_told and is_order and may_do(call.tool, _VERBS, clause.prose)

    def _is_alone(self, clause: Clause, told: Sequence[CallValue], own: SearchableText) -> bool:
        """Whether nothing in an order is left over that could be another call's."""
        values = {fold(str(each.value)) for each in told}
        if told:
            named = [name for at in clause.chain for name in _named(self.clauses[at].text)]
            for is_one in (_is_address, lambda name: not _is_address(name)):
                shaped = {fold(name) for name in named if is_one(name)}
                if not shaped <= values and any(fold(str(each.value)) in shaped for each in told):
                    return False
            if any(each.role == "money" for each in told) and len({number for number, _ in own.numbers()}) > 1:
                return False
        return all(self._joins_only(self.clauses[at], values) for at in clause.chain)

    def _joins_only(self, clause: Clause, values: Collection[str]) -> bool:
        text = clause.text.translate(_LOWER)
        for length in list(lengths_in(text)):
            text = text[: length.begin] + "_" * (length.end - length.begin) + text[length.end :]
        for joined in _JOINED.finditer(QUOTED.sub(lambda quoted: quoted.group().replace(" ", "\x00"), text)):
            sides = [fold((side or "").strip(_EDGES).replace("\x00", " ")) for side in joined.groups()]
            if not all(side in values for side in sides):
                return False
        return True


def _is_address(name: str) -> bool:
    return "@" in name


def _named(text: str) -> list[str]:
    """Return what a text has in quotation marks, and its addresses, paths and names of files."""
    quoted = [match.group(match.lastindex or 0).strip(_EDGES) for match in QUOTED.finditer(text)]
    words = (word.strip(_EDGES) for word in QUOTED.sub(" ", text).split())
    return quoted + [word for word in words if "@" in word or "/" in word or is_file_name(word)]


def _clauses(text: str) -> tuple[Clause, ...]:
    if len(text) > MAX_TEXT:
        return ()
    done: list[Clause] = []
    is_dictated = False
    for sentence in sentences_of(text):
        _read_sentence(sentence, done, is_dictated)
        if len(done) > MAX_CLAUSES:
            return ()
        is_dictated = is_dictated or _dictates(sentence.masked.translate(_LOWER).rstrip())
    return tuple(done)


def _dictates(lower: str) -> bool:
    """Whether what comes after a sentence is what it says to say: `Tell bob this:`."""
    return _FOLLOWS.search(lower) is not None or (lower.endswith(":") and _SAYS_TEXT.search(lower) is not None)


def _read_sentence(sentence: Sentence, done: list[Clause], is_dictated: bool) -> None:
    """Add a sentence's clauses to those before."""
    lower = sentence.masked.translate(_LOWER)
    said = QUOTED.sub(lambda quoted: "\x00" * len(quoted.group()), sentence.text).translate(_LOWER)
    blank, text = _blanked(_GRANTED, lower), sentence.text
    for tail in _TAIL.finditer(blank):
        text = text[: tail.start()] + " " * len(tail.group()) + text[tail.end() :]
    blank = _blanked(_TAIL, blank)
    parts = list(_parts(blank))
    # What is to be told after something is done says nothing of that.
    told = next((begin for begin, _, _, verb in parts[1:] if verb in _SAYING), len(blank))
    is_unclear = not sentence.is_english or "?" in blank or _MARKS.search(blank[:told]) is not None
    is_first = True
    for begin, end, kind, verb in parts:
        if is_dictated:
            kind, verb = "other", ""
        prose = blank[begin:end]
        begins = _BEGINS.match(prose) if verb else None
        at, before = len(done), done[-1] if done and done[-1].kind != "other" else None
        is_of_it = before and (_POINTS.search(prose) or (kind == "more" and not _is_another(said[begin:end], before)))
        chain = frozenset({at}) | (before.chain if before and is_of_it else frozenset())
        granted = tuple(
            (found["so"] or found["who"]).strip() for found in _GRANTED.finditer(lower, begin) if found.start() < end
        )
        clause = Clause(
            at=at,
            text=text[begin:end],
            said=_kept(said, blank, begin, end),
            prose=prose[begins.start("verb") :] if begins else prose.strip(),
            kind=kind,
            chain=chain,
            granted=granted,
            is_marked=is_unclear
            or begin >= told
            or verb in _UNDOES
            or (verb != "" and _STATES.search(prose) is not None),
            excludes=sentence.excludes,
            is_first=is_first,
        )
        done.append(clause)
        is_first = False


def _is_another(said: str, before: Clause) -> bool:
    """Whether a clause has a time of its own, as the one before it has."""
    return bool(set(minutes_in(said)) and set(minutes_in(before.said)))


def _kept(said: str, blank: str, begin: int, end: int) -> str:
    """Return a part of what is said without what was blanked."""
    return "".join(
        " " if masked == " " else char for char, masked in zip(said[begin:end], blank[begin:end], strict=True)
    )


def _blanked(pattern: re.Pattern[str], text: str) -> str:
    return pattern.sub(lambda found: " " * len(found.group()), text)


def _parts(text: str) -> Iterator[tuple[int, int, ClauseKind, str]]:
    """Yield the clauses of a sentence, the kind of each, and the verb of an order."""
    begin = 0
    for segment in text.split(";"):
        joints = [match.span() for match in _NEXT.finditer(segment)]
        if joints and joints[0][0] and _FRAGMENT.match(segment[: joints[0][0]]):
            joints.pop(0)  # `At 9:00, book it`
        firsts, lasts = [0, *(end for _, end in joints)], [*(first for first, _ in joints), len(segment)]
        is_other = False
        for first, last in zip(firsts, lasts, strict=True):
            part = segment[first:last]
            kind, verb = _clause_kind(part)
            is_other = is_other or kind == "other"
            if part.strip():
                yield begin + first, begin + last, "other" if is_other else kind, "" if is_other else verb
        begin += len(segment) + 1


def _clause_kind(part: str) -> tuple[ClauseKind, str]:
    if _FRAGMENT.match(part) or _MORE.match(part):
        return "more", ""
    begins = _BEGINS.match(part)
    if begins is None:
        return "other", ""
    return ("read" if begins["verb"] in _READING else "order"), begins["verb"]
