"""The command line: `airside --help`.

Commands find the stack by its state directory (`--state-dir`, or `AIRSIDE_STATE_DIR`; `.airside` by default).  Audit
commands read the journal's file where no stack runs.  Exit codes: 0; 1 where what was asked about is not as it should
be, or could not be done or read; 2 for a misuse or a refusal, which is one line on stderr.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import importlib.metadata
import json
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from airside.batch_cli import batch
from airside.bench_cli import bench
from airside.in_doubt_cli import in_doubt
from airside.logs_cli import logs
from airside.mcp_cli import mcp
from airside.memory_cli import memory
from airside.models_cli import questions, record
from airside.options import HERE, OfTenant, RunOrPart, StateDir, Why, nothing_before, renamed, say_none
from airside.output import json_line
from airside.replay_cli import replay
from airside.run_cli import run
from airside.runs_cli import runs
from airside.serve_cli import serve
from airside.stack.canonical import as_text
from airside.stack.errors import AirsideError, Failed, InternalError, InvalidConfig, InvalidInput, Misuse, Unreadable
from airside.stack_cli import down, up
from airside.status_cli import status

if TYPE_CHECKING:
    from airside.actors.app import App
    from airside.actors.client.client import Stack

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Governed LLM agent jobs on Ray.",
)
switch = typer.Typer(no_args_is_help=True, help="Kill switches: what may not begin.")
approvals = typer.Typer(help="What waits for people, each value with where it comes from.")
audit = typer.Typer(no_args_is_help=True, help="The journal: check it, ask it, have a run told.")
token = typer.Typer(no_args_is_help=True, help="Tokens for local use.")
app.add_typer(switch, name="switch")
app.add_typer(approvals, name="approvals")
app.add_typer(batch, name="batch")
app.add_typer(in_doubt, name="in-doubt")
app.add_typer(in_doubt, name="doubts", hidden=True)
app.add_typer(audit, name="audit")
app.add_typer(memory, name="memory")
app.add_typer(mcp, name="mcp")
app.add_typer(runs, name="runs")
app.add_typer(token, name="token")
audit.command()(questions)
for command in (run, up, down, status, logs, record, replay, bench, serve):
    app.command()(command)

As = Annotated[str, typer.Option("--as", help="the principal who decides, with the stack's local key")]
Credential = Annotated[str, typer.Option("--token", help="a token or API key of whoever decides")]
Note = Annotated[str, typer.Option(help="why, for the journal and whoever asked")]
_APPROVAL_HELP = (
    "the id of an approval, or of a question about several, as `airside approvals` shows it; six characters of its "
    "beginning or end are enough, where no other one has them"
)
ApprovalArgument = Annotated[str, typer.Argument(help=_APPROVAL_HELP)]
ApprovalArguments = Annotated[list[str], typer.Argument(help=f"{_APPROVAL_HELP}; repeatable")]
SwitchScopeText = Annotated[
    str, typer.Argument(help="all, tenant, principal (as TENANT/PRINCIPAL), run, tool, or version")
]
SwitchTarget = Annotated[str, typer.Argument(help="which; nothing for all")]


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"airside {importlib.metadata.version('airside')}")
        raise typer.Exit


@app.callback()
def whole(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="say which version this is")
    ] = False,
) -> None:
    """Governed LLM agent jobs on Ray."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; the console script's entry."""
    if arguments is None:
        atexit.register(_end_in_silence)  # before all others are registered, so it is called after them
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a name may be no Unicode
    try:
        app(arguments)
    except AirsideError as error:
        _say(error.message)
        sys.exit(1 if isinstance(error, Failed | InternalError) else 2)
    except OSError as error:
        _say(f"{error.filename or 'a file'}: {error.strerror or error}")
        sys.exit(2)


def _end_in_silence() -> None:
    """Let nothing be said while the interpreter is taken down: DuckDB's bindings list what was not freed by then."""
    with contextlib.suppress(OSError):
        sys.stderr.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _say(problem: str) -> None:
    typer.echo(f"airside: {as_text(problem)}", err=True)


