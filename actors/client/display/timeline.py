"""A run's time by phase, from its events: which phase it was in between each event and the next.

Phases are the machine's own, of which a reader needs fewer.  A wait (for its turn, for people) may be a thousand times
what the rest took: it is drawn no longer than all the work together, and the note says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from airside.actors.client.display.drawing import Piece, Timeline, TimelineLane, brief
from airside.stack.errors import AirsideError
from airside.stack.operations.quantities import span
from airside.stack.run import events as ev
from airside.stack.run.machine import RunMachine
from airside.stack.run.state import OVER, Phase

_LANES: dict[Phase, str] = {
    Phase.QUEUED: "queue",
    Phase.PLANNING: "plan",
    Phase.RECALLING: "recall",
    Phase.ASKING: "reserve",
    Phase.RESERVING: "reserve",
    Phase.DECIDING: "decide",
    Phase.GATING: "gate",
    Phase.AWAITING_APPROVAL: "wait for people",
    Phase.INTENDING: "execute",
    Phase.READING: "execute",
    Phase.EXECUTING: "execute",
    Phase.RESUMING: "execute",
    Phase.AWAITING_CHILDREN: "branches",
    Phase.IN_DOUBT: "in doubt",
    Phase.CONCLUDING: "conclude",
}
PHASES = tuple(dict.fromkeys(_LANES.values()))
WAITS = frozenset({"queue", "wait for people", "branches", "in doubt"})

_FINE = 1 / 400
"""The shortest piece that is told from its neighbour: more than that has no pixel of its own."""


class PhaseSpan(NamedTuple):
    """A time in which a run was in one phase, and at what."""

    phase: str
    since_us: int
    until_us: int
    label: str

    @property
    def length_us(self) -> int:
        """How long it was."""
        return self.until_us - self.since_us


def phases_of(events: Sequence[ev.Event], *, now_us: int = 0) -> list[PhaseSpan]:
    """Return a run's phases in order; of one that has not ended the last goes on until `now_us`.

    They end where the events are none that this version's machine takes.
    """
    return list(_merged(_phases(events, now_us)))


def _phases(events: Sequence[ev.Event], now_us: int) -> Iterator[PhaseSpan]:
    first = events[0]
    if not isinstance(first, ev.RunSubmitted):
        return
    machine = RunMachine(first)
    phase, tool, step = "queue", "", 0
    for place, event in enumerate(events):
        if place:
            try:
                machine.handle(event)
            except AirsideError:
                return
        step = getattr(event, "step", step)
        tool = event.tool if isinstance(event, ev.ActionGated) else tool
        if machine.state.phase in OVER:
            return
        if machine.state.phase is not Phase.SUSPENDED:  # its process was let go; it waits for what it waited for
            phase = _LANES.get(machine.state.phase, str(machine.state.phase))
        later = events[place + 1].at_us if place + 1 < len(events) else now_us
        what = tool if phase in ("execute", "gate", "wait for people", "in doubt") else ""
        label = " ".join(filter(None, (f"step {step}" if step else "", phase, what)))
        yield PhaseSpan(phase, event.at_us, max(event.at_us, later), label)


def _merged(spans: Iterator[PhaseSpan]) -> Iterator[PhaseSpan]:
    """Yield spans with those of one phase and label, one after the other, as one."""
    held: PhaseSpan | None = None
    for each in spans:
        if held is not None and (held.phase, held.label) == (each.phase, each.label):
            held = held._replace(until_us=each.until_us)
            continue
        if held is not None:
            yield held
        held = each
    if held is not None:
        yield held


def timeline_of(events: Sequence[ev.Event], *, now_us: int = 0) -> Timeline | None:
    """Return a run's timeline; None if nothing of it took any time."""
    spans = phases_of(events, now_us=now_us) if events else []
    total_us = sum(each.length_us for each in spans)
    if not total_us:
        return None
    work_us = sum(each.length_us for each in spans if each.phase not in WAITS)
    placed = list(_placed(spans, work_us or total_us))
    is_shortened = any(piece.is_shortened for _, piece in placed)
    lanes = []
    for phase in PHASES:
        own = [each for each in spans if each.phase == phase]
        if own:
            pieces = _thinned([piece for name, piece in placed if name == phase])
            lanes.append(TimelineLane(phase, pieces, len(own), span(sum(each.length_us for each in own))))
    note = "Long waits are drawn shorter than they were." if is_shortened else ""
    return Timeline(tuple(lanes), span(total_us), note)


def _placed(spans: Sequence[PhaseSpan], longest_us: int) -> Iterator[tuple[str, Piece]]:
    """Yield each span's phase and place in [0, 1]."""
    lengths = [min(each.length_us, longest_us) if each.phase in WAITS else each.length_us for each in spans]
    whole, at = sum(lengths) or 1, 0
    for each, length in zip(spans, lengths, strict=True):
        label = f"{brief(each.label, 80)}: {span(each.length_us)}"
        yield each.phase, Piece(at / whole, (at + length) / whole, label, length < each.length_us)
        at += length


def _thinned(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """Return pieces with those that no eye can tell apart as one."""
    found: list[Piece] = []
    for each in pieces:
        if found and each.end - found[-1].start < _FINE:
            found[-1] = Piece(found[-1].start, each.end, found[-1].label, found[-1].is_shortened)
        else:
            found.append(each)
    return tuple(found)
