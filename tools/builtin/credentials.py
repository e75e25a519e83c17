"""Secrets that tools send for an agent: the tenant's, or one for all, read where the tool runs, at each call."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from airside.stack.errors import InvalidConfig
from airside.tools.secrets.redaction import MAX_LENGTH, MIN_LENGTH
from airside.tools.tool import ToolContext, ToolError


@dataclass(frozen=True, slots=True)
class Credential:
    """Where a secret is: under a name of the tenant's secrets, in an environment variable, or in a file."""

    name: str = ""
    variable: str = ""
    file: str = ""

    def checked(self, what: str) -> Credential:
        """Return it; raise `InvalidConfig` if it says more than one place."""
        if sum(map(bool, (self.name, self.variable, self.file))) > 1:
            raise InvalidConfig(f"{what}: of the tenant's secret, the variable and the file, only one is given")
        return self

    def __bool__(self) -> bool:
        return bool(self.name or self.variable or self.file)

    @property
    def names(self) -> tuple[str, ...]:
        """What a tool that sends it declares of the tenant's secrets."""
        return (self.name,) if self.name else ()

    def read(self, context: ToolContext) -> str:
        """Return the secret; raise `ToolError` where there is none that can be sent."""
        if self.name:
            where, found = f"the tenant's secret {self.name}", context.secrets[self.name]
        elif self.variable:
            where, found = f"the environment variable {self.variable}", os.environ.get(self.variable, "")
        else:
            where, found = f"the file {self.file}", _text_of(self.file)
        if not found:
            raise ToolError(f"no credential: {where} is not there, where tools run")
        if not (found.isascii() and found.isprintable() and MIN_LENGTH <= len(found) <= MAX_LENGTH):
            raise ToolError(f"no credential: {where} has none of {MIN_LENGTH} printable ASCII characters or more")
        return found


def _text_of(file: str) -> str:
    try:
        return Path(file).read_text("utf-8")[: MAX_LENGTH + 1].strip()
    except (OSError, UnicodeError):
        return ""
