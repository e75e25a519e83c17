"""Whether an order is about what a tool is for, as far as the tool's name says.

What a request says of a thing (`make the calendar public`, `a hotel for 3 days`) is said of nothing else.  A call that
has what the request calls the thing by (an address, a file, a quoted title, `C1`) is bound to it by that.  Any other is
bound by its tool's name alone: `update_calendar` by the noun, where that is what the order is about (no `team
calendar` is a team, and nothing is about what stands after `for`, `of` or `with`); a tool without a noun (`share`) by
the order's verb.  Descriptions are not read: nearly every word is in one.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache

from airside.stack.provenance.masking import VALUE
from airside.stack.text.dates import parse_any_form

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_WORD = re.compile(r"[a-z]+")
_TOKEN = re.compile(r"[\w'\u2019\-]+|[^\w\s]")
_CODE = re.compile(r"[A-Za-z][\w.#:\-]*[0-9][\w.#:\-]*", re.ASCII)


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_PREPOSITIONS = _set(
    "about above across after against along among around as at because before behind below beside between beyond by"
    " concerning despite during except for from in inside into like near of off on onto out outside over per regarding"
    " since than through to toward towards under until via while with within without"
)
_CLOSES = _PREPOSITIONS | _set(
    "and or but so then please now again once too also today tomorrow not only who which that named called titled"
    " entitled lasting starting beginning is are must shall it them her him"
)
"""What may follow the thing itself; any other word may be the thing, and this one what kind it is of."""

_PARTICLES = _set("up on off out down")
_PHRASAL = _set("set turn switch put open lock lay")
_STOP = _set(
    "a an the to of for in on at by from with and or via per into as all any new my me it its them us you user self"
)
_LIGHT = _set("make set do keep turn put leave let get switch mark use run")
"""Verbs that say nothing of what is done."""

_UNITS = _set("second minute hour day night week month year duration length time")

_SETTING = _set(
    "set reset unset update change edit modify replace overwrite patch put save configure assign rename rewrite clear"
    " delete remove purge wipe drop empty revoke"
)
_SECRET = _set("password passwd pwd passphrase passcode pin secret token credential credentials apikey")

_GROUPS = (
    "event meeting appointment call session",
    "payment transfer transaction",
    "booking reservation",
    "file document doc",
    "mail email message notice notification dm",
    "task todo",
    "page webpage",
)
_VERB_GROUPS = (
    _set("book reserve hire rent"),
    _set("tell notify inform message mail email send dm"),
    _set("pay transfer wire send remit"),
    _set("share lend"),
)
_KIND = {word: group.split()[0] for group in _GROUPS for word in group.split()}


def names_thing(value: object) -> bool:
    """Whether a value is what one thing is called by (`C1`, `G-20`), and no amount, word or time."""
    return isinstance(value, str) and _CODE.fullmatch(value) is not None and parse_any_form(value) is None


def is_about(
    tool: str,
    verbs: frozenset[str],
    prose: str,
    said: Collection[str],
    values: Collection[str] = (),
    *,
    is_order: bool,
) -> bool:
    """Whether what an order is about is what a tool is for; `said` are the words of what it is to be.

    `prose` begins with the verb of an order and has its values masked; `verbs` are those that an order may begin with;
    `values` are words of the call's other values.  A tool that is called like what is said (`set_public`) is for any
    thing, and so for none.
    """
    verb, noun = _parts(tool, verbs)
    if noun is None:
        return is_order and _is_same_verb(verb, prose)
    if noun in _UNITS or noun in map(_kind, said):
        return False
    said = {*said, *values}
    tokens = _TOKEN.findall(prose)
    return any(
        _kind(tokens[at]) == noun and _ends(tokens, at, said)
        for at in range(1 if is_order else 0, _object_ends(tokens))
    )


def may_do(tool: str, verbs: frozenset[str], prose: str) -> bool:
    """Whether an order's verb is the one of a tool."""
    return _is_same_verb(_parts(tool, verbs)[0], prose)


def mentions(tool: str, verbs: frozenset[str], prose: str) -> bool:
    """Whether a text has the noun of a tool's name anywhere or, if there is none, the verb."""
    verb, noun = _parts(tool, verbs)
    tokens = _TOKEN.findall(prose)
    if noun is None:
        return any(_is_same_verb(verb, token) for token in tokens)
    return noun not in _UNITS and noun in map(_kind, tokens)


@lru_cache(maxsize=4096)
def sets(tool: str) -> bool:
    """Whether a tool's name says that it gives what there is another value, or takes it away."""
    return not _SETTING.isdisjoint(_words(tool))


@lru_cache(maxsize=4096)
def locks(name: str) -> bool:
    """Whether an argument's name says that it is what keeps others out."""
    return not _SECRET.isdisjoint(_words(name))


def _words(name: str) -> list[str]:
    return _WORD.findall(_CAMEL.sub(" ", name[:128]).lower())


@lru_cache(maxsize=4096)
def _parts(tool: str, verbs: frozenset[str]) -> tuple[str, str | None]:
    """Return the verb of a tool's name and the kind of thing that it is for; `drive.update` has both."""
    verb, noun = "", None
    for segment in reversed(tool.split(".")):
        words = [word for word in _words(segment) if word != "v"]
        if not verb and words and words[0] in verbs:
            verb, *words = words
        elif not verb and words and words[-1] in verbs:
            *words, verb = words
        end = next((at for at, word in enumerate(words) if at and word in _PREPOSITIONS), len(words))
        nouns = [word for word in words[:end] if word not in _STOP | _PARTICLES]
        if nouns and noun is None:
            noun = _kind(nouns[-1])
    return verb, noun


def _kind(word: str) -> str:
    """Return a word in the singular, and one of those that mean the same."""
    one = word.replace("-", "")
    if len(one) > 3 and one.endswith("s") and not one.endswith(("ss", "us", "is")):
        one = one[:-3] + "y" if one.endswith("ies") else one[:-1]
    return _KIND.get(one, one)


def _ends(tokens: list[str], at: int, said: Collection[str]) -> bool:
    """Whether the word there is the thing itself, and not what kind of thing it is: `the team calendar`."""
    following = tokens[at + 1] if at + 1 < len(tokens) else "."
    if not following[0].isalpha() or following[0] == VALUE or following in _CLOSES:
        return True
    parts = following.removeprefix("non-").split("-")
    return all(part in said for part in parts)


def _object_ends(tokens: list[str]) -> int:
    """Return where whom or what for begins: nothing that comes then is what the order is about."""
    first = 2 if tokens[:1] and tokens[0] in _PHRASAL and tokens[1:2] and tokens[1] in _PARTICLES else 1
    return next((at for at in range(first, len(tokens)) if tokens[at] in _PREPOSITIONS), len(tokens))


def _is_same_verb(verb: str, prose: str) -> bool:
    begins = _WORD.match(prose)
    if begins is None or verb in _LIGHT:
        return False
    return begins.group() == verb or any({begins.group(), verb} <= group for group in _VERB_GROUPS)
