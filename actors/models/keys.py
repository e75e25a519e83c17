"""The keys of models' providers: read where a stack is started, and given to the model caller alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
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
