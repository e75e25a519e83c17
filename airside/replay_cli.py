"""`airside replay`: a run on record beside what another agent would have proposed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from airside.options import HERE, AppArgs, AsJson, RunOrPart, StateDir, brief
from airside.output import json_line
from airside.stack.errors import InvalidInput
from airside.stack.operations.quantities import money

if TYPE_CHECKING:
    from airside.actors.replay import ReplayReport
    from airside.stack.cycle.replay import ReplayedProposal, ReplayedStep


def replay(
    run_id: RunOrPart,
    agent: Annotated[str, typer.Option(help="the agent of the app that is asked instead")],
    app_name: Annotated[str, typer.Option("--app", help="MODULE, or MODULE:NAME; NAME is an App or makes one")],
    app_arg: AppArgs = None,
    instead_of: Annotated[str, typer.Option(help="only at the decisions of this agent of the run")] = "",
    max_cost: Annotated[float, typer.Option(help="USD that the questions to models may cost in all")] = 1.0,
    as_json: AsJson = False,
    state_dir: StateDir = HERE,
) -> None:
    """Ask another agent at each decision of a run what it would have proposed, given what that run's agent saw.

    Nothing is executed: no tool runs, nothing is granted, no budget counts it and nothing is written down. Models are
    really asked (but those of a cassette), with the keys of this environment. Of each call it says what the app's
    policy would decide about it now; `unknown` where its rules ask about resources.
    """
    from airside.actors.audit import open_audit
    from airside.actors.replay import replay_run
    from airside.cli import load_app

    if not math.isfinite(max_cost) or not 0 <= max_cost <= 1e6:
        raise InvalidInput(f"--max-cost {max_cost}: give USD, from 0 to a million")
    app = load_app(app_name, app_arg or []).checked()
    with open_audit(state_dir) as journal:
        report = replay_run(
            journal,
            run_id,
            app,
            agent,
            state_dir=state_dir,
            max_cost_microusd=int(max_cost * 1_000_000),
            instead_of=instead_of,
        )
    typer.echo(json_line(msgspec.to_builtins(report)) if as_json else "\n".join(report_lines(report)))


def report_lines(report: ReplayReport) -> list[str]:
    """Return a replay as lines."""
    lines = [f"{report.run_id}, with {report.agent}"]
    if report.recorded_version != report.version:
        lines.append(
            f"  recorded with the app's version {report.recorded_version}; tools and policy are of {report.version}"
        )
    for step in report.steps:
        lines += _step_lines(step)
    same = sum(step.same for step in report.steps)
    lines.append(
        f"  {len(report.steps)} decisions, {same} the same; {report.tokens} tokens, {money(report.cost_microusd)}"
    )
    return lines


def _step_lines(step: ReplayedStep) -> list[str]:
    cost = f", {money(step.cost_microusd)}" if step.cost_microusd else ""
    compared = "the same" if step.same else "no proposal" if step.proposed.error else "differs"
    lines = [f"  step {step.step}  {step.agent}: {compared}{cost}"]
    lines += [f"      recorded  {line}" for line in _proposal_lines(step.recorded)]
    lines += [f"      proposed  {line}" for line in _proposal_lines(step.proposed)]
    if step.forgotten:
        lines.append(f"      memory has no more as it was: {', '.join(step.forgotten)}")
    return lines


def _proposal_lines(proposal: ReplayedProposal) -> list[str]:
    if proposal.finish is not None:
        return [f"finish {brief(proposal.finish.answer, 200)}"]
    if proposal.handoff is not None:
        return [f"hand off to {brief(proposal.handoff.agent, 60)} {brief(proposal.handoff.message, 120)}"]
    if proposal.error:
        return [f"nothing: {brief(proposal.error, 300)}"]
    lines = []
    for call in proposal.calls:
        said = f"{call.outcome} by {call.rule}" if call.rule else call.outcome
        before = f"; then {call.on_record}" if call.on_record else ""
        lines.append(f"{brief(call.tool, 60)} {brief(call.arguments, 200)} -> {said}{before}")
    return lines
