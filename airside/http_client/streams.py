"""A run's server-sent events, read line by line, and where to go on when a connection breaks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from airside.actors.api.messages import Problem
from airside.http_client.errors import error_of

MOST_RETRIES = 20
"""Connections of one stream that break one after the other without an event."""

RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class RunNews:
    """One thing that happened in a run: an `event` of its record, by its number, or `text` of a model, without one."""

    kind: str
    data: dict[str, Any]
    number: int = 0


class EventLines:
    """Takes a stream's lines, over several connections; `seen` is the number of the last event, `is_over` its end."""

    def __init__(self) -> None:
        self.seen = 0
        self.is_over = False
        self._fields: dict[str, str] = {}

    def begin(self) -> None:
        """Begin another connection: what was cut off counts no more."""
        self._fields = {}

    def take(self, line: str) -> RunNews | None:
        """Take a line; return what is whole with it.  Raises what a `problem` says."""
        if line:
            name, _, value = line.partition(":")
            if name:
                self._fields[name] = value.removeprefix(" ")
            return None
        fields, self._fields = self._fields, {}
        if "data" not in fields:
            return None
        kind, data = fields.get("event", "message"), fields["data"]
        if kind == "problem":
            problem = msgspec.json.decode(data, type=Problem)
            raise error_of(problem.status, data.encode(), {})
        found: dict[str, Any] = msgspec.json.decode(data)
        if kind != "event":
            return RunNews(kind, found)
        self.seen = int(fields["id"])
        self.is_over = found.get("type") == "RunEnded"
        return RunNews(kind, found, self.seen)
