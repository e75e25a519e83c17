"""Ids that nobody needs to be asked about: of a record the request names by its title, and of what the run made itself.

Both are told from the structure of a tool's output, which a text within it cannot change:

 - named    `{"id": 51, "title": "Dress run"}` in what a read of low risk returned, if the request has that title in
            quotation marks, as a file's name, or as all of a value of its inputs; and no other record of the kind that
            was seen has it
 - created  the id that a tool which makes something gave back of it, if it stood nowhere before

The kind of a record is what its tool's name says it returns (`find_files`), never what keys within say: a mail that
lists files names none.  An id is taken for an argument of that kind (`event_id`, or `id` of `move_event`).  Only what
people keep has titles that count, for accounts, companies, chats and mails are called what their owners like.  What an
agent said before is no record's word: a tool that echoes `id` and `title` vouches for neither.  Whatever is unclear is
neither named nor created, and what may be two titles, or may have stood somewhere, is compared in the loosest reading.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from airside.stack.provenance.matching import fold
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.text.entities import FILES
from airside.stack.text.spelling import alike, caseless, plain

Json = Any
Path = tuple[str, ...]
Id = str | int

MAX_RECORDS = 2000
"""Records of one run that are kept; once there are more, nobody can say that a title is one record's, and none is."""

_WORDS = re.compile(r"[a-z0-9]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_IDS = frozenset({"id", "uid", "uuid", "guid"})
_TITLES = frozenset({"title", "name", "filename", "subject", "headline", "heading"})


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_PARTICLES = _set("by for from with in of to on at and or as into via per")
_OF_ANY_KIND = _set(
    "info detail details metadata list all result item data content history recent my new old current record entry row"
    " page first last next one single object value output response this the target source selected own day today"
)
"""Words of names that say nothing of a kind."""

_MAKING = _set(
    "create add new make upload book reserve schedule plan draft copy open write compose insert generate duplicate"
    " clone"
)
_VERBS = _MAKING | _set(
    "get read find search list show fetch look lookup load view check query browse count update change set edit move"
    " rename delete remove cancel close share lend invite append note mail reschedule burn put do run mark assign"
    " archive publish download export import attach forward reply tell notify approve reject confirm start stop"
    " complete post save register order send submit"
)
_LOOKING = frozenset({"find", "search", "list", "browse", "query"})
_NOUNS_TOO = frozenset({"book", "post", "order", "mail", "note", "plan", "draft", "copy", "page", "list"})
"""Verbs that are a kind where they stand last and another verb stands before."""

_SAME_KIND = {"document": "file", "doc": "file", "email": "mail", "message": "mail", "msg": "mail"} | {
    "appointment": "event",
    "meeting": "event",
}
_KEPT = _set(
    "file folder directory sheet spreadsheet slide presentation note page photo picture image video recording song"
    " album playlist book recipe report form drawing diagram template board list project task todo reminder milestone"
    " issue ticket case event appointment rehearsal lesson class session course booking reservation trip itinerary"
)
"""Kinds of records that people keep, and call something.  Of any other kind no title stands for a record: whoever is to
be paid, told or let in chooses the own name."""

_SENDERS = frozenset({"sender", "from", "author", "by"})
_WITHIN = _set(
    "row rows line lines cell cells entry entries response responses reply replies answer answers comment comments"
    " content contents text body attachment attachments field fields column columns value values member members item"
    " items"
)
"""Words of a tool's name that say it returns what stands within records, which others may have written."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:#\-]{0,127}", re.ASCII)
_FILE_ENDING = re.compile(r"\.[a-z][a-z0-9]{0,7}\Z", re.ASCII)


class Known(NamedTuple):
    """Where an id was returned, and of which kinds it is.  `whole` = no outsider writes what was returned."""

    kinds: frozenset[str]
    at: int
    detail: str
    whole: bool


class _Record(NamedTuple):
    """A record of an output: its ids, what it is called, its kinds; `usable` = an id of it may count."""

    ids: frozenset[str]
    titles: frozenset[str]
    known: Known
    usable: bool


Before = Callable[[str, int], bool]
"""Whether a value stood anywhere before a call of this position in the history returned."""


class Records:
    """The records of one run, in the order of its steps.

    `was_said` says whether the agent said a value before a call returned, `was_seen` whether anybody did.
    """

    def __init__(self, was_said: Before, was_seen: Before) -> None:
        self._was_said = was_said
        self._was_seen = was_seen
        self._by_id: dict[str, list[_Record]] = {}
        self._ids_of: dict[tuple[str, str], set[frozenset[str]]] = {}
        self._created: dict[str, list[Known]] = {}
        self._count = 0

    def take(self, spec: ToolSpec | None, at: int, detail: str, output: Json) -> None:
        """Take in what the call at this position of the history returned."""
        if spec is None:
            return
        own = frozenset(_tool_nouns(spec.name)[-1:])
        if spec.effect != "read" and _makes(spec.name):
            for made in _made(spec, output):
                self._created.setdefault(str(made), []).append(Known(own & _KEPT, at, detail, spec.trusted_output))
        is_looked_up = spec.effect == "read" and spec.risk == "low"
        is_many = _returns_many(spec.name)
        for item, container, is_inner in _objects(output, "", False):
            if self._count > MAX_RECORDS:
                return
            ids, kinds = own_ids(item, spec, container)
            is_usable = is_looked_up and not is_inner and kinds == own and (is_many or item is output)
            titles = _titles_of(item, kinds)
            if titles:
                known = Known(kinds, at, detail, spec.trusted_output)
                record = _Record(frozenset(map(str, ids)), titles, known, is_usable)
                self._count += 1
                for each in record.ids:
                    self._by_id.setdefault(each, []).append(record)
                for title in titles:
                    for kind in kinds:
                        for loose in {_loosely(title), _loosely(_FILE_ENDING.sub("", title))}:
                            self._ids_of.setdefault((kind, loose), set()).add(record.ids)

    def created(self, value: Json, path: Path, tool: str) -> Known | None:
        """Return what says that this run made what `value` is the id of."""
        found = self._created.get(str(value), ()) if self._created and _is_id(value) else ()
        heads = heads_of(path, tool) if found else frozenset()
        return next((each for each in found if each.kinds & heads and not self._was_seen(str(value), each.at)), None)

    def named(self, value: Json, path: Path, tool: str, is_named: Callable[[str], bool]) -> Known | None:
        """Return what says that `value` is the id of the one record with a title for which `is_named` says yes."""
        found = self._by_id.get(str(value), ()) if self._by_id and _is_id(value) else ()
        if not found or self._count > MAX_RECORDS:
            return None
        heads = heads_of(path, tool) & _KEPT
        for record in found:
            if not record.usable or not record.known.kinds & heads:
                continue
            if any(is_named(title) and self._is_only(record, title) for title in record.titles):
                return None if self._was_said(str(value), record.known.at) else record.known
        return None

    def _is_only(self, record: _Record, title: str) -> bool:
        loose = _loosely(title)
        return loose != "" and all(self._ids_of[kind, loose] == {record.ids} for kind in record.known.kinds)


def _loosely(title: str) -> str:
    """Return what is left of a title whatever way it is spelled: two that may be taken for one are not told apart."""
    return "".join(char for char in caseless(alike(plain(title))) if char.isalnum())


def is_file_name(title: str) -> bool:
    """Whether a title is a file's name, which a request need not quote."""
    stem, _, ending = title.rpartition(".")
    is_file = FILES.fullmatch(ending.lower()) is not None or ending.lower() in ("md", "py", "zip", "mov")
    return is_file and len(stem) > 2 and "@" not in title and not title.lower().startswith("www.") and " " not in title


def own_ids(item: Mapping[str, Json], spec: ToolSpec, container: str) -> tuple[list[Id], frozenset[str]]:
    """Return the ids of a record itself, none where that is unclear, and its kind: the container's, else the tool's."""
    kinds = frozenset(_heads(container) or _tool_nouns(spec.name)[-1:])
    ids = [item[key] for key in item if set(_words(key)) <= _IDS and _words(key) and _is_id(item[key])]
    if not ids:
        ids = [item[key] for key in item if kinds.intersection(_id_heads(key)) and _is_id(item[key])]
        ids = ids if len(ids) == 1 else []
    return ids, kinds


def heads_of(path: Path, tool: str) -> frozenset[str]:
    """Return the kinds whose ids an argument takes: by its own name, else by those around it, else by its tool's."""
    for name in reversed([each for each in path if not each.isdigit()]):
        found = _heads(name)
        if found:
            return frozenset(found)
    return frozenset(_tool_nouns(tool))


def _objects(value: Json, container: str, is_inner: bool) -> Iterator[tuple[dict[str, Json], str, bool]]:
    """Yield the objects of an output with the key they stand under, and whether that is within a record."""
    if isinstance(value, list):
        for each in value:
            yield from _objects(each, container, is_inner)
    elif isinstance(value, dict):
        yield value, container, is_inner
        has_id = any((_IDS | _SENDERS) & set(_words(key)) for key in value)
        for key, inner in value.items():
            if isinstance(inner, dict | list):  # under an id, a record is of the kind of what is around it
                is_key = any(char.isdigit() for char in key)
                yield from _objects(inner, container if is_key else key, is_inner or has_id)


def _made(spec: ToolSpec, output: Json) -> list[Id]:
    """Return the ids of what a tool made: all it returned, or those of the one object of its kind that it returned."""
    own = frozenset(_tool_nouns(spec.name)[-1:])
    if isinstance(output, str):
        # "done" is no id, and a number may be a count.
        return [output] if _is_id(output) and any(c.isdigit() for c in output) and not output.isdecimal() else []
    if not isinstance(output, dict):
        return []
    ids, _ = own_ids(output, spec, "")
    inner = [own_ids(each, spec, key) for key, each in output.items() if isinstance(each, dict)]
    with_ids = [each for each, kinds in inner if each and kinds == own]
    return ids or (with_ids[0] if len(with_ids) == 1 else [])


def _titles_of(item: Mapping[str, Json], kinds: frozenset[str]) -> frozenset[str]:
    return frozenset(
        fold(text.strip())
        for key, text in item.items()
        if isinstance(text, str) and text.strip() and len(text) <= 300 and _is_title(key, kinds)
    )


def _is_title(key: str, kinds: frozenset[str]) -> bool:
    """Whether a key says what the record itself is called: `title`, or `event_title` of an event."""
    words = _words(key)
    return bool(words) and words[-1] in _TITLES and all(_kind(word) in {*kinds, "file"} for word in words[:-1])


# Names.


def _is_id(value: Json) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, str) and _ID.fullmatch(value) is not None)


