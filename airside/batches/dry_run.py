"""A dry run: every row is read and checked as its submission would be, and nothing is submitted.

It needs no stack, but what one would know (`Premises`): an app has that too.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from airside.actors.audit import journal_file
from airside.actors.client.known_principals import Known, People, check_listed, known_of, people_in, read_people
from airside.actors.job_inputs import JobInputs, inputs_of
from airside.actors.jobs import BadLine, Job, parse_rows
from airside.actors.rpc.layer import now_us
from airside.batches.problems import ProblemKind
from airside.batches.rows import Source
from airside.stack.errors import AirsideError, Misuse
from airside.stack.policy.kill_switches import STREAM, KillSwitchChanged, KillSwitches

if TYPE_CHECKING:
    from airside.actors.app import ValidatedApp
    from airside.actors.client.client import Stack

SHOWN = 100
"""Kinds of problems that are said; the rows of others are counted."""

_ROWS_AT_ONCE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Premises:
    """What rows are checked by; None is what is not known."""

    people: People | None
    routes: Sequence[str] | None
    priced: Sequence[str] | None
    """The agents and tools that cost anything; where there are none, no run does."""

    job_inputs: JobInputs | None
    switches: Sequence[KillSwitchChanged]
    """What is switched off now."""

    warnings: tuple[str, ...]
    """What is known to be refused later, and is no row's."""

    @classmethod
    def of_stack(cls, stack: Stack) -> Self:
        """Return what a stack that runs knows."""
        described = stack.described
        return cls(
            people=read_people(stack.state_dir),
            routes=described.get("routes"),
            priced=described.get("priced"),
            job_inputs=stack.job_inputs,
            switches=stack.switches(),
            warnings=tuple(stack.warnings),
        )

    @classmethod
    def of_app(cls, app: ValidatedApp, state_dir: Path) -> Self:
        """Return what a stack of an app would know that was started on a directory, where none runs."""
        described = app.described()
        return cls(
            people=people_in(app.directory, app.denied),
            routes=described["routes"],
            priced=described["priced"],
            job_inputs=inputs_of(app.app.job_inputs) if app.app.job_inputs is not None else None,
            switches=_switched_off(state_dir),
            warnings=app.warnings,
        )


def _switched_off(state_dir: Path) -> list[KillSwitchChanged]:
    """Return what the journal of a directory has switched off, which may not be there yet."""
    try:
        opened = journal_file(state_dir)
    except Misuse:
        return []
    with contextlib.closing(opened) as journal:
        return KillSwitches(journal.bodies([STREAM]).get(STREAM, ())).off(now_us())


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
    """What the runs may cost at most, by the limits that they bring along and those of the directory.

    Nothing where nothing is `priced`, whatever the limits are.
    """

    priced: tuple[str, ...] | None = None
    """The agents and tools that cost anything, by what they name; None if that is not known."""

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
            "priced": None if self.priced is None else list(self.priced[:SHOWN]),
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


def check_rows(premises: Premises, source: Source) -> CheckedRows:
    """Read every row: is it a job, is who asks listed and not switched off, is there such a route, what may it cost?

    And which tools can whoever asks never call: such a run is admitted, and may do without.

    What is known to be refused later (`Premises.warnings`) is among the problems, and is no row's.
    """
    rows, priced = iter(source.rows()), premises.priced
    found = CheckedRows(warnings=premises.warnings, priced=None if priced is None else tuple(priced))
    known: dict[tuple[str, str], str] = {}
    bounds: dict[tuple[str, str], Known | None] = {}
    while some := list(islice(rows, _ROWS_AT_ONCE)):
        readable = [row for row in some if not row.problem]
        found.rows += len(some)
        for row in some:
            if row.problem:
                found.refuse(row.place, row.problem)
        jobs = parse_rows([(r.number, r.data) for r in readable], premises.job_inputs)
        for row, job in zip(readable, jobs, strict=True):
            problem = job.message if isinstance(job, BadLine) else _refusal(premises, job, known)
            if problem:
                found.refuse(row.place, problem)
            elif isinstance(job, Job):
                found.tenants[job.tenant or "(by token)"] += 1
                found.routes[job.route] += 1
                _foresee(found, premises, job, bounds)
    return found


def _foresee(found: CheckedRows, premises: Premises, job: Job, bounds: dict[tuple[str, str], Known | None]) -> None:
    """Count what a job may cost at most, and note which tools its principal's runs can never call."""
    who = job.tenant, job.principal
    if not job.token and who not in bounds:
        bounds[who] = known_of(premises.people, *who)
        if (its := bounds[who]) is not None and its.denied:
            found.denied["/".join(who)] = list(its.denied)
    if found.priced == ():
        return
    its = None if job.token else bounds[who]
    given = job.limits.get("max_cost_microusd")
    most = [amount for amount in (given, its.most_cost_microusd if its else None) if amount is not None]
    found.most_cost_microusd += min(most, default=0)
    found.unbounded += not most


def _refusal(premises: Premises, job: Job, known: dict[tuple[str, str], str]) -> str:
    routes = premises.routes
    if routes is not None and job.route not in routes:
        return f"there is no route {job.route!r:.80}; there are {', '.join(routes)}"
    if job.token:
        return ""
    who = job.tenant, job.principal
    places = {("all", ""), ("tenant", job.tenant), ("principal", f"{job.tenant}/{job.principal}")}
    thrown = next((switch for switch in premises.switches if (switch.scope, switch.target) in places), None)
    if thrown is not None:
        return str(thrown)
    if who not in known:
        try:
            check_listed(premises.people, job.tenant, job.principal)
            known[who] = ""
        except AirsideError as error:
            known[who] = error.message
    return known[who]
