"""What a request calls records: what it has in quotation marks, as a file's name, or in its inputs as a title.

What is quoted to be sent or written (`tell everybody "See you at six"`) is no title, and so anybody's mail of that
subject is not what the request means.  Where a text may be either, it is one only beside the kind of the record (`the
file "A"`).  Of inputs, only what stands under a key that says what a record is called, or under its kind: never
`priority: urgent`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from airside.stack.provenance.directives import Clause
from airside.stack.provenance.effort import spend_effort
from airside.stack.provenance.matching import SearchableText, fold
from airside.stack.provenance.records import heads_of, is_file_name
from airside.stack.text.tokens import QUOTED

Json = Any

_ONE_TITLE, _ONE_INPUT = 3_000, 500
"""Characters that a look at what is quoted, and at a text of inputs, count for besides its own."""

_TITLES = frozenset({"title", "name", "filename", "subject", "headline", "heading"})
_OF_ANY_KIND = frozenset({"file", "filename", "record"})
_CALLED = re.compile(r"(?<!\w)(?:called|named|titled|entitled|title|name)[ :]*\Z", re.IGNORECASE)
_WRITING = (
    "send|post|mail|e-?mail|message|dm|leave|add|note|create|compose|draft|write|insert|append|paste|type|put|make"
    "|comment"
)
_MAKES = re.compile(
    r"(?<![\w@.\-])(?:create|make|write|save|export|draft|compose|generate|schedule|set up|setup|rename|duplicate"
    r"|upload|produce|prepare|organi[sz]e|arrange|plan an?|book an?|(?:an?|the) new|call it|name it)(?![\w@.\-])",
    re.IGNORECASE,
)
"""What is made, or gets a name, is none of the records that there are: one of that title is somebody else's."""

_SAYING = (
    "tell|say|saying|says|said|reply|respond|answer|announce|inform|remind|ask|text|shout|explain|warn|know|wish|greet"
    "|thank|congratulate|get|gets|receive|receives|hear|sign|quote|words?|wording"
)
_FOREIGN = (
    "sag|sage|schreib|schreibe|antworte|sende|schicke|dis|dites|\u00e9cris|\u00e9crivez|r\u00e9ponds|r\u00e9pondez|envoie"
    "|envoyez"
)
_WRITES = re.compile(rf"(?<![\w@.\-])(?:{_WRITING}|{_SAYING}|{_FOREIGN})(?![\w@\-])", re.IGNORECASE)
_BEGINS_TO_WRITE = re.compile(rf"(?:\W|please|then|and|also|now)*(?:{_WRITING})(?![\w@\-])", re.IGNORECASE)
_IS_TEXT = re.compile(
    r"(?<!\w)(?:(?:text|body|message|mail|note|reply|subject|line|words|wording|contents?|caption|title) (?:is|are|be)"
    r"|text|body|words?|reads?|reading|contents?|caption|comment|saying|says?|writing|with|line|follows"
    r"|subject)[ :]*\Z",
    re.IGNORECASE,
)
_AS_TEXT = re.compile(
    r"\s*(?:as|for|in) (?:an? |the |its |my |your )?(?:subject|text|body|message|content|caption|reply|answer|comment"
    r"|note|heading|words?)\b|\s*(?:is|as) (?:what|how)\b",
    re.IGNORECASE,
)
_NOUN_AFTER = re.compile(r"\s*([\w\-]+)")
_NOUN = re.compile(r"(?<![\w\-])([\w\-]+)[ :]*\Z")
_TEXTS = frozenset({"mail", "note", "comment", "reply", "post", "text", "subject", "answer"})
"""Kinds of what is quoted when one is sent or made: `send the message "Hello"`."""

_READS_SUBJECT = re.compile(
    r"(?<!\w)(?:mail|e-?mail|message|thread|one)s? (?:with|of) (?:the )?subject[ :]*\Z", re.IGNORECASE
)


def is_to_be_made(clauses: tuple[Clause, ...], title: str) -> bool:
    """Whether a folded title stands in a clause that has something made."""
    return any(_MAKES.search(each.said) and SearchableText(each.text, quotes=True).has(title) for each in clauses)


def calls_by_quoting(clauses: tuple[Clause, ...], title: str, kinds: frozenset[str]) -> bool:
    """Whether a folded text is quoted as the title of a record of these kinds."""
    for clause in clauses:
        for match in QUOTED.finditer(clause.text):
            spend_effort(len(clause.text) + _ONE_TITLE)
            searchable = SearchableText(match.group(), quotes=True)
            if searchable.quotes(title) and _is_title(clause.text[: match.start()], clause.text[match.end() :], kinds):
                return True
    return False


def _is_title(before: str, after: str, kinds: frozenset[str]) -> bool:
    """Whether what is quoted between these is called so, and not sent or written."""
    if _AS_TEXT.match(after):
        return False
    if _CALLED.search(before):
        return True
    begins_to_write = _BEGINS_TO_WRITE.match(before) is not None
    if _READS_SUBJECT.search(before):
        return not begins_to_write
    if _IS_TEXT.search(before):
        return False
    nouns = [noun[1] for noun in (_NOUN.search(before), _NOUN_AFTER.match(after)) if noun]
    heads = frozenset(head for noun in nouns for head in heads_of((noun,), ""))
    if heads & kinds:
        return not (begins_to_write and heads & _TEXTS)
    return _WRITES.search(before) is None


def calls_in_inputs(inputs: Json, title: str, kinds: frozenset[str]) -> bool:
    """Whether a folded text is a value of inputs under a key that says what a record of these kinds is called."""
    for key, text in keyed(inputs, ""):
        spend_effort(len(text) + _ONE_INPUT)
        if fold(text.strip()) == title and _is_called(key, kinds):
            return True
    return False


def keyed(value: Json, key: str) -> Iterator[tuple[str, str]]:
    """Yield the texts of inputs, each with the key it stands under."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from keyed(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from keyed(inner, key)
    elif isinstance(value, str):
        yield key, value


def _is_called(key: str, kinds: frozenset[str]) -> bool:
    words = key_words(key)
    if not words:
        return False
    own = kinds | _OF_ANY_KIND
    if words[-1] in _TITLES:
        if len(words) == 1 and words[0] not in ("title", "filename"):  # a person's name, the subject of what is sent
            return False
        return all(heads_of((word,), "") & own for word in words[:-1])
    return words[-1] not in ("id", "uid", "uuid", "guid") and len(words) == 1 and bool(heads_of((key,), "") & own)


def key_words(key: str) -> list[str]:
    """Return the words of a key in lower case."""
    return re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", key[:128]).lower())


def is_called_file(authority: SearchableText, title: str) -> bool:
    """Whether a folded title is a file's name that a request has; a mail address is none."""
    return is_file_name(title) and authority.has(title)