def load_app(name: str, arguments: list[str]) -> App:
    """Make the app `MODULE[:NAME]` with `NAME=VALUE` arguments; raise `InvalidConfig` saying what is wrong."""
    from airside.actors.app import App

    module_name, _, attribute = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise InvalidConfig(f"--app {name}: {error}") from None
    except AirsideError:
        raise
    except Exception as error:
        raise InvalidConfig(f"--app {name}: {_describe_exception(error)}") from None
    found = getattr(module, attribute, None) if attribute else _find_app(module)
    if attribute and found is None:
        raise InvalidConfig(f"--app {name}: {module_name} has no {attribute!r}")
    given = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise InvalidConfig(f"--app-arg {argument!r}: write NAME=VALUE")
        given[key] = value
    try:
        made = found(**given) if callable(found) else found
    except AirsideError:
        raise
    except Exception as error:
        raise InvalidConfig(f"--app {name}: {_describe_exception(error)}") from None
    if made is None:
        raise InvalidConfig(f"--app {name}: there is no App and nothing that makes one (`app` or `create_app`)")
    if not isinstance(made, App):
        raise InvalidConfig(f"--app {name}: that is a {type(made).__name__}, and no App nor a function that makes one")
    return made


def _describe_exception(error: Exception) -> str:
    """Return what an app's own code raised, and where."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame for frame in frames if frame.filename not in (__file__, importlib.__file__) and "<" not in frame.filename
    ]
    place = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {error}{place}"


def _find_app(module: Any) -> Any:
    """Return a module's `app` or `create_app`; of a package, that of its module `app`."""
    for candidate in ("create_app", "app"):
        found = getattr(module, candidate, None)
        if found is not None and not hasattr(found, "__path__"):
            return found if candidate == "create_app" or not hasattr(found, "create_app") else found.create_app
    with contextlib.suppress(ImportError):
        return _find_app(importlib.import_module(f"{module.__name__}.app"))
    return None


@contextlib.contextmanager
def attached(state_dir: Path) -> Iterator[Stack]:
    """Yield the running stack of a state directory."""
    import airside

    with airside.connect(state_dir) as stack:
        yield stack


@app.command()
def demo(
    yes: Annotated[bool, typer.Option("--yes", help="give the approvals without asking")] = False,
    state_dir: StateDir = HERE / "demo",
) -> None:
    """Run a batch of proposals in which every request ends another way."""
    from airside.demo.run import run_demo

    raise typer.Exit(run_demo(state_dir, yes=yes))


@app.command()
def kill(
    run_id: Annotated[
        str | None, typer.Option("--run", help="a run's id, or six characters of its beginning or end")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="all runs of a tenant")] = None,
    everything: Annotated[bool, typer.Option("--all", help="all runs")] = False,
    why: Why = "",
    state_dir: StateDir = HERE,
) -> None:
    """End runs, whatever they are doing."""
    with attached(state_dir) as stack:
        typer.echo(f"killed {stack.kill(run=run_id, tenant=tenant, all=everything, why=why)}")


def _switch_argument(scope: str, target: str) -> dict[str, Any]:
    """Return what a switch is about; raise `Misuse` for a scope there is not, or a target that means nothing there."""
    from airside.stack.policy.kill_switches import SwitchScope

    if scope not in get_args(SwitchScope):
        raise Misuse(f"switch: {scope!r:.80}: say one of {', '.join(get_args(SwitchScope))}")
    if scope == "all" and target:
        raise Misuse(f"switch: all is everything: it has no target {target!r:.80}")
    return {scope: target or scope == "all"}


@switch.command()
def off(
    scope: SwitchScopeText,
    target: SwitchTarget = "",
    why: Why = "",
    for_s: Annotated[float, typer.Option("--for", help="seconds; without it until it is switched on")] = 0,
    state_dir: StateDir = HERE,
) -> None:
    """Admit no run and start no effect of these from here on; what is at work goes on (`airside kill` ends it)."""
    with attached(state_dir) as stack:
        stack.switch_off(why=why, for_s=for_s, **_switch_argument(scope, target))
    typer.echo(f"off: {scope} {target}".rstrip() + (f", for {for_s:g} s" if for_s else ""))


@switch.command()
def on(
    scope: SwitchScopeText,
    target: SwitchTarget = "",
    why: Why = "",
    state_dir: StateDir = HERE,
) -> None:
    """Take a switch back."""
    with attached(state_dir) as stack:
        stack.switch_on(why=why, **_switch_argument(scope, target))
    typer.echo(f"on: {scope} {target}".rstrip())


@switch.command("list")
def switch_list(state_dir: StateDir = HERE) -> None:
    """List what is switched off, one JSON object a line."""
    import msgspec

    with attached(state_dir) as stack:
        off_now = stack.switches()
    for thrown in off_now:
        typer.echo(msgspec.json.encode(thrown).decode())
    say_none(off_now, "nothing is switched off")


@app.command()
def rollback(
    run_id: RunOrPart,
    why: Why = "",
    state_dir: StateDir = HERE,
) -> None:
    """Undo what an ended run did, latest first; one JSON object a call, exit code 1 if something is left."""
    import msgspec

    with attached(state_dir) as stack:
        report = stack.rollback(run_id, why=why)
    for line in report.calls:
        typer.echo(msgspec.json.encode(line).decode())
    say_none(report.calls, f"{report.run_id} called nothing that changes something: there is nothing to undo")
    raise typer.Exit(0 if report.is_complete else 1)


