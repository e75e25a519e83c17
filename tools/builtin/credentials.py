"""Secrets that tools send for an agent: read where the tool runs, at each call, and taken out of what comes back."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from airside.tools.tool import ToolError

_MIN_LENGTH = 8
"""A shorter one would be found in texts that have nothing to do with it."""

_MAX_LENGTH = 16_384
_REDACTED = "[redacted]"


def read_secret(variable: str, file: str) -> str:
    """Return a secret of the environment, or of a file; raise `ToolError` where there is none that can be sent."""
    where = f"the environment variable {variable}" if variable else f"the file {file}"
    try:
        found = os.environ.get(variable, "") if variable else Path(file).read_text("utf-8")[: _MAX_LENGTH + 1].strip()
    except (OSError, UnicodeError):
        found = ""
    if not found:
        raise ToolError(f"no credential: {where} is not there, where tools run")
    if not (found.isascii() and found.isprintable() and _MIN_LENGTH <= len(found) <= _MAX_LENGTH):
        raise ToolError(f"no credential: {where} has none of {_MIN_LENGTH} printable ASCII characters or more")
    return found


class Redactor:
    """Replaces secrets, as they are and as they are commonly written, in what is returned or raised."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets for form in _forms(secret)}
        self._forms = sorted(forms, key=len, reverse=True)

    @property
    def longest(self) -> int:
        """The length of the longest form: of a text that was cut, so much of its end may be a part of a secret."""
        return len(self._forms[0]) if self._forms else 0

    def text(self, text: str) -> str:
        """Return a text without the secrets."""
        for form in self._forms:
            text = text.replace(form, _REDACTED)
        return text

    def data(self, data: bytes) -> bytes:
        """Return bytes without the secrets."""
        for form in self._forms:
            data = data.replace(form.encode(), _REDACTED.encode())
        return data


def _forms(secret: str) -> set[str]:
    encoded = base64.b64encode(secret.encode()).decode()
    escaped = secret.replace("\\", "\\\\").replace('"', '\\"')
    return {secret, quote(secret), quote(secret, safe=""), encoded, encoded.rstrip("="), escaped}
