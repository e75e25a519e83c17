"""Orders in one table: what may be done to runs, tenants, switches, calls in doubt and batches, and how it is sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from airside.actors.api.messages import Listing
from airside.actors.client.display.drawing import Fact, facts
from airside.actors.console.visits import Visit
from airside.actors.journal.batches import BatchSummary
from airside.stack.canonical import parse_bounded
from airside.stack.errors import InvalidInput
from airside.stack.ids import parse_run
from airside.stack.operations.batches import MOST_CONCURRENCY, MOST_REQUEUED, BatchAction, BatchChange, BatchSettings
from airside.stack.operations.overview import RunDetail
from airside.stack.operations.quantities import clock, money
from airside.stack.operations.questions import OneBatch, OneRun
from airside.stack.recovery.in_doubt import InDoubtCall
from airside.stack.recovery.rollback import RollbackReport
from airside.stack.recovery.spend_in_doubt import SpendInDoubt
from airside.stack.values import MAX_REQUEST_BYTES

Perform = Callable[[Visit, str, str], Awaitable[str]]
About = Callable[[Visit, str], Awaitable[tuple[Fact, ...]]]


@dataclass(frozen=True, slots=True)
class Input:
    """What an order is asked for beside its reason."""

    name: str
    label: str
    kind: Literal["text", "number", "choice", "lines"] = "text"
    choices: tuple[tuple[str, str], ...] = ()
    is_required: bool = False
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderKind:
    """One order: what it is called and does, who may, and where its target's page is."""

    title: str
    says: str
    button: str
    access: str
    about: About
    perform: Perform
    back: str
    inputs: tuple[Input, ...] = ()
    asks_target: str = ""
    needs_why: bool = True
    is_grave: bool = False


# What orders are about.


async def _run(visit: Visit, target: str) -> tuple[Fact, ...]:
    detail = await visit.look("run", RunDetail, OneRun(run_id=parse_run(target)))
    run = detail.run
    return facts(
        ("run", run.run_id),
        ("asked by", f"{run.principal}@{run.tenant}, {clock(run.submitted_us)}"),
        ("request", detail.request),
        ("stands", " · ".join(dict.fromkeys(filter(None, (run.status, run.reason_code or run.phase))))),
    )


async def _batch(visit: Visit, target: str) -> tuple[Fact, ...]:
    batch = await visit.look("batch", BatchSummary, OneBatch(batch=target))
    runs = sum(each.runs for each in batch.outcomes)
    active = sum(each.runs for each in batch.outcomes if each.status == "active")
    return facts(
        ("batch", batch.id),
        ("stands", batch.phase),
        ("runs", f"{runs:,}, of which {active:,} have not ended"),
        ("last order", batch.last_order),
    )


async def _doubt(visit: Visit, target: str) -> tuple[Fact, ...]:
    """Say of a call in doubt what it is: whoever says that it happened must know which one it was."""
    page = await visit.look_if("in_doubt", Listing[InDoubtCall])
    found = next((each for each in (page.items if page is not None else ()) if each.key == target), None)
    if found is None:
        return await _named(visit, target)
    return facts(
        ("call", f"{'the undo of ' if found.undo else ''}{found.tool}"),
        ("arguments", found.arguments),
        ("run", f"{found.run_id}, step {found.step}, of {found.tenant}"),
        ("since", clock(found.since_us)),
        ("why it is in doubt", found.cause),
    )


async def _spend(visit: Visit, target: str) -> tuple[Fact, ...]:
    page = await visit.look_if("spend_in_doubt", Listing[SpendInDoubt])
    found = next((each for each in (page.items if page is not None else ()) if each.key == target), None)
    if found is None:
        return await _named(visit, target)
    return facts(
        ("question to", found.model),
        ("run", f"{found.run_id}, step {found.step}, of {found.tenant}"),
        ("since", clock(found.since_us)),
        ("counts as", f"{money(found.reserved.cost_microusd)}, {found.reserved.tokens:,} tokens"),
        ("why it is in doubt", found.cause),
    )


async def _named(visit: Visit, target: str) -> tuple[Fact, ...]:
    return facts(("about", target or "everything"), ("by", f"{visit.session.who.principal}@{visit.session.who.tenant}"))


# What they do.


def _stop(action: str, scope: str) -> Perform:
    async def stop(visit: Visit, target: str, why: str) -> str:
        reached, _ = await visit.operate(action, scope, target, why)
        done = "killed" if action == "kill" else "cancelled"
        return f"{reached} run{'s are' if reached != 1 else ' is'} {done}: {target or 'all'}"

    return stop


async def _roll_back(visit: Visit, target: str, why: str) -> str:
    _, body = await visit.operate("rollback", "run", target, why)
    report = msgspec.json.decode(body, type=RollbackReport)
    counts: dict[str, int] = {}
    for line in report.calls:
        counts[line.outcome] = counts.get(line.outcome, 0) + 1
    said = ", ".join(f"{count} {_UNDO_WORDS.get(outcome, outcome)}" for outcome, count in counts.items())
    rest = "" if report.is_complete else "; it is not complete: resolve what is in doubt, then order it again"
    return f"Rolled back {target}: {said or 'there was nothing to undo'}{rest}"


