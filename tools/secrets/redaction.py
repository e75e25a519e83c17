"""`Redactor`: takes secrets, as they are and as they are commonly written, out of what leaves a tool.

A secret is looked for with all whitespace left out, of the text and of itself, so that one which is broken over lines
is found too.  Texts are redacted before they are bounded: a cut secret is one that nobody recognises.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import quote, quote_plus, unquote, urlsplit

from airside.stack.errors import MAX_TEXT_CHARS, text_of

MIN_LENGTH = 8
"""A shorter secret would be found in texts that have nothing to do with it."""

MAX_LENGTH = 16_384
REDACTED = "[redacted]"

_BREAKS = re.compile(r"\s|(?<!\\)\\++(?:[nrt]|$)|%0[aAdD9]|=\r?\n", re.MULTILINE)
"""How a text says that a line ends, where it is not a text any more but written in another one.

A run of backslashes is looked at from its beginning alone: from each of them it would take their square.
"""

_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_")
_SENSITIVE = re.compile(r"key|secret|token|passw", re.IGNORECASE)
_WINDOW = 4
"""How many times the longest form is looked at of a text's end: a secret that is broken over lines is longer."""

_DEPTH = 3


class Redactor:
    """Replaces secrets by `[redacted]`; without secrets it is false, and changes nothing."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        plain: set[str] = set()
        encoded: set[str] = set()
        for part in {part for secret in secrets for part in _parts(secret, _DEPTH)}:
            plain |= _written(part)
            plain.update(_lines(part))
            encoded |= _encoded(part)
        self._set(plain, encoded)

    def _set(self, plain: set[str], encoded: set[str]) -> None:
        self._encoded = frozenset(_long(map(_compact, encoded)))
        forms = self._encoded | frozenset(_long(map(_compact, plain)))
        self._forms = tuple(sorted(forms, key=len, reverse=True))
        self._unbroken = tuple(sorted(_long(map(_unbroken, forms)), key=len, reverse=True))

    @classmethod
    def of_all(cls, redactors: Iterable[Redactor]) -> Redactor:
        """Return one that replaces what any of these does."""
        found = cls()
        plain: set[str] = set()
        encoded: set[str] = set()
        for each in redactors:
            encoded |= each._encoded
            plain.update(each._forms)
        found._set(plain - encoded, encoded)
        return found

    def __bool__(self) -> bool:
        return bool(self._forms)

    def __repr__(self) -> str:
        return f"Redactor({len(self._forms)} forms)"

    @property
    def longest(self) -> int:
        """The length of the longest form: of a text that was cut, so much of its end may be a part of a secret."""
        return len(self._forms[0]) if self._forms else 0

    def text(self, text: str) -> str:
        """Return a text without the secrets."""
        if not self:
            return text
        text = self._replaced(text, self._forms, _compact, _kept)
        if "\\" in text or "%" in text or "=" in text:
            text = self._replaced(text, self._unbroken, _unbroken, _kept_unbroken)
        return text

    def data(self, data: bytes) -> bytes:
        """Return bytes without the secrets."""
        return self.text(data.decode(errors="surrogateescape")).encode(errors="surrogateescape") if self else data

    def value(self, value: Any) -> Any:
        """Return a value of JSON without the secrets, in keys and numbers, too."""
        match value:
            case str():
                return self.text(value)
            case dict():
                names = distinct(map(self.text, value))
                return {name: self.value(inner) for name, inner in zip(names, value.values(), strict=True)}
            case list():
                return [self.value(inner) for inner in value]
            case int() | float() if not isinstance(value, bool):
                shown = str(value)
                return value if len(shown) < MIN_LENGTH or self.text(shown) == shown else REDACTED
            case _:
                return value

    def error(self, error: BaseException, limit: int = MAX_TEXT_CHARS) -> str:
        """Return an error as a text without the secrets, at most `limit` characters of it."""
        if not self:
            return text_of(error, limit)
        most = limit + _WINDOW * self.longest
        text = text_of(error, most)
        return self.text(text)[:limit] if len(text) < most else self.end(self.text(text))[:limit]

    def held_from(self, text: str) -> int:
        """Return from where on a redacted text may be the beginning of a secret, its length if nowhere."""
        begin = max(0, len(text) - _WINDOW * self.longest)
        tail = _compact(text[begin:])
        longest = max((_overlap(tail, form) for form in self._forms), default=0)
        return begin + _kept(text[begin:])[-longest] if longest else len(text)

    def end(self, text: str) -> str:
        """Return a redacted text that goes on no more: without what is much of the beginning of a secret."""
        held = self.held_from(text)
        return text if len(text) - held < MIN_LENGTH else text[:held] + REDACTED

    def _replaced(
        self, text: str, forms: tuple[str, ...], compact: Callable[[str], str], kept: Callable[[str], list[int]]
    ) -> str:
        dense = compact(text)
        spans = [(at, form) for form in forms if form in dense for at in _places(dense, form)]
        if not spans:
            return text
        where = kept(text)
        parts, done = [], 0
        for begin, end in _merged((*self._span(text, where, at, form),) for at, form in spans):
            parts += [text[done:begin], REDACTED]
            done = end
        return "".join([*parts, text[done:]])

    def _span(self, text: str, where: list[int], at: int, form: str) -> tuple[int, int]:
        """Return where a form is in a text; an encoded one with the characters beside it that have bits of it."""
        begin, end = where[at], where[at + len(form) - 1] + 1
        if form in self._encoded:
            begin -= begin > 0 and text[begin - 1] in _BASE64
            end += end < len(text) and text[end] in _BASE64
        return begin, end


class CutText(str):
    """A text whose end its tool cut off: that may be the beginning of a secret, of which the tool need not know."""

    __slots__ = ()


def distinct(names: Iterable[str]) -> list[str]:
    """Return names of which none is there twice: keys may be alike once their secrets are taken out."""
    names = list(names)
    taken, last, found = set(names), dict[str, int](), list[str]()
    for name in names:
        number = last.get(name, 0) + 1
        shown = name
        while number > 1 and (shown := f"{name} ({number})") in taken:
            number += 1
        last[name] = number
        taken.add(shown)
        found.append(shown)
    return found


def _compact(text: str) -> str:
    return "".join(text.split())


def _kept(text: str) -> list[int]:
    return [at for at, each in enumerate(text) if not each.isspace()]


def _unbroken(text: str) -> str:
    return _BREAKS.sub("", text)


def _kept_unbroken(text: str) -> list[int]:
    where: list[int] = []
    done = 0
    for found in _BREAKS.finditer(text):
        where += range(done, found.start())
        done = found.end()
    return [*where, *range(done, len(text))]


def _long(forms: Iterable[str]) -> Iterator[str]:
    return (form for form in forms if len(form) >= MIN_LENGTH)


def _places(text: str, form: str) -> Iterator[int]:
    at = text.find(form)
    while at >= 0:
        yield at
        at = text.find(form, at + 1)


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if merged and begin < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def _overlap(text: str, form: str) -> int:
    """Return how long the longest end of a text is with which a form begins."""
    at = text.find(form[0], max(0, len(text) - len(form) + 1))
    while at >= 0 and not form.startswith(text[at:]):
        at = text.find(form[0], at + 1)
    return len(text) - at if at >= 0 else 0


def _parts(secret: str, depth: int) -> Iterator[str]:
    """Yield a secret and what is secret in it: a URL's password, the keys in a document."""
    yield secret
    if "://" in secret:
        try:
            password = urlsplit(secret.strip()).password or ""
        except ValueError:
            password = ""
        yield from {password, unquote(password)}
    if depth and secret.lstrip().startswith(("{", "[")):
        try:
            document = json.loads(secret)
        except (ValueError, RecursionError):
            return
        for leaf in _leaves(document, depth):
            yield from _parts(leaf, depth - 1)


