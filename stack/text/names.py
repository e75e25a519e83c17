"""Patterns of names: `*` for any characters, `?` for one, as rules use them for tools, tenants and principals."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence


def matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Return whether a name fits one of the patterns; case counts."""
    match = re.compile("|".join(fnmatch.translate(p) for p in patterns)).match
    return lambda name: match(name) is not None