@in_doubt.command("settle", hidden=True)
@in_doubt.command()
def resolve(
    context: typer.Context,
    run_id: Annotated[
        str, typer.Argument(help="a run's id, or a part of it as elsewhere; or one of the keys, if there are several")
    ],
    happened: Annotated[bool, typer.Option("--happened/--not-happened", help="what you found out")],
    output: Annotated[str, typer.Option(help="the call's result, as JSON")] = "null",
    why: Why = "",
    state_dir: StateDir = HERE,
) -> None:
    """Say what became of a run's call in doubt: one that waits goes on, of one that has ended it is put on record."""
    renamed(context, "settle", "resolve")
    with attached(state_dir) as stack:
        found = _json(output, "--output")
        typer.echo(f"resolved {stack.resolve(run_id, happened=happened, output=found, why=why)}")


@in_doubt.command("resolve-spend")
def resolve_spend(
    key: Annotated[str, typer.Argument(help="the key of an attempt, as `airside in-doubt spend` lists it")],
    cost: Annotated[float, typer.Option(help="USD that it cost, by the provider's bill")],
    tokens: Annotated[int | None, typer.Option(help="tokens that it took; as counted, if left out")] = None,
    why: Why = "",
    state_dir: StateDir = HERE,
) -> None:
    """Say what an attempt at a question to a model cost: the rest goes back to the budgets its tenant shares.

    Its run has to have ended. It is put on record, once; what nobody resolves stays counted in full.
    """
    if not 0 <= cost <= 1e6:
        raise InvalidInput(f"--cost {cost}: give USD, from 0 to a million")
    with attached(state_dir) as stack:
        typer.echo(f"resolved {stack.resolve_spend(key, cost_microusd=round(cost * 1e6), tokens=tokens, why=why)}")


@approvals.callback(invoke_without_command=True)
def approvals_show(context: typer.Context, tenant: OfTenant = "", state_dir: StateDir = HERE) -> None:
    """Show what waits, oldest first: the call, and a line for each value with where it comes from.

    Calls like each other of one decision are one question: approve or reject all of them by its id, or each by its own.
    """
    from airside.actors.client.results import question_lines, questions

    if context.invoked_subcommand is not None:
        return nothing_before(context)
    with attached(state_dir) as stack:
        waiting = stack.approvals(tenant or None)
    lines = [line for question in questions(waiting) for line in question_lines(question)]
    typer.echo("\n".join(lines) or "nothing waits for people")


@approvals.command("list")
def approvals_list(tenant: OfTenant = "", state_dir: StateDir = HERE) -> None:
    """List what waits, oldest first, one JSON object a line."""
    import msgspec

    with attached(state_dir) as stack:
        waiting = stack.approvals(tenant or None)
        for approval in waiting:
            fields = {name: getattr(approval, name) for name in approval.__slots__}
            typer.echo(json.dumps(msgspec.to_builtins(fields)))
    say_none(waiting, "nothing waits for people")


@approvals.command()
def approve(
    approval_ids: ApprovalArguments,
    principal: As = "",
    credential: Credential = "",
    note: Note = "",
    state_dir: StateDir = HERE,
) -> None:
    """Approve a call, all calls of a question, or several: one vote, which counts on all of them or on none."""
    with attached(state_dir) as stack:
        typer.echo(stack.approve(approval_ids, token=credential, principal=principal, note=note) or "counted")


@approvals.command()
def reject(
    approval_ids: ApprovalArguments,
    principal: As = "",
    credential: Credential = "",
    note: Note = "",
    state_dir: StateDir = HERE,
) -> None:
    """Reject a call, all calls of a question, or several: one vote, which counts on all of them or on none."""
    with attached(state_dir) as stack:
        typer.echo(stack.reject(approval_ids, token=credential, principal=principal, note=note))


@approvals.command()
def edit(
    approval_id: ApprovalArgument,
    arguments: Annotated[str, typer.Argument(help="the new arguments, a JSON object")],
    principal: As = "",
    credential: Credential = "",
    note: Note = "",
    state_dir: StateDir = HERE,
) -> None:
    """Approve a call with other arguments; it is validated and gated again."""
    with attached(state_dir) as stack:
        new = _json(arguments, "arguments")
        typer.echo(stack.edit(approval_id, new, token=credential, principal=principal, note=note))