_UNDO_WORDS = {"nothing": "without an undo", "in_doubt": "in doubt", "left": "not come to"}


def _switch(scope: str, *, off: bool) -> Perform:
    async def switch(visit: Visit, target: str, why: str) -> str:
        hours = visit.form.get("hours")
        if off and hours not in dict(_FOR.choices):
            raise InvalidInput("for how long: choose one of the times")
        until_us = visit.now_us + int(hours) * 3_600_000_000 if off and hours else 0
        action = "switch_off" if off else "switch_on"
        chosen = scope or _scope(visit.form.get("scope"))
        await visit.operate(action, chosen, "" if chosen == "all" else target, why, until_us=until_us)
        until = f" until {clock(until_us)}" if until_us else ""
        return f"{chosen} {target} is switched {'off' + until if off else 'on again'}"

    return switch


def _scope(text: str) -> str:
    if text not in dict(_SCOPES):
        raise InvalidInput("what is to be switched off: choose one of the kinds")
    return text


async def _settle(visit: Visit, target: str, why: str) -> str:
    happened = visit.form.get("happened")
    if happened not in ("yes", "no"):
        raise InvalidInput("say whether it happened")
    text = visit.form.get("output").strip()
    output = text.encode("utf-8", "surrogatepass") or b"null"
    parse_bounded(output, max_bytes=MAX_REQUEST_BYTES, where="what it returned")
    await visit.operate("settle", "run", target, why, happened=happened == "yes", output=output)
    return f"It is on record that {target} {'happened' if happened == 'yes' else 'did not happen'}"


async def _resolve_spend(visit: Visit, target: str, why: str) -> str:
    tokens = visit.form.get("tokens").strip()
    cost = _whole("what it cost", visit.form.get("cost_microusd"))
    await visit.operate(
        "resolve_spend", "run", target, why, tokens=_whole("tokens", tokens) if tokens else None, cost_microusd=cost
    )
    return f"It is on record that {target} cost {money(cost)}"


