"""What is worth keeping: a candidate becomes a draft of a record, or is refused with a code.

Pure, and looks at the candidate alone; what it is beside the records there are, `planning` says.
"""

from __future__ import annotations

import math
import re
from functools import cache
from typing import NamedTuple

from airside.memory.privacy.personal_data import find_personal_data, find_secret, redacted
from airside.memory.records import FOREVER_US, is_record_id
from airside.memory.rules import MAX_TTL_S, MemoryRules
from airside.memory.text import normal, words
from airside.memory.writing.instructions import instructs
from airside.memory.writing.machine_text import in_words, machine_code, without_tags
from airside.memory.writing.phrases import Reader
from airside.memory.writing.speech_acts import what_is_said
from airside.stack.canonical import digest
from airside.stack.contracts.memory import MAX_SHOWN, Candidate
from airside.stack.reasons import MemoryCode
from airside.stack.values import CLEARANCES, PERSONAL, TRUSTS

MAX_CHARACTERS = 8_000
"""About four windows of the embedder; what is longer is a document, and belongs in a store of documents."""

MAX_NAME_CHARACTERS = 200
"""Of a source, kind, subject or topic."""

FUTURE_US = 300 * 1_000_000
"""By how much another machine's clock may be ahead; a later date would keep a record fresh for ever."""

_PLAIN_NAME = re.compile(r"[\w.:#@-]{0,15}")
_LETTER = re.compile(r"[^\W\d_]")
_NAME = re.compile(r"\w+ (?:\w*\d\w*|[^\W\d_a-z]\w*)", re.ASCII)
"""Two words that name something and say nothing of it: "Room 204", "Acme Corp"."""


class Draft(NamedTuple):
    """What will be a record unless one like it is there: the candidate, its text as it is kept, and its times.

    `lineage` is what it brings along beside the records it was shown: that of another store, when it is imported.
    """

    candidate: Candidate
    text: str
    digest: str
    labels: tuple[str, ...]
    observed_us: int
    expires_us: int
    lineage: tuple[str, ...] = ()


class NameChecks:
    """What is wrong with sources, kinds, subjects and topics; each name is looked at once for a group of candidates."""

    def __init__(self) -> None:
        self.instructs = cache(_instructs_as_name)
        self.has_secret = cache(find_secret)
        self.find_personal_data = cache(find_personal_data)


def _instructs_as_name(name: str) -> bool:
    return not _PLAIN_NAME.fullmatch(name) and instructs(name)


def draft(
    candidate: Candidate, rules: MemoryRules, now_us: int, checks: NameChecks | None = None
) -> Draft | MemoryCode:
    """Return the draft of a record, or why the candidate is not worth keeping."""
    checks = checks or NameChecks()
    code = _fields(candidate, rules, now_us) or content_rejection(candidate.text)
    if code is not None:
        return code
    text = candidate.text.strip()
    labels: tuple[str, ...] = ()
    names = (candidate.source, candidate.kind, candidate.subject, candidate.topic)
    if any(map(checks.instructs, names)):
        return MemoryCode.INSTRUCTION  # an agent is shown them as well
    if find_secret(text) or any(map(checks.has_secret, (*names, candidate.subject + candidate.topic))):
        return MemoryCode.SECRET
    personal = find_personal_data(text)
    is_named = any(map(checks.find_personal_data, (candidate.subject, candidate.topic)))
    if personal or is_named:
        # A name that is redacted would be nobody's: what is about somebody could not be found, nor erased.
        if rules.personal_data == "refuse" or (rules.personal_data == "redact" and is_named):
            return MemoryCode.PERSONAL_DATA
        if rules.personal_data == "redact":
            text = redacted(text, personal)
        else:
            labels = (PERSONAL,)
    return Draft(
        candidate=candidate,
        text=text,
        digest=digest(normal(text).encode()),
        labels=labels,
        observed_us=min(candidate.observed_us or now_us, now_us),
        expires_us=min(FOREVER_US - 1, now_us + _ttl_s(candidate, rules) * 1_000_000),
    )


def _ttl_s(candidate: Candidate, rules: MemoryRules) -> int:
    """Return how long it stays: nobody but an operator gets longer than the rules give its kind, or any."""
    longest = max((kind.ttl_s for kind in rules.kinds.values()), default=MAX_TTL_S)
    usual = rules.kinds[candidate.kind].ttl_s if candidate.kind in rules.kinds else longest
    if candidate.ttl_s is None:
        return usual
    return candidate.ttl_s if candidate.trust == "high" else min(candidate.ttl_s, usual)


def _fields(candidate: Candidate, rules: MemoryRules, now_us: int) -> MemoryCode | None:
    names = (candidate.source, candidate.kind, candidate.subject, candidate.topic)
    shares = (candidate.importance, candidate.confidence)
    whole = (candidate.observed_us, 0 if candidate.ttl_s is None else candidate.ttl_s)
    if not all(isinstance(each, str) for each in (candidate.text, *names)) or any(type(n) is not int for n in whole):
        return MemoryCode.INVALID
    if not isinstance(candidate.shown, tuple) or not all(map(is_record_id, candidate.shown)):
        return MemoryCode.INVALID
    if (
        any(len(name) > MAX_NAME_CHARACTERS or not name.isprintable() for name in names)
        or not (candidate.source and candidate.kind)
        or not all(math.isfinite(share) and 0 <= share <= 1 for share in shares)
        or candidate.sensitivity not in CLEARANCES
        or candidate.trust not in TRUSTS
    ):
        return MemoryCode.INVALID
    if candidate.ttl_s is None:
        if candidate.kind not in rules.kinds:
            return MemoryCode.TTL_INVALID
    elif not 0 < candidate.ttl_s <= MAX_TTL_S:
        return MemoryCode.TTL_INVALID
    if not 0 <= candidate.observed_us <= now_us + FUTURE_US:
        return MemoryCode.TIME_INVALID
    if len(set(candidate.shown)) > MAX_SHOWN:
        return MemoryCode.TOO_MANY_SOURCES
    return MemoryCode.LOW_CONFIDENCE if candidate.confidence < rules.min_confidence else None


def content_rejection(text: str) -> MemoryCode | None:
    """Return why a text holds nothing worth keeping, or None."""
    if len(text) > MAX_CHARACTERS:
        return MemoryCode.TOO_LONG
    try:
        text.encode()
    except UnicodeEncodeError:
        return MemoryCode.INVALID  # half a character: nobody could write it down
    reader = Reader()
    if instructs(text, reader):
        return MemoryCode.INSTRUCTION
    said = in_words(text)
    if isinstance(said, MemoryCode):
        return said
    if said != text and instructs(said):
        return MemoryCode.INSTRUCTION  # what is a letter for JSON's reader alone
    return machine_code(said) or _says_nothing(without_tags(said), reader)


def _says_nothing(text: str, reader: Reader) -> MemoryCode | None:
    """Return why a text for people tells nothing, or None: a fact has a subject and what is said of it."""
    there = words(text)
    if not any(map(_LETTER.search, there)):
        return MemoryCode.NO_CONTENT
    if len(set(there)) * 5 < len(there):
        return MemoryCode.NO_CONTENT  # the same few words over and over
    said = what_is_said(text, reader)
    if not said.is_something:
        is_talk = len(said.helping) > 1 and not said.informing
        return said.passed_over or (MemoryCode.ACKNOWLEDGEMENT if is_talk else MemoryCode.TOO_SHORT)
    return MemoryCode.TOO_SHORT if len(there) == 2 and _NAME.fullmatch(text.strip()) else None
