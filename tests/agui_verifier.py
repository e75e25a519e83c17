"""The rules that AG-UI clients hold a stream to, as those of its 1.0 verify it; and that every call has one result."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class BrokenStream(AssertionError):
    """A client would end the stream here."""


class Verifier:
    """Takes messages in order, as JSON gives them."""

    def __init__(self) -> None:
        self.begun = self.over = False
        self.open: dict[str, set[str]] = {"text": set(), "call": set(), "step": set(), "subagent": set()}
        self.past: dict[str, set[str]] = {kind: set() for kind in self.open}
        self.results: list[str] = []

    def take(self, message: dict[str, Any]) -> None:
        """Raise `BrokenStream` for a message that may not come now."""
        kind = message["type"]
        self._must(not self.over, kind)
        self._must(self.begun or kind in ("RUN_STARTED", "RUN_ERROR"), kind)
        self._must(not (self.begun and kind == "RUN_STARTED"), kind)
        self._must(None not in message.values(), f"{kind} has a null")
        match kind:
            case "RUN_STARTED":
                self.begun = True
            case "RUN_FINISHED" | "RUN_ERROR":
                self.over = True
                goes_on = message.get("metadata", {}).get("airside", {}).get("run_goes_on")
                self._must(goes_on or not any(self.open.values()), f"{kind} with {self.open} open")
                self._must(goes_on or sorted(self.past["call"]) == sorted(self.results), "a call without its result")
            case "TEXT_MESSAGE_START":
                self._begin("text", message["messageId"])
            case "TEXT_MESSAGE_CONTENT":
                self._must(message["messageId"] in self.open["text"], kind)
            case "TEXT_MESSAGE_END":
                self._end("text", message["messageId"])
            case "TOOL_CALL_START":
                self._begin("call", message["toolCallId"])
            case "TOOL_CALL_ARGS":
                self._must(message["toolCallId"] in self.open["call"], kind)
            case "TOOL_CALL_END":
                self._end("call", message["toolCallId"])
            case "TOOL_CALL_RESULT":
                self._must(message["toolCallId"] in self.past["call"] - set(self.results), kind)
                self.results.append(message["toolCallId"])
            case "STEP_STARTED":
                self._begin("step", message["stepName"], again=True)
            case "STEP_FINISHED":
                self._end("step", message["stepName"])
            case "SUBAGENT_STARTED":
                self._begin("subagent", message["subagentRunId"])
            case "SUBAGENT_FINISHED" | "SUBAGENT_ERROR":
                self._end("subagent", message["subagentRunId"])
            case _:
                self._must(kind in ("CUSTOM", "STATE_SNAPSHOT"), kind)

    def _begin(self, kind: str, name: str, *, again: bool = False) -> None:
        self._must(
            name not in self.open[kind] and (again or name not in self.past[kind]), f"{kind} {name} begins twice"
        )
        self.open[kind].add(name)

    def _end(self, kind: str, name: str) -> None:
        self._must(name in self.open[kind], f"{kind} {name} ends and has not begun")
        self.open[kind].discard(name)
        self.past[kind].add(name)

    @staticmethod
    def _must(holds: object, what: str) -> None:
        if not holds:
            raise BrokenStream(what)


def verify(messages: Iterable[dict[str, Any]]) -> Verifier:
    """Return what a stream has come to; raise `BrokenStream` for one that no client takes."""
    verifier = Verifier()
    for message in messages:
        verifier.take(message)
    return verifier
