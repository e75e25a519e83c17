"""A dry run: every row is read and checked as its submission would be, and nothing is submitted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from airside.actors.client.client import Stack
from airside.actors.client.known_principals import Known, check_known, known_of
from airside.actors.jobs import BadLine, Job, parse_rows
from airside.batches.problems import ProblemKind
from airside.batches.rows import Source
from airside.stack.errors import AirsideError
from airside.stack.policy.kill_switches import KillSwitchChanged

SHOWN = 100
"""Kinds of problems that are said; the rows of others are counted."""

_ROWS_AT_ONCE = 200


@dataclass(slots=True)
class CheckedRows:
    """What a dry run found: rows by what would become of them, and what is wrong with them."""

    rows: int = 0
    bad: int = 0
    warnings: tuple[str, ...] = ()
    by_problem: dict[str, ProblemKind] = field(default_factory=dict)
    """The first kinds of problems, by what is said of the rows."""

    tenants: Counter[str] = field(default_factory=Counter)
    routes: Counter[str] = field(default_factory=Counter)
    most_cost_microusd: int = 0
    """What the runs may cost at most, by the limits that they bring along and those of the directory."""

    unbounded: int = 0
    """Rows of whose cost nothing is known: they bring a token, and no limit."""

    denied: dict[str, list[str]] = field(default_factory=dict)
    """Tools of which the policy denies every call of these principals' runs, by `tenant/principal`."""

    @property
    def problems(self) -> list[str]:
        """What is wrong, a line each: of rows that are alike the first, and how many there are."""
        return [*self.warnings, *map(str, self.by_problem.values())]

    def figures(self) -> dict[str, Any]:
        """Return what was found as JSON."""
        return {
            "rows": self.rows,
            "would_be_refused": self.bad,
            "tenants": dict(self.tenants.most_common(20)),
            "routes": dict(self.routes.most_common(20)),
            "most_cost_microusd": self.most_cost_microusd,
            "rows_of_unknown_cost": self.unbounded,
            "denied_tools": dict(islice(self.denied.items(), SHOWN)),
        }

    def refuse(self, place: str, problem: str) -> None:
        """Count a row that would be refused."""
        self.bad += 1
        if problem in self.by_problem:
            self.by_problem[problem].count += 1
        elif len(self.by_problem) < SHOWN:
            self.by_problem[problem] = ProblemKind(f"{place}: {problem}")


def check_rows(stack: Stack, source: Source) -> CheckedRows:
    """Read every row: is it a job, is who asks listed and not switched off, is there such a route, what may it cost?

    And which tools can whoever asks never call: such a run is admitted, and may do without.

    What the stack knew at its start to be refused later (`Stack.warnings`) is among the problems, and is no row's.
    """
    found, rows, inputs = CheckedRows(warnings=tuple(stack.warnings)), iter(source.rows()), stack.job_inputs
    switches = stack.switches()
    routes = stack.described.get("routes")
    known: dict[tuple[str, str], str] = {}
    bounds: dict[tuple[str, str], Known | None] = {}
    while some := list(islice(rows, _ROWS_AT_ONCE)):
        readable = [row for row in some if not row.problem]
        found.rows += len(some)
        for row in some:
            if row.problem:
                found.refuse(row.place, row.problem)
        for row, job in zip(readable, parse_rows([(r.number, r.data) for r in readable], inputs), strict=True):
            problem = job.message if isinstance(job, BadLine) else _refusal(stack, job, routes, known, switches)
            if problem:
                found.refuse(row.place, problem)
            elif isinstance(job, Job):
                found.tenants[job.tenant or "(by token)"] += 1
                found.routes[job.route] += 1
                _foresee(found, stack, job, bounds)
    return found


def _foresee(found: CheckedRows, stack: Stack, job: Job, bounds: dict[tuple[str, str], Known | None]) -> None:
    """Count what a job may cost at most, and note which tools its principal's runs can never call."""
    who = job.tenant, job.principal
    if not job.token and who not in bounds:
        bounds[who] = known_of(stack.state_dir, *who)
        if (its := bounds[who]) is not None and its.denied:
            found.denied["/".join(who)] = list(its.denied)
    its = None if job.token else bounds[who]
    given = job.limits.get("max_cost_microusd")
    most = [amount for amount in (given, its.most_cost_microusd if its else None) if amount is not None]
    found.most_cost_microusd += min(most, default=0)
    found.unbounded += not most


def _refusal(
    stack: Stack,
    job: Job,
    routes: list[str] | None,
    known: dict[tuple[str, str], str],
    switches: Sequence[KillSwitchChanged],
) -> str:
    if routes is not None and job.route not in routes:
        return f"there is no route {job.route!r:.80}; there are {', '.join(routes)}"
    if job.token:
        return ""
    who = job.tenant, job.principal
    places = {("all", ""), ("tenant", job.tenant), ("principal", f"{job.tenant}/{job.principal}")}
    thrown = next((switch for switch in switches if (switch.scope, switch.target) in places), None)
    if thrown is not None:
        return str(thrown)
    if who not in known:
        try:
            check_known(stack.state_dir, job.tenant, job.principal, roles=(), scopes=())
            known[who] = ""
        except AirsideError as error:
            known[who] = error.message
    return known[who]