@lru_cache(maxsize=4096)
def _words(name: str) -> tuple[str, ...]:
    return tuple(_WORDS.findall(_CAMEL.sub(" ", name[:128]).lower()))


def _kind(word: str) -> str:
    """Return a word in the singular, and one of those that mean the same."""
    one = word
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        one = word[:-3] + "y" if word.endswith("ies") else word[:-1]
    return _SAME_KIND.get(one, one)


def _nouns(words: Sequence[str]) -> list[str]:
    """Return the words before a particle that may be a kind."""
    end = next((at for at, word in enumerate(words) if at and word in _PARTICLES), len(words))
    kinds = [_kind(word) for word in words[:end] if word not in _IDS and word != "ids"]
    return [kind for kind in kinds if kind not in _OF_ANY_KIND]


def _heads(name: str) -> list[str]:
    """Return the kind that a key or an argument is of, if its name tells."""
    return _nouns(_words(name))[-1:]


def _id_heads(key: str) -> list[str]:
    """Return the kind of a key such as `file_id`."""
    words = _words(key)
    return _nouns(words[:-1])[-1:] if len(words) > 1 and words[-1] in _IDS else []


@lru_cache(maxsize=4096)
def _tool_nouns(tool: str) -> tuple[str, ...]:
    """Return the kinds that a tool's name has: `file` of `search_files_by_filename`, or of `files.search`."""
    for segment in reversed(tool.split(".")):
        if _WITHIN & set(_words(segment)):
            return ()
        words = _nouns(_words(segment))
        nouns = tuple(w for at, w in enumerate(words) if w not in _VERBS or (at and w in _NOUNS_TOO))
        if nouns:
            return nouns
    return ()


def _returns_many(tool: str) -> bool:
    """Whether a tool's name says that it returns records: one that reads a sheet returns what stands in it."""
    words = _words(tool.rpartition(".")[2])
    plural = any(word != _kind(word) and _kind(word) in _KEPT for word in words)
    return plural or not _LOOKING.isdisjoint(words[:1])


def _makes(tool: str) -> bool:
    """Whether the first verb of a tool's name is one of making."""
    verbs = (word for word in _words(tool.rpartition(".")[2]) if word in _VERBS)
    return next(verbs, "") in _MAKING
