"""Running the demo's batch: asks for the approvals, shows how every run ended, and what to try next."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

import airside
from airside.actors.client.client import RunHandle, Stack
from airside.actors.client.results import PendingApproval, RunResult
from airside.demo.app import REQUEST, demo_app, demo_jobs
from airside.demo.mail import Mailbox
from airside.options import starting

EXPECTED = {
    "sent": "completed",
    "rejected": "approval_rejected",
    "denied": "policy_denied",
    "too-expensive": "max_cost",
    "looping": "loop_detected",
    "spinning": "killed_runaway",
    "neighbour": "completed",
}
"""How each job ends when the approvals are given (globex's lead rejects by script)."""

Decide = Callable[[PendingApproval], bool]


def run_demo(state_dir: Path, *, yes: bool) -> int:
    """Run the demo; return 0 if every run ended as it should."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    if not yes and not sys.stdin.isatty():
        console.print("There is no terminal to ask for approvals: run `airside demo --yes` to give them all.")
        return 2
    console.print(f"[bold]{len(demo_jobs())} requests of 5 tenants:[/] {REQUEST}\n")
    with Mailbox() as mailbox:
        app = demo_app(state_dir, mailbox.port)
        with starting():
            stack = airside.start(app, state_dir=state_dir, executors=1)
        with stack:
            handles = [stack.submit(airside.Job(**job)) for job in demo_jobs()]
            attend(stack, handles, lambda approval: yes or ask(console, approval), console)
            results = stack.results(handles)
            show(console, results, mailbox)
            whole = not stack.verify()
        # Who sits at the terminal may well reject; with --yes every ending is known.
        ended = {result.job_id: result.reason_code.value for result in results}
        sent = sum(result.ok for result in results)
        right = (ended == EXPECTED if yes else True) and len(mailbox.messages) == sent and whole
    next_steps(console, state_dir, next(r for r in results if r.job_id == "sent"))
    return 0 if right else 1


def attend(stack: Stack, handles: list[RunHandle], decide: Decide, console: Console) -> None:
    """Answer the approvals until every run has ended."""
    ids = [handle.run_id for handle in handles]
    while len(stack.ended(ids)) < len(ids):
        for approval in stack.approvals():
            if approval.tenant == "globex":
                console.print("globex's lead rejects: 'we do not offer this before the audit'")
                stack.reject(approval.approval_id, principal="lea", note="we do not offer this before the audit")
            elif decide(approval):
                stack.approve(approval.approval_id, principal="lea")
                console.print(f"{approval.tenant}'s lead approves {approval.tool} to {approval.arguments['to']}")
            else:
                stack.reject(approval.approval_id, principal="lea", note="rejected at the terminal")
        time.sleep(0.1)


def ask(console: Console, approval: PendingApproval) -> bool:
    """Show a call and ask the person at the terminal."""
    console.rule(f"{approval.tenant}: {approval.tool} needs one of {list(approval.roles)}")
    console.print(f"asked by {approval.requester}, rule {approval.rule}")
    for name, value in approval.arguments.items():
        console.print(f"  [bold]{name}[/]: {value}", highlight=False)
    for line in approval.lines()[2:]:
        console.print(line, highlight=False, markup=False)
    return console.input("approve? \\[y/N] ").strip().lower() in ("y", "yes")


def show(console: Console, results: list[RunResult], mailbox: Mailbox) -> None:
    """Print how every run ended, and what mail arrived."""
    table = Table(title="How they ended")
    for name in ("job", "run", "status", "reason code", "steps", "cost (USD)", "why"):
        table.add_column(name, overflow="fold")
    for r in results:
        cost = f"{r.cost_microusd / 1e6:.4f}"
        table.add_row(r.job_id, r.run_id, str(r.status), str(r.reason_code), str(r.steps), cost, r.detail)
    console.print(table)
    console.print(f"Mail that arrived ({len(mailbox.messages)}):")
    for message in mailbox.messages:
        console.print(f"  from {message['From']} to {message['To']}: {message['Subject']}", highlight=False)


def next_steps(console: Console, state_dir: Path, sent: RunResult) -> None:
    """Say where the journal lies and what to try next."""
    option = f"--state-dir {state_dir}"
    console.print(f"\nThe journal: {state_dir / 'journal.sqlite'}\nTry next:")
    for command in (
        f"airside audit story {sent.run_id} {option}",
        f"airside audit verify {option}",
        f"airside audit query 'select run_id, status, reason_code, steps from outcomes' {option}",  # noqa: S608
    ):
        console.print(f"  .venv/bin/{command}", highlight=False, soft_wrap=True)