def _whole(name: str, text: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise InvalidInput(f"{name}: give a whole number of at least 0")
    return int(text)


def _change(action: BatchAction, done: str) -> Perform:
    async def change(visit: Visit, target: str, why: str) -> str:
        order = BatchChange(action=action, **_changed(visit, action))
        await visit.operate("batch", "all", target, why, output=msgspec.json.encode(order))
        return f"The batch {target} {done}"

    return change


def _changed(visit: Visit, action: BatchAction) -> dict[str, Any]:
    """Return what a change of a batch says beyond what it is."""
    if action == "requeue":
        ids = tuple(filter(None, (line.strip() for line in visit.form.get("job_ids").splitlines())))
        if not 0 < len(ids) <= MOST_REQUEUED:
            raise InvalidInput(f"jobs: give 1 to {MOST_REQUEUED:,}, one in a line")
        return {"job_ids": ids}
    if action != "retune":
        return {}
    given = {name: visit.form.get(name).strip() for name in ("concurrency", "rate_per_s", "priority")}
    try:
        settings = msgspec.convert({k: v for k, v in given.items() if v}, BatchSettings, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"how it is to run: {error}") from None
    if settings == BatchSettings():
        raise InvalidInput("say what is to be changed")
    return {"settings": settings}


_SCOPES = (
    ("run", "a run, by its id"),
    ("principal", "a principal, as TENANT/PRINCIPAL"),
    ("tenant", "a tenant, by its name"),
    ("tool", "a tool, by its name (the house's operators)"),
    ("version", "a version of the app (the house's operators)"),
    ("all", "everything (the house's operators)"),
)
_FOR = Input(
    "hours",
    "For how long",
    "choice",
    (("", "until it is taken back"), ("1", "1 hour"), ("4", "4 hours"), ("24", "a day"), ("168", "a week")),
)
_WHAT_SCOPE = Input("scope", "What", "choice", _SCOPES, is_required=True)
_RUN_BACK, _BATCH_BACK = "/runs/{}", "/batches/{}"

ORDERS: dict[str, OrderKind] = {
    "cancel_run": OrderKind(
        title="Cancel a run",
        says="The run is withdrawn: it ends at once. What it did stays done; a call under way is in doubt.",
        button="Cancel the run",
        access="order:cancel",
        about=_run,
        perform=_stop("cancel", "run"),
        back=_RUN_BACK,
        needs_why=False,
        is_grave=True,
    ),
    "kill_run": OrderKind(
        title="Kill a run",
        says="The run ends at once, whatever it is doing. What it did stays done; a call under way is in doubt.",
        button="Kill the run",
        access="order:kill",
        about=_run,
        perform=_stop("kill", "run"),
        back=_RUN_BACK,
        is_grave=True,
    ),
    "roll_back_run": OrderKind(
        title="Roll back a run",
        says="What the run and its branches did is undone, latest call first. It stops at the first that cannot be "
        "undone; ordered again it goes on from there. What has no undo stays.",
        button="Roll it back",
        access="order:rollback",
        about=_run,
        perform=_roll_back,
        back=_RUN_BACK,
        is_grave=True,
    ),
    "kill_tenant": OrderKind(
        title="Kill all runs of a tenant",
        says="Every run of the tenant ends at once. New ones begin unless the tenant is switched off as well.",
        button="Kill all its runs",
        access="order:kill",
        about=_named,
        perform=_stop("kill", "tenant"),
        back="/now",
        asks_target="the tenant's name",
        is_grave=True,
    ),
    "switch_off_run": OrderKind(
        title="Switch a run off",
        says="The run goes on, but no effect of it begins any more until it is switched on again.",
        button="Switch it off",
        access="order:switch_off",
        about=_run,
        perform=_switch("run", off=True),
        back=_RUN_BACK,
        inputs=(_FOR,),
    ),
    "switch_off": OrderKind(
        title="Switch something off",
        says="No run that it covers is admitted, and no effect that it covers begins, from when this returns. What is "
        "at work goes on: a kill ends that.",
        button="Switch it off",
        access="order:switch_off",
        about=_named,
        perform=_switch("", off=True),
        back="/switches",
        inputs=(_WHAT_SCOPE, _FOR),
        asks_target="its id or name (nothing for everything)",
        is_grave=True,
    ),
    "switch_on": OrderKind(
        title="Switch something on again",
        says="What the switch covers may begin again.",
        button="Switch it on",
        access="order:switch_on",
        about=_named,
        perform=_switch("", off=False),
        back="/switches",
        inputs=(_WHAT_SCOPE,),
        asks_target="its id or name (nothing for everything)",
    ),
    "settle": OrderKind(
        title="Resolve a call in doubt",
        says="You say what became of the call. A run that waits for it goes on with that; of one that has ended it is "
        "put on record. It is said once, and stays.",
        button="Put it on record",
        access="order:settle",
        about=_doubt,
        perform=_settle,
        back="/in-doubt",
        inputs=(
            Input("happened", "Did it happen?", "choice", (("yes", "yes"), ("no", "no")), is_required=True),
            Input("output", "What it returned, as JSON", "lines", hint="only if it happened; nothing means null"),
        ),
    ),
    "resolve_spend": OrderKind(
        title="Resolve spend in doubt",
        says="You say what the attempt cost, by the provider's bill. What was counted too much goes back to "
        "the budgets.",
        button="Put it on record",
        access="order:resolve_spend",
        about=_spend,
        perform=_resolve_spend,
        back="/in-doubt",
        inputs=(
            Input("cost_microusd", "What it cost, in millionths of a dollar", "number", is_required=True),
            Input("tokens", "Tokens", "number", hint="nothing: as they were counted"),
        ),
    ),
    "pause_batch": OrderKind(
        title="Pause a batch",
        says="It submits nothing more for now. Its runs that are under way go on.",
        button="Pause it",
        access="order:batch",
        about=_batch,
        perform=_change("pause", "is paused"),
        back=_BATCH_BACK,
    ),
    "resume_batch": OrderKind(
        title="Resume a batch",
        says="It submits jobs again.",
        button="Resume it",
        access="order:batch",
        about=_batch,
        perform=_change("resume", "goes on"),
        back=_BATCH_BACK,
    ),
    "retune_batch": OrderKind(
        title="Change how a batch runs",
        says="It holds for what is submitted from then on. What is left empty stays as it is.",
        button="Change it",
        access="order:batch",
        about=_batch,
        perform=_change("retune", "runs as you said from here on"),
        back=_BATCH_BACK,
        inputs=(
            Input("concurrency", "Jobs under way at once", "number", hint=f"1 to {MOST_CONCURRENCY:,}"),
            Input("rate_per_s", "Submissions a second", "text", hint="0: as many as there is room for"),
            Input("priority", "Priority", "text", hint="a higher one begins before others of its tenant"),
        ),
    ),
    "requeue_batch": OrderKind(
        title="Run jobs of a batch again",
        says="Each of these jobs is run once more, as a new run.",
        button="Run them again",
        access="order:batch",
        about=_batch,
        perform=_change("requeue", "runs these jobs again"),
        back=_BATCH_BACK,
        inputs=(Input("job_ids", "Jobs", "lines", is_required=True, hint="their ids, one in a line"),),
    ),
    "cancel_batch": OrderKind(
        title="Cancel a batch",
        says="It submits nothing more, and its runs that are under way are withdrawn.",
        button="Cancel the batch",
        access="order:batch",
        about=_batch,
        perform=_change("cancel", "is cancelled"),
        back=_BATCH_BACK,
        is_grave=True,
    ),
}
"""Every order, by the name that addresses have for it."""
