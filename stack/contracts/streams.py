"""What a run's answers say while they are being given, for who watches: hints, of which none is on record.

The recorded answer is what counts.  What was shown may be lost with its process, or be void because the attempt came to
nothing: then a part says so.
"""

from __future__ import annotations

from typing import Literal

from airside.stack.ids import RunId
from airside.stack.values import Count, Value

PartKind = Literal["begun", "text", "restarted", "failed", "answered"]


class StreamPart(Value, array_like=True):
    """One thing that happened to an answer of a run, or of a branch of it, at a step.

    `begun`: `model` answers; `text`: more of the answer; `restarted`: what was shown of it counts no more, and `text`
    says why; `failed`: no model answers; `answered`: it is whole, and on record.  `number` counts the parts of a watch.
    """

    number: Count
    kind: PartKind
    run_id: RunId
    step: Count
    text: str = ""
    model: str = ""


class WatchRequest(Value, array_like=True):
    """The parts wanted that follow the one of number `after`, and for how many seconds the first may be waited for.

    `born` is what the page before said, "" at first.  With a `credential`, which ingress looks at, and `with_events`,
    the page has the run's events after its first `events` too.
    """

    run_id: RunId
    after: Count
    born: str
    timeout_s: float
    credential: str = ""
    events: Count = 0
    with_events: bool = True


class WatchPage(Value, array_like=True):
    """Parts in order, and the number of the last one; or a problem, with its code.

    `is_torn` = parts between are gone: the watcher was slow, or the process that had them was another one (`born`).
    `events` are the run's, as JSON.
    """

    parts: tuple[StreamPart, ...] = ()
    upto: Count = 0
    born: str = ""
    is_torn: bool = False
    events: tuple[str, ...] = ()
    code: str = ""
    problem: str = ""