@approvals.command()
def answer(
    approval_id: ApprovalArgument,
    text: Annotated[str, typer.Argument(help="one of the question's choices, a text, or the JSON of its fields")],
    principal: As = "",
    credential: Credential = "",
    note: Note = "",
    state_dir: StateDir = HERE,
) -> None:
    """Answer a question that an agent asks, or a tool before it completes a call."""
    with attached(state_dir) as stack:
        typer.echo(stack.answer(approval_id, text, token=credential, principal=principal, note=note))


def _json(text: str, where: str) -> Any:
    """Parse an argument that is JSON."""
    from airside.stack.canonical import parse_bounded
    from airside.stack.values import MAX_REQUEST_BYTES

    return parse_bounded(text.encode(errors="surrogatepass"), max_bytes=MAX_REQUEST_BYTES, where=where)


@audit.command()
def verify(state_dir: StateDir = HERE) -> None:
    """Check every tenant's chain and the checkpoints; exit code 1 if anything is wrong."""
    from airside.actors.audit import open_audit

    try:
        with open_audit(state_dir) as journal:
            problems = journal.verify()
    except Unreadable:
        typer.echo("the journal cannot be read")
        raise
    for problem in problems:
        typer.echo(problem, err=True)
    typer.echo("the journal is not whole" if problems else "the journal is whole")
    raise typer.Exit(1 if problems else 0)


@audit.command()
def query(
    sql: Annotated[str, typer.Argument(help="one SELECT, over events, runs and outcomes")], state_dir: StateDir = HERE
) -> None:
    """Answer one SELECT over `events`, `runs` and `outcomes`, one JSON object a row."""
    from airside.actors.audit import open_audit

    with open_audit(state_dir) as journal:
        rows = journal.query(sql).to_pylist()
    for row in rows:
        typer.echo(json_line(row))
    say_none(rows, "no rows")


@audit.command()
def follow(
    tenant: OfTenant = "",
    credential: Annotated[
        str, typer.Option("--token", help="a token or API key of a principal with role auditor")
    ] = "",
    after: Annotated[str, typer.Option(help='begin after the entry with this cursor, or "now"')] = "",
    timeout: Annotated[
        float | None, typer.Option(help="end when nothing more has come for so many seconds; 0: with what is there")
    ] = None,
    state_dir: StateDir = HERE,
) -> None:
    """Print the entries of a running stack's journal in order, one JSON object a line, and go on as they come."""
    import msgspec

    with attached(state_dir) as stack:
        for entry in stack.subscribe(tenant=tenant or None, token=credential, after=after, timeout=timeout):
            fields = {name: value for name, value in msgspec.structs.asdict(entry).items() if name != "body"}
            typer.echo(json_line({**fields, "event": entry.event}))


@audit.command()
def story(run_id: RunOrPart, state_dir: StateDir = HERE) -> None:
    """Tell a run: what happened, and why."""
    from airside.actors.audit import open_audit

    with open_audit(state_dir) as journal:
        typer.echo(journal.story(run_id))


@token.command()
def issue(
    tenant: Annotated[str, typer.Argument(help="whose principal it is for")],
    principal: Annotated[str, typer.Argument(help="whom it proves its holder to be")],
    ttl: Annotated[int, typer.Option(help="seconds it is good for")] = 3600,
    role: Annotated[list[str] | None, typer.Option(help="for a tenant that is open; repeatable")] = None,
    scope: Annotated[list[str] | None, typer.Option(help="for a tenant that is open; repeatable")] = None,
    area: Annotated[list[str] | None, typer.Option(help="narrows it to this area; repeatable")] = None,
    state_dir: StateDir = HERE,
) -> None:
    """Sign a token with the stack's local key, for somebody the directory of the latest start has."""
    import time

    from airside.actors.client.known_principals import check_known
    from airside.stack.security.access import AREAS
    from airside.stack.security.authenticator import issue_token
    from airside.stack.security.keyring import KeyRing

    if not (state_dir / "keys").is_dir():
        raise Misuse(f"{state_dir} has no keys: start a stack there first")
    if wrong := [each for each in area or () if each not in AREAS]:
        raise Misuse(f"token: there is no area {wrong[0]!r:.40}; there are {', '.join(sorted(AREAS))}")
    check_known(state_dir, tenant, principal, roles=role or (), scopes=scope or ())
    keys = KeyRing.open(state_dir / "keys")
    claims: dict[str, Any] = {"roles": role or [], "scopes": scope or []}
    if area:
        claims["scope"] = " ".join(area)
    now_s = int(time.time())
    typer.echo(issue_token(keys.issuer_pem, tenant=tenant, principal=principal, now_s=now_s, ttl_s=ttl, claims=claims))
