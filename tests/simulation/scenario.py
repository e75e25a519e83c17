"""Whole runs as text: commands, a line `---`, and what must come of them.

    submit ROUTE tool(n) tool(n)+tool(n) ... [limit=value ...]      what a plus joins is proposed together
    tick SECONDS | stabilise
    approve WHO | reject WHO | edit WHO N | answer WHO N         decide about the oldest call that waits
    kill | cancel | settle yes | settle no       the latest run
    crash KIND | crash KIND at POINT             now, or when the next point that begins so is passed
    kill at POINT

A point is `tool NAME` (its effect has just happened), `journal STREAM` or `answer`.  Nothing is left to chance here:
every message takes a millisecond and nothing fails by itself.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any, get_args

from msgspec import Raw

from airside.stack.approvals.book import ApprovalRequested, Verdict
from airside.stack.ids import PrincipalId, RunId, TenantId, mint_run
from airside.stack.run import events as ev
from airside.stack.run.events import decode_event
from airside.stack.run.story import story_lines
from airside.stack.security.identity import run_subject, seal_identity
from airside.stack.values import Identity, Limits, Request
from tests.simulation.checks import check_all
from tests.simulation.people import SEAL, People
from tests.simulation.plan import Plan, asking
from tests.simulation.runtime import SimCycle
from tests.simulation.world import LONGEST_S, World

ACME = TenantId("acme")
_CALL = re.compile(r"(\w+)\((-?\d+)\)")


def _proposed(word: str) -> dict[str, Any] | list[dict[str, Any]]:
    calls = [match.groups() for match in map(_CALL.fullmatch, word.split("+")) if match]
    found = [{"tool": tool, "args": asking(int(n)) if tool == "ask" else {"n": int(n)}} for tool, n in calls]
    return found if len(found) > 1 else found[0]


class Silent(People):
    """Nobody does anything unless the scenario says so; only time passes."""

    def asked(self, request: ApprovalRequested) -> None:
        """Let the request expire in its time."""
        wait_s = (request.expires_us - self._world.now_us()) / 1e6 + 0.01
        self._world.later(wait_s, lambda: self._world.start(self._world.approvals.expire()))

    def doubt(self, cycle: SimCycle) -> None:
        """Nobody looks."""


class Scenario(World):
    """A world that does as it is told."""

    def __init__(self) -> None:
        super().__init__(0, Plan(tenants=(ACME,), runs=()))
        self.people = Silent(self)
        self.runs: list[RunId] = []
        self._traps: list[tuple[str, Callable[[str], None]]] = []

    async def pause(self) -> None:
        """Take a millisecond."""
        await asyncio.sleep(0.001)

    def point(self, what: str) -> None:
        """Spring the trap that waits for this point."""
        self.points += 1
        for trap in self._traps:
            if what.startswith(trap[0]):
                self._traps.remove(trap)
                trap[1](f"at {what}")
                return

    def play(self, text: str) -> str:
        """Carry the commands out and return the trace."""
        try:
            for line in text.splitlines():
                words = line.partition("#")[0].split()
                if words:
                    self._command(words[0], words[1:])
        finally:
            self.close()
        check_all(self)
        return self._traced()

    def _command(self, verb: str, words: list[str]) -> None:
        if verb == "submit":
            self._submit(words)
        elif verb == "tick":
            self._tick(float(words[0]))
        elif verb == "stabilise":
            self._stabilise()
        elif verb in ("crash", "kill") and "at" in words:
            where = words.index("at")
            act = self._action(verb, words[:where])
            self._traps.append((" ".join(words[where + 1 :]), act))
        elif verb in ("crash", "kill", "cancel"):
            self._action(verb, words)("now")
        elif verb == "settle":
            self._resolve(happened=words[0] == "yes")
        else:
            self._vote(verb, words)

    def _action(self, verb: str, words: list[str]) -> Callable[[str], None]:
        if verb == "crash":
            return lambda where: self.crash(words[0], where)

        def stop(where: str) -> None:
            self.note(f"{verb} asked for {where}")
            self.start(self.driver.stop(self.runs[-1], kill=verb == "kill"))

        return stop

    def _submit(self, words: list[str]) -> None:
        actions = [_proposed(word) for word in words if _CALL.match(word)]
        limits = {name: int(value) for word in words if "=" in word for name, _, value in [word.partition("=")]}
        who = Identity(principal=PrincipalId("ann"), tenant=ACME, roles=("clerk",), scopes=("work",))
        inputs = json.dumps(dict.fromkeys("abc", actions))
        run_id = mint_run(self.rng.randbytes)
        self.runs.append(run_id)
        self.driver.submit(
            ev.RunSubmitted(
                run_id=run_id,
                identity=who,
                sealed=seal_identity(SEAL, who, run_subject(run_id)),
                request=Request(text="do it", inputs=Raw(inputs.encode()), route=words[0]),
                limits=Limits(**limits),
                app_version="app-1",
                at_us=self.now_us(),
            )
        )

    def _vote(self, verb: str, words: list[str]) -> None:
        roles = () if words[0] == "nobody" else ("approver",)
        who = Identity(principal=PrincipalId(words[0]), tenant=ACME, roles=roles)
        waiting = self.approvals.local.book.pending(ACME)
        if verb not in get_args(Verdict) or not waiting:
            raise ValueError(f"{verb} {words}: unknown, or nothing waits")
        said = {"n": int(words[1])} if verb == "edit" else words[1] if verb == "answer" else None
        arguments = None if said is None else Raw(json.dumps(said).encode())
        self.start(self.approvals.vote(who, waiting[0].request.approval_id, verb, arguments))  # type: ignore[arg-type]
        self._tick(0.1)

    def _resolve(self, *, happened: bool) -> None:
        run_id = self.runs[-1]
        cycle = self.driver.cycle(run_id)
        assert cycle is not None
        step = cycle.machine.state.step
        self.driver.deliver(
            run_id, ev.InDoubtResolved(step=step, by=PrincipalId("bob"), happened=happened, at_us=self.now_us())
        )
        self._tick(0.1)

    def _tick(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def _stabilise(self) -> None:
        while self.loop.time() < LONGEST_S and not all(map(self.journal.ended, self.driver.submitted)):
            self._tick(1.0)

    def _traced(self) -> str:
        text = "\n".join(self.log)
        for run_id in self.driver.submitted:
            events = [decode_event(body) for body in self.journal.local.bodies_of(run_id)]
            text += f"\n\n{story_lines(events)}"
        text += f"\n\neffects {dict(sorted(self.ledger.counts.items()))}, violations {len(self.violations)}"
        for number, run_id in enumerate(self.runs, 1):
            text = text.replace(run_id, f"run{number}")
        return re.sub(r"(_)[0-9a-f]{12}\b", r"\1...", text).strip() + "\n"
