"""Named SQL: the statements of a `.sql` file, each below a line `-- name: ...` and a comment of what it is for."""

from __future__ import annotations

import re
from importlib.resources import files

_NAMED = re.compile(r"^-- name: (\w+)\n((?:(?!^-- name: ).*\n?)*)", re.MULTILINE)


def load_sql(name: str, package: str = "airside.actors.journal") -> dict[str, str]:
    """Return the statements of a package's file, by name."""
    return dict(_NAMED.findall((files(package) / name).read_text(encoding="utf-8")))
