"""What tracing one call costs: a mail of so many characters, in a run that has read so many pages.

    python -m benchmarks.provenance [--pages 20] [--characters 500]

The last line is JSON: microseconds the runtime takes for a call (`trace`, and `first`, with nothing read before), the
gate for adding what is left out (`complete`), and either for a tool that no rule asks about (`untraced`).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

from msgspec import Raw

from airside.stack.ids import PrincipalId, RunId, TenantId
from airside.stack.provenance.tracer import Tracer, complete
from airside.stack.run import events as ev
from airside.stack.run.state import RunState, StepRecord
from airside.stack.values import Identity, Limits, Request, ToolResult
from airside.tools.tool import tool
from benchmarks.measure import last_line

WORDS = "The offsite moves to Thursday at 9:30, in the large hall, and 12 people have said that they will come. "


@tool(effect="external", content=("subject", "body"))
def send_mail(to: list[str], subject: str, body: str) -> None:
    """Send a mail."""


def microseconds(work: Callable[[], object], times: int = 500) -> float:
    """Return how long one call of `work` takes, the median of five rounds."""
    rounds = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(times):
            work()
        rounds.append((time.perf_counter() - began) / times * 1e6)
    return round(sorted(rounds)[2], 1)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=20)
    parser.add_argument("--characters", type=int, default=500)
    options = parser.parse_args()
    submitted = ev.RunSubmitted(
        at_us=0,
        run_id=RunId("run_" + "0" * 24),
        identity=Identity(principal=PrincipalId("ana"), tenant=TenantId("acme")),
        sealed="",
        request=Request(text=f"{WORDS}Write to bob@corp.example."),
        limits=Limits(),
        app_version="1",
    )
    page = ToolResult(ok=True, output=Raw(json.dumps(WORDS * 20).encode()))
    history = [StepRecord(step=n, agent="a", tool="read", arguments={}, result=page) for n in range(options.pages)]
    state = RunState(submitted=submitted, history=history)
    body = (WORDS * (options.characters // len(WORDS) + 1))[: options.characters]
    arguments = {"to": ["bob@corp.example", "eve@evil.example"], "subject": "Offsite", "body": body}
    spec, traced = send_mail.spec, frozenset({"other"})
    tracer = Tracer(submitted, [spec])
    told = tracer.trace("send_mail", arguments, state)
    last_line(
        {
            "trace_us": microseconds(lambda: tracer.trace("send_mail", arguments, state)),
            "first_us": microseconds(lambda: Tracer(submitted, [spec]).trace("send_mail", arguments, state), 100),
            "complete_us": microseconds(lambda: complete(spec, arguments, arguments, told)),
            "untraced_us": microseconds(lambda: "send_mail" in traced),
        }
    )


if __name__ == "__main__":
    main()
