"""The keys of models' providers: read where a stack is started, and given to the model caller alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from airside.stack.models.endpoints import ModelEndpoint

_SHORTEST = 8
"""What is shorter is no key, and stands in any text."""

_MARK = "[key]"


def keys_of(endpoints: Mapping[str, ModelEndpoint]) -> dict[str, str]:
    """Return the keys that endpoints name, by their environment variables; those that are not set are left out."""
    names = {endpoint.key_env for endpoint in endpoints.values() if endpoint.key_env}
    return {name: os.environ[name] for name in sorted(names) if os.environ.get(name)}


@contextmanager
def without(names: Iterable[str]) -> Iterator[None]:
    """Take variables out of the environment for a while."""
    taken = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(taken)


class KeyRedaction:
    """Leaves a key out of what is said: providers echo it."""

    def __init__(self, key: str) -> None:
        self._key = key if len(key) >= _SHORTEST else ""

    def hidden(self, text: str) -> str:
        """Return a text without the key."""
        return text.replace(self._key, _MARK) if self._key else text

    def in_pieces(self, said: Callable[[str], None]) -> PieceRedaction:
        """Return what takes a text piece by piece, and says it without the key."""
        return PieceRedaction(self._key, said)


class PieceRedaction:
    """Leaves a key out of a text that comes piece by piece: what may be a key's beginning is held until it is none."""

    def __init__(self, key: str, said: Callable[[str], None]) -> None:
        self._key = key
        self._said = said
        self._held = ""

    def __call__(self, piece: str) -> None:
        """Take the next piece."""
        text = self._held + piece
        if self._key:
            text = text.replace(self._key, _MARK)
        kept = next((n for n in range(min(len(self._key) - 1, len(text)), 0, -1) if self._key.startswith(text[-n:])), 0)
        self._held = text[len(text) - kept :]
        if text := text[: len(text) - kept]:
            self._said(text)

    def end(self) -> None:
        """Say what is left: it was the beginning of nothing."""
        if self._held:
            self._said(self._held)
            self._held = ""
