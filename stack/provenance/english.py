"""What an English sentence says not to take: each cue in it (not, never, except, hands off), and what that is about.

A cue's scope goes to the end of the sentence, or to where something else begins (`but to`), and back to what stands
before it, if that is what it is said of ("Eve must not be paid", "as for Eve: hands off") or may be.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice, pairwise

Span = tuple[int, int]

_I = re.IGNORECASE

_FORWARD = (
    r"instead of|in (?:place|lieu) of|rather than|other than|(?:apart|aside|different) from|except(?:ing| for)?"
    r"|excluding|without|with no|with the exception of|save for|barring|but (?:not|never)|unlike|minus|as opposed to"
    r"|not counting|omitting|leaving out|unless|besides?|sans|w/o(?:ut)?|(?:else|different) than"
    r"|(?:every\w+|all) \(?ex\.?"
    r"|(?:any|every|all|no|none)(?:one|body|thing|where)?(?: (?!but)[^\s,.;:]+){0,4} (?:but|save|bar|apart)"
)
_UP_TO_5 = r"(?:[^\s,.;:]+ ){0,5}"
_SLOTS = "time|calendars?|slots?|days?|hours?|mornings?|afternoons?|evenings?|weeks?|rooms?|dates?"
_BOTH = (
    r"(?:\w+n['\u2019]t|(?:do|does|did|is|are|was|were|wo|ca|must|should|would|could|have|has|had|need)n ?t|cannot|not"
    r"|do(?:['\u2019]nt|not| ?nto| ont)|dno['\u2019]?t|dnt|never|nevr"
    r"|no(?:[ -](?:one|body|where|go))?|nope|nah|nein|nobody|none|nothing|nowhere|neither|nor"
    r"|avoid\w*|skip\w*|ignor\w+|omit\w*|exclud\w+|excepted"
    r"|exempt\w*|refrain\w*|forbid\w*|prohibit\w*|ban(?:ned)?|disallow\w*|refuse\w*|bypass\w*|lest|hid(?:e|den)"
    r"|withh[eo]ld|conceal\w*|stop(?:ped)? \w+ing|h[eo]ld (?:back|off)|(?:keep|kept) (?:[^\s,.;:]+ ){1,3}from"
    rf"|(?:remov|drop|strik|cross|tak|cut)\w* {_UP_TO_5}(?:off|out"
    r"|from (?:the |my |our )?(?:recipients?|cc|bcc|copy|distribution|mail|thread|list|e-?mail|invitation|invite))"
    rf"|leav\w+ {_UP_TO_5}(?:out|off|alone|aside)|left (?:out|off|alone|aside)|keep {_UP_TO_5}(?:out|off|away)"
    r"|off[- ]limits|off the table|taboo|(?:stays?|get|keep) (?:out|away|lost)|in the dark|behind \S+ back|on hold"
    r"|can wait|forget|rul\w+ out|stop (?:any|all|every|payments?|transfers?)"
    r"|hold (?:the |any |all )?(?:payments?|transfers?|money|funds)|pass\w* over"
    r"|(?:zero|nil|nada|zilch) (?:for|to|goes)(?! an?\b)|watch out|careful|(?:steer|stay|keep) clear"
    r"|black ?list\w*|unwanted|hands off|(?<!set )(?<!put )aside"
    r"|every\w+ less|all less"
    r"|scam\w*|fraud\w*|phishing|malicious|compromised|hacked|suspicious|fakes?|bogus|spoof\w*|distrust\w*|beware|impost[eo]rs?"
    rf"|block(?:ed|ing|s)?(?! (?:out|off|(?:my |the |an? )?(?:{_SLOTS})|[0-9])))"
)
_MAX_CUES, _MAX_ABOUT = 20, 4_000
"""Cues and characters of one sentence that are looked at: nobody could say what one with more is about."""

CUE = re.compile(rf"(?<![\w'\u2019-])(?:(?P<forward>{_FORWARD})|{_BOTH})(?![\w'\u2019-])", _I)
_EDGE = re.compile(
    r"[,;:()\u2013\u2014\n]|\s-\s|(?<=\s)(?=(?:but|instead|so|then)\s)|(?<=\s)(?=and (?:please|then|instead)\s)"
    r"|(?<=\s)(?=(?:unless|if|because|when|while|whereas|although)\s)",
    _I,
)
_CONTRAST = re.compile(r"\W*(?:and )?(?:but|instead|rather|please|then|just|only)\s+\w", _I)
_VERBS = (
    "tell send mail email pay post write invite call forward book order share transfer refund add create use give put"
    " make let ask reply answer check read look find get move set change update delete cancel schedule copy remind"
    " summarise summarize upload print publish buy"
)
ORDERS = frozenset(_VERBS.split())
_ORDER = re.compile(
    rf"\W*(?:(?:and|then|so|also|now) ){{0,4}}(?:{'|'.join(_VERBS.split())})\b(?! (?:or|and|nor)\b|\W*[,;])", _I
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
_TOPIC_PRONOUN = re.compile(rf"\b(?:{_PRONOUN})\b", _I)
_HELPED = re.compile(rf"\b(?:{_AUXILIARY})\b", _I)
_HELPS = re.compile(r"(?!do)\w+n['\u2019]?t|cannot", _I)
_OF_A_PART = re.compile(
    r"\s+(?:(?:to|in|on|for|at|via|from|with|by|into|the|a|an)\s+(?!(?:be|get|have|receive|do)\b)|[A-Z0-9\u01c2\"'\u201c@#])"
)
_INSTEAD = re.compile(r"\W*(?:but|while|whereas)\b", _I)
_JOINED = re.compile(r"(?:\band|\bbut|\bor|\bso|;)\s", _I)


def scopes(masked: str) -> list[Span]:
    """Return the parts of a masked sentence that it says not to take."""
    cues = list(islice(CUE.finditer(masked), _MAX_CUES))
    if len(cues) == _MAX_CUES or (cues and len(masked) > _MAX_ABOUT):
        return [(0, len(masked))]
    edges = [edge.end() for edge in _EDGE.finditer(masked)] if cues else []
    return [_scope(masked, cue, edges) for cue in cues]


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
        flag = _FLAG.search(masked, 0, own) if cue.group().lower() == "no" else None
        return flag.start() if flag else 0
    if cue["forward"] or (cue.group().lower() == "not" and not is_helped and _OF_A_PART.match(masked, cue.end())):
        return cue.start()
    told = _reported(before)
    if told >= 0:
        return own + told
    joints = [joined.span() for joined in _JOINED.finditer(before)]
    if joints and _BARE.fullmatch(before, joints[-1][1]):  # if the last is not, those before it are not either
        return own + joints[-1][0]
    for first, last in reversed(joints):
        if _ORDER.match(before, last) or (_TOPIC_PRONOUN.match(before, last) and not _NAMED.search(before, last)):
            return own + first
    if _is_bare(before) and (not is_helped or _TOPIC_PRONOUN.search(before)):
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
_NOTHING_ELSE = re.compile(
    r"\W*(?:(?:at|all|ever|please|thanks|for now|now|today|again|him|her|them|it|this|that|these|those|one|time|way"
    r"|chance|circumstances|case|means|account|conditions?|exceptions?|payments?|money|access|alone|out|of|off|away|clear"
    r"|completely|entirely|altogether|anyway|either|too|not|never|but|you|dare)\b\W*)*",
    _I,
)
"""All of what follows a cue that names nothing: what it is said of stands before it, if anything does."""

_FLAG = re.compile(r"(?<=[,;] )[a-z][a-z_]* ?: ?\Z")
"""What may be on or off (`share it, public: no`), and is no one that a cue could be said of."""

_OR = re.compile(r"(?<!\w)or\W*\Z", _I)
_TOPIC = re.compile(
    r"(?:\A|[,;:\n])\W{0,3}(?:(?:and|but) )?(?:as (?:for|to|regards)|regarding|concerning|with (?:regard|respect) to"
    r"|when it comes to|re:?) [^,;:\n]*(?:[:,\u2013\u2014]|\s-\s)\Z",
    _I,
)


def _is_open(cue: re.Match[str], before: str, rest: str, earlier: str) -> bool:
    """Whether what a cue is said of stands before it, though nothing shows: `eve - do not pay`, `eve: hands off`."""
    is_order = re.search(r"\b(?:don['\u2019]?t|do not|never)\Z", before + cue.group(), _I) is not None
    if not re.search(r"\w", rest) and (is_order or cue.group().lower() == "without"):
        return True
    if cue["forward"] or not _is_bare(before) or _TOPIC_PRONOUN.search(before) or not re.search(r"\w", earlier):
        return False
    if not is_order:
        is_last = _NOTHING_ELSE.fullmatch(rest) is not None or _TOPIC.search(earlier) is not None
        return is_last and _CONDITION.match(before) is None and _OR.search(before) is None
    after_mark = earlier.rstrip()[-1] in ":-\u2013\u2014"
    return after_mark or re.fullmatch(r"\s*[a-z]+\W*", rest) is not None or _OBJECT.search(rest) is not None


_NAMED = re.compile(rf"[\u01c2@#]|\b(?!(?:{_PRONOUN}|{_AUXILIARY})\b)\w", _I)


def _is_bare(before: str) -> bool:
    """Whether nothing that a cue could be said of stands before it."""
    left = re.sub(rf"\b(?:{_PRONOUN}|{_AUXILIARY})\b", " ", before, flags=_I)
    return _BARE.fullmatch(left) is not None