def _lines(secret: str) -> Iterator[str]:
    """Yield the lines of a secret that has several, as they are printed one by one; not the frame of a key."""
    lines = secret.strip().splitlines()
    return (line for line in lines if len(lines) > 1 and not line.startswith("-----"))


def _leaves(document: Any, depth: int) -> Iterator[str]:
    """Yield the texts of a document whose names say that they are secret."""
    if not depth:
        return
    if isinstance(document, dict):
        for name, value in document.items():
            if isinstance(value, str) and _SENSITIVE.search(name):
                yield value
            else:
                yield from _leaves(value, depth - 1)
    elif isinstance(document, list):
        for value in document:
            yield from _leaves(value, depth - 1)


def _written(secret: str) -> set[str]:
    """Return how a secret stands in texts, sources, documents and addresses."""
    if len(secret) < MIN_LENGTH:
        return set()
    escaped = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], secret.replace('"', '\\"')}
    escaped |= {json.dumps(each)[1:-1] for each in escaped}  # a document as a text of another one
    escaped |= {repr(secret)[1:-1], ascii(secret)[1:-1]} | {each.replace("/", "\\/") for each in escaped}
    quoted = {quote(secret), quote(secret, safe=""), quote_plus(secret)}
    quoted |= {re.sub("%..", lambda found: found[0].lower(), each) for each in quoted}
    return {secret, html.escape(secret), html.escape(secret, quote=False), *escaped, *quoted}


def _encoded(secret: str) -> set[str]:
    """Return how a secret stands in Base64, whatever stands before and after it, and in hexadecimal."""
    data = secret.encode()
    if len(data) < MIN_LENGTH:
        return set()
    found = {data.hex(), data.hex().upper()}
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + data)
        certain = encoded[(0, 2, 3)[before] : len(encoded) - (0, 3, 2)[(before + len(data)) % 3]].decode()
        found |= {certain, certain.replace("+", "-").replace("/", "_")}
    return found


NO_SECRETS = Redactor()
